"""Quantized weights: how they decode, and exactly what is stored for them."""

from dataclasses import dataclass

from torch import Tensor

from methods.contracts.quantized_weight import QuantizedWeight
from methods.weights.grid import Grid
from methods.weights.outliers import ColumnCorrected, SparseCorrected
from methods.weights.packing import pack, unpack
from methods.weights.row_vectors import RowVectors
from methods.weights.vectors import VectorWeight


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
