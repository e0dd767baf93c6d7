"""Tests leave the user's cache, environment and working directory alone, and never touch the network by
accident.
"""

import os
from pathlib import Path

import pytest
import torch

from harness.foundation import cache

LONG = (
    "end_to_end/test_kills",
    "quantization/test_resume",
    "end_to_end/test_run",
    "sweeps/test_local",
    "methods/kernels/test_kernels",
    "commands/test_bench",
    "checkpoints/test_saved_runs",
    "methods/test_conformance",
)


def pytest_collection_modifyitems(items):
    """The longest files first: of two processes, the one given such a file last would end it alone."""
    places = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny matrices gain nothing from threads, and lose a lot to waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """A cache of its own for every test; `warm_cache` gives the user's back."""
    monkeypatch.setenv("PTQ_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-home"))
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.fixture
def numbers_alone(monkeypatch):
    """Reports without figures, verdicts and the papers' tables: they take seconds, and have tests of their
    own.
    """
    monkeypatch.setattr("harness.reporting.assembly.pictures", lambda *_: [])
    monkeypatch.setattr("harness.reporting.assembly.load_claims", lambda: ())
    monkeypatch.setattr("harness.reporting.papers.tables.load_specs", dict)


USER_CACHE = os.environ.get("PTQ_BENCH_CACHE")


@pytest.fixture
def warm_cache(monkeypatch) -> Path:
    """The cache with the embedded assets; tests that need one skip where neither cache nor network has it."""
    if USER_CACHE is None:
        monkeypatch.delenv("PTQ_BENCH_CACHE")
    else:
        monkeypatch.setenv("PTQ_BENCH_CACHE", USER_CACHE)
    return cache.cache_dir()


@pytest.fixture
def mirror() -> str:
    """A directory of data sets laid out as on the hub."""
    place = os.environ.get("PTQ_BENCH_MIRROR")
    if not place:
        pytest.skip("PTQ_BENCH_MIRROR names no mirror")
    return place
