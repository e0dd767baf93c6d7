"""A linear whose weight was quantized, as an ordinary module."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.activations import ActivationQuantizer
from methods.contracts.quantized_weight import QuantizedWeight
from methods.weights.stored import restore


class QuantizedLinear(nn.Module):
    """y = quantize(x) Q^T + bias, with Q materialised once in the model's dtype.

    The packed tensors are the truth: they stay in CPU memory, are what a checkpoint stores, and take no part
    in `state_dict()`. `weight` is a buffer, so that it moves with the module and code that reads
    `linear.weight` works.
    """

    def __init__(
        self,
        weight: QuantizedWeight,
        bias: Tensor | None,
        dtype: torch.dtype,
        packed: dict[str, Tensor] | None = None,
        activation: ActivationQuantizer | None = None,
    ):
        """
        Args:
            weight: (out, in); its device becomes the device of `self.weight`.
            bias: (out,) or None, kept as it is.
            dtype: of the materialised weight.
            packed: `weight.tensors()`, from a caller who has them.
            activation: rounds the inputs; None: they stay float. `install_activations_` sets it.
        """
        super().__init__()
        self.packed = {name: tensor.cpu() for name, tensor in (packed or weight.tensors()).items()}
        self.layout = weight.layout()
        self.register_buffer("weight", weight.dequantize().to(dtype), persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.activation = activation
        self.out_features, self.in_features = self.weight.shape

    @property
    def quantized(self) -> QuantizedWeight:
        """The quantized weight, unpacked anew at every call, in CPU memory."""
        return restore(self.packed, self.layout)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(
            inputs if self.activation is None else self.activation(inputs), self.weight, self.bias
        )

    def extra_repr(self) -> str:
        shape = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{shape}, bias={self.bias is not None}, kind={self.layout['kind']}"
