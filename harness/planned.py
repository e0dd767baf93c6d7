"""The configurations of a sweep from its overrides, outside of a Hydra run: nothing is hashed, nothing is fetched."""

import shlex

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from harness.config.run_config import RunConfig, to_run_config
from harness.foundation.errors import UserError
from harness.models.sources import is_here
from harness.planning.preflight import check
from harness.points import expand


def planned(overrides: list[str]) -> tuple[list[RunConfig], list[str]]:
    """Configurations of the points that are legal, and what is wrong with the others.

    Raises:
        UserError: the overrides themselves cannot be read.
    """
    GlobalHydra.instance().clear()
    configs, errors = [], []
    with initialize_config_module("conf", version_base="1.3"):
        try:
            parser = OverridesParser.create()
            parsed = parser.parse_overrides(overrides)
            whole = compose("config", [item.input_line for item in parsed if not item.is_sweep_override()], return_hydra_config=True)
            for grid in whole.hydra.sweeper.grids or [""]:
                for point in expand(parser.parse_overrides([*shlex.split(grid), *overrides])):
                    try:
                        config = to_run_config(compose("config", list(point)))
                        if is_here(config):
                            check(config)
                        configs.append(config)
                    except UserError as error:
                        errors.append(str(error))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from error
    return configs, errors
