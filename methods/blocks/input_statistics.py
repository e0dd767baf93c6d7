"""What flows into the linears of a block, channel by channel, over calibration samples."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from methods.contracts.block import Block, Call
from methods.contracts.tuning import Sample

ALIKE = 0.02  # the largest difference, relative to the largest output, that is put down to rounding


@torch.no_grad()
def channel_sizes(block: Block, samples: Sequence[Sample], paths: Sequence[str]) -> dict[str, Tensor]:
    """Mean |x| of every channel (in,) float32 of the inputs of these linears."""
    totals: dict[str, Tensor] = {}
    tokens = sum(sample.hidden.shape[:-1].numel() for sample in samples)

    def add(path: str, inputs: Tensor) -> None:
        found = inputs.abs().sum(0, dtype=torch.float64)
        totals[path] = totals[path] + found if path in totals else found

    _run(block, samples, paths, add)
    return {path: (total / tokens).float() for path, total in totals.items()}


@torch.no_grad()
def channel_extremes(
    block: Block, samples: Sequence[Sample], paths: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """(smallest, largest) of every channel (in,) float32 of the inputs of these linears."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def add(path: str, inputs: Tensor) -> None:
        low, high = (end.float() for end in torch.aminmax(inputs, dim=0))
        known = found.get(path, (low, high))
        found[path] = torch.minimum(known[0], low), torch.maximum(known[1], high)

    _run(block, samples, paths, add)
    return found


@torch.no_grad()
def group_moments(
    block: Block, samples: Sequence[Sample], paths: Sequence[str], group_size: int | None
) -> dict[str, Tensor]:
    """E[x x^T] within each group of input channels of these linears, (groups, size, size) float32.

    Args:
        group_size: channels of a group; None: all of them.
    """
    totals: dict[str, Tensor] = {}
    tokens = sum(sample.hidden.shape[:-1].numel() for sample in samples)

    def add(path: str, inputs: Tensor) -> None:
        # (groups, tokens, size)
        groups = inputs.float().view(len(inputs), -1, group_size or inputs.shape[1]).transpose(0, 1)
        found = groups.mT @ groups / tokens
        totals[path] = totals[path].add_(found) if path in totals else found

    _run(block, samples, paths, add)
    return totals


def _run(
    block: Block, samples: Sequence[Sample], paths: Sequence[str], add: Callable[[str, Tensor], None]
) -> None:
    """Run the block on all samples, and show `add` each linear's input (tokens, in), rounded if it is.

    Not before a batch has passed the block: inside an attention whose operands are rounded, our own products
    would be as well.
    """
    seen: dict[str, Tensor] = {}

    def hook(path: str) -> Callable:
        return lambda module, inputs: seen.update({path: inputs[0].reshape(-1, inputs[0].shape[-1])})

    device = next(block.module.parameters()).device
    handles = [block.module.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        for sample in samples:
            block.run(sample.hidden.to(device), sample.call)
            for path in paths:
                add(path, seen.pop(path))
    finally:
        for handle in handles:
            handle.remove()


def first(block: Block, samples: Sequence[Sample], tokens: int) -> list[Sample]:
    """The first samples, with at least so many tokens; of the last one no more sequences than needed."""
    found = []
    for sample in samples:
        batch, length = sample.hidden.shape[:2]
        found.append(_cut(block, sample, min(-(-tokens // length), batch)))
        tokens -= batch * length
        if tokens <= 0:
            break
    return found


@torch.no_grad()
def _cut(block: Block, sample: Sample, count: int) -> Sample:
    """The first sequences of a batch, or all of them where the block computes something else of a part."""
    batch = len(sample.hidden)
    if count == batch:
        return sample
    own = None if sample.own_target is None else sample.own_target[:count]
    call = Call(*_cut_all((sample.call.args, dict(sample.call.kwargs)), batch, count))
    part = Sample(sample.hidden[:count], call, sample.target[:count], own)
    device = next(block.module.parameters()).device
    whole = block.run(sample.hidden.to(device), sample.call)[:count]
    try:
        alone = block.run(part.hidden.to(device), part.call)
    except RuntimeError:  # shapes that do not fit: something else had the length of the batch
        return sample
    same = alone.shape == whole.shape and bool((alone - whole).abs().max() <= ALIKE * whole.abs().max())
    return part if same else sample


def _cut_all(value: Any, batch: int, count: int) -> Any:
    """Whatever a block is called with, for fewer sequences; a tensor's first axis may be batch or heads."""
    if isinstance(value, Tensor):
        of_each = value.shape[0] // batch if value.ndim > 1 and value.shape[0] % batch == 0 else 0
        return value[: of_each * count] if of_each == 1 or (of_each and value.ndim == 3) else value
    if isinstance(value, tuple | list):
        return type(value)(_cut_all(item, batch, count) for item in value)
    if isinstance(value, dict):
        return {key: _cut_all(item, batch, count) for key, item in value.items()}
    return value
