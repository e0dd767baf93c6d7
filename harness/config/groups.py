"""The groups of settings of a run, but for scheme and method: types, defaults, ranges."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Dtype(Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Bos(Enum):
    """Where the beginning-of-sequence token goes, in calibration and in evaluation."""

    none = "none"
    stream = "stream"  # wherever the tokenizer itself puts it: at most once, before the whole text
    window = "window"  # before every window (Gemma is lost without it)
    auto = "auto"  # what suits the family and the tokenizer; harness.models.bos says which of the above


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
    allow_pickle: bool = False  # read pickled weights where there are no safetensors


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
    name: str  # none | wandb | trackio
    mode: str | None = None  # offline | online
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None

    def __post_init__(self):
        if self.name not in ("none", "wandb", "trackio"):
            raise ValueError(f"tracker.name={self.name}: must be none, wandb or trackio")
        if self.mode not in (None, "offline", "online"):
            raise ValueError(f"tracker.mode={self.mode}: must be offline or online")
        if self.name == "wandb" and self.mode is None:
            raise ValueError("tracker.mode=null: wandb needs offline or online")
        if self.name == "trackio" and self.mode is not None:
            raise ValueError(f"tracker.mode={self.mode}: trackio is always local; leave it null")
        if self.name != "none" and not self.project:
            raise ValueError("tracker.project=null: needs a name")


@dataclass(frozen=True)
class PathsConfig:
    results: str
    reports: str
    cache_gib: float  # bound on the statistics kept on disk for reuse

    def __post_init__(self):
        _at_least(0, self, "paths", "cache_gib")


def _at_least(minimum: int, config: Any, group: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise ValueError(f"{group}.{name}={value}: must be at least {minimum}")
