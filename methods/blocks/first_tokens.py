"""The first tokens of the calibration samples, for searches that need not look at all of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from methods.core.block import Block, Call
from methods.core.tuning import Sample

ALIKE = 0.02  # the largest difference, relative to the largest output, that is put down to rounding


def first(block: Block, samples: Sequence[Sample], tokens: int) -> list[Sample]:
    """Samples from the first on with at least so many tokens, or all of them; of the last one no more sequences than needed."""
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
    """The first sequences of a batch, or the whole batch where the block does not compute the same of a part."""
    batch = len(sample.hidden)
    if count == batch:
        return sample
    own = None if sample.own_target is None else sample.own_target[:count]
    part = Sample(
        sample.hidden[:count], Call(*_cut_all((sample.call.args, dict(sample.call.kwargs)), batch, count)), sample.target[:count], own
    )
    device = next(block.module.parameters()).device
    whole = block.run(sample.hidden.to(device), sample.call)[:count]
    try:
        alone = block.run(part.hidden.to(device), part.call)
    except RuntimeError:  # shapes that do not fit: something else had the length of the batch
        return sample
    same = alone.shape == whole.shape and bool((alone - whole).abs().max() <= ALIKE * whole.abs().max())
    return part if same else sample


def _cut_all(value: Any, batch: int, count: int) -> Any:
    """Whatever the block is called with, for fewer sequences: tensors with a leading axis over the batch, or over all its heads."""
    if isinstance(value, Tensor):
        of_each = value.shape[0] // batch if value.ndim > 1 and value.shape[0] % batch == 0 else 0
        return value[: of_each * count] if of_each == 1 or (of_each and value.ndim == 3) else value
    if isinstance(value, tuple | list):
        return type(value)(_cut_all(item, batch, count) for item in value)
    return {key: _cut_all(item, batch, count) for key, item in value.items()} if isinstance(value, dict) else value
