"""`ptq-bench sync`: what a tracker missed it gets from the files of the run, once, and the same as if it had
been there.
"""

import json
import os
import subprocess
import sys

import pytest

from harness.cli import main as command
from harness.commands.sync import main
from harness.tracking.tracker import make_tracker
from tests.helpers.fake_wandb import FakeWandb, explode
from tests.helpers.told_runs import done, failed, go_by, leave, reports


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_what_a_dying_tracker_missed(where, monkeypatch, tmp_path, capsys):
    """Live beside a tracker that works, and from the files after one that died: it hears the same."""
    live = FakeWandb().install(monkeypatch)
    go_by(make_tracker("wandb"), tmp_path / "other", done(), reports())
    FakeWandb(where, explode).install(monkeypatch)
    go_by(make_tracker("wandb"), tmp_path / "results", done(), reports())
    later, key = FakeWandb().install(monkeypatch), done()["run_key"]
    cut, other = (
        tmp_path / f"results/runs/{key}/wandb/offline-run-20261122_225401-{key}-{attempt}"
        for attempt in (1, 2)
    )
    cut.mkdir(parents=True)
    other.mkdir()
    assert main([]) == 0
    assert other.exists() and not cut.exists(), "uploaded with the new one it would spoil it"
    assert "1 runs mirrored to wandb offline" in capsys.readouterr().err
    assert later.heard == live.heard and len(live.heard) > 10


def test_twice_is_once(monkeypatch, tmp_path, capsys):
    fake = FakeWandb().install(monkeypatch)
    leave(tmp_path / "results", done("a" * 16), reports())
    leave(tmp_path / "results", failed("b" * 16), [])
    assert main([]) == 0 and len([1 for heard in fake.heard if heard[0] == "init"]) == 2
    first = list(fake.heard)
    assert main([]) == 0 and fake.heard == first
    assert "0 runs mirrored to wandb offline, 2 already there" in capsys.readouterr().err
    assert main(["--mode", "online"]) == 0 and len(fake.heard) == 2 * len(first), "offline is not online"
    assert main(["--again", "--project", "mine", "--group", "g"]) == 0
    assert (
        fake.heard[2 * len(first)][1]["project"] == "mine" and fake.heard[2 * len(first)][1]["group"] == "g"
    )


def test_what_the_live_mirror_finished_is_there_already(monkeypatch, tmp_path):
    fake = FakeWandb().install(monkeypatch)
    go_by(make_tracker("wandb"), tmp_path / "results", done(), reports())
    heard = len(fake.heard)
    assert main([]) == 0 and len(fake.heard) == heard
    leave(tmp_path / "results", done() | {"attempt": 2}, reports())
    assert main([]) == 0 and fake.heard[heard][1]["id"].endswith("-2"), "computed again: another record"


def test_one_run_that_fails_keeps_no_other_back(monkeypatch, tmp_path, capsys):
    fake = FakeWandb().install(monkeypatch)
    for key in "abc":
        leave(tmp_path / "results", done(key * 16), reports(1))
    (tmp_path / "results/runs" / ("b" * 16) / "layers.parquet").write_bytes(b"no table")
    assert main([]) == 1
    assert len([1 for heard in fake.heard if heard[0] == "finish"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum("b" * 16 in line for line in lines) == 1 and any(
        "2 runs mirrored" in line and "1 failed" in line for line in lines
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--results", "nowhere"], "nowhere"),
        (["--tracker", "trackio", "--mode", "online"], "tracker.mode=online"),
    ],
)
def test_what_a_user_can_fix(arguments, words, tmp_path, capsys):
    (tmp_path / "nowhere").mkdir()
    from harness.foundation.errors import UserError

    with pytest.raises(UserError, match=words):
        main(arguments)


def test_a_real_run_reads_back_as_it_was_told(monkeypatch, tmp_path):
    """A transform, a fallback-free walk, block errors: every number through record.json and the tables is the
    number that was live.
    """
    live = FakeWandb().install(monkeypatch)
    quick = [
        "model=tiny-llama",
        "data=synthetic",
        "eval=smoke",
        "data.samples=4",
        "eval.windows=2",
        "data.block_error=true",
    ]
    assert (
        command(["run", *quick, "method=smoothquant", "scheme=w4a4", "tracker=wandb", "isolate=false"]) == 0
    )
    later = FakeWandb().install(monkeypatch)
    assert main(["--again"]) == 0
    assert runs(later) == runs(live) and len(runs(live)) == 2


def runs(fake: FakeWandb) -> dict[str, list]:
    """What was heard, by run; of two runs one after the other."""
    found, key = {}, ""
    for heard in fake.heard:
        key = heard[1]["id"] if heard[0] == "init" else key
        found.setdefault(key, []).append(heard)
    return found


def test_trackio_keeps_one_run_however_often(tmp_path):
    """The real package, in a process of its own: where it keeps its files is decided at its import."""
    pytest.importorskip("trackio", minversion="0.20")
    leave(tmp_path / "results", done("a" * 16), reports())
    leave(tmp_path / "results", failed("b" * 16), [])
    script = """
import json, socket
asked = []
def refuse(host, *rest, **more):
    asked.append(host)
    raise OSError("no network")
socket.getaddrinfo = refuse
from harness.tracking.replay import main
codes = [main(["--tracker", "trackio", *more]) for more in ([], [], ["--again"])]
import trackio
runs = trackio.Api().runs("ptq-bench")
metrics = trackio.sqlite_storage.SQLiteStorage.get_logs("ptq-bench", next(run.name for run in runs if "gptq" in run.name))
print(json.dumps([codes, sorted(run.name for run in runs), metrics, asked]))
"""  # noqa: E501
    told = subprocess.run([sys.executable, "-c", script], env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_none"},  # noqa: E501
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) == 1, "trackio prints to the terminal"
    codes, names, metrics, asked = json.loads(told.stdout)
    assert asked == [], "trackio went to the network"
    assert codes == [0, 0, 0] and len(names) == 2 and all("-1" in name for name in names)
    assert (
        len(metrics) == len(reports()) + 1
        and metrics[-1]["perplexity/wiki"] == 17.25
        and metrics[-1]["status"] == "done"
    )
    assert (tmp_path / "results/trackio/ptq-bench.db").exists()
