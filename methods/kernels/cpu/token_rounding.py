"""The kernels of `methods.kernels.token_rounding` for CPUs: a row is read once for its end points and once to
be rounded, in cache.
"""

from functools import cache

import numpy as np
from numba import boolean, from_dtype, njit, void

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@cache
def rounding(dtype: np.dtype):
    """(rows, steps, symmetric, fixed, low, high, result), fills the result."""
    number = from_dtype(dtype)
    return njit(void(number[:, ::1], number, boolean, boolean, number, number, number[:, ::1]), **OPTIONS)(
        _rounding
    )


@cache
def gradient(dtype: np.dtype):
    """(rows, outer, steps, symmetric, fixed, low, high, result), fills the result."""
    number = from_dtype(dtype)
    matrix = number[:, ::1]
    return njit(void(matrix, matrix, number, boolean, boolean, number, number, matrix), **OPTIONS)(_gradient)


def _rounding(rows, steps, symmetric, fixed, low, high, result):
    for r in range(len(rows)):
        row, own = rows[r], result[r]
        low, high, constant = end_points(row, symmetric, fixed, low, high)
        scale = (high - low) / steps
        if constant or scale == 0:
            cut(row, low, high, fixed, own)
        else:
            to_grid(row, scale, -np.rint(low / scale), steps, own)


def _gradient(rows, outer, steps, symmetric, fixed, low, high, result):
    for r in range(len(rows)):
        row, given, own = rows[r], outer[r], result[r]
        low, high, constant = end_points(row, symmetric, fixed, low, high)
        scale = (high - low) / steps
        if constant or scale == 0:
            for j in range(len(row)):
                own[j] = given[j] if not fixed or low <= row[j] <= high else 0
            continue
        of_scale, beyond = through_grid(row, given, scale, -np.rint(low / scale), steps, own)
        if fixed:
            continue
        of_high = (of_scale - beyond * (low / scale)) / steps
        of_low = beyond - of_high
        # symmetric: perhaps only one of them is there
        highest, lowest = first_of(row, high), first_of(row, low)
        if symmetric and lowest < highest:
            own[lowest] += of_low - of_high
        elif symmetric and highest < len(row):
            own[highest] += of_high - of_low
        elif highest < len(row) and lowest < len(row):  # always, but where an entry is not a number
            own[highest] += of_high
            own[lowest] += of_low


@njit(fastmath={"nnan", "nsz"}, **OPTIONS)  # comparisons become selections, which the vector units know
def extremes(row):
    low = high = row[0]
    for j in range(len(row)):
        low = row[j] if row[j] < low else low
        high = row[j] if row[j] > high else high
    return low, high


@njit(inline="always", **OPTIONS)
def end_points(row, symmetric, fixed, low, high):
    """Of the row's grid, and whether all of the row is one number."""
    if not fixed:
        low, high = extremes(row)
    constant = not fixed and low == high
    if symmetric:
        low, high = around_zero(low, high)
    return low, high, constant


@njit(inline="always", **OPTIONS)
def around_zero(low, high):
    largest = max(-low, high)
    return -largest, largest


@njit(**OPTIONS)
def to_grid(row, scale, zero, steps, result):
    for j in range(len(row)):
        code = np.rint(row[j] / scale) + zero
        code = 0 * scale if code < 0 else code
        code = steps if code > steps else code
        # the last term: nothing, or not a number where the entry is not finite
        result[j] = (code - zero) * scale + (row[j] - row[j])


@njit(**OPTIONS)
def cut(row, low, high, fixed, result):
    for j in range(len(row)):
        value = row[j]
        if fixed:
            value = low if value < low else value
            value = high if value > high else value
        result[j] = value + (row[j] - row[j])


@njit(fastmath={"reassoc", "contract", "nsz"}, **OPTIONS)  # sums in any order
def through_grid(row, outer, scale, zero, steps, result):
    """The straight-through part of the gradient into `result`; the gradient of the scale, and the sum of what
    lies beyond the grid.
    """
    of_scale = beyond = 0.0
    for j in range(len(row)):
        ratio = row[j] / scale
        whole = np.rint(ratio)
        code = whole + zero
        inside = 0 <= code <= steps
        kept = outer[j] if inside else 0 * scale
        end = -zero if code < 0 else steps - zero
        slope = whole - ratio if inside else end
        result[j] = kept
        of_scale += outer[j] * slope
        beyond += outer[j] - kept
    return of_scale, beyond


@njit(**OPTIONS)
def first_of(row, value):
    """Where an entry first has this value; past the end where none has."""
    for j in range(len(row)):
        if row[j] == value:
            return j
    return len(row)
