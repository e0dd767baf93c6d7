"""What identifies a model: the bytes of its files, hashed once and remembered."""

import hashlib
import json
from pathlib import Path

from harness.assets import cache_dir
from harness.errors import UserError
from harness.files import sha256_file, write_atomic
from harness.model_files import TOKENIZER_FILES, weight_files


def fingerprint(directory: Path) -> str:
    """`sha256:<hex>` over the names and bytes of a model's weight, config and tokenizer files."""
    files = weight_files(directory)
    files += [path for name in ("config.json", *TOKENIZER_FILES) if (path := directory / name).is_file()]
    hashes = file_hashes(files)
    listing = "".join(f"{path.name} {hashes[path]}\n" for path in sorted(files, key=lambda path: path.name))
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def file_hashes(files: list[Path]) -> dict[Path, str]:
    """SHA-256 of every file, remembered in the cache directory for as long as size and time of change stay."""
    memory = cache_dir() / "file_hashes.json"
    known, fresh, hashes = _recall(memory), {}, {}
    for path in files:
        real, stat = path.resolve(), path.stat()
        entry = known.get(str(real))
        if not (isinstance(entry, list) and entry[:2] == [stat.st_size, stat.st_mtime_ns] and len(entry) == 3):
            entry = fresh[str(real)] = [stat.st_size, stat.st_mtime_ns, sha256_file(real)]
        hashes[path] = entry[2]
    if fresh:
        try:  # another process may write too: one of us is then forgotten, and hashes again next time
            write_atomic(memory, json.dumps(_recall(memory) | fresh, indent=0))
        except (OSError, UserError):
            pass  # a read-only cache costs time, nothing else
    return hashes


def _recall(memory: Path) -> dict:
    try:
        content = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
