"""The cache directory, and how its parts stay below their bounds."""

import os
import shutil
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Where assets live: PTQ_BENCH_CACHE, or `ptq-bench` in the user's cache directory."""
    override = os.environ.get("PTQ_BENCH_CACHE")
    return Path(override).expanduser().absolute() if override else platformdirs.user_cache_path("ptq-bench")


def evict(root: Path, budget: float, keep: str = "") -> None:
    """Delete files and directories in `root`, those not used for longest first, until the rest fits.

    Args:
        budget: bytes.
        keep: the name of one that stays, and does not count.
    """
    entries = [path for path in root.glob("*") if path.name != keep]
    for path in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True):
        files = path.glob("*") if path.is_dir() else [path]
        budget -= sum(file.stat().st_size for file in files)
        if budget < 0:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
