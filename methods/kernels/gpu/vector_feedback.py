"""The vector feedback loop for CUDA: a program takes a few vectors through the block, steps in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.weights.book import Book

VECTORS, CENTROIDS = 8, 64  # vectors of one program, and centroids compared with them at a time


def round_vectors(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, codes: tuple[Tensor, ...],
                  feedback: Tensor, book: Book, beam: int) -> Tensor:  # fmt: skip
    """See `methods.kernels.vector_feedback.round_vectors`."""
    columns, rows = weight.shape
    two = book.residual is not None
    centroids, residual = book.centroids.contiguous(), (book.residual if two else book.centroids).contiguous()
    _kernel[(triton.cdiv(codes[0].shape[1], VECTORS),)](
        weight, pull, offset, steps, codes[0], codes[-1], feedback, centroids, residual,
        columns, rows, codes[0].shape[1], feedback.stride(0),
        book.length, len(centroids), len(residual), min(beam, len(centroids)),
        TWO=two, COLUMNS=triton.next_power_of_2(columns), WIDTH=triton.next_power_of_2(book.length),
        VECTORS=VECTORS, CENTROIDS=CENTROIDS,
    )  # fmt: skip
    return torch.count_nonzero(steps)


@triton.jit
def _kernel(weight, pull, offset, steps, codes, codes2, feedback, centroids, residual,
            columns, rows, vectors, feedback_stride, length, count, count2, beam,
            TWO: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
            VECTORS: tl.constexpr, CENTROIDS: tl.constexpr):  # fmt: skip
    vector = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    inside = vector < vectors
    i = tl.arange(0, WIDTH)
    row = vector[:, None] * length + i[None, :]
    real = (i < length)[None, :] & (row < rows)  # the last vector may be a short one
    column = tl.arange(0, COLUMNS)
    nothing = tl.full((VECTORS,), float("-inf"), weight.dtype.element_ty)
    made = tl.zeros((COLUMNS, VECTORS, WIDTH), weight.dtype.element_ty)  # the steps so far
    for k in range(columns):
        factors = tl.load(feedback + k * feedback_stride + column, mask=column < k, other=0.0)
        here = k * rows + row
        original = tl.load(weight + here, mask=real, other=0.0)
        pulled = tl.load(pull + here, mask=real, other=0.0)
        target = original + pulled + tl.sum(factors[:, None, None] * made, axis=0)
        if TWO:
            main = tl.load(codes + k * vectors + vector, mask=inside, other=-1)
            extra = tl.load(codes2 + k * vectors + vector, mask=inside, other=-1)
            value = _centroid(centroids, tl.maximum(main, 0), length, i, real)
            value += _centroid(residual, tl.maximum(extra, 0), length, i, real)
            least = tl.where(main >= 0, tl.sum((target - value) * (target - value), axis=1), float("inf"))
            floor = nothing
            for _ in range(beam):
                floor, at = _nearest(target, floor, centroids, count, length, i, real, CENTROIDS)
                first = _centroid(centroids, at, length, i, real)
                error, at2 = _nearest(target - first, nothing, residual, count2, length, i, real, CENTROIDS)
                better = error < least
                least = tl.where(better, error, least)
                main = tl.where(better, at, main)
                extra = tl.where(better, at2, extra)
                value = tl.where(better[:, None], first + _centroid(residual, at2, length, i, real), value)
            tl.store(codes2 + k * vectors + vector, extra, mask=inside)
        else:
            _, main = _nearest(target, nothing, centroids, count, length, i, real, CENTROIDS)
            value = _centroid(centroids, main, length, i, real)
        tl.store(codes + k * vectors + vector, main, mask=inside)
        now = value - original
        step = now - tl.load(offset + here, mask=real, other=0.0)
        made = tl.where((column == k)[:, None, None], step[None, :, :], made)
        tl.store(offset + here, now, mask=real)
        tl.store(steps + here, step, mask=real)


@triton.jit
def _nearest(x, floor, centroids, count, length, i, real, CENTROIDS: tl.constexpr):
    """Of each vector the least squared distance above `floor`, over the coordinates it has, and whose."""
    best = tl.full(floor.shape, float("inf"), x.dtype)
    index = tl.zeros(floor.shape, tl.int64)
    for first in range(0, count, CENTROIDS):
        c = first + tl.arange(0, CENTROIDS)
        there = (c < count)[:, None] & (i < length)[None, :]
        book = tl.load(centroids + c[:, None] * length + i[None, :], mask=there, other=0.0)
        apart = tl.where(real[:, None, :], x[:, None, :] - book[None, :, :], 0.0)
        distance = tl.sum(apart * apart, axis=2)
        distance = tl.where((c < count)[None, :] & (distance > floor[:, None]), distance, float("inf"))
        low = tl.min(distance, axis=1)
        at = (first + tl.argmin(distance, axis=1)).to(tl.int64)
        index = tl.where(low < best, at, index)
        best = tl.minimum(low, best)
    return best, index


@triton.jit
def _centroid(centroids, index, length, i, real):
    return tl.load(centroids + index[:, None] * length + i[None, :], mask=real, other=0.0)
