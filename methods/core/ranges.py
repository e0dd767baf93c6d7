"""From a weight to its grid: end points by min-max or by search, then scale and zero.

The search shrinks each group's range by factors p = 1, 1 - 1/100, ... (as the GPTQ code does, 80 steps) and keeps the one
with the least rounding error (see `methods.kernels.range_search`), each column weighted by `importance` if given. Towards what a range
shrinks depends on the grid: towards 0 when 0 must stay on it, towards the middle when the offset is free.
"""

import torch
from torch import Tensor

from methods.core.grid import Grid, float_grid, storable
from methods.core.problem import LayerProblem
from methods.core.scheme import RangeRule, Scheme, ZeroPoint
from methods.kernels.range_search import best_shrink
from methods.kernels.threads import over_rows

SHRINK_STEP, SHRINK_COUNT = 0.01, 80


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
    out_features, in_features = weight.shape
    grouped = weight.reshape(out_features, -1, scheme.group_size or in_features)
    low, high = _extremes(grouped, scheme)
    if scheme.range is not RangeRule.minmax:
        low, high = _search(grouped, low, high, scheme, importance)
    return make_grid(low, high, scheme, in_features)


def make_grid(low: Tensor, high: Tensor, scheme: Scheme, in_features: int) -> Grid:
    """The grid between end points (out, groups); a range of zero length gets scale 1."""
    groups = low.shape[1]
    group_index = torch.arange(in_features, device=low.device) // (in_features // groups)
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


def _extremes(grouped: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Smallest and largest weight of each group (out, groups, size) -> (out, groups), widened to what the grid must hold."""
    low, high = torch.aminmax(grouped, dim=2)
    if scheme.symmetric:
        high = torch.maximum(-low, high)
        return -high, high
    if scheme.zero_point is ZeroPoint.integer:
        return low.clamp(max=0), high.clamp(min=0)
    return low, high


def _search(grouped: Tensor, low: Tensor, high: Tensor, scheme: Scheme, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    centre = (low + high) / 2 if scheme.zero_point is ZeroPoint.float else torch.zeros_like(low)
    factors = 1 - SHRINK_STEP * torch.arange(SHRINK_COUNT, dtype=low.dtype, device=low.device)
    columns = None if importance is None else importance.reshape(grouped.shape[1:]).to(grouped.dtype)

    def best_factor(rows: slice) -> Tensor:
        lows, highs = (_shrink(end[rows, :, None], centre[rows, :, None], factors) for end in (low, high))  # (rows, groups, candidates)
        scales, zeros, _ = grid_parameters(lows, highs, scheme)
        return factors[best_shrink(grouped[rows], scales, zeros, columns, scheme.max_code)]

    best = torch.cat(over_rows(best_factor, len(grouped), grouped.device))  # (out, groups)
    return _shrink(low, centre, best), _shrink(high, centre, best)


def _shrink(end: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    return centre + factor * (end - centre)
