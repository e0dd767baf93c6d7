"""What all pictures share: the look, the grid of panels, scales and ticks, and the bytes of a finished figure."""

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from harness.reporting.document import Picture
from harness.reporting.styles import FIGURE, colour_and_marker, is_pair

PANELS = 6  # more would be a poster
TITLE, FACTS = 0.098, 0.056  # inches per letter
LOG_FROM = 4.0  # largest over smallest value from which the scale is logarithmic
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
GREY, PALE, STAIR = "#777777", "#A6A6A6", "#D9D9D9"


@contextmanager
def house_style() -> Iterator[None]:
    """The same look everywhere: a user's matplotlibrc must not change a report."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may hold any character
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(FIGURE)
        yield


@contextmanager
def plain_texts() -> Iterator[None]:
    """The house style for texts that come from records: a dollar sign is a dollar sign."""
    with house_style():
        matplotlib.rcParams["text.parse_math"] = False
        yield


def picture(slug: str, title: str, caption: str, alt: str, figure: Figure) -> Picture:
    """The figure as pixels and as lines; nothing in either says when or with what it was made."""
    return Picture(slug, title, caption, alt, png_of(figure), svg_of(figure))


def part_of(shown: int, count: int, what: str) -> str:
    """What a caption says where only the first ones are drawn, with a space before it."""
    return f" Shown are {shown} of {count} {what}." if count > shown else ""


def png_of(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def svg_of(figure: Figure) -> bytes:
    """Texts become paths, so that the fonts of the reader's machine do not matter."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ptq-bench", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()


