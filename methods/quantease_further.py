"""QuantEase, further: annealed coordinate descent, the grid refitted in closed form after every sweep.

Not published. Two things hold plain descent back. It stops at the first point that no single weight can
leave: here the targets of a sweep are dithered with Gaussian noise that cools down to nothing, much as in
Gibbs sampling of the error (a weight of curvature H_kk at temperature T is spread by sqrt(T / 2 H_kk)), and
lower points are found. And its grid was chosen before anything was rounded: here scale and zero follow the
codes (`methods.solving.refit`), and so do the values of outliers, at the positions where the start has put
them.

    T = heat * (1 - sweep / sweeps) * E / in,  where E is the error of the row at the start

All rows see the same noise, scaled by their own temperature: rows remain independent, and answers do not
depend on how they are sliced.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import CountOrZero, Factor, Seed, Size, check_bounds
from methods.contracts.effort import counted, grid_fit, one_sweep, product
from methods.contracts.problem import LayerProblem, LayerSolver, Solution
from methods.contracts.scheme import Scheme
from methods.kernels.threads import over_rows
from methods.solving.alternation import start_with_outliers
from methods.solving.descent import Descent, Feedback
from methods.solving.linalg import energy, unit_hessian
from methods.solving.refit import Refit, refit_outliers
from methods.weights.grid import Grid
from methods.weights.outliers import corrected, outlier_count, without_outliers
from methods.weights.stored import UniformWeight

OUTLIERS_EVERY = 5  # sweeps between two refits of the outliers, which cost more than a sweep


@dataclass(frozen=True)
class QuantEaseFurther:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    start: LayerSolver  # whose answer is improved on; no row ends up worse
    sweeps: CountOrZero  # passes over all columns while it cools down
    heat: Factor  # temperature of the first sweep, in units of a row's error per weight
    # at most so many passes without noise after that; ends early when no code changes any more
    settle: CountOrZero
    seed: Seed  # of the noise
    block_size: Size  # columns between two matrix products; changes no result but rounding noise

    rows_independent: ClassVar[bool] = True  # but for the start's choice of outliers, and two-level scales

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme) -> str | None:
        return self.start.skip_reason(without_outliers(scheme))

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """Sweeps in which all weights move, half of those that settle; each with a product for the grid."""
        sweeps = self.sweeps + self.settle / 2
        begin = counted(self.start, rows, columns, scheme) or grid_fit(rows, columns, scheme)
        return begin + sweeps * (one_sweep(rows, columns, triangular=False) + product(rows, columns))

    def solve(self, problem: LayerProblem) -> Solution:
        outliers = outlier_count(problem.scheme, problem.weight.shape)
        begin = start_with_outliers(problem, self.start) if outliers else self.start.solve(problem)
        base = begin.weight.base if outliers else begin.weight
        correction = begin.weight.correction() if outliers else None
        hessian = unit_hessian(problem.hessian)
        feedback, judge = Feedback.of_hessian(hessian), hessian.double()

        def improve(rows: slice) -> Rows:
            outlying = None if correction is None else correction[rows]
            first = Rows(base.codes[rows], base.grid.rows(rows), outlying)
            refit = Refit(hessian, base.grid, rows)
            return self._improve(problem.weight[rows], first, feedback, refit, judge)

        parts = over_rows(improve, len(problem.weight), problem.weight.device)
        grid = joined(base.grid, [part.grid for part in parts])
        weight = UniformWeight(torch.cat([part.codes for part in parts]), grid)
        stats = {**begin.stats, "sweeps": self.sweeps}
        if outliers:
            correction = torch.cat([part.correction for part in parts])
            weight = corrected(weight, correction, problem.scheme.outlier_structure)
            stats["outliers"] = weight.values.numel() / problem.weight.numel()
        return Solution(weight, stats, begin.fallbacks)

    def _improve(
        self, weight: Tensor, first: "Rows", feedback: Feedback, refit: Refit, judge: Tensor
    ) -> "Rows":
        """The rows of `first` annealed; of each row the better of the two."""
        start_energy = energy(first.dense() - weight, judge)
        generator = torch.Generator().manual_seed(self.seed)
        spread = torch.diagonal(refit.hessian).mul(2).rsqrt()
        largest = weight.abs().max().item()
        now, aim = first, first.target(weight) @ refit.hessian
        descent = Descent(now.target(weight), now.grid.decode(now.codes), feedback, now.grid, self.block_size)
        for sweep in range(self.sweeps + self.settle):
            temperature = max(0.0, 1 - sweep / self.sweeps) * self.heat if self.sweeps else 0.0
            noise = torch.randn(spread.shape, generator=generator, dtype=spread.dtype).to(spread.device)
            noise *= spread
            heat = (temperature * start_energy / len(spread)).sqrt().to(weight.dtype)
            descent.sweep(rounded=True, dither=(noise, heat) if temperature else None)
            codes = now.grid.encode(descent.values)
            if not temperature and torch.equal(codes, now.codes):
                break
            grid, pulled = refit.grid_for(codes, now.grid, aim)
            now = Rows(codes, grid, now.correction)
            if now.correction is not None and sweep % OUTLIERS_EVERY == OUTLIERS_EVERY - 1:
                now = replace(now, correction=refit_outliers(now.correction, pulled, refit.hessian, largest))
                aim = now.target(weight) @ refit.hessian
                descent.reset(now.target(weight), grid.decode(codes), grid)
            else:
                pull = now.dense() - weight - pulled / torch.diagonal(refit.hessian)
                descent.reset(now.target(weight), grid.decode(codes), grid, pull)
        worse = energy(now.dense() - weight, judge) >= start_energy
        return now.but(worse, first)


@dataclass(frozen=True)
class Rows:
    """Some rows of an answer."""

    codes: Tensor
    grid: Grid
    correction: Tensor | None

    def dense(self) -> Tensor:
        values = self.grid.decode(self.codes)
        return values if self.correction is None else values + self.correction

    def target(self, weight: Tensor) -> Tensor:
        return weight if self.correction is None else weight - self.correction

    def but(self, which: Tensor, other: "Rows") -> "Rows":
        """These rows, with those where `which` (rows,) is true taken from another answer."""

        def choose(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
            return None if mine is None else torch.where(which[:, None], theirs, mine)

        names = ("scale", "zero", "offset")
        parts = {name: choose(getattr(self.grid, name), getattr(other.grid, name)) for name in names}
        codes, correction = choose(self.codes, other.codes), choose(self.correction, other.correction)
        return Rows(codes, replace(self.grid, **parts), correction)


def joined(grid: Grid, parts: list[Grid]) -> Grid:
    """The grid of the whole matrix from those of its rows; scales that are codes find their codes again."""
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("scale", "zero")}
    if grid.offset is not None:
        whole["offset"] = torch.cat([part.offset for part in parts])
    for name, levels in (("scale", grid.scale_levels), ("zero", grid.zero_levels)):
        if levels is not None:
            codes = (levels.choices() - whole[name][..., None]).abs().argmin(-1)
            whole[f"{name}_levels"] = replace(levels, codes=codes.to(torch.uint8))
    return replace(grid, **whole)
