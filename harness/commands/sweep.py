"""Hydra's front door: `ptq-bench run` and `ptq-bench plan` take Hydra overrides and flags."""

import os
import socket
import sys
import warnings
from functools import cache

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.config.explaining import explain, sentence
from harness.config.run_config import plain_config, to_run_config
from harness.foundation.errors import UserError
from harness.run import run as run_point
from harness.sweeps.local import LIBRARIES
from harness.sweeps.supervise import supervise
from harness.sweeps.worker import Worker, gpus

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
    # our settings of a launcher have the name of its schema, on purpose
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/")
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(_point)()
        return 0
    except HydraException as error:
        raise UserError(explain(error, argv)) from error
    except OmegaConfBaseException as error:
        raise UserError(sentence(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError(
            "GROUP/PART=null: a part is left out by GROUP.PART=null, such as method.transform=null"
        ) from error
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
        # so that results, mirrors and models that are given as relative paths are the same everywhere
        os.chdir(place)
    except OSError as error:
        raise UserError(
            f"{place}: {error.strerror} on {socket.gethostname()}; the machines of a cluster must share it"
        ) from error
    if config.isolate:
        return supervise(plain_config(config), _worker(os.environ.get("CUDA_VISIBLE_DEVICES")))
    return run_point(to_run_config(config))["status"]


@cache
def _worker(visible: str | None) -> Worker:
    """One for all points of this process that see the same GPUs."""
    return Worker(preload=() if gpus() else LIBRARIES)
