"""What panels show and leave out: broken models, shares of outliers as one line, costs worth a panel; texts
that are whole and legible.
"""

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.reporting.drawing.scales import LIMIT
from harness.reporting.drawing.styles import WIDTH
from harness.reporting.drawing.texts import drawable, labelled, wrapped
from harness.reporting.figures.bits import build_figure, lines_of
from harness.reporting.figures.loss_curves import relative
from harness.reporting.figures.pictures import pictures
from harness.reporting.figures.points import series_of
from harness.reporting.figures.runtime import shared
from harness.reporting.frames import load_records
from harness.reporting.keys import RATIO, STRUCTURE, RowKey
from harness.reporting.tables.all_numbers import build_tables
from tests.helpers.invented_records import WIKI, metric, record, store
from tests.reporting.figures.test_pictures import sweep

PAGE = 6.3  # inches of text on a page of A4
LEGIBLE = 5.2  # points in print of the smallest number; labels are larger


@pytest.fixture
def figures(monkeypatch):
    """{slug: figure} of all pictures of these records, none of them written as a file."""
    made: list[Figure] = []
    monkeypatch.setattr("harness.reporting.drawing.canvas.png_of", lambda figure: made.append(figure) or b"")
    monkeypatch.setattr("harness.reporting.drawing.canvas.svg_of", lambda figure: b"")

    def of(results: Path, *records: dict) -> dict[str, Figure]:
        made.clear()
        found = load_records(store(results, *records))
        drawn = pictures(found, build_tables(found.frame), results)
        return {picture.slug: figure for picture, figure in zip(drawn, made, strict=True)}

    return of


def outliers(method: str, ratio: float, structure: str, value: float) -> dict:
    bits = 3.03 + 20 * ratio
    run = record(f"{method}-{structure}-{ratio}", method, 3, value, outlier_share=ratio, bits_per_weight=bits)
    run["scheme"] |= {"outlier_ratio": ratio, "outlier_structure": structure}
    return run


def rich() -> list[dict]:
    """Two models under two protocols, every family of methods, broken models, outliers, activations."""
    methods = (
        "rtn",
        "gptq",
        "quantease",
        "quantease_gptq",
        "spqr",
        "gptvq",
        "vptq",
        "awq",
        "awq+gptq",
        "omniquant",
        "affinequant",
    )
    runs = sweep(methods=methods)
    runs += [
        record("broken", "rtn", 2, 3e7, scheme__group_size=64),
        record("a4", "rtn", 4, 90.0, scheme__act_bits=4),
    ]
    runs += [
        outliers("quantease", ratio, structure, 40 - 300 * ratio + 9 * (structure == "column"))
        for ratio in (0.005, 0.01)
        for structure in ("column", "unstructured")
    ]
    other = [
        record(f"o{m}", m, 3, 50.0 + n, model__name="another-model-270m", model__fingerprint="o")
        for n, m in enumerate(("rtn", "gptq"))
    ]
    for run in other:
        run["metrics"] = {
            "perplexity/wiki": metric(
                run["metrics"]["perplexity/wiki"]["value"], protocol=WIKI.replace("stream", "window")
            )
        }
    return runs + other


def texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def test_all_texts_are_inside_whole_and_legible_in_print(tmp_path, figures):
    for slug, figure in figures(tmp_path, *rich()).items():
        assert figure.get_figwidth() == WIDTH, slug
        for text in texts(figure):
            box = text.get_window_extent()
            ticks = text.get_text() in {
                label.get_text()
                for axes in figure.axes
                for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
            }
            assert ticks or (
                box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
            ), (slug, text)
            assert text.get_fontsize() * PAGE / WIDTH >= LEGIBLE and "…" not in text.get_text(), (slug, text)


def test_labels_touch_no_other_text(tmp_path, figures):
    made = figures(tmp_path, *rich())
    for slug in (
        "perplexity-against-bits",
        "perplexity-against-time",
        "perplexity-against-memory",
        "perplexity-against-outliers",
        "pareto-front",
    ):
        made[slug].draw_without_rendering()
        boxes = [
            (text.get_text(), Text.get_window_extent(text).padded(-2))  # without what an annotation points at
            for axes in made[slug].axes
            for text in (*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label)
            if text.get_text()
        ]
        assert [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.overlaps(b)] == [], slug


