"""What happens to a block besides the rounding of its linears: rewriting before it, quantized activations and
a report after it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.quantization.batches import Batch, outputs_of
from harness.quantization.divergence import check_finite, errors_named
from harness.quantization.layer_reports import BlockReport
from harness.quantization.walk import Walk
from methods.blocks.activations import calibrating, install_activations_
from methods.blocks.affine_norm import AffineNorm
from methods.blocks.training.learned_transform import EPOCH_LOSS
from methods.contracts.block import Block
from methods.contracts.scheme import ActRange, Scheme
from methods.contracts.transform import Transformed
from methods.contracts.tuning import Tuned


@dataclass(frozen=True)
class Rewritten:
    """A transform's work on one block."""

    result: Transformed
    seconds: float
    biases: int  # bytes of the biases that linears gained


def transform(walk: Walk, block: Block, batches: Sequence[Batch], targets: Sequence[Tensor]) -> Rewritten:
    """Let the method's transform rewrite the block in place.

    Args:
        targets: what the float model makes of each batch.

    Raises:
        SolveError: the transform raised.
        Diverged: it left a parameter that is not finite.
    """

    def watch(done: int, total: int, text: str) -> None:
        walk.note(block.index, f"step {done}/{total} {text}")

    rewriter = walk.method.transform
    aims_at_own = batches[0].of_float is not None and getattr(rewriter, "auxiliary_loss", False)
    own = outputs_of(block, batches) if aims_at_own else [None] * len(batches)
    samples = [batch.sample(block, *of) for batch, *of in zip(batches, targets, own, strict=True)]
    unbiased = [path for path in block.linears if block.module.get_submodule(path).bias is None]
    start = time.perf_counter()
    with errors_named(f"{block.name}: {type(rewriter).__name__}"):
        result = rewriter.apply_(block, samples, walk.scheme, watch)
    for name, parameter in block.module.named_parameters():
        what = f"{block.name}.{name}: {type(rewriter).__name__}"
        check_finite(parameter, f"{what} left values that are not finite")
    gained = [bias for path in unbiased if (bias := block.module.get_submodule(path).bias) is not None]
    return Rewritten(result, time.perf_counter() - start, sum(bias.nbytes for bias in gained))


def finish_(block: Block, scheme: Scheme, batches: Sequence[Batch]) -> None:
    """Quantize the activations of a block whose linears are all rounded, for good; static ranges are those of
    `batches`.
    """
    if scheme.quantizes_activations:
        install_activations_(block, scheme)
        if scheme.act_range is ActRange.tensor:
            with calibrating(block):
                outputs_of(block, batches)


def block_report(
    block: Block,
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    rewritten: Rewritten | None,
    tuned: Tuned | None,
) -> BlockReport:
    """What the reports of the linears do not say.

    Args:
        outputs, targets: what the finished block and the float model make of the batches.
    """
    stats = dict(rewritten.result.stats) if rewritten else {}
    epochs = {
        int(name.removeprefix(EPOCH_LOSS)): stats.pop(name)
        for name in list(stats)
        if name.startswith(EPOCH_LOSS)
    }
    if tuned:
        stats |= {"tuning_error_before": tuned.error_before, "tuning_error_after": tuned.error_after}
    maps = [module for module in block.module.modules() if isinstance(module, AffineNorm)]
    matrices = sum(part.nbytes for module in maps for part in module.stored().values())
    return BlockReport(
        name=block.name,
        block=block.index,
        error=output_error(outputs, targets),
        seconds=rewritten.seconds if rewritten else 0.0,
        extra_bytes=matrices + (rewritten.biases if rewritten else 0),
        multiply_adds=sum(module.multiply_adds() for module in maps),
        stats=stats,
        fallback=("; ".join(rewritten.result.fallbacks) or None) if rewritten else None,
        losses=[epochs[epoch] for epoch in sorted(epochs)],
    )


def output_error(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """Squared error of a block's outputs over the squared size of their targets, in float64."""
    wrong = right = 0.0
    for output, target in zip(outputs, targets, strict=True):
        wrong += (output.double() - target.double()).square().sum().item()
        right += target.double().square().sum().item()
    return wrong / max(right, torch.finfo(torch.float64).tiny)
