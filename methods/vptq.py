"""VPTQ: vectors of weights rounded to centroids column by column, each error made up for by later columns.

Liu, Wen, Wang, Ye, Zhang, Cao, Li, Yang: VPTQ: Extreme Low-bit Vector Post-Training Quantization for Large
Language Models, EMNLP 2024, arXiv 2409.17066. Algorithms 1 and 2: channel-independent second-order
optimization, Hessian-weighted k-means, residual codebook, outliers.

    paper                    code
    v, k1, k2                vector_length, 2^index_bits, 2^(bits * vector_length - index_bits)
    N%, v0, k0               scheme.outlier_ratio, outlier_vector_length, 2^outlier_index_bits
    group number             column_groups
    H^-1, its factor         UpperFactor.upper, as in `methods.gptq`: the same targets without the inverse

A vector runs along the output rows inside one input column, so its error costs the same in every direction
and the nearest centroid is the best. The scheme says the rate, scheme.bits * vector_length index bits for
each vector. A codebook has neither range rule nor zero point: the scheme's are not looked at. Groups,
symmetry and quantized scales would mean something else here, and are refused.

Ours, each with its switch: k-means weighs errors by what they cost the pass (conditional), a scale for each
row of vectors (row_scale), pairs of two stages found by a beam instead of greedily (beam). Normalisation
rescales the Hessian, too (`methods.vectors.frame`).
"""

from dataclasses import dataclass
from math import lcm
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.contracts.bounds import Count, CountOrZero, Damping, Seed, Size, Tolerance, Within, check_bounds
from methods.contracts.effort import factorization, one_sweep, search
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import OutlierStructure, Scheme
from methods.gptq import triangular_feedback
from methods.solving.linalg import upper_factor
from methods.vectors.codebook import SAMPLE, KMeans
from methods.vectors.descent import Span, Sweeper
from methods.vectors.frame import Frame, Normalize, Rounding
from methods.weights.book import Book

MOST_INDEX_BITS = 16  # of one codebook
IndexBits = Annotated[int, Within(1, MOST_INDEX_BITS)]
VectorLength = Annotated[int, Within(1, 1024)]