def test_protocols_stand_below_once_and_whole(tmp_path, figures):
    figure = figures(tmp_path, *rich())["perplexity-against-bits"]
    notes = [text.get_text() for text in figure.texts]
    assert f"toy: {WIKI}" in notes and any(
        note.startswith("another-model-270m: ") and "window" in note for note in notes
    )
    assert not any("tokens scored" in text.get_text() for axes in figure.axes for text in axes.texts)
    alone = figures(tmp_path / "alone", *sweep())["perplexity-against-bits"]
    assert [text.get_text() for text in alone.texts] == [WIKI]


def test_broken_models_lie_in_a_band_and_on_no_front(tmp_path, figures):
    runs = [
        record("f", "float", None, 30.0),
        record("g", "gptq", 2, 8e6),
        record("r", "rtn", 2, 9e8),
        record("r3", "rtn", 3, 50.0),
    ]
    made = figures(tmp_path, *runs, record("g3", "gptq", 3, 40.0))
    axes = made["perplexity-against-bits"].axes[0]
    assert axes.get_ylim()[1] < 10 * LIMIT and max(axes.get_yticks()) <= LIMIT
    heights = {
        y
        for line in axes.lines
        for x, y in zip(*line.get_data(), strict=True)
        if x == 2.03 and line.get_marker() not in ("None", "")
    }
    assert len(heights) == 1 and LIMIT < heights.pop() < axes.get_ylim()[1]
    assert any(text.get_text() == "broken, > 10⁵" for text in axes.texts)
    for slug in ("pareto-front", "perplexity-against-time"):
        assert made[slug].axes[0].get_ylim()[1] < 100, slug
    whole = figures(tmp_path / "whole", *runs[::3])["perplexity-against-bits"].axes[0]
    assert whole.get_ylim()[1] < 100 and not any("broken" in text.get_text() for text in whole.texts)


def test_shares_of_outliers_are_points_of_one_line(tmp_path):
    runs = [
        outliers("quantease", ratio, structure, 40 - 300 * ratio)
        for ratio in (0.02, 0.01)
        for structure in ("column", "unstructured")
    ]
    runs += [
        outliers("spqr", 0.01, "unstructured", 39.0),
        record("s", "spqr", 3, 60.0),
        record("p", "quantease", 3, 70.0),
    ]
    found = {
        line.label: line
        for table in build_tables(load_records(store(tmp_path, *runs)).frame)
        for line in lines_of(table)
        if table.kind == "perplexity"
    }
    assert set(found) == {
        "quantease",
        "quantease · column outliers",
        "quantease · unstructured outliers",
        "spqr · 1 % outliers",
        "spqr",
    }
    assert [point[1] for point in found["quantease · column outliers"].points] == [37.0, 34.0], (
        "from few bits to many"
    )
    assert (
        found["quantease"].family == "rounding"
        and found["quantease · column outliers"].family == found["spqr"].family == "outliers"
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("a · 1 % outliers",), ("a · 1 % outliers",)),
        (("a · 1 % outliers", "a · 2 % outliers", "a"), ("a · outliers", "a · outliers", "a")),
        (
            ("a · 1 % outliers · unstructured", "a · 2 % outliers · unstructured"),
            ("a · outliers", "a · outliers"),
        ),
        (("spqr", "spqr · 1 % outliers", "spqr · 2 % outliers"), ("spqr", "spqr", "spqr")),
        (
            ("a · x=1 · columns", "a · x=1 · unstructured"),
            ("a · x=1 · column outliers", "a · x=1 · unstructured outliers"),
        ),
    ],
)
def test_names_of_series(labels, names):
    keys = []
    for label in labels:
        method, *words = label.split(" · ")
        fields = [RATIO if word.endswith("outliers") else "x" if "=" in word else STRUCTURE for word in words]
        keys.append(RowKey(method, tuple(zip(fields, words, strict=True))))
    assert [key.label for key in keys] == list(labels) and tuple(series_of(keys).values()) == names


def test_a_column_without_evidence_has_no_panel_of_costs_beside_one_that_has(tmp_path, figures):
    runs = [
        record(f"{m}{b}", m, b, 40.0 + n, model__source_bits=4)
        for n, m in enumerate(("rtn", "gptq", "awq"))
        for b in (4, 3)
    ]
    runs += [record("x", "rtn", 2, 2e5), record("y", "gptq", 2, 3e6)]
    assert [
        axes.get_title(loc="left") for axes in figures(tmp_path, *runs)["perplexity-against-time"].axes
    ] == ["toy · 3 bits"]
    doubtful = figures(tmp_path / "4", *runs[::2])["perplexity-against-time"]
    assert [axes.get_title(loc="left") for axes in doubtful.axes] == ["toy · 4 bits"], "better than none"


