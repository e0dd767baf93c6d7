"""The schema of a run. Values live in `conf/`; this file says which keys exist, their types and their ranges."""

import re
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from harness.errors import UserError
from harness.methods import build_method
from methods.core.method import Method
from methods.core.scheme import Scheme


class Dtype(Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Bos(Enum):
    """Where the beginning-of-sequence token goes, in calibration and in evaluation."""

    none = "none"
    stream = "stream"  # wherever the tokenizer itself puts it: at most once, before the whole text
    window = "window"  # before every window (Gemma is lost without it)


class Propagate(Enum):
    """Which activations the next block is calibrated on."""

    quantized = "quantized"
    float = "float"  # every method sees the same statistics, so a sweep computes them once


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class ModelConfig:
    name: str  # how tables call it
    id: str  # hub id, directory, asset:<name> or tiny:<family>
    revision: str | None
    dtype: Dtype
    bos: Bos
    source_bits: int | None  # the weights were already quantized to this many bits when we got them


@dataclass(frozen=True)
class DataConfig:
    """Calibration."""

    name: str  # corpus
    samples: int
    window: int  # tokens in each sample
    batch_size: int
    propagate: Propagate
    true_sequential: bool  # with propagate=quantized: later linears of a block see the earlier ones quantized
    block_error: bool  # also measure each block's output against the float model's
    mirror: str | None  # directory that replaces the hub for data sets

    def __post_init__(self):
        _at_least(1, self, "data", "samples", "batch_size")
        _at_least(2, self, "data", "window")


@dataclass(frozen=True)
class EvalConfig:
    name: str
    corpora: list[str]  # perplexity on the test split of each
    window: int  # tokens
    windows: int | None  # how many windows of each corpus, from its start; null: all
    tasks: list[str]  # zero-shot tasks
    limit: int | None  # items of each task, a sample; null: all
    seed: int  # chooses the sample; apart from the run's seed, so that all runs answer the same items
    batch_size: int
    mirror: str | None  # directory that replaces the hub for data sets

    def __post_init__(self):
        _at_least(2, self, "eval", "window")
        _at_least(1, self, "eval", "windows", "limit", "batch_size")


@dataclass(frozen=True)
class TrackerConfig:
    name: str  # none | wandb
    mode: str | None = None  # offline | online
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None

    def __post_init__(self):
        if self.name not in ("none", "wandb"):
            raise ValueError(f"tracker.name={self.name}: must be none or wandb")
        if self.mode not in (None, "offline", "online"):
            raise ValueError(f"tracker.mode={self.mode}: must be offline or online")


@dataclass(frozen=True)
class PathsConfig:
    results: str
    reports: str
    cache_gib: float  # bound on the statistics kept on disk for reuse

    def __post_init__(self):
        _at_least(0, self, "paths", "cache_gib")


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


@dataclass(frozen=True)
class _Scalars:
    seed: int
    device: Device
    save: bool
    retry: bool

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")


GROUPS = {
    "model": ModelConfig,
    "data": DataConfig,
    "scheme": Scheme,
    "eval": EvalConfig,
    "tracker": TrackerConfig,
    "paths": PathsConfig,
}


def to_run_config(config: DictConfig) -> RunConfig:
    """Type-check a composed configuration.

    Raises:
        UserError: a key is unknown, missing, ill-typed or out of range; the message names it.
    """
    scalars = [field.name for field in fields(_Scalars)]
    try:
        plain = OmegaConf.to_container(OmegaConf.masked_copy(config, [*GROUPS, "method", *scalars]), resolve=True)
    except InterpolationToMissingValueError as error:
        missing = re.search(r"Missing mandatory value: (\S+)", str(error))
        raise UserError(f"{missing[1] if missing else error}: needs a value") from error
    groups = {group: typed(schema, plain[group], group) for group, schema in GROUPS.items()}
    rest = typed(_Scalars, {name: plain[name] for name in scalars}, "")
    return RunConfig(**groups, **vars(rest), method=build_method(plain["method"]), method_config=plain["method"])


def typed(schema: type, node: dict, group: str) -> Any:
    """An instance of the dataclass `schema` with the values of `node`, errors named by their full key."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        key = ".".join(filter(None, [group, str(error.full_key or error.key or "")]))
        raise UserError(f"{key}: {_reason(error)}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def _reason(error: OmegaConfBaseException) -> str:
    message = (error.msg or str(error)).splitlines()[0]
    if "Structured config of type" in message or "not in" in message:
        return "no such key"
    if "Missing mandatory value" in message or "MISSING" in message:
        return "needs a value"
    return message


def _at_least(minimum: int, config: Any, group: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise ValueError(f"{group}.{name}={value}: must be at least {minimum}")
