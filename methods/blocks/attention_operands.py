"""Queries, keys and values, caught right where an attention of whatever family multiplies them.

While the attention's forward runs, a `TorchFunctionMode` watches for products:

    scaled_dot_product_attention(query, key, value)    nearly every family
    baddbmm(query, key^T), then bmm(probabilities, value)    BLOOM
    matmul(query, key^T), then matmul(probabilities, value)    attention written out ("eager")

Products of less than three axes on the right are those of linears, and pass. An attention whose forward ends
without having multiplied queries, keys and values in one of these ways raises, so that none is left in float
unseen.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

Rounding = Callable[[Tensor], Tensor]
SDPA = F.scaled_dot_product_attention
OPERANDS = {  # (position, name) of the two factors of a product
    torch.matmul: ((0, "input"), (1, "other")),
    torch.Tensor.matmul: ((0, "self"), (1, "other")),
    torch.Tensor.__matmul__: ((0, "self"), (1, "other")),
    torch.bmm: ((0, "input"), (1, "mat2")),
    torch.Tensor.bmm: ((0, "self"), (1, "mat2")),
    torch.baddbmm: ((1, "batch1"), (2, "batch2")),
    torch.Tensor.baddbmm: ((1, "batch1"), (2, "batch2")),
}
PLACE = "operands"  # the name of the quantizers in an attention module


class AttentionOperands(nn.Module):
    """What becomes of queries, keys and values in an attention module: each has its own rounding, or none."""

    def __init__(
        self, query: Rounding | None, key: Rounding | None, value: Rounding | None, whole_tokens: bool
    ):
        """
        Args:
            whole_tokens: hand over (batch, tokens, all heads' entries), not (batch, heads, tokens, entries).
        """
        super().__init__()
        self.query, self.key, self.value = query, key, value
        self.whole_tokens = whole_tokens
        self._running: list[_Products] = []

    @staticmethod
    def of(attention: nn.Module) -> "AttentionOperands | None":
        """The one that was installed there."""
        return getattr(attention, PLACE, None)

    def install_(self, attention: nn.Module) -> None:
        """Into the attention module, for good: a copy of the module brings a copy of this one."""
        attention.add_module(PLACE, self)
        self.hook(attention)

    def hook(self, attention: nn.Module) -> list[RemovableHandle]:
        """Watch the module's forward; `copy.deepcopy` binds the hooks, bound methods, to the copy."""
        return [
            attention.register_forward_pre_hook(self._enter),
            attention.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, attention: nn.Module, inputs: tuple) -> None:
        products = _Products(self)
        products.__enter__()
        self._running.append(products)

    def _leave(self, attention: nn.Module, inputs: tuple, output: Any) -> None:
        if not self._running:
            return  # something raised before this forward began
        products = self._running.pop()
        products.__exit__(None, None, None)
        # None: the forward raised, and what it raised says more
        if output is not None and not products.complete:
            raise RuntimeError(
                f"{type(attention).__name__} was to multiply queries, keys and values of few bits, but no "
                "such product was seen; its way of computing attention is not served: load the model with "
                "attn_implementation=sdpa"
            )

    def rounded(self, which: str, operand: Tensor) -> Tensor:
        rounding = getattr(self, which)
        if rounding is None:
            return operand
        if not self.whole_tokens:
            return rounding(operand)
        if operand.ndim != 4:
            raise RuntimeError(
                f"{which} of shape {tuple(operand.shape)}: one range over all heads needs (batch, heads, "
                "tokens, entries)"
            )
        tokens = operand.transpose(1, 2)
        return rounding(tokens.flatten(2)).view(tokens.shape).transpose(1, 2)

    def extra_repr(self) -> str:
        return "one range per token over all heads" if self.whole_tokens else ""


class _Products(TorchFunctionMode):
    """Rounds the operands of the products of one forward of an attention module."""

    def __init__(self, operands: AttentionOperands):
        super().__init__()
        self.operands = operands
        self.scores: Sequence[int] | None = None  # shape of queries times keys
        self.complete = False

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is SDPA:
            args, kwargs = self._attention(args, kwargs)
        elif func in OPERANDS:
            args, kwargs = self._product(OPERANDS[func], args, kwargs)
        return func(*args, **kwargs)

    def _attention(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self._expect(self.scores is None)
        self.scores, self.complete = (), True
        for position, name in enumerate(("query", "key", "value")):
            rounding = partial(self.operands.rounded, name)
            args, kwargs = _replaced(args, kwargs, (position, name), rounding)
        return args, kwargs

    def _product(self, places: tuple, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        left, right = (_get(args, kwargs, place) for place in places)
        if right.ndim < 3:
            return args, kwargs  # a linear
        if self.scores is None:
            heads = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
            self.scores = (*heads, left.shape[-2], right.shape[-1])
            args, kwargs = _replaced(args, kwargs, places[0], partial(self.operands.rounded, "query"))
            return _replaced(args, kwargs, places[1], lambda key: self.operands.rounded("key", key.mT).mT)
        self._expect(not self.complete and tuple(left.shape) == self.scores)
        self.complete = True
        return _replaced(args, kwargs, places[1], partial(self.operands.rounded, "value"))

    def _expect(self, condition: bool) -> None:
        if not condition:
            raise RuntimeError(
                "an attention multiplied more than queries with keys and their softmax with values, so that "
                "operands cannot be told apart; load the model with attn_implementation=sdpa"
            )


def _get(args: tuple, kwargs: dict, place: tuple[int, str]) -> Tensor:
    position, name = place
    return args[position] if position < len(args) else kwargs[name]


def _replaced(
    args: tuple, kwargs: dict, place: tuple[int, str], change: Callable[[Tensor], Tensor]
) -> tuple[tuple, dict]:
    position, name = place
    new = change(_get(args, kwargs, place))
    if position < len(args):
        return (*args[:position], new, *args[position + 1 :]), kwargs
    return args, kwargs | {name: new}