def test_memory_is_that_of_the_whole_run(tmp_path, figures):
    runs = [
        record(m, m, 3, 40.0 + n, peak_memory_bytes={"cpu": (2 + n) * 2**30, "gpu": 0})
        for n, m in enumerate(("rtn", "gptq", "awq"))
    ]

    def peaks(place):
        (axes,) = figures(tmp_path / place, *runs)["perplexity-against-memory"].axes
        assert axes.get_xlabel() == "peak memory, GiB"
        return {x for line in axes.lines if line.get_marker() not in ("None", "") for x in line.get_xdata()}

    assert peaks("whole") == {2, 3, 4}
    runs[2]["reused"] = {"blocks": 30, "evaluations": 0, "statistics": False}
    assert peaks("resumed") == {2, 3}, "an attempt that found all blocks done needed little"
    runs[0]["peak_memory_bytes"] = {"cpu": 9 * 2**30, "gpu": 2**30}
    assert peaks("gpu") == {1, 3}


def test_models_get_height_by_their_rows_and_no_label_is_cut(tmp_path, figures):
    few = [record(m, m, 3, 40.0, model__name="small", model__fingerprint="s") for m in ("rtn", "gptq")]
    many = [
        record(f"{n}", "quantease", 3, 40.0, method__solver__some_rather_long_setting=n) for n in range(12)
    ]
    one, other = figures(tmp_path, *few, *many)["seconds-by-stage"].axes
    assert (
        one.get_window_extent().height < 0.3 * other.get_window_extent().height
        and one.get_xlim() == other.get_xlim()
    )
    assert "quantease · some_rather_long_setting=11" in [
        label.get_text() for label in other.get_yticklabels()
    ]


def test_room_is_shared():
    assert (
        shared([3, 25], 40) == [3, 25] and shared([30, 3, 25], 40) == [19, 3, 18] and shared([50], 40) == [40]
    )


def test_losses_are_relative_to_the_first_epoch():
    found = relative(np.array([[4.0, 2.0, 1.0], [0.0, 1.0, 1.0], [2.0, np.nan, -1.0]]))
    assert (
        found[0].tolist() == [1.0, 0.5, 0.25]
        and np.isnan(found[1]).all()
        and found[2][0] == 1.0
        and np.isnan(found[2][1:]).all()
    )


def test_letters_that_the_font_lacks_are_escaped_and_names_stay_apart(tmp_path):
    assert drawable("é ± ᵀ ⁵") == "é ± ᵀ ⁵" and drawable("a\nb") == drawable("a\u240ab") == r"a\nb"
    assert (
        drawable("漢") == r"\u6f22" != drawable("字")
        and drawable("🦜") == r"\U0001f99c"
        and drawable("\ud800") == r"\ud800"
    )
    runs = [
        record(f"{n}", name, 3, 40.0 + n, model__name="\n漢")
        for n, name in enumerate(("a\nb", "漢字", "\u202e🦜", "rtn"))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_records(store(tmp_path, *runs))
        assert pictures(found, build_tables(found.frame), tmp_path)
        assert build_figure(build_tables(found.frame)).axes[0].get_title() == r"\n\u6f22"


def test_long_labels_stand_on_two_lines():
    assert labelled("short · label") == "short · label"
    assert labelled("quantease · column outliers · a4") == "quantease\ncolumn outliers · a4"
    assert labelled("one_word_that_is_very_long_indeed") == "one_word_that_is_very_long_indeed"
    assert wrapped("a b " * 40, 20, 2)[-1].endswith("…") and len(wrapped("a b " * 40, 20, 2)) == 2


def test_columns_of_outliers_have_panels_of_their_own_and_bits_at_the_points_where_few_lines_are(
    tmp_path, figures
):
    runs = [outliers("quantease", ratio, "column", 40 - 300 * ratio) for ratio in (0.01, 0.02)]
    runs += [
        outliers(f"m{n}", ratio, "column", 50 + n - 300 * ratio) for n in range(5) for ratio in (0.01, 0.02)
    ]
    for run in runs[2:]:
        run["scheme"]["bits"] = 2
    one, other = figures(tmp_path, *runs)["perplexity-against-outliers"].axes
    assert [axes.get_title(loc="left") for axes in (one, other)] == ["toy · 3 bits", "toy · 2 bits"]
    assert {text.get_text() for text in one.texts} == {"quantease", "3.23", "3.43"}
    assert {text.get_text() for text in other.texts} == {f"m{n}" for n in range(5)}
