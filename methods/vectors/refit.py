"""The best codebooks for given codes: least squares on the layer's output error.

With the codes fixed the values Q are linear in the centroids C, and

    sum over rows i of  importance_i (w - q)_i H (w - q)_i^T

is a quadratic in them, of all codebooks and stages at once. Its gradient gathers H (Q - W) over the vectors
that use a centroid; so conjugate gradients take one matrix product a step and never form the system. They
start from the codebooks at hand, and no step raises the error.
"""

from dataclasses import replace

import torch
from torch import Tensor

from methods.vectors.descent import Codes, Span
from methods.weights.book import Book

Centroids = list[tuple[Tensor, ...]]  # of each span, of each of its stages


def refit(
    hessian: Tensor, row_importance: Tensor, offset: Tensor, spans: list[Span], codes: Codes, steps: int
) -> list[Span]:
    """The same spans with centroids of less error. What no vector uses stays as it was.

    Args:
        hessian: (in, in), symmetric positive semidefinite.
        row_importance: (out,), what the errors of each row are weighted with.
        offset: (in, out), values - weight under the codes and codebooks given.
        steps: conjugate-gradient steps at most.
    """
    rows = offset.shape[1]
    uses = _gather(torch.outer(torch.diagonal(hessian), row_importance), spans, codes)
    scaling = [tuple(torch.where(use > 0, 1 / use, 0.0) for use in of_span) for of_span in uses]
    residual = _each(torch.neg, _gather(hessian @ offset * row_importance, spans, codes))
    direction = _each(torch.mul, residual, scaling)
    energy = _dot(residual, direction)
    answer = [span.book.stages for span in spans]
    # beyond it rounding noise would grow: two stages leave the system singular
    enough = torch.finfo(offset.dtype).eps * energy
    for _ in range(steps):
        change = _gather(hessian @ spread(direction, codes, rows) * row_importance, spans, codes)
        bend = _dot(direction, change)
        if not (bend > 0 and energy > enough):
            break
        length = energy / bend
        answer = _each(lambda a, d, length=length: a + length * d, answer, direction)
        residual = _each(lambda r, c, length=length: r - length * c, residual, change)
        scaled = _each(torch.mul, residual, scaling)
        before, energy = energy, _dot(residual, scaled)
        direction = _each(lambda s, d, share=energy / before: s + share * d, scaled, direction)
    return [with_stages(span, stages) for span, stages in zip(spans, answer, strict=True)]


def spread(centroids: Centroids, codes: Codes, rows: int) -> Tensor:
    """The values (in, rows) that codes choose from centroids."""
    parts = zip(centroids, codes, strict=True)
    return torch.cat([Book.of(stages).decode(code, rows) for stages, code in parts])


def with_stages(span: Span, stages: tuple[Tensor, ...]) -> Span:
    """The span with other centroids."""
    return replace(span, book=Book.of(stages))


def _gather(matrix: Tensor, spans: list[Span], codes: Codes) -> Centroids:
    """The transpose of `spread`: of each centroid entry the sum over (in, rows) of what uses it."""
    sums = []
    for span, of_span in zip(spans, codes, strict=True):
        missing = -matrix.shape[1] % span.book.length
        vectors = torch.nn.functional.pad(matrix[span.columns], (0, missing)).reshape(-1, span.book.length)
        stages = [
            (torch.zeros_like(s), c.reshape(-1)) for s, c in zip(span.book.stages, of_span, strict=True)
        ]
        sums.append(tuple(none.index_add_(0, code, vectors) for none, code in stages))
    return sums


def _each(function, *lists: Centroids) -> Centroids:
    return [tuple(map(function, *of_span)) for of_span in zip(*lists, strict=True)]


def _dot(first: Centroids, second: Centroids) -> Tensor:
    return sum(product.sum() for of_span in _each(torch.mul, first, second) for product in of_span)
