"""Perplexity of a model on windows of tokens, with its standard error."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import LongTensor, Tensor, nn

from harness.evaluation.subject import OnBatch, evaluating

LOGITS_AT_ONCE = 2**27  # elements (512 MiB in float32) of one logits tensor: bounds memory, moves no number
LOSS_TOKENS = 256  # tokens whose log-softmax is taken at once


@torch.no_grad()
def window_losses(model: nn.Module, windows: LongTensor, batch_size: int, on_batch: OnBatch = None) -> Tensor:
    """Mean negative log-likelihood of each window in nats per token, float64 (n,); inf where the model's
    logits are not finite.

    Each window is scored alone: its tokens but the first are predicted from those before them in the window
    (GPTQ's protocol). Log-softmax in float32, means in float64.

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
    means = torch.stack(losses).cpu()
    return torch.where(means.isfinite(), means, math.inf)


def _loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean loss of one window, float64: logits (window, vocabulary), tokens (window,)."""
    targets = tokens[1:].to(logits.device)
    pieces = zip(logits[:-1].split(LOSS_TOKENS), targets.split(LOSS_TOKENS), strict=True)
    losses = [F.cross_entropy(piece.float(), target, reduction="none") for piece, target in pieces]
    return torch.cat(losses).double().mean()


def perplexity_of(losses: Sequence[float]) -> tuple[float, float | None]:
    """exp(mean loss) and its standard error by the delta method: exp(mean) times the standard error of the
    mean.

    A model that has diverged gives inf, without a standard error: no text has a probability under it.
    """
    mean, stderr = mean_of(losses)
    value = math.inf if not math.isfinite(mean) or mean > 700 else math.exp(mean)
    return value, None if stderr is None or not math.isfinite(value) else value * stderr


def mean_of(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error (for zeros and ones: the binomial one with n - 1, as lm-eval has it)."""
    sample = torch.tensor(values, dtype=torch.float64)
    stderr = sample.std().div(math.sqrt(len(sample))).item() if len(sample) > 1 else None
    return sample.mean().item(), stderr


def scored(windows: LongTensor) -> int:
    return windows.shape[0] * (windows.shape[1] - 1)
