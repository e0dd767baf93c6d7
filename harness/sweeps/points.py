"""The points of a sweep: grids of overrides, expanded, composed, typed and checked."""

import copy
import itertools
import shlex

from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.config.run_config import SCALARS, RunConfig, from_plain, plain_config, to_run_config
from harness.foundation.errors import UserError
from harness.models.sources import source_of
from harness.planning.preflight import check


class Points:
    """Makes points from overrides of one Hydra configuration."""

    def __init__(self, loader: ConfigLoader, config: DictConfig):
        self.loader, self.config = loader, config
        self._composed_choices: dict[tuple[str, ...], DictConfig] = {}

    def of(self, grids: list[str], arguments: list[str]) -> list[Point]:
        """Every distinct point of the union of grids, in the order written; `arguments` go to each grid and
        win over it.
        """
        parser = OverridesParser.create(config_loader=self.loader)
        combinations = []
        for grid in grids:
            combinations += expand(parser.parse_overrides([*shlex.split(grid), *arguments]))
        points = [self.point(overrides) for overrides in dict.fromkeys(combinations)]
        return list({point.key or point.overrides: point for point in points}.values())

    def point(self, overrides: tuple[str, ...]) -> Point:
        try:
            plain = plain_config(self._composed(overrides))
            config = from_plain(plain)
            check(config)
            return Point(overrides, config, run_key(config), plain)
        except UserError as error:
            return Point(overrides, error=str(error))

    def _composed(self, overrides: tuple[str, ...]) -> DictConfig:
        """As Hydra composes it, in a tenth of the time: the choices of options once for all points that share
        them, then the values.
        """
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(list(overrides))
        values = [
            item for item in parsed if item.type == OverrideType.CHANGE and _is_value(item.key_or_group)
        ]
        choices = tuple(item.input_line for item in parsed if item not in values)
        if choices not in self._composed_choices:
            composed = self.loader.load_sweep_config(self.config, list(choices))
            self._composed_choices[choices] = OmegaConf.masked_copy(
                composed, [key for key in composed if key != "hydra"]
            )
        config = copy.deepcopy(self._composed_choices[choices])
        try:
            for item in values:
                OmegaConf.update(config, item.key_or_group, item.value(), merge=True)
        except OmegaConfBaseException:
            return self.loader.load_sweep_config(self.config, list(overrides))  # which says it better
        return config


def _is_value(key: str) -> bool:
    """Does an override of this key set a value, rather than choose an option of a group?"""
    return key in SCALARS or ("." in key and not key.startswith("hydra"))


def expand(overrides) -> list[tuple[str, ...]]:
    """The grid that parsed overrides span. Of two overrides of one key the later one counts.

    Raises:
        UserError: a sweep that is no list of values, such as interval(0, 1).
    """
    axes = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise UserError(
                    f"{override.input_line}: only lists of values can be swept, such as {key}=1,2,3"
                )
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            axes[key] = [override.input_line]
    return list(itertools.product(*axes.values()))


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
            whole = compose(
                "config",
                [item.input_line for item in parsed if not item.is_sweep_override()],
                return_hydra_config=True,
            )
            for grid in whole.hydra.sweeper.grids or [""]:
                for point in expand(parser.parse_overrides([*shlex.split(grid), *overrides])):
                    try:
                        config = to_run_config(compose("config", list(point)))
                        if source_of(config.model).is_here():
                            check(config)
                        configs.append(config)
                    except UserError as error:
                        errors.append(str(error))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from error
    return configs, errors
