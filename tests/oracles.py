"""Slow, obvious versions of the algorithms, in float64: what the fast ones are tested against."""

from itertools import product

import torch
from torch import Tensor

from methods.core.grid import Grid


def textbook_gptq(weight: Tensor, hessian: Tensor, grid: Grid, damping: float) -> Tensor:
    """Optimal brain quantization in fixed order: after each column, its compensation and an explicit inverse of what remains."""
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    running, rounded = weight.clone(), torch.empty_like(weight)
    for j in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[j:, j:])
        rounded[:, j] = grid.columns(slice(j, j + 1)).round(running[:, j : j + 1]).squeeze(1)
        step = rounded[:, j] - running[:, j]
        running[:, j:] += torch.outer(step, inverse[0] / inverse[0, 0])
    return rounded


def textbook_quantease(weight: Tensor, hessian: Tensor, grid: Grid, start: Tensor, relaxed: list[bool]) -> Tensor:
    """Coordinate descent straight from its definition: each column goes to the minimiser of the error, all others fixed."""
    values = start.clone()
    for relax in relaxed:
        for j in range(weight.shape[1]):
            gradient = (weight - values) @ hessian[:, j]
            target = values[:, j] + gradient / hessian[j, j] if hessian[j, j] > 0 else weight[:, j]
            values[:, j] = target if relax else grid.columns(slice(j, j + 1)).round(target[:, None]).squeeze(1)
    return values


def least_error_codes(row: Tensor, hessian: Tensor, grid: Grid) -> float:
    """The least w H w^T over every choice of codes for one row (1, in); exponential."""
    choices = torch.tensor(list(product(range(grid.max_code + 1), repeat=row.shape[1])), dtype=torch.uint8)
    lost = row - grid.decode(choices)
    return ((lost @ hessian) * lost).sum(1).min().item()
