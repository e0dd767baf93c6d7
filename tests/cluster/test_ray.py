"""A sweep on a Ray cluster of two nodes, one of whose processes or nodes is lost, ends as the same sweep on
one machine.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.helpers.dying_sweeps import (
    LAST_BLOCK,
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
    with_startup,
)

pytest.importorskip("ray", reason="pip install 'ptq-bench[ray]'")
pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install 'ptq-bench[ray]'")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
POINTS = points("hold", after=LAST_BLOCK)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return undisturbed(POINTS, tmp_path_factory.mktemp("local"))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes with a core each, started somewhere else than the sweep will be."""
    from ray.cluster_utils import Cluster

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PYTHONPATH", with_startup())
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # a full machine is not what is tested
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield cluster, second
    finally:
        cluster.shutdown()


def assert_all_done_once(process, expected, lost: int) -> None:
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert "Traceback" not in told and "4 points: 4 done (0 from before)" in told
    found = records()
    assert {name: same_but_for_time(record) for name, record in found.items()} == expected
    assert sorted(record["attempt"] for record in found.values()) == [1] * (5 - lost) + [2] * lost
    for record in found.values():
        begun = list((Path("results/runs") / record["run_key"] / "attempts").iterdir())
        assert len(begun) == record["attempt"], "begun, but of no use"
    assert {path.name for path in Path().iterdir()} == {"results"}


def test_a_worker_process_is_killed(cluster, expected):
    with held():
        process = start(
            *POINTS, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster[0].address}"
        )
        run, _ = in_their_last_block(2)
        pid = int(layers_told(run)[0][0])
        os.kill(json.loads((run / "attempts" / "0001.json").read_text())["owner"]["pid"], signal.SIGKILL)
        eventually(lambda: not lives(pid), 20)
    assert_all_done_once(process, expected, lost=1)
    assert "blocks that an attempt before has finished" in (run / "log.txt").read_text()


def test_a_node_is_lost(cluster, expected):
    with held():
        process = start(
            *POINTS, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster[0].address}"
        )
        pids = [int(layers_told(run)[0][0]) for run in in_their_last_block(2)]
        cluster[0].remove_node(cluster[1], allow_graceful=False)
        eventually(lambda: sorted(map(lives, pids)) == [False, True], 60)
    assert_all_done_once(process, expected, lost=1)
