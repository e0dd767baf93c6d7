"""Rounding to a grid in training, for CUDA (see `methods.kernels.fake_quant`): a program takes groups."""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, WIDEST = 2048, 1024  # entries that a program holds, and how many of them may be of one group
# adding and subtracting it rounds small numbers, ties to even
HALF_EVEN = {torch.float32: 1.5 * 2**23, torch.float64: 1.5 * 2**52}


def forward(groups: Tensor, scale: Tensor, zero: Tensor, max_code: int, rounded: Tensor) -> None:
    """Fills `rounded`; all contiguous."""
    (grid, shape), numbers = _tiles(groups), (float(max_code), scale.numel(), groups.shape[2])
    _forward[grid](groups, scale, zero, rounded, *numbers, **shape, **_numbers(groups))


def backward(grad: Tensor, groups: Tensor, scale: Tensor, zero: Tensor, max_code: int,
             of_weight: Tensor, of_scale: Tensor, of_zero: Tensor) -> None:  # fmt: skip
    """Fills the last three; all contiguous."""
    (grid, shape), numbers = _tiles(groups), (float(max_code), scale.numel(), groups.shape[2])
    results = of_weight, of_scale, of_zero
    _backward[grid](grad, groups, scale, zero, *results, *numbers, **shape, **_numbers(groups))


def add_at_extremes(
    total: Tensor, groups: Tensor, least: Tensor, greatest: Tensor, of_least: Tensor, of_greatest: Tensor
) -> None:
    """Changes `total`; all contiguous."""
    (grid, shape), sizes = _tiles(groups), (least.numel(), groups.shape[2])
    _add_at_extremes[grid](total, groups, least, greatest, of_least, of_greatest, *sizes, **shape)


def _tiles(groups: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """How many programs, and the groups and columns that one of them holds at a time."""
    columns = min(triton.next_power_of_2(groups.shape[2]), WIDEST)
    rows = TILE // columns
    return (triton.cdiv(groups.shape[0] * groups.shape[1], rows),), {"ROWS": rows, "COLUMNS": columns}


def _numbers(groups: Tensor) -> dict[str, float]:
    return {"SINGLE": groups.dtype == torch.float32, "HALF_EVEN": HALF_EVEN[groups.dtype]}


@triton.jit
def _forward(groups, scale, zero, rounded, max_code, count, size, ROWS: tl.constexpr,
             COLUMNS: tl.constexpr, SINGLE: tl.constexpr, HALF_EVEN: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    s = tl.load(scale + row, mask=row < count, other=1.0)[:, None]
    z = tl.load(zero + row, mask=row < count, other=0.0)[:, None]
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        at, there = row[:, None] * size + column[None, :], (row < count)[:, None] & (column < size)[None, :]
        steps = _steps(tl.load(groups + at, mask=there, other=0.0), s, SINGLE)
        code = tl.minimum(tl.maximum(_place(steps + z, max_code, HALF_EVEN), 0.0), max_code)
        tl.store(rounded + at, (code - z) * s, mask=there)


@triton.jit
def _backward(grad, groups, scale, zero, of_weight, of_scale, of_zero, max_code, count, size,
              ROWS: tl.constexpr, COLUMNS: tl.constexpr, SINGLE: tl.constexpr,
              HALF_EVEN: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    s = tl.load(scale + row, mask=row < count, other=1.0)[:, None]
    z = tl.load(zero + row, mask=row < count, other=0.0)[:, None]
    slope, beyond = tl.zeros((ROWS, COLUMNS), s.dtype), tl.zeros((ROWS, COLUMNS), s.dtype)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        at, there = row[:, None] * size + column[None, :], (row < count)[:, None] & (column < size)[None, :]
        arriving = tl.load(grad + at, mask=there, other=0.0)
        steps = _steps(tl.load(groups + at, mask=there, other=0.0), s, SINGLE)
        place = _place(steps + z, max_code, HALF_EVEN)
        code = tl.minimum(tl.maximum(place, 0.0), max_code)
        passed = tl.where(place == code, arriving, 0.0)
        tl.store(of_weight + at, passed, mask=there)
        slope += arriving * (code - z) - passed * steps
        beyond += arriving - passed
    tl.store(of_scale + row, tl.sum(slope, axis=1), mask=row < count)
    tl.store(of_zero + row, -tl.sum(beyond * s, axis=1), mask=row < count)


@triton.jit
def _add_at_extremes(total, groups, least, greatest, of_least, of_greatest, count, size,
                     ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < count
    low = tl.load(least + row, mask=real, other=0.0)[:, None]
    high = tl.load(greatest + row, mask=real, other=0.0)[:, None]
    lows, highs = tl.zeros((ROWS, COLUMNS), low.dtype), tl.zeros((ROWS, COLUMNS), low.dtype)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        at, there = row[:, None] * size + column[None, :], real[:, None] & (column < size)[None, :]
        weight = tl.load(groups + at, mask=there, other=0.0)
        lows += tl.where(there & (weight == low), 1.0, 0.0)
        highs += tl.where(there & (weight == high), 1.0, 0.0)
    at_low = tl.load(of_least + row, mask=real, other=0.0)
    at_high = tl.load(of_greatest + row, mask=real, other=0.0)
    at_low = at_low[:, None] / tl.maximum(tl.sum(lows, axis=1), 1.0)[:, None]
    at_high = at_high[:, None] / tl.maximum(tl.sum(highs, axis=1), 1.0)[:, None]
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        at, there = row[:, None] * size + column[None, :], real[:, None] & (column < size)[None, :]
        weight = tl.load(groups + at, mask=there, other=0.0)
        hit = there & ((weight == low) | (weight == high))  # few are read and written
        value = tl.load(total + at, mask=hit, other=0.0)
        value = value + tl.where(weight == low, at_low, 0.0) + tl.where(weight == high, at_high, 0.0)
        tl.store(total + at, value, mask=hit)


@triton.jit
def _steps(weight, scale, SINGLE: tl.constexpr):
    """Plain division of float32 is approximate on CUDA; codes have to agree with Grid.encode."""
    return tl.div_rn(weight, scale) if SINGLE else weight / scale


@triton.jit
def _place(position, max_code, HALF_EVEN: tl.constexpr):
    """The nearest integer, where it is a code; else -1 or max_code + 1."""
    return (tl.minimum(tl.maximum(position, -1.0), max_code + 1.0) + HALF_EVEN) - HALF_EVEN
