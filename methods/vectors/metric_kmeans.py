"""k-means in which every vector brings its own metric, for many codebooks at once (GPTVQ's data-aware EM).

Not all errors of a vector are alike: what its columns lose reaches the output through the factor of the
Hessian at their place p. So a vector x costs (x - c)^T M_p (x - c) at centroid c, and the mean of its vectors
is no longer the best centroid: the M-step solves (sum of M_p) c = sum of M_p x over a centroid's vectors, the
E-step takes the cheapest centroid. Both are exact, so the cost never rises.
"""

import torch
from torch import Tensor

from methods.kernels.metric_nearest import cheapest

RIDGE = 1e-6  # of the mean metric: holds a centroid that few or no vectors pull on where it was


def fit_centroids(
    vectors: Tensor, metrics: Tensor, used: Tensor, count: int, iterations: int, tolerance: float
) -> Tensor:
    """Centroids of several codebooks, each by its own k-means.

    Args:
        vectors: (codebooks, rows, places, length).
        metrics: (places, length, length), symmetric positive semidefinite.
        used: (codebooks, rows) bool; the rows that are there, at least one per codebook.
        count: centroids per codebook.
        iterations: the most steps.
        tolerance: done when no more than this share of the vectors changed centroid.

    Returns:
        (codebooks, count, length); of fewer vectors than centroids some more than once.
    """
    centroids = spread_start(vectors, used, count)
    pulled = torch.einsum("brpd,pde->brpe", vectors, metrics)
    codes = None
    for _ in range(iterations):
        own = torch.einsum("bkd,pde,bke->bpk", centroids, metrics, centroids)
        previous, codes = codes, cheapest(pulled, own, centroids)
        centroids = _centres(pulled, metrics, used, codes, centroids)
        if previous is not None and torch.count_nonzero(codes != previous) <= tolerance * codes.numel():
            break
    return centroids


def spread_start(vectors: Tensor, used: Tensor, count: int) -> Tensor:
    """Mahalanobis initialisation: vectors by their distance from the mean, at equal intervals of rank."""
    books, rows, places, length = vectors.shape
    points = vectors.reshape(books, rows * places, length)
    present = used[:, :, None].expand(books, rows, places).reshape(books, -1)
    numbers = present.sum(1)
    mean = (points * present[:, :, None]).sum(1) / numbers[:, None]
    centred = (points - mean[:, None]) * present[:, :, None]
    covariance = centred.mT @ centred
    size = torch.diagonal(covariance, dim1=1, dim2=2).mean(1)
    ridge = torch.where(size > 0, RIDGE * size, 1.0)
    eye = torch.eye(length, dtype=points.dtype, device=points.device)
    covariance = covariance + ridge[:, None, None] * eye
    distance = (torch.linalg.solve(covariance, centred.mT).mT * centred).sum(2)
    order = torch.argsort(distance.masked_fill(~present, torch.inf), dim=1, stable=True)
    ranks = torch.linspace(0, 1, count, dtype=torch.float64, device=points.device) * (numbers[:, None] - 1)
    chosen = order.gather(1, ranks.round().long())
    return points.gather(1, chosen[:, :, None].expand(-1, -1, length))


def _centres(pulled: Tensor, metrics: Tensor, used: Tensor, codes: Tensor, old: Tensor) -> Tensor:
    """The M-step; a small ridge towards the old centroids makes it well-posed, and moves no fixed point."""
    books, count, length = old.shape
    places = pulled.shape[2]
    weight = used[:, :, None].expand(codes.shape).to(old.dtype)
    slot = (codes * places + torch.arange(places, device=codes.device)).reshape(books, -1)
    numbers = old.new_zeros(books, count * places).scatter_add_(1, slot, weight.reshape(books, -1))
    matrix = torch.einsum("bkp,pde->bkde", numbers.view(books, count, places), metrics)
    target = torch.zeros_like(old)
    index = codes.reshape(books, -1, 1).expand(-1, -1, length)
    target.scatter_add_(1, index, (pulled * weight[..., None]).reshape(books, -1, length))
    typical = torch.diagonal(metrics, dim1=1, dim2=2).mean()
    ridge = RIDGE * (torch.diagonal(matrix, dim1=2, dim2=3).mean(2) + torch.where(typical > 0, typical, 1.0))
    eye = torch.eye(length, dtype=old.dtype, device=old.device)
    return torch.linalg.solve(matrix + ridge[:, :, None, None] * eye, target + ridge[:, :, None] * old)
