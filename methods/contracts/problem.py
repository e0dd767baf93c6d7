"""The layer-wise problem that every solver is handed, and what it hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor

from methods.contracts.quantized_weight import QuantizedWeight
from methods.contracts.scheme import Scheme


@dataclass(frozen=True)
class Ranges:
    """End points of every grid, when a transform has learned them."""

    low: Tensor  # (out, groups)
    high: Tensor  # (out, groups)


@dataclass(frozen=True)
class LayerProblem:
    """min over Q on the grid of tr((W - Q) H (W - Q)^T).

    `weight` and `hessian` share dtype and device; a solver computes in that dtype.
    """

    weight: Tensor  # (out, in)
    hessian: Tensor  # (in, in), E[x x^T] over the calibration tokens, symmetric
    scheme: Scheme
    ranges: Ranges | None = None


@dataclass(frozen=True)
class Solution:
    """A rounded weight, and what the record should know about how it was found."""

    weight: QuantizedWeight
    stats: Mapping[str, float] = field(default_factory=dict)  # e.g. damping, sweeps
    fallbacks: tuple[str, ...] = ()  # anything done instead of what was asked, in words


class LayerSolver(Protocol):
    """Rounds one matrix. Pure: the same problem gives the same answer; knows no module, model or file."""

    rows_independent: ClassVar[bool]  # does a row of the answer depend on that row of the weight alone?

    def skip_reason(self, scheme: Scheme) -> str | None:
        """Why this scheme makes no sense for this solver, or None."""
        ...

    def solve(self, problem: LayerProblem) -> Solution: ...
