"""Rounding to a uniform grid that is fitted to the entries themselves, row by row, and its gradient.

    scale = (high - low) / steps                    zero = -round(low / scale)
    code = clamp(round(x / scale) + zero, 0, steps)   x^ = (code - zero) * scale

`zero` is an integer that need not be a code, so that 0 need not lie between the end points. Symmetric grids
have low = -high and an even number of steps. A row of equal entries comes back as it is; where the end points
are given and leave no room, entries are cut to them.

Gradients pass straight through both roundings, and through the end points into the row's extreme entries (the
first of equals):

    within the grid   dx^/dx = 1,  dx^/dscale = code - zero - x / scale,  dx^/dzero = 0
    beyond it         dx^/dx = 0,  dx^/dscale = code - zero,              dx^/dzero = -scale
"""

from types import ModuleType

import torch
from torch import Tensor

from methods.kernels.cpu import token_rounding as compiled
from methods.kernels.threads import over_rows
from methods.kernels.triton_modules import triton_import_module

UNIT = 64  # rows that are not divided between threads

Ends = tuple[Tensor, Tensor] | None  # scalars that hold for all rows (static); None: each row has its own


def rounded(rows: Tensor, steps: int, symmetric: bool, ends: Ends) -> Tensor:
    """Rows on their grids, in their dtype; halves are computed in float32. What is not finite stays so.

    Args:
        rows: (n, width), floating.
        steps: between the end points.
    """
    if not rows.numel():
        return rows.clone()
    if rows.is_cuda and ends is None and (kernel := _triton()) and kernel.serves(rows):
        rows, result = rows.contiguous(), torch.empty_like(rows, memory_format=torch.contiguous_format)
        kernel.rounded(rows, steps, symmetric, result)
        return result
    exact = _exact(rows)
    if rows.device.type != "cpu":
        return reference(exact, steps, symmetric, ends).to(rows.dtype)
    result = torch.empty_like(exact)

    def some(part: slice) -> None:
        options = _options(exact, steps, symmetric, ends)
        compiled.rounding(exact.numpy().dtype)(exact[part].numpy(), *options, result[part].numpy())

    over_rows(some, len(exact), exact.device, together=UNIT)
    return result.to(rows.dtype)


def gradient(rows: Tensor, outer: Tensor, steps: int, symmetric: bool, ends: Ends) -> Tensor:
    """The gradient of `rows` from that of what `rounded` made of them; given end points take none."""
    if not rows.numel():
        return outer.clone()
    if rows.is_cuda and ends is None and (kernel := _triton()) and kernel.serves(rows):
        rows, result = rows.contiguous(), torch.empty_like(rows, memory_format=torch.contiguous_format)
        kernel.gradient(rows, outer.contiguous(), steps, symmetric, result)
        return result
    exact, given = _exact(rows), _exact(outer)
    if rows.device.type != "cpu":
        return reference_gradient(exact, given, steps, symmetric, ends).to(rows.dtype)
    result = torch.empty_like(exact)

    def some(part: slice) -> None:
        operands = exact[part].numpy(), given[part].numpy(), *_options(exact, steps, symmetric, ends)
        compiled.gradient(exact.numpy().dtype)(*operands, result[part].numpy())

    over_rows(some, len(exact), exact.device, together=UNIT)
    return result.to(rows.dtype)


def reference(rows: Tensor, steps: int, symmetric: bool, ends: Ends) -> Tensor:
    """`rounded` for any device and float32 or float64, in few operations."""
    low, high, constant = _end_points(rows, symmetric, ends)
    scale = (high - low) / steps
    zero = (low / scale).round_().neg_()
    result = (rows / scale).round_().add_(zero).clamp_(0, steps).sub_(zero).mul_(scale)
    result = torch.where(constant | (scale == 0), rows if ends is None else rows.clamp(low, high), result)
    return result if ends is None else torch.where(rows.isfinite(), result, rows)


def reference_gradient(rows: Tensor, outer: Tensor, steps: int, symmetric: bool, ends: Ends) -> Tensor:
    """`gradient` for any device."""
    low, high, constant = _end_points(rows, symmetric, ends)
    scale = (high - low) / steps
    zero = -(low / scale).round()
    code = (rows / scale).round_().add_(zero)
    flat = constant | (scale == 0)
    inside = torch.where(flat, (rows >= low) & (rows <= high), (code >= 0) & (code <= steps))
    result = outer * inside
    if ends is not None:
        return result
    slopes = code.clamp_(0, steps).sub_(zero) - torch.where(inside, rows / scale, 0)
    beyond = (outer * ~inside).sum(1, keepdim=True)
    of_high = ((outer * slopes).sum(1, keepdim=True) - beyond * (low / scale)) / steps
    of_low = beyond - of_high
    of_high, of_low = of_high.masked_fill(flat, 0), of_low.masked_fill(flat, 0)
    if symmetric:
        where = rows.abs().argmax(1, keepdim=True)
        return result.scatter_add(1, where, (of_high - of_low) * rows.gather(1, where).sign())
    result = result.scatter_add(1, rows.argmax(1, keepdim=True), of_high)
    return result.scatter_add(1, rows.argmin(1, keepdim=True), of_low)


def _end_points(rows: Tensor, symmetric: bool, ends: Ends) -> tuple[Tensor, Tensor, Tensor]:
    """(low, high, whether the row is its own grid), each (n, 1) or a scalar."""
    low, high = rows.aminmax(dim=1, keepdim=True) if ends is None else (end.to(rows) for end in ends)
    constant = (low == high) & (ends is None)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    return low, high, constant


def _exact(rows: Tensor) -> Tensor:
    return (rows if rows.dtype in (torch.float32, torch.float64) else rows.float()).contiguous()


def _options(rows: Tensor, steps: int, symmetric: bool, ends: Ends) -> tuple:
    number = rows.numpy().dtype.type
    low, high = (0.0, 0.0) if ends is None else (end.item() for end in ends)
    return number(steps), symmetric, ends is not None, number(low), number(high)


def _triton() -> ModuleType | None:
    return triton_import_module("methods.kernels.gpu.token_rounding")
