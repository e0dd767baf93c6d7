"""The only loop over blocks: gather statistics, round every linear, hand the activations on."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from harness.blocks import BlockSource
from harness.config import DataConfig, Propagate
from harness.linear import QuantizedLinear
from harness.reports import Diverged, LayerReport, SolveError
from harness.statistics import Batch, Groups, LayerStatistics, StatisticsCache, gather, gather_only
from harness.tuning import solve_and_tune
from methods.core.block import Block
from methods.core.linalg import layer_error
from methods.core.method import Method
from methods.core.problem import LayerProblem
from methods.core.scheme import Scheme
from methods.core.weight import bits_per_weight


def quantize(
    source: BlockSource, tokens: Callable[[], Tensor], method: Method, scheme: Scheme, data: DataConfig, cache: StatisticsCache
) -> Iterator[LayerReport]:
    """Quantize the blocks of `source` one after another, in place.

    Args:
        tokens: gives the (samples, window) calibration token ids; not called when `cache` holds all that is needed.
        cache: where statistics of the float model are kept; unused with propagate=quantized.

    Raises:
        Diverged: activations or a rounded weight are not finite.
        SolveError: a solver raised.
    """
    share = data.propagate is Propagate.float
    tuning = method.tuning
    known = share and cache.complete() and tuning is None  # a block is tuned on activations, which are not kept
    batches = [] if known else [Batch(entry.hidden, entry.calls) for entry in source.capture(tokens(), data.batch_size)]
    for index, block in enumerate(source):
        if known:
            yield from solve(source, block, index, cache.load(index, block), method, scheme)
        elif share:
            statistics, outputs = gather(block, index, batches, block.groups)
            cache.save(index, block, statistics)
            reports = solve(source, block, index, statistics, method, scheme)
            yield from reports if tuning is None else solve_and_tune(source, block, index, tuning, batches, outputs, statistics, reports)
            advance(batches, outputs, block)
        else:
            statistics, targets = {}, [] if tuning is None else gather(block, index, batches, ())[1]
            rounds = [[group] for group in block.groups] if data.true_sequential else [block.groups]
            reports = solve_in_rounds(source, block, index, batches, rounds, method, scheme, statistics)
            yield from reports if tuning is None else solve_and_tune(source, block, index, tuning, batches, targets, statistics, reports)
            advance(batches, gather(block, index, batches, ())[1], block)


def solve_in_rounds(
    source: BlockSource,
    block: Block,
    index: int,
    batches: list[Batch],
    rounds: Sequence[Groups],
    method: Method,
    scheme: Scheme,
    kept: dict[str, LayerStatistics],
) -> Iterator[LayerReport]:
    """Round some groups after others, each on what the rounded ones before it feed it; where the method tunes, statistics go to `kept`."""
    for groups in rounds:
        statistics = gather_only(block, index, batches, groups)
        if method.tuning is not None:
            kept |= statistics
        yield from solve(source, block, index, statistics, method, scheme)


def advance(batches: list[Batch], outputs: list[Tensor], block: Block) -> None:
    """Let the next block see these outputs."""
    for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
        if not torch.isfinite(output.sum(dtype=torch.float64)):
            raise Diverged(f"{block.name}: output of calibration batch {number} is not finite; try model.dtype=float32 or bfloat16")
        batch.hidden = output


def solve(
    source: BlockSource, block: Block, index: int, statistics: dict[str, LayerStatistics], method: Method, scheme: Scheme
) -> Iterator[LayerReport]:
    """Round the linears that `statistics` covers, and put the rounded ones into the block."""
    for path, entry in statistics.items():
        linear = block.module.get_submodule(path)
        weight = linear.weight.detach().float()
        name = f"{block.name}.{path}"
        start = time.perf_counter()
        try:
            solution = method.solver.solve(LayerProblem(weight, entry.hessian, scheme))
            rounded = solution.weight.dequantize()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise SolveError(f"{name} {tuple(weight.shape)}: {type(error).__name__}: {error}") from error
        if weight.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if not torch.isfinite(rounded.sum()):
            raise Diverged(f"{name} {tuple(weight.shape)}: {method.name} returned weights that are not finite")
        quantized = QuantizedLinear(solution.weight, linear.bias, linear.weight.dtype)
        source.replace_linear(block, path, quantized)
        yield LayerReport(
            layer=name,
            block=index,
            linear=path,
            out_features=weight.shape[0],
            in_features=weight.shape[1],
            error=layer_error(weight, rounded, entry.hessian, entry.energy),
            bits=bits_per_weight(quantized.packed, weight.numel()),
            outliers=float(solution.stats.get("outliers", 0.0)),
            seconds=seconds,
            damping=solution.stats.get("damping"),
            fallback="; ".join(solution.fallbacks) or None,
        )
