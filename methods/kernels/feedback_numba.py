"""The feedback loop for CPUs: a tile of rows at a time in the first-level cache, the vector units running across rows.

Inner loops run over contiguous arrays from index 0: with an offset in the index, which might be negative, or
a stride known only at run time the compiler gives up its vectors, and the loop is ten times slower.
Each kernel has one explicit signature per dtype, so that it is compiled once, whatever the strides, and then cached on disk.
"""

from functools import cache

import numpy as np
from numba import bool_, from_dtype, int64, njit

TILE = 128  # rows at most
STRIP = 16  # columns turned together: one cache line of float32

# contract: fused multiply-adds in the feedback; the rounding formula has none to fuse, so codes agree with Grid.encode
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}


@cache
def round_block(dtype: np.dtype):
    """`methods.kernels.feedback.round_block` for arrays of a dtype."""
    block, index = from_dtype(dtype)[:, :], int64[:]
    return njit((block, block, block, block, block, block, block, index, int64, bool_), **OPTIONS)(_round_block)


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


def _round_block(weight, pull, offset, steps, feedback, scale, zero, group, max_code, rounds):
    rows = weight.shape[1]
    tiles = (rows + TILE - 1) // TILE
    size = (rows + tiles - 1) // tiles
    moved = 0
    for first in range(0, rows, size):
        tile = slice(first, min(first + size, rows))
        weights, offsets = np.ascontiguousarray(weight[:, tile]), np.ascontiguousarray(offset[:, tile])
        targets = weights + np.ascontiguousarray(pull[:, tile])
        scales, zeros = np.ascontiguousarray(scale[:, tile]), np.ascontiguousarray(zero[:, tile])
        moved += _round_tile(weights, targets, offsets, feedback, scales, zeros, group, max_code, rounds)
        offset[:, tile] = offsets
        steps[:, tile] = targets
    return moved


@njit(**OPTIONS)
def _round_tile(weights, targets, offsets, feedback, scale, zero, group, max_code, rounds):
    """Targets become steps; how many are not zero."""
    columns, rows = weights.shape
    low, high = weights.dtype.type(0), weights.dtype.type(max_code)
    moved = 0
    for j in range(columns):
        if rounds:
            g = group[j]
            for r in range(rows):
                code = min(max(np.rint(targets[j, r] / scale[g, r] + zero[g, r]), low), high)
                targets[j, r] = (code - zero[g, r]) * scale[g, r]
        count = 0
        for r in range(rows):
            offset = targets[j, r] - weights[j, r]
            targets[j, r] = offset - offsets[j, r]
            offsets[j, r] = offset
            count += targets[j, r] != 0
        moved += count
        if count > 0:
            for k in range(j + 1, columns):
                factor = feedback[k, j]
                for r in range(rows):
                    targets[k, r] += factor * targets[j, r]
    return moved


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
