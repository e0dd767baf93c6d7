"""SmoothQuant: outliers of the activations behind a norm are moved into the weights that read them.

Xiao, Lin, Seznec, Wu, Demouth, Han: SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models, ICML 2023, arXiv 2211.10438. Eq. 3: Y = (X diag(s)^-1)(diag(s) W), the left factor folded
into the norm; Eq. 4 (`methods.blocks.smoothing`):

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)

for input channel j, the maxima over all calibration tokens and over all rows of all linears behind the norm.
Norms alone, as in the paper. Channels that are dead, in the activations or in the weights, stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.blocks.input_statistics import channel_extremes
from methods.blocks.installing import install_
from methods.blocks.smoothing import smoothed
from methods.contracts.block import Block
from methods.contracts.bounds import Share, check_bounds
from methods.contracts.effort import BlockEffort
from methods.contracts.scheme import Scheme
from methods.contracts.seams import NormSeam, Seam
from methods.contracts.transform import Transformed, Watch
from methods.contracts.tuning import Sample


@dataclass(frozen=True)
class SmoothQuant:
    """
    Raises:
        ValueError: alpha is out of range.
    """

    # the share of the difficulty that goes into the weights: 0 evens out the weights, 1 the activations
    alpha: Share

    trains: ClassVar[bool] = False

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        if not any(isinstance(seam, NormSeam) for seam in seams):
            return (
                "SmoothQuant folds factors into norms, and the blocks of this model have no norm that could "
                "take one"
            )
        return None

    def operations(self, block: BlockEffort, scheme: Scheme) -> float:
        """One pass, for the extremes of the activations."""
        return block.forward

    def apply_(self, block: Block, samples: Sequence[Sample], scheme: Scheme, watch: Watch) -> Transformed:
        seams = [seam for seam in block.seams if isinstance(seam, NormSeam)]
        before = channel_extremes(block, samples, [seam.consumers[0] for seam in seams])
        spans, smooth = [], []
        for done, seam in enumerate(seams, 1):
            low, high = before[seam.consumers[0]]
            factor = smoothed(block, seam, low, high, self.alpha, shift=False)
            install_(block, [(seam, factor)])
            sizes = low.abs().maximum(high.abs())
            spans.append(_span(sizes))
            smooth.append(_span(sizes / factor.matrix))
            watch(done, len(seams), seam.norm)
        return Transformed(stats={"span_before": max(spans), "span_after": max(smooth)})


def _span(sizes: Tensor) -> float:
    """How far the largest channel stands out: over the mean of all."""
    return (sizes.max() / sizes.mean()).item() if sizes.any() else 1.0
