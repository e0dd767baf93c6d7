"""QuantEase with outliers: coordinate descent on the rounded part, hard thresholding on the sparse one.

Behdin et al., arXiv 2309.01885, Algorithm 3: minimise |(W - W^ - H^) X|^2 over W^ on the grid and H^ with at
most s non-zero entries, or columns.

    paper                        code
    W^, H^                       values, correction
    sweep on W^ towards W - H^   Descent whose weight is W - H^
    P_s                          keep_largest
    L, largest eigenvalue        `largest_eigenvalue`; the step is step_scale / L

The two parts are minimised in turns because each is easy while the other stands still: with H^ fixed, W^ is
the plain problem for the weight W - H^; with W^ fixed, H^ has a smooth objective and a count to keep, and a
gradient step of at most 1 / L, cut back to the largest entries, never raises the error. A sweep leaves
W^ + H^ - W and its feedback behind: so the gradient costs hardly a product of its own.

H^ starts as the largest part of W, and its values are float16 at every step: what is solved with is what is
stored. The grid is fitted on W - H^, that is without outliers, whenever H^ has moved; from the last relaxed
sweep on it stays.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from methods.contracts.problem import LayerProblem, LayerSolver, Solution
from methods.kernels.threads import over_rows
from methods.solving.descent import Descent, Feedback, Matmul
from methods.solving.linalg import column_order, layer_error, unit_hessian
from methods.solving.ranges import find_grid
from methods.solving.schedule import Schedule
from methods.weights.grid import Grid
from methods.weights.outliers import (
    ColumnCorrected,
    SparseCorrected,
    corrected,
    keep_largest,
    outlier_count,
    without_outliers,
)
from methods.weights.stored import UniformWeight

MOST_POWERS, SETTLED = 200, 1e-5


def solve_with_outliers(
    problem: LayerProblem,
    schedule: Schedule,
    start: LayerSolver | None,
    act_order: bool,
    step_scale: float,
    block_size: int,
) -> Solution:
    """Sweeps and thresholding steps in turns; `methods.quantease.QuantEase` says what the options are."""
    order, back = column_order(problem.hessian, act_order)
    hessian = unit_hessian(problem.hessian)[order][:, order]
    begin = None if start is None else start_with_outliers(problem, start)
    ordered = replace(problem, weight=problem.weight[:, order], hessian=hessian)
    first = begin and permuted(begin.weight, order)
    alternation = Alternation(ordered, first, step_scale, block_size)
    sweeps = changed = 0
    last_relaxed = schedule.last_relaxed
    for sweep in range(schedule.sweeps):
        sweeps, changed = sweep + 1, alternation.sweep(not schedule.relaxes(sweep), schedule.precision(sweep))
        moved = alternation.threshold(refit=begin is None and sweep <= last_relaxed)
        if sweep > last_relaxed and not changed and not moved:
            break
    weight = permuted(alternation.answer(), back)
    stats = {"sweeps": sweeps, "changed": float(changed) / problem.weight.numel()}
    if begin is not None:
        stats = {**begin.stats, **stats}
        candidates = (begin.weight, weight)
        errors = [layer_error(problem.weight, each.dequantize(), problem.hessian) for each in candidates]
        weight = weight if errors[1] < errors[0] else begin.weight
    stats["outliers"] = weight.values.numel() / problem.weight.numel()
    return Solution(weight, stats, begin.fallbacks if begin else ())


def start_with_outliers(problem: LayerProblem, start: LayerSolver) -> Solution:
    """The start's answer, given what the largest entries, or columns, leave if it knows no outliers."""
    if start.skip_reason(problem.scheme) is None:
        return start.solve(problem)
    correction = largest(problem.weight, problem)
    rest = replace(problem, weight=problem.weight - correction, scheme=without_outliers(problem.scheme))
    solution = start.solve(rest)
    return replace(solution, weight=corrected(solution.weight, correction, problem.scheme.outlier_structure))


