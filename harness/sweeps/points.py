"""The points of a sweep: grids of overrides, expanded, composed, typed and checked."""

import copy
import itertools
import shlex
from collections.abc import Iterable, Sequence

from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.bookkeeping.keys import run_key
from harness.bookkeeping.point import Point
from harness.config.arguments import overrides_of
from harness.config.explaining import explain, not_in_all, sentence
from harness.config.run_config import GROUPS, SCALARS, RunConfig, from_plain, plain_config
from harness.config.shorthand import meant, parsed, parts
from harness.foundation.errors import UserError
from harness.models.sources import source_of
from harness.planning.preflight import check
from harness.planning.texts import check_texts

# what a key begins with whose options differ from point to point
OF_POINTS = tuple(f"{group}{sign}" for group in (*GROUPS, "method") if group != "paths" for sign in "./")


class Points:
    """Makes points from overrides of one Hydra configuration."""

    def __init__(self, loader: ConfigLoader, config: DictConfig):
        self.loader, self.config = loader, config
        self._composed_choices: dict[tuple[str, ...], DictConfig] = {}

    def of(self, grids: list[str], arguments: list[str], keyed: bool = True) -> list[Point]:
        """Every distinct point of the union of grids, in the order written; `arguments` go to each grid and
        win over it. For `keyed` see `point`.
        """
        parser = OverridesParser.create(config_loader=self.loader)
        combinations = []
        for grid in grids:
            combinations += expand(parser.parse_overrides([*overrides_of(shlex.split(grid)), *arguments]))
        points = self._each(list(dict.fromkeys(map(as_meant, combinations))), keyed)
        return list({_identity(point): point for point in points}.values())

    def _each(self, combinations: list[tuple[str, ...]], keyed: bool) -> list[Point]:
        points, failed = [], {}
        for overrides in combinations:
            try:
                points.append(self.point(overrides, keyed))
            except HydraException as error:
                failed[overrides] = error
        if failed:
            if told := not_in_all(failed, [point.overrides for point in points]):
                raise UserError(told)
            raise next(iter(failed.values()))
        return points

    def point(self, overrides: tuple[str, ...], keyed: bool = True) -> Point:
        """The point of these overrides, or what is wrong with it.

        Args:
            keyed: False asks for neither its model nor its texts to be here: there is no run key then, and
                only a model that is here is looked at.
        """
        try:
            plain = plain_config(self._composed(overrides))
            config = from_plain(plain)
            if keyed or source_of(config.model).is_here():
                check(config)
            if not keyed:
                return Point(overrides, config, plain=plain)
            key = run_key(config)
            check_texts(config)
            return Point(overrides, config, key, plain)
        except UserError as error:
            return Point(overrides, error=str(error))

    def _composed(self, overrides: tuple[str, ...]) -> DictConfig:
        """As Hydra composes it, in a tenth of the time: the choices of options once for all points that share
        them, then the values.
        """
        items = OverridesParser.create(config_loader=self.loader).parse_overrides(list(overrides))
        values = [item for item in items if item.type == OverrideType.CHANGE and _is_value(item.key_or_group)]
        choices = tuple(item.input_line for item in items if item not in values)
        if choices not in self._composed_choices:
            composed = self.loader.load_sweep_config(self.config, list(choices))
            masked = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
            OmegaConf.set_struct(masked, True)  # a value of a key that there is not is an error
            self._composed_choices[choices] = masked
        config = copy.deepcopy(self._composed_choices[choices])
        try:
            for item in values:
                OmegaConf.update(config, item.key_or_group, item.value(), merge=True)
        except OmegaConfBaseException:
            return self.loader.load_sweep_config(self.config, list(overrides))  # which says it better
        return config


def _identity(point: Point) -> object:
    """What makes a point another one: its run key, and who is told of the run."""
    return (point.key, str(point.config.tracker)) if point.key else point.overrides


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
            axes[key] = [f"{key}={value}" for value in dict.fromkeys(_swept(override))]
        else:
            axes[key] = [override.input_line]
    return list(itertools.product(*axes.values()))


def _swept(override: Override) -> Iterable[str]:
    """The values of a sweep, as they were written where they were written one by one."""
    if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
        return parts(override.input_line.partition("=")[2])
    return override.sweep_string_iterator()


def as_meant(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that those of one point, as people write them, stand for."""
    return tuple(entry for override in overrides for entry in meant(override))


def left_to_points(override: str) -> str:
    """A fixed override of a group that a sweep may choose, as a sweep over it alone: only the points are
    composed with it, since the options of another may lack its key.
    """
    key, _, value = override.partition("=")
    swept = f"{key}={value},{value}"
    is_fixed = key.lstrip("+").startswith(OF_POINTS) and not parsed(override).is_sweep_override()
    return swept if is_fixed and parsed(swept) else override


def first(overrides: list[str]) -> list[str]:
    """The overrides of the first point that these span."""
    return list(as_meant(expand(OverridesParser.create().parse_overrides(overrides))[0]))


def planned(overrides: list[str]) -> tuple[list[RunConfig], list[str]]:
    """Configurations of the points that are legal, and what is wrong with the others.

    Raises:
        UserError: the overrides themselves cannot be read.
    """
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        try:
            overrides = overrides_of(overrides)
            shared = [item for item in map(left_to_points, overrides) if not parsed(item).is_sweep_override()]
            whole = compose("config", shared, return_hydra_config=True)
            maker = Points(GlobalHydra.instance().config_loader(), whole)
            points = maker.of(list(whole.hydra.sweeper.grids or [""]), overrides, keyed=False)
        except HydraException as error:
            raise UserError(explain(error, overrides)) from error
        except OmegaConfBaseException as error:
            raise UserError(sentence(error)) from error
    return (
        [point.config for point in points if not point.error],
        [point.error for point in points if point.error],
    )
