"""Calibration statistics of linears: gathered in one forward pass per block, and kept on disk when a sweep
can share them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.quantization.batches import Batch, outputs_of
from methods.contracts.block import Block
from methods.solving.linalg import energy

# paths of linears inside a block; those in one inner sequence read the same input
Groups = Sequence[Sequence[str]]


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


def gather(
    block: Block, batches: Sequence[Batch], groups: Groups
) -> tuple[dict[str, LayerStatistics], list[Tensor]]:
    """Run the block on every batch; return the statistics of the linears in `groups`, and the block's
    outputs.
    """
    means: dict[str, HessianMean] = {}
    with _watching(block, groups, means):
        outputs = outputs_of(block, batches)
    return _statistics(block, groups, means), outputs


def gather_only(block: Block, batches: Sequence[Batch], groups: Groups) -> dict[str, LayerStatistics]:
    """The same statistics, leaving the block as soon as a batch has passed every one of `groups`."""
    means: dict[str, HessianMean] = {}
    for batch in batches:
        with _watching(block, groups, means, leave=True), suppress(_Seen):
            outputs_of(block, [batch])
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
def _watching(
    block: Block, groups: Groups, means: dict[str, HessianMean], leave: bool = False
) -> Iterator[None]:
    """Feed the input of each group's first linear to its mean; the others of the group read the same."""
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

    handles = [
        block.module.get_submodule(group[0]).register_forward_pre_hook(watch(group[0])) for group in groups
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
