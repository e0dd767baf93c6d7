"""Trackers mirror runs and cost them nothing, whatever happens in them."""

import json
import logging
import sys
import time
from pathlib import Path

import pytest

from harness.tracking.marks import marked
from harness.tracking.mirror import FLOOR, STUCK, Mirror
from harness.tracking.story import identity, summary_values
from harness.tracking.tracker import NullTracker, make_tracker
from tests.helpers.fake_wandb import FakeWandb, explode, hang
from tests.helpers.told_runs import WANDB, done, failed, go_by, reports


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """Trackers keep their own files in the test's directory, and our warnings can be read."""
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setattr(logging.getLogger("harness"), "propagate", True)


def test_what_a_run_tells(monkeypatch, tmp_path):
    fake, told, record = FakeWandb().install(monkeypatch), reports(), done(fallbacks=["a: RTN instead"])
    directory = go_by(make_tracker("wandb"), tmp_path, record, told)
    assert marked(directory, WANDB)
    ((_, who),) = [heard for heard in fake.heard if heard[0] == "init"]
    assert (
        who["id"] == f"{record['run_key']}-1" and who["job_type"] == "quantize" and who["mode"] == "offline"
    )
    assert who["tags"] == ["gptq", "w3", "toy"] and who["name"] == "toy · gptq · w3 · s0"
    assert who["config"]["scheme"] == record["scheme"] and who["config"]["versions"]["torch"] == "2.13.0"

    logged = [heard[1:] for heard in fake.heard if heard[0] == "log"]
    steps = [step for _, step in logged[:-1]]
    assert steps == sorted(steps) and len(logged) == len(told) + 1, "W&B drops steps that go back"
    assert logged[0][0] == {
        "layer/index": 1,
        "layer/error": 0.1,
        "layer/bits": 3.03125,
        "layer/outliers": 0.0,
        "layer/seconds": 0.0,
    }
    assert logged[5][0]["block/condition"] == 7.5 and logged[5][0]["block/index"] == 1
    (_, columns, rows) = logged[-1][0]["layers"]
    assert (
        len(rows) == 6
        and dict(zip(columns, rows[3], strict=True))["shape"] == "64x64"
        and rows[3][-1] == "damping raised"
    )

    (_, (_, kind, files)) = next(heard for heard in fake.heard if heard[0] == "artifact")
    assert kind == "result" and [name for name, _ in files] == ["record.json", "layers.parquet"]
    (_, exit_code, tags, summary) = fake.heard[-1]
    assert exit_code == 0 and tags[-1] == "done"
    assert (
        summary["perplexity/wiki"] == 17.25
        and summary["perplexity/wiki_stderr"] == 1.5
        and summary["delta/perplexity/wiki"] == 2.25
    )
    assert {
        "bits_per_weight",
        "seconds",
        "peak_memory_bytes",
        "status",
        "fallbacks",
    } <= summary.keys() and "reason" not in summary


def test_a_failed_run_shows_as_failed(monkeypatch, tmp_path):
    fake = FakeWandb().install(monkeypatch)
    go_by(make_tracker("wandb"), tmp_path, failed("1" * 16), reports(1))
    (_, exit_code, tags, summary) = fake.heard[-1]
    assert exit_code == 1 and tags[-1] == "failed" and summary["reason"] == "no luck"


def test_a_baseline_and_a_perplexity_without_bound():
    record = done() | {"scheme": None, "data": None, "baseline": None}
    record["metrics"]["perplexity/wiki"]["value"] = "inf"
    assert identity(record, WANDB).job_type == "baseline" and "float" in identity(record, WANDB).tags
    assert summary_values(record)["perplexity/wiki"] == float("inf")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_hangs_is_left_behind(where, monkeypatch, tmp_path, caplog):
    FakeWandb(where, hang).install(monkeypatch)
    start = time.monotonic()
    directory = go_by(make_tracker("wandb"), tmp_path, done(), reports())
    assert time.monotonic() - start < 30, "it hangs for a minute"
    assert "ptq-bench sync" in caplog.text and not marked(directory, WANDB)


