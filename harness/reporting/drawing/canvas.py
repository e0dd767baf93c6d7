"""What all pictures share: the look, the grid of panels with titles and notes, and the bytes of a finished
figure.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.reporting.document import Picture
from harness.reporting.drawing.marks import GREY
from harness.reporting.drawing.styles import FIGURE, WIDTH
from harness.reporting.drawing.texts import shortened, wrapped

PANELS = 6  # more would be a poster
DOTS = 200  # per inch
TITLE, FACTS = 0.084, 0.06  # inches per letter
# letters of a line of notes, inches from line to line, points of a letter
NOTES, NOTE, NOTE_SIZE = 128, 0.125, 6.5


@contextmanager
def house_style() -> Iterator[None]:
    """The same look everywhere: a user's matplotlibrc must not change a report."""
    with matplotlib.rc_context():
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
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return file.getvalue()


def panels(
    count: int, across: int, heights: float | Sequence[float], notes: Sequence[str] = (), **edges: float
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of `across`; one that would be alone in a row of two has all of
    it.

    Args:
        heights: of the panels in inches, without what stands around them; or of each row.
        notes: small grey paragraphs at the foot of the figure.
        edges: left, right, bottom, top margins of the figure and the gaps wide, high between panels, in
            inches.
    """
    room = {"left": 0.66, "right": 0.12, "bottom": 0.42, "top": 0.3, "wide": 0.66, "high": 0.72} | edges
    across = min(across, count)
    down = math.ceil(count / across)
    heights = [heights] * down if isinstance(heights, float | int) else list(heights)
    lines = [line for note in notes for line in wrapped(note, NOTES, 3)]
    foot = NOTE * len(lines) + (0.06 if lines else 0)
    height = foot + room["bottom"] + sum(heights) + room["high"] * (down - 1) + room["top"]
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS)
    FigureCanvasAgg(figure)
    inner = (WIDTH - room["left"] - room["right"] - room["wide"] * (across - 1)) / across
    grid = figure.add_gridspec(
        *(down, across),
        left=room["left"] / WIDTH,
        right=1 - room["right"] / WIDTH,
        bottom=(foot + room["bottom"]) / height,
        top=1 - room["top"] / height,
        wspace=room["wide"] / inner,
        hspace=room["high"] * down / sum(heights),
        height_ratios=heights,
    )
    for index, line in enumerate(lines):
        y = (foot - NOTE * (index + 0.5)) / height
        figure.text(0.1 / WIDTH, y, line, fontsize=NOTE_SIZE, color=GREY, va="center", parse_math=False)
    rows = [
        slice(None) if across == 2 and index == count - 1 and not index % 2 else index % across
        for index in range(count)
    ]
    return figure, [figure.add_subplot(grid[index // across, row]) for index, row in enumerate(rows)]


def panel_each(
    entries: Sequence,
    draw: Callable[..., None],
    across: int = 2,
    alone: float = 2.9,
    several: float = 2.3,
    notes: Sequence[str] = (),
    **edges,
) -> Figure:
    """A figure of which `draw(axes, *entry)` fills a panel for each entry, at most `PANELS`; one alone is
    higher.
    """
    figure, axes = panels(
        min(len(entries), PANELS), across, alone if len(entries) == 1 else several, notes, **edges
    )
    for panel, entry in zip(axes, entries, strict=False):
        draw(panel, *entry)
    for panel in axes:
        if panel.get_ylabel() == axes[0].get_ylabel() and not panel.get_subplotspec().is_first_col():
            panel.set_ylabel("")
    return figure


def titled(axes: Axes, title: str, facts: str = "") -> None:
    """A bold title on at most two lines, and what else is to be known in small grey letters below it."""
    # inches, with some of the gap to the next panel
    room = axes.get_position().width * axes.figure.get_figwidth() + 0.3
    axes.set_title(
        "\n".join(wrapped(title, round(room / TITLE), 2)), parse_math=False, pad=15 if facts else 6
    )
    if facts:
        text = shortened(facts, round(room / FACTS))
        axes.annotate(
            text, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color=GREY, parse_math=False
        )