def panels(count: int, across: int, size: tuple[float, float], **edges: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of `across`.

    Args:
        size: of one panel with what stands around it, in inches.
        edges: left, right, bottom, top margins of the figure and the gaps wide, high between panels, in inches.
    """
    room = {"left": 0.72, "right": 0.25, "bottom": 0.62, "top": 0.78, "wide": 0.9, "high": 1.35} | edges
    across = min(across, count)
    down = math.ceil(count / across)
    width, height = size[0] * across, size[1] * down
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    inner = (width - room["left"] - room["right"] - room["wide"] * (across - 1)) / across
    outer = (height - room["bottom"] - room["top"] - room["high"] * (down - 1)) / down
    grid = figure.add_gridspec(
        *(down, across),
        left=room["left"] / width,
        right=1 - room["right"] / width,
        bottom=room["bottom"] / height,
        top=1 - room["top"] / height,
        wspace=room["wide"] / inner,
        hspace=room["high"] / outer,
    )
    return figure, [figure.add_subplot(grid[divmod(place, across)]) for place in range(count)]


def panel_each(
    found: Sequence, draw: Callable[..., None], across: int = 2, alone: tuple = (7.6, 4.6), several: tuple = (5.6, 4.3), **edges: float
) -> Figure:
    """A figure of which `draw(axes, *entry)` fills a panel for each entry, at most `PANELS`; one alone is larger."""
    figure, axes = panels(min(len(found), PANELS), across, alone if len(found) == 1 else several, **edges)
    for place, entry in zip(axes, found, strict=False):
        draw(place, *entry)
    return figure


def titled(axes: Axes, title: str, facts: Sequence[str] = (), length: int = 70) -> None:
    """A bold title, and what else is to be known in small grey letters below it; as much of both as the panel has room for."""
    room = axes.get_position().width * axes.figure.get_figwidth() + 0.5  # inches, with some of the gap to the next panel
    length = min(length, round(room / TITLE))
    axes.set_title(shortened(title, length), parse_math=False, pad=22 if facts else 8)
    text = shortened(" · ".join(filter(None, facts)), round(room / FACTS))
    axes.text(0, 1.025, text, transform=axes.transAxes, fontsize=7.5, color=GREY, parse_math=False)


def shown(method: str, hollow: bool = False) -> dict:
    """How the points of a method look: two methods together are half filled, and hollow ones are open to doubt."""
    colour, marker = colour_and_marker(method)
    style = "none" if hollow else "bottom" if is_pair(method) else "full"
    face = "none" if hollow else colour
    look = {"color": colour, "marker": marker, "markerfacecolor": face, "markeredgewidth": 1.3, "markersize": 6}
    return look | {"fillstyle": style, "markerfacecoloralt": "white", "linestyle": "none"}


def draw_behind(axes: Axes, lines: Sequence[Sequence[tuple]]) -> None:
    """Lines or points that are no subject of the panel, all in one pale grey."""
    xs = [x for line in lines for x in (*(point[0] for point in line), math.nan)]
    ys = [y for line in lines for y in (*(point[1] for point in line), math.nan)]
    axes.plot(xs, ys, color=PALE, linewidth=0.7, marker=".", markersize=5, markeredgewidth=0, zorder=1.4)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, value) that no other one beats in both, from little cost to much; less is better in both."""
    chosen: list[tuple[float, float]] = []
    for point in sorted({point[:2] for point in points}):
        if not chosen or point[1] < chosen[-1][1]:
            chosen.append(point)
    return chosen


def draw_front(axes: Axes, best: Sequence[tuple[float, float]]) -> None:
    """The front as a grey stair: what is above and to the right of it is beaten."""
    if not best:
        return
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    xs, ys = [best[0][0], *(x for x, _ in best), right], [top, *(y for _, y in best), best[-1][1]]
    axes.plot(xs, ys, color=STAIR, linewidth=2.2, drawstyle="steps-post", solid_joinstyle="round", zorder=1.2)


def scale(axes: Axes, bits: Sequence[float], values: Sequence[float]) -> None:
    """Limits and ticks of values against bits, set before anything is drawn because labels are placed in the pixels they give."""
    margin = 0.06 * (max(bits) - min(bits)) or 0.5
    axes.set_xlim(min(bits) - margin, max(bits) + margin)
    ticks = range(math.floor(min(bits)), math.ceil(max(bits)) + 1)
    near = [tick for tick in ticks if min(bits) - 0.3 <= tick <= max(bits) + 0.3] if len(ticks) < 20 else []
    axes.set_xticks(near or MaxNLocator(8).tick_values(min(bits), max(bits)))
    scale_along(axes, "y", values)


def scale_along(axes: Axes, which: str, values: Sequence[float], log: bool | None = None) -> None:
    """Limits and ticks of one axis, logarithmic where the values (all above 0) are far apart, or as `log` says."""
    low, high = min(values), max(values)
    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"set_{which}lim")
    if low > 0 and (high / low >= LOG_FROM if log is None else log):
        getattr(axes, f"set_{which}scale")("log")
        stretch = max((high / low) ** 0.07, 1.15)
        limits(low / stretch, high * stretch)
        many = (1,) if high / low >= 300 else (1, 2, 5)
        ticks = [tick for tick in LogLocator(subs=many).tick_values(low, high) if low / stretch <= tick <= high * stretch]
        ticks = ticks[:: math.ceil(len(ticks) / 8)] if high / low >= 300 else ticks
        if len(ticks) < 3:
            ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low / stretch <= tick <= high * stretch]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(tick))
    else:
        margin = 0.09 * (high - low) or 0.05 * abs(high) or 1.0
        limits(low - margin, high + margin)


def tick(value: float, _: int | None = None) -> str:
    """Plain below a hundred thousand, a power of ten from there on."""
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.3g}"
    power = round(math.log10(value)) if value > 0 else 0
    exact = value > 0 and math.isclose(value, 10.0**power)
    return "10" + str(power).translate(SUPERSCRIPTS) if exact else f"{value:.3g}"


def shortened(text: str, length: int) -> str:
    return textwrap.shorten(text, length, placeholder=" …") if " " in text[:length] else text[:length]
