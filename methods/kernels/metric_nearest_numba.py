"""The cheapest centroid for CPUs: all centroids of a codebook side by side in the vector units, no cost ever leaves the cache."""

import numpy as np
from numba import njit


# contract: fused multiply-adds; no nans, no signed zeros: lets the minimum be taken in the vector units
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def cheapest(pulled, own, turned, codes):
    """See `methods.kernels.metric_nearest.cheapest`; turned (codebooks, length, count), fills `codes`."""
    books, rows, places, length = pulled.shape
    count = turned.shape[2]
    cost = np.empty(count, pulled.dtype)
    for book in range(books):
        for row in range(rows):
            for place in range(places):
                for c in range(count):
                    cost[c] = own[book, place, c]
                for entry in range(length):
                    twice = -2 * pulled[book, row, place, entry]
                    for c in range(count):
                        cost[c] += twice * turned[book, entry, c]
                least = cost[0]
                for c in range(count):
                    least = min(least, cost[c])
                winner = 0
                while winner < count - 1 and cost[winner] > least:
                    winner += 1
                codes[book, row, place] = winner
