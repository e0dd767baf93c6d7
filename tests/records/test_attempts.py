"""Of many processes exactly one works on a run; a dead one is replaced by exactly one."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.foundation.errors import UserError
from harness.records import attempts as attempts_module
from harness.records.attempts import SILENCE, attempts, claim, holder, myself
from tests.torture.faults import Faults, refuse

ROOT = Path(__file__).parents[2]
CROWD = 16


@contextmanager
def crowd(directory: Path, count: int = CROWD):
    command = [sys.executable, "-m", "tests.torture.claimants", "claim", str(directory)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def all_claim(processes: list[subprocess.Popen]) -> dict[int, str]:
    """What each process was told, all having claimed at the same moment."""
    moment = time.time() + 0.3
    for process in processes:
        process.stdin.write(f"{moment}\n")
        process.stdin.flush()
    return {process.pid: process.stdout.readline().strip() for process in processes}


def test_one_of_many_wins_and_one_of_the_rest_when_it_dies(tmp_path):
    """Never two alive at once: whoever lost claims again and again while the winner lives, and loses."""
    with crowd(tmp_path) as processes:
        for number in range(1, 7):
            told = all_claim(processes)
            winners = [pid for pid, answer in told.items() if answer.startswith("won")]
            assert len(winners) == 1 and told[winners[0]] == f"won {number}", told
            assert set(told.values()) == {f"won {number}", "lost"}
            assert holder(tmp_path).pid == winners[0]
            (winner,) = [process for process in processes if process.pid == winners[0]]
            processes.remove(winner)
            assert set(all_claim(processes).values()) == {"lost"}
            winner.kill()  # from here it is a zombie, until we collect it
            while "zombie" not in Path(f"/proc/{winner.pid}/status").read_text():
                time.sleep(0.01)
            assert holder(tmp_path) is None
            winner.wait() if number % 2 else None
        assert attempts(tmp_path) == 6
        assert not list(tmp_path.rglob(".aside-*"))


def owned(directory: Path, number: int = 1, **changes) -> Path:
    """A claim of another owner."""
    path = directory / "attempts" / f"{number:04d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"owner": asdict(replace(myself(), **changes)), "ended": False}))
    return path


def test_a_number_that_now_is_another_process_is_not_mistaken_for_life(tmp_path):
    """Ours, with another start: the owner died, and its number was given out again."""
    owned(tmp_path, started="1")
    assert holder(tmp_path) is None
    with claim(tmp_path) as mine:
        assert mine.number == 2


def test_what_this_process_forgot_is_not_alive(tmp_path):
    """A former claim of this very process that is no more, such as one of a notebook that was interrupted."""
    owned(tmp_path)
    assert holder(tmp_path) is None and claim(tmp_path).number == 2


@pytest.mark.parametrize(
    ("age", "lives"), [(0, True), (SILENCE - 30, True), (SILENCE + 5, False), (-3600, True)]
)
def test_elsewhere_by_the_age_of_its_heartbeat(age, lives, tmp_path):
    path = owned(tmp_path, machine="another", host="far")
    os.utime(path, (time.time() - age, time.time() - age))
    assert (holder(tmp_path) is not None) == lives
    found = claim(tmp_path)
    assert (found is None) == lives


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts_module, "HEARTBEAT", 0.05)
    with claim(tmp_path) as mine:
        os.utime(mine.path, (0, 0))
        end = time.monotonic() + 10
        while mine.path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert time.time() - mine.path.stat().st_mtime < 60


OWNER = '{"host": "h", "machine": "m", "pid": 1, "started": "1", "new": 1}'
DAMAGED = ["", "{", "null", "[]", "\0" * 50, "ü" * 20, '{"ended": false}']
DAMAGED += [f'{{"owner": {owner}, "ended": false}}' for owner in ("{}", "null", "3", OWNER)]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_claim_is_nobodys(content, tmp_path):
    owned(tmp_path).write_text(content, encoding="latin-1")
    assert holder(tmp_path) is None
    with claim(tmp_path) as mine:
        assert mine.number == 2


@pytest.mark.parametrize("pid", [0, -1, 2**40, "1", None, [1], "../self"])
def test_a_claim_of_no_process_is_nobodys(pid, tmp_path):
    owned(tmp_path, pid=pid, started=None)
    assert holder(tmp_path) is None and claim(tmp_path).number == 2


@pytest.mark.parametrize("name", ["notes.json", "0001 (copy).json", ".aside-0002.json-1-2", "0001.json~"])
def test_files_of_others_among_the_claims(name, tmp_path):
    owned(tmp_path, started="1")
    (tmp_path / "attempts" / name).write_text("{}")
    assert attempts(tmp_path) == 1
    assert claim(tmp_path).number == 2


def test_many_attempts(tmp_path):
    owned(tmp_path, 9999, started="1")
    with claim(tmp_path) as mine:
        assert mine.number == 10_000
    with claim(tmp_path) as mine:
        assert mine.number == attempts(tmp_path) == 10_001


def test_losing_to_one_who_tidies_up_is_losing(tmp_path, monkeypatch):
    """Who wins the claim removes unfinished files, and among them may be that of one who is about to try."""

    def tidied(source, target):
        os.unlink(source)
        raise FileNotFoundError(2, "No such file or directory", str(source))

    monkeypatch.setattr(os, "link", tidied)
    assert claim(tmp_path) is None


def test_age_is_told_where_nothing_can_be_written(tmp_path, monkeypatch):
    """`ptq-bench status` may look at results that are somebody else's."""
    owned(tmp_path, machine="another")

    def readonly(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(attempts_module.tempfile, "NamedTemporaryFile", readonly)
    assert holder(tmp_path) is not None


@pytest.mark.parametrize("code", [28, 5, 30, 13])
def test_a_full_disk_at_the_end_of_a_claim_is_no_matter(code, tmp_path):
    with Faults(tmp_path) as counted, claim(tmp_path):
        begun = len(counted.steps)
    for at in range(begun, len(counted.steps)):
        directory = tmp_path / f"again-{at}"
        directory.mkdir()
        with Faults(directory, at, refuse(code)), claim(directory):
            pass
        assert holder(directory) is None


@pytest.mark.parametrize("code", [28, 30, 13])
def test_a_claim_that_cannot_be_written_says_so(code, tmp_path):
    with Faults(tmp_path) as counted:
        claim(tmp_path)
    for at in range(len(counted.steps)):
        directory = tmp_path / f"again-{at}"
        directory.mkdir()
        with Faults(directory, at, refuse(code)), pytest.raises(UserError, match=str(directory)) as caught:
            claim(directory)
        assert "\n" not in str(caught.value)


def test_threads_of_one_process_that_all_found_it_free(tmp_path, monkeypatch):
    won, barrier, last = [], threading.Barrier(8), attempts_module._last

    def look_then_wait(directory: Path) -> Path | None:
        found = last(directory)
        barrier.wait()
        return found

    def contend() -> None:
        won.append(claim(tmp_path))

    monkeypatch.setattr(attempts_module, "_last", look_then_wait)
    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([held for held in won if held]) == 1


SMALL = [
    "model=tiny-llama",
    "method=rtn",
    "scheme=w4,w3,w2",
    "data=synthetic",
    "data.samples=2",
    "data.window=32",
]


def test_two_sweeps_over_the_same_points_compute_each_once(tmp_path):
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        *SMALL,
        "eval=smoke",
        "eval.windows=1",
        "isolate=false",
    ]
    program = "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *command[3:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    runs = list((tmp_path / "results" / "runs").iterdir())
    assert len(runs) == 4
    for directory in runs:
        lines = (directory / "log.txt").read_text()
        own = [line for line in lines.splitlines() if directory.name in line]
        assert len(own) == 1 and json.loads((directory / "record.json").read_text())["status"] == "done"
