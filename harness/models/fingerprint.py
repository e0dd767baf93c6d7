"""What identifies a model: the bytes of its files, hashed once and remembered."""

from harness.config.groups import ModelConfig
from harness.foundation.hashes import listing_sha256
from harness.models import tiny
from harness.models.sources import TOKENIZER_FILES, source_of
from harness.models.weight_files import weight_files


def model_fingerprint(config: ModelConfig) -> str:
    """`sha256:<hex>` over the names and bytes of a model's weight, config and tokenizer files; nothing is
    loaded. Where there are safetensors, `allow_pickle` moves nothing.

    Raises:
        UserError: the id names nothing, or the files are damaged.
    """
    source = source_of(config)
    if source.kind == "tiny":
        return tiny.tiny_fingerprint(source.name)
    directory = source.directory(weights=True)
    files = weight_files(directory, config.allow_pickle)
    files += [path for name in ("config.json", *TOKENIZER_FILES) if (path := directory / name).is_file()]
    return f"sha256:{listing_sha256({path.name: path for path in files})}"
