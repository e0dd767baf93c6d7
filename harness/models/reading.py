"""Configurations and tokenizers of models, read without their weights.

Whether what they ask for is harmless is known before anything is built. Code in a checkpoint is never run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from harness.foundation.errors import UserError
from harness.models.families import FAMILIES
from harness.models.weight_files import read_json

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
CHECKED = ("config.json", "tokenizer_config.json", "adapter_config.json")
CODE_KEYS = ("auto_map", "custom_pipelines", "model_file")
# keys that replace the files we check and hash
ELSEWHERE = {"transformers_weights": "weights", "fast_tokenizer_files": "a tokenizer"}
MAX_LAYERS = 10_000  # of anything; a config with more would keep us building empty blocks for hours


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The config object of a directory, what it asks for checked.

    Raises:
        UserError: as `check_config`, transformers does not know the model_type, or a value is ill-typed.
    """
    check_config(directory)
    try:
        with quiet():
            return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers validates with exceptions of several packages
        raise UserError(f"{directory / 'config.json'}: {first_words(error)}") from error


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer class fails in its own way
        reason = f"no usable tokenizer: {first_words(error)}"
        raise UserError(f"{directory}: {reason}; fetch the tokenizer files again") from error


def check_config(directory: Path) -> None:
    """Refuse what we cannot or must not serve.

    Raises:
        UserError: no or unreadable config.json, code in the checkpoint, files elsewhere, an adapter, an
            already quantized model.
    """
    path, extra, adapter = (directory / name for name in CHECKED)
    config = read_json(path)
    if "model_type" not in config:
        raise UserError(f"{path}: has no model_type; this is not the config of a transformers model")
    family = FAMILIES.get(str(config["model_type"]))
    allowed = family.superseded_code if family else frozenset()
    _check_entries(path, config, allowed)
    if extra.exists():
        _check_entries(extra, read_json(extra), allowed)
    if adapter.exists():
        raise UserError(
            f"{directory}: has an adapter ({adapter.name}), which would change the weights; merge it and "
            "save the model"
        )
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "?") if isinstance(quantized, dict) else "?"
        raise UserError(f"{directory}: the model is already quantized ({method}); give the float model")


def check_tokenizer(directory: Path) -> None:
    """Refuse a directory without a vocabulary, for which some versions of transformers make up a tokenizer.

    Raises:
        UserError: there is none.
    """
    if not any((directory / name).exists() for name in VOCABULARIES):
        names = ", ".join(VOCABULARIES)
        raise UserError(f"{directory}: no tokenizer ({names}); fetch the tokenizer files too")


def _check_entries(path: Path, content: dict, allowed: frozenset[str]) -> None:
    """
    Args:
        allowed: code modules that may be named because transformers ships their content.
    """
    for key, value in _entries(content):
        named = value.values() if isinstance(value, dict) else [value]
        if key in CODE_KEYS and not all(str(entry).split(".")[0] in allowed for entry in named):
            reason = (
                "asks for the checkpoint's own code, which is never run; use a model that transformers has"
            )
            raise UserError(f"{path}: {key} {reason}")
        if "_implementation" in key and "/" in str(value):
            reason = "asks for a downloaded kernel, which is never run; remove the key"
            raise UserError(f"{path}: {key}={value} {reason}")
        if key in ELSEWHERE and value:
            reason = f"names {ELSEWHERE[key]} under another name, which is never read; remove the key"
            raise UserError(f"{path}: {key} {reason}")
        if "layer" in key and isinstance(value, int) and value > MAX_LAYERS:
            raise UserError(f"{path}: {key}={value} is no model's; fetch the file again")


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


def first_words(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and warnings; what matters is raised as one line."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
