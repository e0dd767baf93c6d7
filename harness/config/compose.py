"""The yaml files of `conf`: names of options, and what one of them holds."""

from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import conf
from harness.config.run_config import typed
from methods.contracts.scheme import Scheme

CONF = Path(conf.__file__).parent
FOLDER = Path(conf.__file__).parent / "method"


def method_names() -> list[str]:
    """Every method that has a yaml."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def method_config(name: str, *overrides: str) -> dict:
    """What `method=<name>` composes to, e.g. with the override "method/solver=quantease". Not for use inside
    a Hydra run.
    """
    GlobalHydra.instance().clear()  # an earlier run of this process that failed leaves it set
    with initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_container(compose(f"method/{name}", list(overrides)).method)


def scheme_names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("scheme/*.yaml"))


def scheme_named(name: str) -> Scheme:
    return typed(Scheme, _read("scheme", name), "scheme")


def _read(group: str, name: str) -> dict:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))


def transform_names() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "transform").glob("*.yaml"))
