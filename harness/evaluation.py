"""What a model is worth: perplexity over windows and zero-shot accuracy, each with its protocol and its standard error."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import LongTensor, Tensor, nn

from harness import zero_shot
from harness.config.groups import Bos, EvalConfig
from harness.data import corpora
from harness.data.windows import evaluation_windows

LOGITS_AT_ONCE = 2**27  # elements (512 MiB in float32) of one logits tensor, if one window has fewer: moves no number
LOSS_TOKENS = 256  # tokens whose log-softmax is taken at once
OnBatch = Callable[[int, int], None] | None  # called with (done, total)


@dataclass(frozen=True)
class Metric:
    """A number and what it takes to compare it with another.

    `value` is inf for the perplexity of a model that has diverged; `stderr` is None where it cannot be given (one window or
    item, a value that is not finite); `n` counts tokens scored or items asked.
    """

    value: float
    stderr: float | None
    protocol: str
    n: int


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and under the same names what each is the mean of, for paired comparisons of two models.

    Items of a perplexity are nats per token, one entry per window (per item for a task's perplexity); of an accuracy 0 or 1, one per item.
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
        zero_shot.check(task, config.mirror)
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
        whole = Evaluation(whole.metrics | metrics, whole.items | found["items"], whole.seconds + found["seconds"])
    return whole


def _perplexity(corpus: str, model: nn.Module, tokenizer, config: EvalConfig, bos: Bos, dtype: str, on_batch: OnBatch) -> Evaluation:
    documents = corpora.documents(corpus, "test", config.mirror)
    windows = evaluation_windows(documents, tokenizer, config.window, config.windows, bos)
    losses = window_losses(model, windows, config.batch_size, on_batch).tolist()
    protocol = perplexity_protocol(corpus, corpora.text_sha256(documents), windows, bos, dtype)
    name = f"perplexity/{corpus}"
    return Evaluation({name: Metric(*perplexity_of(losses), protocol, _scored(windows))}, {name: losses})


def _task(task: str, seed: int, model: nn.Module, tokenizer, config: EvalConfig, bos: Bos, dtype: str, on_batch: OnBatch) -> Evaluation:
    batch_tokens = config.batch_size * config.window
    with evaluating(model):
        scores = zero_shot.run_task(task, model, tokenizer, bos, config.limit, seed, batch_tokens, config.mirror, on_batch)
    protocol = zero_shot_protocol(task, scores, bos, dtype, seed)
    metrics, items = {}, {}
    for metric, values in scores.items.items():
        name = f"{metric}/{task}"
        estimate = perplexity_of(values) if metric == "perplexity" else mean_of(values)
        metrics[name], items[name] = Metric(*estimate, protocol, scores.asked), values
    return Evaluation(metrics, items)


def perplexity(
    model: nn.Module, windows: LongTensor, batch_size: int, on_batch: Callable[[int, int], None] | None = None
) -> tuple[float, float | None, int]:
    """Perplexity, its standard error over windows, and the number of tokens scored. See `window_losses`."""
    return *perplexity_of(window_losses(model, windows, batch_size, on_batch).tolist()), _scored(windows)


@torch.no_grad()
def window_losses(model: nn.Module, windows: LongTensor, batch_size: int, on_batch: Callable[[int, int], None] | None = None) -> Tensor:
    """Mean negative log-likelihood of each window in nats per token, float64 (n,); inf where the model's logits are not finite.

    Each window is scored alone: its tokens but the first are predicted from those before them in the window (GPTQ's
    protocol). Log-softmax in float32, means in float64.

    Args:
        windows: (n, window) token ids, taken as they are.
        batch_size: windows in one forward pass; fewer where their logits would be too large.
        on_batch: called with (windows done, windows in all).
    """
    device = model.get_input_embeddings().weight.device
    vocabulary = model.config.get_text_config().vocab_size
    rows = min(batch_size, max(1, LOGITS_AT_ONCE // (windows.shape[1] * vocabulary)))
    losses: list[Tensor] = []
    with evaluating(model):
        for batch in windows.split(rows):
            batch = batch.to(device)
            logits = model(input_ids=batch, use_cache=False).logits
            losses += [_loss(*pair) for pair in zip(logits, batch, strict=True)]
            if on_batch:
                on_batch(len(losses), len(windows))
    found = torch.stack(losses).cpu()
    return torch.where(found.isfinite(), found, math.inf)


def _loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean loss of one window, float64: logits (window, vocabulary), tokens (window,)."""
    targets = tokens[1:].to(logits.device)
    pieces = zip(logits[:-1].split(LOSS_TOKENS), targets.split(LOSS_TOKENS), strict=True)
    return torch.cat([F.cross_entropy(piece.float(), target, reduction="none") for piece, target in pieces]).double().mean()


def perplexity_of(losses: Sequence[float]) -> tuple[float, float | None]:
    """exp(mean loss) and its standard error by the delta method: exp(mean) times the standard error of the mean.

    A model that has diverged gives inf, without a standard error: no text has a probability under it.
    """
    mean, stderr = mean_of(losses)
    value = math.inf if not math.isfinite(mean) or mean > 700 else math.exp(mean)
    return value, None if stderr is None or not math.isfinite(value) else value * stderr


def mean_of(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error (for zeros and ones: the binomial one with n - 1, as lm-eval has it)."""
    sample = torch.tensor(values, dtype=torch.float64)
    return sample.mean().item(), sample.std().div(math.sqrt(len(sample))).item() if len(sample) > 1 else None


def perplexity_protocol(corpus: str, text_sha256: str, windows: LongTensor, bos: Bos, dtype: str) -> str:
    """All that a perplexity depends on besides the model. The hash tells a mirror's or another release's text apart."""
    count, window = windows.shape
    return (
        f"{corpus}/test, {count} windows of {window} tokens, disjoint, bos={bos.value}, {dtype}, "
        f"{_scored(windows)} tokens scored, text {text_sha256[:8]}"
    )


def zero_shot_protocol(task: str, scores: zero_shot.TaskScores, bos: Bos, dtype: str, seed: int) -> str:
    """All that a task's score depends on besides the model. The hash is of the very texts asked."""
    whole = scores.asked == scores.available
    items = f"all {scores.available} items" if whole else f"{scores.asked} of {scores.available} items, seed {seed}"
    cut = f", {scores.truncated} requests cut to {scores.max_length} tokens" if scores.truncated else ""
    return (
        f"lm-eval {zero_shot.version()}, {task} v{scores.version}, 0-shot, {items}, bos={bos.value}, {dtype}, text {scores.digest[:8]}{cut}"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _scored(windows: LongTensor) -> int:
    return windows.shape[0] * (windows.shape[1] - 1)


def _stage(on_progress: Callable[[str, int, int], None] | None, stage: str) -> Callable[[int, int], None] | None:
    return on_progress and (lambda done, total: on_progress(stage, done, total))
