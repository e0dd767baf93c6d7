"""The uniform grid: the only place where a weight is rounded to a code (the compiled kernels repeat its formula).

A weight w of output channel i and column j, in group g = group_index[j], has

    code = clamp(round(w / scale[i, g] + zero[i, g]), 0, 2^bits - 1)        encode
    w^   = (code - zero[i, g]) * scale[i, g]                                decode

With an integer zero point, `zero` is itself a code, so that 0 is on the grid. With a float one the lowest
grid point is stored as `offset`, and zero = -offset / scale. Scales and offsets take only values that their
storage dtype represents: what is solved with is what is stored.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.kernels.packing import pack, unpack


@dataclass(frozen=True)
class Grid:
    """Scales and zeros of one matrix, in the dtype that the solver computes in."""

    bits: int
    scale: Tensor  # (out, groups)
    zero: Tensor  # (out, groups)
    group_index: Tensor  # (in,) int64: the group of each column
    offset: Tensor | None = None  # (out, groups): what is stored for a float zero point
    symmetric: bool = False  # zero is 2^(bits-1) everywhere and costs no storage

    @property
    def max_code(self) -> int:
        return 2**self.bits - 1

    def encode(self, weight: Tensor) -> Tensor:
        """Nearest codes, (out, in) uint8; ties go to the even code, weights beyond the ends to the ends."""
        grouped, scale, zero = self._aligned(weight)
        return (grouped / scale).add_(zero).round_().clamp_(0, self.max_code).to(torch.uint8).view(weight.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """The weights that codes stand for, (out, in)."""
        grouped, scale, zero = self._aligned(codes)
        return grouped.to(scale.dtype, copy=True).sub_(zero).mul_(scale).view(codes.shape)

    def round(self, weight: Tensor) -> Tensor:
        return self.decode(self.encode(weight))

    def _aligned(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix with scale and zero that broadcast to it: groups of a plain grouping as an axis of their own, else gathered."""
        groups = self.scale.shape[1]
        if groups == 1:
            return matrix, self.scale, self.zero
        if matrix.shape[1] % groups == 0 and self.contiguous:
            return matrix.reshape(len(matrix), groups, -1), self.scale[:, :, None], self.zero[:, :, None]
        return matrix, self.scale[:, self.group_index], self.zero[:, self.group_index]

    def columns(self, index: Tensor | slice) -> "Grid":
        """The same grid for a selection or a permutation of the columns."""
        return replace(self, group_index=self.group_index[index])

    def rows(self, index: Tensor | slice) -> "Grid":
        """The same grid for a selection of the rows."""
        offset = None if self.offset is None else self.offset[index]
        return replace(self, scale=self.scale[index], zero=self.zero[index], offset=offset)

    @property
    def contiguous(self) -> bool:
        """Do groups cover the columns in order and in equal parts, so that `group_index` need not be stored?"""
        columns, groups = self.group_index.numel(), self.scale.shape[1]
        if groups == 1:
            return True
        size = -(-columns // groups)
        expected = torch.arange(columns, device=self.group_index.device) // size
        return torch.equal(expected, self.group_index)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: `scale`, then `zero` (packed codes) or `offset`, then `group_index` where it is no plain grouping."""
        stored = {"scale": self.scale.to(storage_dtype(self.scale))}
        if self.offset is not None:
            stored["offset"] = self.offset.to(storage_dtype(self.offset))
        elif not self.symmetric:
            stored["zero"] = pack(self.zero.to(torch.uint8), self.bits)
        if not self.contiguous:
            small = torch.uint8 if self.scale.shape[1] <= 256 else torch.int16 if self.scale.shape[1] < 2**15 else torch.int32
            stored["group_index"] = self.group_index.to(small)
        return stored

    def layout(self) -> dict:
        return {"bits": self.bits, "symmetric": self.symmetric, "dtype": str(self.scale.dtype).removeprefix("torch.")}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], layout: dict, in_features: int) -> "Grid":
        """The inverse of `tensors()` and `layout()` for a matrix of `in_features` columns."""
        dtype, bits = getattr(torch, layout["dtype"]), layout["bits"]
        scale = tensors["scale"].to(dtype)
        groups = scale.shape[1]
        if "group_index" in tensors:
            group_index = tensors["group_index"].long()
        else:
            group_index = torch.arange(in_features, device=scale.device) // -(-in_features // groups)
        if "offset" in tensors:
            return float_grid(bits, scale, tensors["offset"].to(dtype), group_index)
        if layout["symmetric"]:
            return cls(bits, scale, torch.full_like(scale, 2 ** (bits - 1)), group_index, symmetric=True)
        zero = unpack(tensors["zero"], bits, scale.numel()).view_as(scale).to(dtype)
        return cls(bits, scale, zero, group_index)


def float_grid(bits: int, scale: Tensor, offset: Tensor, group_index: Tensor) -> Grid:
    """A grid whose lowest point is `offset`; both tensors already hold storable values."""
    return Grid(bits, scale, -offset / scale, group_index, offset=offset)


def storage_dtype(values: Tensor) -> torch.dtype:
    """float16 where it represents every value exactly, else float32."""
    return torch.float16 if torch.equal(values.to(torch.float16).to(values.dtype), values) else torch.float32


def storable(values: Tensor) -> Tensor:
    """Round to float16 where that moves no value by more than 1 %, else to float32; dtype unchanged.

    One matrix is stored in one dtype, so a single tiny or huge entry takes all of them to float32.
    """
    rounded = values.to(torch.float16).to(values.dtype)
    fits = ((rounded - values).abs() <= 0.01 * values.abs()).all()  # false for overflow to inf
    return values.to(torch.float16 if fits else torch.float32).to(values.dtype)
