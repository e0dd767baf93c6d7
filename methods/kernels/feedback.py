"""Rounding a block of columns one after another, each step fed back into the targets of the columns that follow.

The sequential heart of GPTQ, QuantEase and their kin. Tensors are turned, (columns, out): one column of the weight is one
contiguous row here. For column k of a block, with w its weights, p the pull of all that happened outside the block,

    target_k = w_k + p_k + sum over j < k of feedback[k, j] * step_j
    value_k  = round(target_k), or target_k itself where no grid is given
    step_k   = (value_k - w_k) - offset_k, and offset_k becomes value_k - w_k
"""

import torch
from torch import Tensor

from methods.core.grid import Grid
from methods.kernels import feedback_numba


def round_block(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, feedback: Tensor, grid: Grid | None) -> int | Tensor:
    """Take one block of columns through the formulas above.

    Args:
        weight, pull: (columns, out).
        offset: (columns, out), how far the values are from the weights; updated.
        steps: (columns, out), overwritten.
        feedback: (columns, columns); only what lies below the diagonal is read.
        grid: the grid of these columns, or None to leave the values unrounded.

    Returns:
        How many steps are not zero (on an accelerator a tensor, so that nothing waits for it).
    """
    if is_compiled(weight):
        scale, zero, group, max_code = _levels(grid, weight)
        arrays = [values.numpy() for values in (weight, pull, offset, steps, feedback, scale, zero, group)]
        return feedback_numba.round_block(arrays[0].dtype)(*arrays, max_code, grid is not None)
    return reference(weight, pull, offset, steps, feedback, grid)


def reference(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, feedback: Tensor, grid: Grid | None) -> Tensor:
    """The formulas in plain torch, for any device and floating dtype."""
    for k in range(len(weight)):
        value = weight[k] + pull[k] + feedback[k, :k] @ steps[:k]
        if grid is not None:
            value = grid.columns(slice(k, k + 1)).round(value[:, None]).squeeze(1)
        steps[k] = value - weight[k] - offset[k]
        offset[k] = value - weight[k]
    return torch.count_nonzero(steps)


def is_compiled(weight: Tensor) -> bool:
    """Is there a CPU kernel for such tensors? `push_steps` and `take_pushed` need one."""
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)


def push_steps(pushed: Tensor, steps: Tensor, feedback: Tensor) -> None:
    """pushed (out, in) += steps^T @ feedback for steps (columns, out) that are mostly zero; feedback (columns, in) is turned too."""
    arrays = [values.numpy() for values in (pushed, steps, feedback)]
    feedback_numba.push_steps(arrays[0].dtype)(*arrays)


def take_pushed(pull: Tensor, pushed: Tensor) -> None:
    """Move a block's pushed effects (out, columns) over to its pull (columns, out)."""
    arrays = [values.numpy() for values in (pull, pushed)]
    feedback_numba.take_pushed(arrays[0].dtype)(*arrays)


def _levels(grid: Grid | None, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Scale and zero (groups, out), the group of each column, the largest code."""
    if grid is None:
        return weight, weight, torch.zeros(len(weight), dtype=torch.int64), 0
    return grid.scale.T.contiguous(), grid.zero.T.contiguous(), grid.group_index, grid.max_code
