"""Codebooks: centroids that stand for vectors of weights, fitted by weighted k-means.

A vector is `length` neighbouring rows of one column of the weight. Matrices come turned, (columns, rows);
where the length does not divide the rows, the last vector of a column is a short one: it is compared with,
and moves, only the coordinates that it has.

Seeding: k-means++ (Arthur and Vassilvitskii, 2007), above SEED_ROUNDS centroids several draws at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.contracts.bounds import CountOrZero, Seed, Tolerance, check_bounds
from methods.kernels.nearest import nearest

SEED_ROUNDS = 256  # draws of k-means++, each from the distances that the last one left
SAMPLE = 64  # vectors per centroid that k-means looks at before it looks at all
HALF_LOSS = 1e-3  # what storing centroids in float16 may move, relative to the largest of them


@dataclass(frozen=True)
class KMeans:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    iterations: CountOrZero  # of Lloyd, at most
    tolerance: Tolerance  # stop when an iteration lowers the error by less than this share of it
    seed: Seed

    def __post_init__(self):
        check_bounds(self)

    def fit(
        self, matrix: Tensor, importance: Tensor, row_importance: Tensor, length: int, count: int
    ) -> Tensor:
        """Centroids, (k, length): `count` of them, or as many as there are different vectors.

        Args:
            matrix: (columns, rows).
            importance: (columns,) positive weight of each column's errors.
            row_importance: (rows,) the same of each row's, equal within a vector.
        """
        whole, short = split_vectors(matrix, length)
        pairs = torch.outer(importance / importance.mean(), row_importance[::length])  # (columns, vectors)
        weights, their_weights = pairs[:, : matrix.shape[1] // length].reshape(-1), pairs[:, -1]
        generator = torch.Generator().manual_seed(self.seed)
        if len(whole) > SAMPLE * count:  # most of the way on a sample
            chosen = torch.randperm(len(whole), generator=generator)[: SAMPLE * count].to(whole.device)
            centroids = _seeds(whole[chosen], weights[chosen], count, generator)
            sample = _Lloyd([(whole[chosen], weights[chosen])])
            centroids = sample.run(centroids, self.iterations, self.tolerance)
        elif len(whole) >= count or not short.numel():
            centroids = _seeds(whole, weights, count, generator)
        else:  # too few: the short ones may be centroids too, with zeros for what they lack
            filled = torch.nn.functional.pad(short, (0, length - short.shape[1]))
            vectors, weighing = torch.cat([whole, filled]), torch.cat([weights, their_weights])
            centroids = _seeds(vectors, weighing, count, generator)
        kinds = [kind for kind in ((whole, weights), (short, their_weights)) if kind[0].numel()]
        return _Lloyd(kinds).run(centroids, self.iterations, self.tolerance)


def _seeds(vectors: Tensor, weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each draw in proportion to the weighted squared distance from what was drawn before."""
    rounds = min(count, SEED_ROUNDS)
    shares = weights.double()  # the first draw knows no distances
    distance = torch.full_like(weights, torch.inf)
    seeds = []
    for k in range(rounds):
        draws = count * (k + 1) // rounds - count * k // rounds
        edges = shares.cumsum(0)
        if edges[-1] <= 0:  # every vector is a centroid already
            break
        drawn = torch.rand(draws, generator=generator, dtype=torch.float64).to(edges.device) * edges[-1]
        seeds.append(
            vectors[torch.searchsorted(edges, drawn, right=True).clamp_(max=len(edges) - 1).unique()]
        )
        apart = vectors - seeds[-1][nearest(vectors, seeds[-1])]
        distance = torch.minimum(distance, apart.square_().sum(1))
        shares = weights.double() * distance
    return torch.cat(seeds)


class _Lloyd:
    def __init__(self, kinds: list[tuple[Tensor, Tensor]]):
        """kinds: vectors (n, length or less) and weights (n,) of each length that there is, longest first."""
        self.kinds, self.weights = ([kind[k] for kind in kinds] for k in range(2))
        self.weighted = [vectors * weights[:, None] for vectors, weights in kinds]
        pairs = zip(self.kinds, self.weighted, strict=True)
        self.energy = sum((vectors.double() * weighted.double()).sum() for vectors, weighted in pairs)

    def run(self, centroids: Tensor, iterations: int, tolerance: float) -> Tensor:
        for _ in range(iterations):
            codes = [nearest(vectors, _front(centroids, vectors), exact=False) for vectors in self.kinds]
            sums, shares = torch.zeros_like(centroids), torch.zeros_like(centroids)
            for vectors, weight, code in zip(self.weighted, self.weights, codes, strict=True):
                width = vectors.shape[1]
                sums[:, :width].index_add_(0, code, vectors)
                shares[:, :width] += weight.new_zeros(len(centroids)).index_add_(0, code, weight)[:, None]
            means = torch.where(shares > 0, sums / shares, centroids)
            gained = (shares * (means - centroids).square()).sum().double()
            left = self.energy - (shares.double() * means.double().square()).sum()
            empty = (shares[:, 0] == 0).nonzero().squeeze(1)
            if len(empty):
                self._reseed(means, codes, empty)
            elif gained <= tolerance * left:
                return means
            centroids = means
        return centroids

    def _reseed(self, centroids: Tensor, codes: list[Tensor], empty: Tensor) -> None:
        """Move empty clusters onto the vectors that cost the most; leave them where every vector is met."""
        vectors, weight, code = self.kinds[0], self.weights[0], codes[0]
        cost = (vectors - _front(centroids, vectors)[code]).square().sum(1) * weight
        worst = torch.argsort(cost, descending=True, stable=True)[: len(empty)]
        worst = worst[cost[worst] > 0]
        centroids[empty[: len(worst)], : vectors.shape[1]] = vectors[worst]


def split_vectors(matrix: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The whole vectors (n, length), column after column, and the short ones, (columns, < length)."""
    whole = matrix.shape[1] // length * length
    return matrix[:, :whole].reshape(-1, length), matrix[:, whole:].contiguous()


def storable_centroids(centroids: Tensor) -> Tensor:
    """Values of float16, or of float32 if that overflows or is too coarse for the largest; dtype stays."""
    rounded = centroids.to(torch.float16).to(centroids.dtype)
    fits = (rounded - centroids).abs().max() <= HALF_LOSS * centroids.abs().max()  # false for overflow to inf
    return rounded if fits else centroids.to(torch.float32).to(centroids.dtype)


def _front(centroids: Tensor, vectors: Tensor) -> Tensor:
    return centroids[:, : vectors.shape[1]].contiguous()
