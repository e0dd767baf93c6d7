"""The contracts every method is written against, and the algebra they share."""
