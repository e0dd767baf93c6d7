"""Rounding the linears of one block, whose statistics are known."""

import time
from collections.abc import Iterator, Mapping

import torch

from harness.checkpoints.linear import QuantizedLinear
from harness.quantization.divergence import check_finite, errors_named
from harness.quantization.hessians import LayerStatistics
from harness.quantization.layer_reports import LayerReport
from harness.quantization.walk import Walk
from methods.contracts.block import Block
from methods.contracts.problem import LayerProblem, Ranges
from methods.contracts.quantized_weight import QuantizedWeight
from methods.solving.linalg import layer_error
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import UniformWeight


def solve(
    walk: Walk, block: Block, statistics: Mapping[str, LayerStatistics], ranges: Mapping[str, Ranges]
) -> Iterator[LayerReport]:
    """Round the linears that `statistics` covers, and put the rounded ones into the block.

    Raises:
        SolveError: the solver raised.
        Diverged: it returned a weight that is not finite.
    """
    for path, entry in statistics.items():
        linear = block.module.get_submodule(path)
        weight = linear.weight.detach().float()
        problem = LayerProblem(weight, entry.hessian, walk.scheme, ranges.get(path))
        name = f"{block.name}.{path} {tuple(weight.shape)}"
        start = time.perf_counter()
        with errors_named(name):
            solution = walk.method.solver.solve(problem)
            rounded = solution.weight.dequantize()
        if weight.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        check_finite(rounded, f"{name}: {walk.method.name} returned weights that are not finite")
        quantized = QuantizedLinear(solution.weight, linear.bias, linear.weight.dtype)
        walk.source.replace_linear(block, path, quantized)
        yield LayerReport(
            layer=f"{block.name}.{path}",
            block=block.index,
            linear=path,
            out_features=weight.shape[0],
            in_features=weight.shape[1],
            error=layer_error(weight, rounded, entry.hessian, entry.energy),
            bits=bits_per_weight(quantized.packed, weight.numel()),
            outliers=float(solution.stats.get("outliers", 0.0)),
            seconds=seconds,
            damping=solution.stats.get("damping"),
            fallback="; ".join([*solution.fallbacks, *_unused(ranges.get(path), solution.weight)]) or None,
        )


def _unused(ranges: Ranges | None, weight: QuantizedWeight) -> list[str]:
    """What became of end points that a transform learned for a weight without a grid."""
    has_grid = isinstance(getattr(weight, "base", weight), UniformWeight)
    return [] if ranges is None or has_grid else ["the transform's end points are of no use to codebooks"]
