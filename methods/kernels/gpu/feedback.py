"""The feedback loop for CUDA devices: each program takes a few rows through the whole block, their steps kept
in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32  # rows of one program; with 128 columns their steps take 32 registers of each of 128 threads
# adding and subtracting it rounds small numbers, ties to even
HALF_EVEN = {torch.float32: 1.5 * 2**23, torch.float64: 1.5 * 2**52}


def round_block(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, feedback: Tensor,
                scale: Tensor, zero: Tensor, group: Tensor, limits: Tensor,
                max_code: int, rounds: bool) -> Tensor:  # fmt: skip
    """See `methods.kernels.feedback.round_block`; scale and zero come turned, (groups, out), contiguous."""
    columns, rows = weight.shape
    _kernel[(triton.cdiv(rows, ROWS),)](
        weight, pull, offset, steps, feedback, scale, zero, group, limits,
        columns, rows, feedback.stride(0), float(max_code),
        ROUNDS=rounds, SINGLE=weight.dtype == torch.float32, HALF_EVEN=HALF_EVEN[weight.dtype],
        COLUMNS=triton.next_power_of_2(columns), ROWS=ROWS,
    )  # fmt: skip
    return torch.count_nonzero(steps)


@triton.jit
def _kernel(weight, pull, offset, steps, feedback, scale, zero, group, limits,
            columns, rows, feedback_stride, max_code,
            ROUNDS: tl.constexpr, SINGLE: tl.constexpr, HALF_EVEN: tl.constexpr,
            COLUMNS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    column = tl.arange(0, COLUMNS)
    made = tl.zeros((COLUMNS, ROWS), weight.dtype.element_ty)  # the steps so far
    for k in range(columns):
        factors = tl.load(feedback + k * feedback_stride + column, mask=column < k, other=0.0)
        here = k * rows + row
        original = tl.load(weight + here, mask=inside, other=0.0)
        pulled = tl.load(pull + here, mask=inside, other=0.0)
        value = original + pulled + tl.sum(factors[:, None] * made, axis=0)
        if ROUNDS:
            level = tl.load(group + k) * rows + row
            size = tl.load(scale + level, mask=inside, other=1.0)
            origin = tl.load(zero + level, mask=inside, other=0.0)
            # plain division of float32 is approximate on CUDA; codes have to agree with Grid.encode
            position = (tl.div_rn(value, size) if SINGLE else value / size) + origin
            code = (tl.minimum(tl.maximum(position, 0.0), max_code) + HALF_EVEN) - HALF_EVEN
            rounded = (code - origin) * size
            value = tl.where(tl.abs(rounded - value) > tl.load(limits + k), value, rounded)
        now = value - original
        step = now - tl.load(offset + here, mask=inside, other=0.0)
        made = tl.where((column == k)[:, None], step[None, :], made)
        tl.store(offset + here, now, mask=inside)
        tl.store(steps + here, step, mask=inside)
