"""What a sweep needs of this machine, looked at once before the first point runs; `ptq-bench doctor` shows
the same.

Each thing is looked at once, however many points need it, and nothing is downloaded. One line for each, with
the knob to turn.
"""

import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from harness.bookkeeping.words import label
from harness.config.groups import ModelConfig
from harness.config.run_config import RunConfig
from harness.data import assets, corpora
from harness.data.corpora import is_in_hub_cache
from harness.evaluation.embedded_tasks import EMBEDDED
from harness.evaluation.tasks import STOCK
from harness.foundation.cache import cache_dir
from harness.foundation.errors import UserError
from harness.foundation.resources import (
    device_name,
    free_disk,
    free_gpu_memory,
    free_memory,
    nearest,
    refuses_files,
)
from harness.models.reading import check_tokenizer
from harness.models.shape import inspect
from harness.models.sources import offline, source_of
from harness.planning.disk import disk_needed
from harness.planning.memory import Memory, peak_memory

OK, NOTE, BAD = "ok", "note", "bad"
MARGIN = 1.2  # of disk
TOLERANCE = 0.25  # of the estimate of memory: beyond it a run is refused, within it there is a note
GIB = 2**30
SMALLER = (
    "lower data.batch_size or eval.batch_size, set model.dtype=bfloat16, or take a method that trains nothing"
)


class Finding(NamedTuple):
    level: str  # note: may go wrong; bad: will
    text: str


def findings(configs: Iterable[RunConfig]) -> list[Finding]:
    """What stands in the way of running these configurations, the bad ones first."""
    configs = list(configs)
    found = [*libraries(), *_directories(configs)]
    for model in dict.fromkeys(config.model for config in configs):
        found += _model(model)
    ready = [config for config in configs if source_of(config.model).is_here()]
    found += [*_texts(configs), *_calibration(ready), *_memory(ready), *_disk(ready)]
    return sorted(dict.fromkeys(found), key=lambda finding: finding.level != BAD)


def libraries() -> Iterator[Finding]:
    """Versions against the bounds of the installed package."""
    try:
        required = metadata.requires("ptq-bench") or []
    except metadata.PackageNotFoundError:
        return  # run from a checkout
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{requirement}'"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding(BAD, f"{requirement.name} is not installed: {remedy}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            bounds = f"{requirement.specifier}, for which this is tested"
            yield Finding(NOTE, f"{requirement.name} {version} is outside of {bounds}: {remedy}")


def _directories(configs: list[RunConfig]) -> Iterator[Finding]:
    directories = {f"paths.results={config.paths.results}": config.paths.results for config in configs}
    directories[f"the cache {cache_dir()} (PTQ_BENCH_CACHE=DIR moves it)"] = cache_dir()
    for knob, path in directories.items():
        if reason := refuses_files(path):
            yield Finding(BAD, f"{knob}: cannot be written ({reason})")


def _model(model: ModelConfig) -> Iterator[Finding]:
    source = source_of(model)
    missing = f"model.id={model.id}: not here yet"
    if source.is_here():
        try:
            if source.kind != "tiny":
                cached = source.in_hub_cache() if source.kind == "hub" else source.directory(weights=False)
                check_tokenizer(cached)
        except UserError as error:
            yield Finding(BAD, str(error))
    elif source.kind == "asset":
        remedy = f"ptq-bench assets --fetch {source.name}"
        yield Finding(NOTE, f"{missing}, fetched at the first run; {remedy}")
    elif offline():
        reason = "not in the hub cache, and HF_HUB_OFFLINE=1 forbids downloading; unset it once"
        yield Finding(BAD, f"model.id={model.id}: {reason}")
    else:
        yield Finding(NOTE, f"{missing}, downloaded at the first run")


