"""What the walk over the blocks tells about itself: one report per linear, and how it can fail."""

from dataclasses import dataclass


class Diverged(Exception):
    """A block or a rounded weight holds a value that is not finite."""


class SolveError(Exception):
    """A solver failed; the message names the linear and its shape."""


@dataclass(frozen=True)
class LayerReport:
    """What happened to one linear."""

    layer: str  # full path, e.g. model.layers.3.mlp.down_proj
    block: int
    linear: str  # path inside the block
    out_features: int
    in_features: int
    error: float  # tr((W-Q) H (W-Q)^T) / tr(W H W^T)
    bits: float  # stored bits per weight
    outliers: float  # share of its entries kept in float16
    seconds: float  # in the solver
    damping: float | None
    fallback: str | None  # anything done instead of what was asked
