"""A block to be trained: what its linears are for given factors and clips, and how far its output is off.

Kept apart from the loop that trains it: whatever follows from the values of the leaves alone is here, so that
the losses before and after training are those that the steps saw.
"""

import time
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.blocks.functional import float32, run_with, values_of
from methods.blocks.rewriting import rewrite
from methods.blocks.training.learned_clipping import fake_quantize
from methods.blocks.training.masked_factors import Site
from methods.contracts.block import Block
from methods.contracts.scheme import Scheme
from methods.contracts.seams import NormSeam, Seam
from methods.contracts.tuning import Sample


class Lesson:
    """Its fixed parameters, sites and samples. Leaves are named `<site>.<name>`, `<linear>.low`, `.high`."""

    def __init__(
        self, block: Block, samples: Sequence[Sample], scheme: Scheme, sites: Sequence[Site], stability: float
    ):
        self.block, self.samples, self.scheme = block, samples, scheme
        self.sites, self.stability = sites, stability
        self.base = float32(values_of(block))
        self.device = self.base[f"{block.linears[0]}.weight"].device
        targets = sum(sample.target.double().square().sum().item() for sample in samples)
        entries = sum(sample.target.numel() for sample in samples)
        self.energy = max(targets / entries, torch.finfo(torch.float32).tiny)

    def site_leaves(self, leaves: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        prefix = f"{number}."
        return {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}

    def values(self, leaves: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """All parameters of the block, its linears rewritten and fake-quantized."""
        values = dict(self.base)
        for number, site in enumerate(self.sites):
            factor = site.factor(self.site_leaves(leaves, number), share, self.stability)
            values = rewrite(values, site.seam, factor)
        for path in self.block.linears:
            low, high = leaves[f"{path}.low"].sigmoid(), leaves[f"{path}.high"].sigmoid()
            values[f"{path}.weight"] = fake_quantize(values[f"{path}.weight"], low, high, self.scheme)
        for site in self.sites:
            self._fold_map_(values, site.seam)
        return values

    def _fold_map_(self, values: dict[str, Tensor], seam: Seam) -> None:
        """Multiply the inverse of a full matrix behind a norm into the rounded weights, if these have fewer
        rows than a batch has tokens:

        (x - shift) A^-1 Q^T = x (Q A^-T)^T - shift (Q A^-T)^T for float activations x: the same output by
        smaller products, and behind the block's first norm no gradient of x is needed.
        """
        if not isinstance(seam, NormSeam) or f"{seam.norm}.inverse" not in values:
            return
        rows = sum(len(values[f"{path}.weight"]) for path in seam.consumers)
        tokens = self.samples[0].target[..., 0].numel()
        if self.scheme.quantizes_activations or rows >= tokens:
            return
        inverse, shift = values.pop(f"{seam.norm}.inverse"), values.pop(f"{seam.norm}.shift", None)
        for path in seam.consumers:
            values[f"{path}.weight"] = values[f"{path}.weight"] @ inverse.T
            if shift is not None:
                values[f"{path}.bias"] = values[f"{path}.bias"] - values[f"{path}.weight"] @ shift

    def loss(self, sample: Sample, values: Mapping[str, Tensor], auxiliary: bool = False) -> Tensor:
        """Mean squared error of the output, relative to the mean square of all targets."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = run_with(self.block, sample.hidden, sample.call, values).float()
        loss = F.mse_loss(output, sample.target.to(self.device, non_blocking=True).float())
        if auxiliary and sample.own_target is not None:
            loss = loss + F.mse_loss(output, sample.own_target.to(self.device, non_blocking=True).float())
        return loss / self.energy

    @torch.no_grad()
    def mean_loss(self, leaves: Mapping[str, Tensor], share: float) -> float:
        """Over all samples, without the auxiliary part."""
        values = self.values(leaves, share)
        total = sum(self.loss(sample, values).item() * sample.target.numel() for sample in self.samples)
        return total / sum(sample.target.numel() for sample in self.samples)

    def plain_seconds(self) -> float:
        """One forward-backward of the float block on the first batch, gradients of all its parameters."""
        values = {
            name: value.clone().requires_grad_(value.is_floating_point()) for name, value in self.base.items()
        }
        self._wait()
        started = time.perf_counter()
        self.loss(self.samples[0], values).backward()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
