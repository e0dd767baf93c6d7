"""Published numbers and claims, as package data."""
