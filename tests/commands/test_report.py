"""`ptq-bench report`: what it writes, what may be asked of it, and what it says to nonsense."""

import csv
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import harness.cli
from harness.cli import main as command
from harness.reporting.assembly import run_entries
from harness.reporting.frames import load_records
from tests.helpers.invented_records import ended, record, store

WIKITEXT2 = "wikitext2/test, 16 windows of 512 tokens, disjoint, bos=stream, float32, 8176 tokens scored, text 5bb09df7"  # noqa: E501
SIGNATURES = {
    "report.md": b"# Report: ",
    "report.html": b"<!DOCTYPE html>",
    "report.pdf": b"%PDF-",
    "tables.tex": b"%",
    "tables.csv": b"number,table,",
}


def small(results: Path) -> Path:
    """A float model and three methods at 3 bits, with the losses behind their perplexities, and a run without
    numbers.
    """
    values = {"float": 30.0, "rtn": 90.0, "gptq": 50.0, "quantease": 45.0}
    runs = []
    for method, value in values.items():
        metrics = {"perplexity/wikitext2": {"value": value, "stderr": 1.0, "protocol": WIKITEXT2, "n": 8176}}
        runs.append(record(f"key-{method}", method, None if method == "float" else 3, metrics=metrics))
    store(results, *runs, ended("key-awq", "failed", "out of | memory", "awq", 3))
    for method, value in values.items():
        losses = [value**0.5 + 0.01 * window for window in range(16)]
        (results / "runs" / f"key-{method}" / "items.json").write_text(
            json.dumps({"perplexity/wikitext2": losses})
        )
    (results / "runs" / "still-running").mkdir()
    return results


