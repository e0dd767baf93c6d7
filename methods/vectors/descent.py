"""Sweeps in which vectors of weights move to centroids: `methods.solving.descent` for codebooks.

With a triangular factor of the Hessian for feedback one sweep is the pass of VPTQ; with the Hessian itself
sweeps are coordinate descent. Sweeps run block by block: what lies outside a block reaches its targets
through one matrix product, what lies inside through the kernel.
"""

from dataclasses import dataclass
from math import lcm

import torch
from torch import Tensor

from methods.kernels.threads import over_rows
from methods.kernels.vector_feedback import NO_CODE, round_vectors
from methods.weights.book import Book


@dataclass(frozen=True)
class Span:
    """Neighbouring columns with one codebook."""

    start: int
    stop: int
    book: Book

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)

    def blocks(self, size: int) -> list[slice]:
        return [slice(first, min(first + size, self.stop)) for first in range(self.start, self.stop, size)]

    def no_codes(self, rows: int, device: torch.device) -> tuple[Tensor, ...]:
        shape = (self.stop - self.start, -(-rows // self.book.length))
        return tuple(torch.full(shape, NO_CODE, dtype=torch.int64, device=device) for _ in self.book.stages)


Codes = list[tuple[Tensor, ...]]  # of each span, of each of its stages: (columns, vectors) int64


@dataclass(frozen=True)
class Sweeper:
    """What a sweep needs but for the state it moves."""

    # (in, in): [k, j] is what a step of column j does to the target of column k; zero diagonal
    feedback: Tensor
    triangular: bool  # is it zero above the diagonal, too?
    spans: list[Span]  # cover the columns in order
    block_size: int
    beam: int

    @property
    def unit(self) -> int:
        """The fewest rows that hold whole vectors of every span."""
        return lcm(*(span.book.length for span in self.spans))

    def sweep(self, weight: Tensor, offset: Tensor, codes: Codes) -> int | Tensor:
        """One pass over all columns of some rows.

        Args:
            weight: (in, out), what the targets are anchored to.
            offset: (in, out), values - weight; updated. Zero for what is not yet rounded.
            codes: updated.

        Returns:
            How many values it moved.
        """
        moved, steps = 0, torch.empty_like(weight[: self.block_size])
        for span, held in zip(self.spans, codes, strict=True):
            for block in span.blocks(self.block_size):
                reach = slice(0, block.start if self.triangular else len(weight))
                pull = self.feedback[block, reach] @ offset[reach]
                own = tuple(code[block.start - span.start : block.stop - span.start] for code in held)
                state = weight[block], pull, offset[block], steps[: len(pull)], own
                moved += round_vectors(*state, self.feedback[block, block], span.book, self.beam)
        return moved

    def over_rows(self, weight: Tensor, offset: Tensor, codes: Codes, most: int) -> tuple[Tensor, Codes, int]:
        """Up to `most` sweeps, each slice of rows until none of it moves; (offset, codes, sweeps run)."""
        rows, unit = weight.shape[1], self.unit

        def some(units: slice) -> tuple[Tensor, Codes, int]:
            part = slice(unit * units.start, min(unit * units.stop, rows))
            mine, moves = weight[:, part].contiguous(), offset[:, part].contiguous()
            held = []
            for span, of_span in zip(self.spans, codes, strict=True):
                vectors = slice(part.start // span.book.length, -(-part.stop // span.book.length))
                held.append(tuple(code[:, vectors].contiguous() for code in of_span))
            for sweep in range(most):
                if self.sweep(mine, moves, held) == 0:
                    return moves, held, sweep + 1
            return moves, held, most

        offsets, held, sweeps = zip(*over_rows(some, -(-rows // unit), weight.device), strict=True)
        spans = (zip(*of_span, strict=True) for of_span in zip(*held, strict=True))
        joined = [tuple(torch.cat(stage, 1) for stage in of_span) for of_span in spans]
        return torch.cat(offsets, 1), joined, max(sweeps)

    def first_sweep(self, weight: Tensor) -> tuple[Tensor, Codes]:
        """Round everything once, from the weights themselves; (offset, codes)."""
        none = [span.no_codes(weight.shape[1], weight.device) for span in self.spans]
        return self.over_rows(weight, torch.zeros_like(weight), none, 1)[:2]
