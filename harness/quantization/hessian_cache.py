"""Statistics of the float model on disk, where the runs of a sweep can share them."""

import logging
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from harness.foundation.cache import evict
from harness.foundation.files import write_atomic
from harness.quantization.hessians import LayerStatistics
from methods.contracts.block import Block

log = logging.getLogger(__name__)
IDS = "token_ids"  # in the metadata of a file


class StatisticsCache:
    """Statistics of the float model on disk, one file per block, below a directory named by their key.

    Directories are evicted, least recently used first, to keep the whole below the bound. Every file holds
    the hash of the calibration ids that it was made with; files of former versions hold none and are taken
    at their word.
    """

    def __init__(
        self, root: Path, key: str, blocks: int, bytes_needed: int, bound_gib: float, ids: str | None = None
    ):
        """
        Args:
            ids: hash of the calibration ids of today; files that were made with others are made anew.
        """
        self.directory, self.blocks, self._ids = root / key, blocks, ids
        self.enabled = 0 < bytes_needed <= bound_gib * 2**30
        if self.enabled:
            evict(root, bound_gib * 2**30 - bytes_needed, keep=key)

    def complete(self) -> bool:
        paths = [self._path(index) for index in range(self.blocks)]
        if not self.enabled or not all(path.exists() for path in paths):
            return False
        others = [path for path in paths if _ids_of(path) not in (None, self._ids)] if self._ids else []
        if others:
            log.warning(
                "%s: made with other token ids than the tokenizer gives today; computed again", self.directory
            )
        return not others

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
        metadata = {IDS: self._ids} if self._ids else None
        write_atomic(self._path(block.index), save(tensors, metadata))

    def _path(self, index: int) -> Path:
        return self.directory / f"block-{index:04d}.safetensors"


def _ids_of(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(IDS)
