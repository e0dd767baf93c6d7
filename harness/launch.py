"""Hydra's front door: `ptq-bench run` and `ptq-bench plan` take Hydra overrides and flags."""

import difflib
import os
import re
import socket
import sys
import warnings
from functools import cache

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import no_such_key, plain_config, to_run_config
from harness.foundation.errors import UserError
from harness.run import run as run_point
from harness.supervise import supervise
from harness.worker import Worker, gpus

HYDRA_OPTIONS = ("--config", "--cfg", "--info", "--package", "--experimental")  # those that take a value


def run(argv: list[str]) -> int:
    """Run the sweep that the overrides describe; 0 if every point is done or skipped."""
    return _hydra("ptq-bench run", argv)


def plan(argv: list[str]) -> int:
    """Print the sweep that the overrides describe."""
    return _hydra("ptq-bench plan", [*argv, "hydra.sweeper.plan=true"])


def _hydra(program: str, argv: list[str]) -> int:
    for item in argv:
        if item.startswith("--") and "=" in item and not item.startswith(HYDRA_OPTIONS):
            raise UserError(f"{item}: overrides are written without dashes: {item.lstrip('-')}")
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [program, *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and we say it in one line
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/")  # our settings of a launcher have the name of its schema, on purpose
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
    """One point, in whatever process the launcher chose, or in a child of it.

    Raises:
        UserError: that process is on a machine without the directory that the sweep was started in.
    """
    place = HydraConfig.get().runtime.cwd
    try:
        os.chdir(place)  # so that results, mirrors and models that are given as relative paths are the same everywhere
    except OSError as error:
        raise UserError(f"{place}: {error.strerror} on {socket.gethostname()}; the machines of a cluster must share it") from error
    if config.isolate:
        return supervise(plain_config(config), _worker(os.environ.get("CUDA_VISIBLE_DEVICES")))
    return run_point(to_run_config(config))["status"]


@cache
def _worker(visible: str | None) -> Worker:
    """One for all points of this process that see the same GPUs."""
    return Worker(preload=not gpus())


def explain(error: Exception, overrides: list[str]) -> str:
    """A Hydra error in one line, with the nearest existing name."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '[^']+' is not in struct.*?full_key: (\S+)", text, re.S)
    if unknown:
        told = no_such_key(unknown[1])
        return told if "not supported" in told else told + _nearest(unknown[1], _keys(unknown[1], overrides))
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
