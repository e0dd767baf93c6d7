"""The only loop over blocks: rewrite the block, gather statistics, round every linear, hand the activations
on.

The order of the work on one block is what its numbers depend on:

The targets come first, while the block is float: what the float model makes of the calibration text is what a
transform aims at and what the finished block is compared with. Rewriting comes before the Hessians, for these
are of what the linears read afterwards.

With propagate=float the next block sees what the float model made, so that its Hessians depend on no method
and no scheme: the runs of a sweep share them. With propagate=quantized it sees what the finished blocks made,
and its solver can make up for their errors; then the float model's hidden states go along in a second stream
where they are needed (`Batch.of_float`). Inside the block true_sequential says the same once more: every
group of linears is rounded on what the rounded groups before it feed it, at the price of a partial pass for
each group; else all Hessians are of the block before any of its linears was rounded.

Tuning and static ranges of activations come last: both are about the rounded block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from harness.quantization.batches import Batch, home_of, outputs_of
from harness.quantization.divergence import check_activations
from harness.quantization.hessians import LayerStatistics, gather, gather_only
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.quantization.resume import Resume
from harness.quantization.solving import solve
from harness.quantization.transforming import block_report, finish_, transform
from harness.quantization.tuning import solve_and_tune
from harness.quantization.walk import Walk
from methods.blocks.activations import quantized_activations
from methods.contracts.block import Block
from methods.contracts.problem import Ranges


def quantize(
    walk: Walk, tokens: Callable[[], Tensor], resume: Resume | None = None
) -> Iterator[LayerReport | BlockReport]:
    """Quantize the blocks of `walk.source` one after another, in place.

    Args:
        tokens: gives the (samples, window) calibration token ids; not called when `walk.cache` holds all that
            is needed.
        resume: the blocks that a former attempt finished, which are taken over, and where finished ones go.

    Yields:
        A report for each linear, and one for its block where that was rewritten or measured.

    Raises:
        UserError: activations of the float model are not finite.
        Diverged: those behind rounded weights, or a rounded weight, are not finite.
        SolveError: a solver, a transform or a tuning raised.
    """
    blocks = len(walk.source)
    known = not walk.needs.activations and walk.cache.complete()
    if resume and not resume.can_continue(blocks, streams=not known):
        resume.start_over()
    finished = resume.blocks if resume else 0
    batches = [] if known or finished == blocks else _start(walk, tokens)
    if resume:
        resume.enter_(batches)
    try:
        for block in walk.source:
            if block.index < finished:
                yield from resume.restore_(block)
                continue
            reports = []
            for report in _block(walk, block, batches):
                reports.append(report)
                yield report
            if resume:
                resume.keep(block, reports, batches if block.index + 1 < blocks else [])
        if resume:
            resume.settle()
    finally:
        if resume:
            resume.wait()


def _start(walk: Walk, tokens: Callable[[], Tensor]) -> list[Batch]:
    """Everything that enters the first block, kept where it fits."""
    carries_float = walk.needs.watched and not walk.needs.shared
    entries = walk.source.capture(tokens(), walk.data.batch_size)
    home = home_of([entry.hidden for entry in entries], copies=4 if carries_float else 2)
    return [
        Batch(hidden, entry.calls, hidden if carries_float else None)
        for entry in entries
        for hidden in [entry.hidden.to(home)]
    ]


def _block(walk: Walk, block: Block, batches: list[Batch]) -> Iterator[LayerReport | BlockReport]:
    """Quantize one block and lead the batches through it; without batches its statistics are in the cache,
    and nothing else is needed.
    """
    if not batches:
        yield from solve(walk, block, walk.cache.load(block), {})
        finish_(block, walk.scheme, [])
        return
    needs, statistics, targets, rewritten, tuned = walk.needs, {}, None, None, None
    if needs.shared and walk.method.transform is None:
        statistics, targets = gather(block, batches, block.groups)
        _check(statistics, block, of_float=True)
        walk.cache.save(block, statistics)
    elif needs.watched:
        targets = outputs_of(block, batches, of_float=True)
        _check_outputs(targets, block, of_float=True)
    own = outputs_of(block, batches) if needs.tuned and not needs.shared else targets
    if walk.method.transform is not None:
        rewritten = transform(walk, block, batches, targets)
    reports = _rounded(walk, block, batches, rewritten.result.ranges if rewritten else {}, statistics)
    if needs.tuned:
        tuned = yield from solve_and_tune(walk, block, batches, own, statistics, reports)
    else:
        yield from reports
    finish_(block, walk.scheme, batches)
    outputs = outputs_of(block, batches) if needs.watched or not needs.shared else targets
    if needs.watched:
        yield block_report(block, outputs, targets, rewritten, tuned)
    onward = targets if needs.shared else outputs
    _check_outputs(onward, block, of_float=needs.shared)
    _advance(batches, onward, targets)


def _rounded(
    walk: Walk,
    block: Block,
    batches: Sequence[Batch],
    ranges: Mapping[str, Ranges],
    statistics: dict[str, LayerStatistics],
) -> Iterator[LayerReport]:
    """Round the linears of a block, rewritten or not.

    Args:
        statistics: those of the block as it is, where they are shared and it was not rewritten; else empty,
            and filled here with what a tuning needs.
    """
    if walk.needs.shared:
        if not statistics:
            statistics |= gather(block, batches, block.groups)[0]
            _check(statistics, block, of_float=False)
        yield from solve(walk, block, statistics, ranges)
        return
    for groups in [[group] for group in block.groups] if walk.data.true_sequential else [block.groups]:
        with quantized_activations(block, walk.scheme):
            gathered = gather_only(block, batches, groups)
        _check(gathered, block, of_float=False)
        if walk.needs.tuned:
            statistics |= gathered
        yield from solve(walk, block, gathered, ranges)


def _check(statistics: Mapping[str, LayerStatistics], block: Block, of_float: bool) -> None:
    """See that the inputs of all linears are finite, before a method fails on them in its own way."""
    for path, gathered in statistics.items():
        dtype = block.module.get_submodule(path).weight.dtype
        check_activations(gathered.hessian, f"{block.name}.{path}: its inputs", dtype, of_float)


def _check_outputs(outputs: Sequence[Tensor], block: Block, of_float: bool) -> None:
    for number, output in enumerate(outputs):
        what = f"{block.name}: its outputs on calibration batch {number}"
        check_activations(output, what, output.dtype, of_float)


def _advance(batches: list[Batch], outputs: list[Tensor], targets: list[Tensor] | None) -> None:
    """Let the next block see these outputs, and what the float model makes of them where that is carried
    along.
    """
    for number, (batch, output) in enumerate(zip(batches, outputs, strict=True)):
        batch.hidden = output
        if batch.of_float is not None:
            batch.of_float = targets[number]
