"""Nearest centroids for CPUs: the vector units run across vectors, whose coordinates are laid out side by
side, a batch at a time.

Coordinates are taken four at a time (one or two where vectors have no more); zeros fill the last four.
"""

from functools import cache

import numpy as np
import torch
from numba import from_dtype, int64, njit
from torch import Tensor

BATCH = 128  # vectors whose coordinates, scores and winners stay in the innermost cache

# contract: fused multiply-adds in scores, which are compared with each other only; nnan, nsz: comparisons
# become selections
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "nnan", "nsz"}}


def prepared(codebook: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(centroids, width) with zeros up to a width that the kernels like, and half the squared norms."""
    width = padded_width(codebook.shape[1])
    padded = torch.nn.functional.pad(codebook, (0, width - codebook.shape[1])).contiguous()
    return padded.numpy(), (codebook.square().sum(1) / 2).numpy()


def padded_width(length: int) -> int:
    return length if length <= 2 else -(-length // 4) * 4


@cache
def nearest(dtype: np.dtype):
    """`methods.kernels.nearest.nearest` for arrays of a dtype: (vectors, *prepared codebook, codes), fills
    the codes.
    """
    matrix, line = from_dtype(dtype)[:, ::1], from_dtype(dtype)[::1]
    return njit((matrix, matrix, line, int64[::1]), **OPTIONS)(_nearest)


def _nearest(vectors, codebook, half, codes):
    count, length = vectors.shape
    x = np.zeros((codebook.shape[1], BATCH), vectors.dtype)
    score, best, index = (
        np.empty(BATCH, vectors.dtype),
        np.empty(BATCH, vectors.dtype),
        np.empty(BATCH, np.int32),
    )
    for first in range(0, count, BATCH):
        here = min(BATCH, count - first)
        for r in range(here):
            for i in range(length):
                x[i, r] = vectors[first + r, i]
        nearest_in_batch(x, here, codebook, half, score, best, index)
        for r in range(here):
            codes[first + r] = index[r]


@njit(**OPTIONS)
def nearest_in_batch(x, count, codebook, half, score, best, index):
    """Of `count` vectors x (width, BATCH) the lowest scores (`best`) and where they are (`index`); `score` is
    scratch.
    """
    for r in range(count):
        best[r], index[r] = np.inf, 0
    for c in range(len(codebook)):
        score_of_one(x, count, codebook[c], half[c], score)
        for r in range(count):  # in this form, np.minimum included, the compiler finds its vectors
            index[r] = np.int32(c) if score[r] < best[r] else index[r]
            best[r] = np.minimum(score[r], best[r])


@njit(**OPTIONS)
def next_in_batch(x, count, codebook, half, score, floor, best, index):
    """The same among scores above `floor`, which is what the last call found."""
    for r in range(count):
        best[r], index[r] = np.inf, 0
    for c in range(len(codebook)):
        score_of_one(x, count, codebook[c], half[c], score)
        for r in range(count):
            score[r] = score[r] if score[r] > floor[r] else np.inf
        for r in range(count):
            index[r] = np.int32(c) if score[r] < best[r] else index[r]
            best[r] = np.minimum(score[r], best[r])


@njit(inline="always", **OPTIONS)
def score_of_one(x, count, centroid, half, score):
    """half - x . centroid of every vector in the batch."""
    width = len(centroid)
    if width == 1:
        for r in range(count):
            score[r] = half - x[0, r] * centroid[0]
        return
    if width == 2:
        for r in range(count):
            score[r] = half - x[0, r] * centroid[0] - x[1, r] * centroid[1]
        return
    a, b, c, d = centroid[0], centroid[1], centroid[2], centroid[3]
    for r in range(count):
        score[r] = half - x[0, r] * a - x[1, r] * b - x[2, r] * c - x[3, r] * d
    for i in range(4, width, 4):
        a, b, c, d = centroid[i], centroid[i + 1], centroid[i + 2], centroid[i + 3]
        for r in range(count):
            score[r] = score[r] - x[i, r] * a - x[i + 1, r] * b - x[i + 2, r] * c - x[i + 3, r] * d
