"""SHA-256 of files and directories, remembered for as long as they stay as they are."""

import hashlib
import json
from pathlib import Path

from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError
from harness.foundation.files import disk_errors, write_atomic


def directory_sha256(directory: Path) -> str:
    """Hexadecimal SHA-256 over the relative names and the bytes of all files below a directory; hidden ones
    do not count.
    """
    found = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    return listing_sha256(
        {
            name.as_posix(): path
            for name, path in found.items()
            if not any(part.startswith(".") for part in name.parts)
        }
    )


def listing_sha256(files: dict[str, Path]) -> str:
    hashes = file_hashes(list(files.values()))
    return hashlib.sha256(
        "".join(f"{name} {hashes[files[name]]}\n" for name in sorted(files)).encode()
    ).hexdigest()


def file_hashes(files: list[Path]) -> dict[Path, str]:
    """SHA-256 of every file, remembered in the cache directory while size and time of change stay."""
    memory = cache_dir() / "file_hashes.json"
    known, fresh, hashes = _recall(memory), {}, {}
    for path in files:
        real, stat = path.resolve(), path.stat()
        entry = known.get(str(real))
        if not (
            isinstance(entry, list) and entry[:2] == [stat.st_size, stat.st_mtime_ns] and len(entry) == 3
        ):
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


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with disk_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
