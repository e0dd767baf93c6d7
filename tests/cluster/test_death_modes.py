"""Points die in every way under launchers of others, and are recorded as under ours;
tests/sweeps/test_local.py has the same for that.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.dying_sweeps import REASONS, assert_all_died_but_one, points, sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
NEEDED = {
    "ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "submitit_local": ("submitit", "hydra_plugins.hydra_submitit_launcher"),
}


@pytest.mark.parametrize("launcher", NEEDED)
def test_every_way_to_die_is_recorded_and_the_others_finish(launcher, tmp_path, monkeypatch):
    for package in NEEDED[launcher]:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'ptq-bench[ray,slurm]'")
    monkeypatch.chdir(tmp_path)
    code, told = sweep(*points(*REASONS, "never"), f"hydra/launcher={launcher}", "time_limit=0.5")
    assert_all_died_but_one(code, told)
    ours = ("done ", "not computed again: ", "failed ", "oom ", "9 points", "ptq-bench: ")
    assert [line for line in told.splitlines() if not line.startswith(ours)] == []
    assert {path.name for path in Path().iterdir()} <= {"results", "cache"}, (
        "nothing is left where the sweep was started"
    )
