"""Random factors of seams, far from the identity and well conditioned; float64."""

import torch
from torch import Tensor

from methods.blocks.rewriting import Factor
from methods.contracts.seams import MiddleSeam, NormSeam, QueryKeySeam, Seam, ValueSeam


def random_factor(seam: Seam, generator: torch.Generator, full: bool, shift: bool) -> Factor:
    """A factor that may stand at a seam.

    Args:
        full: a full matrix where the seam takes one, else a diagonal.
        shift: with a shift where one can pass.
    """
    if isinstance(seam, MiddleSeam):
        return Factor(_positive(generator, seam.width))
    if isinstance(seam, QueryKeySeam):
        return Factor(_between_queries_and_keys(seam, generator, full))
    shape = (seam.width,) if isinstance(seam, NormSeam) else (seam.value.count, seam.value.size)
    matrix = _matrix(generator, *shape) if full else _positive(generator, *shape) * _signs(generator, *shape)
    return Factor(matrix, _normal(generator, *shape) if shift else None)


def allowed(seam: Seam) -> list[tuple[bool, bool]]:
    """Every (full, shift) of `random_factor` that makes a difference at a seam."""
    if isinstance(seam, NormSeam | ValueSeam):
        return [(False, False), (False, True), (True, False), (True, True)]
    return (
        [(False, False), (True, False)]
        if isinstance(seam, QueryKeySeam) and seam.norms is None
        else [(False, False)]
    )


def _between_queries_and_keys(seam: QueryKeySeam, generator: torch.Generator, full: bool) -> Tensor:
    """Commutes with the rotation of every pair (i, i + rotary / 2): a rotation and scaling of each pair,
    anything on the rest.
    """
    heads, size, half = seam.key.count, seam.key.size, seam.rotary // 2
    diagonal = _positive(generator, heads, size)
    diagonal[:, half : 2 * half] = diagonal[:, :half]
    if seam.norms is not None:
        return diagonal[0]
    if not full:
        return diagonal
    matrix = torch.zeros(heads, size, size, dtype=torch.float64)
    angle = 6.3 * torch.rand(heads, half, generator=generator, dtype=torch.float64)
    a, b = diagonal[:, :half] * angle.cos(), diagonal[:, :half] * angle.sin()
    first, second = torch.arange(half), torch.arange(half, 2 * half)
    matrix[:, first, first], matrix[:, first, second] = a, -b
    matrix[:, second, first], matrix[:, second, second] = b, a
    matrix[:, 2 * half :, 2 * half :] = _matrix(generator, heads, size - 2 * half)
    return matrix


def _matrix(generator: torch.Generator, *shape: int) -> Tensor:
    """A diagonal plus noise in every entry, (..., size, size)."""
    noise = _normal(generator, *shape, shape[-1]) * (0.25 / max(shape[-1], 1) ** 0.5)
    return torch.diag_embed(_positive(generator, *shape)) @ (
        torch.eye(shape[-1], dtype=torch.float64) + noise
    )


def _positive(generator: torch.Generator, *shape: int) -> Tensor:
    return (0.5 * _normal(generator, *shape)).exp()


def _signs(generator: torch.Generator, *shape: int) -> Tensor:
    return 1 - 2 * torch.randint(2, shape, generator=generator).double()


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
