"""Vector-quantized weights: codes into codebooks, `length` neighbouring rows of one input column at a time.

The columns fall into parts (groups, outlier columns), each with its own vector length and codebook. Inside a
part columns keep their order, so what tells a decoder where a column is, is the number of its part, packed;
no permutation is stored. With scale s and bias b of each column and scale t of each block of rows a weight is
b_j + s_j * t_i * value_ij .
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.weights.book import Book
from methods.weights.levels import storable_together, stored
from methods.weights.packing import pack, unpack

EXTRAS = ("scale", "bias", "row_scale")
SCALE_DTYPE = torch.float8_e4m3fn  # what a scale loses in it the codes make up for


@dataclass(frozen=True)
class Part:
    """Columns that share a codebook."""

    columns: Tensor  # (n,) int64, rising
    codes: tuple[Tensor, ...]  # of each stage of the book: (n, vectors) int64
    book: Book


@dataclass(frozen=True)
class VectorWeight:
    shape: tuple[int, int]  # (out, in)
    parts: tuple[Part, ...]  # cover all columns once
    scale: Tensor | None  # (in,) values that SCALE_DTYPE holds, or None for 1
    bias: Tensor | None  # (in,) storable values, or None for 0
    row_scale: Tensor | None  # (row blocks,) values that SCALE_DTYPE holds, or None for 1
    row_block: int  # rows that share a row scale

    def dequantize(self) -> Tensor:
        return self.decode(self.trainable())

    def trainable(self) -> dict[str, Tensor]:
        """What fine-tuning may move: centroids, biases. Scales of 8 bits are too coarse for small steps."""
        numbers = {
            f"codebook.{k}.{stage}": values
            for k, part in enumerate(self.parts)
            for stage, values in enumerate(part.book.stages)
        }
        return numbers if self.bias is None else numbers | {"bias": self.bias}

    def decode(self, trained: dict[str, Tensor]) -> Tensor:
        """The weight (out, in) with these numbers in place of its own; differentiable."""
        books = [_book(trained, k, part) for k, part in enumerate(self.parts)]
        turned = [
            book.decode(part.codes, self.shape[0]) for book, part in zip(books, self.parts, strict=True)
        ]
        values = turned[0]
        if len(turned) > 1:
            values = torch.cat(turned)[torch.argsort(torch.cat([part.columns for part in self.parts]))]
        if self.row_scale is not None:
            values = values * self.row_scale.repeat_interleave(self.row_block)[: self.shape[0]]
        if self.scale is not None:
            values = values * self.scale[:, None]
        if self.bias is not None:
            values = values + trained["bias"][:, None]
        return values.T.contiguous()

    def with_trained(self, trained: dict[str, Tensor]) -> "VectorWeight":
        """The same codes with these numbers, rounded to what is stored."""
        dtype = self.parts[0].book.centroids.dtype
        kept = {name: storable_together(values.detach().to(dtype)) for name, values in trained.items()}
        parts = tuple(replace(part, book=_book(kept, k, part)) for k, part in enumerate(self.parts))
        return replace(self, parts=parts, bias=kept.get("bias"))

    def tensors(self) -> dict[str, Tensor]:
        packed = {}
        for number, part in enumerate(self.parts):
            for stage, (codes, centroids) in enumerate(zip(part.codes, part.book.stages, strict=True)):
                packed[f"codebook.{number}.{stage}"] = stored(centroids)
                if len(centroids) > 1:
                    packed[f"codes.{number}.{stage}"] = pack(codes, code_bits(len(centroids)))
        if len(self.parts) > 1:
            number = torch.zeros(self.shape[1], dtype=torch.int64, device=self.parts[0].columns.device)
            for k, part in enumerate(self.parts):
                number[part.columns] = k
            packed["part"] = pack(number, code_bits(len(self.parts)))
        for name in EXTRAS:
            if (values := getattr(self, name)) is not None:
                packed[name] = stored(values) if name == "bias" else values.to(SCALE_DTYPE)
        return packed

    def layout(self) -> dict:
        stages = [len(part.book.stages) for part in self.parts]
        dtype = str(self.parts[0].book.centroids.dtype).removeprefix("torch.")
        return {
            "kind": "vector",
            "shape": list(self.shape),
            "stages": stages,
            "row_block": self.row_block,
            "dtype": dtype,
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], layout: dict) -> "VectorWeight":
        (out_features, in_features), dtype = layout["shape"], getattr(torch, layout["dtype"])
        device = tensors["codebook.0.0"].device
        number = torch.zeros(in_features, dtype=torch.int64, device=device)
        if "part" in tensors:
            number = unpack(tensors["part"], code_bits(len(layout["stages"])), in_features).long()
        parts = []
        for k, stages in enumerate(layout["stages"]):
            columns = (number == k).nonzero().squeeze(1)
            books = [tensors[f"codebook.{k}.{stage}"].to(dtype) for stage in range(stages)]
            vectors = -(-out_features // books[0].shape[1])
            codes = [
                _restored_codes(tensors.get(f"codes.{k}.{stage}"), book, len(columns), vectors)
                for stage, book in enumerate(books)
            ]
            parts.append(Part(columns, tuple(codes), Book.of(books)))
        extras = [tensors[name].to(dtype) if name in tensors else None for name in EXTRAS]
        return cls((out_features, in_features), tuple(parts), *extras, layout["row_block"])


def code_bits(count: int) -> int:
    """Bits of a code below `count`."""
    return (count - 1).bit_length()


def _restored_codes(packed: Tensor | None, book: Tensor, columns: int, vectors: int) -> Tensor:
    if packed is None:  # there is nothing to choose from
        return torch.zeros(columns, vectors, dtype=torch.int64, device=book.device)
    return unpack(packed, code_bits(len(book)), columns * vectors).view(columns, vectors).long()


def _book(numbers: dict[str, Tensor], k: int, part: Part) -> Book:
    """The book of part k from named numbers."""
    return Book.of([numbers[f"codebook.{k}.{stage}"] for stage in range(len(part.codes))])
