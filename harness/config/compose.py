"""The yaml files of `conf`: names of options, and what one of them holds."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import conf
from harness.config.run_config import typed
from methods.contracts.scheme import Scheme

CONF = Path(conf.__file__).parent
FOLDER = CONF / "method"


def method_names() -> list[str]:
    """Every method that has a yaml."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def composed(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """What `conf/NAME.yaml` and the overrides compose to. Not for use inside a Hydra run.

    Raises:
        HydraException: an override is none, or of a key or option that there is not.
    """
    GlobalHydra.instance().clear()  # an earlier run of this process that failed leaves it set
    with initialize_config_module("conf", version_base="1.3"):
        return compose(name, list(overrides))


def method_config(name: str, *overrides: str) -> dict:
    """What `method=<name>` composes to, e.g. with the override "method/solver=quantease"."""
    return OmegaConf.to_container(composed(f"method/{name}", overrides).method)


def scheme_names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("scheme/*.yaml"))


def scheme_named(name: str) -> Scheme:
    return typed(Scheme, option("scheme", name), "scheme")


def option(group: str, name: str) -> dict:
    """What `conf/GROUP/NAME.yaml` itself holds, nothing composed."""
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))


def transform_names() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "transform").glob("*.yaml"))
