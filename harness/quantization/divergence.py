"""Walks that cannot go on: what counts as diverged, and what becomes of the errors of a method.

A run has diverged as soon as one of these holds a value that is not finite: a parameter of a block that was
rewritten, a rounded weight, a tuned weight, or an activation of a block that follows rounded ones.
Activations that only float weights have touched are no method's fault: there the model's dtype is too small.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.foundation.errors import UserError, overflow


class Diverged(Exception):
    """A block or a rounded weight holds a value that is not finite."""


class SolveError(Exception):
    """A solver, a transform or a tuning failed; the message names the block or the linear, and its shape."""


def check_finite(values: Tensor, message: str) -> None:
    """
    Raises:
        Diverged: one of them is not.
    """
    if not _finite(values):
        raise Diverged(message)


def check_activations(values: Tensor, what: str, dtype: torch.dtype, of_float: bool) -> None:
    """
    Args:
        values: activations, or a sum over them.
        dtype: of the model.
        of_float: no rounded weight has had a part in them.

    Raises:
        UserError: one of them is not finite, though nothing was rounded yet.
        Diverged: one of them is not finite.
    """
    if not _finite(values):
        raise (UserError if of_float else Diverged)(overflow(what, str(dtype).removeprefix("torch.")))


def _finite(values: Tensor) -> bool:
    """Are all? Their sum says so, in float64 because that of many large float16 values would be infinite."""
    return torch.isfinite(values.sum(dtype=torch.float64)).item()


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Raise as `SolveError` whatever a method raises, but for exhausted GPU memory, which ends as another
    status.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise SolveError(f"{name}: {type(error).__name__}: {error}") from error
