"""Whatever happens to a child, its run gets a record that says what and where; nothing is run twice."""

import json
import signal
from contextlib import contextmanager

import pytest
from hydra import compose, initialize_config_module

from harness.bookkeeping.description import describe
from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.config.run_config import plain_config, to_run_config
from harness.foundation import resources
from harness.records.attempts import attempts, claim, holder
from harness.records.store import Store
from harness.sweeps import supervise as module
from harness.sweeps.supervise import RUNNING, supervise
from harness.sweeps.worker import Lost, Stopped

HINT = "retry=true goes on from there"


@pytest.fixture
def point(tmp_path):
    with initialize_config_module("conf", version_base="1.3"):
        overrides = [
            "model=tiny-llama",
            "data=synthetic",
            "eval=smoke",
            "method=gptq",
            "scheme=w3",
            f"paths.results={tmp_path}",
        ]
        return compose("config", overrides)


class Child:
    """Stands for a worker: leaves what it is told to leave, and ends as it is told to."""

    def __init__(self, point, end=0, status=None, progress=None):
        self.config, self.end, self.status, self.progress = to_run_config(point), end, status, progress
        self.store, self.key, self.asked = Store(point.paths.results), run_key(self.config), []

    def run(self, job, output, seconds):
        self.asked.append((job, output, seconds))
        directory = self.store.directory(self.key)
        assert holder(directory), "nothing runs unclaimed"
        assert output == directory / "log.txt"
        if self.progress:
            (directory / "progress.json").write_text(json.dumps(self.progress))
        if self.status:
            self.leave(job["attempt"])
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def leave(self, attempt):
        self.store.commit(
            self.key,
            describe(self.config, self.key) | {"attempt": attempt, "status": self.status, "reason": None},
            {},
            {},
            "",
        )

    @property
    def record(self):
        return self.store.record(self.key)


def supervised(point, child):
    return supervise(Point.of_plain(plain_config(point)), child)


def at(stage, done, total, attempt=1):
    return {
        "label": "tiny-llama gptq",
        "stage": stage,
        "done": done,
        "total": total,
        "note": "",
        "attempt": attempt,
    }


def test_what_the_child_records_is_what_stands(point):
    child = Child(point, status="done")
    assert supervised(point, child) == "done" and child.record["attempt"] == 1
    ((job, _, seconds),) = child.asked
    assert (
        job == {"point": plain_config(point), "attempt": 1}
        and json.loads(json.dumps(job)) == job
        and seconds is None
    )
    assert supervised(point, child) == "done"
    assert len(child.asked) == 1 and attempts(child.store.directory(child.key)) == 1, (
        "a finished point is not run again"
    )


ENDS = {
    "killed by SIGKILL (signal 9, which the kernel sends when memory runs out) during quantize 3/14": (
        -signal.SIGKILL,
        at("quantize", 3, 14),
    ),
    "killed by SIGSEGV (signal 11) before it did anything": (-signal.SIGSEGV, None),
    "killed by SIGABRT (signal 6) during evaluate 0/2": (-signal.SIGABRT, at("evaluate", 0, 2)),
    # told by an attempt before
    "ended with exit code 5 before it did anything": (5, at("evaluate", 0, 2, attempt=0)),
    "ended with exit code 0 during evaluate 1/2": (0, at("evaluate", 1, 2)),
    "who started it is gone during quantize 1/2": (Lost("who started it is gone"), at("quantize", 1, 2)),
    # damaged
    "killed by SIGTERM (signal 15) before it did anything": (-signal.SIGTERM, {"stage": "quantize"}),
}


@pytest.mark.parametrize("reason", ENDS)
def test_a_child_that_leaves_no_record_gets_one(point, reason):
    end, progress = ENDS[reason]
    child = Child(point, end, progress=progress)
    assert supervised(point, child) == "failed"
    record = child.record
    assert (
        record["reason"].startswith(reason)
        and record["reason"].endswith(HINT)
        and "\n" not in record["reason"]
    )
    assert record["attempt"] == 1 and record["method"]["name"] == "gptq" and record["run_key"] == child.key
    assert not isinstance(end, int) or str(child.store.directory(child.key) / "log.txt") in record["reason"]
    assert holder(child.store.directory(child.key)) is None


def test_a_child_that_the_kernel_kills_for_memory(point, monkeypatch):
    counts = iter([4, 5])
    monkeypatch.setattr("harness.sweeps.supervise.killed_for_memory", lambda: next(counts))
    child = Child(point, -signal.SIGKILL, progress=at("quantize", 3, 14))
    assert supervised(point, child) == "oom"
    assert "SIGKILL" in child.record["reason"] and "data.batch_size" in child.record["reason"]


def test_the_time_limit_is_in_minutes(point):
    point.time_limit = 1.5
    child = Child(point, None, progress=at("quantize", 3, 14))
    assert supervised(point, child) == "failed"
    assert child.asked[0][2] == 90
    assert child.record["reason"].startswith("stopped after 1.5 minutes (time_limit) during quantize 3/14;")


@pytest.mark.parametrize("end", [Stopped(), KeyboardInterrupt()], ids=["stopped", "interrupted"])
def test_what_is_interrupted_leaves_no_record_and_no_claim(point, end):
    child = Child(point, end, progress=at("quantize", 3, 14))
    with pytest.raises(type(end)):
        supervised(point, child)
    assert child.record is None and holder(child.store.directory(child.key)) is None
    assert supervised(point, Child(point, status="done")) == "done" and child.record["attempt"] == 2


def test_the_record_of_an_attempt_before_is_replaced(point):
    first, second = (
        Child(point, status="failed"),
        Child(point, -signal.SIGABRT, progress=at("evaluate", 0, 2, attempt=2)),
    )
    assert supervised(point, first) == "failed"
    assert supervised(point, second) == "failed"
    assert second.record["attempt"] == 2 and second.record["reason"].startswith(
        "killed by SIGABRT (signal 6) during evaluate 0/2"
    )


def test_a_child_that_dies_after_its_record_is_done(point):
    assert supervised(point, Child(point, -signal.SIGSEGV, status="done")) == "done"


def test_a_point_that_somebody_is_at(point):
    child = Child(point, status="done")
    with claim(child.store.open(child.key)):
        assert supervised(point, child) == RUNNING
    assert child.asked == [] and child.record is None


def test_a_point_that_somebody_finishes_while_we_claim_it(point, monkeypatch):
    child = Child(point, status="done")

    @contextmanager
    def late(directory):
        child.leave(attempt=1)
        yield

    monkeypatch.setattr(module, "claim", late)
    assert supervised(point, child) == "done" and child.asked == []


def test_how_often_the_kernel_killed_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert resources.killed_for_memory() == 0
    own, events = tmp_path / "proc/self/cgroup", tmp_path / "sys/fs/cgroup/job 7/memory.events"
    for path in (own, events):
        path.parent.mkdir(parents=True)
    own.write_text("4:memory:/old\n0::/job 7\n")
    assert resources.killed_for_memory() == 0
    for text, count in {
        "low 0\noom 8\noom_kill 3\noom_group_kill 1\n": 3,
        "low 0\n": 0,
        "": 0,
        "oom_kill": 0,
    }.items():
        events.write_text(text)
        assert resources.killed_for_memory() == count
