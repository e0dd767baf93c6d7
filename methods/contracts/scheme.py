"""What a sweep varies under every method: how many bits, how they are spaced, who shares them."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from methods.contracts.bounds import Size, Within, check_bounds

Bits = Annotated[int, Within(2, 8)]
ActBits = Annotated[int, Within(2, 8, "null for float")]
ScaleBits = Annotated[int, Within(2, 8, "null for float16 scales")]
GroupSize = Annotated[int, Within(1, 2**24, "null for one group per output channel")]


class ZeroPoint(Enum):
    """How an asymmetric grid says where zero lies."""

    integer = "integer"  # one of the codes decodes to exactly 0
    float = "float"  # the lowest grid point is stored as a float offset


class RangeRule(Enum):
    """How the end points of a grid are chosen."""

    minmax = "minmax"  # the extreme weights
    search = "search"  # the shrunken range with the least rounding error
    search_hessian = "search_hessian"  # the same, each column weighted by its Hessian diagonal


class OutlierStructure(Enum):
    """Which entries may be kept in float16, as a correction on top of the grid."""

    unstructured = "unstructured"  # any entries of the matrix
    column = "column"  # whole columns


class ActRange(Enum):
    """What shares one grid when activations are quantized."""

    token = "token"  # each token its own, found as it comes (dynamic)
    tensor = "tensor"  # all tokens one, fixed by the calibration text (static)


@dataclass(frozen=True)
class Scheme:
    """The number formats of weights and activations, independent of the method that fills them.

    Raises:
        ValueError: a field is outside the range that the storage can hold; the message names it.
    """

    bits: Bits
    group_size: GroupSize | None  # columns that share one scale; None: the whole output channel
    symmetric: bool
    zero_point: ZeroPoint
    range: RangeRule
    # scales (and float zeros) are themselves codes of so many bits; None: float16
    scale_bits: ScaleBits | None
    scale_group_size: Size  # neighbouring output rows that share the grid of those codes
    outlier_ratio: Annotated[float, Within(0, 0.5)]  # share of the entries (or columns) kept in float16
    outlier_structure: OutlierStructure
    act_bits: ActBits | None  # inputs of all quantized linears, and queries, keys and values; None: float
    act_symmetric: bool
    act_range: ActRange
    kv_bits: ActBits | None  # keys and values, what a cache would hold; None: act_bits

    def __post_init__(self):
        check_bounds(self, "scheme.")
        if self.symmetric and self.zero_point is ZeroPoint.float:
            raise ValueError(
                "scheme.zero_point=float: a symmetric grid has no zero point; set scheme.symmetric=false"
            )

    @property
    def max_code(self) -> int:
        return 2**self.bits - 1

    @property
    def quantizes_activations(self) -> bool:
        return self.act_bits is not None or self.kv_bits is not None
