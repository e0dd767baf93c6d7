"""`ptq-bench status` and the lines beside a sweep: what runs, what ended and how, from files alone."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.commands import status
from harness.foundation.errors import UserError
from harness.records import standing as standing_module
from harness.records.attempts import claim
from harness.records.standing import Standing, plans, seconds_left, standing
from harness.sweeps import progress_display
from tests.helpers.dying_sweeps import eventually
from tests.helpers.invented_records import ended, record, store


def progress(directory: Path, attempt: int, **changes) -> None:
    told = {
        "label": "toy gptq w3",
        "stage": "quantize",
        "done": 3,
        "total": 12,
        "note": "q_proj error 0.1",
        "attempt": attempt,
    }
    (directory / "progress.json").write_text(
        json.dumps(told | {"stage_seconds": 30.0, "seconds": 33.0} | changes)
    )


def sweep(results: Path, *keys: str) -> None:
    (results / "sweeps").mkdir(parents=True, exist_ok=True)
    points = [{"run_key": key, "label": f"label of {key}"} for key in keys]
    (results / "sweeps/5eep.json").write_text(
        json.dumps({"points": points, "started": "2026-11-22T22:54:01+00:00", "owner": {}})
    )


def shown(results: Path, capsys, code: int) -> str:
    assert status.main(["--results", str(results)]) == code
    return " ".join(capsys.readouterr().out.split())


def test_every_state_of_a_sweep(tmp_path, capsys):
    sweep(tmp_path, *(key * 4 for key in "abcdefg"))
    store(
        tmp_path,
        record("aaaa"),
        ended("bbbb", "failed", "no [luck] at all"),
        ended("cccc", "skipped", "makes no sense"),
    )
    running, cut, kept = (tmp_path / "runs" / name for name in ("dddd", "eeee", "ffff"))
    running.mkdir()
    with claim(running):
        progress(running, 1)
        with claim(cut):
            pass  # an attempt that is over without a record
        (kept / "resume").mkdir(parents=True)
        states = [standing(tmp_path, key * 4).state for key in "abcdefg"]
        assert states == ["done", "failed", "skipped", "running", "interrupted", "interrupted", "waiting"]
        text = shown(tmp_path, capsys, 1)
    assert "3/7 1 done, 1 skipped, 1 failed, 1 running, 2 interrupted, 1 waiting" in text
    assert (
        "failed label of bbbb: no [luck] at all" in text
        and "interrupted label of eeee" in text
        and "makes no sense" not in text
    )
    assert "label of dddd · quantize" in text and "3/12 0:33 eta 1:30 q_proj error 0.1" in text
    assert "started 2026-11-22 22:54" in text and "left" in text


def test_a_second_attempt_is_running_and_not_what_the_first_one_was(tmp_path):
    store(tmp_path, ended("aaaa", "failed", "no luck") | {"attempt": 1})
    directory = tmp_path / "runs/aaaa"
    with claim(directory):
        pass
    progress(directory, 1)
    assert standing(tmp_path, "aaaa").state == "failed"
    with claim(directory) as second:
        assert second.number == 2
        found = standing(tmp_path, "aaaa")
        assert (found.state, found.stage) == ("running", "starting"), "the bar of a dead attempt is nobody's"
        progress(directory, 2)
        assert standing(tmp_path, "aaaa").done == 3
        (directory / "record.json").write_text(json.dumps(record("aaaa") | {"attempt": 2}))
        assert standing(tmp_path, "aaaa").state == "done", (
            "its record is there, though its process is not yet gone"
        )


def test_a_killed_process_runs_no_more(tmp_path):
    script = "import sys, time; from pathlib import Path; from harness.records.attempts import claim; claim(Path(sys.argv[1])); print(1); time.sleep(60)"  # noqa: E501
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "runs/aaaa")], stdout=subprocess.PIPE, env=os.environ
    )
    child.stdout.read(1)
    assert standing(tmp_path, "aaaa").state == "running"
    child.kill()
    child.wait()
    assert standing(tmp_path, "aaaa").state == "interrupted"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"attempt": 1'])
def test_damaged_files_stop_nobody(content, tmp_path):
    directory = tmp_path / "runs/aaaa"
    directory.mkdir(parents=True)
    for name in ("record.json", "progress.json"):
        (directory / name).write_text(content)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/x.json").write_text(content)
    with claim(directory):
        assert standing(tmp_path, "aaaa").stage == "starting"
    assert [plan.name for plan in plans(tmp_path)] == ["all runs"]


def test_without_a_list_all_runs_are_shown_and_without_runs_there_is_a_line(tmp_path, capsys):
    store(tmp_path, record("aaaa", "gptq", 3), ended("bbbb", "oom", "out of memory"))
    text = shown(tmp_path, capsys, 1)
    assert "all runs" in text and "1 done, 1 oom" in text and "oom toy rtn w3: out of memory" in text
    with pytest.raises(UserError, match="--results"):
        status.main(["--results", str(tmp_path / "nowhere")])


def test_estimate():
    done = [
        Standing("a", "", "done", 10.0),
        Standing("b", "", "done", 30.0),
        Standing("c", "", "failed", 1000.0),
    ]
    two = [Standing("d", "", "running", 5.0), Standing("e", "", "running", 50.0)]
    waiting = [Standing("f", "", "waiting"), Standing("g", "", "interrupted")]
    assert seconds_left([*done, *two, *waiting]) == (15 + 0 + 2 * 20) / 2
    assert seconds_left([*done, *waiting]) is None and seconds_left([*two, *waiting]) is None
    assert [progress_display.clock(seconds) for seconds in (7.2, 750, 10800)] == ["0:07", "12:30", "3:00:00"]


def test_a_thousand_runs_in_a_second_and_no_torch(tmp_path):
    store(tmp_path, *(record(f"{k:016x}") | {"attempt": 1} for k in range(1000)))
    for k in range(1000):
        attempts = tmp_path / f"runs/{k:016x}/attempts"
        attempts.mkdir()
        (attempts / "0001.json").write_text('{"owner": {}, "ended": true}')
    sweep(tmp_path, *(f"{k:016x}" for k in range(1000)))
    script = "import sys; from harness.commands.status import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"  # noqa: E501
    start = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-c", script, "--results", str(tmp_path)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    assert told.returncode == 0 and "1000/1000 1000 done" in told.stdout, told.stderr
    print(f"1000 runs: {seconds:.2f} s")  # a third of a second where nothing else is to do


@pytest.mark.parametrize("terminal", [False, True])
def test_beside_a_sweep_every_ending_is_one_line(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_display, "INTERVAL", 0.05)
    monkeypatch.setattr(
        "harness.bookkeeping.words.outcome", lambda config, record: f"{record['status']} {config}"
    )
    monkeypatch.setattr("harness.bookkeeping.words.label", lambda config: f"label of {config}")
    store(tmp_path, ended("bbbb", "failed", "before"))
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    points = [SimpleNamespace(key=key * 4, config=key) for key in "abcd"]
    with progress_display.watch(tmp_path, points, console):
        (tmp_path / "runs/aaaa").mkdir()
        with claim(tmp_path / "runs/aaaa"):
            progress(tmp_path / "runs/aaaa", 1)
            eventually(lambda: not terminal or "label of a · quantize" in out.getvalue())
        store(tmp_path, record("cccc"))
        eventually(lambda: "done c" in out.getvalue())
        (tmp_path / "runs/bbbb/record.json").write_text(json.dumps(record("bbbb")))  # the very last moment
    assert threads("watch") == []
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert sum("done c" in line for line in lines) == 1 and sum("done b" in line for line in lines) == 1
    assert not any("failed b" in line for line in lines), "the record from before is no news"
    assert any("label of a · quantize" in line for line in lines) == terminal
    assert terminal or len(lines) == 2


def threads(name: str) -> list:
    import threading

    return [thread for thread in threading.enumerate() if thread.name == name]


def test_follow_ends_when_nothing_runs(tmp_path, monkeypatch, capsys):
    """On a terminal: a point that runs is drawn; when it has ended and the other never starts, the last look
    stays.
    """
    sweep(tmp_path, "aaaa", "bbbb")
    monkeypatch.setattr(progress_display, "INTERVAL", 0.02)
    monkeypatch.setattr(status, "IDLE", 0.3)
    out = io.StringIO()
    monkeypatch.setattr(
        status,
        "Console",
        lambda **options: Console(file=out, force_terminal=True, width=120, color_system=None),
    )
    looks = []
    real = standing_module.standing

    def look(results, key, label):
        looks.append(key)
        early = key == "aaaa" and len(looks) < 10
        return (
            Standing(key, label, "running", 5.0, None, "quantize", 1, 2, 5.0)
            if early
            else real(results, key, label)
        )

    monkeypatch.setattr(status, "standing", look)
    assert status.main(["--results", str(tmp_path), "--follow"]) == 0
    assert len(looks) > 10
    assert "label of aaaa · quantize" in out.getvalue() and "0/2 2 waiting" in out.getvalue().splitlines()[-1]
