"""Configurations and tokenizers of models, read without their weights.

Whether what they ask for is harmless is known before anything is built. Code in a checkpoint is never run:
where transformers has the architecture, its own class reads the weights, and how attention is computed is our
choice, not the file's.
"""

import json
import logging
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from harness.foundation.errors import UserError
from harness.models.weight_files import read_json

log = logging.getLogger(__name__)

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
CHECKED = ("config.json", "tokenizer_config.json", "adapter_config.json")
CODE_KEYS = ("auto_map", "custom_pipelines", "model_file")
# keys by which a file would decide which code runs, or how attention is computed: never followed
IGNORED = re.compile(rf"{'|'.join(CODE_KEYS)}|\w*_implementation\w*")
# keys that replace the files we check and hash
ELSEWHERE = {
    "transformers_weights": "weights",
    "fast_tokenizer_files": "a tokenizer",
    "configuration_files": "a configuration",
}
MAX_LAYERS = 10_000  # of anything; a config with more would keep us building empty blocks for hours


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The config object of a directory, what it asks for checked; code and kernels that it names are ignored.

    Raises:
        UserError: as `check_config`, transformers does not know the model_type, or a value is ill-typed.
    """
    check_config(directory)
    try:
        with quiet(), _without_ignored(directory) as readable:
            config = AutoConfig.from_pretrained(readable, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers validates with exceptions of several packages
        raise UserError(f"{directory / 'config.json'}: {first_words(error)}") from error
    config.name_or_path = str(directory)
    return config


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory; it neither cuts nor fills a text, whatever was set when it was saved.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    architecture = read_architecture(directory)
    try:
        with quiet(), _without_ignored(directory) as readable:
            tokenizer = AutoTokenizer.from_pretrained(
                readable, config=architecture, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # each tokenizer class fails in its own way
        reason = f"no usable tokenizer: {first_words(error)}"
        raise UserError(f"{directory}: {reason}; fetch the tokenizer files again") from error
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


@contextmanager
def _without_ignored(directory: Path) -> Iterator[Path]:
    """A place to read configuration and tokenizer from: the directory itself, or, where its files hold keys
    that are ignored, a temporary one whose files lack them. transformers fails on some of these keys even
    when it is told not to follow them.
    """
    contents = {name: read_json(path) for name in CHECKED if (path := directory / name).exists()}
    cleaned = {name: _clean(content) for name, content in contents.items()}
    if cleaned == contents:
        yield directory
        return
    with tempfile.TemporaryDirectory() as place:
        for path in directory.iterdir():
            if path.name in cleaned:
                (Path(place) / path.name).write_text(json.dumps(cleaned[path.name]))
            else:
                (Path(place) / path.name).symlink_to(path.absolute())
        yield Path(place)


def _clean(value: Any) -> Any:
    """JSON without the keys that are ignored, at any depth."""
    if isinstance(value, dict):
        return {key: _clean(entry) for key, entry in value.items() if not IGNORED.fullmatch(key)}
    return [_clean(entry) for entry in value] if isinstance(value, list) else value


def check_config(directory: Path) -> None:
    """Refuse what we cannot or must not serve.

    Raises:
        UserError: no or unreadable config.json, an architecture that only code in the checkpoint knows, files
            elsewhere, a NaN, an adapter, an already quantized model.
    """
    path, extra, adapter = (directory / name for name in CHECKED)
    config = read_json(path)
    if "model_type" not in config:
        raise UserError(f"{path}: has no model_type; this is not the config of a transformers model")
    if config.get("auto_map") and str(config["model_type"]) not in CONFIG_MAPPING:
        raise UserError(
            f"{path}: transformers has no {config['model_type']!r}, and the checkpoint's own code (auto_map) "
            "is never run; a later transformers may have it"
        )
    _check_entries(path, config)
    if extra.exists():
        _check_entries(extra, read_json(extra))
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


def _check_entries(path: Path, content: dict) -> None:
    for key, value in _entries(content):
        if key in ELSEWHERE and value:
            reason = f"names {ELSEWHERE[key]} under another name, which is never read; remove the key"
            raise UserError(f"{path}: {key} {reason}")
        if "layer" in key and isinstance(value, int) and value > MAX_LAYERS:
            raise UserError(f"{path}: {key}={value} is no model's; fetch the file again")
        if isinstance(value, float) and math.isnan(value):  # infinite limits, there are
            raise UserError(f"{path}: {key} is not a number (NaN); fetch the file again")


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
