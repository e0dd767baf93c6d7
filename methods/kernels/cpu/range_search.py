"""The range search for CPUs: all candidates of a group side by side in the vector units, whatever the group's
size.
"""

import numpy as np
from numba import njit


# contract: fused multiply-adds; the errors are compared with each other only
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def best_shrink(grouped, scales, zeros, importance, max_code, best):
    """See `methods.kernels.range_search.best_shrink`; fills `best` (out, groups)."""
    candidates = scales.shape[2]
    low, high = grouped.dtype.type(0), grouped.dtype.type(max_code)
    inverse, zero, cost = (
        np.empty(candidates, grouped.dtype),
        np.empty(candidates, grouped.dtype),
        np.empty(candidates, grouped.dtype),
    )
    for row in range(grouped.shape[0]):
        for group in range(grouped.shape[1]):
            for c in range(candidates):
                inverse[c], zero[c], cost[c] = 1 / scales[row, group, c], zeros[row, group, c], 0
            for column in range(grouped.shape[2]):
                weight, weighing = grouped[row, group, column], importance[group, column]
                for c in range(candidates):
                    position = weight * inverse[c] + zero[c]
                    miss = abs(min(max(np.rint(position), low), high) - position)  # in steps of the grid
                    cost[c] += weighing * (miss * miss * np.sqrt(np.sqrt(miss)))  # |miss|^2.25
            least, winner = np.inf, 0
            for c in range(candidates):
                error = cost[c] * scales[row, group, c] ** 2.25
                if error < least:
                    least, winner = error, c
            best[row, group] = winner
