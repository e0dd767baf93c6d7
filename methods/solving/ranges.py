"""From a weight to its grid: end points by min-max or by search, then scale and zero.

The search shrinks each group's range by factors p = 1, 1 - 1/100, ... (as the GPTQ code does, 80 steps) and
keeps the one with the least rounding error (see `methods.kernels.range_search`), each column weighted by
`importance` if given. Towards what a range shrinks depends on the grid: towards 0 when 0 must stay on it,
towards the middle when the offset is free.

Where scales are codes themselves, ranges always hold 0, and after the search each group takes the pair of
codes (of scale and zero, near the rounded ones) with the least rounding error.
"""

from dataclasses import replace

import torch
from torch import Tensor

from methods.contracts.problem import LayerProblem, Ranges
from methods.contracts.scheme import RangeRule, Scheme, ZeroPoint
from methods.kernels.range_search import best_shrink
from methods.kernels.threads import over_rows
from methods.weights.grid import Grid, float_grid
from methods.weights.levels import at_least, fit_levels, storable

SHRINK_STEP, SHRINK_COUNT = 0.01, 80
SMALLEST_SCALE = 1e-3  # of the largest among those that share a grid, where scales are codes


def find_grid(problem: LayerProblem) -> Grid:
    """The grid of a layer problem: its learned ranges if it has any, else its scheme's rule on the weight."""
    scheme, weight = problem.scheme, problem.weight
    if problem.ranges is not None:
        return make_grid(problem.ranges.low, problem.ranges.high, scheme, weight.shape[1])
    importance = torch.diagonal(problem.hessian) if scheme.range is RangeRule.search_hessian else None
    return fit_grid(weight, scheme, importance)


def fit_grid(weight: Tensor, scheme: Scheme, importance: Tensor | None = None) -> Grid:
    """The grid of a matrix by the scheme's rule.

    Args:
        weight: (out, in); `in` must be a multiple of the group size.
        importance: (in,) non-negative weight of each column's error in the search.
    """
    ranges = fit_ranges(weight, scheme, importance)
    grid = make_grid(ranges.low, ranges.high, scheme, weight.shape[1])
    if scheme.scale_bits is not None and scheme.range is not RangeRule.minmax:
        return _best_codes(grouped(weight, scheme), grid, importance)
    return grid


def fit_ranges(weight: Tensor, scheme: Scheme, importance: Tensor | None = None) -> Ranges:
    """The end points of a matrix's grids by the scheme's rule; arguments as of `fit_grid`."""
    groups = grouped(weight, scheme)
    low, high = extremes(groups, scheme)
    if scheme.range is not RangeRule.minmax:
        low, high = _search(groups, low, high, scheme, importance)
    return Ranges(low, high)


def grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """(out, in) as (out, groups, columns of a group)."""
    return weight.reshape(len(weight), -1, scheme.group_size or weight.shape[1])


def make_grid(low: Tensor, high: Tensor, scheme: Scheme, in_features: int) -> Grid:
    """The grid between end points (out, groups); a range of zero length gets scale 1."""
    groups = low.shape[1]
    group_index = torch.arange(in_features, device=low.device) // (in_features // groups)
    if scheme.scale_bits is not None:
        return _two_level_grid(low, high, scheme, group_index)
    scale, zero, offset = grid_parameters(low, high, scheme)
    if offset is not None:
        return float_grid(scheme.bits, scale, offset, group_index)
    return Grid(scheme.bits, scale, zero, group_index, symmetric=scheme.symmetric)


def grid_parameters(low: Tensor, high: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor | None]:
    """(scale, zero, offset or None) of the grid from low to high, all in storable values."""
    scale = storable(torch.where(high > low, (high - low) / scheme.max_code, 1.0))
    if scheme.zero_point is ZeroPoint.float:
        offset = storable(low)
        return scale, -offset / scale, offset
    if scheme.symmetric:
        return scale, torch.full_like(scale, 2 ** (scheme.bits - 1)), None
    return scale, torch.clamp(torch.round(-low / scale), 0, scheme.max_code), None


