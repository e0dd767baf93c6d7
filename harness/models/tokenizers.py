"""The tokenizer of a model without its weights, and where its texts need a BOS."""

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from harness.config.groups import Bos, ModelConfig
from harness.models import tiny
from harness.models.families import FAMILIES
from harness.models.reading import read_tokenizer
from harness.models.shape import inspect
from harness.models.sources import TOKENIZER_FILES, source_of


def tokenizer_of(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of a hub model its files are downloaded unless they are cached.

    Raises:
        UserError: the id names nothing, or there is no usable tokenizer.
    """
    source = source_of(config)
    if source.kind == "tiny":
        return tiny.byte_tokenizer()
    directory = source.directory(weights=False)
    stamps = []
    for name in TOKENIZER_FILES:
        with suppress(OSError):
            stat = (directory / name).stat()
            stamps.append((name, stat.st_mtime_ns, stat.st_size))
    return _read(directory, tuple(stamps))


@lru_cache(maxsize=4)  # a sweep asks again for every point
def _read(directory: Path, stamps: tuple) -> PreTrainedTokenizerBase:
    return read_tokenizer(directory)


def with_bos(config: ModelConfig) -> ModelConfig:
    """The same with `bos=auto` replaced by what it means for this model; what a user chose stays.

    Raises:
        UserError: as `tokenizer_of` and `inspect`.
    """
    if config.bos is not Bos.auto:
        return config
    return replace(config, bos=suited_bos(inspect(config).family, tokenizer_of(config)))


def suited_bos(family: str, tokenizer: PreTrainedTokenizerBase) -> Bos:
    """Where a BOS belongs: before every window where the family is lost without it and there is one, whether
    or not the tokenizer puts it by itself; else wherever the tokenizer puts it, which may be nowhere.
    """
    needed = FAMILIES[family].bos is Bos.window and tokenizer.bos_token_id is not None
    return Bos.window if needed else Bos.stream
