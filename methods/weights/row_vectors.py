"""A weight made of vectors along its rows, one small codebook for each tile of rows and columns."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.weights.levels import storable, stored
from methods.weights.packing import pack, unpack


@dataclass(frozen=True)
class CoarseCodebooks:
    """Centroids as signed integer codes with one storable scale per codebook."""

    bits: int
    # (row_blocks, groups, centroids, vector_length), whole numbers in +-(2^(bits-1) - 1), the solver's dtype
    codes: Tensor
    scale: Tensor  # (row_blocks, groups), storable

    @classmethod
    def fit(cls, centroids: Tensor, bits: int) -> "CoarseCodebooks":
        """Round centroids (row_blocks, groups, centroids, vector_length); the largest entry of a codebook
        takes the last code.
        """
        top = 2 ** (bits - 1) - 1
        largest = centroids.abs().amax((2, 3))
        scale = storable(torch.where(largest > 0, largest / top, 1.0))
        return cls(bits, (centroids / scale[:, :, None, None]).round_().clamp_(-top, top), scale)

    def values(self) -> Tensor:
        """The centroids that are stored, in the solver's dtype."""
        return self.codes * self.scale[:, :, None, None]


@dataclass(frozen=True)
class RowVectors:
    """Vectors of consecutive columns of one row, each the centroid that its code names.

    Row i uses the codebooks of row block i // rows_per_block, vector v (columns v * length to v * length +
    length - 1) those of group group_index[v]. A last vector that reaches beyond the matrix loses what is too
    much.
    """

    codes: Tensor  # (out, vectors) integers
    codebooks: CoarseCodebooks
    group_index: Tensor  # (vectors,) int64
    rows_per_block: int
    in_features: int

    @property
    def index_bits(self) -> int:
        """Bits of one code."""
        return max(1, math.ceil(math.log2(self.codebooks.codes.shape[2])))

    def dequantize(self) -> Tensor:
        return self.decode(self.trainable())

    def trainable(self) -> dict[str, Tensor]:
        """What fine-tuning may move: the centroids, (row_blocks, groups, centroids, vector_length)."""
        return {"centroids": self.codebooks.values()}

    def decode(self, trained: dict[str, Tensor]) -> Tensor:
        """The weight (out, in) with these centroids in place of its own; differentiable."""
        entries = Entries.of(self.codes, self.group_index, self.rows_per_block, trained["centroids"])
        return entries.spread(trained["centroids"])[:, : self.in_features].contiguous()

    def with_trained(self, trained: dict[str, Tensor]) -> "RowVectors":
        """The same codes with these centroids, rounded to what the codebooks can store."""
        dtype = self.codebooks.scale.dtype
        return replace(
            self, codebooks=CoarseCodebooks.fit(trained["centroids"].detach().to(dtype), self.codebooks.bits)
        )

    def tensors(self) -> dict[str, Tensor]:
        bits, scale = self.codebooks.bits, self.codebooks.scale
        tensors = {
            "codes": pack(self.codes, self.index_bits),
            "codebooks": pack((self.codebooks.codes + 2 ** (bits - 1)).to(torch.int32), bits),
            "codebook_scale": stored(scale),
        }
        if not torch.equal(self.group_index, self._plain_groups(len(self.group_index), scale)):
            tensors["group_index"] = pack(self.group_index.to(torch.int32), self._group_bits(scale.shape[1]))
        return tensors

    def layout(self) -> dict:
        dtype = str(self.codebooks.scale.dtype).removeprefix("torch.")
        shape = [len(self.codes), self.in_features]
        codebooks = {"bits": self.codebooks.bits, "shape": list(self.codebooks.codes.shape), "dtype": dtype}
        return {
            "kind": "vector_rows",
            "shape": shape,
            "rows_per_block": self.rows_per_block,
            "codebooks": codebooks,
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], layout: dict) -> "RowVectors":
        rows, columns = layout["shape"]
        books = layout["codebooks"]
        bits, shape, dtype = books["bits"], books["shape"], getattr(torch, books["dtype"])
        centroids = unpack(tensors["codebooks"], bits, math.prod(shape)).view(shape).to(dtype) - 2 ** (
            bits - 1
        )
        scale = tensors["codebook_scale"].to(dtype)
        vectors = -(-columns // shape[3])
        group_index = cls._plain_groups(vectors, scale)
        if "group_index" in tensors:
            group_index = unpack(tensors["group_index"], cls._group_bits(shape[1]), vectors).long()
        index_bits = max(1, math.ceil(math.log2(shape[2])))
        codes = unpack(tensors["codes"], index_bits, rows * vectors).view(rows, vectors)
        return cls(
            codes, CoarseCodebooks(bits, centroids, scale), group_index, layout["rows_per_block"], columns
        )

    @staticmethod
    def _plain_groups(vectors: int, scale: Tensor) -> Tensor:
        """Equal runs of vectors, the grouping that costs nothing."""
        return torch.arange(vectors, device=scale.device) // -(-vectors // scale.shape[1])

    @staticmethod
    def _group_bits(groups: int) -> int:
        return max(1, math.ceil(math.log2(groups)))


@dataclass(frozen=True)
class Entries:
    """From centroids to the weights that use them, and back."""

    index: Tensor  # (out * vectors,): the centroid of every vector, counted through all codebooks
    rows: int
    shape: torch.Size  # (row_blocks, groups, count, length)

    @classmethod
    def of(cls, codes: Tensor, group_index: Tensor, rows_per_block: int, centroids: Tensor) -> "Entries":
        """
        Args:
            codes: (out, vectors) integers.
            group_index: (vectors,) which group of codebooks a vector uses.
            rows_per_block: rows that share their codebooks.
            centroids: (row_blocks, groups, count, length).
        """
        groups, count = centroids.shape[1:3]
        block_index = torch.arange(len(codes), device=codes.device) // rows_per_block
        codebook = block_index[:, None] * groups + group_index
        return cls((codebook * count + codes).reshape(-1), len(codes), centroids.shape)

    def spread(self, centroids: Tensor) -> Tensor:
        """(row_blocks, groups, count, length) -> (out, vectors * length); differentiable."""
        return centroids.reshape(-1, self.shape[3]).index_select(0, self.index).view(self.rows, -1)

    def gather(self, matrix: Tensor) -> Tensor:
        """The transpose of `spread`: the sum over the weights that use an entry."""
        sums = matrix.new_zeros(self.shape).view(-1, self.shape[3])
        return sums.index_add_(0, self.index, matrix.reshape(-1, self.shape[3])).view(self.shape)
