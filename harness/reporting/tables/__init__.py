"""All numbers of a model, what leads, what cannot be told apart, two runs side by side."""
