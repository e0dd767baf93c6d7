"""Seams: places in a block where an invertible matrix can be slipped in between what is produced and what
consumes it.

At a seam, activations x (a row per token) become x' = (x - shift) A^-1, and whatever consumes them undoes it,
so that the block computes the same function. Which matrices may stand there depends on what lies between
producer and consumer:

    NormSeam       norm -> linears    a diagonal folds into the norm; a full matrix, or a shift without a norm
                                      bias, runs behind it
    ValueSeam      values -> output   one matrix per head of the values: the softmax's rows sum to 1, so
                                      shifts pass as well
    QueryKeySeam   queries . keys     one matrix per head of the keys; where heads are rotated, only what
                                      commutes with all rotations
    MiddleSeam     up -> down         a positive diagonal

A factor of a seam is a matrix (a diagonal is a vector in place of it), with one leading axis over heads where
there are heads. With grouped-query attention, a key or value head and all query heads that use it share one
matrix.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Heads:
    """The rows of a linear that make up heads, wherever a fused projection puts them."""

    linear: str
    rows: Tensor  # (heads, head size) int64

    @property
    def count(self) -> int:
        return self.rows.shape[0]

    @property
    def size(self) -> int:
        return self.rows.shape[1]


@dataclass(frozen=True, eq=False)
class NormSeam:
    """What a norm gives to the linears behind it, all of which read it and nothing else does."""

    norm: str
    consumers: tuple[str, ...]
    width: int
    one_plus: bool = False  # the norm multiplies by 1 + weight (Gemma)
    has_bias: bool = False  # a shift folds away


@dataclass(frozen=True, eq=False)
class ValueSeam:
    """Values, averaged by the attention, on their way to the output projection; its columns are query heads
    in order.
    """

    value: Heads
    output: str
    query_heads: int  # a multiple of value.count; neighbouring ones share a value head


@dataclass(frozen=True, eq=False)
class QueryKeySeam:
    """Queries and keys, before they meet."""

    query: Heads
    key: Heads  # neighbouring query heads share a key head
    rotary: int  # the first so many entries of a head are rotated in pairs (i, i + rotary / 2); 0: none
    # norms of queries and keys between the linears and the product, shared by all heads
    norms: tuple[str, str] | None = None
    one_plus: bool = False  # they multiply by 1 + weight


@dataclass(frozen=True, eq=False)
class MiddleSeam:
    """The hidden layer of an MLP, where a positive factor per channel passes through from `up` to `down`."""

    up: str
    down: str
    width: int


Seam = NormSeam | ValueSeam | QueryKeySeam | MiddleSeam