@dataclass(frozen=True)
class VPTQ:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    vector_length: VectorLength  # output rows that share a code
    index_bits: IndexBits  # of the first codebook; what the scheme grants beyond goes to a residual codebook
    outlier_vector_length: VectorLength
    outlier_index_bits: IndexBits
    column_groups: Size  # equal parts of the columns, each with codebooks of its own
    permute: bool  # round the columns with the largest Hessian diagonal first
    normalize: Normalize
    row_scale: bool  # divide each row of vectors by its deviation (ours): one byte per vector_length rows
    # k-means weighs columns by the factor's squared diagonal; false: by the Hessian's diagonal (paper)
    conditional: bool
    beam: Count  # first-stage centroids tried for a vector of two stages; 1: the paper's greedy choice
    damping: Damping  # added to the diagonal, relative to its mean
    block_size: Size  # columns between two matrix products; changes no result but rounding noise
    kmeans_iterations: CountOrZero
    kmeans_tolerance: Tolerance  # relative gain of an iteration below which k-means stops
    seed: Seed  # of the k-means seeding

    rows_independent: ClassVar[bool] = False

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme) -> str | None:
        if scheme.group_size is not None:
            remedy = "a codebook has no scales to share; see method.solver.column_groups"
            return f"scheme.group_size={scheme.group_size}: {remedy}"
        if scheme.symmetric:
            return "scheme.symmetric=true: a codebook is fitted to the weights and has no symmetry to choose"
        if scheme.scale_bits is not None:
            return f"scheme.scale_bits={scheme.scale_bits}: a codebook has no scales to quantize"
        if scheme.outlier_ratio > 0 and scheme.outlier_structure is not OutlierStructure.column:
            remedy = "VPTQ keeps whole columns apart; set scheme.outlier_structure=column"
            return f"scheme.outlier_structure=unstructured: {remedy}"
        if (left := self.residual_bits(scheme)) > MOST_INDEX_BITS:
            return (
                f"{scheme.bits} bits for each of {self.vector_length} weights leave {left} beside "
                f"index_bits={self.index_bits}: a residual codebook of more than {MOST_INDEX_BITS} bits"
            )
        return None

    def residual_bits(self, scheme: Scheme) -> int:
        return max(0, scheme.bits * self.vector_length - self.index_bits)

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """Of each stage 40 % of the iterations of k-means, over all vectors and a sample, and the pass."""
        total = factorization(columns)
        bits = [min(self.index_bits, scheme.bits * self.vector_length)]
        for index_bits in [*bits, self.residual_bits(scheme)] if self.residual_bits(scheme) else bits:
            find = search(rows, columns, self.vector_length, 2**index_bits)
            sample = min(1.0, SAMPLE * 2**index_bits * self.vector_length / (rows * columns))
            fit = 0.4 * self.kmeans_iterations * (1 + sample) * find
            total += fit + find + one_sweep(rows, columns, triangular=True)
        return total

    def solve(self, problem: LayerProblem) -> Solution:
        rounding = self.round(problem)
        return Solution(rounding.weight(), rounding.stats, rounding.fallbacks)

    def round(self, problem: LayerProblem) -> Rounding:
        """The answer still in its frame, for those who go on from it."""
        row_block = self.row_block(problem.scheme)
        frame = Frame.of(problem, self.permute, self.normalize, row_block, self.row_scale)
        factor = upper_factor(frame.hessian, self.damping)
        feedback = triangular_feedback(factor.upper.to(frame.weight.dtype))
        importance = self._importance(factor.upper).to(frame.weight.dtype)
        spans = self._first_spans(frame, importance, problem.scheme)
        offset, codes = self._sweeper(feedback, spans).first_sweep(frame.weight)
        if self.residual_bits(problem.scheme) > 0:
            left = feedback @ offset - offset  # of each target, by how much its centroid missed it
            spans = self._with_residual(frame, left, importance, spans, problem.scheme)
            offset, codes = self._sweeper(feedback, spans).first_sweep(frame.weight)
        stats = {"damping": factor.damping, "outliers": frame.outliers / len(frame.weight)}
        return Rounding(frame, spans, offset, codes, stats, factor.fallbacks)

    def row_block(self, scheme: Scheme) -> int:
        """Rows that may share a scale: whole vectors, those of outlier columns, too."""
        return lcm(self.vector_length, self.outlier_vector_length if scheme.outlier_ratio > 0 else 1)

    def _sweeper(self, feedback: Tensor, spans: list[Span]) -> Sweeper:
        return Sweeper(feedback, True, spans, self.block_size, self.beam)

    def _importance(self, upper: Tensor) -> Tensor:
        """What an error in each column costs: alone, or once later columns have made up for what they can."""
        return upper.diagonal().square() if self.conditional else upper.square().sum(1)

    def _first_spans(self, frame: Frame, importance: Tensor, scheme: Scheme) -> list[Span]:
        """Outlier columns, then the groups of the others, each with codebooks fitted to its weights."""
        columns = len(frame.weight)
        groups = min(self.column_groups, columns - frame.outliers)
        rest = torch.arange(frame.outliers, columns).tensor_split(groups)
        index_bits = min(self.index_bits, scheme.bits * self.vector_length)
        asked = [(int(group[0]), int(group[-1]) + 1, self.vector_length, index_bits) for group in rest]
        if frame.outliers:
            asked.insert(0, (0, frame.outliers, self.outlier_vector_length, self.outlier_index_bits))
        spans = []
        for start, stop, length, bits in asked:
            weight, weighing = frame.weight[start:stop], importance[start:stop]
            centroids = self._kmeans.fit(weight, weighing, frame.row_importance, length, 2**bits)
            spans.append(Span(start, stop, Book(frame.storable(centroids), None)))
        return spans

    def _with_residual(
        self, frame: Frame, left: Tensor, importance: Tensor, spans: list[Span], scheme: Scheme
    ) -> list[Span]:
        """The same spans, all but outlier columns with a second stage fitted to what the first one left."""
        count, fitted = 2 ** self.residual_bits(scheme), []
        for span in spans:
            if span.stop > frame.outliers:
                options = importance[span.columns], frame.row_importance, self.vector_length, count
                residual = frame.storable(self._kmeans.fit(left[span.columns], *options))
                span = Span(span.start, span.stop, Book(span.book.centroids, residual))
            fitted.append(span)
        return fitted

    @property
    def _kmeans(self) -> KMeans:
        return KMeans(self.kmeans_iterations, self.kmeans_tolerance, self.seed)