class Alternation:
    """The two parts of a layer's answer, moved in turns; tensors (out, in), columns in order of sweeps."""

    def __init__(
        self,
        problem: LayerProblem,
        start: SparseCorrected | ColumnCorrected | None,
        step_scale: float,
        block_size: int,
    ):
        self.problem = problem
        diagonal = torch.diagonal(problem.hessian)[:, None]
        self.steps = step_scale / largest_eigenvalue(problem.hessian) * diagonal
        self.correction = largest(problem.weight, problem) if start is None else start.correction()
        target = problem.weight - self.correction
        self.grid = grid_without(problem, self.correction) if start is None else start.base.grid
        values = target if start is None else start.base.dequantize()
        feedback = Feedback.of_hessian(problem.hessian)
        self.descents: dict[int, Descent] = {}  # by first row

        def descent(rows: slice) -> None:
            grid = self.grid.rows(rows)
            self.descents[rows.start] = Descent(target[rows], values[rows], feedback, grid, block_size)

        self._over_rows(descent)

    def sweep(self, rounded: bool, matmul: Matmul) -> int:
        """One pass of coordinate descent over all columns; how many values it moved."""
        return int(sum(self._over_rows(lambda rows: self.descents[rows.start].sweep(rounded, matmul=matmul))))

    def threshold(self, refit: bool) -> bool:
        """One step of hard thresholding on the correction; did anything move?

        Args:
            refit: fit the grid anew on what the correction leaves.
        """

        def stepped(rows: slice) -> Tensor:
            # anchored to W - H^, a descent has W^ + H^ - W for its offset, and H_kk (offset - pull)_k is
            # column k of that times H: the gradient
            descent = self.descents[rows.start]
            return self.correction[rows] - ((descent.offset - descent.exact_pull()) * self.steps).T

        before, self.correction = self.correction, largest(torch.cat(self._over_rows(stepped)), self.problem)
        if torch.equal(before, self.correction):
            return False
        if refit:
            self.grid = grid_without(self.problem, self.correction)

        def aim(rows: slice) -> None:
            descent = self.descents[rows.start]
            descent.shift(self.correction[rows] - before[rows])
            if refit:
                descent.regrid(self.grid.rows(rows))

        self._over_rows(aim)
        return True

    def answer(self) -> SparseCorrected | ColumnCorrected:
        values = torch.cat(self._over_rows(lambda rows: self.descents[rows.start].values))
        base = UniformWeight(self.grid.encode(values), self.grid)
        return corrected(base, self.correction, self.problem.scheme.outlier_structure)

    def _over_rows(self, work: Callable):
        return over_rows(work, len(self.problem.weight), self.problem.weight.device)


def largest(values: Tensor, problem: LayerProblem) -> Tensor:
    """What hard thresholding keeps of a matrix, in storable values."""
    return keep_largest(values, outlier_count(problem.scheme, values.shape), problem.scheme.outlier_structure)


def permuted(
    weight: SparseCorrected | ColumnCorrected, order: Tensor | slice
) -> SparseCorrected | ColumnCorrected:
    """The same answer with its columns in another order."""
    base = UniformWeight(weight.base.codes[:, order], weight.base.grid.columns(order))
    return type(weight).of(base, weight.correction()[:, order])


def grid_without(problem: LayerProblem, correction: Tensor) -> Grid:
    """The grid fitted on what a correction leaves of the weight: of zeros where it takes all."""
    return find_grid(replace(problem, weight=problem.weight - correction))


def largest_eigenvalue(hessian: Tensor) -> float:
    """By power iteration in float64, from the diagonal; 1 for a Hessian of zeros."""
    matrix = hessian.double()
    vector, before = torch.diagonal(matrix).clone(), 0.0
    for _ in range(MOST_POWERS):
        norm = vector.norm()
        if norm == 0:
            return 1.0
        vector = matrix @ (vector / norm)
        now = vector.norm().item()
        if abs(now - before) <= SETTLED * now:
            break
        before = now
    return now
