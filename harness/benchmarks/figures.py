"""The figures of `ptq-bench bench`: layer error against true bits, and seconds of a sweep against the width
of a layer.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from harness.reporting.drawing import canvas
from harness.reporting.drawing.canvas import house_style, png_of, titled
from harness.reporting.drawing.label_placing import FONT_SIZE, Label, place_labels
from harness.reporting.drawing.marks import GREY, front
from harness.reporting.drawing.method_styles import colour_and_marker
from harness.reporting.drawing.scales import scale

Point = tuple[float, float]


def solvers_figure(panels: Sequence[tuple[str, dict[str, list[Point]]]], subtitle: str) -> bytes:
    """A PNG: one row for each (title, {method: [(true bits, error)]}); a line joins what its method does
    best.

    Left the errors themselves; right the same ones times 4^(bits - 2), which takes out what any grid gains
    from a bit more and leaves what a method makes of its bits.
    """
    with house_style():
        notes = [
            subtitle,
            "On the right a bit is worth a factor of four: error × 4^(bits − 2), "
            "where lower is better at any size.",
        ]
        figure, axes = canvas.panels(2 * len(panels), 2, 2.3, notes, left=0.5, wide=0.45)
        for place, (title, methods) in enumerate(panels):
            fronts = {method: front(points) for method, points in methods.items()}
            best = front([point for points in methods.values() for point in points])
            _errors(axes[2 * place], f"Layer error of {title}", methods, fronts, best)
            levelled = {method: _levelled(points) for method, points in methods.items()}
            lines = {method: _levelled(points) for method, points in fronts.items()}
            _errors(axes[2 * place + 1], "The same, levelled", levelled, lines, _levelled(best))
        return png_of(figure)


def _levelled(points: Sequence[Point]) -> list[Point]:
    return [(bits, error * 4 ** (bits - 2)) for bits, error in points]


def _errors(
    axes: Axes, title: str, methods: dict[str, list[Point]], fronts: dict[str, list[Point]], best: list[Point]
) -> None:
    """One panel: every point, each method's front as a line, the front of all as a grey band."""
    every = [point for points in methods.values() for point in points]
    scale(axes, [bits for bits, _ in every], [error for _, error in every])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.plot(
        *zip(*best, strict=True),
        color="#E3E3E3",
        linewidth=5,
        solid_capstyle="round",
        solid_joinstyle="round",
        zorder=1,
    )
    for method, points in methods.items():
        colour, marker = colour_and_marker(method)
        line = fronts[method]
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.9, alpha=0.85, zorder=3)
        for point in sorted(set(points)):
            on = point in line
            face, alpha = (colour, 1) if on else ("white", 0.6)
            axes.plot(
                *point,
                marker,
                markersize=3.6 if on else 2.8,
                color=colour,
                markerfacecolor=face,
                alpha=alpha,
                zorder=4,
            )
    titled(axes, title)
    axes.set_xlabel("stored bits per weight")
    labels = [
        Label(method, colour_and_marker(method)[0], line[0], line[-1]) for method, line in fronts.items()
    ]
    place_labels(axes, labels, list(fronts.values()), None)


def scaling_figure(
    points: Sequence[tuple[int, float, float]], coefficients: tuple[float, float], subtitle: str
) -> bytes:
    """A PNG of (width, seconds per sweep, seconds of its matrix products alone), log-log, with seconds = e^a
    * width^b drawn in.
    """
    with house_style():
        figure, (left, right) = canvas.panels(
            2, 2, 2.3, [subtitle, "Share: 2 · rows · width² per sweep, same precision."]
        )
        widths, seconds, products = (list(values) for values in zip(*points, strict=True))
        _times(left, widths, seconds, products, coefficients)
        shares = [100 * product / second for product, second in zip(products, seconds, strict=True)]
        _shares(right, widths, shares)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(widths))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
            axes.set_xlim(widths[0] / 1.15, widths[-1] * 1.35)
            axes.set_xlabel("width of a square layer")
        return png_of(figure)


def _times(
    axes: Axes,
    widths: list[int],
    seconds: list[float],
    products: list[float],
    coefficients: tuple[float, float],
) -> None:
    colour, marker = colour_and_marker("quantease")
    axes.set_yscale("log")
    axes.plot(widths, products, color=GREY, linewidth=1.3, linestyle=(0, (5, 1.6)), zorder=2)
    fitted = [math.exp(coefficients[0]) * width ** coefficients[1] for width in widths]
    axes.plot(widths, fitted, color=colour, linewidth=1.2, alpha=0.6, zorder=3)
    axes.plot(widths, seconds, marker, color=colour, markersize=4.5, zorder=4)
    middle, beside = len(widths) // 2, {"textcoords": "offset points", "fontsize": FONT_SIZE}
    text = f"QuantEase ∝ width$^{{{coefficients[1]:.2f}}}$"
    axes.annotate(text, (widths[-1], seconds[-1]), (-10, 1), color=colour, ha="right", va="center", **beside)
    axes.annotate(
        "its matrix products alone",
        (widths[middle], products[middle]),
        (12, -8),
        color=GREY,
        ha="left",
        va="top",
        **beside,
    )
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    titled(axes, "Time of one sweep")


def _shares(axes: Axes, widths: list[int], shares: list[float]) -> None:
    colour, marker = colour_and_marker("quantease")
    axes.plot(widths, shares, marker=marker, color=colour, linewidth=1.5, markersize=4.5, zorder=3)
    axes.axhline(100, color=GREY, linewidth=1.1, linestyle=(0, (5, 1.6)), zorder=2)
    axes.set_ylim(0, max(108, 1.08 * max(shares)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    titled(axes, "Share of the matrix-product rate")


def _seconds(value: float, _: int | None = None) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.999 * size:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"
