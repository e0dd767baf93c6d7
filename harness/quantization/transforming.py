"""What happens to a block besides the rounding of its linears: rewriting before it, quantized activations and
a report after it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.quantization.batches import Batch, outputs_of
from harness.quantization.divergence import Diverged, SolveError
from harness.quantization.layer_reports import BlockReport
from methods.blocks.activations import calibrating, install_activations_
from methods.blocks.affine_norm import AffineNorm
from methods.blocks.learned_transform import EPOCH_LOSS
from methods.contracts.block import Block
from methods.contracts.method import Method
from methods.contracts.scheme import ActRange, Scheme
from methods.contracts.transform import Transformed


@dataclass(frozen=True)
class Rewritten:
    """A transform's work on one block."""

    found: Transformed
    seconds: float
    biases: int  # bytes of the biases that linears gained


def transform(
    block: Block,
    batches: Sequence[Batch],
    targets: Sequence[Tensor],
    method: Method,
    scheme: Scheme,
    note: Callable[[int, str], None],
) -> Rewritten:
    """Let the method's transform rewrite the block in place.

    Args:
        targets: what the float model makes of each batch.
        note: takes the index of the block and a text about the progress.

    Raises:
        SolveError: the transform raised.
        Diverged: it left a parameter that is not finite.
    """
    carried = bool(batches) and batches[0].of_float is not None
    own = (
        outputs_of(block, batches)
        if carried and getattr(method.transform, "auxiliary_loss", False)
        else [None] * len(batches)
    )
    samples = [
        batch.sample(block, target, mine) for batch, target, mine in zip(batches, targets, own, strict=True)
    ]
    unbiased = [path for path in block.linears if block.module.get_submodule(path).bias is None]
    start = time.perf_counter()
    try:
        found = method.transform.apply_(
            block, samples, scheme, lambda done, total, text: note(block.index, f"step {done}/{total} {text}")
        )
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise SolveError(
            f"{block.name}: {type(method.transform).__name__}: {type(error).__name__}: {error}"
        ) from error
    for name, parameter in block.module.named_parameters():
        if not torch.isfinite(parameter.sum()):
            raise Diverged(
                f"{block.name}.{name}: {type(method.transform).__name__} left values that are not finite"
            )
    gained = [bias for path in unbiased if (bias := block.module.get_submodule(path).bias) is not None]
    return Rewritten(found, time.perf_counter() - start, sum(bias.nbytes for bias in gained))


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
    block: Block, outputs: Sequence[Tensor], targets: Sequence[Tensor], done: Rewritten | None
) -> BlockReport:
    """What the reports of the linears do not say.

    Args:
        outputs, targets: what the finished block and the float model make of the batches.
    """
    stats = dict(done.found.stats) if done else {}
    epochs = {
        int(name.removeprefix(EPOCH_LOSS)): stats.pop(name)
        for name in list(stats)
        if name.startswith(EPOCH_LOSS)
    }
    maps = [module for module in block.module.modules() if isinstance(module, AffineNorm)]
    return BlockReport(
        name=block.name,
        block=block.index,
        error=output_error(outputs, targets),
        seconds=done.seconds if done else 0.0,
        extra_bytes=sum(part.nbytes for module in maps for part in module.stored().values())
        + (done.biases if done else 0),
        multiply_adds=sum(module.multiply_adds() for module in maps),
        stats=stats,
        fallback=("; ".join(done.found.fallbacks) or None) if done else None,
        losses=[epochs[epoch] for epoch in sorted(epochs)],
    )


def output_error(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """Squared error of a block's outputs over the squared size of their targets, in float64."""
    wrong = sum(
        (output.double() - target.double()).square().sum().item()
        for output, target in zip(outputs, targets, strict=True)
    )
    return wrong / max(
        sum(target.double().square().sum().item() for target in targets), torch.finfo(torch.float64).tiny
    )
