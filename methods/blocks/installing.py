"""Factors written into a block for good: room made for them, then `methods.blocks.rewriting` in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods.blocks.affine_norm import AffineNorm
from methods.blocks.functional import values_of
from methods.blocks.rewriting import Factor, rewrite
from methods.contracts.block import Block
from methods.contracts.seams import NormSeam, QueryKeySeam, Seam, ValueSeam


def make_room_(block: Block, seam: Seam, matrix: bool, shift: bool) -> None:
    """Give the block what a factor at `seam` needs: biases, a wrapped norm. Its function stays.

    Args:
        matrix: will the factor's matrix be full?
        shift: will it have one?
    """
    if isinstance(seam, NormSeam):
        norm = block.module.get_submodule(seam.norm)
        if (matrix or (shift and not seam.has_bias)) and not isinstance(norm, AffineNorm):
            block.module.set_submodule(seam.norm, AffineNorm(norm))
        if shift:
            _give_biases_(block, seam.consumers)
    elif isinstance(seam, ValueSeam) and shift:
        _give_biases_(block, (seam.value.linear, seam.output))


@torch.no_grad()
def install_(block: Block, factors: Sequence[tuple[Seam, Factor]]) -> None:
    """Rewrite the block itself, in float64, one seam after another.

    Of a full matrix behind a norm the inverse is stored, in float16. The matrix is then taken as the exact
    inverse of what is stored, so that the function stays although the inverse was rounded.
    """
    for seam, factor in factors:
        diagonal = factor.matrix.ndim == 1
        make_room_(block, seam, matrix=not diagonal, shift=factor.shift is not None)
        factor = factor.double()
        if isinstance(seam, NormSeam) and (not diagonal or factor.shift is not None):
            factor = _as_stored(block, seam, factor)
        old = {name: value for name, value in values_of(block).items() if name.startswith(_touched(seam))}
        new = rewrite({name: value.double() for name, value in old.items()}, seam, factor)
        for name, value in new.items():
            if name not in old:  # a buffer of a wrapped norm
                path, _, leaf = name.rpartition(".")
                setattr(block.module.get_submodule(path), leaf, value.half())
            else:
                old[name].copy_(value)


def _touched(seam: Seam) -> tuple[str, ...]:
    """How the names of all parameters and buffers begin that a factor at `seam` may change."""
    if isinstance(seam, NormSeam):
        paths = (seam.norm, *seam.consumers)
    elif isinstance(seam, ValueSeam):
        paths = (seam.value.linear, seam.output)
    elif isinstance(seam, QueryKeySeam):
        paths = seam.norms or (seam.query.linear, seam.key.linear)
    else:
        paths = (seam.up, seam.down)
    return tuple(f"{path}." for path in paths)


def _as_stored(block: Block, seam: NormSeam, factor: Factor) -> Factor:
    """The factor whose kept parts are exactly what float16 holds."""
    matrix, shift, inverse = factor.matrix, factor.shift, factor.inverse
    full = matrix.ndim == 2
    if full:
        inverse = _rounded(block, seam, "inverse matrix", factor.inverted(diagonal=False))
        matrix, singular = torch.linalg.inv_ex(inverse)
        if singular:
            where = f"{block.name}.{seam.norm}"
            raise ValueError(f"{where}: the inverse matrix is singular once it is rounded to float16")
    # what is kept stands behind the norm's own part of the factor
    if shift is not None and not seam.has_bias:
        kept = _rounded(block, seam, "shift", shift if full else shift / matrix)
        shift = kept if full else kept * matrix
    return Factor(matrix, shift, inverse)


def _rounded(block: Block, seam: NormSeam, what: str, values: Tensor) -> Tensor:
    rounded = values.half().to(values.dtype)
    if not rounded.isfinite().all():
        excess = f"exceeds what float16 can hold ({values.abs().max():.3g})"
        raise ValueError(f"{block.name}.{seam.norm}: the {what} {excess}")
    return rounded


def _give_biases_(block: Block, paths: Sequence[str]) -> None:
    for path in paths:
        linear = block.module.get_submodule(path)
        if linear.bias is None:
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.weight.shape[0]), requires_grad=False)
