"""Perplexity and zero-shot tasks, each with its protocol."""
