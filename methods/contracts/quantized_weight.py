"""The contract of a rounded matrix."""

from typing import Protocol

from torch import Tensor


class QuantizedWeight(Protocol):
    """A rounded matrix. Bits are weighed on `tensors()`, so that nothing stored goes uncounted."""

    def dequantize(self) -> Tensor:
        """The weight as the model will use it, (out, in), in the dtype it was solved in."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Exactly what a checkpoint stores, packed."""
        ...

    def layout(self) -> dict:
        """What `restore` needs besides the tensors: small, JSON-able, starts with `kind`."""
        ...
