"""Tuning of a block whose linears were rounded, between the solver and the next block."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.checkpoints.linear import QuantizedLinear
from harness.quantization.batches import Batch
from harness.quantization.blocks import BlockSource
from harness.quantization.divergence import Diverged, SolveError
from harness.quantization.hessians import LayerStatistics
from harness.quantization.layer_reports import LayerReport
from methods.blocks.activations import quantized_activations
from methods.contracts.block import Block
from methods.contracts.scheme import Scheme
from methods.contracts.tuning import BlockTuning, Tuned
from methods.solving.linalg import layer_error
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import restore


def solve_and_tune(
    source: BlockSource,
    block: Block,
    tuning: BlockTuning,
    scheme: Scheme,
    batches: Sequence[Batch],
    targets: Sequence[Tensor],
    statistics: dict[str, LayerStatistics],
    reports: Iterable[LayerReport],
) -> Iterator[LayerReport]:
    """Let `reports` round the block, tune it, and report its linears as they are after that.

    Args:
        batches, targets: what goes into the block, and what the float block makes of it.
        statistics: of all linears, at the latest once `reports` is exhausted.
        reports: rounds the linears one after another, as it is read.

    Raises:
        SolveError: the tuning raised.
    """
    floats = {path: block.module.get_submodule(path).weight.detach() for path in block.linears}
    reports = list(reports)
    samples = [batch.sample(block, target) for batch, target in zip(batches, targets, strict=True)]
    linears = {report.linear: block.module.get_submodule(report.linear) for report in reports}
    start = time.perf_counter()
    try:
        on_device = {
            path: {name: part.to(floats[path].device) for name, part in linear.packed.items()}
            for path, linear in linears.items()
        }
        with quantized_activations(block, scheme):
            tuned = tuning.tune(
                block,
                samples,
                {path: restore(on_device[path], linear.layout) for path, linear in linears.items()},
            )
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise SolveError(f"{block.name}: tuning: {type(error).__name__}: {error}") from error
    put_in(source, block, tuned)
    seconds = (time.perf_counter() - start) / len(reports)
    for report in reports:
        yield _again(report, block, floats[report.linear], statistics[report.linear], tuned, seconds)


def put_in(source: BlockSource, block: Block, tuned: Tuned) -> None:
    """Give the block its tuned weights and parameters."""
    for path, weight in tuned.weights.items():
        linear = block.module.get_submodule(path)
        if not torch.isfinite(weight.dequantize().sum()):
            raise Diverged(f"{block.name}.{path}: tuning returned weights that are not finite")
        source.replace_linear(block, path, QuantizedLinear(weight, linear.bias, linear.weight.dtype))
    for name, value in tuned.parameters.items():
        source.replace_parameter(block, name, value)


def _again(
    report: LayerReport, block: Block, weight: Tensor, entry: LayerStatistics, tuned: Tuned, seconds: float
) -> LayerReport:
    """The report of a linear, measured anew."""
    fallbacks = [report.fallback] if report.fallback else []
    report = replace(
        report, seconds=report.seconds + seconds, fallback="; ".join([*fallbacks, *tuned.fallbacks]) or None
    )
    if report.linear not in tuned.weights:
        return report
    linear, rounded = block.module.get_submodule(report.linear), tuned.weights[report.linear].dequantize()
    error = layer_error(weight.float(), rounded, entry.hessian, entry.energy)
    return replace(report, error=error, bits=bits_per_weight(linear.packed, weight.numel()))
