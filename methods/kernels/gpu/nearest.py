"""Nearest centroids for CUDA: the matrix units make the scores of a tile of centroids, which stay on chip."""

import torch
import triton
import triton.language as tl
from torch import Tensor

VECTORS, CENTROIDS = 64, 64  # the tile of scores of one program
NARROWEST = 16  # the inner width that the matrix units take at least


def nearest(vectors: Tensor, codebook: Tensor, exact: bool) -> Tensor:
    """See `methods.kernels.nearest.nearest`; both contiguous float32."""
    codes = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    if len(vectors):
        half = codebook.square().sum(1) / 2
        width = max(NARROWEST, triton.next_power_of_2(vectors.shape[1]))
        _kernel[(triton.cdiv(len(vectors), VECTORS),)](
            vectors, codebook, half, codes, *vectors.shape, len(codebook),
            PRECISION="ieee" if exact else "tf32", WIDTH=width, VECTORS=VECTORS, CENTROIDS=CENTROIDS,
        )  # fmt: skip
    return codes


@triton.jit
def _kernel(vectors, codebook, half, codes, count, length, centroids, PRECISION: tl.constexpr,
            WIDTH: tl.constexpr, VECTORS: tl.constexpr, CENTROIDS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * VECTORS + tl.arange(0, VECTORS)
    column = tl.arange(0, WIDTH)
    real = (row < count)[:, None] & (column < length)
    x = tl.load(vectors + row[:, None] * length + column, mask=real, other=0.0)
    best = tl.full((VECTORS,), float("inf"), tl.float32)
    index = tl.zeros((VECTORS,), tl.int64)
    for first in range(0, centroids, CENTROIDS):
        c = first + tl.arange(0, CENTROIDS)
        there = (c < centroids) & (column < length)[:, None]
        book = tl.load(codebook + c[None, :] * length + column[:, None], mask=there, other=0.0)
        norm = tl.load(half + c, mask=c < centroids, other=float("inf"))
        score = norm - tl.dot(x, book, input_precision=PRECISION)
        low = tl.min(score, axis=1)
        at = first + tl.argmin(score, axis=1)
        better = low < best
        best = tl.where(better, low, best)
        index = tl.where(better, at.to(tl.int64), index)
    tl.store(codes + row, index, mask=row < count)
