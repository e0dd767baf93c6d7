"""Bits per weight, weighed: all that is stored, by the number of weights."""

from collections.abc import Mapping

from torch import Tensor


def bits_per_weight(tensors: Mapping[str, Tensor], numel: int) -> float:
    """Stored bits per original entry: 8 * bytes / numel of what `QuantizedWeight.tensors()` gave."""
    return 8 * sum(tensor.nbytes for tensor in tensors.values()) / numel
