"""A norm followed by the part of an affine map that nothing before or behind it can absorb."""

from torch import Tensor, nn


class AffineNorm(nn.Module):
    """y = (norm(x) - shift) @ inverse, each part where it is there.

    Both are kept in float16, as they are stored and counted, and used in the dtype of the activations.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.register_buffer("shift", None)  # (width,)
        self.register_buffer("inverse", None)  # (width, width): A^-1

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.norm(hidden)
        if self.shift is not None:
            hidden = hidden - self.shift.to(hidden.dtype)
        return hidden if self.inverse is None else hidden @ self.inverse.to(hidden.dtype)

    def stored(self) -> dict[str, Tensor]:
        """What a checkpoint stores for the map, apart from the norm itself."""
        parts = {"shift": self.shift, "inverse": self.inverse}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def multiply_adds(self) -> int:
        """Per token, beyond those of the norm."""
        return 0 if self.inverse is None else self.inverse.numel()

    def extra_repr(self) -> str:
        shapes = (f"{name}={tuple(tensor.shape)}" for name, tensor in self.stored().items())
        return ", ".join(shapes) or "identity"
