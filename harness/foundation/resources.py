"""What this machine has left: memory, disk, GPUs."""

import math
import re
import resource
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")


class Group(NamedTuple):
    """Files of a control group, and how the line of its statistics begins that counts cached file content."""

    limit: str
    used: str
    statistics: str
    cached: str


GROUPS = (
    Group("memory.max", "memory.current", "memory.stat", "file "),
    Group(
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_cache "
    ),
)


def free_memory() -> float:
    """Bytes that a new process can still have: what is available, or what the container's limit leaves."""
    return min(psutil.virtual_memory().available, _left_of_limit())


def free_gpu_memory() -> list[tuple[str, int, int]]:
    """(name, free bytes, bytes in all) of every visible GPU."""
    if not torch.cuda.is_available():
        return []
    return [
        (torch.cuda.get_device_name(index), *torch.cuda.mem_get_info(index))
        for index in range(torch.cuda.device_count())
    ]


def free_disk(path: str | Path) -> int:
    """Bytes left on the file system that holds `path`, or will."""
    return shutil.disk_usage(nearest(path)).free


def refuses_files(path: str | Path) -> str | None:
    """Why no file can be written below `path`, or None. Asks the file system itself, and leaves nothing
    behind.
    """
    if "\0" in str(path):
        return "no path holds a NUL"
    try:
        with tempfile.TemporaryFile(dir=nearest(path)):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def nearest(path: str | Path) -> Path:
    """The deepest part of a path that exists."""
    path = Path(path).absolute()
    return next(part for part in (path, *path.parents) if part.exists())


def _left_of_limit() -> float:
    """Of the memory of a control group; what is cached file content counts as left."""
    for group in GROUPS:
        try:
            statistics = (CGROUP / group.statistics).read_text().splitlines()
            cached = next(line for line in statistics if line.startswith(group.cached))
            limit, used = (int((CGROUP / name).read_text()) for name in (group.limit, group.used))
            return limit - used + int(cached.split()[1])
        except (OSError, StopIteration, ValueError):
            continue  # no such group, or no limit: "max"
    return math.inf


def device_name(word: str) -> str:
    """cpu or cuda; `auto` takes a GPU where one is visible."""
    if word == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return word


def killed_for_memory() -> int:
    """How many processes of this control group the kernel has killed for lack of memory; 0 where it does not
    say.
    """
    try:
        group = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.M)[1]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
        return int(re.search(r"^oom_kill (\d+)$", events, re.M)[1])
    except (OSError, TypeError):
        return 0


def reset_peak_memory() -> bool:
    """Start the peak counters anew, so that a run in a long process reports its own peak.

    Returns:
        whether the system can do so for main memory; if not (it is not Linux), the peak is the process's.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def peak_memory() -> dict[str, int]:
    """Peak bytes since the last reset, of main memory and of the GPU."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        cpu = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu": cpu, "gpu": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0}
