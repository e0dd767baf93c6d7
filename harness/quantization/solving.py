"""Rounding the linears of one block, whose statistics are known."""

import time
from collections.abc import Iterator, Mapping

import torch

from harness.checkpoints.linear import QuantizedLinear
from harness.quantization.blocks import BlockSource
from harness.quantization.divergence import Diverged, SolveError
from harness.quantization.hessians import LayerStatistics
from harness.quantization.layer_reports import LayerReport
from methods.contracts.block import Block
from methods.contracts.method import Method
from methods.contracts.problem import LayerProblem, Ranges
from methods.contracts.quantized_weight import QuantizedWeight
from methods.contracts.scheme import Scheme
from methods.solving.linalg import layer_error
from methods.weights.bits_per_weight import bits_per_weight
from methods.weights.stored import UniformWeight


def solve(
    source: BlockSource,
    block: Block,
    statistics: dict[str, LayerStatistics],
    method: Method,
    scheme: Scheme,
    ranges: Mapping[str, Ranges],
) -> Iterator[LayerReport]:
    """Round the linears that `statistics` covers, and put the rounded ones into the block."""
    for path, entry in statistics.items():
        linear = block.module.get_submodule(path)
        weight = linear.weight.detach().float()
        name = f"{block.name}.{path}"
        start = time.perf_counter()
        try:
            solution = method.solver.solve(LayerProblem(weight, entry.hessian, scheme, ranges.get(path)))
            rounded = solution.weight.dequantize()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise SolveError(f"{name} {tuple(weight.shape)}: {type(error).__name__}: {error}") from error
        if weight.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if not torch.isfinite(rounded.sum()):
            raise Diverged(
                f"{name} {tuple(weight.shape)}: {method.name} returned weights that are not finite"
            )
        quantized = QuantizedLinear(solution.weight, linear.bias, linear.weight.dtype)
        source.replace_linear(block, path, quantized)
        yield LayerReport(
            layer=name,
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
