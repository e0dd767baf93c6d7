"""From `conf/method/<name>.yaml` to a `Method`: Hydra names the class, this file only builds what it names.

Only dataclasses that live in the `methods` package are built; a configuration cannot make us call anything
else.
"""

import dataclasses
import importlib
import re
import typing
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.leniency import meant_as, members
from harness.foundation.errors import UserError
from methods.contracts.method import Method

TARGET = re.compile(r"methods\.[a-z0-9_]+\.[A-Za-z0-9]+")


def build_method(config: dict) -> Method:
    """Build `{name, solver: {_target_, ...} | null, transform: ... , tuning: ...}`; without their keys, the
    latter two are not there.

    Raises:
        UserError: a key is unknown, missing, ill-typed or out of range, or `_target_` is not a class of
            `methods`.
    """
    unknown = set(config) - {"name", "solver", "transform", "tuning"}
    if unknown:
        raise UserError(
            f"method.{min(unknown)}: no such key; "
            "a method has a name, a solver and perhaps a transform and a tuning"
        )
    for key in ("name", "solver"):
        if key not in config:
            raise UserError(f"method.{key}: needs a value")
    solver = None if config["solver"] is None else _build(config["solver"], "method.solver")
    parts = {
        key: _build(config[key], f"method.{key}")
        for key in ("transform", "tuning")
        if config.get(key) is not None
    }
    if parts and solver is None:
        raise UserError(
            f"method.{min(parts)}: there is nothing to do where nothing is rounded; set method.solver"
        )
    return Method(name=str(config["name"]), solver=solver, **parts)


def canonical(config: dict, method: Method) -> dict:
    """The configuration with its values as `method`, built from it, holds them: where a field is a float, 1
    is 1.0, for one run key.
    """
    parts = {name: getattr(method, name) for name in config}
    return {
        name: parts[name] if name == "name" or value is None else _canonical(value, parts[name])
        for name, value in config.items()
    }


def _canonical(node: Any, built: Any) -> Any:
    if isinstance(node, dict):
        return {
            name: value if name == "_target_" else _canonical(value, getattr(built, name))
            for name, value in node.items()
        }
    return built.name if isinstance(built, Enum) else built


def _build(node: Any, key: str) -> Any:
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"{key}: needs a _target_, such as methods.gptq.GPTQ")
    target = _resolve(str(node["_target_"]), f"{key}._target_")
    given = {name: value for name, value in node.items() if name != "_target_"}
    hints = typing.get_type_hints(target)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(target)}
    for name in sorted(set(given) - set(fields)):
        raise UserError(f"{key}.{name}: no such key; {target.__name__} has {', '.join(fields) or 'none'}")
    for name in sorted(set(fields) - set(given)):
        raise UserError(f"{key}.{name}: needs a value")
    values = {name: _value(given[name], hint, f"{key}.{name}") for name, hint in fields.items()}
    try:
        return target(**values)
    except ValueError as error:
        raise UserError(f"{key}.{error}") from error


def _resolve(target: str, key: str) -> type:
    if not TARGET.fullmatch(target):
        raise UserError(
            f"{key}={target}: must name a class of the methods package, such as methods.gptq.GPTQ"
        )
    module_name, class_name = target.rsplit(".", 1)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}={target}: {error}") from error
    if not (dataclasses.is_dataclass(found) and isinstance(found, type) and found.__module__ == module_name):
        raise UserError(f"{key}={target}: is not a dataclass defined in {module_name}")
    return found


def _value(value: Any, hint: Any, key: str) -> Any:
    """A scalar converted by OmegaConf's rules for the field's type; a nested `_target_` is built."""
    if isinstance(value, dict):
        return _build(value, key)
    options, value = members(hint), meant_as(value, hint)
    if value is None and type(None) in options:
        return None
    scalars = [option for option in options if option in (int, float, bool, str) or _is_enum(option)]
    if not scalars or value is None:
        raise UserError(
            f"{key}={value}: needs {' or '.join(getattr(o, '__name__', str(o)) for o in options)}"
        )
    field = dataclasses.make_dataclass("Field", [("value", scalars[0])])
    try:
        return OmegaConf.merge(OmegaConf.structured(field), {"value": value}).value
    except OmegaConfBaseException as error:
        raise UserError(f"{key}: {(error.msg or str(error)).splitlines()[0]}") from error


def _is_enum(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, Enum)
