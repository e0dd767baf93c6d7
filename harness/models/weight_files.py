"""The weight files of a model: each of them whole, and together what their index promises.

Safetensors is the format; only headers are read here. Pickles (`pytorch_model.bin`) are refused unless
`model.allow_pickle=true`: PyTorch then reads them with weights_only, which builds tensors and calls nothing
else, but a pickle tells little before it is read.
"""

import json
import math
import re
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.foundation.errors import UserError

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
FLOATS = ("F64", "F32", "F16", "BF16")
BOOLEAN = 8  # bits
# what a header that is not one leads to
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
LEGACY_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch.save before zip files (torch < 1.6)


def weight_files(directory: Path, allow_pickle: bool) -> list[Path]:
    """The weight files of a model, each checked to be whole and all together to be what the index promises.

    Raises:
        UserError: no safetensors (nor a pickle, where that will do), a missing or surplus shard, a file that
            is empty, truncated, a git-lfs pointer or a web page, a tensor stored twice or as no float.
    """
    for kind in (SAFETENSORS, PICKLE) if allow_pickle else (SAFETENSORS,):
        if (directory / kind.single).exists():  # transformers prefers it to an index, too
            try:
                kind.check(directory / kind.single)
            except UserError as error:
                raise UserError(f"{error}{beside_shards(directory)}") from error
            return [directory / kind.single]
        if (directory / kind.index).exists():
            return _sharded(directory, kind)
    if (directory / "quantized.safetensors").exists():
        raise UserError(
            f"{directory}: a quantized checkpoint; model.id needs the float model it was made from"
        )
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern))
    if not pickles:
        raise UserError(f"{directory}: no {SAFETENSORS.single}")
    if not {PICKLE.single, PICKLE.index} & {path.name for path in directory.iterdir()}:
        reason = f"transformers cannot read {pickles[0]}; convert it to safetensors"
        raise UserError(f"{directory}: no {SAFETENSORS.single}, and {reason}")
    remedy = "convert it to safetensors, or set model.allow_pickle=true"
    reason = "a pickle can hold programs and is not read"
    raise UserError(f"{directory}: only {pickles[0]}; {reason}: {remedy}")


def beside_shards(directory: Path) -> str:
    """What to add to a complaint about weights in one file, where an index promises them in shards too."""
    for kind in (SAFETENSORS, PICKLE):
        if (directory / kind.single).exists() and (directory / kind.index).exists():
            return f" ({kind.single} is read, not the shards of {kind.index} beside it: remove the stray one)"
    return ""


def promised_in_vain(directory: Path) -> set[str]:
    """Tensors that the index of safetensors shards names and no shard holds."""
    if (directory / SAFETENSORS.single).exists() or not (directory / SAFETENSORS.index).exists():
        return set()
    shards = shard_names(directory, SAFETENSORS)
    return set(_weight_map(directory, SAFETENSORS)).difference(*(check_shard(directory / s) for s in shards))


def check_shard(path: Path) -> dict[str, Any]:
    """The header of a safetensors file (tensor name -> entry), once the file is known to be whole.

    Raises:
        UserError: says which of missing, empty, git-lfs pointer, web page, truncated, not safetensors the
            file is, or which weight is stored as no float.
    """
    size, head = _size_and_head(path)
    length = int.from_bytes(head[:8], "little")
    kind = f"truncated: {size} bytes" if size < 8 else None
    if not kind and not 2 <= length <= MAX_HEADER:
        kind = "not a safetensors file"
    if not kind and 8 + length > size:
        kind = f"truncated: has {size} of at least {8 + length} bytes"
    if kind:
        raise UserError(f"{path}: {kind}; fetch the file again")
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_without_twins)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        needed = 8 + length + _data_bytes(tensors)
    except DAMAGED as error:
        reason = f"its header is damaged ({type(error).__name__})"
        raise UserError(f"{path}: {reason}; fetch the file again") from error
    if needed != size:
        state = "truncated" if size < needed else "too long"
        raise UserError(f"{path}: {state}: has {size} of {needed} bytes; fetch the file again")
    for name, entry in tensors.items():
        vector = name.endswith(".bias") and len(entry["shape"]) == 1  # a causal mask of that name has more
        if (vector or name.endswith(".weight")) and (stored := entry["dtype"]) not in FLOATS:
            raise UserError(f"{path}: {name} is stored as {stored}: already quantized; give the float model")
    return tensors


