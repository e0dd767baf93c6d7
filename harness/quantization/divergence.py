"""Walks that cannot go on: values that are not finite, solvers that fail."""


class Diverged(Exception):
    """A block or a rounded weight holds a value that is not finite."""


class SolveError(Exception):
    """A solver failed; the message names the linear and its shape."""
