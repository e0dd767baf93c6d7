"""Seconds and memory of the transforms on one block of a random model of a known shape, and what they mean
for the whole model.

Weights and hidden states are random, with a few large channels, so that smoothing has work: times and memory
are those of a real block, losses are not. Training is measured for a few epochs and extrapolated to those of
the configuration, then to all blocks of the model.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.benchmarks.measure import failure, peak_extra_bytes, synchronize
from harness.benchmarks.random_block import SHAPES, check_groups, random_lesson
from harness.config.compose import method_config, scheme_named
from harness.config.method_builder import build_method
from harness.foundation.errors import UserError
from methods.contracts.block import Block
from methods.contracts.scheme import Scheme
from methods.contracts.transform import BlockTransform, Transformed
from methods.contracts.tuning import Sample

# OPT-6.7B, 4 bits, float32: AffineQuant, arXiv 2403.12544, Table 4
PAPER = {"affinequant": "8.65 h, 21.2 GB"}
CITATION = (
    "paper: AffineQuant (arXiv 2403.12544) on OPT-6.7B, 4-bit weights, one A100 80 GB; "
    "20 epochs of 128 samples of 2048 tokens, one by one"
)
# batches of the run whose memory is watched on a CPU, where watching takes time; the inputs of all others
# only lie there
SHORT = 2
NOTHING = "–"
AIM = 1.3  # what a training step may cost, over a plain forward-backward of the block
EXPLANATION = (
    "× forward-backward: a training step over a plain forward-backward of the float block on the same batch; "
    "epochs that were not run, and all blocks, count as those that were; "
    "peak: block, samples and whatever else was held"
)
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Work:
    """What to measure.

    Raises:
        UserError: a number is too small, or the scheme's groups do not fit the shape.
    """

    transforms: Sequence[str]  # names of conf/method/transform
    shape: str
    scheme_name: str
    samples: int
    tokens: int
    batch_size: int
    epochs: int  # to run
    device: str

    def __post_init__(self):
        for name, least in (("tokens", 2), ("batch_size", 1), ("epochs", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.samples % self.batch_size or self.samples < 2 * self.batch_size:
            raise UserError(
                f"--samples {self.samples}: must be whole batches of {self.batch_size} (--batch-size), "
                "at least two of them"
            )
        check_groups(self.shape, self.scheme_name, self.scheme.group_size)

    @property
    def scheme(self) -> Scheme:
        return scheme_named(self.scheme_name)


@dataclass(frozen=True)
class Result:
    """One transform. A field of None has no meaning for it, or was not measured."""

    transform: str
    shape: str
    scheme: str
    samples: int
    tokens: int
    batch_size: int
    blocks: int  # of the whole model
    epochs_run: int | None = None
    epochs: int | None = None  # of the configuration
    seconds: float | None = None  # of the run, training of `epochs_run` epochs included
    epoch_seconds: float | None = None
    cost: float | None = None  # of a training step, over one plain forward-backward of the block on its batch
    peak_bytes: int | None = None  # block, samples and all that was held meanwhile
    fallbacks: str = ""
    reason: str = ""  # why there is nothing, else empty

    @property
    def block_seconds(self) -> float | None:
        """With all epochs of the configuration."""
        if self.seconds is None or self.epoch_seconds is None:
            return self.seconds
        return self.seconds + (self.epochs - self.epochs_run) * self.epoch_seconds

    @property
    def model_hours(self) -> float | None:
        """All blocks one after another, the transform alone."""
        return None if self.block_seconds is None else self.blocks * self.block_seconds / 3600


def measure(work: Work, on_start: Callable[[str], None]) -> Iterator[Result]:
    """Each transform on a copy of the same block."""
    on_start(f"a random block of {work.shape} …")
    block, samples = random_lesson(work.shape, work.samples, work.tokens, work.batch_size, work.device)
    for name in work.transforms:
        on_start(f"{name} …")
        yield one(
            name,
            block,
            samples,
            work,
            lambda done, total, text, name=name: on_start(f"{name} step {done}/{total} {text}"),
        )


def one(name: str, block: Block, samples: Sequence[Sample], work: Work, watch: Watch) -> Result:
    """Measure one transform on a copy of the block; one that fails costs its row alone."""
    configured = build_method(method_config("affinequant", f"method/transform={name}")).transform
    blank = Result(
        name,
        work.shape,
        work.scheme_name,
        work.samples,
        work.tokens,
        work.batch_size,
        SHAPES[work.shape].blocks,
    )
    reason = configured.skip_reason(work.scheme, block.seams)
    if reason:
        return replace(blank, reason=reason)
    epochs = getattr(configured, "epochs", None)
    transform = replace(configured, epochs=min(epochs, work.epochs)) if epochs else configured
    run = _Run(transform, _copy(block), samples, work, watch)
    held = sum(tensor.nbytes for tensor in run.block.module.parameters())
    held += sum(sample.hidden.nbytes + sample.target.nbytes for sample in samples)
    try:
        short = replace(transform, epochs=1) if epochs else transform  # first, as it may compile kernels
        extra = peak_extra_bytes(
            _Run(short, _copy(block), samples[:SHORT], work, lambda *step: None), work.device
        )
        if work.device == "cuda":
            extra = peak_extra_bytes(run, work.device)
        else:
            run()
    except Exception as error:
        return replace(blank, reason=failure(error))
    return replace(
        blank,
        epochs_run=transform.epochs if epochs else None,
        epochs=epochs,
        seconds=run.seconds,
        epoch_seconds=run.step_seconds * len(samples) if epochs else None,
        cost=run.found.stats.get("cost"),
        peak_bytes=None if extra is None else held + extra,
        fallbacks="; ".join(run.found.fallbacks),
    )


def _copy(block: Block) -> Block:
    return replace(block, module=deepcopy(block.module))


class _Run:
    """A call of a transform, and when it and its steps ended."""

    def __init__(
        self, transform: BlockTransform, block: Block, samples: Sequence[Sample], work: Work, watch: Watch
    ):
        self.transform, self.block, self.samples, self.work, self.watch = (
            transform,
            block,
            samples,
            work,
            watch,
        )
        self.ends: list[float] = []
        self.seconds, self.found = math.nan, Transformed()

    def __call__(self) -> None:
        synchronize(self.work.device)
        started = time.perf_counter()
        self.found = self.transform.apply_(self.block, self.samples, self.work.scheme, self._step)
        synchronize(self.work.device)
        self.seconds = time.perf_counter() - started

    def _step(self, done: int, total: int, text: str) -> None:
        self.ends.append(time.perf_counter())
        self.watch(done, total, text)

    @property
    def step_seconds(self) -> float:
        """Mean of all but the first, whose beginning nobody saw."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def table(results: Sequence[Result], work: Work, machine: str) -> tuple[Table, list[str]]:
    """The table, and its footnotes."""
    tokens = f"{work.samples} × {work.tokens} tokens in batches of {work.batch_size}"
    title = f"one block of {work.shape}, {work.scheme_name}, {tokens}, {machine}"
    blocks = SHAPES[work.shape].blocks
    view = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    heads = (
        "epochs run",
        "seconds",
        "seconds\nan epoch",
        "× forward-\nbackward",
        "peak GiB",
        "block, all\nepochs, s",
        f"{blocks} blocks,\nhours",
    )
    for head in ("transform", *heads, "paper"):
        view.add_column(head, justify="left" if head == "transform" else "right", no_wrap=True)
    for result in results:
        epochs = result.epochs and f"{result.epochs_run} of {result.epochs}"
        peak = result.peak_bytes and result.peak_bytes / 2**30
        numbers = (
            result.seconds,
            result.epoch_seconds,
            result.cost,
            peak,
            result.block_seconds,
            result.model_hours,
        )
        view.add_row(
            result.transform,
            epochs or NOTHING,
            *(NOTHING if n is None else f"{n:.3g}" for n in numbers),
            PAPER.get(result.transform, NOTHING),
        )
    notes = [
        f"{result.transform}: {text}"
        for result in results
        for text in (result.reason, result.fallbacks)
        if text
    ]
    beyond = [
        f"{result.transform} {result.cost:.2f}" for result in results if result.cost and result.cost > AIM
    ]
    if beyond:
        notes.append(f"more than {AIM} forward-backwards a step: {', '.join(beyond)}")
    return view, [*notes, EXPLANATION, CITATION]
