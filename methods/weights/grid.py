"""The uniform grid: where a weight is rounded to a code (compiled kernels alone repeat its formula).

A weight w of output channel i and column j, in group g = group_index[j], has

    code = clamp(round(w / scale[i, g] + zero[i, g]), 0, 2^bits - 1)        encode
    w^   = (code - zero[i, g]) * scale[i, g]                                decode

With an integer zero point, `zero` is itself a code, so that 0 is on the grid. With a float one the lowest
grid point is stored as `offset`, and zero = -offset / scale. Scales and offsets take only values that their
storage dtype represents: what is solved with is what is stored. They may be codes themselves (see
`methods.weights.levels`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.weights.levels import Levels, stored
from methods.weights.packing import pack, unpack


@dataclass(frozen=True)
class Grid:
    """Scales and zeros of one matrix, in the dtype that the solver computes in."""

    bits: int
    scale: Tensor  # (out, groups)
    zero: Tensor  # (out, groups)
    group_index: Tensor  # (in,) int64: the group of each column
    offset: Tensor | None = None  # (out, groups): what is stored for a float zero point
    symmetric: bool = False  # zero is 2^(bits-1) everywhere and costs no storage
    scale_levels: Levels | None = None  # what is stored for the scale, where that is codes itself
    zero_levels: Levels | None = None  # what is stored for a float zero, where that is codes itself

    @property
    def max_code(self) -> int:
        return 2**self.bits - 1

    def encode(self, weight: Tensor) -> Tensor:
        """Nearest codes, (out, in) uint8; ties go to the even code, weights beyond the ends to the ends."""
        grouped, scale, zero = self._aligned(weight)
        codes = (grouped / scale).add_(zero).round_().clamp_(0, self.max_code)
        return codes.to(torch.uint8).view(weight.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """The weights that codes stand for, (out, in)."""
        grouped, scale, zero = self._aligned(codes)
        return grouped.to(scale.dtype, copy=True).sub_(zero).mul_(scale).view(codes.shape)

    def round(self, weight: Tensor) -> Tensor:
        return self.decode(self.encode(weight))

    def _aligned(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix with scale and zero that broadcast to it: plain groups as an axis, others gathered."""
        groups = self.scale.shape[1]
        if groups == 1:
            return matrix, self.scale, self.zero
        if matrix.shape[1] % groups == 0 and self.contiguous:
            return matrix.reshape(len(matrix), groups, -1), self.scale[:, :, None], self.zero[:, :, None]
        return matrix, self.scale[:, self.group_index], self.zero[:, self.group_index]

    def columns(self, index: Tensor | slice) -> "Grid":
        """The same grid for a selection or a permutation of the columns."""
        return replace(self, group_index=self.group_index[index])

    def only(self, columns: slice) -> "Grid":
        """The grid of some columns, to round with: without the groups that none of them is in."""
        present, index = self.group_index[columns].unique(return_inverse=True)
        offset = None if self.offset is None else self.offset[:, present]
        scale, zero = self.scale[:, present], self.zero[:, present]
        plain = replace(self, scale_levels=None, zero_levels=None)
        return replace(plain, scale=scale, zero=zero, offset=offset, group_index=index)

    def rows(self, index: Tensor | slice) -> "Grid":
        """The grid of a selection of the rows, to round with (not to store: rows may share levels)."""
        offset = None if self.offset is None else self.offset[index]
        plain = replace(self, scale_levels=None, zero_levels=None)
        return replace(plain, scale=self.scale[index], zero=self.zero[index], offset=offset)

    @property
    def contiguous(self) -> bool:
        """Do groups cover the columns in order and in equal parts, so that no `group_index` is stored?"""
        columns, groups = self.group_index.numel(), self.scale.shape[1]
        if groups == 1:
            return True
        size = -(-columns // groups)
        expected = torch.arange(columns, device=self.group_index.device) // size
        return torch.equal(expected, self.group_index)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: scale, then `zero` (packed codes) or `offset`, then `group_index` if not plain."""
        levels = self.scale_levels
        tensors = {"scale": stored(self.scale)} if levels is None else levels.tensors("scale")
        if self.zero_levels is not None:
            tensors |= self.zero_levels.tensors("zero")
        elif self.offset is not None:
            tensors["offset"] = stored(self.offset)
        elif not self.symmetric:
            tensors["zero"] = pack(self.zero.to(torch.uint8), self.bits)
        if not self.contiguous:
            groups = self.scale.shape[1]
            wide = torch.int16 if groups < 2**15 else torch.int32
            tensors["group_index"] = self.group_index.to(torch.uint8 if groups <= 256 else wide)
        return tensors

    def layout(self) -> dict:
        dtype = str(self.scale.dtype).removeprefix("torch.")
        layout = {"bits": self.bits, "symmetric": self.symmetric, "dtype": dtype}
        if self.scale_levels is not None:
            layout["levels"] = {"bits": self.scale_levels.bits, "rows": self.scale_levels.rows}
        return layout

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], layout: dict, out_features: int, in_features: int) -> "Grid":
        """The inverse of `tensors()` and `layout()` for an (out, in) matrix."""
        dtype, bits = getattr(torch, layout["dtype"]), layout["bits"]
        scale_levels = zero_levels = None
        if "levels" in layout:
            form = layout["levels"]["bits"], layout["levels"]["rows"], out_features, dtype
            scale_levels = Levels.restore(tensors, "scale", *form)
            zero_levels = Levels.restore(tensors, "zero", *form) if "zero_codes" in tensors else None
        scale = tensors["scale"].to(dtype) if scale_levels is None else scale_levels.decode()
        groups = scale.shape[1]
        if "group_index" in tensors:
            group_index = tensors["group_index"].long()
        else:
            group_index = torch.arange(in_features, device=scale.device) // -(-in_features // groups)
        if zero_levels is not None:
            levels = {"scale_levels": scale_levels, "zero_levels": zero_levels}
            return cls(bits, scale, zero_levels.decode(), group_index, **levels)
        if "offset" in tensors:
            return float_grid(bits, scale, tensors["offset"].to(dtype), group_index)
        if layout["symmetric"]:
            zero = torch.full_like(scale, 2 ** (bits - 1))
        else:
            zero = unpack(tensors["zero"], bits, scale.numel()).view_as(scale).to(dtype)
        return cls(bits, scale, zero, group_index, symmetric=layout["symmetric"], scale_levels=scale_levels)

    @classmethod
    def side_by_side(cls, grids: "list[Grid]") -> "Grid":
        """One grid of many groups from grids of one group each, for columns in order."""
        index = torch.arange(len(grids), device=grids[0].scale.device)
        index = index.repeat_interleave(grids[0].group_index.numel())
        return replace(_joined(grids, 1), group_index=index)

    @classmethod
    def stacked(cls, grids: "list[Grid]") -> "Grid":
        """The grid of a matrix from those of its slices of rows."""
        return _joined(grids, 0)


def _joined(grids: list[Grid], dim: int) -> Grid:
    first, joined = grids[0], {}
    for name in ("scale", "zero", "offset"):
        if getattr(first, name) is not None:
            joined[name] = torch.cat([getattr(grid, name) for grid in grids], dim)
    for name in ("scale_levels", "zero_levels"):
        if getattr(first, name) is not None:
            joined[name] = Levels.joined([getattr(grid, name) for grid in grids], dim)
    return replace(first, **joined)


def float_grid(bits: int, scale: Tensor, offset: Tensor, group_index: Tensor) -> Grid:
    """A grid whose lowest point is `offset`; both tensors already hold storable values."""
    return Grid(bits, scale, -offset / scale, group_index, offset=offset)
