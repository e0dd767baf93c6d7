"""What is evaluated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from harness.config.groups import Bos

OnBatch = Callable[[int, int], None] | None  # called with (done, total)


@dataclass(frozen=True)
class Subject:
    """A model in memory, and how it is asked."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    bos: Bos
    dtype: str  # of the model, for the protocol


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
