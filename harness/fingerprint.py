"""What identifies a model: the bytes of its files, hashed once and remembered."""

from pathlib import Path

from harness.foundation.hashes import listing_sha256
from harness.model_files import TOKENIZER_FILES
from harness.shards import weight_files


def fingerprint(directory: Path, allow_pickle: bool) -> str:
    """`sha256:<hex>` over the names and bytes of a model's weight, config and tokenizer files.

    Args:
        allow_pickle: may the weights be pickled? It moves nothing where there are safetensors.
    """
    files = weight_files(directory, allow_pickle)
    files += [path for name in ("config.json", *TOKENIZER_FILES) if (path := directory / name).is_file()]
    return f"sha256:{listing_sha256({path.name: path for path in files})}"
