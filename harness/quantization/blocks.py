"""The transformer blocks of a model, one at a time, and what they are called with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.models.families import Family
from methods.contracts.block import Block, Call


@dataclass(frozen=True)
class BatchInput:
    """One calibration batch at the entrance of the first block, and how the model calls every block on it."""

    hidden: Tensor  # (batch, tokens, width)
    calls: list[Call]  # one per block


class ModelBlocks:
    """The blocks of a model that is in memory as a whole, in order.

    Whoever iterates works on a block before asking for the next: a source that reads a checkpoint block by
    block would fit in here.
    """

    def __init__(self, model: PreTrainedModel, family: Family):
        self.model, self.family = model, family
        self.groups = family.groups(model.config)
        self.seams, self.attention = family.seams(model.config), family.attention(model.config)

    def __len__(self) -> int:
        return len(self.family.block_list(self.model))

    def names(self) -> list[str]:
        """Paths of the blocks, e.g. model.layers.3."""
        return [f"{self.family.blocks}.{index}" for index in range(len(self))]

    def __iter__(self) -> Iterator[Block]:
        for index, module in enumerate(self.family.block_list(self.model)):
            name = f"{self.family.blocks}.{index}"
            yield Block(name, index, module, self.groups, self.seams, self.attention)

    def replace_linear(self, block: Block, path: str, module: nn.Module) -> None:
        """Put `module` at `path` of the block, for good."""
        block.module.set_submodule(path, module)

    def replace_parameter(self, block: Block, name: str, value: Tensor) -> None:
        """Set a parameter, named relative to the block, for good."""
        block.module.get_parameter(name).data.copy_(value)

    def statistics_bytes(self) -> int:
        """Size of one float32 Hessian per group of every block."""
        first = self.family.block_list(self.model)[0]
        return len(self) * sum(4 * first.get_submodule(group[0]).in_features ** 2 for group in self.groups)

    @torch.no_grad()
    def capture(self, tokens: Tensor, batch_size: int) -> list[BatchInput]:
        """What the first block sees of `tokens`, and what every block is called with.

        Run embeddings, masks and positions as the model itself does, with blocks that only note how they
        are called.

        Args:
            tokens: (samples, window) token ids.

        Raises:
            RuntimeError: the model does not call every block exactly once per forward pass.
        """
        rebuild = self._output_form(tokens[:1])
        batches: list[BatchInput] = []
        for batch in tokens.split(batch_size):
            hidden, calls = self._record(batch, rebuild)
            if batches:  # masks and positions depend on shapes alone: keep one copy of what repeats
                calls = [
                    old if _same(old, new) else new for old, new in zip(batches[0].calls, calls, strict=True)
                ]
            batches.append(BatchInput(hidden, calls))
        return batches

    def _record(self, tokens: Tensor, rebuild: Callable[[Tensor], Any]) -> tuple[Tensor, list[Call]]:
        entries: list[list[tuple[Tensor, Call]]] = [[] for _ in range(len(self))]

        def recorder(entry: list[tuple[Tensor, Call]]) -> Callable:
            def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
                entry.append((hidden_states, Call(args, kwargs)))
                return rebuild(hidden_states)

            return forward

        with _forwards(self.family.block_list(self.model), [recorder(entry) for entry in entries]):
            self._run_base(tokens)
        for name, entry in zip(self.names(), entries, strict=True):
            if len(entry) != 1:
                raise RuntimeError(
                    f"{name} was called {len(entry)} times in one forward pass; "
                    "only models that call it once are supported"
                )
        return entries[0][0][0], [entry[0][1] for entry in entries]

    def _output_form(self, tokens: Tensor) -> Callable[[Tensor], Any]:
        """Learn from the first block what a block returns around its hidden states: nothing, or a tuple."""
        first = self.family.block_list(self.model)[0]
        original = first.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            raise _Answer(original(*args, **kwargs))

        try:
            with _forwards([first], [forward]):
                self._run_base(tokens)
        except _Answer as answer:
            output = answer.output
        if isinstance(output, Tensor):
            return lambda hidden: hidden
        return lambda hidden: (hidden, *(None for _ in output[1:]))

    def _run_base(self, tokens: Tensor) -> None:
        self.model.base_model(input_ids=tokens.to(self.model.device), use_cache=False)


class _Answer(Exception):
    """Carries the first block's output out of the model, so that nothing behind it runs."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


@contextmanager
def _forwards(modules: Sequence[nn.Module], forwards: Sequence[Callable]) -> Iterator[None]:
    """Replace the modules' forward methods, and restore them whatever happens.

    The modules themselves stay in place: models read attributes of their blocks, and hooks hang on them.
    """
    own = [vars(module).get("forward") for module in modules]
    try:
        for module, forward in zip(modules, forwards, strict=True):
            module.forward = forward
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward


def _same(a: Any, b: Any) -> bool:
    """Equality of nested arguments; tensors by value."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b or (
            isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        )
    if isinstance(a, Call):
        return isinstance(b, Call) and _same((a.args, dict(a.kwargs)), (b.args, dict(b.kwargs)))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return a is b or (isinstance(a, bool | int | float | str | torch.dtype) and type(a) is type(b) and a == b)
