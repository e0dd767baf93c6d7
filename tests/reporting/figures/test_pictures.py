"""The pictures of a report: what they show, in which look, that they are the same every time and never fail
on odd records.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as XML
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from harness.records.naming import METHODS
from harness.reporting.drawing.canvas import PANELS, panels
from harness.reporting.drawing.marks import draw_front, front, shown
from harness.reporting.drawing.method_styles import METHODS as LOOKS
from harness.reporting.drawing.method_styles import colour_and_marker, ink
from harness.reporting.drawing.scales import tick
from harness.reporting.figures.bits import Line, build_figure, lines_of
from harness.reporting.figures.outliers import outlier_lines
from harness.reporting.figures.pictures import pictures
from harness.reporting.figures.points import by_run
from harness.reporting.frames import Records, load_records
from harness.reporting.keys import RATIO, ColumnKey, RowKey
from harness.reporting.tables.all_numbers import build_tables
from tests.helpers.invented_records import record, store


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures with their texts alone: drawing all of them takes seconds."""
    for name in ("png_of", "svg_of"):
        monkeypatch.setattr(f"harness.reporting.drawing.canvas.{name}", lambda figure: b"")


def drawn(results: Path, *records: dict) -> dict[str, object]:
    found = load_records(store(results, *records))
    return {picture.slug: picture for picture in pictures(found, build_tables(found.frame), results)}


def sweep(bits=(4, 3, 2), methods=("rtn", "gptq", "quantease", "spqr"), **changes) -> list[dict]:
    floats = [record("float", "float", None, 30.0)]
    return floats + [
        record(f"{m}{b}", m, b, 30 + (60 + 9 * n) / b**2, **changes)
        for n, m in enumerate(methods)
        for b in bits
    ]


def test_no_point_of_a_front_is_beaten_and_every_other_one_is():
    generator = np.random.default_rng(0)
    points = [tuple(point) for point in generator.integers(0, 12, (60, 2)).tolist()]
    best = front(points)
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert set(best) == set(points) - beaten and best == sorted(best)
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(best))
    assert front([]) == []


def test_the_stair_of_a_front_passes_below_nothing_that_is_better():
    _, (axes,) = panels(1, 1, 3.0)
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    draw_front(axes, [(2, 6), (5, 3)])
    assert list(zip(*axes.lines[0].get_data(), strict=True)) == [(2, 10), (2, 6), (5, 6), (5, 3), (10, 3)]


def test_two_methods_differ_without_their_colours():
    assert set(METHODS) <= set(LOOKS)
    looks = {name: marker for name, (_, marker) in LOOKS.items() if name != "float"}
    assert all(looks[a] != looks[b] for a, b in combinations(looks, 2))
    grey = {
        name: matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(colour))[2]
        for name, (colour, _) in LOOKS.items()
    }
    assert max(grey.values()) - min(grey.values()) > 0.5
    inks = {name: ink(colour) for name, (colour, _) in LOOKS.items()}
    letters = {name: matplotlib.colors.to_rgb(colour) for name, colour in inks.items()}
    assert all(0.299 * r + 0.587 * g + 0.114 * b < 0.49 for r, g, b in letters.values()), (
        "dark enough to be read on white"
    )
    assert inks["gptq"] == LOOKS["gptq"][0].lower()


def test_a_pair_looks_like_both_halves_and_like_nothing_else():
    assert colour_and_marker("awq+gptq") == (LOOKS["awq"][0], LOOKS["gptq"][1])
    looks = [
        tuple(shown(name)[key] for key in ("marker", "fillstyle")) for name in ("awq", "gptq", "awq+gptq")
    ]
    assert len(set(looks)) == 3
    assert shown("gptq", hollow=True)["fillstyle"] == "none"
    assert colour_and_marker("mine+gptq")[0] not in ("", None), "a name of the user's own with a plus"


def test_many_lines_are_split_into_families_with_the_others_behind(tmp_path):
    methods = (
        "rtn",
        "gptq",
        "quantease",
        "quantease_gptq",
        "spqr",
        "gptvq",
        "vptq",
        "vptq_tuned",
        "awq",
        "omniquant",
        "affinequant",
    )
    found = load_records(store(tmp_path, *sweep(methods=methods)))
    figure = build_figure(build_tables(found.frame))
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert [title.rpartition(" · ")[2] for title in titles] == [
        "rounding",
        "outliers",
        "codebooks",
        "transforms",
    ]
    labels = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    assert (
        {"rtn", "gptq", "quantease", "quantease_gptq"} <= labels[0]
        and "awq" not in labels[0]
        and "awq" in labels[3]
    )
    behind = [
        sum(np.isfinite(line.get_xdata()).sum() for line in axes.lines if line.get_marker() == ".")
        for axes in figure.axes
    ]
    assert behind == [21, 30, 24, 24], "every point of the other families is there, in grey"
    few = load_records(store(tmp_path / "few", *sweep(methods=methods[:5])))
    assert len(build_figure(build_tables(few.frame)).axes) == 1


