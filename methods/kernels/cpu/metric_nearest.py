"""The cheapest centroid for CPUs: the vectors of a place side by side in the vector units, each with the best
centroid so far.
"""

import numpy as np
from numba import njit


# contract: fused multiply-adds; no nans, no signed zeros: lets the choice be made in the vector units
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def cheapest(pulled, own, turned, codes):
    """See `methods.kernels.metric_nearest.cheapest`; pulled (codebooks, places, length, rows), turned
    (codebooks, length, count).
    """
    books, places, length, rows = pulled.shape
    count = turned.shape[2]
    cost, least, winner = np.empty(rows, pulled.dtype), np.empty(rows, pulled.dtype), np.empty(rows, np.int32)
    for book in range(books):
        for place in range(places):
            first, last = pulled[book, place, 0], pulled[book, place, length - 1]
            least[:] = np.inf
            winner[:] = 0
            for c in range(count):
                bare, turn = own[book, place, c], -2 * turned[book, length - 1, c]
                if length == 2:  # the paper's vectors: nothing is kept between the products
                    before = -2 * turned[book, 0, c]
                    for row in range(rows):
                        total = bare + before * first[row]
                        total += turn * last[row]
                        better = total < least[row]
                        winner[row] = np.int32(c) if better else winner[row]
                        least[row] = total if better else least[row]
                    continue
                cost[:] = bare
                for entry in range(length - 1):
                    component, before = pulled[book, place, entry], -2 * turned[book, entry, c]
                    for row in range(rows):
                        cost[row] += before * component[row]
                for row in range(rows):
                    total = cost[row] + turn * last[row]
                    better = total < least[row]
                    winner[row] = np.int32(c) if better else winner[row]
                    least[row] = total if better else least[row]
            for row in range(rows):
                codes[book, row, place] = winner[row]
