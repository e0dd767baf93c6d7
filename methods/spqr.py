"""SpQR: GPTQ on small groups, with the weights that hurt most when rounded kept as outliers.

Dettmers, Svirschevski, Egiazarian, Kuznedelev, Frantar, Ashkboos, Borzunov, Hoefler, Alistarh: SpQR: A
Sparse-Quantized Representation for Near-Lossless LLM Weight Compression, arXiv 2306.03078, Algorithm 1. The
two-level scales and zeros are the scheme's (`scale_bits`).

    paper                              code
    H^-1 and its Cholesky factor       UpperFactor.upper, R, as in `methods.gptq`; 1 / [chol H^-1]_kk is R_kk
    s_ij, sensitivity of a weight      `leave_one_out` before rounding, (q - target)^2 R_kk^2 at its turn
    tau                                threshold, solved for so that the share of outliers is the scheme's

In each group of columns the weights whose removal lowers the group's error by more than the threshold are
left out of the fit of the grid. Then columns are rounded in turn, and a weight whose own error passes the
threshold stays as it is: what it would have lost is kept in float16 on top of its code.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import Damping, Size, Within, check_bounds
from methods.contracts.effort import factorization, grid_fit, one_sweep
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import OutlierStructure, RangeRule, Scheme
from methods.gptq import triangular_feedback
from methods.kernels.threads import over_rows
from methods.solving.descent import Descent, Feedback
from methods.solving.linalg import column_order, upper_factor
from methods.solving.ranges import find_grid, fit_grid, grid_parameters, widened
from methods.weights.grid import Grid
from methods.weights.levels import storable_together
from methods.weights.outliers import SparseCorrected, outlier_count
from methods.weights.stored import UniformWeight

NOISE = 1e-4  # in steps of the grid: what is nearer to it than this lies on it


@dataclass(frozen=True)
class SpQR:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    damping: Damping  # added to the diagonal, relative to its mean
    act_order: bool  # round the columns with the largest diagonal first
    # how often at most the layer is rounded to find the threshold: once to see the errors, once to use them
    passes: Annotated[int, Within(2, 10**6)]
    # how far below the asked share of outliers the found one may be, relative to it
    tolerance: Annotated[float, Within(0, 1, above=True, below=True)]
    block_size: Size  # columns between two matrix products; changes no result but rounding noise

    rows_independent: ClassVar[bool] = True  # without outliers and two-level scales

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme) -> str | None:
        if scheme.outlier_ratio and scheme.outlier_structure is OutlierStructure.column:
            return "SpQR's outliers are single entries; set scheme.outlier_structure=unstructured"
        return None

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """Half of the passes with outliers, one without: each a sweep, and the grids twice."""
        passes = self.passes / 2 if scheme.outlier_ratio else 1
        one_pass = 2 * grid_fit(rows, columns, scheme) + one_sweep(rows, columns, triangular=True)
        return factorization(columns) + passes * one_pass

    def solve(self, problem: LayerProblem) -> Solution:
        order, back = column_order(problem.hessian, self.act_order)
        factor = upper_factor(problem.hessian[order][:, order], self.damping)
        one_pass = Pass(problem, order, factor.upper.to(problem.weight.dtype), self.block_size)
        count = outlier_count(problem.scheme, problem.weight.shape)
        stats, fallbacks = {"damping": factor.damping}, factor.fallbacks
        if count == 0:
            values, grid, _ = one_pass.run(math.inf)
            grid = grid.columns(back)
            return Solution(UniformWeight(grid.encode(values[:, back]), grid), stats, fallbacks)
        values, grid, kept = self._search(one_pass, count)
        if not kept.any():
            fallbacks = (*fallbacks, f"no threshold found that keeps at most {count} outliers; none kept")
        grid = grid.columns(back)
        base = UniformWeight(grid.encode(values[:, back]), grid)
        correction = torch.where(kept[:, back], values[:, back] - base.dequantize(), 0.0)
        weight = SparseCorrected.of(base, storable_together(correction))
        return Solution(weight, stats | {"outliers": weight.values.numel() / values.numel()}, fallbacks)

    def _search(self, one_pass: "Pass", count: int) -> tuple[Tensor, Grid, Tensor]:
        """The pass whose threshold keeps the most outliers that are not too many."""
        best = one_pass.run(math.inf)
        costs = one_pass.costs(best[0]).flatten()
        threshold = costs.kthvalue(costs.numel() - count).values.item()
        too_many = few_enough = None  # (threshold, outliers) on either side
        for _ in range(self.passes - 1):
            rounding = one_pass.run(threshold)
            outliers = int(rounding[2].sum())
            if outliers > count:
                too_many = threshold, outliers
            else:
                if few_enough is None or outliers > few_enough[1]:
                    best = rounding
                few_enough = threshold, outliers
                if outliers >= (1 - self.tolerance) * count or threshold == 0:
                    break
            threshold = next_threshold(too_many, few_enough, (1 - self.tolerance / 2) * count)
        return best


def next_threshold(
    too_many: tuple[float, int] | None, few_enough: tuple[float, int] | None, wanted: float
) -> float:
    """Between the two, outliers taken as a power of the threshold; while one is missing, beyond the other."""
    if too_many is None or few_enough is None:
        threshold, kept = too_many or few_enough
        return threshold * min(max(kept / wanted, 0.1), 10) ** 0.7
    (low, most), (high, fewest) = too_many, few_enough
    share = math.log(most / wanted) / math.log(most / fewest) if fewest else 0.5
    return low * (high / low) ** min(max(share, 0.1), 0.9) if low > 0 else high / 2


@dataclass(frozen=True)
class Pass:
    """One rounding of all columns, in order, group by group."""

    problem: LayerProblem
    order: Tensor | slice
    upper: Tensor  # R for the columns in order
    block_size: int

    def run(self, threshold: float) -> tuple[Tensor, Grid, Tensor]:
        """Values, grid, and which entries were kept as outliers; columns in order."""
        scheme, rows = self.problem.scheme, len(self.problem.weight)
        # rows that share a grid of scales stay in one slice
        together = scheme.scale_group_size if scheme.scale_bits else 1
        learned = None if self.problem.ranges is None else find_grid(self.problem).columns(self.order)

        def some(part: slice) -> tuple[Tensor, Grid, Tensor]:
            return self._run(part, threshold, learned and learned.rows(part))

        values, grids, kept = zip(*over_rows(some, rows, self.problem.weight.device, together), strict=True)
        return torch.cat(values), learned or Grid.stacked(list(grids)), torch.cat(kept)

    def _run(self, rows: slice, threshold: float, learned: Grid | None) -> tuple[Tensor, Grid, Tensor]:
        problem, scheme, upper = self.problem, self.problem.scheme, self.upper
        weight, prices = problem.weight[rows][:, self.order], torch.diagonal(upper) ** 2
        weighed = scheme.range is RangeRule.search_hessian
        importance = torch.diagonal(problem.hessian)[self.order] if weighed else None
        limits = (threshold / prices).sqrt()
        size = scheme.group_size if scheme.group_size and learned is None else weight.shape[1]
        values, grids = weight.clone(), []
        for first in range(0, weight.shape[1], size):
            group = slice(first, first + size)
            owed = (weight[:, :first] - values[:, :first]) @ upper[:first, group]
            own = upper[group, group]
            now = weight[:, group] + torch.linalg.solve_triangular(own, owed, upper=True, left=False)
            grid = learned
            if learned is None:
                likely = leave_one_out(now, scheme, prices[group]) > threshold
                weights = None if importance is None else importance[group]
                grid = fit_grid(without(now, likely), scheme, weights)
            grids.append(grid)
            feedback = Feedback(triangular_feedback(own))
            descent = Descent(now, now, feedback, grid, self.block_size, limits[group])
            descent.sweep(rounded=True)
            values[:, group] = descent.values
        grid = learned or Grid.side_by_side(grids)
        far = (grid.round(values) - values).abs()
        noise = NOISE * grid.scale[:, grid.group_index]  # of values that lie on the grid
        return values, grid, far > torch.maximum(0.99 * limits, noise)

    def costs(self, values: Tensor) -> Tensor:
        """What rounding each weight at its turn cost, (out, in): (q - target)_k R_kk = [(q - w) R]_k."""
        return ((values - self.problem.weight[:, self.order]) @ self.upper) ** 2


def leave_one_out(group: Tensor, scheme: Scheme, prices: Tensor) -> Tensor:
    """By how much the error of a group (out, size) falls if one weight need not be rounded, (out, size).

    On a min-max grid. Only the weights at the ends of the range have a say in it; without any other the rest
    is rounded as before.
    """
    if group.shape[1] == 1:
        return torch.full_like(group, -math.inf)  # nothing would be left to fit a grid to

    def lost(low: Tensor, high: Tensor) -> Tensor:
        scale, zero, _ = grid_parameters(*widened(low, high, scheme), scheme)
        rounded = (group / scale + zero).round_().clamp_(0, scheme.max_code).sub_(zero).mul_(scale)
        return (rounded - group) ** 2 * prices

    lows, highs = group.topk(2, dim=1, largest=False), group.topk(2, dim=1)
    low, high = lows.values[:, :1], highs.values[:, :1]
    whole = lost(low, high)
    gain = whole.clone()
    for end, rest_ends in (
        (lows.indices, (lows.values[:, 1:], high)),
        (highs.indices, (low, highs.values[:, 1:])),
    ):
        rest = lost(*rest_ends)
        rest_total = rest.sum(1, keepdim=True) - rest.gather(1, end[:, :1])
        gain.scatter_(1, end[:, :1], whole.sum(1, keepdim=True) - rest_total)
    return gain


def without(group: Tensor, likely: Tensor) -> Tensor:
    """The group with likely outliers replaced by the mean of the others in their row, for the grid's sake."""
    others = (~likely).sum(1, keepdim=True)
    mean = torch.where(likely, 0.0, group).sum(1, keepdim=True) / others.clamp(min=1)
    return torch.where(likely & (others > 0), mean, group)