def _texts(configs: list[RunConfig]) -> Iterator[Finding]:
    """Corpora and the data of tasks: in the cache, on the mirror, or to be had from the hub."""
    wanted = {
        ("eval", name, config.eval.mirror)
        for config in configs
        for name in (*config.eval.corpora, *config.eval.tasks)
    }
    wanted |= {
        ("data", config.data.name, config.data.mirror)
        for config in configs
        if config.method.solver is not None
    }
    for group, name, mirror in sorted(wanted, key=str):
        asset = name if name in corpora.ASSETS else EMBEDDED[name].asset if name in EMBEDDED else None
        path = STOCK[name][1] if name in STOCK else corpora.HUB[name].path if name in corpora.HUB else None
        if asset:
            if not assets.is_cached(asset):
                remedy = f"ptq-bench assets --fetch {asset}"
                yield Finding(NOTE, f"{name}: not here yet, fetched at the first run; {remedy}")
        elif path and mirror:
            if not Path(mirror, path).is_dir():
                missing = f"{group}.mirror={mirror}: has no directory {path}, which {name} needs"
                yield Finding(BAD, f"{missing}; add it, or set {group}.mirror=null")
        elif path and offline() and not is_in_hub_cache(path):
            missing = f"{name}: {path} is not in the hub cache, and HF_HUB_OFFLINE=1 forbids downloading"
            remedy = f"unset it once, or set {group}.mirror to a directory that holds {path}/"
            yield Finding(BAD, f"{missing}; {remedy}")


def _calibration(configs: list[RunConfig]) -> Iterator[Finding]:
    for config in configs:
        if config.method.solver is None:
            continue
        data, model = config.data, config.model
        tokens, widest = data.samples * data.window, max(columns for _, columns in inspect(model).linears)
        if tokens < widest:
            yield Finding(
                NOTE,
                f"data.samples={data.samples} of data.window={data.window} are {tokens} tokens, and "
                f"{model.name} has inputs of {widest} columns: Hessians will be singular, methods lean on "
                "their damping; raise data.samples",
            )


def _memory(configs: list[RunConfig]) -> Iterator[Finding]:
    """The hungriest run on each kind of device."""
    hungriest: dict[str, tuple[Memory, RunConfig]] = {}
    for config in configs:
        device = device_name(config.device.value)
        memory = peak_memory(config, inspect(config.model), device)
        if device not in hungriest or memory.largest > hungriest[device][0].largest:
            hungriest[device] = memory, config
    for memory, config in hungriest.values():
        left = {"memory": (memory.cpu, free_memory())}
        if memory.gpu:
            left["GPU memory"] = memory.gpu, max(free for _, free, _ in free_gpu_memory())
        for kind, (need, free) in left.items():
            if need > free:
                needs = f"needs about {need / GIB:.1f} GiB of {kind}, {free / GIB:.1f} are free"
                level = BAD if (1 - TOLERANCE) * need > free else NOTE
                yield Finding(level, f"{label(config)}: {needs}; {SMALLER}")


def _disk(configs: list[RunConfig]) -> Iterator[Finding]:
    """Room for all runs together, file system by file system."""
    need: dict[int, list] = {}  # by device number: bytes, free bytes, knobs
    disk = disk_needed([(config, inspect(config.model)) for config in configs])
    results = configs[0].paths.results if configs else "."
    for directory, count, knob in (
        (results, disk.results, f"paths.results={results}"),
        (cache_dir(), disk.cache, "PTQ_BENCH_CACHE"),
    ):
        entry = need.setdefault(os.stat(nearest(directory)).st_dev, [0, free_disk(directory), []])
        entry[0] += count
        entry[2].append(knob)
    for count, free, knobs in need.values():
        if count * MARGIN > free:
            room = f"{free / GIB:.1f} GiB are free, {MARGIN * count / GIB:.1f} are needed"
            remedy = "free some, choose another disk, set save=false or a smaller paths.cache_gib"
            yield Finding(BAD, f"{' and '.join(knobs)}: {room}; {remedy}")
