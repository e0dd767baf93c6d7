"""Quantized checkpoints: packed tensors, everything else the model needs, and a manifest that vouches for
each file.

    config.json, tokenizer files   as transformers writes them
    quantized.safetensors          `<linear>.<tensor>` packed; other parameters and buffers under their names
    manifest.json                  layouts, formats of activations, ties, SHA-256 of every file and of itself

Whatever a block has beyond its architecture is named by the manifest: activation formats, wrapped norms;
biases are known by their tensors. Buffers that transformers would compute anew are stored too, so that a
loaded model is the saved one bit for bit.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.checkpoints import modules
from harness.foundation.errors import UserError
from harness.foundation.files import replace_directory
from harness.foundation.hashes import sha256_file
from harness.foundation.seals import seal, unseal
from harness.models.families import family_of, skeleton
from harness.models.reading import quiet, read_architecture, read_tokenizer
from harness.records.format import CHECKPOINT

WEIGHTS, MANIFEST = "quantized.safetensors", "manifest.json"
FIELDS = {"schema", "family", "dtype", "attention", "linears", "tied", "files", "run"}
ATTENTION = ("eager", "sdpa")


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path | str, manifest: dict
) -> None:
    """Write a quantized model; the directory appears whole or not at all, and replaces an older one.

    Args:
        manifest: JSON-able information about the run, kept under `run`.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    stored, entry = modules.described(model)
    with replace_directory(directory) as aside:
        (aside / "config.json").write_text(_config_json(model), encoding="utf-8")
        with quiet():
            tokenizer.save_pretrained(aside)
        save_file(stored, aside / WEIGHTS)
        body = {
            "schema": CHECKPOINT,
            "family": family_of(model.config).name,
            "dtype": modules.dtype_name(model.dtype),
            "attention": model.config._attn_implementation,
            **entry,
            "files": {
                path.relative_to(aside).as_posix(): sha256_file(path)
                for path in aside.rglob("*")
                if path.is_file()
            },
            "run": manifest,
        }
        (aside / MANIFEST).write_bytes(seal(body))


def load(directory: Path | str, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a quantized model; same logits, bit for bit, as the one that was saved.

    Raises:
        UserError: no checkpoint here, one of another version, a damaged or missing file (by name), or weights
            that do not fit the config.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    _verify(directory, manifest)
    config = read_architecture(directory)
    if manifest["attention"] not in ATTENTION:
        wrong, known = manifest["attention"], ", ".join(ATTENTION)
        raise UserError(f"{directory / MANIFEST}: attention {wrong!r} is not one of {known}")
    family = family_of(config)
    config._attn_implementation = manifest["attention"]
    model = skeleton(config, getattr(torch, manifest["dtype"]))
    tensors = load_file(directory / WEIGHTS)
    try:
        modules.rebuild_(model, tensors, manifest, family.blocks)
    except torch.cuda.OutOfMemoryError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{directory}: the weights do not fit config.json: {' '.join(str(error).split())}"
        ) from error
    return model.eval().requires_grad_(False).to(device), read_tokenizer(directory)


def is_intact(directory: Path | str) -> bool:
    """Is a whole checkpoint here, every file as it was saved?"""
    try:
        _verify(Path(directory), read_manifest(directory))
        return True
    except UserError:
        return False


def read_manifest(directory: Path | str) -> dict:
    """The manifest of a checkpoint, its seal checked; the files it names are not looked at.

    Raises:
        UserError: missing, damaged, or written by another version.
    """
    path = Path(directory) / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError:
        raise UserError(
            f"{path}: missing; {directory} is no quantized checkpoint (save=true keeps one with its run)"
        ) from None
    try:
        body = unseal(raw)
        intact = body.keys() >= FIELDS
    except ValueError:
        intact = False
    if not intact:
        raise UserError(f"{path}: damaged; save the checkpoint again")
    if body["schema"] != CHECKPOINT:
        raise UserError(
            f"{path}: schema {body['schema']}, but this version reads {CHECKPOINT}; save the checkpoint again"
        )
    return body


def _verify(directory: Path, manifest: dict) -> None:
    for name, expected in manifest["files"].items():
        path = directory / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(
                f"{directory / MANIFEST}: names {name!r}, outside the checkpoint; do not trust it"
            )
        if not path.is_file():
            raise UserError(f"{path}: missing; save the checkpoint again")
        if sha256_file(path) != expected:
            raise UserError(
                f"{path}: damaged, its SHA-256 is not the one in {MANIFEST}; save the checkpoint again"
            )
    for name in (WEIGHTS, "config.json"):
        if name not in manifest["files"]:
            raise UserError(f"{directory / MANIFEST}: does not vouch for {name}; save the checkpoint again")


def _config_json(model: PreTrainedModel) -> str:
    """Every field, defaults included, so that a transformers with other defaults builds the same model."""
    config = json.loads(model.config.to_json_string(use_diff=False)) | {
        "architectures": [type(model).__name__]
    }
    config.pop("_name_or_path", None)  # a path of the machine that saved it
    return json.dumps(config, indent=2, sort_keys=True)
