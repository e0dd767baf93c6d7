"""What rounding costs, counted from shapes alone before anything is run.

A solver, a transform or a tuning may have a method `operations`; the time of what has none is not estimated.

    solver      operations(rows, columns, scheme)   one matrix
    transform   operations(block, scheme)           one block
    tuning      operations(block)                   one block

A transform that computes no gradients says so with `trains = False`: it needs less memory.

Operations are those of a float32 matrix product, a multiplication and an addition counting as two. What a
processor does more slowly counts for as many as it takes the time of: the constants below say how many. They
were read off 50 runs on SmolLM2-135M (an AMD EPYC, two cores, where a product runs at 70e9 a second).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.contracts.scheme import RangeRule, Scheme
from methods.contracts.seams import Seam

ENTRY = 250  # one pass over a matrix in plain torch, for each entry: it waits for memory
CANDIDATE = 45  # one weight rounded to one candidate grid
STEP = 1500  # one weight rounded in turn, its error pushed onto the others of its block of columns
NEAREST = 6  # one multiplication and addition of a search for the nearest centroid
STILL = 0.3  # a sweep in which few weights move, against one in which all do
CANDIDATES = 80  # of the search for ranges
BACKWARD = 2  # a backward pass, in forward passes


@dataclass(frozen=True)
class BlockEffort:
    """A block and its calibration, as far as they cost anything."""

    linears: tuple[tuple[int, int], ...]  # (out, in) of each
    seams: Sequence[Seam]
    tokens: int  # of calibration
    window: int  # tokens of one sample
    batches: int  # of calibration samples
    forward: float  # operations of one pass of all tokens through the block


def counted(part: object, *work: object) -> float | None:
    """What a part of a method says that this work costs; None if it does not count.

    Args:
        part: a solver, a transform, a tuning, or None.
        work: the arguments of its `operations`.
    """
    return part.operations(*work) if hasattr(part, "operations") else None


def product(rows: int, columns: int) -> float:
    """A (rows, columns) matrix times a (columns, columns) one."""
    return 2.0 * rows * columns**2


def grid_fit(rows: int, columns: int, scheme: Scheme) -> float:
    """Finding the end points of all grids, and the codes."""
    if scheme.range is RangeRule.minmax:
        return ENTRY * rows * columns
    grids = rows * columns / (scheme.group_size or columns)
    return (ENTRY + CANDIDATE * CANDIDATES) * rows * columns + 10 * ENTRY * CANDIDATES * grids


def factorization(columns: int) -> float:
    """Cholesky in float64, which is half as fast, and the copies around it."""
    return 2 * columns**3 / 3 + 6 * ENTRY * columns**2


def one_sweep(rows: int, columns: int, triangular: bool) -> float:
    """One pass in which every weight may move: steps, and a product (half of one if triangular)."""
    return product(rows, columns) / (2 if triangular else 1) + STEP * rows * columns


def search(rows: int, columns: int, length: int, centroids: int) -> float:
    """The nearest centroid for every vector: 2 operations for each of its coordinates and each centroid."""
    vectors = rows * columns / length
    return NEAREST * 2.0 * vectors * length * centroids


def training(block: BlockEffort, epochs: float) -> float:
    """Forward and backward passes of the block over all samples, the weights rounded anew for every batch."""
    weights = sum(rows * columns for rows, columns in block.linears)
    return epochs * ((1 + BACKWARD) * block.forward + 4 * ENTRY * weights * block.batches)
