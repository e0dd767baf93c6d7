"""Statistics of the float model on disk, where the runs of a sweep can share them."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from harness.foundation.cache import evict
from harness.foundation.files import write_atomic
from harness.quantization.hessians import LayerStatistics
from methods.contracts.block import Block


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

    def load(self, block: Block) -> dict[str, LayerStatistics]:
        device = next(block.module.parameters()).device
        stored = load_file(self._path(block.index), device=str(device))
        os.utime(self.directory)
        return {
            path: LayerStatistics(stored[f"{group[0]}.hessian"], stored[f"{path}.energy"].item())
            for group in block.groups
            for path in group
        }

    def save(self, block: Block, statistics: dict[str, LayerStatistics]) -> None:
        if not self.enabled:
            return
        tensors = {f"{group[0]}.hessian": statistics[group[0]].hessian.cpu() for group in block.groups}
        tensors |= {
            f"{path}.energy": torch.tensor(entry.energy, dtype=torch.float64)
            for path, entry in statistics.items()
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(block.index), save(tensors))

    def _path(self, index: int) -> Path:
        return self.directory / f"block-{index:04d}.safetensors"
