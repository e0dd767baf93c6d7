"""What a wheel would hold, by the globs of pyproject.toml: every file that the product reads, no other."""

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
DATA = sorted(
    path.relative_to(ROOT)
    for folder in ("harness", "methods", "conf", "hydra_plugins", "reports/reference")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
)


def is_packaged(folder: Path) -> bool:
    """Does a folder count as a package?"""
    name = ".".join(folder.parts)
    return any(fnmatchcase(name, glob) for glob in SETUPTOOLS["packages"]["find"]["include"])


@pytest.mark.parametrize("path", DATA, ids=str)
def test_every_file_that_is_read_is_shipped(path):
    globs = SETUPTOOLS["package-data"]
    assert any(
        is_packaged(folder) and path.relative_to(folder).match(glob) and len(Path(glob).parts) == depth
        for depth, folder in enumerate(path.parents, 1)
        for package in ("*", ".".join(folder.parts))
        for glob in globs.get(package, [])
    )


def test_what_only_a_checkout_needs_is_not_shipped():
    assert all(is_packaged(Path(name)) for name in ("harness/commands", "conf/report", "reports/reference"))
    assert not any(is_packaged(Path(name)) for name in ("tests", "benchmarks", "reports", "results", "docs"))