@pytest.fixture
def place(tmp_path, monkeypatch):
    small(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_in_every_format(place, capsys):
    pytest.importorskip("typst")
    assert command(["report", "name=mine"]) == 0
    written = place / "reports" / "mine"
    assert sorted(path.name for path in written.iterdir()) == sorted([*SIGNATURES, "figures"])
    assert all((written / name).read_bytes().startswith(start) for name, start in SIGNATURES.items())
    markdown = (written / "report.md").read_text()
    pictures = {
        line.partition("](")[2].rstrip(")") for line in markdown.splitlines() if line.startswith("![")
    }
    assert pictures and pictures == {f"figures/{path.name}" for path in (written / "figures").iterdir()}
    printed = capsys.readouterr().out
    assert "quantease" in printed and printed.splitlines()[-1] == "reports/mine"
    assert "still-running" in markdown.partition("Left out")[2]


def test_claims_come_before_tables_and_tables_before_all_numbers(place):
    assert command(["report", "format=md"]) == 0
    chapters = [
        line[3:]
        for line in (place / "reports/report/report.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    wanted = [
        "In short",
        "What holds of the papers' claims",
        "The papers' tables",
        "Figures",
        "All numbers",
        "What was run",
        "Left out",
    ]
    assert [chapter for chapter in chapters if chapter in wanted] == wanted


def test_one_table_of_a_paper(place, capsys):
    assert command(["report", "table=quantease-main", "format=csv,md"]) == 0
    written = place / "reports" / "quantease-main"
    assert sorted(path.name for path in written.iterdir()) == ["report.md", "tables.csv"]
    rows = list(csv.DictReader(io.StringIO((written / "tables.csv").read_text())))
    assert {row["kind"] for row in rows} == {"paper", "published"}
    assert "45.00" in capsys.readouterr().out


def test_a_table_of_ones_own_is_one_more_file(place, capsys):
    Path("mine.yaml").write_text(
        "title: My favourites\n"
        "rows: [{methods: [float, gptq]}]\n"
        "columns: [{head: 3 bits, where: {scheme.bits: 3}, values: [perplexity/wikitext2]}]\n"
    )
    assert command(["report", "table=mine.yaml", "format=md"]) == 0
    text = (place / "reports/mine/report.md").read_text()
    assert "My favourites" in text and "50.00" in text and "90.00" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table=quantease-mian"], ["quantease-mian", "did you mean quantease-main?"]),
        (["table=nowhere.yaml"], ["nowhere.yaml"]),
        (["format=docx"], ["docx", "md, html, pdf, tex, csv"]),
        (["formt=md"], ["formt", "did you mean --format?"]),
        (["name=../up"], ["name='../up'"]),
        (["table="], ["table", "give it a value"]),
        (["table= ,"], ["--table  ,", "e.g. --table quantease-main"]),
        (["format=,"], ["--format ,", "e.g. --format md"]),
        (["paths.results=elsewhere"], ["no records below elsewhere/runs"]),
    ],
)
def test_nonsense_gets_one_line(place, capsys, arguments, words):
    assert command(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and all(word in error for word in words)
    assert not (place / "reports").exists()


def test_help_names_the_tables(capsys):
    assert command(["report", "--help"]) == 0
    assert "quantease-main" in capsys.readouterr().out


def test_without_typst_there_is_no_pdf_and_one_line_says_so(place, monkeypatch, capsys):
    monkeypatch.setattr(harness.commands.report, "_can_typeset", lambda: False)
    assert command(["report", "table=quantease-main"]) == 0
    assert not (place / "reports/quantease-main/report.pdf").exists()
    assert capsys.readouterr().err.splitlines() == [
        "ptq-bench: no PDF: pip install 'ptq-bench[pdf]' for that"
    ]


def test_a_half_written_report_never_replaces_a_whole_one(place, monkeypatch):
    assert command(["report", "table=quantease-main", "format=csv"]) == 0
    before = (place / "reports/quantease-main/tables.csv").read_bytes()
    monkeypatch.setattr("harness.reporting.formats.csv_tables.render", lambda document: {"tables.csv": None})
    assert command(["report", "table=quantease-main", "format=csv"]) != 0
    assert (place / "reports/quantease-main/tables.csv").read_bytes() == before


def test_runs_lead_to_their_records(place):
    entries = run_entries(load_records("results"), Path("results"), Path("reports/deep/er"))
    assert len(entries) == 5
    for entry in entries:
        target = Path("reports/deep/er") / unquote(entry.href)
        assert json.loads(Path(os.path.normpath(target)).read_text())["run_key"] == entry.run_key


@pytest.mark.slow
def test_a_run_is_called_as_its_column_and_commands_say_where_they_write(place):
    store(
        place / "results",
        record(
            "key-coarse",
            "rtn",
            2,
            5000.0,
            scheme__group_size=64,
            scheme__act_bits=4,
            fallbacks=["layer 1: damped"],
        ),
    )
    assert command(["report", "format=md"]) == 0
    text = (place / "reports/report/report.md").read_text()
    assert "- toy · rtn · 2 bits g64 a4: layer 1: damped" in text
    chapter = text.partition("## The papers' tables\n")[2].partition("\n#")[0]
    assert "paths.results=DIR" in chapter


def test_the_same_bytes_over_runs_locales_time_zones_and_orders(place):
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split() or ["C"]
    chosen = ("C", next((name for name in locales if name.lower().endswith(("utf8", "utf-8"))), "C.UTF-8"))
    seen = set()
    for number, (locale, zone, _) in enumerate(
        itertools.product(chosen, ("Pacific/Kiritimati", "America/St_Johns"), range(3))
    ):
        runs = sorted(Path("results/runs").iterdir())
        random.Random(number).shuffle(runs)
        results = Path(f"shuffled/{number}/results")
        for run in runs:
            shutil.copytree(run, results / "runs" / run.name)
        environment = os.environ | {"LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": str(number)}
        arguments = [
            sys.executable,
            "-m",
            "harness.cli",
            "report",
            "paths.results=results",
            "paths.reports=reports",
        ]
        root = {"PYTHONPATH": str(Path(harness.cli.__file__).parents[1])}
        subprocess.run(arguments, cwd=results.parent, env=environment | root, check=True, capture_output=True)
        files = sorted(path for path in (results.parent / "reports").rglob("*") if path.is_file())
        assert len(files) > 6
        seen.add(tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files))
    assert len(seen) == 1
