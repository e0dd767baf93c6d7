"""QuantEase's seconds against the width of a layer, beside the matrix products that are its bulk, and what
that means for large models.

One sweep multiplies a (rows, width) matrix by the (width, width) Hessian: 2 * rows * width^2 operations.
Seconds per sweep are those of a whole solve less those of one with no sweeps, over the sweeps asked for; rows
= width, layers are synthetic.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from harness.benchmarks.layers import Layer, method_named, synthetic_layer
from harness.benchmarks.measure import available_bytes, timed
from harness.config.compose import scheme_named
from harness.foundation.errors import UserError
from methods.contracts.problem import LayerProblem, LayerSolver
from methods.solving.descent import products_in

QUICK = 0.3  # seconds of two sweeps below which a solve is repeated
# of width x width float32 that a measurement may need at once: the layer, the solver's work, the product's
# operands
COPIES = 8
MODELS = {  # linears of one block as (rows, columns), and how many blocks
    "OPT-66B": (64, ((9216, 9216),) * 4 + ((36864, 9216), (9216, 36864))),
    "Falcon-180B": (80, ((15872, 14848), (14848, 14848), (59392, 14848), (14848, 59392))),
}
PAPER_HOURS = {"Falcon-180B": 3.0}  # arXiv 2309.01885, abstract: about three hours on one A100


@dataclass(frozen=True)
class Size:
    """One width."""

    width: int
    sweeps: int
    seconds: float  # a whole solve
    setup_seconds: float  # the same with no sweeps: ranges, couplings, packing of nothing
    product_seconds: float  # one (width, width) @ (width, width) product of the same precision

    @property
    def sweep_seconds(self) -> float:
        return max(self.seconds - self.setup_seconds, 1e-9) / self.sweeps

    @property
    def rate(self) -> float:
        """Operations per second of a sweep."""
        return 2 * self.width**3 / self.sweep_seconds

    @property
    def product_rate(self) -> float:
        return 2 * self.width**3 / self.product_seconds

    @property
    def share(self) -> float:
        """Of the matrix-product rate."""
        return self.rate / self.product_rate


@dataclass(frozen=True)
class Budget:
    """When to stop: `seconds` in all, counted from `start`."""

    seconds: float
    start: float

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)


def solver_for(matmul: str | None, sweeps: int | None) -> LayerSolver:
    """QuantEase as configured, with another precision of its products or another number of sweeps.

    Raises:
        UserError: this QuantEase has no such precision.
    """
    changes = {
        name: value for name, value in {"matmul": matmul, "sweeps": sweeps}.items() if value is not None
    }
    return method_named("quantease", changes).solver


def measure(widths: Sequence[int], solver: LayerSolver, device: str, budget: Budget) -> Iterator[Size | str]:
    """Sizes in ascending width; a last sentence instead, where the budget or the memory ends before the
    widths do.
    """
    before: Size | None = None
    took = 0.0
    for place, width in enumerate(sorted(widths)):
        rest = f"not measured: {', '.join(map(str, sorted(widths)[place:]))}"
        if before is not None:
            expected = took * (width / before.width) ** 3
            if expected > budget.left():
                left = max(budget.left(), 0)
                time_is_up = f"would take about {expected:.0f} s, {left:.0f} s are left"
                yield f"{rest} (width {width} {time_is_up}; raise --max-seconds)"
                return
        needed, there = COPIES * 4 * width**2, available_bytes(device)
        if needed > there:
            sizes = f"needs about {needed / 2**30:.1f} GiB, {there / 2**30:.1f} GiB are free"
            yield f"{rest} (width {width} {sizes})"
            return
        start = time.perf_counter()
        before = one_size(width, solver, device)
        took = time.perf_counter() - start
        yield before


def one_size(width: int, solver: LayerSolver, device: str) -> Size:
    """Measure one width, after two sweeps that may compile kernels. Quick solves are repeated."""
    layer = synthetic_layer(width, width, device)
    problem = LayerProblem(layer.weight, layer.hessian, scheme_named("w3"))
    empty = replace(solver, sweeps=0)
    warm, _ = timed(lambda: replace(solver, sweeps=2).solve(problem), 1, device)
    repeats = 3 if warm < QUICK else 1
    setup, _ = timed(lambda: empty.solve(problem), repeats, device)
    seconds, _ = timed(lambda: solver.solve(problem), repeats, device)
    return Size(width, solver.sweeps, seconds, setup, product_seconds(layer, solver, device))


def product_seconds(layer: Layer, solver: LayerSolver, device: str) -> float:
    """Median seconds of weight @ hessian in the precision of the solver's products."""
    out = torch.empty_like(layer.weight)

    def work() -> None:
        torch.mm(layer.weight, layer.hessian, out=out)

    with products_in(solver.matmul, layer.weight.device):
        work()
        return timed(work, 7, device)[0]


def fit(sizes: Sequence[Size]) -> tuple[float, float]:
    """(a, b) of seconds per sweep = e^a * width^b, by least squares in the logarithms.

    Raises:
        UserError: fewer than two widths were measured.
    """
    if len(sizes) < 2:
        raise UserError("--widths: an exponent needs at least two widths; name more or raise --max-seconds")
    exponent, constant = np.polyfit(
        np.log([size.width for size in sizes]), np.log([size.sweep_seconds for size in sizes]), 1
    )
    return float(constant), float(exponent)


@dataclass(frozen=True)
class Extrapolation:
    model: str
    blocks: int
    hours: float  # in the solver
    paper_hours: float | None
    beyond: float  # widest columns of the model over the largest width measured


def extrapolate(largest: Size) -> list[Extrapolation]:
    """All linears of the large models, at the rate of the largest width measured: 2 * rows * columns^2 *
    sweeps / rate.

    What a solve takes besides sweeping (ranges, mostly) grows with the number of weights.
    """
    setup_per_weight = largest.setup_seconds / largest.width**2
    found = []
    for model, (blocks, linears) in MODELS.items():
        operations = sum(2 * rows * columns**2 for rows, columns in linears) * largest.sweeps
        seconds = operations / largest.rate + setup_per_weight * sum(
            rows * columns for rows, columns in linears
        )
        widest = max(columns for _, columns in linears)
        found.append(
            Extrapolation(
                model, blocks, blocks * seconds / 3600, PAPER_HOURS.get(model), widest / largest.width
            )
        )
    return found


def caveat(largest: Size) -> str:
    return (
        f"Extrapolated from width {largest.width} at its rate, {largest.rate / 1e12:.3g} TFLOP/s: "
        "solver time alone, without calibration passes, Hessians and transfers, and assuming "
        "that wider layers run at the same rate, which only measuring them can show."
    )
