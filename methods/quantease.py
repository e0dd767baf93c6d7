"""QuantEase: cyclic coordinate descent on the layer's output error, each coordinate to its minimiser.

Behdin, Acharya, Gupta, Song, Zhu, Keerthi, Mazumder: QuantEase: Optimization-based Quantization for Language
Models, arXiv 2309.01885.

    paper             code
    Sigma = X X^T     hessian (its scale cancels)
    W, W^             weight, values
    beta_ij           target: W_ij - sum over k != j of (W^ - W)_ik Sigma_kj / Sigma_jj
    -Sigma_kj / Sigma_jj   feedback[j, k], with a zero diagonal
    q_i               grid

One sweep sets each column in turn to q(beta), or to beta itself in a relaxed sweep; `methods.solving.descent`
does it block by block. With outliers (the paper's Algorithm 3) see `methods.solving.alternation`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import Count, CountOrZero, PositiveFactor, Size, check_bounds
from methods.contracts.effort import ENTRY, STILL, counted, grid_fit, one_sweep, product
from methods.contracts.problem import LayerProblem, LayerSolver, Solution
from methods.contracts.scheme import Scheme
from methods.kernels.threads import over_rows
from methods.solving.alternation import solve_with_outliers
from methods.solving.descent import Descent, Feedback, Matmul
from methods.solving.linalg import column_order, live_hessian
from methods.solving.ranges import find_grid
from methods.solving.schedule import RelaxEvery, Schedule
from methods.weights.outliers import outlier_count, without_outliers
from methods.weights.stored import UniformWeight


@dataclass(frozen=True)
class QuantEase:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    sweeps: CountOrZero  # passes over all columns
    # of so many sweeps the second leaves the weights unrounded; None: all round
    relax_every: RelaxEvery | None
    settle: Count  # the last so many sweeps always round
    start: LayerSolver | None  # where the descent starts, and whose grid it keeps; None: the float weight
    act_order: bool  # visit the columns with the largest diagonal first
    # of the thresholding step that moves outliers, in units of 1 / largest eigenvalue
    step_scale: PositiveFactor
    block_size: Size  # columns between two matrix products; changes no result but rounding noise
    matmul: Matmul  # of all sweeps but the last `settle`, which are in float32

    rows_independent: ClassVar[bool] = True

    def __post_init__(self):
        check_bounds(self)

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.sweeps, self.relax_every, self.settle, self.matmul)

    def skip_reason(self, scheme: Scheme) -> str | None:
        return None if self.start is None else self.start.skip_reason(without_outliers(scheme))

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """Sweeps in which few weights move; with outliers all do, and a product and a sort follow each."""
        begin = counted(self.start, rows, columns, scheme) or grid_fit(rows, columns, scheme)
        sweep = one_sweep(rows, columns, triangular=False)
        if scheme.outlier_ratio:
            sweep = sweep + product(rows, columns) + 8 * ENTRY * rows * columns
        else:
            sweep = STILL * sweep
        return begin + self.sweeps * sweep

    def solve(self, problem: LayerProblem) -> Solution:
        if outlier_count(problem.scheme, problem.weight.shape):
            options = self.start, self.act_order, self.step_scale, self.block_size
            return solve_with_outliers(problem, self.schedule, *options)
        order, back = column_order(problem.hessian, self.act_order)
        hessian = live_hessian(problem.hessian)[0][order][:, order]
        begin = None if self.start is None else self.start.solve(problem)
        grid = find_grid(problem) if begin is None else begin.weight.grid
        feedback = Feedback.of_hessian(hessian)
        weight, ordered = problem.weight[:, order], grid.columns(order)
        first = weight if begin is None else begin.weight.dequantize()[:, order]
        judge = None if begin is None else hessian.double()

        def descend(rows: slice) -> tuple[Tensor, int, Tensor]:
            part = ordered.rows(rows)
            descent = Descent(weight[rows], first[rows], feedback, part, self.block_size)
            sweeps, changed = self._descend(descent)
            codes = part.encode(descent.values)
            if begin is not None:
                codes = part.encode(better_rows(weight[rows], first[rows], part.decode(codes), judge))
            return codes, sweeps, changed

        codes, sweeps, changed = zip(*over_rows(descend, len(weight), weight.device), strict=True)
        codes = torch.cat(codes)[:, back]
        stats = {"sweeps": max(sweeps), "changed": float(sum(changed)) / weight.numel()}
        if begin is not None:
            stats = {**begin.stats, **stats}
        return Solution(UniformWeight(codes, grid), stats, () if begin is None else begin.fallbacks)

    def _descend(self, descent: Descent) -> tuple[int, int | Tensor]:
        """Sweep until done or until nothing moves any more; (sweeps run, steps of the last one)."""
        schedule, changed = self.schedule, 0
        last_relaxed = schedule.last_relaxed
        for sweep in range(self.sweeps):
            changed = descent.sweep(not schedule.relaxes(sweep), matmul=schedule.precision(sweep))
            if sweep > last_relaxed and changed == 0:
                return sweep + 1, changed
        return self.sweeps, changed


def better_rows(weight: Tensor, first: Tensor, second: Tensor, hessian: Tensor) -> Tensor:
    """Of each row the candidate with the smaller error by a float64 Hessian, the first of equals."""
    old, new = first.double(), second.double()
    gain = (((old - new) @ hessian) * (2 * weight.double() - old - new)).sum(1)  # energy(new) - energy(old)
    return torch.where((gain < 0)[:, None], second, first)
