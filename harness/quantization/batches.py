"""Hidden states on their way through the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.contracts.block import Block, Call


@dataclass
class Batch:
    """Hidden states on their way through the blocks, and how each block is called."""

    hidden: Tensor  # (samples, tokens, width)
    calls: Sequence[Call]  # one per block
    of_float: Tensor | None = None  # those of the float model, where they differ and are needed


def home_of(hidden: Sequence[Tensor], copies: int) -> torch.device:
    """Where hidden states are kept: with their device while so many copies of all leave half of its free
    memory, else on the host.
    """
    device = hidden[0].device
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if 2 * copies * sum(entry.nbytes for entry in hidden) <= free else torch.device("cpu")


@torch.no_grad()
def outputs_of(block: Block, index: int, batches: Sequence[Batch], of_float: bool = False) -> list[Tensor]:
    """What the block makes of every batch (with `of_float`, of the float model's hidden states), kept where
    the batches are.
    """
    device = next(block.module.parameters()).device
    entries = [
        batch.of_float if of_float and batch.of_float is not None else batch.hidden for batch in batches
    ]
    return [
        block.run(entry.to(device), batch.calls[index]).to(entry.device)
        for entry, batch in zip(entries, batches, strict=True)
    ]
