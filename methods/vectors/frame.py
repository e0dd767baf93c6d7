"""A layer problem as vector passes see it: columns in the order of rounding, normalised, turned.

Dividing column j by s_j and row i by t_i changes the objective to

    sum over i of t_i^2 (w - q)_i H' (w - q)_i^T  with  H'_jk = H_jk s_j s_k ,

so that errors are still those of the layer. (VPTQ's released code propagates errors of normalised columns
through the unscaled Hessian.)
"""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from methods.contracts.problem import LayerProblem
from methods.vectors.codebook import storable_centroids
from methods.vectors.descent import Codes, Span
from methods.weights.book import Book
from methods.weights.levels import storable
from methods.weights.vectors import SCALE_DTYPE, Part, VectorWeight

TAME = 2.0**10  # weights whose largest lies within this factor of 1 are computed with as they are
LEAST_SCALE = 2.0**-6  # where SCALE_DTYPE begins to lose precision


class Normalize(Enum):
    """What is done to each input column before it meets the codebook."""

    none = "none"
    scale = "scale"  # divided by its deviation: one byte per column
    affine = "affine"  # its mean taken off, too: a float16 value more (the paper's)


@dataclass(frozen=True)
class Frame:
    """A layer problem as the passes see it: columns in the order of rounding, normalised, turned."""

    weight: Tensor  # (in, out)
    hessian: Tensor  # (in, in), of the weights as they stand here
    order: Tensor  # (in,): which column of the problem each one is
    outliers: int  # how many columns at the start are outliers
    amplitude: float  # a power of two that was divided out, 1 unless the weights were huge or tiny
    scale: Tensor | None  # (in,) in the order of the problem, as stored
    bias: Tensor | None
    row_scale: Tensor | None  # (row blocks,) as stored
    row_block: int

    @property
    def row_importance(self) -> Tensor:
        """(out,): what the squared errors of each row cost in the problem."""
        rows = self.weight.shape[1]
        if self.row_scale is None:
            return self.weight.new_ones(rows)
        return self.row_scale.square().repeat_interleave(self.row_block)[:rows]

    @classmethod
    def of(
        cls, problem: LayerProblem, permute: bool, normalize: Normalize, row_block: int, row_scale: bool
    ) -> "Frame":
        """
        Args:
            permute: order the columns by their Hessian diagonal; outlier columns come first in any case.
            row_block: rows that share a row scale, if there are any.
        """
        weight, hessian = problem.weight, problem.hessian
        columns, ratio = weight.shape[1], problem.scheme.outlier_ratio
        diagonal = torch.diagonal(hessian)
        ranked = torch.argsort(diagonal, descending=True, stable=True)
        outliers = min(columns - 1, max(1, round(ratio * columns))) if ratio > 0 else 0
        if not permute:
            ranked = torch.cat([ranked[:outliers], ranked[outliers:].sort().values])
        amplitude, divisor, scale, bias = 1.0, None, None, None
        if normalize is Normalize.affine:
            bias = storable(weight.mean(0))
            weight = weight - bias
        if normalize is not Normalize.none:
            scale = _deviations(weight.T)
            weight, hessian = weight / scale, hessian * scale[:, None] * scale
        if row_scale:
            padded = torch.nn.functional.pad(weight, (0, 0, 0, -len(weight) % row_block))
            divisor = _deviations(padded.view(-1, row_block * columns))
            weight = weight / divisor.repeat_interleave(row_block)[: len(weight), None]
        largest = weight.abs().max().item()
        if largest > 0 and not 1 / TAME <= largest <= TAME:
            amplitude = 2.0 ** torch.tensor(largest).log2().floor().item()
            weight = weight / amplitude
        turned, hessian = weight[:, ranked].T.contiguous(), hessian[ranked][:, ranked]
        return cls(turned, hessian, ranked, outliers, amplitude, scale, bias, divisor, row_block)

    def storable(self, centroids: Tensor) -> Tensor:
        """Centroids that lose nothing when they are stored."""
        return storable_centroids(centroids) if self.amplitude == 1 else centroids.float().to(centroids.dtype)

    def _restored(self, centroids: Tensor) -> Tensor:
        """Centroids of the problem's size, in values that float32 holds (it may hold no tiny ones)."""
        return centroids if self.amplitude == 1 else (centroids * self.amplitude).float().to(centroids.dtype)

    def assemble(self, spans: list[Span], codes: Codes) -> VectorWeight:
        """The weight in the order of the problem."""
        parts = []
        for span, of_span in zip(spans, codes, strict=True):
            columns, by_column = self.order[span.columns].sort()
            book = Book.of([self._restored(stage) for stage in span.book.stages])
            parts.append(Part(columns, tuple(code[by_column] for code in of_span), book))
        shape, extras = (self.weight.shape[1], len(self.order)), (self.scale, self.bias, self.row_scale)
        return VectorWeight(shape, tuple(parts), *extras, self.row_block)


@dataclass(frozen=True)
class Rounding:
    """What a pass arrived at."""

    frame: Frame
    spans: list[Span]
    offset: Tensor  # (in, out) of the frame: values - weight
    codes: Codes
    stats: dict[str, float]
    fallbacks: tuple[str, ...]

    def weight(self) -> VectorWeight:
        return self.frame.assemble(self.spans, self.codes)


def _deviations(lines: Tensor) -> Tensor:
    """The root mean square of each line, over a power of two above all of them, as SCALE_DTYPE holds it.

    Lines far below the others, whose scales would lose their precision, are scaled by less than their
    deviation. Zeros get 1.
    """
    # squares must not overflow
    largest = lines.abs().amax(1, keepdim=True).clamp(min=torch.finfo(lines.dtype).tiny)
    deviation = (lines / largest).square().mean(1).sqrt() * largest.squeeze(1)
    above = 2.0 ** deviation.max().log2().ceil() if deviation.any() else 1.0
    relative = torch.where(deviation > 0, (deviation / above).clamp(min=LEAST_SCALE), 1.0)
    return relative.to(SCALE_DTYPE).to(lines.dtype)
