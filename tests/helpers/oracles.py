"""Slow, obvious versions of the algorithms, in float64: what the fast ones are tested against."""

from itertools import product

import torch
from torch import Tensor

from methods.weights.grid import Grid


def textbook_gptq(weight: Tensor, hessian: Tensor, grid: Grid, damping: float) -> Tensor:
    """Optimal brain quantization in fixed order: after each column, its compensation and an explicit inverse
    of what remains.
    """
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    running, rounded = weight.clone(), torch.empty_like(weight)
    for j in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[j:, j:])
        rounded[:, j] = grid.columns(slice(j, j + 1)).round(running[:, j : j + 1]).squeeze(1)
        step = rounded[:, j] - running[:, j]
        running[:, j:] += torch.outer(step, inverse[0] / inverse[0, 0])
    return rounded


def textbook_quantease(
    weight: Tensor, hessian: Tensor, grid: Grid, start: Tensor, relaxed: list[bool]
) -> Tensor:
    """Coordinate descent straight from its definition: each column goes to the minimiser of the error, all
    others fixed.
    """
    values = start.clone()
    for relax in relaxed:
        for j in range(weight.shape[1]):
            gradient = (weight - values) @ hessian[:, j]
            target = values[:, j] + gradient / hessian[j, j] if hessian[j, j] > 0 else weight[:, j]
            values[:, j] = (
                target if relax else grid.columns(slice(j, j + 1)).round(target[:, None]).squeeze(1)
            )
    return values


def textbook_quantease_outliers(weight, hessian, values, correction, grids, relaxed, step, keep):
    """Descent on the rounded part and one gradient step with hard thresholding on the sparse part, in turns,
    straight from the definitions.

    `grids(correction)` is the grid that the next sweep rounds to; `keep` the thresholding. Returns the two
    parts.
    """
    values, grid = values.clone(), grids(correction)
    for relax in relaxed:
        for j in range(weight.shape[1]):
            target = values[:, j] + (weight - values - correction) @ hessian[:, j] / hessian[j, j]
            values[:, j] = (
                target if relax else grid.columns(slice(j, j + 1)).round(target[:, None]).squeeze(1)
            )
        correction = keep(correction - step * ((values + correction - weight) @ hessian))
        grid = grids(correction)
    return values, correction


def textbook_spqr(weight, hessian, scheme, damping, threshold, fit):
    """SpQR without act-order, one column at a time with an explicit inverse; `fit(group, prices)` gives the
    grid of a group of columns.
    """
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    running, answer, size = weight.clone(), torch.empty_like(weight), scheme.group_size
    kept = torch.zeros_like(weight, dtype=torch.bool)
    prices = [1 / torch.linalg.inv(hessian[j:, j:])[0, 0] for j in range(len(hessian))]
    for j in range(weight.shape[1]):
        if j % size == 0:
            grid = fit(running[:, j : j + size], torch.stack(prices[j : j + size]))
        rounded = grid.columns(slice(j % size, j % size + 1)).round(running[:, j : j + 1]).squeeze(1)
        kept[:, j] = (rounded - running[:, j]) ** 2 * prices[j] > threshold
        answer[:, j] = torch.where(kept[:, j], running[:, j], rounded)
        inverse = torch.linalg.inv(hessian[j:, j:])
        running[:, j:] += torch.outer(answer[:, j] - running[:, j], inverse[0] / inverse[0, 0])
    return answer, kept


def least_error_codes(row: Tensor, hessian: Tensor, grid: Grid) -> float:
    """The least w H w^T over every choice of codes for one row (1, in); exponential."""
    choices = torch.tensor(list(product(range(grid.max_code + 1), repeat=row.shape[1])), dtype=torch.uint8)
    lost = row - grid.decode(choices)
    return ((lost @ hessian) * lost).sum(1).min().item()


def textbook_vptq(
    weight: Tensor,
    hessian: Tensor,
    centroids: Tensor,
    residual: Tensor | None,
    damping: float,
    block_size: int,
) -> tuple[Tensor, Tensor]:
    """VPTQ's algorithm 1 as printed: the factor of the inverse, one column at a time, later blocks updated
    lazily; greedy second stage.

    Rows must be a multiple of the vector length. Returns the rounded weight and by how much the first stage
    missed each target.
    """
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    running, rounded, missed = weight.clone(), torch.empty_like(weight), torch.empty_like(weight)
    for start in range(0, weight.shape[1], block_size):
        stop = min(start + block_size, weight.shape[1])
        errors = torch.zeros_like(weight[:, start:stop])
        for j in range(start, stop):
            vectors = running[:, j].reshape(-1, centroids.shape[1])
            nearest = centroids[torch.cdist(vectors, centroids).argmin(1)]
            missed[:, j] = (vectors - nearest).reshape(-1)
            if residual is not None:
                nearest = nearest + residual[torch.cdist(vectors - nearest, residual).argmin(1)]
            rounded[:, j] = nearest.reshape(-1)
            errors[:, j - start] = (running[:, j] - rounded[:, j]) / upper[j, j]
            running[:, j:stop] -= torch.outer(errors[:, j - start], upper[j, j:stop])
        running[:, stop:] -= errors @ upper[start:stop, stop:]
    return rounded, missed
