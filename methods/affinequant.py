"""AffineQuant: learned invertible matrices, with a gradual mask, instead of OmniQuant's diagonals.

Ma, Li, Zheng, Ling, Xiao, Wang, Wen, Chao, Ji: AffineQuant: Affine Transformation Quantization for Large
Language Models, ICLR 2024, arXiv 2403.12544. Eq. 4: min over A and shift of || f(X, W) - f((X - shift) A^-1,
Q(W A^T), b + W shift) ||^2 for the block f; Eq. 6 to 9: the gradual mask, see
`methods.blocks.training.masked_factors`; learnable clipping as in OmniQuant. Where matrices stand:

    behind norms       a full matrix where activations stay float, a diagonal where they are quantized (as the
                       paper's settings)
    values -> output   one matrix per value head
    queries . keys     one matrix per key head where activations are quantized; only what commutes with RoPE

A full matrix behind a norm folds into nothing: its inverse is kept and multiplied at run time, counted in the
bits, and its multiply-adds are in the record. merge_only leaves diagonals there. The released code applies
general matrices before RoPE too, which changes the function: rotated_matrices=full asks for that, and is
refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from methods.blocks.training.learned_transform import Shift, learn_, sites_of
from methods.blocks.training.loop import Course, Epochs, FinalRate
from methods.contracts.block import Block
from methods.contracts.bounds import Rate, Share, check_bounds
from methods.contracts.effort import BlockEffort, training
from methods.contracts.scheme import Scheme
from methods.contracts.seams import NormSeam, QueryKeySeam, Seam, ValueSeam
from methods.contracts.transform import Transformed, Watch
from methods.contracts.tuning import Sample


class RotatedMatrices(Enum):
    """What may stand between queries and keys that are rotated."""

    commuting = "commuting"  # one scaling and turning for each rotated pair
    full = "full"


@dataclass(frozen=True)
class AffineQuant:
    """
    Raises:
        ValueError: a field is out of range; the message names it.
    """

    # the mask's factor on off-diagonals; 0: diagonals throughout, which is OmniQuant's scaling
    stability: Share
    merge_only: bool  # only what folds into weights: nothing new is computed at run time
    rotated_matrices: RotatedMatrices
    shift: Shift  # the released code's: everywhere
    alpha: Share | None  # of the smoothed start: 0 weights, 1 activations; None: no smoothing
    epochs: Epochs  # passes over the calibration samples; the mask is widest in the last
    matrix_rate: Rate  # AdamW, of matrices and shifts
    clip_rate: Rate  # of the clipping logits
    final_rate: FinalRate  # both rates fall linearly to this share; 1: constant, as in the paper
    auxiliary_loss: bool  # also against the float block on the same inputs

    def __post_init__(self):
        check_bounds(self)
        if self.merge_only and self.shift is Shift.everywhere:
            raise ValueError(
                "shift=everywhere: not all of it folds into the weights; set shift=foldable with merge_only"
            )

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        rotated = any(isinstance(seam, QueryKeySeam) and seam.rotary for seam in seams)
        if self.rotated_matrices is RotatedMatrices.full and scheme.quantizes_activations and rotated:
            return (
                "queries and keys are rotated (RoPE): a full matrix before the rotation changes the function"
                "; set method.transform.rotated_matrices=commuting"
            )
        if not any(isinstance(seam, NormSeam | ValueSeam) for seam in seams):
            return "the blocks have no place where a matrix can stand (no seams in the family table)"
        return None

    def operations(self, block: BlockEffort, scheme: Scheme) -> float:
        """The epochs, the loss before and after them, and the extremes of the activations."""
        return training(block, self.epochs) + 3 * block.forward

    def apply_(self, block: Block, samples: Sequence[Sample], scheme: Scheme, watch: Watch) -> Transformed:
        full_at = (
            (ValueSeam, QueryKeySeam)
            if scheme.quantizes_activations or self.merge_only
            else (NormSeam, ValueSeam, QueryKeySeam)
        )
        sites = sites_of(block, scheme, full_at, self.shift)
        return learn_(block, samples, scheme, sites, self.alpha, self.stability, self._course(), watch)

    def _course(self) -> Course:
        return Course(self.epochs, self.matrix_rate, self.clip_rate, self.final_rate, self.auxiliary_loss)
