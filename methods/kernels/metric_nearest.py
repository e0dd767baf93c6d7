"""The cheapest centroid of every vector: each codebook has its own centroids, each place its own metric.

    cost of centroid c at place p of codebook b = own[b, p, c] - 2 <pulled[b, r, p], centroids[b, c]>

which is (x - c)^T M_p (x - c) less what does not depend on c, when pulled holds M_p x and own c^T M_p c. Ties
go to the lowest index.
"""

import torch
from torch import Tensor

from methods.kernels.cpu import metric_nearest as compiled

CHUNK = 2**24  # costs in memory at a time


def cheapest(pulled: Tensor, own: Tensor, centroids: Tensor) -> Tensor:
    """
    Args:
        pulled: (codebooks, rows, places, length).
        own: (codebooks, places, count).
        centroids: (codebooks, count, length).

    Returns:
        (codebooks, rows, places) int64.
    """
    if pulled.device.type == "cpu" and pulled.dtype in (torch.float32, torch.float64):
        codes = torch.empty(pulled.shape[:3], dtype=torch.int64)
        operands = pulled.permute(0, 2, 3, 1).contiguous(), own.contiguous(), centroids.mT.contiguous(), codes
        compiled.cheapest(*(operand.numpy() for operand in operands))
        return codes
    return reference(pulled, own, centroids)


def reference(pulled: Tensor, own: Tensor, centroids: Tensor) -> Tensor:
    """The formula in plain torch, for any device; some codebooks at a time, so that costs fit into memory."""
    step = max(1, CHUNK // (pulled[0].numel() // pulled.shape[3] * centroids.shape[1]))
    parts = zip(pulled.split(step), own.split(step), centroids.split(step), strict=True)
    return torch.cat([_reference(*part) for part in parts])


def _reference(pulled: Tensor, own: Tensor, centroids: Tensor) -> Tensor:
    books, rows, places, length = pulled.shape
    products = (pulled.reshape(books, rows * places, length) @ centroids.mT).view(books, rows, places, -1)
    return torch.add(own[:, None], products, alpha=-2, out=products).argmin(3)
