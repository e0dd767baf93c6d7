"""The grid and the outliers in closed form, given the codes.

The error tr((Q - W) H (Q - W)^T) is a quadratic in whatever Q depends on linearly. With E = Q - W, and C the
codes of one group g,

    scale alone             dS = - <C - Z, (E H)_g> / <C - Z, (C - Z) H_gg>
    scale S and offset O    [<C, C H_gg>  <C, 1 H_gg>; .  1 H_gg 1] (dS, dO) = - (<C, (E H)_g>, <1, (E H)_g>)
    scales that are codes   the level nearest to the minimiser, of the scale and then of the zero
    outliers of a row       H_SS dV = - (E H)_S  on their positions S

One group is moved after another, and E H follows, so that no step can raise the error but for rounding to
float16. A Hessian may be singular, or indefinite by rounding, and its minimiser far away or nowhere: so no
scale moves further than by a factor of REACH from where it started, an offset no further than the grid is
wide, and outliers take damped steps and stay within REACH times the largest weight.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.weights.grid import Grid, float_grid
from methods.weights.levels import stored

REACH = 4.0
DAMPING = 1e-3  # of the steps of outliers, relative to the largest diagonal entry among them
CHUNK = 2**24  # entries of the systems solved together


@dataclass(frozen=True)
class Refit:
    """What may be refitted in some rows of a matrix."""

    hessian: Tensor  # (in, in), live
    grid: Grid  # of the whole matrix, at the start: how its scales are stored
    rows: slice

    def grid_for(self, codes: Tensor, grid: Grid, aim: Tensor) -> tuple[Grid, Tensor]:
        """The best grid of these rows for given codes; and (Q - W) H on it.

        Args:
            codes: (rows, in).
            grid: of these rows, where to start.
            aim: (rows, in), W H.
        """
        scale, zero = grid.scale.clone(), grid.zero.clone()
        offset = None if grid.offset is None else grid.offset.clone()
        solve = self._scale_then_zero if offset is None else self._scale_and_offset
        groups = group_columns(grid)
        if len(groups) == 1:  # one product is enough: all else follows from it
            weighed, flat = codes.to(aim.dtype) @ self.hessian, self.hessian.sum(0)
            pulled = scale * (weighed - zero * flat) - aim
            solve(0, codes.to(aim.dtype), weighed, flat, pulled, scale, zero, offset)
            pulled = scale * (weighed - zero * flat) - aim
        else:
            pulled = (grid.decode(codes) @ self.hessian).sub_(aim)
            for group, columns in enumerate(groups):
                code, across = codes[:, columns].to(aim.dtype), self.hessian[columns]
                part = across[:, columns]
                before = (code - zero[:, group, None]) * scale[:, group, None]
                solve(group, code, code @ part, part.sum(0), pulled[:, columns], scale, zero, offset)
                pulled.addmm_((code - zero[:, group, None]) * scale[:, group, None] - before, across)
        if offset is not None:
            return float_grid(grid.bits, scale, offset, grid.group_index), pulled
        return replace(grid, scale=scale, zero=zero), pulled

    def _scale_and_offset(self, group: int, code: Tensor, weighed: Tensor, flat: Tensor, pulled: Tensor,
                          scale: Tensor, zero: Tensor, offset: Tensor) -> None:  # fmt: skip
        """`weighed` is C H_gg, `flat` 1 H_gg; writes the group's column of scale, zero and offset."""
        a, b, d = (code * weighed).sum(1), weighed.sum(1), flat.sum()
        x, y = (code * pulled).sum(1), pulled.sum(1)
        determinant = a * d - b * b
        solvable = determinant > 1e-6 * a * d
        determinant = torch.where(solvable, determinant, 1)
        new_scale = self._half(scale[:, group] - (d * x - b * y) / determinant)
        new_offset = self._half(offset[:, group] - (a * y - b * x) / determinant)
        first, origin = self.grid.scale[self.rows, group], self.grid.offset[self.rows, group]
        fine = (
            solvable
            & self._near(new_scale, first)
            & ((new_offset - origin).abs() <= self.grid.max_code * first)
        )
        scale[:, group] = torch.where(fine, new_scale, scale[:, group])
        offset[:, group] = torch.where(fine, new_offset, offset[:, group])
        zero[:, group] = -offset[:, group] / scale[:, group]

    def _scale_then_zero(self, group: int, code: Tensor, weighed: Tensor, flat: Tensor, pulled: Tensor,
                         scale: Tensor, zero: Tensor, offset: None) -> None:  # fmt: skip
        shifted, weighed = code - zero[:, group, None], weighed - zero[:, group, None] * flat
        curvature = (shifted * weighed).sum(1)
        wanted = scale[:, group] - (shifted * pulled).sum(1) / torch.where(curvature > 0, curvature, 1)
        if self.grid.scale_levels is None:
            wanted = self._half(wanted)
        else:
            wanted = nearest(self.grid.scale_levels.choices()[self.rows, group], wanted)
        fine = (curvature > 0) & self._near(wanted, self.grid.scale[self.rows, group])
        step = torch.where(fine, wanted, scale[:, group]) - scale[:, group]
        scale[:, group] += step
        if self.grid.zero_levels is not None:
            total, pull = flat.sum(), pulled.sum(1) + step * weighed.sum(1)
            wanted = zero[:, group] + pull / (scale[:, group] * torch.where(total > 0, total, 1))
            zero[:, group] = torch.where(
                total > 0, nearest(self.grid.zero_levels.choices()[self.rows, group], wanted), zero[:, group]
            )

    def _near(self, scale: Tensor, first: Tensor) -> Tensor:
        return (scale <= REACH * first) & (scale >= first / REACH)

    def _half(self, values: Tensor) -> Tensor:
        return values.to(stored(self.grid.scale).dtype).to(values.dtype)


