"""What identifies a model: the bytes of its files, hashed once and remembered."""

from pathlib import Path

from harness.config.groups import ModelConfig
from harness.foundation.hashes import listing_sha256
from harness.models import tiny
from harness.models.reading import _tiny_name
from harness.models.sources import TINY, TOKENIZER_FILES, locate
from harness.models.weight_files import weight_files


def fingerprint(directory: Path, allow_pickle: bool) -> str:
    """`sha256:<hex>` over the names and bytes of a model's weight, config and tokenizer files.

    Args:
        allow_pickle: may the weights be pickled? It moves nothing where there are safetensors.
    """
    files = weight_files(directory, allow_pickle)
    files += [path for name in ("config.json", *TOKENIZER_FILES) if (path := directory / name).is_file()]
    return f"sha256:{listing_sha256({path.name: path for path in files})}"


def model_fingerprint(config: ModelConfig) -> str:
    """`sha256:<hex>` of the bytes that make the model: weights, config and tokenizer; nothing is loaded.

    Raises:
        UserError: the id names nothing, or the files are damaged.
    """
    if config.id.startswith(TINY):
        return tiny.tiny_fingerprint(_tiny_name(config))
    return fingerprint(locate(config, weights=True), config.allow_pickle)
