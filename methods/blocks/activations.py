"""Activations in few bits: inputs of quantized linears, and queries, keys and values in products.

    per token (dynamic)   each token has the grid of its extremes; in the attention, each token of each head
    per tensor (static)   all tokens share one grid, whose end points are the extremes of the calibration text

Asymmetric grids have 2^n - 1 steps between the extremes, symmetric ones 2^(n-1) - 1 on either side of 0 (as
in SmoothQuant, OmniQuant and AffineQuant, arXiv 2403.12544, section 4.1). The softmax's output stays float.
Gradients pass straight through the rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.blocks.attention_operands import AttentionOperands
from methods.contracts.block import Block
from methods.contracts.scheme import ActRange, Scheme
from methods.kernels import token_rounding
from methods.kernels.token_rounding import Ends


@dataclass(frozen=True)
class ActivationFormat:
    """How one activation is written in few bits.

    Raises:
        ValueError: bits out of range.
    """

    bits: int
    symmetric: bool
    range: ActRange

    def __post_init__(self):
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits of an activation: must be between 2 and 8")

    @property
    def steps(self) -> int:
        """Between the end points of a grid."""
        return 2**self.bits - (2 if self.symmetric else 1)

    def round(self, activations: Tensor) -> Tensor:
        """On the grid of each token (the last axis), or of this one tensor; same shape and dtype."""
        return _Rounded.apply(activations, self, None)

    def round_between(self, activations: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """On the grid between fixed end points (scalars)."""
        return _Rounded.apply(activations, self, (low, high))

    def __str__(self) -> str:
        shared = {ActRange.token: "per token", ActRange.tensor: "per tensor"}[self.range]
        return f"{self.bits} bits {shared}" + (", symmetric" if self.symmetric else "")


def input_format(scheme: Scheme) -> ActivationFormat | None:
    """Of the inputs of linears, and of queries."""
    if scheme.act_bits is None:
        return None
    return ActivationFormat(scheme.act_bits, scheme.act_symmetric, scheme.act_range)


def cache_format(scheme: Scheme) -> ActivationFormat | None:
    """Of keys and values."""
    return input_format(scheme if scheme.kv_bits is None else replace(scheme, act_bits=scheme.kv_bits))


class ActivationQuantizer(nn.Module):
    """Rounds what passes through it; with a static range only once it was `calibrating` on some text."""

    def __init__(self, format: ActivationFormat):
        super().__init__()
        self.format = format
        self.widening = False
        self._known = False  # that the end points are there: asked once, as the answer waits for the device
        if format.range is ActRange.tensor:
            self.register_buffer("low", torch.tensor(float("nan")))
            self.register_buffer("high", torch.tensor(float("nan")))

    def forward(self, activations: Tensor) -> Tensor:
        """
        Raises:
            RuntimeError: a static range that was never calibrated.
        """
        if self.format.range is ActRange.token:
            return self.format.round(activations)
        if self.widening:
            self._widen(activations.detach())
            return activations
        if not self._known:
            if torch.isnan(self.low + self.high):
                raise RuntimeError(
                    "activations with a static range (scheme.act_range=tensor) were used before any text "
                    "calibrated it"
                )
            self._known = True
        return self.format.round_between(activations, self.low, self.high)

    @torch.no_grad()
    def _widen(self, activations: Tensor) -> None:
        low, high = activations.aminmax()
        self.low = torch.fmin(self.low.to(low.device), low.float())
        self.high = torch.fmax(self.high.to(high.device), high.float())

    def extra_repr(self) -> str:
        return str(self.format)


@contextmanager
def quantized_activations(block: Block, scheme: Scheme) -> Iterator[None]:
    """For a while, `block` computes with activations as the scheme rounds them; static ranges are those of
    each batch.

    Pre-hooks that are registered on linears inside see the rounded input. Places that `install_activations_`
    equipped for good round by themselves, and are left alone.

    Raises:
        ValueError: as `attention_of`, where the scheme quantizes activations.
    """
    handles, inputs = [], input_format(scheme)

    def rounded_input(module: nn.Module, given: tuple) -> tuple:
        return inputs.round(given[0]), *given[1:]

    try:
        for path in block.linears if inputs else ():
            linear = block.module.get_submodule(path)
            if getattr(linear, "activation", None) is None:
                handles.append(linear.register_forward_pre_hook(rounded_input))
        if scheme.quantizes_activations:
            attention = attention_of(block)
            if AttentionOperands.of(attention) is None:
                formats = (inputs, cache_format(scheme), cache_format(scheme))
                roundings = (format and format.round for format in formats)
                operands = AttentionOperands(*roundings, _whole_tokens(block, scheme))
                handles += operands.hook(attention)
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_of(block: Block) -> nn.Module:
    """
    Raises:
        ValueError: nobody said which module it is.
    """
    if block.attention is None:
        raise ValueError(
            f"{block.name}: activations cannot be quantized, as its family does not say where queries, keys "
            "and values meet"
        )
    return block.module.get_submodule(block.attention.path)


def install_activations_(block: Block, scheme: Scheme) -> None:
    """Make a rounded block quantize its activations for good; static ranges then want `calibrating`.

    Raises:
        ValueError: one of its linears was not rounded, it quantizes activations already, or its family does
            not say where its queries and keys meet.
    """
    if not scheme.quantizes_activations:
        return
    attention, inputs = attention_of(block), input_format(scheme)
    linears = {path: block.module.get_submodule(path) for path in block.linears}
    if any(isinstance(module, ActivationQuantizer) for module in block.module.modules()):
        raise ValueError(f"{block.name}: quantizes its activations already")
    for path, linear in linears.items():
        if not hasattr(linear, "activation"):
            raise ValueError(
                f"{block.name}.{path} is a {type(linear).__name__}; only linears with rounded weights "
                "quantize activations"
            )
    for linear in linears.values():
        linear.activation = inputs and ActivationQuantizer(inputs).to(linear.weight.device)
    quantizers = (format and ActivationQuantizer(format) for format in (inputs, *[cache_format(scheme)] * 2))
    device = next(block.module.parameters()).device
    AttentionOperands(*quantizers, _whole_tokens(block, scheme)).to(device).install_(attention)


@contextmanager
def calibrating(block: Block) -> Iterator[None]:
    """For a while, static quantizers installed in the block widen their range to what passes, unrounded."""
    quantizers = [module for module in block.module.modules() if isinstance(module, ActivationQuantizer)]
    try:
        for quantizer in quantizers:
            quantizer.widening = True
        yield
    finally:
        for quantizer in quantizers:
            quantizer.widening = False


def _whole_tokens(block: Block, scheme: Scheme) -> bool:
    return block.attention.whole_tokens and scheme.act_range is ActRange.token


class _Rounded(torch.autograd.Function):
    """Saves its input alone; the grid is found again in the backward pass."""

    @staticmethod
    def forward(ctx, activations: Tensor, format: ActivationFormat, ends: Ends) -> Tensor:
        ctx.save_for_backward(activations)
        ctx.format, ctx.ends = format, ends
        rows = _rows(activations, format, ends)
        result = token_rounding.rounded(rows, format.steps, format.symmetric, ends)
        return result.view(activations.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor):
        (activations,), format, ends = ctx.saved_tensors, ctx.format, ctx.ends
        rows, given = _rows(activations, format, ends), _rows(outer, format, ends)
        result = token_rounding.gradient(rows, given, format.steps, format.symmetric, ends)
        return result.view(activations.shape), None, None


def _rows(tensor: Tensor, format: ActivationFormat, ends: Ends) -> Tensor:
    """(n, width): a row for all that shares end points yet to be found."""
    shares_one = format.range is ActRange.tensor and ends is None
    return tensor.reshape(1, -1) if shares_one else tensor.reshape(-1, tensor.shape[-1])