def _two_level_grid(low: Tensor, high: Tensor, scheme: Scheme, group_index: Tensor) -> Grid:
    scale = at_least(SMALLEST_SCALE, (high - low) / scheme.max_code, scheme.scale_group_size)
    levels = fit_levels(scale, scheme.scale_bits, scheme.scale_group_size)
    grid = Grid(
        scheme.bits,
        levels.decode(),
        torch.zeros_like(scale),
        group_index,
        symmetric=scheme.symmetric,
        scale_levels=levels,
    )
    if scheme.symmetric:
        return replace(grid, zero=torch.full_like(scale, 2 ** (scheme.bits - 1)))
    zero = torch.clamp(-low / grid.scale, 0, scheme.max_code)
    if scheme.zero_point is ZeroPoint.integer:
        return replace(grid, zero=zero.round())
    levels = fit_levels(zero, scheme.scale_bits, scheme.scale_group_size)
    return replace(grid, zero=levels.decode(), zero_levels=levels)


def _best_codes(groups: Tensor, grid: Grid, importance: Tensor | None) -> Grid:
    """The grid with each group's codes of scale and zero replaced by the pair, of all near ones, with the
    least rounding error.
    """
    scale_codes, scales = grid.scale_levels.nearby()
    if grid.zero_levels is not None:
        zero_codes, zeros = grid.zero_levels.nearby()
    elif grid.symmetric:
        zeros = grid.zero[..., None]
    else:
        zeros = (
            grid.zero[..., None] + torch.arange(-2, 3, dtype=grid.zero.dtype, device=grid.zero.device)
        ).clamp(0, grid.max_code)
    pairs = (*grid.scale.shape, scales.shape[-1], zeros.shape[-1])
    every_scale, every_zero = (
        scales[..., :, None].expand(pairs).flatten(2),
        zeros[..., None, :].expand(pairs).flatten(2),
    )
    columns = None if importance is None else importance.reshape(groups.shape[1:]).to(groups.dtype)

    def search(rows: slice) -> Tensor:
        return best_shrink(groups[rows], every_scale[rows], every_zero[rows], columns, grid.max_code)

    best = torch.cat(over_rows(search, len(groups), groups.device))[..., None]
    of_scale, of_zero = best // pairs[-1], best % pairs[-1]
    grid = replace(
        grid, scale_levels=replace(grid.scale_levels, codes=scale_codes.gather(-1, of_scale).squeeze(-1))
    )
    if grid.zero_levels is not None:
        grid = replace(
            grid, zero_levels=replace(grid.zero_levels, codes=zero_codes.gather(-1, of_zero).squeeze(-1))
        )
    zero = zeros.gather(-1, of_zero).squeeze(-1) if grid.zero_levels is None else grid.zero_levels.decode()
    return replace(grid, scale=grid.scale_levels.decode(), zero=zero)


def extremes(groups: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group (out, groups, size) -> (out, groups), widened to what the
    grid must hold.
    """
    return widened(*torch.aminmax(groups, dim=2), scheme)


def widened(low: Tensor, high: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """End points that hold what the grid must hold: 0, or as much on either side of it."""
    if scheme.symmetric:
        high = torch.maximum(-low, high)
        return -high, high
    if holds_zero(scheme):
        return low.clamp(max=0), high.clamp(min=0)
    return low, high


def holds_zero(scheme: Scheme) -> bool:
    """Must every range hold 0? Float zeros that are codes would else have to reach far beyond the grid."""
    return scheme.zero_point is ZeroPoint.integer or scheme.scale_bits is not None


def _search(
    groups: Tensor, low: Tensor, high: Tensor, scheme: Scheme, importance: Tensor | None
) -> tuple[Tensor, Tensor]:
    centre = torch.zeros_like(low) if holds_zero(scheme) else (low + high) / 2
    factors = 1 - SHRINK_STEP * torch.arange(SHRINK_COUNT, dtype=low.dtype, device=low.device)
    columns = None if importance is None else importance.reshape(groups.shape[1:]).to(groups.dtype)

    def best_factor(rows: slice) -> Tensor:
        # (rows, groups, candidates)
        lows, highs = (_shrink(end[rows, :, None], centre[rows, :, None], factors) for end in (low, high))
        scales, zeros, _ = grid_parameters(lows, highs, scheme)
        return factors[best_shrink(groups[rows], scales, zeros, columns, scheme.max_code)]

    best = torch.cat(over_rows(best_factor, len(groups), groups.device))  # (out, groups)
    return _shrink(low, centre, best), _shrink(high, centre, best)


def _shrink(end: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    return centre + factor * (end - centre)
