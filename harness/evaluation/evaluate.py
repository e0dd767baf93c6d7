"""What a model is worth: perplexity over windows and zero-shot accuracy, each with its protocol and its
standard error.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.config.groups import EvalConfig
from harness.data import corpora
from harness.data.windows import evaluation_windows
from harness.evaluation import tasks
from harness.evaluation.perplexity import mean_of, perplexity_of, scored, window_losses
from harness.evaluation.subject import OnBatch, Subject
from harness.records.protocol import PerplexityProtocol
from harness.records.record import Metric


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and under the same names what each is the mean of, for paired comparisons of two models.

    Items of a perplexity are nats per token, one entry per window (per item for a task's perplexity); of an
    accuracy 0 or 1, one per item.
    """

    metrics: dict[str, Metric]
    items: dict[str, list[float]]
    seconds: float = 0.0


def evaluate(
    subject: Subject,
    config: EvalConfig,
    on_progress: Callable[[str, int, int], None] | None = None,
    remember: Callable[[str, Callable[[], dict]], dict] | None = None,
) -> Evaluation:
    """Evaluate a model in memory; metrics are named `perplexity/<corpus>`, `acc/<task>`, `acc_norm/<task>`.

    Args:
        on_progress: called with (stage, done, total).
        remember: called with a corpus or task and what evaluates it; gives what an attempt before has found
            (something JSON-able), or evaluates now and keeps that.

    Raises:
        UserError: an unknown corpus or task, or data that cannot be had.
    """
    for task in config.tasks:
        tasks.check(task, config.mirror)
    stages = {f"perplexity {corpus}": partial(_perplexity, corpus) for corpus in config.corpora}
    stages |= {task: partial(_task, task) for task in config.tasks}
    metrics, items, seconds = {}, {}, 0.0
    for stage, measure in stages.items():
        compute = partial(_timed, measure, subject, config, on_progress and partial(on_progress, stage))
        result = remember(stage, compute) if remember else compute()
        metrics |= {name: Metric.of(entry) for name, entry in result["metrics"].items()}
        items |= result["items"]
        seconds += result["seconds"]
    return Evaluation(metrics, items, seconds)


def _timed(measure: Callable[..., Evaluation], *arguments) -> dict:
    start = time.perf_counter()
    part = measure(*arguments)
    metrics = {name: metric.entry() for name, metric in part.metrics.items()}
    return {"metrics": metrics, "items": part.items, "seconds": time.perf_counter() - start}


def _perplexity(corpus: str, subject: Subject, config: EvalConfig, on_batch: OnBatch) -> Evaluation:
    documents = corpora.documents(corpus, "test", config.mirror)
    windows = evaluation_windows(
        documents, subject.tokenizer, config.window, config.windows_of(corpus), subject.bos
    )
    losses = window_losses(subject.model, windows, config.batch_size, on_batch).tolist()
    protocol = PerplexityProtocol(
        corpus=corpus,
        windows=len(windows),
        window=windows.shape[1],
        bos=subject.bos.value,
        dtype=subject.dtype,
        scored=scored(windows),
        text=corpora.text_sha256(documents)[:8],
    )
    metric = Metric(*perplexity_of(losses), protocol, scored(windows))
    return Evaluation({f"perplexity/{corpus}": metric}, {f"perplexity/{corpus}": losses})


def _task(task: str, subject: Subject, config: EvalConfig, on_batch: OnBatch) -> Evaluation:
    scores = tasks.run_task(task, subject, config, on_batch)
    metrics, items = {}, {}
    for kind, values in scores.items.items():
        estimate = perplexity_of(values) if kind == "perplexity" else mean_of(values)
        metrics[f"{kind}/{task}"] = Metric(*estimate, scores.protocol, scores.asked)
        items[f"{kind}/{task}"] = values
    return Evaluation(metrics, items)
