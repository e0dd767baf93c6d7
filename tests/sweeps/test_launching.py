"""A sweep launches what is missing until nothing is, whatever its launcher loses on the way, and gives up
where that leads nowhere.
"""

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_module

from harness.bookkeeping.description import describe
from harness.bookkeeping.keys import run_key
from harness.config.run_config import to_run_config
from harness.records.attempts import attempts, claim
from harness.records.store import Store
from harness.sweeps.sweep import LOSSES, Point, Sweep


@pytest.fixture
def points(tmp_path):
    with initialize_config_module("conf", version_base="1.3"):
        config = to_run_config(
            compose(
                "config", ["model=tiny-llama", "data=synthetic", "eval=smoke", f"paths.results={tmp_path}"]
            )
        )
    configs = [replace(config, seed=seed) for seed in range(8)]
    return [Point((f"seed={config.seed}",), config=config, key=run_key(config)) for config in configs]


class Launched:
    """Stands for a launcher: `does` says what becomes of each point that it is given."""

    def __init__(self, points, monkeypatch, does):
        self.does, self.rounds = does, []
        monkeypatch.setattr(Sweep, "_launch", lambda sweep, given: self.launch(given))
        Sweep(None, None, None)._settle(points)

    def launch(self, given):
        self.rounds.append([point.overrides[0] for point in given])
        for point in given:
            if not self.does(point, attempts(point.directory)):
                return  # raised, and the rest is still waiting somewhere


def finish(point) -> bool:
    with claim(point.directory) as mine:
        record = describe(point.config, point.key) | {
            "attempt": mine.number,
            "status": "done",
            "reason": None,
        }
        Store(point.config.paths.results).commit(point.key, record, {}, {}, "")
    return True


def lose(point) -> bool:
    with claim(point.directory):
        return False


def test_what_is_missing_is_launched_again(points, monkeypatch):
    launched = Launched(
        points[:3],
        monkeypatch,
        lambda point, before: lose(point) if before == 0 and point is points[1] else finish(point),
    )
    assert launched.rounds == [["seed=0", "seed=1", "seed=2"], ["seed=1", "seed=2"]]


def test_losing_each_point_once_costs_none(points, monkeypatch):
    """More losses than a single point may have: those that never began are not to blame."""
    assert len(points) > 2 * LOSSES
    Launched(points, monkeypatch, lambda point, before: lose(point) if before == 0 else finish(point))
    assert [point.record()["attempt"] for point in points] == [2] * len(points)


def test_a_point_that_is_always_lost_is_given_up(points, monkeypatch):
    Launched(
        points[:3], monkeypatch, lambda point, before: lose(point) if point is points[0] else finish(point)
    )
    assert attempts(points[0].directory) == LOSSES and points[0].record() is None
    assert [point.record()["attempt"] for point in points[1:3]] == [1, 1]


def test_a_launcher_that_begins_nothing_is_given_up(points, monkeypatch):
    launched = Launched(points, monkeypatch, lambda point, before: False)
    assert len(launched.rounds) == LOSSES and all(attempts(point.directory) == 0 for point in points)
