"""The files of a report: hostile and broken records, identical bytes, figures, the terminal, the command."""

import io
import json
import os
import random
import re
import subprocess
import sys
import time
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from harness.cli import main as command
from harness.foundation.errors import UserError
from harness.foundation.text import visible
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.drawing.label_placing import spread, within
from harness.reporting.drawing.method_styles import ink
from harness.reporting.figures.bits import build_figure, lines_of
from harness.reporting.figures.pictures import pictures
from harness.reporting.formats.markdown import escape, pipe_table
from harness.reporting.formats.terminal import print_tables
from harness.reporting.frames import load_records
from harness.reporting.keys import ColumnKey, RowKey
from harness.reporting.tables.all_numbers import build_tables
from harness.reporting.writing import print_report, write_report
from tests.helpers.invented_records import ended, headings_of, markdown_tokens, parse, record, store

ALONE = pytest.mark.usefixtures("numbers_alone")


@ALONE
def test_unusable_records_are_listed_and_never_fatal(tmp_path):
    results = store(tmp_path / "results", record("good", "rtn", 3, 60.0), record("old", schema=0), record("odd", status="perhaps"),  # noqa: E501
                    record("bare", metrics={"perplexity/wiki": {"value": 3.0}}))  # fmt: skip
    (results / "runs" / "running").mkdir()
    for name, content in (
        ("half", b'{"schema": 1, "run'),
        ("list", b"[]"),
        ("binary", b"\xff\xfe\x00"),
        ("deep", b"[" * 100_000),
    ):
        (results / "runs" / name).mkdir()
        (results / "runs" / name / "record.json").write_bytes(content)
    text = write_report(results, tmp_path / "reports", formats=("md",)).read_text(encoding="utf-8")
    assert parse(text)[0].rows["rtn"] == ["60.00"]
    left_out = text.split("## Left out")[1]
    assert all(
        f"runs/{place}" in left_out
        for place in ("old", "odd", "bare", "running", "half", "list", "binary", "deep")
    )
    assert "runs/good" not in left_out
    assert "unknown schema 0" in left_out and "has no protocol" in left_out and "not valid JSON" in left_out


NASTY = ["a|b", "x\ny\r\n\n# z", "<script>alert(1)</script>", "![i](http://e/x.png)", "[l](javascript:alert(1))", "**b** _i_ ~~s~~ `c`",  # noqa: E501
         "&lt;b&gt; &copy;", "\\|\\", "__init__ a_b_c", "$x$ $$y$$", "\x1b[31mred\x07", "[red]markup[/red]", "\u202ertl\u2028sep\u0085nel",  # noqa: E501
         "\ud800 lone", "1. list", "- - -", "| - | - |", "<!-- ", "é漢字🦜", "´ ` ´ ``` ´", " ", "=cmd()", "{{7*7}}", "#"]  # fmt: skip  # noqa: E501


def called(results: Path, name: str) -> Path:
    """Runs whose every name is `name`."""
    runs = [record("a", "float", None, 30.0), record("b", name, 3, 60.0), record("c", name, 3, 61.0, method__solver={"kind": name}),  # noqa: E501
            ended("d", "failed", name, "rtn", 3), record("e", "gptq", 3, 50.0, fallbacks=[name], versions={name: name})]  # fmt: skip  # noqa: E501
    for entry in runs:
        entry["model"]["name"] = entry["eval"]["name"] = name
        if "metrics" in entry:
            entry["metrics"] = {
                f"perplexity/{name}": {**entry["metrics"]["perplexity/wiki"], "protocol": name}
            }
    return store(results, *runs)


def inline_kinds(markdown: str) -> list[str]:
    """The kinds of everything inside lines; nothing between them is HTML."""
    tokens = markdown_tokens(markdown)
    assert "html_block" not in {token.type for token in tokens}
    kinds = [child.type for token in tokens for child in token.children or []]
    assert not {"html_inline", "link_open", "code_inline", "s_open"} & set(kinds)
    return kinds


