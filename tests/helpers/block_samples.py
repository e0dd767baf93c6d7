"""Calibration samples of the blocks in `tests.helpers.seam_settings`, and blocks whose channels differ in
size as real ones do.
"""

from dataclasses import replace

import torch
from torch import Tensor

from methods.contracts.block import Block
from methods.contracts.seams import NormSeam
from methods.contracts.tuning import Sample
from tests.helpers.seam_settings import setting


def uneven_block(variant: str, spread: float = 1.0) -> tuple[Block, list[Sample]]:
    """The first block of a tiny model with norms whose channels are exp(spread * normal) apart, and two
    batches of what it makes.
    """
    block, generator = setting(variant).copy(), torch.Generator().manual_seed(3)
    for seam in block.seams:
        if isinstance(seam, NormSeam):
            norm = block.module.get_submodule(seam.norm)
            factor = (spread * torch.randn(seam.width, generator=generator)).exp()
            norm.weight.data.copy_((1 + norm.weight) * factor - 1 if seam.one_plus else norm.weight * factor)
    return block, samples_of(block, variant)


@torch.no_grad()
def samples_of(block: Block, variant: str) -> list[Sample]:
    """Two batches of the setting's text, and what this block makes of them."""
    known = setting(variant)
    found = []
    for hidden in (known.hidden, known.hidden.flip(-1)):
        hidden = hidden.to(next(block.module.parameters()).dtype)
        found.append(Sample(hidden, known.call, block.run(hidden, known.call)))
    return found


@torch.no_grad()
def change(block: Block, samples: list[Sample]) -> float:
    """By how much the block's outputs differ from the samples' targets, relative to the largest entry."""
    return max(
        ((block.run(s.hidden, s.call) - s.target).abs().max() / s.target.abs().max()).item() for s in samples
    )


@torch.no_grad()
def inputs_of(block: Block, samples: list[Sample], path: str) -> Tensor:
    """Everything that flows into a linear, (tokens, in) float64."""
    seen: list[Tensor] = []
    linear = block.module.get_submodule(path)
    handle = linear.register_forward_hook(
        lambda module, given, output: seen.append(given[0].double().flatten(0, -2))
    )
    for sample in samples:
        block.run(sample.hidden, sample.call)
    handle.remove()
    return torch.cat(seen)


def untouched(samples: list[Sample]) -> list[Sample]:
    """A copy to compare with later."""
    return [replace(sample, hidden=sample.hidden.clone(), target=sample.target.clone()) for sample in samples]
