"""The feedback loop of `methods.kernels.feedback` for vectors: each column in turn rounded to centroids.

Tensors are turned, (columns, out). For column k of a block, with w its weights, p the pull of all that
happened outside the block,

    target_k = w_k + p_k + sum over j < k of feedback[k, j] * step_j
    value_k  = of every `length` neighbouring rows the centroid nearest to the target
    step_k   = (value_k - w_k) - offset_k, and offset_k becomes value_k - w_k

With two stages the `beam` nearest centroids are tried each with the residual centroid nearest to what it
leaves (a beam of 1 is the greedy choice), and the pair that a vector holds already is kept unless another is
nearer.
"""

import torch
from torch import Tensor

from methods.kernels.cpu import vector_feedback as compiled
from methods.kernels.nearest import nearest
from methods.kernels.triton_modules import triton_import_module
from methods.weights.book import Book

NO_CODE = -1  # of vectors not yet rounded
# centroids above which, on CUDA, a matrix product per column beats the kernel that searches them tile by tile
MOST_ON_CHIP = 1024


def round_vectors(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, codes: tuple[Tensor, ...],
                  feedback: Tensor, book: Book, beam: int) -> int | Tensor:  # fmt: skip
    """Take one block of columns through the formulas above.

    Args:
        weight, pull: (columns, out), contiguous.
        offset: (columns, out), contiguous, how far the values are from the weights; updated.
        steps: (columns, out), contiguous, overwritten.
        codes: of each stage of the book (columns, vectors) int64, contiguous, NO_CODE before the first
            rounding; updated.
        feedback: (columns, columns); only what lies below the diagonal is read.
        beam: of a book of two stages, how many first-stage centroids are tried.

    Returns:
        How many steps are not zero (on an accelerator a tensor, so that nothing waits for it).
    """
    operands = (weight, pull, offset, steps, codes, feedback, book, beam)
    if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64):
        return compiled.round_vectors(*operands)
    on_chip = weight.device.type == "cuda" and len(book.centroids) <= MOST_ON_CHIP
    triton = triton_import_module("methods.kernels.gpu.vector_feedback") if on_chip else None
    return reference(*operands) if triton is None else triton.round_vectors(*operands)


def reference(weight: Tensor, pull: Tensor, offset: Tensor, steps: Tensor, codes: tuple[Tensor, ...],
              feedback: Tensor, book: Book, beam: int) -> Tensor:  # fmt: skip
    """The formulas in plain torch, for any device and floating dtype."""
    whole = weight.shape[1] // book.length * book.length
    widths = [(slice(0, whole), book), (slice(whole, None), book.shortened(weight.shape[1] - whole))]
    for k in range(len(weight)):
        target = weight[k] + pull[k] + feedback[k, :k] @ steps[:k]
        value = torch.empty_like(target)
        for rows, of_width in widths:
            if (vectors := target[rows]).numel():
                vectors = vectors.view(-1, of_width.length)
                some = slice(0, len(vectors)) if rows.start == 0 else slice(-1, None)
                value[rows] = _choose(vectors, of_width, beam, [code[k, some] for code in codes]).reshape(-1)
        steps[k] = value - weight[k] - offset[k]
        offset[k] = value - weight[k]
    return torch.count_nonzero(steps)


def _choose(vectors: Tensor, book: Book, beam: int, codes: list[Tensor]) -> Tensor:
    """The values of vectors (n, length); updates their codes, each (n,)."""
    if book.residual is None:
        codes[0].copy_(nearest(vectors, book.centroids))
        return book.centroids[codes[0]]
    scores = torch.addmm(book.centroids.square().sum(1) / 2, vectors, book.centroids.T, alpha=-1)
    candidates = scores.topk(min(beam, len(book.centroids)), dim=1, largest=False).indices
    held = codes[0] != NO_CODE
    values = book.centroids[codes[0].clamp(min=0)] + book.residual[codes[1].clamp(min=0)]
    least = torch.where(held, (vectors - values).square().sum(1), torch.inf)
    for main in candidates.unbind(1):
        rest = vectors - book.centroids[main]
        extra = nearest(rest, book.residual)
        error = (rest - book.residual[extra]).square().sum(1)
        better = error < least
        least = torch.where(better, error, least)
        codes[0].copy_(torch.where(better, main, codes[0]))
        codes[1].copy_(torch.where(better, extra, codes[1]))
    return book.centroids[codes[0]] + book.residual[codes[1]]
