"""Texts as token ids: the one place that encodes them, for calibration, perplexity, tasks and prompts.

A tokenizer may put tokens around a text. Those before it (a BOS) are a matter of `model.bos`; those after it
(an EOS that training wanted) never: here a text goes on, into the next window or the answer that is scored.
So texts are encoded bare, and what stands before them is put there by name. Long ones are kept on disk: all
runs of a sweep tokenize a text once.
"""

import hashlib
import os
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import LongTensor

from harness.config.groups import Bos
from harness.foundation.cache import cache_dir, evict
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic

KEPT = 2**30  # bytes on disk; the texts not used for longest go first
SAMPLE = (
    "It's 3:45 p.m.; the naïve café-owner's 1,024th re-run cost $9.99\u2014(don't ask!)\n\n\tNext:  l'été, "
    "Ångström, 北京, Москва, मुंबई, "
    "e\u0301, \u00a0x\u200d, 🙂👍🏽. THE END...\r\n<unk> <s>[x_y]=={0}; // #42 %7"
)
PROBES = ("a", "1", ".")  # texts that every vocabulary can say


def encode(text: str, tokenizer, bos: Bos) -> list[int]:
    """Token ids of a text, behind what `bos` puts before it; nothing stands behind the text.

    Raises:
        UserError: as `window_prefix`.
    """
    return behind(prefix(tokenizer, bos), bare(text, tokenizer))


def behind(prefix: list[int], ids: list[int]) -> list[int]:
    """The ids behind the prefix, unless they themselves begin with it."""
    return ids if ids[: len(prefix)] == prefix else [*prefix, *ids]


def bare(text: str, tokenizer) -> list[int]:
    """Token ids of the text and nothing else."""
    # quietly, for it warns of the length
    return tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def prefix(tokenizer, bos: Bos) -> list[int]:
    """Token ids that stand before a text on its own.

    Raises:
        UserError: as `window_prefix`.
    """
    if bos is Bos.auto:
        raise ValueError(
            "bos=auto says what a model needs only once the model is known: harness.models.tokenizers"
        )
    if bos is Bos.none:
        return []
    return window_prefix(tokenizer) if bos is Bos.window else own_prefix(tokenizer)


def own_prefix(tokenizer) -> list[int]:
    """What the tokenizer itself puts before a text: nothing, a BOS, or several tokens."""
    for probe in PROBES:
        plain, around = bare(probe, tokenizer), tokenizer(probe, add_special_tokens=True)["input_ids"]
        for start in range(len(around) - len(plain) + 1):
            if plain and around[start : start + len(plain)] == plain:
                return around[:start]
    return []


def window_prefix(tokenizer) -> list[int]:
    """What bos=window puts before every window: the tokenizer's own tokens, or its BOS where it puts none.

    Raises:
        UserError: the tokenizer has no BOS.
    """
    if tokenizer.bos_token_id is None:
        raise UserError(
            "model.bos=window, but this tokenizer has no BOS token: use model.bos=stream or model.bos=none"
        )
    own = own_prefix(tokenizer)
    return own if tokenizer.bos_token_id in own else [tokenizer.bos_token_id]


def tokenize(text: str, tokenizer) -> LongTensor:
    """Token ids of a text of any length, bare."""
    path = _path(text, tokenizer)
    if path and path.is_file():
        try:
            tokens = load_file(path)["tokens"].long()
            os.utime(path)
            return tokens
        except (OSError, SafetensorError, KeyError):
            pass  # damaged or just evicted
    tokens = torch.tensor(bare(text, tokenizer), dtype=torch.int32)
    if path:
        try:
            write_atomic(path, save({"tokens": tokens}))
            evict(path.parent, KEPT)
        except (OSError, UserError):
            pass  # a cache that cannot be written costs time, nothing else
    return tokens.long()


def identity(tokenizer) -> str | None:
    """Hash of all that decides which ids a tokenizer gives a text: its files, the libraries that run it, and
    what it makes of a sample, should a library change under the same version. None where it cannot be told.
    """
    library = _library(tokenizer)
    return library and hashlib.sha256(f"{library} {bare(SAMPLE, tokenizer)}".encode()).hexdigest()


def _path(text: str, tokenizer) -> Path | None:
    name = identity(tokenizer)
    if name is None:
        return None
    digest = hashlib.sha256(f"{name} ".encode() + text.encode()).hexdigest()
    return cache_dir() / "tokens" / f"{digest}.safetensors"


@lru_cache(maxsize=8)
def _library(tokenizer) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    versions = " ".join(metadata.version(name) for name in ("tokenizers", "transformers"))
    return hashlib.sha256(f"{versions} {backend.to_str()}".encode()).hexdigest()
