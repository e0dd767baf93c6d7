"""Hidden states on their way through the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.contracts.block import Block, Call
from methods.contracts.tuning import Sample


@dataclass
class Batch:
    """Hidden states on their way through the blocks, and how each block is called."""

    hidden: Tensor  # (samples, tokens, width)
    calls: Sequence[Call]  # one per block
    of_float: Tensor | None = None  # those of the float model, where they differ and are needed

    def run(self, block: Block, of_float: bool = False) -> Tensor:
        """What the block makes of it (with `of_float`, of the float model's hidden states), kept where they
        are.
        """
        hidden = self.of_float if of_float and self.of_float is not None else self.hidden
        device = next(block.module.parameters()).device
        return block.run(hidden.to(device), self.calls[block.index]).to(hidden.device)

    def sample(self, block: Block, target: Tensor, own_target: Tensor | None = None) -> Sample:
        """What a transform or a tuning of the block is handed of it."""
        return Sample(self.hidden, self.calls[block.index], target, own_target)


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
def outputs_of(block: Block, batches: Sequence[Batch], of_float: bool = False) -> list[Tensor]:
    """`Batch.run` of every batch."""
    return [batch.run(block, of_float) for batch in batches]
