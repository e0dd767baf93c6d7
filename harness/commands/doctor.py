"""`ptq-bench doctor`: what this machine has, and what a sweep would miss, one line per finding with the knob
to turn.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from harness.bookkeeping.description import versions
from harness.commands.options import Options
from harness.data import assets
from harness.foundation.cache import cache_dir
from harness.foundation.resources import free_disk, free_gpu_memory, free_memory, refuses_files
from harness.models.sources import offline
from harness.planning.findings import BAD, GIB, NOTE, OK, Finding, findings, libraries
from harness.sweeps.points import planned

COLOURS = {OK: "green", NOTE: "yellow", BAD: "red"}
LEAST_DISK = 5 * GIB  # below which a disk is worth a note
# by name: hydra_plugins.hydra_<package>_launcher
LAUNCHERS = {"submitit_slurm": "submitit", "ray": "ray"}
TRACKERS = ("wandb", "trackio")


def main(argv: list[str]) -> int:
    """Print the findings; 1 if one of them stops a run."""
    parser = Options("doctor", "What this machine has, and what a sweep would miss on it.")
    parser.add_results("directory that runs will write to")
    parser.add_argument("overrides", nargs="*", help="of a sweep to look at, as of `ptq-bench run`")
    arguments = parser.parse_args(argv)
    found = list(machine(arguments.results))
    if arguments.overrides:
        elsewhere = [f"paths.results={arguments.results}"] if arguments.results != "results" else []
        found += sweep([*arguments.overrides, *elsewhere])
    console = Console(highlight=False)
    for level, text in found:
        console.print(f"[{COLOURS[level]}]{level:<4}[/] {escape(text)}", soft_wrap=True)
    return int(any(level == BAD for level, _ in found))


def sweep(overrides: list[str]) -> Iterator[Finding]:
    """What stands in the way of a planned sweep."""
    configs, errors = planned(overrides)
    yield from (Finding(BAD, error) for error in dict.fromkeys(errors))
    found = findings(configs)
    yield from found
    if configs and not found:
        yield Finding(OK, f"sweep: {len(configs)} points, nothing stands in their way")


def machine(results: str) -> Iterator[Finding]:
    """What there is, and what is missing whatever the sweep."""
    yield Finding(OK, ", ".join(f"{name} {version}" for name, version in versions().items()))
    yield from libraries()
    yield from _devices()
    for name, path in {
        "results (paths.results)": Path(results),
        "cache (PTQ_BENCH_CACHE)": cache_dir(),
    }.items():
        yield _directory(name, path)
    yield from _cache()
    for name in ("smollm2-135m", "wiki", "news", "analogies"):
        there, remedy = assets.is_cached(name), f"asset {name}: not here yet; ptq-bench assets --fetch {name}"
        yield Finding(OK, f"asset {name}: cached") if there else Finding(NOTE, remedy)
    if offline():
        yield Finding(
            OK, "hub: forbidden (HF_HUB_OFFLINE=1); models and data sets must be cached or mirrored"
        )
    else:
        yield Finding(OK, "hub: asked where a model or data set is not cached; HF_HUB_OFFLINE=1 forbids it")
    launchers = {name: f"hydra_plugins.hydra_{package}_launcher" for name, package in LAUNCHERS.items()}
    yield Finding(OK, "launchers (hydra/launcher=): " + _there(launchers, own=("local",)))
    yield Finding(OK, "trackers (tracker=): " + _there({name: name for name in TRACKERS}, own=("none",)))


def _devices() -> Iterator[Finding]:
    import torch

    memory = psutil.virtual_memory().total
    yield Finding(
        OK,
        f"cpu: {torch.get_num_threads()} threads, {memory / GIB:.0f} GiB of memory, "
        f"{free_memory() / GIB:.1f} free",
    )
    gpus = free_gpu_memory()
    for index, (name, free, whole) in enumerate(gpus):
        yield Finding(OK, f"gpu {index}: {name}, {whole / GIB:.0f} GiB, {free / GIB:.1f} free")
    if not gpus:
        yield Finding(
            NOTE,
            "gpu: none visible; everything runs on the CPU "
            "(models of a few hundred million weights are practical)",
        )


def _directory(name: str, path: Path) -> Finding:
    if reason := refuses_files(path):
        return Finding(BAD, f"{name}: {path.absolute()} cannot be written ({reason})")
    free = free_disk(path)
    return Finding(OK if free > LEAST_DISK else NOTE, f"{name}: {path.absolute()}, {free / GIB:.0f} GiB free")


def _cache() -> Iterator[Finding]:
    """What fills the cache, the largest part first."""
    parts = {part.name: _size(part) for part in cache_dir().glob("*") if part.is_dir()}
    if parts:
        largest = sorted(parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in largest)
        yield Finding(
            OK,
            f"cache holds {sum(parts.values()) / GIB:.1f} GiB: {told}; paths.cache_gib bounds the statistics",
        )


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def _there(modules: dict[str, str], own: tuple[str, ...]) -> str:
    """Names whose modules are installed, and those whose are not."""
    found = [name for name, module in modules.items() if _is_installed(module)]
    missing = [name for name in modules if name not in found]
    return ", ".join([*own, *found]) + (f"; not installed: {', '.join(missing)}" if missing else "")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # nor is its parent
