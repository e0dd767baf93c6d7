"""Limits and ticks of axes, set before anything is drawn: labels are placed in the pixels they give."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from harness.reporting.drawing.marks import GREY
from harness.reporting.measures import KINDS

LIMIT = KINDS["perplexity"].limit  # beyond it a model is broken
BAND = 0.1  # of a panel, above the limit
NAME = 0.14  # of a panel, below the least value
LOG_FROM = 4.0  # largest over smallest value from which the scale is logarithmic
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scale(axes: Axes, bits: Sequence[float], values: Sequence[float]) -> None:
    """Of values against bits."""
    scale_bits(axes, bits)
    scale_along(axes, "y", values)


def scale_bits(axes: Axes, bits: Sequence[float]) -> None:
    """Along x, with a tick at every whole bit."""
    low, high = min(bits), max(bits)
    wide = high - low > 0.2
    margin = 0.06 * (high - low) if wide else 0.5
    axes.set_xlim(low - margin, high + margin)
    ticks = [
        tick for tick in range(math.floor(low), math.ceil(high) + 1) if low - margin <= tick <= high + margin
    ]
    axes.xaxis.set_major_locator(FixedLocator(ticks) if wide < len(ticks) < 20 else MaxNLocator(6))


def scale_perplexity(axes: Axes, values: Sequence[float]) -> float:
    """Along y. Where a model is broken, the axis ends at the limit and a band stands above it for all that
    are.

    Returns:
        the height of what is broken: of `held`.
    """
    whole = [value for value in values if value <= LIMIT]
    if len(whole) == len(values) or min(values) <= 0:
        scale_along(axes, "y", values)
        _deepen(axes)
        return LIMIT
    scale_along(axes, "y", [*(whole or [LIMIT / 10]), LIMIT], log=True)
    _deepen(axes)
    low = axes.get_ylim()[0]
    unit = (LIMIT / low) ** (BAND / (1 - BAND))
    axes.set_ylim(low, LIMIT * unit)
    axes.axhspan(LIMIT, LIMIT * unit, color="#F1F1F1", linewidth=0, zorder=0.5)
    middle = LIMIT * unit**0.5
    place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    axes.text(0.99, middle, f"broken, > {tick(LIMIT)}", **place, fontsize=7, color=GREY, zorder=0.6)
    return middle


def _deepen(axes: Axes) -> None:
    """Leave room below the float level for its name."""
    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        axes.set_ylim(low / (high / low) ** NAME, high)


def held(value: float, ceiling: float) -> float:
    """Where a perplexity is drawn: beyond the limit all are equal."""
    return value if value <= LIMIT else ceiling


def scale_along(axes: Axes, which: str, values: Sequence[float], log: bool | None = None) -> None:
    """Limits and ticks of one axis, logarithmic where the values (all above 0) are far apart, or as `log`
    says.
    """
    low, high = min(values), max(values)
    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"set_{which}lim")
    if low > 0 and (high / low >= LOG_FROM if log is None else log):
        getattr(axes, f"set_{which}scale")("log")
        stretch = max((high / low) ** 0.07, 1.15)
        limits(low / stretch, high * stretch)
        axis.set_major_locator(FixedLocator(_log_ticks(low, high, stretch)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(tick))
    else:
        margin = 0.09 * (high - low) or 0.05 * abs(high) or 1.0
        limits(low - margin, high + margin)
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))


def _log_ticks(low: float, high: float, stretch: float) -> list[float]:
    """Three or more: powers of ten if there are as many, else round numbers between them as well."""
    low, high = low / stretch, high * stretch
    for several in ((1,), (1, 2, 5), (1, 2, 3, 5, 7)):
        ticks = [tick for tick in LogLocator(subs=several).tick_values(low, high) if low <= tick <= high]
        if len(ticks) > 2:
            return ticks[:: math.ceil(len(ticks) / 8)]
    return [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


def tick(value: float, _: int | None = None) -> str:
    """Plain below a hundred thousand, a power of ten from there on."""
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.3g}"
    power = round(math.log10(value)) if value > 0 else 0
    exact = value > 0 and math.isclose(value, 10.0**power)
    return "10" + str(power).translate(SUPERSCRIPTS) if exact else f"{value:.3g}"
