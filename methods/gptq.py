"""GPTQ: columns rounded one after another, each error made up for by the columns not yet rounded.

Frantar, Ashkboos, Hoefler, Alistarh: GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers, ICLR 2023, arXiv 2210.17323. Algorithm 1 with lazy updates in blocks; act-order and static
groups as in the authors' code.

    paper                        code
    H + lambda I                 hessian, `damping` times its mean diagonal added
    Cholesky(H^-1)^T = U         inverse of UpperFactor.upper, R
    w_k after updates by j < k   target_k = w_k - sum over j < k of (q_j - w_j) R_jk / R_kk
    B                            block_size

The second form of the target is the same number without the inverse (Chee, Cai, Kuleshov, De Sa: QuIP, arXiv
2307.13304, theorem 6), and makes GPTQ one sweep of `methods.solving.descent` with a triangular feedback.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import Damping, Size, check_bounds
from methods.contracts.effort import factorization, grid_fit, one_sweep
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import RangeRule, Scheme
from methods.kernels.threads import over_rows
from methods.solving.descent import Descent, Feedback
from methods.solving.linalg import column_order, upper_factor
from methods.solving.ranges import find_grid, fit_grid
from methods.weights.grid import Grid
from methods.weights.outliers import refuses_outliers
from methods.weights.stored import UniformWeight


@dataclass(frozen=True)
class GPTQ:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    damping: Damping  # added to the diagonal, relative to its mean
    block_size: Size  # columns between two matrix products; changes no result but rounding noise
    act_order: bool  # round the columns with the largest diagonal first
    static_groups: bool  # fit the grids of all groups on the original weights, before any rounding

    rows_independent: ClassVar[bool] = True

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme) -> str | None:
        return refuses_outliers(scheme, "GPTQ")

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """The grid, the factor of the Hessian, one sweep of half a product."""
        sweep = one_sweep(rows, columns, triangular=True)
        return grid_fit(rows, columns, scheme) + factorization(columns) + sweep

    def solve(self, problem: LayerProblem) -> Solution:
        order, back = column_order(problem.hessian, self.act_order)
        factor = upper_factor(problem.hessian[order][:, order], self.damping)
        weight = problem.weight[:, order]
        upper = factor.upper.to(weight.dtype)
        if self.static_groups or problem.scheme.group_size is None or problem.ranges is not None:
            values, grid = self._round(weight, upper, find_grid(problem).columns(order))
        else:
            searches = problem.scheme.range is RangeRule.search_hessian
            importance = torch.diagonal(problem.hessian)[order] if searches else None
            values, grid = self._round_fitting(weight, upper, problem.scheme, importance)
        grid = grid.columns(back)
        weight = UniformWeight(grid.encode(values[:, back]), grid)
        return Solution(weight, {"damping": factor.damping}, factor.fallbacks)

    def _round(self, weight: Tensor, upper: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """The rounded values on a given grid, and that grid."""
        feedback = Feedback(triangular_feedback(upper))

        def some(rows: slice) -> Tensor:
            return self._sweep(weight[rows], feedback, grid.rows(rows))

        return torch.cat(over_rows(some, len(weight), weight.device)), grid

    def _round_fitting(
        self, weight: Tensor, upper: Tensor, scheme: Scheme, importance: Tensor | None
    ) -> tuple[Tensor, Grid]:
        """The rounded values, and a grid whose groups were each fitted on what was left to round by then."""

        def some(rows: slice) -> tuple[Tensor, Grid]:
            values, grids = weight[rows].clone(), []
            for first in range(0, weight.shape[1], scheme.group_size):
                group = slice(first, first + scheme.group_size)
                owed = (weight[rows, :first] - values[:, :first]) @ upper[:first, group]
                own = upper[group, group]
                now = weight[rows, group] + torch.linalg.solve_triangular(own, owed, upper=True, left=False)
                grids.append(fit_grid(now, scheme, None if importance is None else importance[group]))
                values[:, group] = self._sweep(now, Feedback(triangular_feedback(own)), grids[-1])
            return values, Grid.side_by_side(grids)

        # rows that share a grid of scales stay in one slice
        together = scheme.scale_group_size if scheme.scale_bits else 1
        values, grids = zip(*over_rows(some, len(weight), weight.device, together), strict=True)
        return torch.cat(values), Grid.stacked(list(grids))

    def _sweep(self, weight: Tensor, feedback: Feedback, grid: Grid) -> Tensor:
        descent = Descent(weight, weight, feedback, grid, self.block_size)
        descent.sweep(rounded=True)
        return descent.values


def triangular_feedback(upper: Tensor) -> Tensor:
    """[k, j] = -R_jk / R_kk for j < k."""
    return (upper / -torch.diagonal(upper)).triu(1).T.contiguous()
