"""Hydra's front door: `ptq-bench run` and `ptq-bench plan` take Hydra overrides and flags."""

import difflib
import os
import re
import sys

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import to_run_config
from harness.errors import UserError
from harness.run import run as run_point


def run(argv: list[str]) -> int:
    """Run the sweep that the overrides describe; 0 if every point is done or skipped."""
    return _hydra("ptq-bench run", argv)


def plan(argv: list[str]) -> int:
    """Print the sweep that the overrides describe."""
    return _hydra("ptq-bench plan", [*argv, "hydra.sweeper.plan=true"])


def _hydra(program: str, argv: list[str]) -> int:
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [program, *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say it in one line
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(_point)()
        return 0
    except HydraException as error:
        raise UserError(explain(error, argv)) from error
    except OmegaConfBaseException as error:
        raise UserError(_sentence(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError("GROUP/PART=null: a part is left out by GROUP.PART=null, such as method.transform=null") from error
    finally:
        sys.argv = before[0]
        os.environ.pop("HYDRA_FULL_ERROR")
        if before[1] is not None:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


def _point(config: DictConfig) -> str:
    """One point, in whatever process the launcher chose."""
    return run_point(to_run_config(config))["status"]


def explain(error: Exception, overrides: list[str]) -> str:
    """A Hydra error in one line, with the nearest existing name."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '[^']+' is not in struct.*?full_key: (\S+)", text, re.S)
    if unknown:
        return f"{unknown[1]}: no such key{_nearest(unknown[1], _keys(unknown[1], overrides))}"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'.*?Available options in '[^']+':\s*(.*)", text, re.S):
        options = re.split(r"\n\s*(?:\n|Config search path)", match[3])[0].split()
        return f"{match[1]}={match[2]}: no such option{_nearest(match[2], options)}; choose among {', '.join(options)}"
    return _sentence(error)


def _sentence(error: BaseException) -> str:
    cause = f": {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(f"{error}{cause}".split())


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if not close and "." in name:  # the right leaf below the wrong group
        close = [known for known in names if known.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {close[0]}?" if close else ""


def _keys(wrong: str, overrides: list[str]) -> list[str]:
    """Every key of the configuration that the overrides ask for, but for the wrong one; dotted."""
    others = [item for item in overrides if not item.startswith("-") and item.lstrip("+~").split("=")[0] != wrong and "," not in item]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        try:
            config = hydra.compose("config", others)
        except HydraException:
            config = hydra.compose("config")
    keys: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            keys.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config), "")
    return keys