def refit_outliers(correction: Tensor, pulled: Tensor, hessian: Tensor, largest: float) -> Tensor:
    """The best values of outliers at the given positions, row by row, in float16.

    Args:
        correction: (rows, in), zero but for the outliers.
        pulled: (Q - W) H with this correction in Q.
        largest: absolute weight, of the whole matrix.
    """
    most = int((correction != 0).sum(1).max())
    if most == 0:
        return correction
    better = correction.clone()
    size = max(1, CHUNK // most**2)
    for first in range(0, len(correction), size):
        rows = slice(first, first + size)
        present, columns = (correction[rows] != 0).to(torch.uint8).topk(most, dim=1)
        present = present.bool()
        system = hessian[columns[:, :, None], columns[:, None, :]].double() * (
            present[:, :, None] & present[:, None, :]
        )
        diagonal = torch.diagonal(system, dim1=1, dim2=2)
        diagonal += torch.where(present, DAMPING * diagonal.amax(1, keepdim=True), 1.0)
        wanted = torch.where(present, -pulled[rows].gather(1, columns), 0).double()
        step, info = torch.linalg.solve_ex(system, wanted)
        step = torch.where((info == 0)[:, None] & torch.isfinite(step) & present, step, 0).to(
            correction.dtype
        )
        better[rows] = better[rows].scatter_add(1, columns, step)
    rounded = better.to(torch.float16).to(better.dtype)
    return torch.where(rounded.abs() <= REACH * largest, rounded, correction)


def group_columns(grid: Grid) -> list[Tensor]:
    """The columns of each group."""
    order = torch.argsort(grid.group_index, stable=True)
    return list(order.split(torch.bincount(grid.group_index, minlength=grid.scale.shape[1]).tolist()))


def nearest(choices: Tensor, wanted: Tensor) -> Tensor:
    """Of each row of choices (rows, n) the one nearest to what is wanted (rows,)."""
    return choices.gather(1, (choices - wanted[:, None]).abs().argmin(1, keepdim=True)).squeeze(1)
