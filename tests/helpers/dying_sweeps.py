"""Sweeps of small runs in a process of their own, some points of which die (tests/helpers/death.py), and what
they leave.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.planning.plan import kept_blocks

PROGRAM = str(Path(sys.executable).with_name("ptq-bench"))
SMALL = [
    "model=tiny-llama",
    "scheme=w3",
    "data=synthetic",
    "data.samples=4",
    "data.window=32",
    "eval=smoke",
    "eval.windows=2",
]
STARTUP = Path(__file__).parent / "startup"
LAST_BLOCK = "15,16,17,18"  # of the tiny model's 21 layers, seven to a block
REASONS = {  # what is said of each way to die
    "hang": r"stopped after [\d.]+ minutes \(time_limit\) during quantize \d/3; retry=true goes on from there.*",  # noqa: E501
    "raise": r"model\.layers\.1\.self_attn\.k_proj \(32, 64\): RuntimeError: no luck",
    "leave": r"ended with exit code 5 during quantize \d/3; see results/runs/\w+/log.txt; retry=true goes on from there",  # noqa: E501
    "kill": r"killed by SIGKILL \(signal 9, .*\) during quantize \d/3; see results/runs/\w+/log.txt; .*",
    "abort": r"killed by SIGABRT \(signal 6\) during quantize \d/3; see results/runs/\w+/log.txt; .*",
    "segfault": r"killed by SIGSEGV \(signal 11\) during quantize \d/3; see results/runs/\w+/log.txt; .*",
    "exit": r"SystemExit: 5",
    "memory": r"out of memory \(model\.layers\.1\.self_attn\.k_proj \(32, 64\): MemoryError:.*\); try a smaller .*",  # noqa: E501
}


def points(*ways: str, after: int | str = 8) -> list[str]:
    """Overrides: a point for each way to die, after so many of the model's layers."""
    given = {"way": ",".join(ways), "after": after}
    return [
        "method=rtn",
        "method.solver._target_=methods.death.Death",
        *(f"+method.solver.{key}={value}" for key, value in given.items()),
    ]


def start(*overrides: str, **variables: str) -> subprocess.Popen:
    """`ptq-bench run` in this directory; its stderr is piped."""
    environment = os.environ | {"PYTHONPATH": with_startup(), "OMP_NUM_THREADS": "1"} | variables
    # ^C, though the tests may run in the background
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(
        [PROGRAM, "run", *SMALL, *overrides], env=environment, stderr=subprocess.PIPE, text=True, **hears
    )


def with_startup() -> str:
    """PYTHONPATH with which an interpreter knows the solver that dies."""
    return os.pathsep.join(filter(None, [str(STARTUP), os.environ.get("PYTHONPATH")]))


def sweep(*overrides: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of `ptq-bench run`."""
    process = start(*overrides, **variables)
    _, told = process.communicate()
    return process.returncode, told


def records(results: str | Path = "results") -> dict[str, dict]:
    """The records below `results` by way to die and layers before it, `float` for the float model's."""
    found = {}
    for path in sorted(Path(results, "runs").glob("*/record.json")):
        record = json.loads(path.read_text())
        solver = record["method"]["solver"]
        found[
            "float"
            if solver is None
            else solver["way"]
            if solver["after"] == 8
            else f"{solver['way']} {solver['after']}"
        ] = record
    return found


def runs(method: str, results: str | Path = "results") -> list[Path]:
    """Directories of the runs of a method, in whatever state."""
    return [
        path.parent
        for path in sorted(Path(results, "runs").glob("*/log.txt"))
        if f" {method} " in path.read_text()
    ]


def layers_told(run: Path) -> list[tuple[str, str, str]]:
    """Process id, visible GPUs and time of every layer that the solver that dies has begun in a run."""
    return re.findall(r"^layer (\d+) (\S*) ([\d.]+)$", (run / "log.txt").read_text(), re.M)


@contextmanager
def held() -> Iterator[None]:
    """Meanwhile, points whose way is `hold` stop at the layer that they name, and go on afterwards."""
    Path("hold").touch()
    try:
        yield
    finally:
        Path("hold").unlink()


def in_their_last_block(count: int) -> list[Path]:
    """Wait until so many runs are held at `LAST_BLOCK`, and both blocks before it are kept."""

    def found():
        at_work = [
            run for run in runs("death") if not (run / "record.json").exists() and len(layers_told(run)) > 14
        ]
        return at_work if [len(kept_blocks(run)) for run in at_work] == [2] * count else None

    return eventually(found, 200)


def assert_all_died_but_one(code: int, told: str) -> None:
    """A sweep over all ways to die and `never`: one record and one line for each, nothing else."""
    found, lines = records(), told.splitlines()
    assert code == 1 and "Traceback" not in told, told
    assert set(found) == {*REASONS, "never", "float"}
    assert found["never"]["status"] == found["float"]["status"] == "done"
    for way, reason in REASONS.items():
        record = found[way]
        assert record["status"] == ("oom" if way == "memory" else "failed") and record["attempt"] == 1, record
        assert re.fullmatch(reason, record["reason"]), record["reason"]
        assert (
            len(
                [line for line in lines if line.startswith("ptq-bench: ") and line.endswith(record["reason"])]
            )
            == 1
        ), told
    assert lines[-1] == f"ptq-bench: {len(REASONS)} of {len(REASONS) + 1} points did not finish"


def same_but_for_time(record: dict) -> dict:
    """What two runs of a point must agree on, though somebody works in the checkout meanwhile."""
    same = {
        key: value
        for key, value in record.items()
        if key not in ("seconds", "peak_memory_bytes", "attempt", "reused", "digest")
    }
    return same | {"versions": record["versions"] | {"git": None}}


def undisturbed(overrides: list[str], place: Path) -> dict[str, dict]:
    """What the records of a sweep on this machine must agree on with one that loses processes, by point."""
    code, told = sweep(*overrides, f"paths.results={place}")
    assert code == 0, told
    return {name: same_but_for_time(record) for name, record in records(place).items()}


def lives(pid: int) -> bool:
    """Is there such a process, and not only its remains?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition, seconds: float = 30):
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")
