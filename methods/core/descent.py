"""Sweeps over the columns of a weight, each column moved to where the others want it: what GPTQ and QuantEase share.

Column k has the target  weight_k + sum over j of feedback[k, j] * (value_j - weight_j)  and goes to its nearest grid point. With
the Hessian for feedback this is coordinate descent (QuantEase); with a triangular factor of it, one sweep of the same is GPTQ.

A sweep runs block by block. What lies outside a block reaches its targets through one matrix product, what lies inside through the feedback
kernel; the numbers are those of the column-by-column algorithm. Blocks in which few weights moved skip the product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.core.grid import Grid
from methods.kernels.feedback import bind_round_block, is_compiled, push_steps, take_pushed

FEW_STEPS = 0.1  # share of a block's weights below which pushing its steps one by one beats a matrix product


@dataclass(frozen=True)
class Feedback:
    """What the columns do to each other's targets, read along rows both ways."""

    matrix: Tensor  # (in, in): [k, j] is what a step of column j does to the target of column k; zero diagonal
    turned: Tensor  # its transpose, a copy where kernels push steps along its rows

    @classmethod
    def of(cls, matrix: Tensor) -> "Feedback":
        return cls(matrix, matrix.T.contiguous() if is_compiled(matrix) else matrix.T)


class Descent:
    """The state of some rows, turned: (in, out).

    `pull` holds feedback @ offset. It is exact for a block when its turn comes; until then the steps of a block where few weights
    moved have been pushed to all columns at once, into `pushed`, while those of a block where many moved (`pending`) wait for the
    matrix product.
    """

    def __init__(self, weight: Tensor, values: Tensor, feedback: Feedback, grid: Grid, block_size: int):
        """weight, values: (out, in), what the targets are anchored to and where the sweeps start."""
        self.weight, self.feedback, self.effects = weight.T.contiguous(), feedback.matrix, feedback.turned
        self.offset = values.T.contiguous() - self.weight
        self.pull = self.feedback @ self.offset if self.offset.any() else torch.zeros_like(self.weight)
        self.steps = torch.zeros_like(self.weight)  # of each block's latest turn
        starts = range(0, len(self.weight), block_size)
        self.blocks = [slice(start, min(start + block_size, len(self.weight))) for start in starts]
        self.grids = [grid.columns(block) for block in self.blocks]
        self.turns: dict[tuple[int, bool], Callable[[], int | Tensor]] = {}
        self.pending = [False] * len(self.blocks)
        self.pushes = is_compiled(weight)
        self.pushed = torch.zeros_like(weight) if self.pushes else None
        self.waiting = [False] * len(self.blocks)  # has anything been pushed to this block since its last turn?

    @property
    def values(self) -> Tensor:
        """(out, in), within rounding noise of the grid after a rounded sweep."""
        return (self.weight + self.offset).T

    def sweep(self, rounded: bool) -> int | Tensor:
        """One pass over all columns; how many values it moved."""
        total = 0
        for index, block in enumerate(self.blocks):
            self._refresh(index, block)
            moved = self._turn(index, rounded)()
            self._spread(index, block, moved)
            total += moved
        return total

    def _turn(self, index: int, rounded: bool) -> Callable[[], int | Tensor]:
        """What moves the columns of a block, prepared at its first turn."""
        if (index, rounded) not in self.turns:
            block, grid = self.blocks[index], self.grids[index] if rounded else None
            tensors = (values[block] for values in (self.weight, self.pull, self.offset, self.steps))
            self.turns[index, rounded] = bind_round_block(*tensors, self.feedback[block, block], grid)
        return self.turns[index, rounded]

    def _spread(self, index: int, block: slice, moved: int | Tensor) -> None:
        """Push a block's steps to all columns if they are few, else leave them pending."""
        self.pending[index] = not (self.pushes and moved < FEW_STEPS * self.steps[block].numel())
        if not self.pending[index] and moved:
            push_steps(self.pushed, self.steps[block], self.effects[block])
            self.waiting = [True] * len(self.blocks)

    def _refresh(self, index: int, block: slice) -> None:
        """Make the pull on a block exact."""
        if self.waiting[index]:
            take_pushed(self.pull[block], self.pushed[:, block])
            self.waiting[index] = False
        if all(self.pending):
            torch.mm(self.feedback[block], self.offset, out=self.pull[block])  # from scratch, so that no rounding noise gathers
            return
        for columns in self._pending_runs():
            self.pull[block].addmm_(self.feedback[block, columns], self.steps[columns])

    def _pending_runs(self) -> list[slice]:
        """Neighbouring pending blocks, as one slice of columns each."""
        runs = []
        for block, pending in zip(self.blocks, self.pending, strict=True):
            if pending and runs and runs[-1].stop == block.start:
                runs[-1] = slice(runs[-1].start, block.stop)
            elif pending:
                runs.append(block)
        return runs
