"""What is evaluated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from harness.config.groups import Bos
from harness.foundation.errors import UserError, overflow

OnBatch = Callable[[int, int], None] | None  # called with (done, total)


@dataclass(frozen=True)
class Subject:
    """A model in memory, and how it is asked."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    bos: Bos
    dtype: str  # of the model, for the protocol


@contextmanager
def refusing_overflow(model: nn.Module) -> Iterator[None]:
    """For a while, end with an error when the model's logits are not finite. Of a rounded model that is a
    result; of the float model, which everything is compared with, its dtype is at fault.

    Raises:
        UserError: says so, and what to try.
    """

    def check(module, inputs, output) -> None:
        # some architectures give -inf to entries that no token has
        if not output.logits.amax(-1).isfinite().all():
            raise UserError(overflow("the float model's logits", str(model.dtype).removeprefix("torch.")))

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
