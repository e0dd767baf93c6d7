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
        change = _gather(hessian @ spread(direction, spans, codes, rows) * row_importance, spans, codes)
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


def spread(centroids: Centroids, spans: list[Span], codes: Codes, rows: int) -> Tensor:
    """The values (in, rows) that codes choose from centroids."""
    return torch.cat(
        [
            with_stages(span, own).book.decode(code, rows)
            for span, own, code in zip(spans, centroids, codes, strict=True)
        ]
    )


def with_stages(span: Span, stages: tuple[Tensor, ...]) -> Span:
    """The span with other centroids."""
    return replace(span, book=Book(stages[0], stages[1] if len(stages) > 1 else None))


def _gather(matrix: Tensor, spans: list[Span], codes: Codes) -> Centroids:
    """The transpose of `spread`: of each centroid entry the sum over (in, rows) of what uses it."""
    sums = []
    for span, of_span in zip(spans, codes, strict=True):
        missing = -matrix.shape[1] % span.book.length
        vectors = torch.nn.functional.pad(matrix[span.columns], (0, missing)).reshape(-1, span.book.length)
        stages = zip(span.book.stages, of_span, strict=True)
        sums.append(
            tuple(torch.zeros_like(stage).index_add_(0, code.reshape(-1), vectors) for stage, code in stages)
        )
    return sums


def _each(function, *lists: Centroids) -> Centroids:
    return [
        tuple(function(*stages) for stages in zip(*of_span, strict=True))
        for of_span in zip(*lists, strict=True)
    ]


def _dot(first: Centroids, second: Centroids) -> Tensor:
    return sum(
        (a * b).sum() for of_span in zip(first, second, strict=True) for a, b in zip(*of_span, strict=True)
    )
