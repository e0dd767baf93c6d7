"""Texts as token ids, kept on disk: all runs of a sweep tokenize a text once."""

import hashlib
import os
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import LongTensor

from harness.foundation.cache import cache_dir, evict
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic

KEPT = 2**30  # bytes on disk; the texts not used for longest go first


def tokenize(text: str, tokenizer, specials: bool) -> LongTensor:
    """Token ids of a text of any length.

    Args:
        specials: let the tokenizer put what it puts around a text.
    """
    path = _path(text, tokenizer, specials)
    if path and path.is_file():
        try:
            tokens = load_file(path)["tokens"].long()
            os.utime(path)
            return tokens
        except (OSError, SafetensorError, KeyError):
            pass  # damaged or just evicted
    quietly = {"return_attention_mask": False, "verbose": False}  # else it warns of the length
    ids = tokenizer(text, add_special_tokens=specials, **quietly)["input_ids"]
    tokens = torch.tensor(ids, dtype=torch.int32)
    if path:
        try:
            write_atomic(path, save({"tokens": tokens}))
            evict(path.parent, KEPT)
        except (OSError, UserError):
            pass  # a cache that cannot be written costs time, nothing else
    return tokens.long()


def _path(text: str, tokenizer, specials: bool) -> Path | None:
    identity = _identity(tokenizer)
    if identity is None:
        return None
    digest = hashlib.sha256(f"{identity} {specials} ".encode() + text.encode()).hexdigest()
    return cache_dir() / "tokens" / f"{digest}.safetensors"


@lru_cache(maxsize=8)
def _identity(tokenizer) -> str | None:
    """Of a tokenizer and the library that runs it; None where it cannot be told."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return hashlib.sha256(f"{metadata.version('tokenizers')} {backend.to_str()}".encode()).hexdigest()
