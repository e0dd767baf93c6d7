"""Smoothing: each channel of the activations is divided by a factor between its size and that of its weights.

    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)   SmoothQuant, arXiv 2211.10438, Eq. 4

OmniQuant and AffineQuant start from it, too.
"""

import torch
from torch import Tensor

from methods.blocks.rewriting import Factor
from methods.contracts.block import Block
from methods.contracts.seams import NormSeam, ValueSeam


def smoothed(
    block: Block, seam: NormSeam | ValueSeam, low: Tensor, high: Tensor, alpha: float, shift: bool
) -> Factor:
    """The smoothing factor at a seam.

    Args:
        low, high: (in,) extremes of the channels that its consumers read.
        shift: also move the middle of each channel to 0.
    """
    consumers = seam.consumers if isinstance(seam, NormSeam) else (seam.output,)
    weights = torch.stack(
        [block.module.get_submodule(path).weight.detach().float().abs().amax(0) for path in consumers]
    ).amax(0)
    if isinstance(seam, ValueSeam):  # query heads that share a value head share its factor
        form = seam.value.count, -1, seam.value.size
        low, high, weights = low.view(form).amin(1), high.view(form).amax(1), weights.view(form).amax(1)
    middle = (low + high) / 2 if shift else torch.zeros_like(low)
    sizes = torch.maximum(high - middle, middle - low)
    return Factor(between(sizes, weights, alpha), middle if shift else None)


def between(activations: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Eq. 4; 1 for channels that are dead on either side."""
    factor = activations.pow(alpha) / weights.pow(1 - alpha)
    usable = (activations > 0) & (weights > 0) & factor.isfinite() & (factor > 0)
    return torch.where(usable, factor, 1.0)
