"""Disk that the runs of a sweep still need, where results go and where the cache is."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.groups import Propagate
from harness.config.run_config import RunConfig
from harness.models.shape import ModelShape
from harness.planning.memory import bytes_per_number, streams

RUN = 2 * 2**20  # record, tables, log
OVERHEAD = 1.25  # scales, zeros, codebooks and headers beside the codes


@dataclass(frozen=True)
class Disk:
    """Bytes."""

    results: int
    cache: int


def disk_needed(work: Sequence[tuple[RunConfig, ModelShape]]) -> Disk:
    """Of runs one after another. What a killed run leaves is deleted once it has ended, so the largest
    counts; checkpoints stay.

    Args:
        work: the runs that are missing.
    """
    resume = max((resume_bytes(config, model) for config, model in work), default=0)
    kept = sum(RUN + (checkpoint_bytes(config, model) if config.save else 0) for config, model in work)
    return Disk(results=int(resume + kept), cache=statistics_bytes(work))


def packed_bytes(config: RunConfig, model: ModelShape) -> float:
    return OVERHEAD * model.quantizable * config.scheme.bits / 8


def resume_bytes(config: RunConfig, model: ModelShape) -> float:
    """What a killed run goes on from: the hidden states on both sides of a block, and the blocks that are
    done.
    """
    if config.method.solver is None:
        return 0.0
    return streams(config.data, model, bytes_per_number(config), copies=2) + packed_bytes(config, model)


def checkpoint_bytes(config: RunConfig, model: ModelShape) -> float:
    if config.method.solver is None:
        return 0.0
    return packed_bytes(config, model) + (model.parameters - model.quantizable) * bytes_per_number(config)


def statistics_bytes(work: Sequence[tuple[RunConfig, ModelShape]]) -> int:
    """Hessians of the float model that the runs will keep for each other, within `paths.cache_gib`."""
    sizes, bound = {}, 0.0
    for config, model in work:
        if (
            config.method.solver is None
            or config.data.propagate is not Propagate.float
            or config.method.transform is not None
        ):
            continue
        size, bound = model.blocks * model.hessian_bytes, max(bound, config.paths.cache_gib * 2**30)
        if size <= config.paths.cache_gib * 2**30:
            sizes[config.model, config.data, config.seed] = size
    return int(min(sum(sizes.values()), bound))
