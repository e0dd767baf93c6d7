"""Tuning of a block whose linears were rounded, between the solver and the next block."""

import logging
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from harness.checkpoints.linear import QuantizedLinear
from harness.quantization.batches import Batch
from harness.quantization.divergence import check_finite, errors_named
from harness.quantization.hessians import LayerStatistics
from harness.quantization.layer_reports import LayerReport
from harness.quantization.walk import Walk
from methods.blocks.activations import quantized_activations
from methods.contracts.block import Block
from methods.contracts.quantized_weight import QuantizedWeight
from methods.contracts.tuning import Tuned
from methods.solving.linalg import layer_error
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import restore

log = logging.getLogger(__name__)


def solve_and_tune(
    walk: Walk,
    block: Block,
    batches: Sequence[Batch],
    targets: Sequence[Tensor],
    statistics: Mapping[str, LayerStatistics],
    reports: Iterable[LayerReport],
) -> Generator[LayerReport, None, Tuned]:
    """Let `reports` round the block, tune it, and report its linears as they are after that.

    Args:
        batches, targets: what goes into the block, and what the float block makes of it.
        statistics: of all linears, at the latest once `reports` is exhausted.
        reports: rounds the linears one after another, as it is read.

    Returns:
        What the tuning did (to `yield from`).

    Raises:
        SolveError: the tuning raised.
        Diverged: it returned a weight that is not finite.
    """
    floats = {path: block.module.get_submodule(path).weight.detach() for path in block.linears}
    reports = list(reports)
    samples = [batch.sample(block, target) for batch, target in zip(batches, targets, strict=True)]
    start = time.perf_counter()
    with errors_named(f"{block.name}: tuning"):
        weights = {report.linear: _on_device(block, report.linear, floats) for report in reports}
        with quantized_activations(block, walk.scheme):
            tuned = walk.method.tuning.tune(block, samples, weights)
    log.info("%s tuning error %.6g to %.6g", block.name, tuned.error_before, tuned.error_after)
    _put_in(walk, block, tuned)
    seconds = (time.perf_counter() - start) / len(reports)
    for report in reports:
        yield _again(report, block, floats[report.linear], statistics[report.linear], tuned, seconds)
    return tuned


def _on_device(block: Block, path: str, floats: Mapping[str, Tensor]) -> QuantizedWeight:
    """The rounded weight of a linear, where its float weight was."""
    linear, device = block.module.get_submodule(path), floats[path].device
    return restore({name: part.to(device) for name, part in linear.packed.items()}, linear.layout)


def _put_in(walk: Walk, block: Block, tuned: Tuned) -> None:
    """Give the block its tuned weights and parameters."""
    for path, weight in tuned.weights.items():
        linear = block.module.get_submodule(path)
        check_finite(weight.dequantize(), f"{block.name}.{path}: tuning returned weights that are not finite")
        walk.source.replace_linear(block, path, QuantizedLinear(weight, linear.bias, linear.weight.dtype))
    for name, value in tuned.parameters.items():
        walk.source.replace_parameter(block, name, value)


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
