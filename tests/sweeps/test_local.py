"""The points of a sweep on this machine: several at once, each with a GPU of its own, and none takes others
along when it dies.
"""

import signal
import threading
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from harness.cli import main
from harness.config.run_config import plain_config
from harness.foundation.errors import UserError
from harness.sweeps import local
from tests.helpers.dying_sweeps import (
    LAST_BLOCK,
    REASONS,
    assert_all_died_but_one,
    held,
    in_their_last_block,
    layers_told,
    lives,
    points,
    records,
    runs,
    start,
    sweep,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local._workers.cache_clear()
    yield
    local._workers.cache_clear()


@pytest.fixture
def given():
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", ["model=tiny-llama", "data=synthetic", "eval=smoke"])
    return [plain_config(config) | {"seed": seed} for seed in range(12)]


def leases(monkeypatch, given, slots, expected) -> dict[str | None, list[tuple[float, float]]]:
    """When each visible GPU (or None) was in use; a point does nothing but meet the others, as many at once
    as are `expected`.
    """
    used, lock, busy, together = {}, threading.Lock(), set(), threading.Barrier(expected, timeout=60)

    def supervise(point, worker):
        assert worker not in busy, "one worker, two points"
        busy.add(worker)
        begun = time.monotonic()
        together.wait()
        time.sleep(0.02 * (1 + point.config.seed % 3))
        busy.remove(worker)
        with lock:
            used.setdefault(worker._environment.get("CUDA_VISIBLE_DEVICES"), []).append(
                (begun, time.monotonic())
            )
        return f"status {point.config.seed}"

    with monkeypatch.context() as patch:
        patch.setattr(local, "supervise", supervise)
        returned = local.launch(given, slots)
    assert returned == [f"status {number}" for number in range(len(given))], "in order"
    return used


def at_once(intervals) -> int:
    """How many intervals overlap at most."""
    return max(sum(begun <= moment < ended for begun, ended in intervals) for moment, _ in intervals)


@pytest.mark.parametrize(
    ("visible", "slots", "gpus", "share"), [("a,b", None, 2, 1), ("a,b,c", 2, 2, 1), ("a,b", 4, 2, 2)]
)
def test_no_gpu_is_given_to_more_points_than_share_it(visible, slots, gpus, share, given, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    used = leases(monkeypatch, given, slots, gpus * share)
    assert sorted(used) == visible.split(",")[:gpus]
    assert [at_once(intervals) for intervals in used.values()] == [share] * gpus
    assert sum(map(len, used.values())) == len(given)


def test_without_gpus_there_is_one_point_at_a_time_unless_slots_say_more(given, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert at_once(leases(monkeypatch, given, None, 1)[None]) == 1
    assert at_once(leases(monkeypatch, given, 3, 3)[None]) == 3
    cores = [worker._environment["OMP_NUM_THREADS"] for worker in local._workers(3)]
    monkeypatch.setattr(local.os, "cpu_count", lambda: 8)
    local._workers.cache_clear()
    assert [worker._environment["OMP_NUM_THREADS"] for worker in local._workers(3)] == ["2"] * 3 and len(
        cores
    ) == 3


def test_slots_that_make_no_sense(given, capsys):
    with pytest.raises(UserError, match=r"hydra\.launcher\.slots=0: must be at least 1"):
        local.launch(given, 0)
    with pytest.raises(UserError, match=r"hydra\.launcher\.slots=nan: must be at least 1"):
        local.launch(given, float("nan"))
    for config in given:
        config["isolate"] = False
    with pytest.raises(UserError, match=r"hydra\.launcher\.slots=2: .*isolate=true"):
        local.launch(given, 2)
    quick = ["model=tiny-llama", "data=synthetic", "eval=smoke"]
    assert main(["run", *quick, "hydra.launcher.slots=0"]) == 2
    assert (
        capsys.readouterr().err
        == "ptq-bench: hydra.launcher.slots=0: must be at least 1 (null: one per GPU)\n"
    )


def test_every_way_to_die_is_recorded_and_the_others_finish():
    code, told = sweep(*points(*REASONS, "never"), "hydra.launcher.slots=2", "time_limit=0.25")
    assert_all_died_but_one(code, told)
    ended = {
        way: (Path("results/runs") / record["run_key"] / "record.json").stat().st_mtime
        for way, record in records().items()
    }
    assert ended["raise"] < ended["hang"], "the second point, while the first one hung"


def test_interrupted_and_gone_on_with():
    overrides = [*points("hold", after="15,16"), "hydra.launcher.slots=2"]
    with held():
        process = start(*overrides)
        pids = {int(pid) for run in in_their_last_block(2) for pid, *_ in layers_told(run)}
        assert len(pids) == 2 and all(map(lives, pids))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told.splitlines()[-1].startswith(
        "ptq-bench: interrupted; finished points are kept"
    )
    assert "Traceback" not in told and "failed" not in told
    assert not any(map(lives, pids)) and set(records()) == {"float"}

    code, told = sweep(*overrides)
    assert code == 0 and "2 points: 2 done (0 from before)" in told
    for run in runs("death"):
        assert "blocks that an attempt before has finished: 2 of 3" in (run / "log.txt").read_text()
    assert sorted(record["attempt"] for record in records().values()) == [1, 2, 2]


@pytest.mark.slow
def test_children_see_their_gpu_and_no_other(tmp_path, monkeypatch):
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    smi.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = f"{smi.parent}:/usr/bin:/bin"
    with held():
        process = start(*points("hold", after=LAST_BLOCK), "device=cpu", PATH=path)
        in_their_last_block(2)
    _, told = process.communicate()
    assert process.returncode == 0, told
    used = {}
    for run in runs("death"):
        told = layers_told(run)
        (gpu,) = {gpu for _, gpu, _ in told}
        used.setdefault(gpu, []).append((float(told[0][2]), float(told[-1][2])))
    assert sorted(used) == ["GPU-a", "GPU-b"]
    assert [at_once(intervals) for intervals in used.values()] == [1, 1]
    assert at_once([interval for intervals in used.values() for interval in intervals]) == 2
