"""Round to nearest: every weight by itself to the nearest point of its grid, blind to the data."""

from dataclasses import dataclass
from typing import ClassVar

from methods.contracts.effort import grid_fit
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import Scheme
from methods.solving.ranges import find_grid
from methods.weights.outliers import refuses_outliers
from methods.weights.stored import UniformWeight


@dataclass(frozen=True)
class RTN:
    rows_independent: ClassVar[bool] = True

    def skip_reason(self, scheme: Scheme) -> str | None:
        return refuses_outliers(scheme, "rounding to nearest")

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        return grid_fit(rows, columns, scheme)

    def solve(self, problem: LayerProblem) -> Solution:
        grid = find_grid(problem)
        return Solution(UniformWeight(grid.encode(problem.weight), grid))