@pytest.mark.parametrize(
    ("row", "family"),
    [
        (RowKey("awq+gptq"), "transforms"),
        (RowKey("quantease", ((RATIO, "1 % outliers"),)), "outliers"),
        (RowKey("spqr"), "outliers"),
        (RowKey("vptq_tuned"), "codebooks"),
        (RowKey("someday"), "rounding"),
    ],
)
def test_families(row, family):
    assert Line(row.label, row, ()).family == family


def test_the_front_leaves_out_what_is_no_evidence(tmp_path, undrawn):
    runs = sweep(methods=("rtn", "gptq"), bits=(4, 3))
    runs += [
        record("a", "awq", 3, 31.0, scheme__act_bits=4),
        record("d", "quantease", 4, 20.0, model__source_bits=4),
    ]
    for entry in runs:
        entry["model"]["source_bits"] = 4
    alt = drawn(tmp_path, *runs)["pareto-front"].alt
    assert "rtn with 3.03 bits" in alt and "awq" not in alt and "quantease" not in alt and "4.03" not in alt


def test_costs_are_of_the_method_alone_and_means_over_seeds(tmp_path, undrawn):
    seconds = {
        "load": 1.0,
        "calibrate": 500.0,
        "quantize": 2.0,
        "transform": 5.0,
        "evaluate": 4.0,
        "total": 512.0,
    }
    runs = [record("a", "awq", 3, 40.0, seconds=seconds), record("b", "rtn", 3, 60.0, seconds={"quantize": 1.0}),  # noqa: E501
            record("c", "awq", 3, 42.0, seconds=seconds | {"quantize": 4.0}, seed=1)]  # fmt: skip
    found = drawn(tmp_path, *runs)["perplexity-against-time"]
    assert "rtn 60 at 1 s, awq 41 at 8 s" in found.alt and "calibration are not in it" in found.caption
    frame = load_records(tmp_path).frame
    assert (
        by_run(frame, "seconds.quantize", "seconds.transform") == {"a": 7.0, "b": 1.0, "c": 9.0}
        and by_run(frame, "nothing") == {}
    )


def test_a_line_of_outliers_joins_ratios_of_one_setting_and_starts_at_the_plain_run(tmp_path, undrawn):
    runs = [record("p", "quantease", 3, 60.0, scheme__outlier_ratio=0.0, outlier_share=0.0)]
    for structure in ("unstructured", "column"):
        for ratio in (0.01, 0.02):
            key, value = f"{structure}{ratio}", 50 - 1000 * ratio + 3 * (structure == "column")
            runs.append(
                record(key, "quantease", 3, value, outlier_share=ratio, bits_per_weight=3 + 20 * ratio)
            )
            runs[-1]["scheme"] |= {"outlier_ratio": ratio, "outlier_structure": structure}
    runs.append(record("alone", "gptq", 3, 70.0, outlier_share=0.0))
    found = load_records(store(tmp_path, *runs))
    table = next(table for table in build_tables(found.frame) if table.kind == "perplexity")
    made = outlier_lines(table, by_run(found.frame, "outlier_share"))
    lines = {
        label: [(share, point.value) for share, point in spots] for label, spots in made[ColumnKey(3)].items()
    }
    assert sorted(lines.values(), key=lambda line: line[1][1]) == [
        [(0.0, 60.0), (1.0, 40.0), (2.0, 30.0)],
        [(0.0, 60.0), (1.0, 43.0), (2.0, 33.0)],
    ]
    assert set(lines) == {"quantease · column outliers", "quantease · unstructured outliers"} and set(
        made
    ) == {ColumnKey(3)}
    assert "perplexity-against-outliers" in {p.slug for p in pictures(found, [table], tmp_path)}
    assert "perplexity-against-outliers" not in drawn(tmp_path / "none", *sweep())


def test_seconds_by_stage_are_medians_over_the_runs_of_a_row(tmp_path, undrawn):
    runs = [
        record(f"{b}", "gptq", b, 40.0, seconds={"quantize": second, "evaluate": 3.0})
        for b, second in ((4, 1.0), (3, 7.0), (2, 50.0))
    ]
    assert "gptq 7" in drawn(tmp_path, *runs)["seconds-by-stage"].alt


HOSTILE = [
    "_a|b\n\x1b[31m $\\frac{1}{0}$ $x --> <script>&amp; ]]>",
    "\ud800 é漢字🦜\u202e %s{0} " + "x" * 500,
    "",
]


