"""`ptq-bench doctor`: a line for everything a run needs, and the exit code of what is missing."""

import pytest

from harness.cli import main
from harness.commands import doctor
from harness.sweeps.points import planned

SWEEP = ["model=tiny-llama", "data=synthetic", "eval=smoke", "data.samples=64", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_the_machine_is_described(capsys, tmp_path):
    (tmp_path / "cache" / "statistics").mkdir(parents=True)
    (tmp_path / "cache" / "statistics" / "block").write_bytes(b"0" * 2**20)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for expected in (
        "torch 2.",
        "cpu: ",
        "results (paths.results)",
        "cache holds 0.0 GiB: statistics",
        "asset wiki: not here yet",
        "hub: ",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert any("launchers (hydra/launcher=): local" in line for line in lines)
    assert any("trackers (tracker=): none, wandb" in line for line in lines)
    assert all(line[:4].strip() in ("ok", "note", "bad") for line in lines)


def test_a_planned_sweep_is_looked_at(capsys):
    assert main(["doctor", *SWEEP, "method=rtn,gptq", "scheme=w4,w3"]) == 0
    assert "sweep: 4 points, nothing stands in their way" in capsys.readouterr().out
    assert main(["doctor", *SWEEP, "method=rtn", "scheme.group_size=48,32", "eval.window=9999,64"]) == 1
    out = capsys.readouterr().out
    assert out.count("bad") == 2 and "scheme.group_size=48" in out and "eval.window=9999" in out


def test_words_that_are_no_overrides_are_one_line(capsys):
    assert main(["doctor", "method=nothing"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_grids_of_an_experiment_are_expanded(monkeypatch):
    monkeypatch.setattr("harness.sweeps.points.check", lambda config: None)  # its model is a real one
    configs, errors = planned(["experiment=demo", "seed=3"])
    assert len(configs) == 11 and not errors and {config.seed for config in configs} == {3}


def test_what_is_not_installed_is_named():
    assert (
        doctor._there({"ray": "json", "slurm": "no_such_module.inside"}, own=("local",))
        == "local, ray; not installed: slurm"
    )
