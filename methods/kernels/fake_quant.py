"""Rounding to a grid that is being trained, and its gradients; matrices come in groups, (out, groups, size).

A weight w in a group of scale s and zero z has, as on every grid (`methods.weights.grid`),

    code = clamp(round(w / s + z), 0, 2^bits - 1),    w^ = (code - z) s,

and with rounding taken as the identity (straight through), where the clamp does nothing (inside) and where it
does (beyond):

    dw^/dw = 1, 0      dw^/ds = code - z - w / s, code - z      dw^/dz = 0, -s
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from methods.kernels.cpu import fake_quant as compiled
from methods.kernels.threads import over_rows
from methods.kernels.triton_modules import triton_import_module


def extremes(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest weight of each group, (out, groups) each; with a nan in it, anything."""
    kernel = _compiled("extremes", groups)
    if kernel is None:
        return torch.aminmax(groups, dim=2)
    least, greatest = (groups.new_empty(groups.shape[:2]) for _ in range(2))
    kernel(groups, least, greatest)
    return least, greatest


def forward(groups: Tensor, scale: Tensor, zero: Tensor, max_code: int) -> Tensor:
    """w^ of all weights, bit for bit that of `Grid.round`; contiguous, scale and zero (out, groups)."""
    kernel = _compiled("forward", groups)
    if kernel is None:
        return forward_reference(groups, scale, zero, max_code)
    rounded = torch.empty_like(groups)
    kernel(groups, scale, zero, max_code, rounded)
    return rounded


def backward(
    grad: Tensor, groups: Tensor, scale: Tensor, zero: Tensor, max_code: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weights, scales and zeros from that of w^; arguments as of `forward`."""
    kernel = _compiled("backward", groups)
    if kernel is None:
        return backward_reference(grad, groups, scale, zero, max_code)
    of_weight, of_scale, of_zero = torch.empty_like(groups), torch.empty_like(scale), torch.empty_like(scale)
    kernel(grad.contiguous(), groups, scale, zero, max_code, of_weight, of_scale, of_zero)
    return of_weight, of_scale, of_zero


def add_at_extremes_(
    total: Tensor, groups: Tensor, ends: tuple[Tensor, Tensor], shares: tuple[Tensor, Tensor]
) -> None:
    """Add shares to `total` where a group's extreme weights are, in equal parts to equal ones.

    Args:
        total: shaped like `groups`.
        ends: what `extremes` gives for `groups`.
        shares: (out, groups) of the smallest, of the largest.
    """
    kernel = _compiled("add_at_extremes", groups) or add_at_extremes_reference_
    kernel(total, groups, *ends, *(share.contiguous() for share in shares))


def forward_reference(groups: Tensor, scale: Tensor, zero: Tensor, max_code: int) -> Tensor:
    """`forward` in plain torch, for any device."""
    scale, zero = scale[..., None], zero[..., None]
    return groups.div(scale).add_(zero).round_().clamp_(0, max_code).sub_(zero).mul_(scale)


def backward_reference(
    grad: Tensor, groups: Tensor, scale: Tensor, zero: Tensor, max_code: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`backward` in plain torch, for any device."""
    steps = groups / scale[..., None]
    place = (steps + zero[..., None]).round_()
    code = place.clamp(0, max_code)
    of_weight = torch.where(place == code, grad, 0)
    of_scale = code.sub_(zero[..., None]).mul_(grad).sub_(steps.mul_(of_weight)).sum(-1)
    return of_weight, of_scale, (of_weight.sum(-1) - grad.sum(-1)) * scale


def add_at_extremes_reference_(
    total: Tensor, groups: Tensor, least: Tensor, greatest: Tensor, of_least: Tensor, of_greatest: Tensor
) -> None:
    """`add_at_extremes_` in plain torch, for any device."""
    for end, share in ((least, of_least), (greatest, of_greatest)):
        here = groups == end[..., None]
        part = share / here.sum(-1).clamp_(min=1)
        total.add_(torch.where(here, part[..., None], 0))


def _compiled(name: str, groups: Tensor) -> Callable[..., None] | None:
    """The kernel of that name for these weights, where there is one."""
    if groups.device.type == "cpu" and groups.dtype in (torch.float32, torch.float64):
        return partial(_by_rows, getattr(compiled, name))
    if groups.device.type == "cuda" and groups.dtype == torch.float32:
        return getattr(triton_import_module("methods.kernels.gpu.fake_quant"), name, None)
    return None


def _by_rows(kernel: Callable[..., None], *operands: Tensor | int) -> None:
    """A kernel for numpy arrays, over rows in parallel."""

    def some(rows: slice) -> None:
        kernel(*(operand[rows].numpy() if isinstance(operand, Tensor) else operand for operand in operands))

    over_rows(some, len(operands[0]), operands[0].device)
