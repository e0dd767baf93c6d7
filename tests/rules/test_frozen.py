"""What must not change without somebody meaning it: run keys, the published report, and how old records are
read.

Whoever means to move a key raises `schema.NUMBERS` and writes the keys anew: `python -m
tests.rules.test_frozen`. Whoever means to change a report makes `reports/published` anew, with the command in
the README.
"""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from harness.bookkeeping import keys
from harness.bookkeeping.keys import baseline_of, run_key, statistics_key
from harness.records.store import Store
from harness.reporting.frames import load_records
from harness.reporting.writing import write_report
from harness.sweeps import points

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "published"
KEYS = Path(__file__).with_name("frozen_keys.json")
TASKS = {"piqa": "piqa", "ai2_arc": "arc_easy"}  # by their directories on a mirror
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@cache
def configs_of(experiment):
    """The configurations of an experiment's points, though its models and texts are not here; composing them
    takes most of the time.
    """
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        for name in ("check", "check_texts"):
            patch.setattr(points, name, lambda config: None)
        patch.setattr(points, "run_key", lambda config: str(config))
        arguments = [f"experiment={experiment}"]
        config = compose("config", arguments, return_hydra_config=True)
        made = points.Points(GlobalHydra.instance().config_loader(), config).of(
            list(config.hydra.sweeper.grids), arguments
        )
    assert not [point.error for point in made if point.error]
    return [point.config for point in made]


def keys_of(experiment, monkeypatch):
    """Run keys of all points, of their float models and of their statistics, as if every model and text were
    its own hash.
    """
    monkeypatch.setattr(keys, "fingerprint", lambda config: f"sha256:{config.id}")
    monkeypatch.setattr(keys, "text_sha256", lambda name, split, mirror: f"{name}/{split}")
    configs = configs_of(experiment)
    made = {run_key(config) for config in configs}
    return {
        "points": sorted(made),
        "float models": sorted({run_key(baseline_of(config)) for config in configs} - made),
        "statistics": sorted({statistics_key(config) for config in configs}),
    }


def test_the_keys_of_every_experiment_stay(monkeypatch):
    assert {name: keys_of(name, monkeypatch) for name in EXPERIMENTS} == json.loads(KEYS.read_text())


def published_configs():
    return [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(RECORDS.glob("runs/*/config.yaml"))
    ]


def test_nothing_of_the_published_sweep_is_missing(monkeypatch):
    """Its keys are made with the hashes that its records hold, so neither models nor texts are needed."""
    records = [json.loads(path.read_bytes()) for path in sorted(RECORDS.glob("runs/*/record.json"))]
    models = {record["model"]["id"]: record["model"]["fingerprint"] for record in records}
    texts, tasks = {}, {}
    for config in published_configs():
        texts |= {(name, "test"): sha256 for name, sha256 in config["eval"]["texts"].items()}
        texts |= {(config["data"]["name"], "train"): config["data"]["text"]} if "data" in config else {}
        tasks |= config["eval"]["task_data"]
    monkeypatch.setattr(keys, "fingerprint", lambda config: models[config.id])
    monkeypatch.setattr(keys, "text_sha256", lambda name, split, mirror: texts[name, split])
    monkeypatch.setattr(keys, "directory_sha256", lambda directory: tasks[TASKS[directory.name]])
    configs = configs_of("published")
    assert len(configs) == 71
    for config in configs:
        config = replace(config, eval=replace(config.eval, mirror="/no/such/mirror"))
        for point in (config, baseline_of(config)):
            assert Store(RECORDS).finished(run_key(point), save=False), run_key(point)


def test_records_of_the_first_version_are_read():
    records = load_records(RECORDS)
    assert len(records.frame) == 75 and not records.left_out
    assert set(records.frame["status"]) == {"done"}


@pytest.mark.parametrize(
    "formats", [("md", "tex", "csv", "html"), pytest.param(("pdf",), marks=pytest.mark.slow)]
)
def test_the_published_report_stays(tmp_path, formats):
    """Byte for byte, figures included: made beside a copy of the records, where its links start alike."""
    shutil.copytree(RECORDS, tmp_path / "results" / "published")
    write_report(tmp_path / "results" / "published", tmp_path / "reports", "published", formats=formats)
    made = {
        path.relative_to(tmp_path / "reports") for path in (tmp_path / "reports").rglob("*") if path.is_file()
    }
    assert len(made) >= len(formats)
    for name in sorted(made):
        assert (tmp_path / "reports" / name).read_bytes() == (ROOT / "reports" / name).read_bytes(), name


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        KEYS.write_text(json.dumps({name: keys_of(name, patch) for name in EXPERIMENTS}, indent=1) + "\n")
