"""Rounding a block of columns one after another, each step fed back into the targets of later columns.

The sequential heart of GPTQ, QuantEase and their kin. Tensors are turned, (columns, out): one column of the
weight is one contiguous row here. For column k of a block, with w its weights, p the pull of all that
happened outside the block,

    target_k = w_k + p_k + sum over j < k of feedback[k, j] * step_j
    value_k  = round(target_k), or target_k itself where no grid is given
    step_k   = (value_k - w_k) - offset_k, and offset_k becomes value_k - w_k

Where limits are given, a target stays as it is if rounding would move it further than limit_k: it has become
an outlier.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from methods.kernels.cpu import feedback as compiled
from methods.kernels.triton_modules import triton_import_module
from methods.weights.grid import Grid


def round_block(
    weight: Tensor,
    pull: Tensor,
    offset: Tensor,
    steps: Tensor,
    feedback: Tensor,
    grid: Grid | None,
    limits: Tensor | None = None,
) -> int | Tensor:
    """Take one block of columns through the formulas above.

    Args:
        weight, pull: (columns, out), contiguous.
        offset: (columns, out), contiguous, how far the values are from the weights; updated.
        steps: (columns, out), contiguous, overwritten.
        feedback: (columns, columns); only what lies below the diagonal is read.
        grid: the grid of these columns, or None to leave the values unrounded.
        limits: (columns,), or None for no outliers.

    Returns:
        How many steps are not zero (on an accelerator a tensor, so that nothing waits for it).
    """
    return bind_round_block(weight, pull, offset, steps, feedback, grid, limits)()


def bind_round_block(*operands: Tensor | Grid | None) -> Callable[[], int | Tensor]:
    """The same call, prepared once for operands that are taken through it many times."""
    weight, *others, grid, limits = operands
    triton = triton_import_module("methods.kernels.gpu.feedback") if weight.is_cuda else None
    if not is_compiled(weight) and triton is None:
        return partial(reference, *operands)
    if grid is None:
        groups, max_code = torch.zeros(len(weight), dtype=torch.int64, device=weight.device), 0
        levels = weight, weight, groups  # never looked at
    else:
        levels, max_code = (
            (grid.scale.T.contiguous(), grid.zero.T.contiguous(), grid.group_index),
            grid.max_code,
        )
    limits = torch.full_like(weight[:, 0], torch.inf) if limits is None else limits
    if triton is not None:
        return partial(triton.round_block, weight, *others, *levels, limits, max_code, grid is not None)
    arrays = [values.numpy() for values in (weight, *others, *levels, limits)]
    return partial(compiled.round_block(arrays[0].dtype), *arrays, max_code, grid is not None)


def reference(
    weight: Tensor,
    pull: Tensor,
    offset: Tensor,
    steps: Tensor,
    feedback: Tensor,
    grid: Grid | None,
    limits: Tensor | None = None,
) -> Tensor:
    """The formulas in plain torch, for any device and floating dtype."""
    for k in range(len(weight)):
        target = weight[k] + pull[k] + feedback[k, :k] @ steps[:k]
        value = target if grid is None else grid.columns(slice(k, k + 1)).round(target[:, None]).squeeze(1)
        if grid is not None and limits is not None:
            value = torch.where((value - target).abs() > limits[k], target, value)
        steps[k] = value - weight[k] - offset[k]
        offset[k] = value - weight[k]
    return torch.count_nonzero(steps)


def is_compiled(weight: Tensor) -> bool:
    """Is there a CPU kernel for such tensors? `push_steps` and `take_pushed` need one."""
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)


def push_steps(pushed: Tensor, steps: Tensor, feedback: Tensor) -> None:
    """pushed (out, in) += steps^T @ feedback (columns, in), for steps (columns, out) mostly zero."""
    arrays = [values.numpy() for values in (pushed, steps, feedback)]
    compiled.push_steps(arrays[0].dtype)(*arrays)


def take_pushed(pull: Tensor, pushed: Tensor) -> None:
    """Move a block's pushed effects (out, columns) over to its pull (columns, out)."""
    arrays = [values.numpy() for values in (pull, pushed)]
    compiled.take_pushed(arrays[0].dtype)(*arrays)
