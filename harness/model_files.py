"""The files of a model: where they are, and whether they are whole and harmless.

Only configs and headers are read here, never a tensor, so every refusal comes before any weight is loaded.
Pickle files and code in a checkpoint are never touched.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from harness.config import ModelConfig
from harness.errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
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
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format


def locate(config: ModelConfig, weights: bool) -> Path:
    """The local directory of an asset, a directory or a hub model; hub files are downloaded unless they are cached.

    Args:
        weights: of a hub model, bring the weights too, not only the configuration and the tokenizer.

    Raises:
        UserError: there is no such model, or it cannot be had.
    """
    kind, _, name = config.id.partition(":")
    directory = Path(config.id).expanduser()
    if kind == "asset" and name:
        _no_revision(config)
        from harness.assets import model_directory

        return Path(model_directory(name))
    if directory.is_dir():
        _no_revision(config)
        return directory
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", config.id):
        raise UserError(f"model.id={config.id}: no such directory; use asset:<name>, tiny:<family>, a directory or a hub id")
    return _download(config.id, config.revision, weights)


def _no_revision(config: ModelConfig) -> None:
    if config.revision is not None:
        raise UserError(f"model.revision={config.revision}: only hub models have revisions; set it to null for model.id={config.id}")


@cache  # all points of a sweep see one snapshot, also when the hub moves on
def _download(repository: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        try:
            return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns="*/*"))
        except Exception as error:  # the hub's errors have no common base: network, rights, names, disk
            raise UserError(f"model.id={repository}: {_hub_reason(error)}") from error

    directory = fetch("config.json", INDEX, *TOKENIZER_FILES)
    if weights:
        fetch(*(sorted(set(_weight_map(directory).values())) if (directory / INDEX).exists() else [SINGLE]))
        if not any(directory.glob("*.safetensors")):
            raise UserError(
                f"model.id={repository}: no safetensors weights at this revision (pickle weights are never read) or not in the "
                "offline cache; many repositories keep a conversion under model.revision=refs/pr/<number>"
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
    return reasons[name] if name else f"download failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def check_config(directory: Path, superseded_code: dict[str, frozenset[str]]) -> dict:
    """Read config.json; refuse what we cannot or must not serve.

    Args:
        superseded_code: by model_type, the code modules that a config may name because transformers ships their content.

    Raises:
        UserError: no or unreadable config.json, code in the checkpoint, an already quantized model.
    """
    config = read_json(directory / "config.json")
    if "model_type" not in config:
        raise UserError(f"{directory / 'config.json'}: has no model_type; this is not the config of a transformers model")
    allowed = superseded_code.get(str(config["model_type"]), frozenset())
    extra = directory / "tokenizer_config.json"
    for path, content in [(directory / "config.json", config), *([(extra, read_json(extra))] if extra.exists() else [])]:
        for key, value in _entries(content):
            named = value.values() if isinstance(value, dict) else [value]
            if key in CODE_KEYS and not all(str(entry).split(".")[0] in allowed for entry in named):
                raise UserError(f"{path}: {key} asks for the checkpoint's own code, which is never run; use a model that transformers has")
            if "_implementation" in key and "/" in str(value):
                raise UserError(f"{path}: {key}={value} asks for a downloaded kernel, which is never run; remove the key")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "?") if isinstance(config["quantization_config"], dict) else "?"
        raise UserError(f"{directory}: the model is already quantized ({method}); give the float model")
    return config


def check_tokenizer(directory: Path) -> None:
    """Refuse a directory without a vocabulary, for which some versions of transformers make up a tokenizer.

    Raises:
        UserError: there is none.
    """
    if not any((directory / name).exists() for name in VOCABULARIES):
        raise UserError(f"{directory}: no tokenizer ({', '.join(VOCABULARIES)}); fetch the tokenizer files too")


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        UserError: missing, unreadable or not an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name}; not the directory of a transformers model") from None
    except (OSError, ValueError) as error:
        kind = _impostor(path.read_bytes()[:200]) if path.is_file() else None
        raise UserError(f"{path}: {kind or f'not readable as JSON ({error})'}; fetch the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object; fetch the file again")
    return content


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model, each checked to be whole and all together to be what the index promises.

    Raises:
        UserError: no safetensors, a missing or surplus shard, a file that is empty, truncated, a git-lfs pointer or a web page,
            a tensor stored twice or not at all.
    """
    if (directory / SINGLE).exists():  # transformers prefers it to an index, too
        check_shard(directory / SINGLE)
        return [directory / SINGLE]
    if not (directory / INDEX).exists():
        if (directory / "quantized.safetensors").exists():
            raise UserError(f"{directory}: a quantized checkpoint; model.id needs the float model it was made from")
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern))
        found = f"only {pickles[0]}, and pickle weights are never read: convert them to safetensors" if pickles else f"no {SINGLE}"
        raise UserError(f"{directory}: {found}")
    weight_map = _weight_map(directory)
    names = sorted(set(weight_map.values()))
    surplus = {path.name for path in directory.glob("model-*-of-*.safetensors")} - set(names)
    if surplus:
        raise UserError(f"{directory / min(surplus)}: not in {INDEX}; the directory mixes two checkpoints, fetch it again")
    owner: dict[str, str] = {}
    for name in names:
        for tensor in check_shard(directory / name):
            if tensor in owner:
                raise UserError(f"{directory / name}: {tensor} is also in {owner[tensor]}; fetch the model again")
            owner[tensor] = name
    for tensor, name in weight_map.items():
        if owner.get(tensor) != name:
            raise UserError(f"{directory / name}: lacks {tensor}, which {INDEX} promises; fetch the model again")
    return [directory / name for name in names]


def _weight_map(directory: Path) -> dict[str, str]:
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{directory / INDEX}: has no weight_map; fetch the file again")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise UserError(f"{directory / INDEX}: {name!r} is no name of a safetensors file beside it; do not trust this checkpoint")
    return weight_map


def check_shard(path: Path) -> dict[str, Any]:
    """The header of a safetensors file (tensor name -> entry), once the file is known to be whole.

    Raises:
        UserError: says which of missing, empty, git-lfs pointer, web page, truncated, not safetensors the file is.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing; fetch the model again")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(200)
        length = int.from_bytes(head[:8], "little")
        kind = _impostor(head) or (f"truncated: {size} bytes" if size < 8 else None)
        if not kind and not 2 <= length <= MAX_HEADER:
            kind = "not a safetensors file"
        if not kind and 8 + length > size:
            kind = f"truncated: has {size} of at least {8 + length} bytes"
        if kind:
            raise UserError(f"{path}: {kind}; fetch the file again")
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        needed = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: its header is damaged; fetch the file again") from error
    if needed != size:
        state = "truncated" if size < needed else "too long"
        raise UserError(f"{path}: {state}: has {size} of {needed} bytes; fetch the file again")
    return tensors


def _impostor(head: bytes) -> str | None:
    """What a file really is, when its first bytes are not those of weights or JSON."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the content (run `git lfs pull`)"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the content"
    return None
