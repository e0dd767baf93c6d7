"""The schema of a run. Values live in `conf/`; this file says which keys exist, of what type and range."""

import json
import re
import typing
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from harness.config.groups import DataConfig, Device, EvalConfig, ModelConfig, PathsConfig, TrackerConfig
from harness.config.leniency import meant_as
from harness.config.method_builder import build_method, canonical
from harness.foundation.errors import UserError
from harness.foundation.redaction import refuse_secrets
from methods.contracts.bounds import Seed, Within, check_bounds
from methods.contracts.method import Method
from methods.contracts.scheme import Scheme


@dataclass(frozen=True)
class RunConfig:
    """One run, fully resolved and checked field by field."""

    model: ModelConfig
    data: DataConfig
    scheme: Scheme
    method: Method
    method_config: dict  # what `method` was built from, for the record
    eval: EvalConfig
    tracker: TrackerConfig
    paths: PathsConfig
    seed: int
    device: Device
    save: bool  # keep the packed checkpoint
    retry: bool  # run points again that failed before
    isolate: bool  # every point in a process of its own
    time_limit: float | None  # minutes that a point may take


@dataclass(frozen=True)
class _Scalars:
    seed: Seed
    device: Device
    save: bool
    retry: bool
    isolate: bool
    time_limit: Annotated[float, Within(0, 1e6, "null for no limit", above=True)] | None  # minutes

    def __post_init__(self):
        check_bounds(self)
        if self.time_limit is not None and not self.isolate:
            raise ValueError(
                "time_limit: only a process of its own can be stopped; set isolate=true or time_limit=null"
            )


GROUPS = {
    "model": ModelConfig,
    "data": DataConfig,
    "scheme": Scheme,
    "eval": EvalConfig,
    "tracker": TrackerConfig,
    "paths": PathsConfig,
}
NO_SUCH_KEY = "no such key"
SCALARS = [field.name for field in fields(_Scalars)]


def to_run_config(config: DictConfig) -> RunConfig:
    """Type-check a composed configuration.

    Raises:
        UserError: a key is unknown, missing, ill-typed or out of range; the message names it.
    """
    return from_plain(plain_config(config))


def plain_config(config: DictConfig) -> dict:
    """The keys of a composed configuration that describe a run, resolved, in plain containers that JSON can
    hold.

    Raises:
        UserError: a key needs a value, is unknown or holds a credential.
    """
    try:
        _refuse_unknown(config)
        nodes = {key: config[key] for key in (*GROUPS, "method", *SCALARS)}
        plain = {
            key: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
            for key, node in nodes.items()
        }
        refuse_secrets(plain)
        return plain
    except InterpolationToMissingValueError as error:
        missing = re.search(r"Missing mandatory value: (\S+)", str(error))
        raise UserError(f"{missing[1] if missing else error}: needs a value") from error


def from_plain(plain: dict) -> RunConfig:
    """The same from what `plain_config` gave, in another process too.

    Raises:
        UserError: as `to_run_config`.
    """
    groups = {group: typed(schema, plain[group], group) for group, schema in GROUPS.items()}
    rest = typed(_Scalars, {name: plain[name] for name in SCALARS}, "")
    method = build_method(plain["method"])
    return RunConfig(**groups, **vars(rest), method=method, method_config=canonical(plain["method"], method))


def typed(schema: type, node: dict, group: str) -> Any:
    """An instance of the dataclass `schema` with the values of `node`, errors named by their full key."""
    return _typed(schema, json.dumps(node), group)


@lru_cache(maxsize=1024)  # the points of a sweep share most of their groups
def _typed(schema: type, values: str, group: str) -> Any:
    hints = typing.get_type_hints(schema)
    node = {name: meant_as(value, hints.get(name, Any)) for name, value in json.loads(values).items()}
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        key = ".".join(filter(None, [group, str(error.full_key or error.key or "")]))
        reason = _reason_of(error)
        raise UserError(no_such_key(key) if reason == NO_SUCH_KEY else f"{key}: {reason}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def _refuse_unknown(config: DictConfig) -> None:
    """A group's keys are checked with its types; this is for what stands beside the groups."""
    for key in config:
        if key not in (*GROUPS, "method", "hydra", *SCALARS):
            raise UserError(no_such_key(str(key)))


def no_such_key(key: str) -> str:
    """What to tell of a key that the schema does not have."""
    if key.rpartition(".")[2] == "trust_remote_code":
        return (
            f"{key}: not supported: code in a checkpoint is never run; "
            "use an architecture that transformers itself has"
        )
    return f"{key}: {NO_SUCH_KEY}"


def _reason_of(error: OmegaConfBaseException) -> str:
    message = (error.msg or str(error)).splitlines()[0]
    if "Structured config of type" in message or "not in" in message:
        return NO_SUCH_KEY
    if "Missing mandatory value" in message or "MISSING" in message:
        return "needs a value"
    return message
