"""What identifies a model: the bytes of its files, hashed once and remembered."""

import hashlib
import json
from pathlib import Path

from harness.assets import cache_dir
from harness.errors import UserError
from harness.files import sha256_file, write_atomic
from harness.model_files import TOKENIZER_FILES
from harness.shards import weight_files


def fingerprint(directory: Path, allow_pickle: bool) -> str:
    """`sha256:<hex>` over the names and bytes of a model's weight, config and tokenizer files.

    Args:
        allow_pickle: may the weights be pickled? It moves nothing where there are safetensors.
    """
    files = weight_files(directory, allow_pickle)
    files += [path for name in ("config.json", *TOKENIZER_FILES) if (path := directory / name).is_file()]
    return f"sha256:{_listing_sha256({path.name: path for path in files})}"


def directory_sha256(directory: Path) -> str:
    """Hexadecimal SHA-256 over the relative names and the bytes of all files below a directory; hidden ones do not count."""
    found = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    return _listing_sha256({name.as_posix(): path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)})


def _listing_sha256(files: dict[str, Path]) -> str:
    hashes = file_hashes(list(files.values()))
    return hashlib.sha256("".join(f"{name} {hashes[files[name]]}\n" for name in sorted(files)).encode()).hexdigest()


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
