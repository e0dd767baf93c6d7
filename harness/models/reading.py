"""Configurations and tokenizers of models, read without their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from harness.config.groups import ModelConfig
from harness.foundation.errors import UserError
from harness.models import tiny
from harness.models.families import FAMILIES
from harness.models.sources import TINY, check_config

SUPERSEDED_CODE = {family.name: family.superseded_code for family in FAMILIES.values()}


def _tiny_name(config: ModelConfig) -> str:
    name = config.id.removeprefix(TINY)
    if name not in tiny.CONFIGS:
        raise UserError(
            f"model.id={config.id}: unknown; choose among {', '.join(TINY + known for known in tiny.CONFIGS)}"
        )
    if config.revision is not None:
        raise UserError(
            f"model.revision={config.revision}: only hub models have revisions; set it to null for model.id={config.id}"
        )
    return name


def _architecture(directory: Path) -> PreTrainedConfig:
    check_config(directory, SUPERSEDED_CODE)
    return read_architecture(directory)


def read_architecture(directory: Path) -> PreTrainedConfig:
    """The config object of a directory whose config.json was checked.

    Raises:
        UserError: transformers does not know the model_type, or a value is ill-typed.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers validates with exceptions of several packages
        raise UserError(f"{directory / 'config.json'}: {line(error)}") from error


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer class fails in its own way
        raise UserError(
            f"{directory}: no usable tokenizer: {line(error)}; fetch the tokenizer files again"
        ) from error


def line(error: Exception) -> str:
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
