"""Every number that a person can set has a range, and nonsense is refused by name before anything loads."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Annotated

import pytest

from harness.cli import main
from harness.config.compose import composed, method_config, method_names, transform_names
from harness.config.leniency import members
from harness.config.method_builder import build_method
from harness.config.run_config import GROUPS, SCALARS, from_plain, plain_config
from harness.foundation.errors import UserError
from methods.blocks.training.loop import Course
from methods.contracts.bounds import Within, bounds_of, check_bounds
from methods.solving.schedule import Schedule
from methods.vectors.codebook import KMeans

NONSENSE = (math.nan, math.inf, -math.inf, 1e30, -1e30)


def numbers(schema: type) -> list[str]:
    """Names of the fields that hold a number."""
    hints = typing.get_type_hints(schema)
    fields = [field.name for field in dataclasses.fields(schema)]
    return [name for name in fields if {int, float} & set(members(hints[name]))]


def settings() -> dict[str, dict]:
    """One configuration of a run for every method and every transform, by its name."""
    plain = plain_config(composed("config", ["model=tiny-llama", "data=synthetic", "eval=smoke"]))
    methods = {name: method_config(name) for name in method_names()}
    methods |= {name: method_config("awq", f"method/transform={name}") for name in transform_names()}
    return {name: plain | {"method": method} for name, method in methods.items()}


RUNS = settings()


def parts(name: str) -> list[tuple[list[str], object]]:
    """The path and the built dataclass of every part of a method."""
    method, found = build_method(RUNS[name]["method"]), []

    def walk(part: object, path: list[str]) -> None:
        if dataclasses.is_dataclass(part):
            found.append((path, part))
            for field in dataclasses.fields(part):
                walk(getattr(part, field.name), [*path, field.name])

    for key in ("solver", "transform", "tuning"):
        walk(getattr(method, key), [key])
    return found


@pytest.mark.parametrize("name", RUNS)
def test_no_number_of_a_method_may_be_nonsense(name):
    for path, part in parts(name):
        for field in numbers(type(part)):
            for value in NONSENSE:
                config = replaced(RUNS[name], ["method", *path, field], value)
                with pytest.raises(UserError) as error:
                    build_method(config["method"])
                assert f"method.{'.'.join(path)}.{field}" in str(error.value)


@pytest.mark.parametrize("group", [*GROUPS, ""])
def test_no_number_of_a_group_may_be_nonsense(group):
    run = RUNS["rtn"]
    names = numbers(GROUPS[group]) if group else [name for name in ("seed", "time_limit") if name in SCALARS]
    for name in names:
        for value in NONSENSE:
            config = replaced(run, [group, name] if group else [name], value)
            with pytest.raises(UserError) as error:
                from_plain(config)
            assert ".".join(filter(None, [group, name])) in str(error.value)


@pytest.mark.parametrize("schema", [*GROUPS.values(), Course, Schedule, KMeans], ids=lambda s: s.__name__)
def test_every_number_has_a_range(schema):
    assert set(numbers(schema)) <= set(bounds_of(schema))


def test_every_number_of_every_method_has_a_range():
    classes = {type(part) for name in RUNS for _, part in parts(name)}
    assert len(classes) > 12 and not [c for c in classes if set(numbers(c)) - set(bounds_of(c))]


def test_what_a_range_says():
    assert str(Within(1, 8)) == "must be between 1 and 8"
    assert str(Within(0, 8, above=True)) == "must be above 0 and at most 8"
    assert (
        str(Within(0, 1, "null for none", below=True)) == "must be at least 0 and below 1, or null for none"
    )
    held = [value for value in (0, 1, 8, 9, math.nan, math.inf) if Within(0, 8, above=True).holds(value)]
    assert held == [1, 8] and not Within(0, 8, below=True).holds(8)


def test_a_field_is_checked_in_a_union_and_none_is_not():
    @dataclass(frozen=True)
    class Settings:
        most: Annotated[int, Within(1, 3)] | None
        free: float

        def __post_init__(self):
            check_bounds(self, "group.")

    assert bounds_of(Settings) == {"most": Within(1, 3)} and Settings(None, math.nan).most is None
    with pytest.raises(ValueError, match=r"group\.most=4: must be between 1 and 3"):
        Settings(4, 0.0)


def test_nonsense_is_refused_before_anything_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for override in ("method.solver.damping=nan", "method.solver.damping=1e30", "scheme.outlier_ratio=inf"):
        assert main(["run", "model=tiny-llama", "data=synthetic", "eval=smoke", "method=gptq", override]) == 2
        assert override.partition("=")[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def replaced(config: dict, path: list[str], value: object) -> dict:
    """A copy with another value at the end of a path."""
    key, *rest = path
    return config | {key: replaced(config[key], rest, value) if rest else value}
