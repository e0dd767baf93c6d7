"""Function-preserving rewrites: at a seam a factor (matrix A, shift) turns x into x' = (x - shift) A^-1.

    consumer of x      W' = W A^T,  b' = b + W shift          since x' A = x - shift
    producer of x      W' = A^-T W, b' = A^-T (b - shift)     its output, as a column, is A^-T (y - shift)

(AffineQuant, arXiv 2403.12544, Eq. 3 and 4, with activations as rows. Diagonal A: SmoothQuant, AWQ,
OmniQuant.)

`rewrite` is differentiable and works on the block's parameters as a mapping by name, in whatever dtype they
are; `methods.blocks.installing` writes the result into the block. Where a full matrix stands behind a norm,
the norm must have been wrapped (`make_room_` there).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.contracts.seams import Heads, MiddleSeam, NormSeam, QueryKeySeam, Seam, ValueSeam

Values = Mapping[str, Tensor]  # parameters and buffers of a block, by name


@dataclass(frozen=True, eq=False)
class Factor:
    """What stands at a seam. Diagonals are vectors; where there are heads, they are the first axis.

    A QueryKeySeam with norms takes the diagonal of one head, shared by all.
    """

    matrix: Tensor  # A: (width,) | (width, width) | (heads, size) | (heads, size, size)
    shift: Tensor | None = None  # (width,) | (heads, size); NormSeam and ValueSeam only
    inverse: Tensor | None = None  # of `matrix`, where it is known already; else it is computed

    def double(self) -> "Factor":
        shift = None if self.shift is None else self.shift.double()
        return Factor(self.matrix.double(), shift, None if self.inverse is None else self.inverse.double())

    def inverted(self, diagonal: bool) -> Tensor:
        if self.inverse is not None:
            return self.inverse
        return 1 / self.matrix if diagonal else torch.linalg.inv(self.matrix)


def rewrite(values: Values, seam: Seam, factor: Factor) -> dict[str, Tensor]:
    """The parameters of a block that computes the same as one with `values`, `factor` slipped in at `seam`.

    Raises:
        KeyError: the block has no room for the factor, see `make_room_`.
        ValueError: such a factor cannot stand at this seam.
    """
    if factor.shift is not None and not isinstance(seam, NormSeam | ValueSeam):
        raise ValueError(f"a shift cannot pass a {type(seam).__name__}")
    if (shape := tuple(factor.matrix.shape)) not in (shapes := shapes_at(seam)):
        takes = " or ".join(map(str, shapes))
        raise ValueError(f"a matrix {shape} cannot stand at {seam}: it takes {takes}")
    if isinstance(seam, NormSeam):
        return _behind_norm(values, seam, factor)
    if isinstance(seam, ValueSeam):
        return _through_attention(values, seam, factor)
    if isinstance(seam, QueryKeySeam):
        return _between_queries_and_keys(values, seam, factor)
    return _inside_mlp(values, seam, factor)


def shapes_at(seam: Seam) -> tuple[tuple[int, ...], ...]:
    """Shapes of the matrices that may stand at a seam: the diagonal's, then the full one's, if it may."""
    if isinstance(seam, MiddleSeam):
        return ((seam.width,),)
    if isinstance(seam, NormSeam):
        return (seam.width,), (seam.width, seam.width)
    if isinstance(seam, QueryKeySeam) and seam.norms is not None:  # they multiply all heads by one vector
        return ((seam.key.size,),)
    heads = seam.key if isinstance(seam, QueryKeySeam) else seam.value
    return (heads.count, heads.size), (heads.count, heads.size, heads.size)


def _behind_norm(values: Values, seam: NormSeam, factor: Factor) -> dict[str, Tensor]:
    new = dict(values)
    wrapped = f"{seam.norm}.norm.weight" in values
    if f"{seam.norm}.inverse" in values or f"{seam.norm}.shift" in values:
        raise ValueError(f"{seam.norm}: a map stands there already")
    norm = f"{seam.norm}.norm" if wrapped else seam.norm
    diagonal, shift = factor.matrix.ndim == 1, factor.shift
    for path in seam.consumers:
        weight = values[f"{path}.weight"]
        new[f"{path}.weight"] = weight * factor.matrix if diagonal else weight @ factor.matrix.T
        if shift is not None:
            new[f"{path}.bias"] = values[f"{path}.bias"] + weight @ shift
    if shift is not None and seam.has_bias:
        new[f"{norm}.bias"] = values[f"{norm}.bias"] - shift
        shift = None
    if diagonal:
        inverse = factor.inverted(diagonal=True)
        new[f"{norm}.weight"] = _scaled(values[f"{norm}.weight"], inverse, seam.one_plus)
        if seam.has_bias:
            new[f"{norm}.bias"] = new[f"{norm}.bias"] * inverse
        shift = None if shift is None else shift * inverse
    else:
        new[f"{seam.norm}.inverse"] = factor.inverted(diagonal=False)
    if shift is not None:
        new[f"{seam.norm}.shift"] = shift
    if (shift is not None or not diagonal) and not wrapped:
        raise KeyError(f"{seam.norm} is not wrapped; call make_room_ first")
    return new


def _through_attention(values: Values, seam: ValueSeam, factor: Factor) -> dict[str, Tensor]:
    diagonal = factor.matrix.ndim == 2
    inverse = factor.inverted(diagonal)
    new = _at_heads(values, seam.value, inverse if diagonal else inverse.mT, factor.shift)
    weight = values[f"{seam.output}.weight"]
    # (out, value heads, query heads of each, size)
    shared = weight.view(len(weight), seam.value.count, -1, seam.value.size)
    if diagonal:
        consumed = shared * factor.matrix[:, None]
    else:
        consumed = torch.einsum("okrj,kij->okri", shared, factor.matrix)
    new[f"{seam.output}.weight"] = consumed.reshape(weight.shape)
    if factor.shift is not None:
        added = torch.einsum("okrj,kj->o", shared, factor.shift)
        new[f"{seam.output}.bias"] = values[f"{seam.output}.bias"] + added
    return new


def _between_queries_and_keys(values: Values, seam: QueryKeySeam, factor: Factor) -> dict[str, Tensor]:
    if seam.norms is not None:
        query, key = (f"{path}.weight" for path in seam.norms)
        return dict(values) | {
            query: _scaled(values[query], 1 / factor.matrix, seam.one_plus),
            key: _scaled(values[key], factor.matrix, seam.one_plus),
        }
    diagonal = factor.matrix.ndim == 2
    inverse = factor.inverted(diagonal) if diagonal else factor.inverted(diagonal).mT
    shared = seam.query.count // seam.key.count
    new = _at_heads(values, seam.query, inverse.repeat_interleave(shared, 0), None)
    return _at_heads(new, seam.key, factor.matrix, None)


def _inside_mlp(values: Values, seam: MiddleSeam, factor: Factor) -> dict[str, Tensor]:
    new = dict(values)
    new[f"{seam.up}.weight"] = values[f"{seam.up}.weight"] / factor.matrix[:, None]
    if values.get(f"{seam.up}.bias") is not None:
        new[f"{seam.up}.bias"] = values[f"{seam.up}.bias"] / factor.matrix
    new[f"{seam.down}.weight"] = values[f"{seam.down}.weight"] * factor.matrix
    return new


def _at_heads(values: Values, heads: Heads, left: Tensor, shift: Tensor | None) -> dict[str, Tensor]:
    """Rows of each head, less `shift`, times `left`: (heads, size, size), or the diagonal (heads, size)."""
    new = dict(values)
    rows = heads.rows.to(left.device)
    for leaf in ("weight", "bias"):
        old = values.get(f"{heads.linear}.{leaf}")
        if old is None:
            continue
        part = old[rows]  # (heads, size, in) or (heads, size)
        if leaf == "bias" and shift is not None:
            part = part - shift
        diagonal = left if leaf == "bias" else left[..., None]
        part = part * diagonal if left.ndim == 2 else torch.einsum("hij,hj...->hi...", left, part)
        new[f"{heads.linear}.{leaf}"] = old.index_copy(0, rows.flatten(), part.flatten(0, 1).to(old.dtype))
    if shift is not None and values.get(f"{heads.linear}.bias") is None:
        raise KeyError(f"{heads.linear} has no bias; call make_room_ first")
    return new


def _scaled(weight: Tensor, factor: Tensor, one_plus: bool) -> Tensor:
    return (1 + weight) * factor - 1 if one_plus else weight * factor
