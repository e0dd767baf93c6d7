"""Calibration statistics of linears: gathered in one forward pass per block, and kept on disk when a sweep can share them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from harness.foundation.cache import evict
from harness.foundation.files import write_atomic
from methods.core.block import Block, Call
from methods.core.linalg import energy

Groups = Sequence[Sequence[str]]  # paths of linears inside a block; those in one inner sequence read the same input


@dataclass(frozen=True)
class LayerStatistics:
    """What calibration knows about one linear."""

    hessian: Tensor  # (in, in) float32, E[x x^T]
    energy: float  # tr(W H W^T) in float64, the denominator of the layer error


class HessianMean:
    """Running mean of x x^T over tokens, float32: one fused product per batch, no second matrix."""

    def __init__(self, width: int, device: torch.device):
        self.mean = torch.zeros(width, width, device=device)
        self.tokens = 0

    def add(self, inputs: Tensor) -> None:
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        self.tokens += len(rows)
        self.mean.addmm_(rows.T, rows, beta=1 - len(rows) / self.tokens, alpha=1 / self.tokens)


@dataclass
class Batch:
    """Hidden states on their way through the blocks, and how each block is called."""

    hidden: Tensor  # (samples, tokens, width)
    calls: Sequence[Call]  # one per block
    of_float: Tensor | None = None  # those of the float model, where they differ and are needed


def home_of(hidden: Sequence[Tensor], copies: int) -> torch.device:
    """Where hidden states are kept: with their device while so many copies of all leave half of its free memory, else on the host."""
    device = hidden[0].device
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if 2 * copies * sum(entry.nbytes for entry in hidden) <= free else torch.device("cpu")


def gather(block: Block, index: int, batches: Sequence[Batch], groups: Groups) -> tuple[dict[str, LayerStatistics], list[Tensor]]:
    """Run the block on every batch; return the statistics of the linears in `groups`, and the block's outputs."""
    means: dict[str, HessianMean] = {}
    with _watching(block, groups, means):
        outputs = outputs_of(block, index, batches)
    return _statistics(block, groups, means), outputs


@torch.no_grad()
def outputs_of(block: Block, index: int, batches: Sequence[Batch], of_float: bool = False) -> list[Tensor]:
    """What the block makes of every batch (with `of_float`, of the float model's hidden states), kept where the batches are."""
    device = next(block.module.parameters()).device
    entries = [batch.of_float if of_float and batch.of_float is not None else batch.hidden for batch in batches]
    return [block.run(entry.to(device), batch.calls[index]).to(entry.device) for entry, batch in zip(entries, batches, strict=True)]


def gather_only(block: Block, index: int, batches: Sequence[Batch], groups: Groups) -> dict[str, LayerStatistics]:
    """The same statistics, leaving the block as soon as a batch has passed every one of `groups`."""
    means: dict[str, HessianMean] = {}
    for batch in batches:
        with _watching(block, groups, means, leave=True), suppress(_Seen):
            outputs_of(block, index, [batch])
    return _statistics(block, groups, means)


class _Seen(Exception):
    """Every watched linear has had its input."""


def _statistics(block: Block, groups: Groups, means: dict[str, HessianMean]) -> dict[str, LayerStatistics]:
    statistics = {}
    for group in groups:
        hessian = means[group[0]].mean
        for path in group:
            weight = block.module.get_submodule(path).weight
            statistics[path] = LayerStatistics(hessian, energy(weight, hessian).sum().item())
    return statistics


@contextmanager
def _watching(block: Block, groups: Groups, means: dict[str, HessianMean], leave: bool = False) -> Iterator[None]:
    """Feed the input of each group's first linear to its mean; the others of the group read the same tensor."""
    seen = set()

    def watch(path: str):
        def hook(module, inputs):
            if path not in means:
                means[path] = HessianMean(inputs[0].shape[-1], inputs[0].device)
            means[path].add(inputs[0])
            seen.add(path)
            if leave and len(seen) == len(groups):
                raise _Seen

        return hook

    handles = [block.module.get_submodule(group[0]).register_forward_pre_hook(watch(group[0])) for group in groups]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class StatisticsCache:
    """Statistics of the float model on disk, one file per block, below a directory named by their key.

    Directories are evicted, least recently used first, to keep the whole below the bound.
    """

    def __init__(self, root: Path, key: str, blocks: int, bytes_needed: int, bound_gib: float):
        self.directory, self.blocks = root / key, blocks
        self.enabled = 0 < bytes_needed <= bound_gib * 2**30
        if self.enabled:
            evict(root, bound_gib * 2**30 - bytes_needed, keep=key)

    def complete(self) -> bool:
        return self.enabled and all(self._path(index).exists() for index in range(self.blocks))

    def load(self, index: int, block: Block) -> dict[str, LayerStatistics]:
        device = next(block.module.parameters()).device
        stored = load_file(self._path(index), device=str(device))
        os.utime(self.directory)
        return {
            path: LayerStatistics(stored[f"{group[0]}.hessian"], stored[f"{path}.energy"].item())
            for group in block.groups
            for path in group
        }

    def save(self, index: int, block: Block, statistics: dict[str, LayerStatistics]) -> None:
        if not self.enabled:
            return
        tensors = {f"{group[0]}.hessian": statistics[group[0]].hessian.cpu() for group in block.groups}
        tensors |= {f"{path}.energy": torch.tensor(entry.energy, dtype=torch.float64) for path, entry in statistics.items()}
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(index), save(tensors))

    def _path(self, index: int) -> Path:
        return self.directory / f"block-{index:04d}.safetensors"
