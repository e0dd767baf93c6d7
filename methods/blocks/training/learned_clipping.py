"""Learnable weight clipping: rounding whose end points are trained, with straight-through gradients.

Shao et al.: OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models, arXiv 2308.13137,
Eq. 2. A group with the extreme weights `least` and `greatest` (widened to what its grid must hold) is rounded
to the grid

    low = clip_low * least,                high = clip_high * greatest,
    scale = (high - low) / (2^bits - 1),   zero = -low / scale

where the paper writes gamma and beta, sigmoids of what it trains, for clip_high and clip_low. Forward it is
the very grid that a solver would round to between these end points, scale and zero rounded as they are
stored. Backward every rounding counts as the identity: of a weight, of a scale, of a zero, and of scales that
are codes themselves. What reaches an end point goes on to the clip and to the extreme weight.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.contracts.problem import Ranges
from methods.contracts.scheme import Scheme, ZeroPoint
from methods.kernels import fake_quant
from methods.solving.ranges import grouped, holds_zero, make_grid, widened


def fake_quantize(weight: Tensor, clip_low: Tensor, clip_high: Tensor, scheme: Scheme) -> Tensor:
    """The rounded weight, (out, in), differentiable in all three tensors.

    Args:
        weight: (out, in); `in` must be a multiple of the group size.
        clip_low, clip_high: (out, groups), usually in (0, 1]; 1 is the min-max grid. All three in one dtype.
    """
    return _FakeQuantize.apply(weight, clip_low, clip_high, scheme)


@torch.no_grad()
def learned_ranges(weight: Tensor, clip_low: Tensor, clip_high: Tensor, scheme: Scheme) -> Ranges:
    """The end points whose grid `fake_quantize` rounds to; arguments as there."""
    least, greatest = fake_quant.extremes(grouped(weight, scheme).contiguous())
    return _ranges(least, greatest, clip_low, clip_high, scheme)


class _FakeQuantize(torch.autograd.Function):
    """Keeps the weight and a few numbers per group; codes are found again on the way back."""

    @staticmethod
    def forward(ctx, weight: Tensor, clip_low: Tensor, clip_high: Tensor, scheme: Scheme) -> Tensor:
        groups = grouped(weight, scheme).contiguous()
        least, greatest = fake_quant.extremes(groups)
        ranges = _ranges(least, greatest, clip_low, clip_high, scheme)
        grid = make_grid(ranges.low, ranges.high, scheme, weight.shape[1])
        scale, zero = grid.scale.contiguous(), grid.zero.contiguous()
        ctx.save_for_backward(groups, clip_low, clip_high, least, greatest, scale, zero)
        ctx.scheme, ctx.shape = scheme, weight.shape
        return fake_quant.forward(groups, scale, zero, scheme.max_code).view(weight.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        groups, clip_low, clip_high, least, greatest, scale, zero = ctx.saved_tensors
        scheme = ctx.scheme
        of_weight, of_scale, of_zero = fake_quant.backward(
            grad.reshape(groups.shape), groups, scale, zero, scheme.max_code
        )
        ranges = _ranges(least, greatest, clip_low, clip_high, scheme)
        of_low, of_high = _of_ranges(ranges, scale, zero, of_scale, of_zero, scheme)
        ends = widened(least, greatest, scheme)
        if ctx.needs_input_grad[0]:
            shares = _of_extremes(least, greatest, of_low * clip_low, of_high * clip_high, scheme)
            fake_quant.add_at_extremes_(of_weight, groups, (least, greatest), shares)
        return of_weight.view(ctx.shape), of_low * ends[0], of_high * ends[1], None


def _ranges(least: Tensor, greatest: Tensor, clip_low: Tensor, clip_high: Tensor, scheme: Scheme) -> Ranges:
    low, high = widened(least, greatest, scheme)
    return Ranges(clip_low * low, clip_high * high)


def _of_ranges(
    ranges: Ranges, scale: Tensor, zero: Tensor, of_scale: Tensor, of_zero: Tensor, scheme: Scheme
) -> tuple[Tensor, Tensor]:
    """Gradients of the end points from those of scale and zero, all (out, groups)."""
    of_low = torch.zeros_like(of_scale)
    if not scheme.symmetric:
        if scheme.zero_point is ZeroPoint.float and scheme.scale_bits is None:
            exact = zero  # by the offset, which is the low end as it is stored
        else:
            exact = -ranges.low / scale
            place = exact if scheme.scale_bits is not None else exact.round()
            # nothing passes where the zero was clamped
            of_zero = of_zero * ((place >= 0) & (place <= scheme.max_code))
        of_low, of_scale = -of_zero / scale, of_scale - of_zero * exact / scale
    of_high = of_scale * (ranges.high > ranges.low) / scheme.max_code  # else the scale is a constant
    return of_low - of_high, of_high


def _of_extremes(
    least: Tensor, greatest: Tensor, of_low: Tensor, of_high: Tensor, scheme: Scheme
) -> tuple[Tensor, Tensor]:
    """Gradients of the extreme weights from those of what `widened` makes of them, all (out, groups)."""
    if scheme.symmetric:  # both ends are the larger magnitude
        of_both, share = of_high - of_low, torch.heaviside(greatest + least, greatest.new_tensor(0.5))
        return (share - 1) * of_both, share * of_both
    if holds_zero(scheme):
        return of_low * (least <= 0), of_high * (greatest >= 0)
    return of_low, of_high
