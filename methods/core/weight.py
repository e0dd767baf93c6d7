"""Quantized weights: how they decode, and exactly what is stored for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from methods.contracts.quantized_weight import QuantizedWeight
from methods.core.grid import Grid
from methods.core.outliers import ColumnCorrected, SparseCorrected
from methods.kernels.packing import pack, unpack
from methods.vectors.row_weight import RowVectors
from methods.vectors.weight import VectorWeight


def bits_per_weight(tensors: Mapping[str, Tensor], numel: int) -> float:
    """Stored bits per original entry: 8 * bytes / numel of what `QuantizedWeight.tensors()` gave."""
    return 8 * sum(tensor.nbytes for tensor in tensors.values()) / numel


@dataclass(frozen=True)
class UniformWeight:
    """Codes on a uniform grid, one scale and zero per output channel and group."""

    codes: Tensor  # (out, in) uint8
    grid: Grid

    def dequantize(self) -> Tensor:
        return self.grid.decode(self.codes)

    def tensors(self) -> dict[str, Tensor]:
        return {"codes": pack(self.codes, self.grid.bits), **self.grid.tensors()}

    def layout(self) -> dict:
        return {"kind": "uniform", "shape": list(self.codes.shape), "grid": self.grid.layout()}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], layout: dict) -> "UniformWeight":
        out_features, in_features = layout["shape"]
        grid = Grid.restore(tensors, layout["grid"], out_features, in_features)
        codes = unpack(tensors["codes"], grid.bits, out_features * in_features)
        return cls(codes.view(out_features, in_features), grid)


PLAIN_KINDS = {"uniform": UniformWeight, "vector": VectorWeight, "vector_rows": RowVectors}
CORRECTIONS = {"sparse": SparseCorrected, "columns": ColumnCorrected}  # on top of a plain kind
KINDS = (*PLAIN_KINDS, *CORRECTIONS)


def restore(tensors: dict[str, Tensor], layout: dict) -> QuantizedWeight:
    """The inverse of `tensors()` and `layout()`.

    Raises:
        ValueError: the layout names a kind of weight that this version does not know.
    """
    kind = layout.get("kind")
    if kind in CORRECTIONS:
        return CORRECTIONS[kind].restore(restore(tensors, layout["base"]), tensors, layout)
    if kind not in PLAIN_KINDS:
        raise ValueError(f"unknown kind of quantized weight {kind!r}; known: {', '.join(KINDS)}")
    return PLAIN_KINDS[kind].restore(tensors, layout)
