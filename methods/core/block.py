"""One transformer block, as pipelines and transforms see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """Everything a block is called with besides its hidden states, as the model itself passed it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """A block and the order of its linears.

    `groups` lists the paths of the linears relative to `module`; those in one inner tuple read the same
    input and share one Hessian; the tuples follow the data flow (q, k, v | o | gate, up | down).
    """

    name: str  # e.g. "model.layers.3"
    module: nn.Module
    groups: tuple[tuple[str, ...], ...]

    def run(self, hidden: Tensor, call: Call) -> Tensor:
        """The block's output hidden states, (batch, tokens, width), whether it returns a tensor or a tuple."""
        output = self.module(hidden, *call.args, **call.kwargs)
        return output if isinstance(output, Tensor) else output[0]
