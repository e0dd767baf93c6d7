"""Outliers: a sparse float16 correction on top of any quantized weight.

    unstructured   Q = base + H, H zero but for some entries     SparseCorrected
    column         Q = base + H, H zero but for some columns     ColumnCorrected

The base keeps a code at every entry, those under the correction too. Values, indices and counts are all
stored, and weighed in the bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.contracts.scheme import OutlierStructure, Scheme
from methods.weights.levels import storable_together, stored
from methods.weights.packing import pack, unpack

# every so many entries are looked at to guess how large the largest are; a prime, to be in step with no row
SAMPLED = 61


def outlier_count(scheme: Scheme, shape: torch.Size) -> int:
    """How many entries (unstructured) or columns (column) of an (out, in) matrix the scheme's ratio stands
    for, rounded.
    """
    columns = scheme.outlier_structure is OutlierStructure.column
    return round(scheme.outlier_ratio * (shape[1] if columns else shape.numel()))


def refuses_outliers(scheme: Scheme, method: str) -> str | None:
    """The `skip_reason` of solvers that round every weight."""
    return f"{method} keeps no outliers; set scheme.outlier_ratio=0" if scheme.outlier_ratio else None


def without_outliers(scheme: Scheme) -> Scheme:
    return replace(scheme, outlier_ratio=0.0)


@dataclass(frozen=True)
class SparseCorrected:
    """Single entries corrected. Stored row by row: how many a row has, their columns in rising order, their
    values.
    """

    base: Any  # QuantizedWeight
    positions: Tensor  # (outliers,) int64, row * in + column, rising
    values: Tensor  # (outliers,) storable

    @classmethod
    def of(cls, base: Any, correction: Tensor) -> "SparseCorrected":
        """From a dense correction (out, in) of storable values."""
        positions = correction.flatten().nonzero().squeeze(1)
        return cls(base, positions, correction.flatten()[positions])

    def dequantize(self) -> Tensor:
        dense = self.base.dequantize()
        return dense.flatten().index_add(0, self.positions, self.values).view_as(dense)

    def correction(self) -> Tensor:
        """Dense, (out, in)."""
        shape = self.layout()["shape"]
        return (
            self.values.new_zeros(shape[0] * shape[1]).index_copy(0, self.positions, self.values).view(shape)
        )

    def tensors(self) -> dict[str, Tensor]:
        out_features, in_features = self.layout()["shape"]
        rows, columns = self.positions // in_features, self.positions % in_features
        return {
            **self.base.tensors(),
            "outlier_values": stored(self.values),
            "outlier_columns": pack(columns, _width(in_features)),
            "outlier_counts": pack(torch.bincount(rows, minlength=out_features), _width(in_features + 1)),
        }

    def layout(self) -> dict:
        base = self.base.layout()
        return {"kind": "sparse", "shape": base["shape"], "base": base}

    @classmethod
    def restore(cls, base: Any, tensors: Mapping[str, Tensor], layout: dict) -> "SparseCorrected":
        out_features, in_features = layout["shape"]
        values = tensors["outlier_values"].to(base.dequantize().dtype)
        counts = unpack(tensors["outlier_counts"], _width(in_features + 1), out_features).long()
        columns = unpack(tensors["outlier_columns"], _width(in_features), len(values)).long()
        rows = torch.arange(out_features, device=counts.device).repeat_interleave(counts)
        return cls(base, rows * in_features + columns, values)


@dataclass(frozen=True)
class ColumnCorrected:
    """Whole columns corrected."""

    base: Any  # QuantizedWeight
    columns: Tensor  # (outliers,) int64, rising
    values: Tensor  # (out, outliers) storable

    @classmethod
    def of(cls, base: Any, correction: Tensor) -> "ColumnCorrected":
        """From a dense correction (out, in) of storable values."""
        columns = correction.any(0).nonzero().squeeze(1)
        return cls(base, columns, correction[:, columns])

    def dequantize(self) -> Tensor:
        return self.base.dequantize().index_add(1, self.columns, self.values)

    def correction(self) -> Tensor:
        """Dense, (out, in)."""
        return self.values.new_zeros(self.layout()["shape"]).index_copy(1, self.columns, self.values)

    def tensors(self) -> dict[str, Tensor]:
        in_features = self.layout()["shape"][1]
        return {
            **self.base.tensors(),
            "outlier_values": stored(self.values),
            "outlier_columns": pack(self.columns, _width(in_features)),
        }

    def layout(self) -> dict:
        base = self.base.layout()
        return {"kind": "columns", "shape": base["shape"], "base": base}

    @classmethod
    def restore(cls, base: Any, tensors: Mapping[str, Tensor], layout: dict) -> "ColumnCorrected":
        values = tensors["outlier_values"].to(base.dequantize().dtype)
        columns = unpack(tensors["outlier_columns"], _width(layout["shape"][1]), values.shape[1]).long()
        return cls(base, columns, values)


def corrected(
    base: Any, correction: Tensor, structure: OutlierStructure
) -> SparseCorrected | ColumnCorrected:
    """The base with a dense correction (out, in), stored as the structure says."""
    return (SparseCorrected if structure is OutlierStructure.unstructured else ColumnCorrected).of(
        base, correction
    )


def keep_largest(values: Tensor, count: int, structure: OutlierStructure) -> Tensor:
    """Hard thresholding: the `count` entries of largest size, or columns of largest norm, and zero elsewhere
    (QuantEase's P_s).

    What is kept comes in storable values.
    """
    kept = torch.zeros_like(values)
    if structure is OutlierStructure.column:
        columns = values.double().norm(dim=0).topk(count).indices
        kept[:, columns] = storable_together(values[:, columns])
    else:
        positions = largest_positions(values.abs().flatten(), count)
        kept.view(-1)[positions] = storable_together(values.flatten()[positions])
    return kept


def largest_positions(sizes: Tensor, count: int) -> Tensor:
    """Positions of the `count` largest of many numbers; a sample says which of them need not be looked at
    closely.
    """
    sample = sizes[::SAMPLED]
    expected = 2 * count // SAMPLED + 1
    if expected < len(sample):
        near = (sizes >= sample.topk(expected).values[-1]).nonzero().squeeze(1)
        if len(near) >= count:
            return near[sizes[near].topk(count, sorted=False).indices]
    return sizes.topk(count, sorted=False).indices


def _width(choices: int) -> int:
    """Bits of a number below `choices`."""
    return max(1, (choices - 1).bit_length())
