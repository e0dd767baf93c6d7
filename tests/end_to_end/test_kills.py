"""A sweep whose processes are killed again and again ends as an undisturbed one, once it is started often
enough.

In `make test` 4 kills on 2 points, in `make torture` 200 on 40.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import pandas as pd
import pytest

from harness.cli import main
from harness.foundation.seals import read_record, seal
from harness.records.format import FINISHED
from harness.reporting.writing import write_report
from tests.torture.killings import Killing

TINY = [
    "model=tiny-llama",
    "data=synthetic",
    "data.samples=2",
    "data.window=32",
    "eval=smoke",
    "eval.windows=1",
    "retry=true",
]
FEW = ["method=quantease", "scheme=w3", "data.propagate=quantized,float"]
MANY = ["method=rtn,gptq,quantease,awq", "scheme=w8,w4,w3,w2,w3g32", "data.propagate=quantized,float"]
LONG = pytest.param(MANY, 200, 2, marks=[pytest.mark.torture, pytest.mark.timeout(4 * 3600)])
PROGRAM = "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"


def records(results: Path) -> dict[str, dict]:
    return {
        path.parent.name: read_record(path.read_bytes())
        for path in sorted(results.glob("runs/*/record.json"))
    }


class Watch:
    """Sees that what is finished is never written again."""

    def __init__(self, results: Path):
        self._results, self._finished = results, {}

    def __call__(self) -> None:
        for path in self._results.glob("runs/*/record.json"):
            content, written = path.read_bytes(), path.stat().st_mtime_ns
            if json.loads(content)["status"] in FINISHED:
                assert self._finished.setdefault(path, (content, written)) == (content, written), path


def without_time(results: Path, copy: Path) -> Path:
    """The records with what two sweeps may differ in set to fixed values."""
    for key, record in records(results).items():
        same = {
            "seconds": dict.fromkeys(record["seconds"], 1.0),
            "peak_memory_bytes": {"cpu": 1, "gpu": 0},
            "attempt": 1,
        }
        record |= same | {"versions": record["versions"] | {"git": "0"}}
        (copy / "runs" / key).mkdir(parents=True)
        (copy / "runs" / key / "record.json").write_bytes(seal(record))
        shutil.copy(results / "runs" / key / "items.json", copy / "runs" / key)
    return copy


def began(directory: Path) -> Iterable[int]:
    """The attempts at a run, as its log tells."""
    lines = (directory / "log.txt").read_text().splitlines()
    return [int(line.rpartition(" ")[2]) for line in lines if f"run key {directory.name}, attempt " in line]


@pytest.mark.parametrize(("points", "kills", "slots"), [(FEW, 4, 1), LONG])
def test_killed_again_and_again(points, kills, slots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results, whole = tmp_path / "results", tmp_path / "whole"
    assert main(["run", *TINY, *points, "isolate=false", "paths.results=whole"]) == 0
    takes = median(record["seconds"]["total"] for record in records(whole).values())
    command = [sys.executable, "-c", PROGRAM, "run", *TINY, *points, f"hydra.launcher.slots={slots}"]
    killing = Killing(command, tmp_path, kills, takes / 2, 0, Watch(results))
    killing.run()
    print(
        dict(killing.killed),
        "kills,",
        killing.starts,
        "starts,",
        sum(r["attempt"] for r in records(results).values()),
        "attempts",
    )
    assert sum(killing.killed.values()) == kills

    found, expected = records(results), records(whole)
    assert found.keys() == expected.keys() and {record["status"] for record in found.values()} <= set(
        FINISHED
    )
    for key, record in found.items():
        directory, undisturbed = results / "runs" / key, whole / "runs" / key
        attempts = began(directory)
        assert attempts == sorted(set(attempts)) and attempts[-1] == record["attempt"], (
            "computed again after it was done"
        )
        assert (directory / "items.json").read_bytes() == (undisturbed / "items.json").read_bytes()
        if (undisturbed / "layers.parquet").exists():
            tables = [
                pd.read_parquet(place / "layers.parquet").drop(columns="seconds")
                for place in (directory, undisturbed)
            ]
            pd.testing.assert_frame_equal(*tables, check_exact=True)
        assert not (directory / "resume").exists()
    fixed = [without_time(place, tmp_path / f"{place.name}-fixed") for place in (results, whole)]
    reports = [
        write_report(place, tmp_path / f"{place.name}-report", formats=("md", "tex", "csv")).parent
        for place in fixed
    ]
    made, expected = (
        {path.relative_to(report): path.read_bytes() for path in report.rglob("*.*")} for report in reports
    )
    assert made == expected and len(made) > 3, "texts and figures"


SERVER = """
import os, sys, time
from pathlib import Path
from harness.sweeps import server
server.work = lambda job: (Path(job).write_text(str(os.getpid())), time.sleep(60))
server.serve()
"""


def test_a_child_is_not_left_alone_when_its_driver_dies_at_once(tmp_path):
    """The order is given, and nobody is there to hear that the child has begun."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    server.stdout.close()
    server.stdin.write(
        json.dumps({"job": str(tmp_path / "pid"), "output": str(tmp_path / "log")}).encode() + b"\n"
    )
    server.stdin.flush()  # stays open: only the answers cannot be given
    told = server.stderr.read()
    assert server.wait(30) == 0 and told == b""
    server.stdin.close()
    server.stderr.close()
    if (tmp_path / "pid").exists():
        pid = int((tmp_path / "pid").read_text())
        assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