@ALONE
@pytest.mark.parametrize("name", NASTY)
def test_hostile_names_stay_text(tmp_path, name):
    results, readable = called(tmp_path / "results", name), visible(name.encode("utf-8", "replace").decode())
    text = write_report(results, tmp_path / "reports", formats=("md",)).read_text(encoding="utf-8")
    tables = parse(text)
    assert len(tables) == 3 and all(
        len(cells) == len(table.head) - 1 for table in tables for cells in table.rows.values()
    )
    assert len(tables[0].rows) == 6 and f"¹ failed: {readable}".strip() in tables[0].notes
    assert tables[0].title == f"Perplexity on {readable}".strip()
    assert inline_kinds(text).count("image") == 0
    output = io.StringIO()
    print_tables(
        build_tables(load_records(results).frame), Console(file=output, force_terminal=True, width=100)
    )
    assert "\x1b[31mred" not in output.getvalue() and "\x07" not in output.getvalue()


@pytest.mark.parametrize("name", ["".join(NASTY), pytest.param("x\ny\r\n\n# z", marks=pytest.mark.slow)])
def test_hostile_names_change_no_chapter_of_a_whole_report(tmp_path, name):
    texts = [
        write_report(called(tmp_path / place, word), tmp_path / place, formats=("md",)).read_text(
            encoding="utf-8"
        )
        for place, word in (("tame", "tame"), ("hostile", name))
    ]
    chapters, kinds = [headings_of(text, 2) for text in texts], [inline_kinds(text) for text in texts]
    assert chapters[0] == chapters[1] and "Figures" in chapters[0]
    assert (
        kinds[0].count("image")
        == kinds[1].count("image")
        == len(list((tmp_path / "hostile/report/figures").iterdir()))
        > 0
    )


def test_any_text_survives_a_cell():
    generator = random.Random(0)
    alphabet = "ab _*`~|\\<>&[]()!#$-=+.:\n\r\t\"'{}/@^\u2028\u202e\x00\x7fé漢" + "".join(NASTY)
    texts = ["".join(generator.choices(alphabet, k=generator.randint(1, 12))) for _ in range(3000)]
    lines = pipe_table(["a", "b"], [[escape(f"x{text}"), escape(f"{text}x")] for text in texts])
    cells = [token for token in markdown_tokens("\n".join(lines)) if token.type == "inline"][2:]
    found = ["".join(child.content for child in cell.children) for cell in cells]
    assert found == [visible(cell).strip(" ") for text in texts for cell in (f"x{text}", f"{text}x")]


def constellation() -> list[dict]:
    runs = [record("f0", "float", None, 30.0)]
    for method in ("rtn", "gptq", "quantease", "someday"):
        for bits in (4, 3, 2):
            for seed in (0, 1):
                value = 30 + 400 / bits**2 / len(method) + seed
                changes = {"seed": seed, "versions__torch": f"2.{seed}", "model__source_bits": 4}
                runs.append(record(f"{method}{bits}{seed}", method, bits, value, **changes))
    lost = [ended("x1", "failed", "a reason", "rtn", 8), ended("x2", "oom", "another", "gptq", 8)]
    return [*runs, *lost, record("x3", "gptq", 3, 44.0, seed=0)]


