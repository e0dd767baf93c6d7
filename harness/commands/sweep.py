"""Hydra's front door: `ptq-bench run` and `ptq-bench plan` take Hydra overrides and flags."""

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.bookkeeping.point import Point
from harness.config.arguments import understood
from harness.config.explaining import explain, sentence
from harness.config.run_config import plain_config
from harness.foundation.errors import UserError
from harness.run import run as run_point
from harness.sweeps.local import LIBRARIES
from harness.sweeps.points import first, left_to_points
from harness.sweeps.supervise import supervise
from harness.sweeps.worker import Worker, gpus

SHOW_FIRST = ("--help", "-h", "--cfg", "-c", "--info", "-i")  # flags that show a configuration: the first


def run(argv: list[str]) -> int:
    """Run the sweep that the overrides describe; 0 if every point is done or skipped."""
    return _hydra("ptq-bench run", argv)


def plan(argv: list[str]) -> int:
    """Print the sweep that the overrides describe."""
    return _hydra("ptq-bench plan", [*argv, "hydra.sweeper.plan=true"])


def _hydra(program: str, argv: list[str]) -> int:
    flags, overrides = understood(argv)
    if any(flag.partition("=")[0] in SHOW_FIRST for flag in flags):
        arguments = [*flags, *first(overrides)]
    else:
        arguments = [*flags, "--multirun", *map(left_to_points, overrides)]
    # our settings of a launcher have the name of its schema, on purpose
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/")
    try:
        with _called(program, arguments):
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(_point)()
        return 0
    except HydraException as error:
        if overrides and {"--help", "-h"} & set(flags):
            return _hydra(program, flags)
        raise UserError(explain(error, overrides)) from error
    except OmegaConfBaseException as error:
        raise UserError(sentence(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError(
            "GROUP/PART=null: a part is left out by GROUP.PART=null, such as method.transform=null"
        ) from error


@contextmanager
def _called(program: str, arguments: list[str]) -> Iterator[None]:
    """As if this program had been called so; Hydra then raises its errors, and we say them in one line."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [program, *arguments], "1"
    try:
        yield
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
    point = Point.of_plain(plain_config(config))
    if point.config.isolate:
        return supervise(point, _worker(os.environ.get("CUDA_VISIBLE_DEVICES")))
    return run_point(point)["status"]


@cache
def _worker(visible: str | None) -> Worker:
    """One for all points of this process that see the same GPUs."""
    return Worker(preload=() if gpus() else LIBRARIES)
