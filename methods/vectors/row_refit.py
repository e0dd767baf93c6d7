"""The best centroids for given codes: least squares on the layer's output error.

With the codes fixed, Q is linear in the centroids C and tr((W - Q) H (W - Q)^T) is a quadratic in them. Its
gradient is the sum, over the weights that use an entry, of ((Q - W) H): one matrix product and one scatter.
So conjugate gradients need no matrix, and since rows meet only through the codebooks of their row block,
every row block is a system of its own, with steps of its own.
"""

import torch
from torch import Tensor

from methods.weights.row_vectors import Entries

SMALLEST_CURVATURE = 1e-12  # of the mean diagonal of the Hessian: below, an entry is left as it was


def refit(weight: Tensor, hessian: Tensor, entries: Entries, start: Tensor, steps: int) -> Tensor:
    """Centroids of least error for given codes, by preconditioned conjugate gradients.

    Args:
        weight: (out, in), in = vectors * length.
        hessian: (in, in), symmetric positive semidefinite.
        start: (row_blocks, groups, count, length) centroids.
        steps: conjugate-gradient steps at most.

    Returns:
        Centroids shaped like `start`; what no live column uses, or would get worse (a row block), stays.
    """
    diagonal = torch.diagonal(hessian)
    curvature = entries.gather(diagonal.expand_as(weight))
    scaling = torch.where(curvature > SMALLEST_CURVATURE * diagonal.mean(), 1 / curvature, 0.0)
    first = entries.gather((weight - entries.spread(start)) @ hessian)
    moved, residual, direction = torch.zeros_like(start), first.clone(), first * scaling
    energy = _dot(residual, direction)
    for _ in range(steps):
        change = entries.gather(entries.spread(direction) @ hessian)
        bend = _dot(direction, change)
        length = torch.where((bend > 0) & (energy > 0), energy / bend, 0.0)
        moved += length * direction
        residual -= length * change
        scaled = residual * scaling
        before, energy = energy, _dot(residual, scaled)
        direction = scaled + torch.where(before > 0, energy / before, 0.0) * direction
    # error before less error after
    gain = _dot(moved, first + (first - entries.gather(entries.spread(moved) @ hessian)))
    return torch.where(gain > 0, start + moved, start)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner products by row block, shaped to multiply centroids."""
    return (first * second).sum((1, 2, 3), keepdim=True)
