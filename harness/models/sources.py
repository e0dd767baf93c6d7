"""What a `model.id` names, whether it is here, and where its files are. No file is read here."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.config.groups import ModelConfig
from harness.data import assets
from harness.foundation.errors import UserError
from harness.models.weight_files import PICKLE, SAFETENSORS, shard_names

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
REASONS = {  # by the name of an error of the hub's client
    "GatedRepoError": "a gated repository; accept its terms on the hub and log in with `hf auth login`",
    "RepositoryNotFoundError": "no such directory, and no such model on the hub (or no right to see it: "
    "`hf auth login`)",
    "RevisionNotFoundError": "no such model.revision",
    "LocalEntryNotFoundError": "not in the hub cache, and the hub is out of reach; go online once, or use a "
    "directory or asset:<name>",
    "OfflineModeIsEnabled": "not in the hub cache, and HF_HUB_OFFLINE forbids downloading; unset it once, or "
    "use a directory",
    "HFValidationError": "neither a directory nor a valid hub id",
}


@dataclass(frozen=True)
class ModelSource:
    """What a `model.id` names; see `source_of`."""

    config: ModelConfig
    kind: str  # tiny | asset | directory | hub
    name: str  # of the tiny model or the asset; else the whole id

    def is_here(self) -> bool:
        """Can the shapes of the model be had without downloading?"""
        if self.kind == "asset":
            return assets.is_cached(self.name)
        return self.kind != "hub" or self.in_hub_cache() is not None

    def in_hub_cache(self) -> Path | None:
        """The directory of a hub model's config.json in the hub's cache."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            path = try_to_load_from_cache(self.name, "config.json", revision=self.config.revision)
        except HFValidationError:
            return None  # a path, or nonsense
        return Path(path).parent if isinstance(path, str) else None

    def directory(self, weights: bool) -> Path:
        """The files of any model but a tiny one; those of the hub are downloaded unless they are cached.

        Args:
            weights: of a hub model, bring the weights too, not only the configuration and the tokenizer.

        Raises:
            UserError: there is no such model, or it cannot be had.
        """
        if self.kind == "asset":
            return assets.model_directory(self.name)
        if self.kind == "directory":
            return Path(os.path.expanduser(self.name))
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", self.name, re.ASCII):
            raise UserError(
                f"model.id={self.name!r}: no such directory; use asset:<name>, tiny:<family>, a directory "
                "or a hub id"
            )
        return _download(self.name, self.config.revision, weights, self.config.allow_pickle)


def source_of(config: ModelConfig) -> ModelSource:
    """`tiny:<name>`, `asset:<name>`, a directory that exists; whatever else is sought on the hub.

    Raises:
        UserError: a revision of what has none.
    """
    kind, _, name = config.id.partition(":")
    if not config.id.startswith("tiny:") and not (kind == "asset" and name):
        kind, name = "directory" if os.path.isdir(os.path.expanduser(config.id)) else "hub", config.id
    if kind != "hub" and config.revision is not None:
        raise UserError(
            f"model.revision={config.revision}: only hub models have revisions; set it to null for "
            f"model.id={config.id}"
        )
    return ModelSource(config, kind, name)


@cache  # all points of a sweep see one snapshot, also when the hub moves on
def _download(repository: str, revision: str | None, weights: bool, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        wanted = {"revision": revision, "allow_patterns": patterns, "ignore_patterns": "*/*"}
        try:
            return Path(snapshot_download(repository, **wanted))
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
            f"model.id={repository}: no safetensors weights at this revision or not in the offline cache; "
            "many repositories keep a conversion under model.revision=refs/pr/<number>, and "
            "model.allow_pickle=true reads pickled weights"
        )
    return directory


def _hub_reason(error: Exception) -> str:
    for cls in type(error).__mro__:
        if cls.__name__ in REASONS:
            return REASONS[cls.__name__]
    return f"download failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def offline() -> bool:
    """Is downloading from the hub forbidden?"""
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
