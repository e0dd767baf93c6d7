"""Running a block with other parameters than its own, in float32: halves lose small steps of training."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.func import functional_call

from methods.contracts.block import Block, Call


def values_of(block: Block) -> dict[str, Tensor]:
    """All parameters and buffers of a block, by name."""
    named = (*block.module.named_parameters(), *block.module.named_buffers())
    return {name: value.detach() for name, value in named}


def run_with(block: Block, hidden: Tensor, call: Call, values: Mapping[str, Tensor]) -> Tensor:
    """What the block puts out, (batch, tokens, width) float32, with `values` for its parameters and buffers.

    Args:
        values: by name in the block; what is absent stays the block's own.
    """
    device = next(iter(values.values())).device  # hidden states may be kept on the host
    arguments = (float32(hidden.to(device, non_blocking=True)), *float32(tuple(call.args)))
    output = functional_call(block.module, dict(values), arguments, float32(dict(call.kwargs)))
    return output if isinstance(output, Tensor) else output[0]


def float32(value: Any) -> Any:
    """The same, with every half-precision or double tensor in it as float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(float32(item) for item in value)
    return {key: float32(item) for key, item in value.items()} if isinstance(value, dict) else value
