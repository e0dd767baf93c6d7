"""Points of a sweep for tests of what is known before it runs."""

from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_module

from harness.config.run_config import RunConfig, to_run_config
from harness.foundation.seals import seal
from harness.models.shape import ModelShape

TINY = ["model=tiny-llama", "data=synthetic", "eval=smoke", "device=cpu"]
LLAMA_7B = ModelShape(  # of LLaMA-7B
    family="llama",
    groups=(((4096, 4096),) * 3, ((4096, 4096),), ((11008, 4096),) * 2, ((4096, 11008),)),
    paths={},
    seams=(),
    blocks=32,
    width=4096,
    vocabulary=32000,
    parameters=6_738_415_616,
    context=2048,
    quantizable_activations=True,
)


def config(*overrides: str, results: str = "results") -> RunConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return to_run_config(compose("config", [*TINY, f"paths.results={results}", *overrides]))


def of_model(config: RunConfig, identifier: str) -> RunConfig:
    return replace(config, model=replace(config.model, id=identifier, name="m"))


def leave_record(results: Path, key: str, **fields) -> None:
    directory = results / "runs" / key
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "record.json").write_bytes(seal({"run_key": key, "status": "done", "reason": None} | fields))
