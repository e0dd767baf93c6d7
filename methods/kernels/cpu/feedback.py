"""The feedback loop for CPUs, the vector units running across rows.

Inner loops run over contiguous arrays from index 0: with an offset in the index, which might be negative, or
a stride known only at run time the compiler gives up its vectors, and the loop is ten times slower.
Each kernel has one explicit signature per dtype, so that it is compiled once and then cached on disk.
"""

from functools import cache

import numpy as np
from numba import bool_, from_dtype, int64, njit

TOGETHER = 4  # columns whose steps are fed to later columns in one pass
STRIP = 16  # columns turned together: one cache line of float32

# contract: fused multiply-adds in the feedback; the rounding formula has none to fuse, so codes agree with
# Grid.encode
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}


@cache
def round_block(dtype: np.dtype):
    """`methods.kernels.feedback.round_block` for arrays of a dtype."""
    block, feedback = from_dtype(dtype)[:, ::1], from_dtype(dtype)[:, :]
    limits = from_dtype(dtype)[::1]
    return njit(
        (block, block, block, block, feedback, block, block, int64[::1], limits, int64, bool_), **OPTIONS
    )(_round_block)


@cache
def push_steps(dtype: np.dtype):
    """`methods.kernels.feedback.push_steps` for arrays of a dtype."""
    value = from_dtype(dtype)
    return njit((value[:, ::1], value[:, :], value[:, ::1]), **OPTIONS)(_push_steps)


@cache
def take_pushed(dtype: np.dtype):
    """`methods.kernels.feedback.take_pushed` for arrays of a dtype."""
    block = from_dtype(dtype)[:, :]
    return njit((block, block), **OPTIONS)(_take_pushed)


def _round_block(weight, pull, offset, steps, feedback, scale, zero, group, limits, max_code, rounds):
    columns, rows = weight.shape
    low, high = weight.dtype.type(0), weight.dtype.type(max_code)
    total = 0
    for k in range(columns):
        for r in range(rows):
            steps[k, r] = weight[k, r] + pull[k, r]  # until its turn comes, a row of steps holds targets
    for first in range(0, columns, TOGETHER):
        moved = 0
        for j in range(first, min(first + TOGETHER, columns)):
            if rounds and limits[j] < np.inf:
                _round_within(steps[j], scale[group[j]], zero[group[j]], limits[j], low, high)
            elif rounds:
                g = group[j]
                for r in range(rows):
                    code = min(max(np.rint(steps[j, r] / scale[g, r] + zero[g, r]), low), high)
                    steps[j, r] = (code - zero[g, r]) * scale[g, r]
            moved += take_step(steps[j], offset[j], weight[j])
            if moved > 0:
                for k in range(j + 1, min(first + TOGETHER, columns)):
                    feed_one(steps[k], steps[j], feedback[k, j])
        if moved > 0 and first + TOGETHER < columns:
            feed_four(steps, feedback, first)
        total += moved
    return total


@njit(**OPTIONS)
def _round_within(targets, scale, zero, limit, low, high):
    for r in range(len(targets)):
        code = min(max(np.rint(targets[r] / scale[r] + zero[r]), low), high)
        value = (code - zero[r]) * scale[r]
        targets[r] = targets[r] if abs(value - targets[r]) > limit else value


@njit(**OPTIONS)
def take_step(steps, offset, weight):
    """Turn the new values of a column into its steps, and its offset into the new one; how many steps are not
    zero.
    """
    moved = 0
    for r in range(len(steps)):
        before = offset[r]
        offset[r] = steps[r] - weight[r]
        steps[r] = offset[r] - before
        moved += steps[r] != 0
    return moved


@njit(**OPTIONS)
def feed_one(targets, steps, factor):
    for r in range(len(targets)):
        targets[r] += factor * steps[r]


@njit(**OPTIONS)
def feed_four(steps, feedback, j):
    """Feed the steps of columns j to j + 3 to all columns after them, passing over each target once."""
    for k in range(j + TOGETHER, steps.shape[0]):
        first, second, third, fourth = (
            feedback[k, j],
            feedback[k, j + 1],
            feedback[k, j + 2],
            feedback[k, j + 3],
        )
        for r in range(steps.shape[1]):
            steps[k, r] += (
                first * steps[j, r]
                + second * steps[j + 1, r]
                + third * steps[j + 2, r]
                + fourth * steps[j + 3, r]
            )


def _push_steps(pushed, steps, feedback):
    for r in range(steps.shape[1]):
        for j in range(steps.shape[0]):
            step = steps[j, r]
            if step != 0:
                for k in range(pushed.shape[1]):
                    pushed[r, k] += step * feedback[j, k]


def _take_pushed(pull, pushed):
    for start in range(0, len(pull), STRIP):
        for r in range(len(pushed)):
            for k in range(start, min(start + STRIP, len(pull))):
                pull[k, r] += pushed[r, k]
                pushed[r, k] = 0
