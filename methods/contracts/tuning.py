"""Fine-tuning of a block after its linears were rounded: what is handed over, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from methods.contracts.block import Block, Call
from methods.contracts.quantized_weight import QuantizedWeight


@runtime_checkable
class TunableWeight(QuantizedWeight, Protocol):
    """A quantized weight with real numbers in it that gradients can move while the codes stay."""

    def trainable(self) -> dict[str, Tensor]:
        """The numbers that may move, by name, at the values that are stored."""
        ...

    def decode(self, trained: dict[str, Tensor]) -> Tensor:
        """The weight (out, in) with these numbers in place of its own; differentiable in them."""
        ...

    def with_trained(self, trained: dict[str, Tensor]) -> "TunableWeight":
        """The same codes with these numbers, rounded to what is stored."""
        ...


@dataclass(frozen=True)
class Sample:
    """One calibration batch at a block: what goes in, how the block is called, what should come out."""

    hidden: Tensor  # (batch, tokens, width)
    call: Call
    target: Tensor  # (batch, tokens, width)
    own_target: Tensor | None = None  # what the float block makes of `hidden`, where that is not the target


@dataclass(frozen=True)
class Tuned:
    """A tuned block. What is absent from both mappings stays as it was."""

    weights: Mapping[str, QuantizedWeight]  # by path of the linear
    parameters: Mapping[str, Tensor]  # other parameters of the block, by their name in it
    error_before: float  # mean squared error of the block's output
    error_after: float
    fallbacks: tuple[str, ...] = field(default=())


class BlockTuning(Protocol):
    """Moves what is not a code so that a block's output comes closer to its target. Pure: the block stays."""

    def tune(self, block: Block, samples: Sequence[Sample], weights: Mapping[str, QuantizedWeight]) -> Tuned:
        """
        Args:
            block: with linears of the paths of `weights` in it, rounded or not; their weights are not read.
            weights: the rounded weight of every linear that was rounded.
        """
        ...
