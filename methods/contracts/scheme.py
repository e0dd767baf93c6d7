"""What a sweep varies under every method: how many bits, how they are spaced, who shares them."""

from dataclasses import dataclass
from enum import Enum


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

    bits: int
    group_size: int | None  # columns that share one scale; None: the whole output channel
    symmetric: bool
    zero_point: ZeroPoint
    range: RangeRule
    scale_bits: int | None  # scales (and float zeros) are themselves codes of so many bits; None: float16
    scale_group_size: int  # neighbouring output rows that share the grid of those codes
    outlier_ratio: float  # share of the entries (or columns) kept in float16
    outlier_structure: OutlierStructure
    act_bits: int | None  # inputs of all quantized linears, and queries, keys and values; None: float
    act_symmetric: bool
    act_range: ActRange
    kv_bits: int | None  # keys and values, what a cache would hold; None: act_bits

    def __post_init__(self):
        if not 2 <= self.bits <= 8:
            raise ValueError(f"scheme.bits={self.bits}: must be between 2 and 8")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(
                f"scheme.group_size={self.group_size}: must be at least 1, "
                "or null for one group per output channel"
            )
        if self.symmetric and self.zero_point is ZeroPoint.float:
            raise ValueError(
                "scheme.zero_point=float: a symmetric grid has no zero point; set scheme.symmetric=false"
            )
        if self.scale_bits is not None and not 2 <= self.scale_bits <= 8:
            raise ValueError(
                f"scheme.scale_bits={self.scale_bits}: must be between 2 and 8, or null for float16 scales"
            )
        if self.scale_group_size < 1:
            raise ValueError(f"scheme.scale_group_size={self.scale_group_size}: must be at least 1")
        if not 0 <= self.outlier_ratio <= 0.5:
            raise ValueError(f"scheme.outlier_ratio={self.outlier_ratio}: must be between 0 and 0.5")
        for name in ("act_bits", "kv_bits"):
            if getattr(self, name) is not None and not 2 <= getattr(self, name) <= 8:
                raise ValueError(
                    f"scheme.{name}={getattr(self, name)}: must be between 2 and 8, or null for float"
                )

    @property
    def max_code(self) -> int:
        return 2**self.bits - 1

    @property
    def quantizes_activations(self) -> bool:
        return self.act_bits is not None or self.kv_bits is not None
