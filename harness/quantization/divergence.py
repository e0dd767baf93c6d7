"""Walks that cannot go on: what counts as diverged, and what becomes of the errors of a method.

A run has diverged as soon as one of these holds a value that is not finite: a parameter of a block that was
rewritten, a rounded weight, a tuned weight, or the output of a block on a calibration batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Diverged(Exception):
    """A block or a rounded weight holds a value that is not finite."""


class SolveError(Exception):
    """A solver, a transform or a tuning failed; the message names the block or the linear, and its shape."""


def check_finite(values: Tensor, message: str) -> None:
    """
    Raises:
        Diverged: one of them is not; the sum says so, in float64 because that of many large float16 values
            would itself be infinite.
    """
    if not torch.isfinite(values.sum(dtype=torch.float64)):
        raise Diverged(message)


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
