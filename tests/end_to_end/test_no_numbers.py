"""NaN, infinities, nulls and words where numbers should be survive everything that reads records."""

import csv
import io
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.bookkeeping.words import outcome
from harness.cli import main as command
from harness.planning import plan, rates
from harness.records.store import jsonable
from harness.reporting.papers.tables import load_specs
from harness.sweeps import progress_display
from harness.tracking.tracker import make_tracker
from tests.helpers.fake_wandb import FakeWandb
from tests.helpers.planned_points import config
from tests.helpers.spoilt_runs import SPOILS, good, leave_good, leave_spoilt, spoilt
from tests.helpers.told_runs import go_by, reports

METHODS = ("rtn", "gptq", "quantease")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Each kind of spoilt run at a width of its own and all of them at one, beside good runs."""
    place = tmp_path_factory.mktemp("spoilt")
    leave_good(place, good("f" * 16, "float", None))
    for number, (name, value) in enumerate(SPOILS.items()):
        for letter, method in zip("abc", METHODS, strict=True):
            leave_spoilt(place, good(f"{letter}{number}" * 8, method, 2 + number), value)
        leave_spoilt(
            place, good(f"d{number}" * 8, "awq", 3, seed=number, model__name=f"broken {name}"), value
        )
        leave_spoilt(place, good(f"e{number}" * 8, "float", None, model__name=f"broken {name}"), value)
    leave_good(place, good("9" * 16, "gptq", 3, seed=1))
    leave_good(place, good("8" * 16, "quantease", 3, seed=1))
    return place


@pytest.mark.parametrize("value", SPOILS.values(), ids=SPOILS)
def test_the_line_of_a_run_that_ended(value):
    found = jsonable(spoilt(good("a" * 16, "gptq"), value))
    line = outcome(config("method=gptq"), found)
    assert line.startswith("[green]done[/]") and ("wiki" in line)


@pytest.mark.parametrize("value", SPOILS.values(), ids=SPOILS)
def test_progress_beside_a_sweep(value, tmp_path):
    """The thread that draws lives to the end, and tells every point that ends."""
    written, point = io.StringIO(), SimpleNamespace(key="ab" * 8, config=config("method=gptq"))
    died = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", died.append)
        patch.setattr(progress_display, "INTERVAL", 0.01)
        with progress_display.watch(tmp_path, [point], Console(file=written, width=300, force_terminal=True)):
            leave_spoilt(tmp_path, good(point.key, "gptq"), value)
    assert not died and "done" in written.getvalue()


def test_status(results, capsys):
    assert command(["status", "--results", str(results)]) == 0
    assert "33/33 33 done" in " ".join(capsys.readouterr().out.split())


def test_report_in_every_format(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(["report", "--results", str(results), "--name", "all"]) == 0
    written = {path.name: path for path in Path("reports/all").iterdir()}
    assert set(written) >= {"report.md", "report.html", "report.pdf", "tables.tex", "tables.csv"}
    text = written["report.md"].read_text()
    assert "inf" in text and "nan" in text
    rows = list(csv.DictReader(written["tables.csv"].read_text().splitlines()))
    assert not [row for row in rows if row["best"] == "true" and row["value"] in ("nan", "inf", "-inf", "")]


def test_every_table_of_the_papers(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["report", "--results", str(results), "--name", "all", "--format", "md,csv,tex"]
    assert command([*asked, "--table", ",".join(load_specs())]) == 0


@pytest.mark.parametrize("number", range(len(SPOILS)), ids=SPOILS)
def test_compare(results, number, capsys):
    for other in ("9" * 16, f"b{number}" * 8, "f" * 16):
        assert command(["compare", f"a{number}" * 8, other, "--results", str(results)]) == 0


def test_sync(results, tmp_path, monkeypatch, capsys):
    fake = FakeWandb().install(monkeypatch)
    assert command(["sync", "--results", str(results), "--again"]) == 0, capsys.readouterr().err
    summaries = [heard[3] for heard in fake.heard if heard[0] == "finish"]
    assert len(summaries) == len(list(results.glob("runs/*")))


@pytest.mark.parametrize("value", SPOILS.values(), ids=SPOILS)
def test_a_tracker_beside_a_run(value, monkeypatch, tmp_path):
    fake = FakeWandb().install(monkeypatch)
    go_by(make_tracker("wandb"), tmp_path, jsonable(spoilt(good("a" * 16, "gptq"), value)), reports())
    assert [heard for heard in fake.heard if heard[0] == "finish"]


@pytest.mark.parametrize("value", SPOILS.values(), ids=SPOILS)
def test_plan(value, results):
    found = jsonable(spoilt(good("a" * 16, "gptq"), value))
    assert all(isinstance(text, str) for text in plan.measured(found))
    rates.rates_of(str(results), config("method=gptq"), "cpu")