def check_pickle(path: Path) -> Collection[str]:
    """No tensor names, as a pickle tells none before it is read; the file is known to be one of PyTorch's,
    and no decompression bomb.

    Raises:
        UserError: says which of missing, empty, git-lfs pointer, web page, truncated, compressed, not
            PyTorch's the file is.
    """
    _, head = _size_and_head(path)
    if head.startswith(LEGACY_PICKLE):
        return ()
    if not head.startswith(b"PK"):
        raise UserError(f"{path}: not a file of torch.save; fetch the file again")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch the file again") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(f"{path}: compressed, which torch.save never does; do not trust this checkpoint")
    return ()


@dataclass(frozen=True)
class Format:
    """How one kind of weight files is called, and how one of them is checked."""

    single: str
    index: str
    shards: str  # pattern
    suffix: str
    check: Callable[[Path], Collection[str]]  # gives the names of the tensors


SAFETENSORS = Format(
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    ".safetensors",
    check_shard,
)
PICKLE = Format(
    "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin", ".bin", check_pickle
)


def shard_names(directory: Path, kind: Format) -> list[str]:
    """The files that an index names, sorted, each known to be a plain name beside the index.

    Raises:
        UserError: the index is damaged, or names something else.
    """
    return sorted(set(_weight_map(directory, kind).values()))


def _sharded(directory: Path, kind: Format) -> list[Path]:
    names = shard_names(directory, kind)
    surplus = {path.name for path in directory.glob(kind.shards)} - set(names)
    if surplus:
        remedy = "the directory mixes two checkpoints, fetch it again"
        raise UserError(f"{directory / min(surplus)}: not in {kind.index}; {remedy}")
    owner: dict[str, str] = {}
    for name in names:
        for tensor in kind.check(directory / name):
            if tensor in owner:
                raise UserError(
                    f"{directory / name}: {tensor} is also in {owner[tensor]}; fetch the model again"
                )
            owner[tensor] = name
    return [directory / name for name in names]


def _weight_map(directory: Path, kind: Format) -> dict[str, str]:
    weight_map = read_json(directory / kind.index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{directory / kind.index}: has no weight_map; fetch the file again")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(
            rf"[\w-][\w.-]*{re.escape(kind.suffix)}", name, re.ASCII
        ):
            reason = f"is no name of a {kind.suffix.removeprefix('.')} file beside it"
            raise UserError(f"{directory / kind.index}: {name!r} {reason}; do not trust this checkpoint")
    return weight_map


def _data_bytes(tensors: dict[str, Any]) -> int:
    """Bytes of all tensors, which must lie one behind the other, each as long as its shape and type say."""
    position = 0
    for entry in sorted(tensors.values(), key=lambda entry: entry["data_offsets"]):
        begin, end = entry["data_offsets"]
        width = re.search(r"\d+", entry["dtype"])
        bits = math.prod(entry["shape"]) * (int(width[0]) if width else BOOLEAN)
        if begin != position or min(entry["shape"], default=0) < 0 or 8 * (end - begin) != bits:
            raise ValueError("a tensor's place does not fit its shape")
        position = end
    return position


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len({name for name, _ in pairs}):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        UserError: missing, unreadable or not an object.
    """
    try:
        if path.stat().st_size > MAX_HEADER:
            reason = f"larger than {MAX_HEADER // 10**6} MB, which no such file is"
            raise UserError(f"{path}: {reason}; do not trust this checkpoint")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name}; not the directory of a transformers model") from None
    except (OSError, ValueError, RecursionError) as error:
        kind = impostor(path.read_bytes()[:200]) if path.is_file() else None
        raise UserError(
            f"{path}: {kind or f'not readable as JSON ({_brief(error)})'}; fetch the file again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object; fetch the file again")
    return content


def impostor(head: bytes) -> str | None:
    """What a file really is, when its first bytes are not those of weights or JSON."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the content (run `git lfs pull`)"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the content"
    return None


def _size_and_head(path: Path) -> tuple[int, bytes]:
    """Size in bytes and the first 200 bytes of a weight file that is there and no impostor."""
    if not path.is_file():
        raise UserError(f"{path}: missing; fetch the model again")
    with path.open("rb") as file:
        head = file.read(200)
    if kind := impostor(head):
        raise UserError(f"{path}: {kind}; fetch the file again")
    return path.stat().st_size, head


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
