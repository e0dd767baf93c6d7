"""Quantized checkpoints: packed tensors, everything else the model needs, and a manifest that vouches for each file.

    <directory>/config.json, tokenizer files   as transformers writes them
    <directory>/quantized.safetensors          `<linear>.<tensor>` packed; other parameters and buffers under their own names
    <directory>/manifest.json                  layouts, formats of activations, ties, SHA-256 of every file and of itself

Whatever a block has beyond its architecture is named by the manifest: activation formats, wrapped norms; biases are known by their tensors.
Buffers that transformers would compute anew are stored too, so that a loaded model is the saved one bit for bit.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness import additions
from harness.errors import UserError
from harness.families import family_of, skeleton
from harness.files import replace_directory, sha256_file
from harness.linear import QuantizedLinear
from harness.model_files import check_config
from harness.models import SUPERSEDED_CODE, quiet, read_architecture, read_tokenizer
from harness.schema import CHECKPOINT
from methods.core.weight import restore

WEIGHTS, MANIFEST = "quantized.safetensors", "manifest.json"
FIELDS = {"schema", "family", "dtype", "attention", "linears", "tied", "files", "run"}
ATTENTION = ("eager", "sdpa")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path | str, manifest: dict) -> None:
    """Write a quantized model; the directory appears whole or not at all, and replaces an older one.

    Args:
        manifest: JSON-able information about the run, kept under `run`.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    linears = _quantized(model)
    stored, tied = _other_tensors(model)
    entries = {}
    for path, linear in linears.items():
        packed = {f"{path}.{name}": tensor.contiguous() for name, tensor in linear.packed.items()}
        if packed.keys() & (stored.keys() | tied.keys()):
            raise ValueError(f"{path}: a packed tensor has the name of a parameter")
        stored |= packed
        entries[path] = {"layout": linear.layout, "tensors": sorted(linear.packed), "dtype": _name(linear.weight.dtype)}
        if linear.activation is not None:
            entries[path]["activation"] = additions.format_entry(linear.activation)
    with replace_directory(directory) as aside:
        (aside / "config.json").write_text(_config_json(model), encoding="utf-8")
        with quiet():
            tokenizer.save_pretrained(aside)
        save_file(stored, aside / WEIGHTS)
        body = {
            "schema": CHECKPOINT,
            "family": family_of(model.config).name,
            "dtype": _name(model.dtype),
            "attention": model.config._attn_implementation,
            "linears": entries,
            "additions": additions.described(model),
            "tied": tied,
            "files": {path.relative_to(aside).as_posix(): sha256_file(path) for path in aside.rglob("*") if path.is_file()},
            "run": manifest,
        }
        (aside / MANIFEST).write_bytes(_sealed(body))


