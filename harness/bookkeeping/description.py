"""The half of a record that is known before the run: configuration, versions, commit."""

import os
import platform
import subprocess
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from harness.bookkeeping.keys import fingerprint, plain
from harness.config.run_config import RunConfig
from harness.models.tokenizers import with_bos
from harness.records.format import RECORD


def describe(config: RunConfig, run_key: str) -> dict:
    """The part of a record that is known before the run starts."""
    quantizes = config.method.solver is not None
    without_mirror = {key: value for key, value in asdict(config.eval).items() if key != "mirror"}
    return plain(
        {
            "schema": RECORD,
            "run_key": run_key,
            "model": asdict(with_bos(config.model)) | {"fingerprint": fingerprint(config.model)},
            "data": {key: value for key, value in asdict(config.data).items() if key != "mirror"}
            if quantizes
            else None,
            "scheme": asdict(config.scheme) if quantizes else None,
            "method": config.method_config,
            "eval": without_mirror,
            "seed": config.seed,
            "versions": versions(),
        }
    )


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Whatever could explain a different number on another machine."""
    packages = ("torch", "transformers", "lm-eval", "tokenizers", "numba", "numpy", "hydra-core")
    found = {
        "ptq_bench": _version("ptq-bench"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    found |= {name.replace("-", "_"): _version(name) for name in packages}
    commit = _git_commit()
    return found | ({"git": commit} if commit else {})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    """The commit of the checkout this file runs from, `+dirty` if it was edited; None when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", os.fspath(root)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        edited = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit[:12] + ("+dirty" if edited else "")