@pytest.mark.parametrize(
    "name", ["".join(HOSTILE), *(pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE)]
)
def test_hostile_names_give_whole_pictures(tmp_path, name):
    runs = [record("f", "float", None, 30.0)] + [
        record(f"{m}{b}", m, b, 30.0 + 9 / b) for m in (name, "rtn", "gptq") for b in (3, 2)
    ]
    for place, entry in enumerate(runs):
        entry["run_key"] = f"{place}"
        entry["model"]["name"] = entry["eval"]["name"] = name
        entry["metrics"] = {f"perplexity/{name}": {**entry["metrics"]["perplexity/wiki"], "protocol": name}}
    found = drawn(tmp_path, *runs)
    assert {"perplexity-against-bits", "pareto-front", "perplexity-against-time", "seconds-by-stage"} <= set(
        found
    )
    for picture in found.values():
        assert XML.fromstring(picture.svg).tag.endswith("svg") and picture.png.startswith(b"\x89PNG")
        assert picture.slug.isascii() and not set(picture.slug) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert b"<text" not in picture.svg, "texts are paths"
        (picture.caption + picture.alt + picture.title).encode("utf-8")


def test_fields_that_are_missing_cost_no_more_than_their_picture(tmp_path):
    broken = ({"seconds": None}, {"peak_memory_bytes": None}, {"bits_per_weight": None}, {"outlier_share": "nan"}, {"layer_error": None},  # noqa: E501
              {"seconds": {"quantize": -1.0, "evaluate": "inf"}}, {"seconds": {"evaluate": 3.0}})  # fmt: skip
    runs = [entry | broken[place % len(broken)] for place, entry in enumerate(sweep())]
    assert {"perplexity-against-bits", "seconds-by-stage"} <= set(drawn(tmp_path, *runs))


def test_without_numbers_there_is_nothing(tmp_path):
    nothing = load_records(tmp_path)
    assert pictures(nothing, [], tmp_path) == [] and isinstance(nothing, Records)
    assert drawn(tmp_path / "float", record("f", "float", None, 30.0)) == {}


@pytest.mark.slow  # the bytes of a whole report are compared in tests/reporting/test_writing.py
def test_the_pictures_are_the_same_in_any_place_at_any_time(tmp_path):
    runs = sweep()
    code = (
        "import sys, hashlib; from harness.reporting.frames import load_records; from harness.reporting.tables.all_numbers import build_tables;"  # noqa: E501
        "from harness.reporting.figures.pictures import pictures; found = load_records(sys.argv[1]);"
        "made = pictures(found, build_tables(found.frame), sys.argv[1]);"
        "print([(p.slug, p.caption, p.alt, hashlib.sha256(p.png + p.svg).hexdigest()) for p in made]);"
        "assert not {'torch', 'transformers', 'hydra', 'lm_eval'} & set(sys.modules)"
    )
    said = []
    for run, (zone, order) in enumerate((("UTC", runs), ("Asia/Kathmandu", runs[::-1]))):
        results = store(tmp_path / str(run), *order)
        (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.fonttype: none\n")
        root = str(Path(__file__).parents[3])
        environment = os.environ | {
            "TZ": zone,
            "PYTHONHASHSEED": str(run),
            "SOURCE_DATE_EPOCH": str(10**9 * run),
            "PYTHONPATH": root,
        }
        environment |= {"MATPLOTLIBRC": str(tmp_path)} if run else {}
        done = subprocess.run(
            [sys.executable, "-c", code, str(results)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        said.append(done.stdout)
    assert said[0] == said[1] and "perplexity-against-bits" in said[0]


def test_a_figure_has_no_more_panels_than_a_page(tmp_path, undrawn):
    runs = [
        record(f"{n}{m}", m, 3, 40.0 + n, model__name=f"m{n:02d}", model__fingerprint=f"{n}")
        for n in range(14)
        for m in ("rtn", "gptq")
    ]
    found = load_records(store(tmp_path, *runs))
    tables = build_tables(found.frame)
    assert len(build_figure(tables).axes) == PANELS
    made = {picture.slug: picture for picture in pictures(found, tables, tmp_path)}
    assert all(
        "Shown are" in made[name].caption
        for name in ("perplexity-against-bits", "pareto-front", "perplexity-against-time")
    )
    assert len(lines_of(tables[0])) == 2


def test_words():
    columns = (ColumnKey(3), ColumnKey(2, 64), ColumnKey(4, act=4, kv=8), ColumnKey(None))
    assert [column.in_words() for column in columns] == [
        "3 bits",
        "2 bits, g64",
        "4 bits, a4 kv8",
        "own format",
    ]
    assert [tick(value) for value in (0.05, 20, 1500, 1e6, 2e-5)] == ["0.05", "20", "1,500", "10⁶", "2e-05"]
