"""What a model is worth: perplexity over windows and zero-shot accuracy, each with its protocol and its
standard error.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

from torch import nn

from harness.config.groups import Bos, EvalConfig
from harness.data import corpora
from harness.data.windows import evaluation_windows
from harness.evaluation import tasks
from harness.evaluation.perplexity import evaluating, mean_of, perplexity_of, scored, window_losses
from harness.evaluation.protocols import perplexity_protocol, zero_shot_protocol

OnBatch = Callable[[int, int], None] | None  # called with (done, total)


@dataclass(frozen=True)
class Metric:
    """A number and what it takes to compare it with another.

    `value` is inf for the perplexity of a model that has diverged; `stderr` is None where it cannot be given
    (one window or item, a value that is not finite); `n` counts tokens scored or items asked.
    """

    value: float
    stderr: float | None
    protocol: str
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and under the same names what each is the mean of, for paired comparisons of two models.

    Items of a perplexity are nats per token, one entry per window (per item for a task's perplexity); of an
    accuracy 0 or 1, one per item.
    """

    metrics: dict[str, Metric]
    items: dict[str, list[float]]
    seconds: float = 0.0


class Kept(Protocol):
    """What an attempt before has evaluated, by corpus or task, and where more goes."""

    def evaluated(self, stage: str) -> dict | None: ...
    def keep_evaluation(self, stage: str, found: dict) -> None: ...


def evaluate(
    model: nn.Module,
    tokenizer,
    config: EvalConfig,
    bos: Bos,
    dtype: str,
    seed: int,
    on_progress: Callable[[str, int, int], None] | None = None,
    kept: Kept | None = None,
) -> Evaluation:
    """Evaluate a model in memory; metrics are named `perplexity/<corpus>`, `acc/<task>`, `acc_norm/<task>`.

    Args:
        dtype: of the model, for the protocol.
        seed: chooses the items of tasks.
        on_progress: called with (stage, done, total).
        kept: corpora and tasks that are evaluated already; each one more is committed to it at once.

    Raises:
        UserError: an unknown corpus or task, or data that cannot be had.
    """
    for task in config.tasks:
        tasks.check(task, config.mirror)
    whole = Evaluation({}, {})
    stages = {f"perplexity {corpus}": partial(_perplexity, corpus) for corpus in config.corpora}
    stages |= {task: partial(_task, task, seed) for task in config.tasks}
    for stage, measured in stages.items():
        found = kept and kept.evaluated(stage)
        if not found:
            start = time.perf_counter()
            part = measured(model, tokenizer, config, bos, dtype, _stage(on_progress, stage))
            found = asdict(replace(part, seconds=time.perf_counter() - start))
            if kept:
                kept.keep_evaluation(stage, found)
        metrics = {name: Metric(**metric) for name, metric in found["metrics"].items()}
        whole = Evaluation(
            whole.metrics | metrics, whole.items | found["items"], whole.seconds + found["seconds"]
        )
    return whole


def _perplexity(
    corpus: str, model: nn.Module, tokenizer, config: EvalConfig, bos: Bos, dtype: str, on_batch: OnBatch
) -> Evaluation:
    documents = corpora.documents(corpus, "test", config.mirror)
    windows = evaluation_windows(documents, tokenizer, config.window, config.windows, bos)
    losses = window_losses(model, windows, config.batch_size, on_batch).tolist()
    protocol = perplexity_protocol(corpus, corpora.text_sha256(documents), windows, bos, dtype)
    name = f"perplexity/{corpus}"
    return Evaluation({name: Metric(*perplexity_of(losses), protocol, scored(windows))}, {name: losses})


def _task(
    task: str,
    seed: int,
    model: nn.Module,
    tokenizer,
    config: EvalConfig,
    bos: Bos,
    dtype: str,
    on_batch: OnBatch,
) -> Evaluation:
    batch_tokens = config.batch_size * config.window
    with evaluating(model):
        scores = tasks.run_task(
            task, model, tokenizer, bos, config.limit, seed, batch_tokens, config.mirror, on_batch
        )
    protocol = zero_shot_protocol(task, scores, bos, dtype, seed)
    metrics, items = {}, {}
    for metric, values in scores.items.items():
        name = f"{metric}/{task}"
        estimate = perplexity_of(values) if metric == "perplexity" else mean_of(values)
        metrics[name], items[name] = Metric(*estimate, protocol, scores.asked), values
    return Evaluation(metrics, items)


def _stage(
    on_progress: Callable[[str, int, int], None] | None, stage: str
) -> Callable[[int, int], None] | None:
    return on_progress and (lambda done, total: on_progress(stage, done, total))
