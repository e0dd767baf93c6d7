"""What is measured: its unit, its direction, how many digits it deserves, and under which protocol a number
was taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.foundation.text import visible


@dataclass(frozen=True)
class Measurement:
    """One number and the conditions that make it comparable. A perplexity does not exist without its
    protocol.
    """

    value: float
    spread: float | None  # standard error
    protocol: str


@dataclass(frozen=True)
class Measure:
    """A kind of number.

    `better` is +1 where more is better, -1 where less is, 0 where nothing is known. Values are multiplied by
    `scale` for display; `digits` are significant ones, `decimals` fixed ones (None: as many as `digits` ask
    for). Beyond `limit` a number says that a model is broken, not how much: nothing is ranked there.
    """

    kind: str
    title: str
    hint: str
    better: int
    scale: float = 1.0
    digits: int = 4
    decimals: int | None = None
    order: int = 9
    limit: float = math.inf

    def text(self, value: float, like: float | None = None) -> str:
        """`value`, already scaled, with the digits that a number of the size of `like` (default: itself)
        gets.
        """
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else ("−inf" if value < 0 else "inf")
        size = abs(value if like is None else like)
        if self.decimals is not None and size < 100:
            return f"{value:.{self.decimals}f}"
        if size and not 1e-4 <= size < 1e5:
            return _scientific(value)
        decimals = self.digits - 1 - math.floor(math.log10(size)) if size else self.digits - 1
        return f"{value:.{max(0, decimals)}f}"


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


LAYER_ERROR = Measure(
    "layer_error",
    "Layer error",
    "Mean over layers of tr((W−Q) H (W−Q)ᵀ) / tr(W H Wᵀ); lower is better",
    -1,
    digits=3,
)
BLOCK_ERROR = Measure(
    "block_error",
    "Block output error",
    "Mean over blocks of ‖output − float output‖² / ‖float output‖²; lower is better",
    -1,
    digits=3,
)

KINDS = {
    "perplexity": Measure("perplexity", "Perplexity", "Lower is better", -1, decimals=2, order=0, limit=1e5),
    "acc": Measure("acc", "Accuracy", "Percent, higher is better", +1, scale=100, decimals=1, order=1),
    "acc_norm": Measure(
        "acc_norm",
        "Length-normalised accuracy",
        "Percent, higher is better",
        +1,
        scale=100,
        decimals=1,
        order=2,
    ),
}
SHARES = ("acc", "acc_norm")  # of right answers

COST_UNITS = {  # what a run took, by column of the records: (label, unit, decimals)
    "bits_per_weight": ("bits per weight", 1, 3),
    "outlier_share": ("outliers, %", 0.01, 2),
    "runtime_overhead.share": ("run-time multiply-adds, +%", 0.01, 1),
    "layer_error.mean": ("layer error, mean", 1, 4),
    "seconds.calibrate": ("calibrate, s", 1, 1),
    "seconds.quantize": ("quantize, s", 1, 1),
    "seconds.transform": ("transform, s", 1, 1),
    "transform.cost.mean": ("per forward-backward", 1, 2),
    "seconds.evaluate": ("evaluate, s", 1, 1),
    "seconds.total": ("whole run, s", 1, 1),
    "peak_memory_bytes.cpu": ("peak memory, GiB", 2**30, 2),
    "peak_memory_bytes.gpu": ("peak GPU memory, GiB", 2**30, 2),
}


def measure_of(metric: str) -> tuple[Measure, str]:
    """The measure and the subject of a metric's name: "perplexity/wiki" is a perplexity on wiki."""
    kind, _, subject = metric.partition("/")
    return KINDS.get(kind) or Measure(kind, visible(kind), "", 0), visible(subject)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of finite values, the same in whatever order; infinite where the sum leaves float64."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.copysign(math.inf, values[0])


def summary(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter is None for a single value."""
    middle = mean(values)
    if len(values) == 1:
        return middle, None
    return middle, math.sqrt(
        math.fsum((value - middle) * (value - middle) for value in values) / (len(values) - 1)
    )
