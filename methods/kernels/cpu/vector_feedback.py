"""The vector feedback loop for CPUs: vector units run across rows in the feedback, and across vectors in the
search.
"""

from functools import cache

import numpy as np
from numba import from_dtype, int64, njit
from torch import Tensor

from methods.kernels.cpu.feedback import TOGETHER, feed_four, feed_one, take_step
from methods.kernels.cpu.nearest import BATCH, OPTIONS, nearest_in_batch, next_in_batch, prepared
from methods.weights.book import Book


def round_vectors(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, codes: tuple[Tensor, ...],
                  feedback: Tensor, book: Book, beam: int) -> int:  # fmt: skip
    """See `methods.kernels.vector_feedback.round_vectors`."""
    second, residual = (codes[0], book.centroids[:0]) if book.residual is None else (codes[1], book.residual)
    arrays = [values.numpy() for values in (weight, pull, offset, steps, codes[0], second, feedback)]
    return _compiled(arrays[0].dtype)(
        *arrays, *prepared(book.centroids), *prepared(residual), book.length, beam
    )


@cache
def _compiled(dtype: np.dtype):
    value = from_dtype(dtype)
    block, line, codes = value[:, ::1], value[::1], int64[:, ::1]
    return njit(
        (block, block, block, block, codes, codes, value[:, :], block, line, block, line, int64, int64),
        **OPTIONS,
    )(_round_vectors)


def _round_vectors(
    weight, pull, offset, steps, codes, codes2, feedback, book, half, residual, half2, length, beam
):
    columns, rows = weight.shape
    x, y = np.zeros((book.shape[1], BATCH), weight.dtype), np.zeros((book.shape[1], BATCH), weight.dtype)
    lines = np.empty((5, BATCH), weight.dtype)
    index = np.empty((2, BATCH), np.int32)
    total = 0
    for k in range(columns):
        for r in range(rows):
            steps[k, r] = weight[k, r] + pull[k, r]  # until its turn comes, a row of steps holds targets
    for first in range(0, columns, TOGETHER):
        moved = 0
        for j in range(first, min(first + TOGETHER, columns)):
            for start in range(0, rows // length, BATCH):
                some = slice(start, min(start + BATCH, rows // length))
                here = steps[j, start * length : some.stop * length]
                if len(residual) == 0:
                    _round_batch(here, codes[j, some], book, half, length, x, lines, index)
                else:
                    _round_batch_twice(
                        here,
                        codes[j, some],
                        codes2[j, some],
                        book,
                        half,
                        residual,
                        half2,
                        length,
                        beam,
                        x,
                        y,
                        lines,
                        index,
                    )
            if rows % length > 0:
                _round_short(
                    steps[j, rows - rows % length :], codes[j, -1:], codes2[j, -1:], book, residual, beam
                )
            moved += take_step(steps[j], offset[j], weight[j])
            if moved > 0:
                for k in range(j + 1, min(first + TOGETHER, columns)):
                    feed_one(steps[k], steps[j], feedback[k, j])
        if moved > 0 and first + TOGETHER < columns:
            feed_four(steps, feedback, first)
        total += moved
    return total


@njit(**OPTIONS)
def _round_batch(values, codes, book, half, length, x, lines, index):
    """Put the nearest centroids in the place of the vectors in `values`."""
    count = len(codes)
    for r in range(count):
        for i in range(length):
            x[i, r] = values[r * length + i]
    nearest_in_batch(x, count, book, half, lines[0], lines[1], index[0])
    for r in range(count):
        codes[r] = index[0, r]
        for i in range(length):
            values[r * length + i] = book[index[0, r], i]


@njit(**OPTIONS)
def _round_batch_twice(values, codes, codes2, book, half, residual, half2, length, beam, x, y, lines, index):
    count = len(codes)
    score, best, floor, least, best2 = lines[0], lines[1], lines[2], lines[3], lines[4]
    for r in range(count):
        least[r], floor[r] = np.inf, -np.inf
        if codes[r] >= 0:
            least[r] = 0
        for i in range(length):
            x[i, r] = values[r * length + i]
            if codes[r] >= 0:
                least[r] += (x[i, r] - book[codes[r], i] - residual[codes2[r], i]) ** 2
    for b in range(min(beam, len(book))):
        if b == 0:
            nearest_in_batch(x, count, book, half, score, best, index[0])
        else:
            next_in_batch(x, count, book, half, score, floor, best, index[0])
        for r in range(count):
            floor[r] = best[r]
            for i in range(length):
                y[i, r] = x[i, r] - book[index[0, r], i]
        nearest_in_batch(y, count, residual, half2, score, best2, index[1])
        for r in range(count):
            error = x.dtype.type(0)
            for i in range(length):
                error += (y[i, r] - residual[index[1, r], i]) ** 2
            if error < least[r]:
                least[r], codes[r], codes2[r] = error, index[0, r], index[1, r]
    for r in range(count):
        for i in range(length):
            values[r * length + i] = book[codes[r], i] + residual[codes2[r], i]


@njit(**OPTIONS)
def _round_short(values, codes, codes2, book, residual, beam):
    """The one vector at the end of a column that lacks coordinates."""
    zero = values.dtype.type(0)
    errors = np.empty(len(book), values.dtype)
    for c in range(len(book)):
        errors[c] = zero
        for i in range(len(values)):
            errors[c] += (values[i] - book[c, i]) ** 2
    if len(residual) == 0:
        codes[0] = np.argmin(errors)
        for i in range(len(values)):
            values[i] = book[codes[0], i]
        return
    least = values.dtype.type(np.inf)
    if codes[0] >= 0:
        least = zero
        for i in range(len(values)):
            least += (values[i] - book[codes[0], i] - residual[codes2[0], i]) ** 2
    for _ in range(min(beam, len(book))):
        main = np.argmin(errors)
        errors[main] = np.inf
        for c in range(len(residual)):
            error = zero
            for i in range(len(values)):
                error += (values[i] - book[main, i] - residual[c, i]) ** 2
            if error < least:
                least, codes[0], codes2[0] = error, main, c
    for i in range(len(values)):
        values[i] = book[codes[0], i] + residual[codes2[0], i]