REPORT = """
import json, sys
from harness.cli import main
code = main(["report", "name=fine-name"])
print(json.dumps([code, sorted({"torch", "transformers", "hydra", "lm_eval"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> list[tuple[list, dict[str, bytes]]]:
    """[exit code, heavy modules that were loaded] and files of one report, made by two users who have little
    in common.
    """
    made = []
    for run, (language, zone) in enumerate([("C", "UTC"), ("de_DE.UTF-8", "Asia/Kolkata")]):
        place, runs = tmp_path_factory.mktemp(f"user{run}"), constellation()
        (place / "matplotlibrc").write_text(
            "font.size: 30\naxes.facecolor: red\nlines.linewidth: 9\nsvg.fonttype: none\n"
        )
        random.Random(run).shuffle(runs)
        # the order of the directories, and of the keys inside, is another one each time
        for number, entry in enumerate(runs):
            shuffled = dict(random.Random(run).sample(list(entry.items()), len(entry)))
            store(place / "results", shuffled, prefix=f"{number:03d}-")
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {
            "LANG": language,
            "LC_ALL": language,
            "TZ": zone,
            "PYTHONHASHSEED": str(run),
            "PYTHONPATH": paths,
        }
        environment |= {"MATPLOTLIBRC": str(place), "SOURCE_DATE_EPOCH": "1000000000"} if run == 1 else {}
        done = subprocess.run(
            [sys.executable, "-c", REPORT],
            env=environment,
            cwd=place,
            check=True,
            capture_output=True,
            text=True,
        )
        report = place / "reports" / "fine-name"
        files = {
            path.relative_to(report).as_posix(): path.read_bytes()
            for path in report.rglob("*")
            if path.is_file()
        }
        made.append((json.loads(done.stdout.splitlines()[-1]), files))
    return made


def test_the_same_records_give_the_same_bytes(twice):
    """Whatever the language, the time zone, the date, the hashes, the user's matplotlibrc and the order of
    directories and keys.
    """
    (_, ours), (_, theirs) = twice
    ours, theirs = (dict(files) for files in (ours, theirs))
    for files in (ours, theirs):  # links name the directory of a run, which is another one here
        files["report.html"] = re.sub(rb"runs/\d{3}-", b"runs/", files["report.html"])
    assert (
        ours.keys() == theirs.keys()
        and {"report.md", "report.html", "tables.tex", "tables.csv"} < ours.keys()
    )
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_report_never_imports_torch(twice):
    assert [said for said, _ in twice] == [[0, []]] * 2


def test_the_figure_is_a_picture_and_the_report_shows_it(twice):
    files = twice[0][1]
    picture = matplotlib.image.imread(io.BytesIO(files["figures/perplexity-against-bits.png"]))
    assert picture.shape[0] > 600 and picture.shape[1] > 1000 and len(np.unique(picture[..., 0])) > 50
    assert b"](figures/perplexity-against-bits.png)" in files["report.md"]


def figure_of(results: Path, *records: dict):
    return build_figure(build_tables(load_records(store(results, *records)).frame))


def test_rows_with_and_without_quantized_activations_are_not_joined():
    cells = [
        Cell("1", value=value, bits=bits) for value, bits in ((1.0, 4.0), (2.0, 4.0), (3.0, 3.0), (4.0, 3.0))
    ]
    table = Table(
        "perplexity",
        "t",
        "m",
        "",
        ("method", "4", "4 a4", "3", "3 a4"),
        (Row("rtn · x=1", "rtn", tuple(cells), key=RowKey("rtn", (("x", "x=1"),))),),
        columns=(ColumnKey(4), ColumnKey(4, act=4), ColumnKey(3), ColumnKey(3, act=4)),
    )
    found = {line.label: [point[1] for point in line.points] for line in lines_of(table)}
    assert found == {"rtn · x=1": [3.0, 1.0], "rtn · x=1 · a4": [4.0, 2.0]}


def test_labels_do_not_overlap_and_stay_inside(tmp_path):
    methods = [f"method{number}" for number in range(14)]
    crowd = [
        record(f"{m}{b}", m, b, 30 + (60 + place) / b**2)
        for place, m in enumerate(methods)
        for b in (4, 3, 2)
    ]
    axes = figure_of(tmp_path, record("f", "float", None, 30.0), *crowd).axes[0]
    labels = [artist for artist in axes.texts if artist.get_text().startswith(("method", "float"))]
    axes.figure.draw_without_rendering()  # puts every annotation where it belongs
    # without hair lines
    boxes, frame = [Text.get_window_extent(label).padded(-1) for label in labels], axes.figure.bbox
    assert len(boxes) == 15 and not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(
        frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        for box in boxes
    )


def test_labels_are_spread_in_order_and_no_farther_than_needed():
    assert spread([0.0, 10.0, 20.0], [5.0, 5.0]) == [0.0, 10.0, 20.0]
    assert spread([10.0, 10.0, 10.0], [4.0, 4.0]) == [6.0, 10.0, 14.0]
    assert within([-3.0, 2.0, 9.0], [4.0, 6.0], 1.0, 12.0) == [1.0, 5.0, 11.0], (
        "pushed up from below the lowest"
    )
    assert within([1.0, 5.0, 20.0], [4.0, 6.0], 1.0, 12.0) == [1.0, 5.0, 12.0]
    generator = random.Random(0)
    for _ in range(50):
        targets = sorted(generator.uniform(0, 100) for _ in range(12))
        distances = [generator.uniform(3, 9) for _ in range(11)]
        found = spread(targets, distances)
        assert all(
            b - a > distance - 1e-3 for (a, b), distance in zip(pairwise(found), distances, strict=True)
        )
        assert sum(found) == pytest.approx(sum(targets)), (
            "least squares moves a touching group about its mean"
        )


def test_a_method_keeps_its_colour_and_marker_in_any_company(tmp_path):
    def looks(results, methods):
        axes = figure_of(results, *(record(m, m, 3, 40.0 + place) for place, m in enumerate(methods))).axes[0]
        markers = {
            ink(line.get_color()): line.get_marker()
            for line in axes.lines
            if line.get_marker() not in (None, "None")
        }
        return {label.get_text(): (label.get_color(), markers[label.get_color()]) for label in axes.texts}

    alone, together = (
        looks(tmp_path / "1", ["gptq", "someday"]),
        looks(tmp_path / "2", ["awq", "gptq", "aaa", "someday"]),
    )
    assert together["gptq"] == alone["gptq"] and len(set(together.values())) == 4
    assert (
        figure_of(tmp_path / "3", record("z", "someday", 3, 1.0)).axes[0].texts[0].get_color()
        == alone["someday"][0]
    )


SCALES = [((31.0, 60.0), "linear"), ((31.0, 4000.0), "log"), ((0.0, 0.0), "linear"), ((-1.0, 9.0), "linear")]


@pytest.mark.parametrize(("values", "scale"), SCALES)
def test_the_scale_follows_the_range(tmp_path, values, scale):
    axes = figure_of(
        tmp_path, *(record(f"{b}", "rtn", b, value) for b, value in zip((3, 2), values, strict=True))
    ).axes[0]
    assert axes.get_yscale() == scale


def test_without_perplexities_there_is_no_figure_of_them(tmp_path):
    found = load_records(store(tmp_path, record("a"), record("b", "gptq", 3, "inf")))
    slugs = {picture.slug for picture in pictures(found, build_tables(found.frame), tmp_path)}
    assert slugs and not any(slug.startswith(("perplexity", "pareto")) for slug in slugs)


def hundreds(results: Path) -> Path:
    shapes = [
        (m, b, g, s)
        for m in ("rtn", "gptq", "quantease", "new")
        for b in (2, 3, 4, 8)
        for g in (None, 64, 32)
        for s in range(8)
    ]
    return store(
        results,
        *(
            record(f"{k}", m, b, 40.0 + k, scheme__group_size=g, seed=s)
            for k, (m, b, g, s) in enumerate(shapes)
        ),
    )


def seconds_of(results: Path, reports: Path, **options) -> float:
    start = time.process_time()
    write_report(results, reports, **options)
    return time.process_time() - start


@ALONE
def test_the_tables_of_hundreds_of_records_are_quick(tmp_path):
    assert seconds_of(hundreds(tmp_path / "results"), tmp_path, formats=("md",)) < 10


@pytest.mark.slow
def test_hundreds_of_records_are_quick(tmp_path):
    assert seconds_of(hundreds(tmp_path / "results"), tmp_path) < 20


def test_print_report_shows_the_tables(tmp_path, capsys):
    print_report(store(tmp_path, record("a", "float", None, 30.0), record("b", "rtn", 3, 60.0)))
    shown = capsys.readouterr().out
    assert "Perplexity on wiki · toy" in shown and "**60.00** (+30.00)" in shown


def test_a_narrow_terminal_gets_the_numbers_alone(tmp_path):
    frame = load_records(store(tmp_path, *constellation())).frame
    output = io.StringIO()
    print_tables(build_tables(frame), Console(file=output, force_terminal=True, width=70, color_system=None))
    assert "…" not in output.getvalue() and "(n=2)" not in output.getvalue() and "41.61" in output.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["path.results=x"], "unknown option 'path.results': did you mean --results?"),
        (["zzz"], "unknown option 'zzz': known: --results, --reports"),
        (["name="], "name: give it a value"),
    ],
)
def test_wrong_commands_are_one_line_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(store(tmp_path, prefix=""))
    store(tmp_path / "results", record("a", "rtn", 3, 60.0))
    assert command(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "reports").exists()


@ALONE
def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths\.reports"):
        write_report(store(tmp_path / "results", record("a", "rtn", 3, 60.0)), tmp_path / "file")


def test_help(capsys):
    assert command(["report", "--help"]) == 0 and "--results DIR" in capsys.readouterr().out
