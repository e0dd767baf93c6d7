"""What a quantized block has beyond its architecture, as a manifest describes it: formats of activations,
norms with a map behind them.

    {"operands": {<attention>: {"query": format | null, "key": ..., "value": ..., "whole_tokens": bool}},
     "norms": {<norm>: ["inverse", "shift"]}}          the buffers that are there
    format = {"bits": 4, "symmetric": false, "range": "token"}

The tensors that belong to them are stored like all other buffers.
"""

from typing import Any

import torch
from torch import nn

from methods.blocks.activations import ActivationFormat, ActivationQuantizer
from methods.blocks.affine_norm import AffineNorm
from methods.blocks.attention_operands import AttentionOperands
from methods.contracts.scheme import ActRange

OPERANDS = ("query", "key", "value")


def described(model: nn.Module) -> dict[str, dict]:
    """The entry of a manifest."""
    operands, norms = {}, {}
    for path, module in model.named_modules():
        if isinstance(module, AttentionOperands):
            formats = {name: format_entry(getattr(module, name)) for name in OPERANDS}
            operands[path.rpartition(".")[0]] = formats | {"whole_tokens": module.whole_tokens}
        elif isinstance(module, AffineNorm):
            norms[path] = sorted(module.stored())
    return {"operands": operands, "norms": norms}


def rebuild_(model: nn.Module, blocks: str, entry: dict[str, dict]) -> None:
    """Equip a model on the meta device, so that the stored buffers have their places.

    Args:
        blocks: path of the list of blocks, outside of which nothing is equipped; empty: the model is a block.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the entry does not fit the model.
    """
    for path, formats in entry.get("operands", {}).items():
        attention = _inside(model, blocks, path)
        if AttentionOperands.of(attention) is not None or type(formats["whole_tokens"]) is not bool:
            raise ValueError(f"{path} cannot be given quantizers of activations")
        quantizers = [quantizer(formats[name]) for name in OPERANDS]
        AttentionOperands(*quantizers, formats["whole_tokens"]).install_(attention)
    for path, buffers in entry.get("norms", {}).items():
        norm = _inside(model, blocks, path)
        width = len(norm.weight)
        shapes = {"shift": (width,), "inverse": (width, width)}
        wrapped = AffineNorm(norm)
        for name in buffers:
            setattr(wrapped, name, torch.empty(shapes[name], dtype=torch.float16, device="meta"))
        model.set_submodule(path, wrapped)


def quantizer(entry: dict[str, Any] | None) -> ActivationQuantizer | None:
    """
    Raises:
        ValueError, KeyError, TypeError: no such format.
    """
    if entry is None:
        return None
    if (
        entry.keys() != {"bits", "symmetric", "range"}
        or type(entry["bits"]) is not int
        or type(entry["symmetric"]) is not bool
    ):
        raise ValueError(f"unknown format of activations {entry}")
    return ActivationQuantizer(ActivationFormat(entry["bits"], entry["symmetric"], ActRange[entry["range"]]))


def format_entry(quantizer: ActivationQuantizer | None) -> dict[str, Any] | None:
    if quantizer is None:
        return None
    return {
        "bits": quantizer.format.bits,
        "symmetric": quantizer.format.symmetric,
        "range": quantizer.format.range.name,
    }


def _inside(model: nn.Module, blocks: str, path: str) -> nn.Module:
    if blocks and not path.startswith(f"{blocks}."):
        raise ValueError(f"{path} is not part of a block")
    return model.get_submodule(path)
