"""The only loop over blocks: rewrite the block, gather statistics, round every linear, hand the activations
on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from harness.config.groups import DataConfig
from harness.quantization.batches import Batch, home_of, outputs_of
from harness.quantization.blocks import BlockSource
from harness.quantization.divergence import Diverged
from harness.quantization.hessian_cache import StatisticsCache
from harness.quantization.hessians import Groups, LayerStatistics, gather, gather_only
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.quantization.needs import Needs
from harness.quantization.resume import Resume
from harness.quantization.solving import solve
from harness.quantization.transforming import block_report, finish_, transform
from harness.quantization.tuning import solve_and_tune
from methods.blocks.activations import quantized_activations
from methods.contracts.block import Block
from methods.contracts.method import Method
from methods.contracts.problem import Ranges
from methods.contracts.scheme import Scheme

Note = Callable[[int, str], None]  # (index of the block at work, what a person wants to read)


def quantize(
    source: BlockSource,
    tokens: Callable[[], Tensor],
    method: Method,
    scheme: Scheme,
    data: DataConfig,
    cache: StatisticsCache,
    note: Note = lambda index, text: None,
    kept: Resume | None = None,
) -> Iterator[LayerReport | BlockReport]:
    """Quantize the blocks of `source` one after another, in place.

    Args:
        tokens: gives the (samples, window) calibration token ids; not called when `cache` holds all that is
            needed.
        cache: where statistics of the float model are kept; unused with propagate=quantized.
        kept: the blocks that a former attempt finished, which are taken over, and where finished ones go.

    Yields:
        A report for each linear, and one for its block where that was rewritten or measured.

    Raises:
        Diverged: activations or a rounded weight are not finite.
        SolveError: a solver, a transform or a tuning raised.
    """
    needs = Needs.of(method, scheme, data)
    known = not needs.activations and cache.complete()
    if kept and not kept.can_continue(len(source), streams=not known):
        kept.start_over()
    finished = kept.blocks if kept else 0
    batches = (
        []
        if known or finished == len(source)
        else _start(source, tokens, data, carries_float=needs.watched and not needs.shared)
    )
    if kept:
        kept.enter_(batches)
    try:
        for block in source:
            if block.index < finished:
                yield from kept.restore_(block)
                continue
            reports = []
            for report in _block(source, block, batches, method, scheme, data, cache, known, note):
                reports.append(report)
                yield report
            if kept:
                kept.keep(block, reports, batches if block.index + 1 < len(source) else [])
        if kept:
            kept.settle()
    finally:
        if kept:
            kept.wait()


def _block(
    source: BlockSource,
    block: Block,
    batches: list[Batch],
    method: Method,
    scheme: Scheme,
    data: DataConfig,
    cache: StatisticsCache,
    known: bool,
    note: Note,
) -> Iterator[LayerReport | BlockReport]:
    """Quantize one block and lead the batches through it; with `known`, its statistics come from the cache
    and there are none.
    """
    if known:
        yield from solve(source, block, cache.load(block), method, scheme, {})
        finish_(block, scheme, [])
        return
    needs = Needs.of(method, scheme, data)
    statistics, targets, done = {}, None, None
    if needs.shared and method.transform is None:
        statistics, targets = gather(block, batches, block.groups)
        cache.save(block, statistics)
    elif needs.watched:
        targets = outputs_of(block, batches, of_float=True)
    # what a tuning aims at
    own = outputs_of(block, batches) if needs.tuned and not needs.shared else targets
    if method.transform is not None:
        done = transform(block, batches, targets, method, scheme, note)
    ranges = done.found.ranges if done else {}
    if needs.shared:
        statistics = statistics or gather(block, batches, block.groups)[0]
        reports = solve(source, block, statistics, method, scheme, ranges)
    else:
        rounds = [[group] for group in block.groups] if data.true_sequential else [block.groups]
        reports = solve_in_rounds(source, block, batches, rounds, method, scheme, ranges, statistics)
    if method.tuning is None:
        yield from reports
    else:
        yield from solve_and_tune(source, block, method.tuning, scheme, batches, own, statistics, reports)
    finish_(block, scheme, batches)
    outputs = outputs_of(block, batches) if needs.watched or not needs.shared else targets
    if needs.watched:
        yield block_report(block, outputs, targets, done)
    advance(batches, targets if needs.shared else outputs, targets, block)


def _start(
    source: BlockSource, tokens: Callable[[], Tensor], data: DataConfig, carries_float: bool
) -> list[Batch]:
    """Everything that enters the first block, kept where it fits."""
    entries = source.capture(tokens(), data.batch_size)
    home = home_of([entry.hidden for entry in entries], copies=4 if carries_float else 2)
    return [
        Batch(hidden, entry.calls, hidden if carries_float else None)
        for entry in entries
        for hidden in [entry.hidden.to(home)]
    ]


def solve_in_rounds(
    source: BlockSource,
    block: Block,
    batches: list[Batch],
    rounds: Sequence[Groups],
    method: Method,
    scheme: Scheme,
    ranges: Mapping[str, Ranges],
    kept: dict[str, LayerStatistics],
) -> Iterator[LayerReport]:
    """Round some groups after others, each on what the rounded ones before it feed it; where the method
    tunes, statistics go to `kept`.
    """
    for groups in rounds:
        with quantized_activations(block, scheme):
            statistics = gather_only(block, batches, groups)
        if method.tuning is not None:
            kept |= statistics
        yield from solve(source, block, statistics, method, scheme, ranges)


def advance(batches: list[Batch], outputs: list[Tensor], targets: list[Tensor] | None, block: Block) -> None:
    """Let the next block see these outputs, and what the float model makes of them where that is carried
    along.
    """
    for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
        if not torch.isfinite(output.sum(dtype=torch.float64)):
            raise Diverged(
                f"{block.name}: output of calibration batch {number} is not finite; try model.dtype=float32 or bfloat16"
            )
        batch.hidden = output
        if batch.of_float is not None:
            batch.of_float = targets[number]
