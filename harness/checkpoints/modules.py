"""A quantized module as tensors and a JSON-able entry, and back, bit for bit: a whole model in a checkpoint,
one block in a run cut short.

tensors    `<linear>.<tensor>` packed; all other parameters and buffers under their own names
entry      {"linears": layouts, "additions": what the module has beyond its architecture,
            "tied": further names of stored tensors}
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.checkpoints import additions
from harness.checkpoints.linear import QuantizedLinear
from methods.weights.stored import restore


def described(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and entry of a module whose linears are (partly) quantized.

    Raises:
        ValueError: a packed tensor has the name of a parameter.
    """
    stored, tied = _other_tensors(module)
    linears = {}
    for path, linear in _quantized(module).items():
        packed = {f"{path}.{name}": tensor.contiguous() for name, tensor in linear.packed.items()}
        if packed.keys() & (stored.keys() | tied.keys()):
            raise ValueError(f"{path}: a packed tensor has the name of a parameter")
        stored |= packed
        linears[path] = {
            "layout": linear.layout,
            "tensors": sorted(linear.packed),
            "dtype": dtype_name(linear.weight.dtype),
        }
        if linear.activation is not None:
            linears[path]["activation"] = additions.format_entry(linear.activation)
    return stored, {"linears": linears, "additions": additions.described(module), "tied": tied}


def rebuild_(module: nn.Module, tensors: dict[str, Tensor], entry: dict[str, Any], blocks: str) -> None:
    """Make a module of the same architecture, float or without values, the described one.

    Args:
        tensors: emptied on the way; their device becomes the module's.
        blocks: path of the list of blocks, outside of which nothing is equipped; empty: the module is a
            block.

    Raises:
        ValueError, KeyError, AttributeError, TypeError, RuntimeError: tensors and entry do not fit each other
        or the module.
    """
    for path, linear in entry["linears"].items():
        packed = {name: tensors.pop(f"{path}.{name}") for name in linear["tensors"]}
        _put_linear(
            module, path, packed, linear, biased=f"{path}.bias" in tensors.keys() | entry["tied"].keys()
        )
    additions.rebuild_(module, blocks, entry.get("additions", {}))
    _put_others(module, tensors, entry["tied"])


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _quantized(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by every name it has, but for the materialised weights of quantized
    linears.
    """
    materialised = {f"{path}.weight" for path in _quantized(model)}
    for named in (model.named_parameters, model.named_buffers):
        yield from (
            (name, tensor) for name, tensor in named(remove_duplicate=False) if name not in materialised
        )


def _other_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What to store under its own name, on the CPU, and for further names of the same tensor the name it is
    stored by.
    """
    stored, tied, owners = {}, {}, {}
    for name, tensor in _tensors(model):
        owner = owners.setdefault(
            (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), name
        )
        if owner != name and tensor.numel():
            tied[name] = owner
        else:
            stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, tied


def _put_linear(
    model: nn.Module, path: str, packed: dict[str, Tensor], entry: dict[str, Any], biased: bool
) -> None:
    old = model.get_submodule(path)
    # a place for what is stored
    bias = old.weight.new_empty(len(old.weight), device="meta") if biased and old.bias is None else old.bias
    activation = additions.quantizer(entry.get("activation"))
    new = QuantizedLinear(
        restore(packed, entry["layout"]), bias, getattr(torch, entry["dtype"]), packed, activation
    )
    if new.weight.shape != old.weight.shape:
        raise ValueError(f"{path} has shape {tuple(new.weight.shape)}, not {tuple(old.weight.shape)}")
    model.set_submodule(path, new)


def _put_others(model: nn.Module, tensors: dict[str, Tensor], tied: dict[str, str]) -> None:
    slots = dict(_tensors(model))
    if slots.keys() != tensors.keys() | tied.keys():
        raise ValueError(f"{min(slots.keys() ^ (tensors.keys() | tied.keys()))} is only on one side")
    ready: dict[str, Tensor] = {}
    for name in (*tensors, *tied):
        tensor, slot = tensors[tied.get(name, name)], slots[name]
        if tensor.shape != slot.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(slot.shape)}")
        if isinstance(slot, nn.Parameter):  # one object for all names of a tied parameter
            tensor = ready.setdefault(tied.get(name, name), nn.Parameter(tensor, requires_grad=False))
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, tensor)
