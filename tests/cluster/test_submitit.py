"""A sweep of which submitit starts every point, one of whose jobs is killed, ends as the same sweep without
it; and Slurm's settings.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.helpers.dying_sweeps import (
    eventually,
    held,
    in_their_last_block,
    layers_told,
    lives,
    points,
    records,
    same_but_for_time,
    start,
    undisturbed,
)

pytest.importorskip("submitit", reason="pip install 'ptq-bench[slurm]'")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'ptq-bench[slurm]'")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
POINTS = points("hold", after="15,16")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return undisturbed(POINTS, tmp_path_factory.mktemp("local"))


def in_its_last_block() -> tuple[Path, int, int]:
    """A run, the process that supervises it and the one that computes it."""
    run, _ = in_their_last_block(2)
    return (
        run,
        json.loads((run / "attempts" / "0001.json").read_text())["owner"]["pid"],
        int(layers_told(run)[0][0]),
    )


def assert_went_on(process, run: Path, expected) -> None:
    _, told = process.communicate(timeout=400)
    assert (
        process.returncode == 0 and "2 points: 2 done (0 from before)" in told and "Traceback" not in told
    ), told
    found = records()
    assert {name: same_but_for_time(record) for name, record in found.items()} == expected
    assert sorted(record["attempt"] for record in found.values()) == [1, 1, 2]
    assert json.loads((run / "record.json").read_text())["attempt"] == 2
    assert "blocks that an attempt before has finished: 2 of 3" in (run / "log.txt").read_text()
    assert {path.name for path in Path().iterdir()} == {"results"}


def test_a_job_is_killed(expected):
    with held():
        process = start(*POINTS, "hydra/launcher=submitit_local")
        run, pid, child = in_its_last_block()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not lives(child), 20)
    assert_went_on(process, run, expected)


def test_slurm_preempts_a_job(expected, tmp_path):
    """With programs in place of Slurm's, so that what they are asked for and a requeue are tested, but no
    cluster is.
    """
    slurm, state = Path(__file__).parent / "slurm", tmp_path / "slurm"
    state.mkdir()
    path = f"{slurm}{os.pathsep}{os.environ['PATH']}"
    with held():
        process = start(
            *POINTS, "hydra/launcher=slurm", "hydra.launcher.partition=big", PATH=path, FAKE_SLURM=str(state)
        )
        run, pid, child = in_its_last_block()
        os.kill(pid, signal.SIGUSR2)  # as Slurm signals what submitit has asked for
        eventually(lambda: not lives(child), 20)
    assert_went_on(process, run, expected)
    _, array = sorted(state.glob("*.sh"))
    asked = {line for line in array.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {
        "array=0-1%2",
        "partition=big",
        "gpus-per-node=1",
        "time=720",
        "requeue",
        "mem=64GB",
        "signal=USR2@120",
    } <= {line.removeprefix("#SBATCH --") for line in asked}
