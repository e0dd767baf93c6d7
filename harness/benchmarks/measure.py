"""Seconds and peak memory of a piece of work, and how results reach a file."""

import csv
import ctypes
import gc
import io
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.foundation.resources import free_memory, peak_memory, reset_peak_memory

# of malloc.h; bytes; what glibc itself arrives at after large arrays
M_MMAP_THRESHOLD, SMALL, LARGEST = -3, 2**18, 2**25
ENOUGH = 5.0  # seconds of measuring after which a median needs no more repeats


def failure(error: Exception) -> str:
    """Why a cell of a benchmark has no numbers, in one line."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return "failed: out of memory"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def timed(work: Callable[[], Any], repeats: int, device: str = "cpu") -> tuple[float, Any]:
    """Median seconds of `work()`, and what it returned last; work that takes long is repeated less."""
    seconds = []
    while len(seconds) < repeats and sum(seconds) < ENOUGH:
        synchronize(device)
        start = time.perf_counter()
        result = work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_extra_bytes(work: Callable[[], Any], device: str) -> int | None:
    """The most memory that `work()` held above what was there before; None where the system cannot say.

    On a GPU exact, by torch's allocator. On a CPU the growth of the resident set, which counts whole pages,
    buffers of the BLAS included; meanwhile the C library (glibc) keeps no freed array of more than `SMALL`
    bytes for later, so this work is slower than usual.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    glibc = _glibc()
    if glibc is None:
        return None
    glibc.mallopt(M_MMAP_THRESHOLD, SMALL)
    try:
        # what earlier work left in cycles would else be freed meanwhile, and counted against this one
        gc.collect()
        glibc.malloc_trim(0)
        reset_peak_memory()  # to what is resident now
        before = psutil.Process().memory_info().rss
        work()
        return max(0, peak_memory()["cpu"] - before)
    finally:
        glibc.mallopt(M_MMAP_THRESHOLD, LARGEST)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is the one whose allocator can be told what to keep, and the kernel can be
    asked for peaks.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    known = hasattr(library, "mallopt") and hasattr(library, "malloc_trim") and reset_peak_memory()
    return library if known else None


def available_bytes(device: str) -> float:
    """Memory that can still be had."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else free_memory()


def machine(device: str) -> str:
    """What the numbers belong to."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def write(path: Path, content: str | bytes) -> None:
    """Raises UserError where the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose another place with --out DIR") from error


def csv_text(rows: Iterable[dict]) -> str:
    """All rows have the keys of the first; None is an empty field."""
    rows, stream = list(rows), io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
