"""The files of a model: where they are, and whether what its configs ask for is harmless.
`harness.models.weight_files` looks at the weights.

No tensor is read here, so every refusal comes before any weight is loaded. Code in a checkpoint is never run.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness.config.groups import ModelConfig
from harness.config.run_config import RunConfig
from harness.data import assets
from harness.foundation.errors import UserError
from harness.models.weight_files import PICKLE, SAFETENSORS, read_json, shard_names

TINY = "tiny:"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
CODE_KEYS = ("auto_map", "custom_pipelines", "model_file")
# keys that replace the files we check and hash
ELSEWHERE = {"transformers_weights": "weights", "fast_tokenizer_files": "a tokenizer"}
MAX_LAYERS = 10_000  # of anything; a config with more would keep us building empty blocks for hours


def locate(config: ModelConfig, weights: bool) -> Path:
    """The local directory of an asset, a directory or a hub model; hub files are downloaded unless they are
    cached.

    Args:
        weights: of a hub model, bring the weights too, not only the configuration and the tokenizer.

    Raises:
        UserError: there is no such model, or it cannot be had.
    """
    kind, _, name = config.id.partition(":")
    directory = Path(os.path.expanduser(config.id))
    if kind == "asset" and name:
        _no_revision(config)
        from harness.data.assets import model_directory

        return Path(model_directory(name))
    if _is_directory(directory):
        _no_revision(config)
        return directory
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", config.id, re.ASCII):
        raise UserError(
            f"model.id={config.id!r}: no such directory; use asset:<name>, tiny:<family>, a directory or a hub id"
        )
    return _download(config.id, config.revision, weights, config.allow_pickle)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file system takes
        return False


def _no_revision(config: ModelConfig) -> None:
    if config.revision is not None:
        raise UserError(
            f"model.revision={config.revision}: only hub models have revisions; set it to null for model.id={config.id}"
        )


@cache  # all points of a sweep see one snapshot, also when the hub moves on
def _download(repository: str, revision: str | None, weights: bool, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        try:
            return Path(
                snapshot_download(
                    repository, revision=revision, allow_patterns=patterns, ignore_patterns="*/*"
                )
            )
        except Exception as error:  # the hub's errors have no common base: network, rights, names, disk
            raise UserError(f"model.id={repository}: {_hub_reason(error)}") from error

    directory = fetch("config.json", SAFETENSORS.index, *TOKENIZER_FILES)
    for kind in ((SAFETENSORS, PICKLE) if allow_pickle else (SAFETENSORS,)) if weights else ():
        fetch(kind.index)
        fetch(*(shard_names(directory, kind) if (directory / kind.index).exists() else [kind.single]))
        if any(directory.glob(f"*{kind.suffix}")):
            return directory
    if weights:
        raise UserError(
            f"model.id={repository}: no safetensors weights at this revision or not in the offline cache; many repositories keep a "
            "conversion under model.revision=refs/pr/<number>, and model.allow_pickle=true reads pickled weights"
        )
    return directory


def _hub_reason(error: Exception) -> str:
    reasons = {
        "GatedRepoError": "a gated repository; accept its terms on the hub and log in with `hf auth login`",
        "RepositoryNotFoundError": "no such directory, and no such model on the hub (or no right to see it: `hf auth login`)",
        "RevisionNotFoundError": "no such model.revision",
        "LocalEntryNotFoundError": "not in the hub cache, and the hub is out of reach; go online once, or use a directory or asset:<name>",
        "OfflineModeIsEnabled": "not in the hub cache, and HF_HUB_OFFLINE forbids downloading; unset it once, or use a directory",
        "HFValidationError": "neither a directory nor a valid hub id",
    }
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in reasons), None)
    return (
        reasons[name]
        if name
        else f"download failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )


def check_config(directory: Path, superseded_code: dict[str, frozenset[str]]) -> dict:
    """Read config.json; refuse what we cannot or must not serve.

    Args:
        superseded_code: by model_type, the code modules that a config may name because transformers ships
            their content.

    Raises:
        UserError: no or unreadable config.json, code in the checkpoint, files elsewhere, an adapter, an
            already quantized model.
    """
    config = read_json(directory / "config.json")
    if "model_type" not in config:
        raise UserError(
            f"{directory / 'config.json'}: has no model_type; this is not the config of a transformers model"
        )
    allowed = superseded_code.get(str(config["model_type"]), frozenset())
    extra = directory / "tokenizer_config.json"
    for path, content in [
        (directory / "config.json", config),
        *([(extra, read_json(extra))] if extra.exists() else []),
    ]:
        for key, value in _entries(content):
            named = value.values() if isinstance(value, dict) else [value]
            if key in CODE_KEYS and not all(str(entry).split(".")[0] in allowed for entry in named):
                raise UserError(
                    f"{path}: {key} asks for the checkpoint's own code, which is never run; use a model that transformers has"
                )
            if "_implementation" in key and "/" in str(value):
                raise UserError(
                    f"{path}: {key}={value} asks for a downloaded kernel, which is never run; remove the key"
                )
            if key in ELSEWHERE and value:
                raise UserError(
                    f"{path}: {key} names {ELSEWHERE[key]} under another name, which is never read; remove the key"
                )
            if "layer" in key and isinstance(value, int) and value > MAX_LAYERS:
                raise UserError(f"{path}: {key}={value} is no model's; fetch the file again")
    if (directory / "adapter_config.json").exists():
        raise UserError(
            f"{directory}: has an adapter (adapter_config.json), which would change the weights; merge it and save the model"
        )
    if config.get("quantization_config"):
        method = (
            config["quantization_config"].get("quant_method", "?")
            if isinstance(config["quantization_config"], dict)
            else "?"
        )
        raise UserError(f"{directory}: the model is already quantized ({method}); give the float model")
    return config


def check_tokenizer(directory: Path) -> None:
    """Refuse a directory without a vocabulary, for which some versions of transformers make up a tokenizer.

    Raises:
        UserError: there is none.
    """
    if not any((directory / name).exists() for name in VOCABULARIES):
        raise UserError(
            f"{directory}: no tokenizer ({', '.join(VOCABULARIES)}); fetch the tokenizer files too"
        )


def _entries(content: dict) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    unseen: list[Any] = [content]
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict):
            yield from value.items()
            unseen += value.values()
        elif isinstance(value, list):
            unseen += value


def is_here(config: RunConfig) -> bool:
    """Can the shapes of the model be had without downloading?"""
    kind, _, name = config.model.id.partition(":")
    if kind == "asset" and name:
        return assets.is_cached(name)
    return (
        config.model.id.startswith(TINY)
        or Path(config.model.id).expanduser().is_dir()
        or hub_config(config) is not None
    )


def hub_config(config: RunConfig) -> Path | None:
    """The config.json of a hub model in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(config.model.id, "config.json", revision=config.model.revision)
    except HFValidationError:
        return None  # a path, or nonsense
    return Path(found) if isinstance(found, str) else None


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
