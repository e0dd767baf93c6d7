"""A disk that refuses any step of a sweep ends it in one line, breaks nothing, and the same command later
gives the same numbers.

In `make test` at a sample of steps and errors, in `make torture` at all of the first 200 steps; see
tests/torture/refusals.py.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.progress import Stages
from harness.sweeps.worker import Worker
from tests.torture.faults import Faults, refuse

ROOT = Path(__file__).parents[2]
FULL = 28


@pytest.mark.parametrize(
    "share", [0.003, pytest.param(1.0, marks=[pytest.mark.torture, pytest.mark.timeout(4 * 3600)])]
)
def test_refused_anywhere(share, tmp_path):
    command = [sys.executable, "-m", "tests.torture.refusals", str(tmp_path), str(share), "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["wrong"] == []
    assert told["steps"]["run"] > 100 and told["steps"]["driver"] > 15 and told["survived"] < told["cases"]


@pytest.mark.parametrize("at", range(4))
def test_telling_the_progress_fails_nothing(at, tmp_path):
    with Faults(tmp_path, at, refuse(FULL)) as faults:
        Stages(tmp_path / "progress.json", "a run", 1).update("quantize", 3, 3)
        Stages(tmp_path / "progress.json", "a run", 1).update("quantize", 3, 3)
    assert len(faults.steps) > at


def test_a_log_on_a_full_disk_fails_nothing(capfd):
    from harness.bookkeeping.run_log import logging_to

    with logging_to(Path("/dev/full")):
        logging.getLogger("harness.run").info("a line that stays in a buffer")
    assert capfd.readouterr().err == ""


def test_a_child_without_a_log(tmp_path, capfd):
    """It has nowhere to say why, so one line goes to the terminal."""
    with Worker() as worker:
        assert worker.run({}, tmp_path, None) > 0
    told = capfd.readouterr().err
    assert told.startswith("ptq-bench: ") and str(tmp_path) in told and told.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB, where mounting is permitted."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "none", place], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(small_disk, monkeypatch, capfd):
    """And that goes on where it was, once it has room."""
    from harness.cli import main

    # it fills up while we run
    monkeypatch.setattr("harness.planning.findings.free_disk", lambda place: 2**40)
    command = [
        "run",
        "model=tiny-llama",
        "method=rtn",
        "data=synthetic",
        "eval=smoke",
        "eval.windows=1",
        "save=true",
    ]
    command += ["isolate=false", f"paths.results={small_disk}"]
    assert main(command) != 0
    told = capfd.readouterr().err
    assert "disk full" in told and "Traceback" not in told and "Logging error" not in told
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert main([*command, "retry=true"]) == 0
    assert list(small_disk.glob("runs/*/checkpoint"))
