"""One transformer block, as pipelines and transforms see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from methods.contracts.seams import Seam


@dataclass(frozen=True)
class Call:
    """Everything a block is called with besides its hidden states, as the model itself passed it."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Attention:
    """Where a block multiplies queries, keys and values, and which of their entries share a dynamic range."""

    path: str  # of the module whose forward does it
    # one range per token over all heads (before the split into heads), not one per token and head
    whole_tokens: bool


@dataclass(frozen=True)
class Block:
    """A block, the order of its linears, and what may be rewritten in it.

    `groups` lists the paths of the linears relative to `module`; those in one inner tuple read the same
    input and share one Hessian; the tuples follow the data flow (q, k, v | o | gate, up | down).
    """

    name: str  # e.g. "model.layers.3"
    index: int  # among the blocks of the model, e.g. 3
    module: nn.Module
    groups: tuple[tuple[str, ...], ...]
    seams: tuple[Seam, ...] = ()
    attention: Attention | None = None

    @property
    def linears(self) -> tuple[str, ...]:
        return tuple(path for group in self.groups for path in group)

    def run(self, hidden: Tensor, call: Call) -> Tensor:
        """The block's output hidden states (batch, tokens, width), whether it returns a tensor or a tuple."""
        output = self.module(hidden, *call.args, **call.kwargs)
        return output if isinstance(output, Tensor) else output[0]
