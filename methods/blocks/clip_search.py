"""Clipping: shrinking the range of each row and group of a weight to what costs least at the linear's output.

The authors' code of AWQ (arXiv 2306.00978) does so after scaling: end points are cut at shares of the largest
|w|, and the share with the least e^T H_g e is kept, with e the rounding error of the group and H_g the second
moments of its inputs. Here the end points of `scheme.range` compete as well: at 2 bits its search shrinks
much further than AWQ's shares, which end at a half.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.blocks.activations import quantized_activations
from methods.blocks.input_statistics import group_moments
from methods.contracts.block import Block
from methods.contracts.problem import Ranges
from methods.contracts.scheme import RangeRule, Scheme
from methods.contracts.seams import QueryKeySeam
from methods.contracts.tuning import Sample
from methods.solving.ranges import fit_ranges, grouped, make_grid, widened


@torch.no_grad()
def clip_block(
    block: Block,
    samples: Sequence[Sample],
    scheme: Scheme,
    shares: Sequence[float],
    watch: Callable[[int], None],
) -> dict[str, Ranges]:
    """End points for linears, by path. Queries and keys keep the scheme's rule: a softmax follows.

    Args:
        shares: of the largest |w|, falling.
        watch: told how many of the block's groups of linears are done.
    """
    with quantized_activations(block, scheme):
        moments = group_moments(block, samples, [group[0] for group in block.groups], scheme.group_size)
    spared, ranges = rows_of_queries_and_keys(block), {}
    for done, group in enumerate(block.groups, 1):
        for path in group:
            weight = block.module.get_submodule(path).weight.detach().float()
            rows = spared.get(path, torch.arange(0)).to(weight.device)
            if len(rows) < len(weight):
                found = clipped(weight, moments[group[0]], scheme, shares)
                ranges[path] = _restored(found, rows, weight, moments[group[0]], scheme)
        watch(done)
    return ranges


def clipped(weight: Tensor, moments: Tensor, scheme: Scheme, shares: Sequence[float]) -> Ranges:
    """The end points (out, groups) of least output error: those of the scheme's rule, or cut at a share.

    Args:
        weight: (out, in).
        moments: (groups, size, size).
    """
    own = by_rule(weight, moments, scheme)
    plain = best = torch.stack([own.low, own.high])  # (2, out, groups)
    costs_of_plain = least = group_costs(weight, own, moments, scheme)
    low, high = torch.aminmax(grouped(weight, scheme), dim=2)
    largest = torch.maximum(-low, high)
    for share in shares:
        ends = torch.stack(widened(low.maximum(-share * largest), high.minimum(share * largest), scheme))
        costs = group_costs(weight, Ranges(*ends), moments, scheme)
        best, least = torch.where(costs < least, ends, best), torch.minimum(costs, least)
    if scheme.scale_bits is not None:
        costs = group_costs(weight, Ranges(*best), moments, scheme)
        best = _where_all_gain(best, costs, plain, costs_of_plain, scheme.scale_group_size)
    return Ranges(*best)


def _where_all_gain(ends: Tensor, costs: Tensor, before: Tensor, costs_before: Tensor, rows: int) -> Tensor:
    """`ends`, but for blocks of rows (that share scales) which they make worse as a whole."""
    block = torch.arange(len(costs), device=costs.device) // rows
    none = costs.new_zeros(int(block[-1]) + 1, costs.shape[1])
    gains = none.index_add(0, block, costs) < none.index_add(0, block, costs_before)
    return torch.where(gains[block], ends, before)


def by_rule(weight: Tensor, moments: Tensor, scheme: Scheme) -> Ranges:
    """The end points that the scheme's rule gives."""
    searches = scheme.range is RangeRule.search_hessian
    return fit_ranges(weight, scheme, torch.diagonal(moments, dim1=1, dim2=2).flatten() if searches else None)


def group_costs(weight: Tensor, ranges: Ranges, moments: Tensor, scheme: Scheme) -> Tensor:
    """e^T H_g e of every row and group, (out, groups)."""
    grid = make_grid(ranges.low, ranges.high, scheme, weight.shape[1])
    errors = grouped(grid.round(weight) - weight, scheme).transpose(0, 1)  # (groups, out, size)
    return ((errors @ moments) * errors).sum(2).T


def rows_of_queries_and_keys(block: Block) -> dict[str, Tensor]:
    """By path of a linear, its rows that make queries or keys."""
    rows: dict[str, Tensor] = {}
    for seam in block.seams:
        for heads in (seam.query, seam.key) if isinstance(seam, QueryKeySeam) else ():
            before = rows.get(heads.linear, torch.arange(0))
            rows[heads.linear] = torch.cat([before, heads.rows.flatten().cpu()])
    return rows


def _restored(ranges: Ranges, rows: Tensor, weight: Tensor, moments: Tensor, scheme: Scheme) -> Ranges:
    """The same, with the scheme's rule at some rows: queries and keys of a fused projection."""
    if not len(rows):
        return ranges
    own = by_rule(weight[rows], moments, scheme)
    return Ranges(ranges.low.index_copy(0, rows, own.low), ranges.high.index_copy(0, rows, own.high))
