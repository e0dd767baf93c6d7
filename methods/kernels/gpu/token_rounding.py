"""Rounding of tokens for CUDA (see `methods.kernels.token_rounding`): rows are read once and written once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# entries that a program holds (if rows are short), and how many one row may have
ENTRIES, WIDEST = 2048, 16384
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # what is computed in float32
HALF_EVEN = tl.constexpr(1.5 * 2**23)  # adding and subtracting it rounds numbers below 2^22, ties to even


def serves(rows: Tensor) -> bool:
    return rows.dtype in DTYPES and rows.shape[1] <= WIDEST


def rounded(rows: Tensor, steps: int, symmetric: bool, result: Tensor) -> None:
    """Fills `result`; both contiguous, (n, width)."""
    _rounding[_programs(rows)](rows, result, float(steps), *rows.shape, SYMMETRIC=symmetric, **_tile(rows))


def gradient(rows: Tensor, outer: Tensor, steps: int, symmetric: bool, result: Tensor) -> None:
    """Fills `result`; all contiguous, (n, width)."""
    options = {"SYMMETRIC": symmetric, **_tile(rows)}
    _gradient[_programs(rows)](rows, outer, result, float(steps), *rows.shape, **options)


def _tile(rows: Tensor) -> dict[str, int]:
    columns = triton.next_power_of_2(rows.shape[1])
    return {"ROWS": max(1, ENTRIES // columns), "COLUMNS": columns, "num_warps": 4 if columns <= 4096 else 8}


def _programs(rows: Tensor) -> tuple[int]:
    return (triton.cdiv(len(rows), _tile(rows)["ROWS"]),)


@triton.jit
def _rounding(rows, result, steps, count, width,
              SYMMETRIC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    there = (row < count) & (column < width)
    x = tl.load(rows + row * width + column, mask=there, other=0.0).to(tl.float32)
    low, scale, flat = _grid(x, column < width, steps, SYMMETRIC)
    zero = -_nearest(tl.div_rn(low, scale))
    code = tl.minimum(tl.maximum(_nearest(tl.div_rn(x, scale)) + zero, 0.0), steps)
    # the last term: nothing, or not a number where the entry is not finite
    value = tl.where(flat, x, (code - zero) * scale) + (x - x)
    tl.store(result + row * width + column, value, mask=there)


@triton.jit
def _gradient(rows, outer, result, steps, count, width,
              SYMMETRIC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    there = (row < count) & (column < width)
    x = tl.load(rows + row * width + column, mask=there, other=0.0).to(tl.float32)
    given = tl.load(outer + row * width + column, mask=there, other=0.0).to(tl.float32)
    low, scale, flat = _grid(x, column < width, steps, SYMMETRIC)
    lowest, ratio = tl.div_rn(low, scale), tl.div_rn(x, scale)
    zero = -_nearest(lowest)
    unclipped = _nearest(ratio) + zero
    code = tl.minimum(tl.maximum(unclipped, 0.0), steps)
    inside = flat | (unclipped == code)
    passed = tl.where(inside, given, 0.0)
    # first what nearly cancels
    of_scale = tl.sum(given * (code - zero - tl.where(inside, ratio, 0.0)), axis=1)[:, None]
    beyond = tl.sum(given - passed, axis=1)[:, None]
    of_high = (of_scale - beyond * lowest) / steps
    of_low = beyond - of_high
    if SYMMETRIC:
        highest = tl.argmax(tl.where(column < width, tl.abs(x), -1.0), axis=1)[:, None]
        extra = tl.where(column == highest, tl.where(x < 0, of_low - of_high, of_high - of_low), 0.0)
    else:
        highest = tl.argmax(tl.where(column < width, x, -float("inf")), axis=1)[:, None]
        lowest = tl.argmin(tl.where(column < width, x, float("inf")), axis=1)[:, None]
        extra = tl.where(column == highest, of_high, 0.0) + tl.where(column == lowest, of_low, 0.0)
    tl.store(result + row * width + column, passed + tl.where(flat, 0.0, extra), mask=there)


@triton.jit
def _grid(x, real, steps, SYMMETRIC: tl.constexpr):
    """(low, scale, whether there is no grid) of each row."""
    low = tl.min(tl.where(real, x, float("inf")), axis=1)[:, None]
    high = tl.max(tl.where(real, x, -float("inf")), axis=1)[:, None]
    flat = low == high
    if SYMMETRIC:
        high = tl.maximum(-low, high)
        low = -high
    scale = tl.div_rn(high - low, tl.zeros_like(high) + steps)
    return low, scale, flat | (scale == 0)


@triton.jit
def _nearest(x):
    """The nearest integer, ties to even (numbers of 2^22 and more are as good as integers)."""
    return tl.where(tl.abs(x) < 4194304.0, (x + HALF_EVEN) - HALF_EVEN, tl.floor(x + 0.5))
