"""One run's name, description, clock, log, words and ending."""
