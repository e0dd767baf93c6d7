"""The groups of settings of a run, but for scheme and method: types, defaults, ranges."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from methods.contracts.bounds import Count, Seed, Within, check_bounds

Window = Annotated[int, Within(2, 2**24)]  # tokens
WINDOWS = Within(1, 10**6)


class Dtype(Enum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Bos(Enum):
    """Where the beginning-of-sequence token goes, in calibration and in evaluation."""

    none = "none"
    stream = "stream"  # wherever the tokenizer itself puts it: at most once, before the whole text
    window = "window"  # before every window (Gemma is lost without it)
    auto = "auto"  # what suits the family and the tokenizer; harness.models.tokenizers says which


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
    # so many bits the weights were already quantized to when we got them
    source_bits: Annotated[int, Within(1, 32)] | None
    allow_pickle: bool = False  # read pickled weights where there are no safetensors

    def __post_init__(self):
        check_bounds(self, "model.")


@dataclass(frozen=True)
class DataConfig:
    """Calibration."""

    name: str  # corpus
    samples: Count
    window: Window  # tokens in each sample
    batch_size: Count
    propagate: Propagate
    true_sequential: bool  # with propagate=quantized: later linears of a block see the earlier ones quantized
    block_error: bool  # also measure each block's output against the float model's
    mirror: str | None  # directory that replaces the hub for data sets

    def __post_init__(self):
        check_bounds(self, "data.")


@dataclass(frozen=True)
class EvalConfig:
    name: str
    corpora: list[str]  # perplexity on the test split of each
    window: Window  # tokens
    # How many windows of each corpus, from its start, where it has so many; null: all. One number for all
    # corpora, or a mapping with one for each.
    windows: Any
    tasks: list[str]  # zero-shot tasks
    limit: Count | None  # items of each task, a sample; null: all
    seed: Seed  # chooses the sample; apart from the run's seed, so that all runs answer the same items
    batch_size: Count
    mirror: str | None  # directory that replaces the hub for data sets

    def __post_init__(self):
        check_bounds(self, "eval.")
        object.__setattr__(self, "windows", self._windows())

    def windows_of(self, corpus: str) -> int | None:
        return self.windows.get(corpus) if isinstance(self.windows, dict) else self.windows

    def _windows(self) -> int | dict[str, int | None] | None:
        """In one form for one meaning: of the corpora that are read, and one number where it is the same."""
        given = self.windows if isinstance(self.windows, dict) else {"": self.windows}
        for corpus, count in given.items():
            key, whole = f"eval.windows.{corpus}".rstrip("."), type(count) is int
            if count is not None and not whole:
                raise ValueError(
                    f"{key}={count}: must be a whole number or null, for all corpora or for each "
                    "(eval.windows.c4=256)"
                )
            if count is not None and not WINDOWS.holds(count):
                raise ValueError(f"{key}={count}: {WINDOWS}")
        if not isinstance(self.windows, dict):
            return self.windows
        counts = {corpus: self.windows.get(corpus) for corpus in self.corpora}
        return counts if len(set(counts.values())) > 1 else next(iter(counts.values()), None)


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
    cache_gib: Annotated[float, Within(0, 1e9)]  # bound on the statistics kept on disk for reuse

    def __post_init__(self):
        check_bounds(self, "paths.")