def load(directory: Path | str, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a quantized model; same logits, bit for bit, as the one that was saved.

    Raises:
        UserError: no checkpoint here, one of another version, a damaged or missing file (by name), or weights that do not
            fit the config.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    _verify(directory, manifest)
    check_config(directory, SUPERSEDED_CODE)
    config = read_architecture(directory)
    if manifest["attention"] not in ATTENTION:
        raise UserError(f"{directory / MANIFEST}: attention {manifest['attention']!r} is not one of {', '.join(ATTENTION)}")
    family = family_of(config)
    config._attn_implementation = manifest["attention"]
    model = skeleton(config, getattr(torch, manifest["dtype"]))
    tensors = load_file(directory / WEIGHTS)
    try:
        for path, entry in manifest["linears"].items():
            packed = {name: tensors.pop(f"{path}.{name}") for name in entry["tensors"]}
            _put_linear(model, path, packed, entry, biased=f"{path}.bias" in tensors.keys() | manifest["tied"].keys())
        additions.rebuild_(model, family.blocks, manifest.get("additions", {}))
        _put_others(model, tensors, manifest["tied"])
    except torch.cuda.OutOfMemoryError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(f"{directory}: the weights do not fit config.json: {' '.join(str(error).split())}") from error
    return model.eval().requires_grad_(False).to(device), read_tokenizer(directory)


def read_manifest(directory: Path | str) -> dict:
    """The manifest of a checkpoint, its seal checked; the files it names are not looked at.

    Raises:
        UserError: missing, damaged, or written by another version.
    """
    path = Path(directory) / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError:
        raise UserError(f"{path}: missing; {directory} is no quantized checkpoint (save=true keeps one with its run)") from None
    try:
        body = json.loads(raw)
        del body["digest"]
        intact = _sealed(body) == raw and body.keys() >= FIELDS
    except (ValueError, TypeError, KeyError, AttributeError):
        intact = False
    if not intact:
        raise UserError(f"{path}: damaged; save the checkpoint again")
    if body["schema"] != CHECKPOINT:
        raise UserError(f"{path}: schema {body['schema']}, but this version reads {CHECKPOINT}; save the checkpoint again")
    return body


def _sealed(body: dict) -> bytes:
    """Canonical bytes with the digest of themselves: any other byte sequence is recognised as damaged."""
    body = json.loads(json.dumps(body))
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps(body | {"digest": digest}, sort_keys=True, indent=1).encode()


def _verify(directory: Path, manifest: dict) -> None:
    for name, expected in manifest["files"].items():
        path = directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{directory / MANIFEST}: names {name!r}, outside the checkpoint; do not trust it")
        if not path.is_file():
            raise UserError(f"{path}: missing; save the checkpoint again")
        if sha256_file(path) != expected:
            raise UserError(f"{path}: damaged, its SHA-256 is not the one in {MANIFEST}; save the checkpoint again")
    for name in (WEIGHTS, "config.json"):
        if name not in manifest["files"]:
            raise UserError(f"{directory / MANIFEST}: does not vouch for {name}; save the checkpoint again")


def _config_json(model: PreTrainedModel) -> str:
    """Every field, defaults included, so that a later transformers with other defaults builds the same model."""
    config = json.loads(model.config.to_json_string(use_diff=False)) | {"architectures": [type(model).__name__]}
    config.pop("_name_or_path", None)  # a path of the machine that saved it
    return json.dumps(config, indent=2, sort_keys=True)


def _quantized(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by every name it has, but for the materialised weights of quantized linears."""
    materialised = {f"{path}.weight" for path in _quantized(model)}
    for named in (model.named_parameters, model.named_buffers):
        yield from ((name, tensor) for name, tensor in named(remove_duplicate=False) if name not in materialised)


def _other_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What to store under its own name, on the CPU, and for further names of the same tensor the name it is stored by."""
    stored, tied, owners = {}, {}, {}
    for name, tensor in _tensors(model):
        owner = owners.setdefault((tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), name)
        if owner != name and tensor.numel():
            tied[name] = owner
        else:
            stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, tied


def _put_linear(model: nn.Module, path: str, packed: dict[str, Tensor], entry: dict[str, Any], biased: bool) -> None:
    old = model.get_submodule(path)
    bias = old.weight.new_empty(len(old.weight), device="meta") if biased and old.bias is None else old.bias  # a place for what is stored
    activation = additions.quantizer(entry.get("activation"))
    new = QuantizedLinear(restore(packed, entry["layout"]), bias, getattr(torch, entry["dtype"]), packed, activation)
    if new.weight.shape != old.weight.shape:
        raise ValueError(f"{path} has shape {tuple(new.weight.shape)}, not {tuple(old.weight.shape)}")
    model.set_submodule(path, new)


def _put_others(model: nn.Module, tensors: dict[str, Tensor], tied: dict[str, str]) -> None:
    places = dict(_tensors(model))
    if places.keys() != tensors.keys() | tied.keys():
        raise ValueError(f"{min(places.keys() ^ (tensors.keys() | tied.keys()))} is only on one side")
    ready: dict[str, Tensor] = {}
    for name in (*tensors, *tied):
        tensor, place = tensors[tied.get(name, name)], places[name]
        if tensor.shape != place.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(place.shape)}")
        if isinstance(place, nn.Parameter):  # one object for all names of a tied parameter
            tensor = ready.setdefault(tied.get(name, name), nn.Parameter(tensor, requires_grad=False))
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, tensor)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
