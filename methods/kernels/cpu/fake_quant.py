"""Rounding to a grid in training, for CPUs: one pass forward, one back; see `methods.kernels.fake_quant` for
what they compute.
"""

import numpy as np
from numba import njit

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


# nnan, nsz: comparisons become selections, and lanes of the vector units are taken together at the end
@njit(**OPTIONS, fastmath={"nnan", "nsz", "reassoc"})
def extremes(groups, least, greatest):
    """Fills `least` and `greatest`."""
    for row in range(groups.shape[0]):
        for group in range(groups.shape[1]):
            low = high = groups[row, group, 0]
            for k in range(groups.shape[2]):
                weight = groups[row, group, k]
                low = weight if weight < low else low
                high = weight if weight > high else high
            least[row, group], greatest[row, group] = low, high


@njit(**OPTIONS)
def forward(groups, scale, zero, max_code, rounded):
    """Fills `rounded`. No fused multiply-adds here: the answer is the grid's own, bit for bit."""
    low, high = groups.dtype.type(0), groups.dtype.type(max_code)
    for row in range(groups.shape[0]):
        for group in range(groups.shape[1]):
            s, z = scale[row, group], zero[row, group]
            for k in range(groups.shape[2]):
                place = np.rint(groups[row, group, k] / s + z)
                code = low if place < low else high if place > high else place  # in this form a nan stays one
                rounded[row, group, k] = (code - z) * s


# reassoc, contract: sums in the order that suits the vector units, with fused multiply-adds
@njit(**OPTIONS, fastmath={"reassoc", "contract"})
def backward(grad, groups, scale, zero, max_code, of_weight, of_scale, of_zero):
    """Fills `of_weight`, `of_scale` and `of_zero`."""
    low, high = groups.dtype.type(0), groups.dtype.type(max_code)
    for row in range(groups.shape[0]):
        for group in range(groups.shape[1]):
            s, z, slope, beyond = scale[row, group], zero[row, group], low, low
            for k in range(groups.shape[2]):
                steps, arriving = groups[row, group, k] / s, grad[row, group, k]
                place = np.rint(steps + z)
                code = min(max(place, low), high)
                inside = place == code
                passed = arriving if inside else low
                of_weight[row, group, k] = passed
                slope += arriving * (code - z) - passed * steps
                beyond += arriving - passed
            of_scale[row, group], of_zero[row, group] = slope, -s * beyond


# reassoc, nsz: counts are exact in any order
@njit(**OPTIONS, fastmath={"reassoc", "nsz"})
def add_at_extremes(total, groups, least, greatest, of_least, of_greatest):
    """Changes `total`. Counts are numbers of the weights' own kind, which share the vector units' lanes."""
    one, none = groups.dtype.type(1), groups.dtype.type(0)
    for row in range(groups.shape[0]):
        for group in range(groups.shape[1]):
            low, high, lows, highs = least[row, group], greatest[row, group], none, none
            for k in range(groups.shape[2]):
                lows += one if groups[row, group, k] == low else none
                highs += one if groups[row, group, k] == high else none
            at_low, at_high = of_least[row, group] / max(lows, one), of_greatest[row, group] / max(highs, one)
            for k in range(groups.shape[2]):
                weight = groups[row, group, k]
                total[row, group, k] += (at_low if weight == low else none) + (
                    at_high if weight == high else none
                )
