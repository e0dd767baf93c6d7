"""GPTVQ: GPTQ in which a few columns at a time are rounded together, to vectors of small local codebooks.

van Baalen, Kuzmin, Koryakovskiy, Nagel, Couperus, Bastoul, Mahurin, Blankevoort, Whatmough: GPTVQ: The
Blessing of Dimensionality for LLM Quantization, arXiv 2402.15319, Algorithm 1.

    paper                        code
    d, k                         vector_length, 2^(bits * d) centroids
    group of l weights           a tile of rows_per_block rows and columns_per_group columns with one codebook
    H + lambda I                 R R^T, R = UpperFactor.upper
    x - c weighed by H^(i)       metric of a vector: R_p R_p^T, R_p the d x d diagonal block of its columns
    EM, Mahalanobis start        methods.vectors.metric_kmeans
    codebook update              methods.vectors.row_refit: conjugate gradients in place of gradient steps

With the later columns free to make up for it, an error e in the d columns of p costs |e R_p|^2: entry k of
(Q - W) R depends on columns up to k alone. So p has the metric R_p R_p^T and the target

    w_p - sum over j < p of (q_j - w_j) R_jp R_p^-1 .

Left out: the paper's blockwise normalisation, and its SVD of one-dimensional codebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from methods.contracts.bounds import Count, CountOrZero, Damping, Size, Tolerance, Within, check_bounds
from methods.contracts.effort import ENTRY, factorization, one_sweep, product, search
from methods.contracts.problem import LayerProblem, Solution
from methods.contracts.scheme import Scheme
from methods.kernels.metric_nearest import cheapest
from methods.solving.linalg import UpperFactor, live_hessian, upper_factor
from methods.vectors.metric_kmeans import fit_centroids
from methods.vectors.row_refit import refit
from methods.vectors.tiling import Tiling
from methods.weights.row_vectors import CoarseCodebooks, Entries, RowVectors

CodebookFit = Callable[[Tensor, Tensor], Tensor]
MOST_INDEX_BITS = 12  # of one vector: beyond, local codebooks would cost more than they give


@dataclass(frozen=True)
class GPTVQ:
    """Codebooks stand in for the grid: `scheme.bits` are index bits per weight, its range rule means nothing.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    vector_length: Annotated[int, Within(1, 1024)]  # d: consecutive columns of one row
    columns_per_group: Size  # most columns that share a codebook
    # bits per weight that codebooks may cost; sets how many rows share one
    codebook_overhead: Annotated[float, Within(0, 16, above=True)]
    codebook_bits: Annotated[int, Within(2, 16)]  # of every centroid entry
    kmeans_iterations: Count  # the most EM steps
    kmeans_tolerance: Tolerance  # EM ends when no more than this share of the vectors changed centroid
    codebook_steps: CountOrZero  # conjugate-gradient steps of the final codebook update; 0: none
    damping: Damping  # added to the diagonal, relative to its mean
    act_order: bool  # vectors of the columns with the largest diagonal first

    rows_independent: ClassVar[bool] = False

    def __post_init__(self):
        check_bounds(self)
        if self.columns_per_group < self.vector_length:
            least = f"vector_length={self.vector_length}"
            raise ValueError(f"columns_per_group={self.columns_per_group}: must be at least {least}")

    def skip_reason(self, scheme: Scheme) -> str | None:
        if scheme.outlier_ratio > 0:
            return "GPTVQ keeps no outliers"
        if scheme.group_size is not None or scheme.symmetric or scheme.scale_bits is not None:
            return "GPTVQ has codebooks, not grids: group_size, symmetric and scale_bits mean nothing to it"
        if (bits := scheme.bits * self.vector_length) > MOST_INDEX_BITS:
            return f"GPTVQ would need codebooks of 2^{bits} vectors; shorten vector_length"
        return None

    def operations(self, rows: int, columns: int, scheme: Scheme) -> float:
        """Half of the EM steps, each a search and some passes; one sweep; two products per update step."""
        find = search(rows, columns, self.vector_length, 2 ** (scheme.bits * self.vector_length))
        fits = self.kmeans_iterations / 2 * (find + 4 * ENTRY * rows * columns)
        steps = fits + self.codebook_steps * 2 * product(rows, columns)
        return factorization(columns) + find + one_sweep(rows, columns, triangular=True) + steps

    def solve(self, problem: LayerProblem) -> Solution:
        count = 2 ** (problem.scheme.bits * self.vector_length)
        tiling = self.tile(problem.hessian, len(problem.weight), count)
        unit = power_of_two(problem.weight)
        weight = problem.weight / unit
        hessian = (problem.hessian / power_of_two(problem.hessian))[tiling.columns][:, tiling.columns]
        factor = upper_factor(hessian, self.damping)
        extra = len(tiling.order) * self.vector_length - weight.shape[1]
        ordered = pad(weight[:, tiling.columns], (0, extra))

        def fit(left: Tensor, metrics: Tensor) -> Tensor:
            vectors, used = tiling.blocked(left), tiling.used(weight.device)
            limits = self.kmeans_iterations, self.kmeans_tolerance
            return fit_centroids(vectors, metrics, used, count, *limits)

        propagation = Propagation.of(factor, extra, self.vector_length, weight.dtype)
        codes, centroids = round_vectors(ordered, propagation, tiling, fit)
        if self.codebook_steps:
            matrix, scale = live_hessian(hessian)
            # else centroids drift where inputs are few
            damped = matrix + torch.diag(factor.damping * scale.expand(len(matrix)))
            judge = pad(damped, (0, extra, 0, extra))
            entries = Entries.of(codes, tiling.group_index()[tiling.order], tiling.rows_per_block, centroids)
            centroids = refit(ordered, judge, entries, centroids, self.codebook_steps)
        answer = torch.empty_like(codes).index_copy_(1, tiling.order, codes)
        books = CoarseCodebooks.fit(centroids * unit, self.codebook_bits)
        quantized = RowVectors(answer, books, tiling.group_index(), tiling.rows_per_block, weight.shape[1])
        return Solution(quantized, {"damping": factor.damping}, factor.fallbacks)

    def tile(self, hessian: Tensor, rows: int, count: int) -> Tiling:
        """Equal column groups, as many rows per codebook as the overhead asks for."""
        columns, length = len(hessian), self.vector_length
        vectors = -(-columns // length)
        whole = columns // length
        order = torch.arange(vectors, device=hessian.device)
        if self.act_order:
            size = torch.diagonal(hessian)[: whole * length].view(whole, length).sum(1)
            # an incomplete vector stays last
            order[:whole] = torch.argsort(size, descending=True, stable=True)
        inside = (order[:, None] * length + torch.arange(length, device=hessian.device)).reshape(-1)
        groups = -(-columns // (self.columns_per_group // length * length))
        width = -(-vectors // groups) * length
        total = vectors * length
        slices = [slice(first, min(first + width, total)) for first in range(0, total, width)]
        weights = count * length * self.codebook_bits / self.codebook_overhead
        blocks = max(1, round(rows * min(width, columns) / weights))
        return Tiling(rows, -(-rows // blocks), length, order, tuple(slices), inside[inside < columns])


@dataclass(frozen=True)
class Propagation:
    """What errors do to later columns, and what an error of each vector costs."""

    upper: Tensor  # (columns, columns) R, with 1 on the diagonal where a column is not there
    feedback: Tensor  # (columns, columns): the columns of R, those of every vector p times R_p^-1
    roots: Tensor  # (vectors, length, length) R_p, 0 where a column is not there

    @classmethod
    def of(cls, factor: UpperFactor, extra: int, length: int, dtype: torch.dtype) -> "Propagation":
        upper = pad(factor.upper, (0, extra, 0, extra))
        vectors = len(upper) // length
        blocks = upper.view(vectors, length, vectors, length).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        # a copy even where one vector is all there is: `upper` is written to below
        roots = blocks.clone(memory_format=torch.contiguous_format)
        if extra:
            torch.diagonal(upper)[-extra:] = 1
        inverse = torch.linalg.inv(blocks)
        feedback = torch.einsum("nvd,vde->nve", upper.view(-1, vectors, length), inverse).reshape(upper.shape)
        return cls(upper.to(dtype), feedback.to(dtype), roots.to(dtype))


def power_of_two(matrix: Tensor) -> Tensor:
    """The size of the largest entry. Dividing by it rounds nothing, and keeps float32 products finite."""
    exponent = torch.frexp(matrix.abs().max()).exponent
    return torch.ldexp(matrix.new_ones(()), exponent)


def round_vectors(
    weight: Tensor, propagation: Propagation, tiling: Tiling, fit: CodebookFit
) -> tuple[Tensor, Tensor]:
    """The pass: for each column group codebooks fitted on what is left to round, then its vectors in turn.

    Args:
        weight: (out, columns) in the order of rounding.
        fit: (what is left to round of a group, metrics of its vectors) -> (row_blocks, count, length).

    Returns:
        Codes (out, vectors) in that order, and centroids (row_blocks, groups, count, length).
    """
    lost = torch.zeros_like(weight)  # value - weight of what is rounded
    codes, books = [], []
    upper = propagation.upper
    for group in tiling.groups:
        first = group.start
        owed = -(lost[:, :first] @ upper[:first, group])
        own = upper[group, group]
        now = weight[:, group] + torch.linalg.solve_triangular(own, owed, upper=True, left=False)
        roots = propagation.roots[first // tiling.length : group.stop // tiling.length]
        centroids = fit(now, roots @ roots.mT)
        feedback = propagation.feedback[group, group]
        chosen, values = round_group(now, feedback, roots, centroids, tiling.rows_per_block)
        lost[:, group] = values - weight[:, group]
        codes.append(chosen)
        books.append(centroids)
    return torch.cat(codes, 1), torch.stack(books, 1)


def round_group(
    weight: Tensor, feedback: Tensor, roots: Tensor, centroids: Tensor, rows_per_block: int
) -> tuple[Tensor, Tensor]:
    """Round the vectors of one column group in turn, each by its metric, its error fed into later targets.

    Args:
        weight: (out, columns).
        feedback: (columns, columns), see `Propagation`.
        roots: (vectors, length, length).
        centroids: (row_blocks, count, length).

    Returns:
        Codes (out, vectors) and values (out, columns).
    """
    count, length = centroids.shape[1:]
    turned = weight.T.contiguous()
    lost = torch.zeros_like(turned)
    first_centroid = torch.arange(len(weight), device=weight.device) // rows_per_block * count
    flat = centroids.reshape(-1, length)
    codes = torch.empty(len(roots), len(weight), dtype=torch.int64, device=weight.device)
    for vector, root in enumerate(roots):
        columns = slice(vector * length, (vector + 1) * length)
        target = turned[columns] - feedback[: columns.start, columns].T @ lost[: columns.start]
        codes[vector] = nearest(target.T @ root, centroids @ root, rows_per_block)
        lost[columns] = flat[first_centroid + codes[vector]].T - turned[columns]
    return codes.T.contiguous(), (turned + lost).T


def nearest(points: Tensor, centroids: Tensor, rows_per_block: int) -> Tensor:
    """Codes (out,) of the nearest of centroids (row_blocks, count, length) to each point (out, length)."""
    blocks, _, length = centroids.shape
    filled = pad(points, (0, 0, 0, blocks * rows_per_block - len(points)))
    filled = filled.view(blocks, rows_per_block, 1, length)
    return cheapest(filled, centroids.square().sum(2)[:, None], centroids).reshape(-1)[: len(points)]
