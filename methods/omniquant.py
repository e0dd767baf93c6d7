"""OmniQuant: learnable weight clipping and learnable equivalent transformation, block by block.

Shao, Chen, Zhang, Xu, Zhao, Li, Zhang, Gao, Qiao, Luo: OmniQuant: Omnidirectionally Calibrated Quantization
for Large Language Models, ICLR 2024, arXiv 2308.13137. Eq. 2: the end points of each grid are shares
sigmoid(u) of the extreme weights; Eq. 3 and 4: a scale and a shift per channel behind norms and values; Eq.
5: a scale per channel between queries and keys (where heads are rotated, one for each rotated pair, so that
it is exact). The objective is the output of the quantized block against the float model's.

The paper leaves the transformation out for weight-only LLaMA models: equivalent=false.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.blocks.training.learned_transform import Shift, learn_, sites_of
from methods.blocks.training.loop import Course, Epochs, FinalRate
from methods.contracts.block import Block
from methods.contracts.bounds import Rate, Share, check_bounds
from methods.contracts.effort import BlockEffort, training
from methods.contracts.scheme import Scheme
from methods.contracts.seams import Seam
from methods.contracts.transform import Transformed, Watch
from methods.contracts.tuning import Sample


@dataclass(frozen=True)
class OmniQuant:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    equivalent: bool  # learn the transformation too, not the clipping alone
    shift: Shift  # the paper's: foldable
    alpha: Share | None  # of the smoothed start: 0 weights, 1 activations; None: no smoothing
    epochs: Epochs  # passes over the calibration samples
    matrix_rate: Rate  # AdamW, of scales and shifts
    clip_rate: Rate  # of the clipping logits
    final_rate: FinalRate  # both rates fall linearly to this share; 1: constant, as in the paper
    auxiliary_loss: bool  # also against the float block on the same inputs

    def __post_init__(self):
        check_bounds(self)

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        return None

    def operations(self, block: BlockEffort, scheme: Scheme) -> float:
        """The epochs, the loss before and after them, and the extremes of the activations."""
        return training(block, self.epochs) + 3 * block.forward

    def apply_(self, block: Block, samples: Sequence[Sample], scheme: Scheme, watch: Watch) -> Transformed:
        sites = sites_of(block, scheme, full_at=(), shift=self.shift) if self.equivalent else []
        return learn_(block, samples, scheme, sites, self.alpha, 0.0, self._course(), watch)

    def _course(self) -> Course:
        return Course(self.epochs, self.matrix_rate, self.clip_rate, self.final_rate, self.auxiliary_loss)