def test_one_that_hangs_since_long_is_not_waited_for(monkeypatch, tmp_path):
    FakeWandb("init", hang).install(monkeypatch)
    tracker = make_tracker("wandb")
    monkeypatch.setattr("harness.tracking.mirror.STUCK", 0.2)
    monkeypatch.setattr("harness.tracking.mirror.FLOOR", 40)
    layer = tracker.layer
    tracker.layer = lambda *arguments: (layer(*arguments), time.sleep(0.05))
    start = time.monotonic()
    go_by(tracker, tmp_path, done(), reports(4))  # 8 layers: 0.4 s of work
    monkeypatch.undo()
    assert time.monotonic() - start < 20, "waited although the call was long under way"


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_raises_is_one_line(where, monkeypatch, tmp_path, caplog):
    FakeWandb(where, explode).install(monkeypatch)
    monkeypatch.setattr("harness.tracking.mirror.FLOOR", 40)
    start = time.monotonic()
    directory = go_by(make_tracker("wandb"), tmp_path, done(), reports())
    assert time.monotonic() - start < 20, "nothing to wait for once it gave up"
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "no route to host" in line and "ptq-bench sync" in line and not marked(directory, WANDB)


@pytest.mark.parametrize(
    ("name", "remedy"), [("wandb", "pip install wandb"), ("trackio", "pip install 'ptq-bench[trackio]'")]
)
def test_a_tracker_that_is_not_installed_is_one_line(name, remedy, monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, name, None)
    go_by(make_tracker(name), tmp_path, done(), reports(1))
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert remedy in line


def test_no_tracker_leaves_nothing(tmp_path):
    directory = go_by(make_tracker("none"), tmp_path, done(), reports())
    assert isinstance(make_tracker("none"), NullTracker)
    assert sorted(path.name for path in directory.iterdir()) == [
        "blocks.parquet",
        "layers.parquet",
        "record.json",
    ]


def test_wandb_itself_takes_it_all_and_learns_no_secret(monkeypatch, tmp_path):
    """The real package, offline: one complete file that `wandb sync` can upload, and no key in any file."""
    secret = "5ec2e7" + "0" * 34
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("HF_TOKEN", f"hf_{secret}")
    monkeypatch.setattr(sys, "argv", ["ptq-bench", f"token={secret}"])
    # a busy machine may need longer for its first import
    monkeypatch.setattr("harness.tracking.mirror.FLOOR", 30.0)
    directory = go_by(make_tracker("wandb"), tmp_path, done(), reports())
    assert marked(directory, WANDB), "the mirror did not finish"
    (file,) = directory.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"perplexity/wiki" in content and b"block/loss_after" in content and b"result-" in content
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["init", "log", "finish", "absent"])
def test_trouble_costs_a_run_less_than_two_per_cent(where, monkeypatch, tmp_path):
    """A run of several seconds beside a tracker that hangs for a minute: the same numbers, and hardly a
    moment spent in its calls.
    """
    from harness.cli import main

    monkeypatch.chdir(tmp_path)
    quick = [
        "run",
        "model=tiny-llama",
        "scheme=w3",
        "data=synthetic",
        "eval=smoke",
        "data.samples=8",
        "eval.windows=2",
        "isolate=false",
    ]
    slow = ["method=quantease", "method.solver.sweeps=800"]
    assert main([*quick, "method=float"]) == main([*quick, "method=float", "paths.results=troubled"]) == 0
    assert main([*quick, *slow]) == 0
    if where == "absent":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        FakeWandb(where, hang).install(monkeypatch)
    spent = time_calls(monkeypatch, Mirror, "start", "layer", "block", "finish")
    assert main([*quick, *slow, "paths.results=troubled", "tracker=wandb"]) == 0
    record, without = (
        {r["method"]["name"]: r for r in records(place)}["quantease"] for place in ("troubled", "results")
    )
    assert record["metrics"] == without["metrics"] and record["layer_error"] == without["layer_error"]
    seconds = record["seconds"]["total"]
    # for a call that may still be in time
    waited = where == "finish" or (where != "absent" and seconds < STUCK)
    print(f"{where}: {seconds:.2f} s, of them {sum(spent):.4f} s in calls of the tracker")
    assert seconds > 2 and sum(spent) < 0.02 * seconds + FLOOR * waited


def records(results: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in Path(results).glob("runs/*/record.json")]


def time_calls(monkeypatch, owner: type, *names: str) -> list[float]:
    """Seconds of every call of these methods from now on."""
    spent = []

    def timed(method):
        def call(*arguments):
            start = time.perf_counter()
            method(*arguments)
            spent.append(time.perf_counter() - start)

        return call

    for name in names:
        monkeypatch.setattr(owner, name, timed(getattr(owner, name)))
    return spent
