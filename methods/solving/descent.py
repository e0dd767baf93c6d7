"""Sweeps over the columns of a weight, each column moved to where the others want it: what GPTQ and QuantEase
share.

Column k has the target  weight_k + sum over j of feedback[k, j] * (value_j - weight_j)  and goes to its
nearest grid point. With the Hessian for feedback this is coordinate descent (QuantEase); with a triangular
factor of it, one sweep of the same is GPTQ.

A sweep runs block by block. What lies outside a block reaches its targets through one matrix product, what
lies inside through the feedback kernel; the numbers are those of the column-by-column algorithm. Blocks in
which few weights moved skip the product.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from methods.kernels.feedback import bind_round_block, is_compiled, push_steps, take_pushed
from methods.weights.grid import Grid

FEW_STEPS = 0.1  # share of a block's weights below which pushing its steps one by one beats a matrix product


class Matmul(Enum):
    """What matrix products of float32 are computed in, on a GPU that has both; a CPU knows only float32."""

    float32 = "float32"
    tf32 = "tf32"  # operands rounded to 10 bits of mantissa


@contextmanager
def products_in(matmul: Matmul, device: torch.device) -> Iterator[None]:
    """torch's switch, set for a few products and put back: whoever else multiplies in this process is not
    concerned.
    """
    if device.type != "cuda":
        yield
        return
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32" if matmul is Matmul.tf32 else "ieee"
    try:
        yield
    finally:
        backend.fp32_precision = before


@dataclass(frozen=True)
class Feedback:
    """What the columns do to each other's targets: [k, j] is what a step of column j does to the target of
    column k; zero diagonal.

    Of a Hessian no scaled copy is held: the parts that a sweep needs are scaled when their turn comes.
    """

    matrix: Tensor  # (in, in): the feedback itself, or a symmetric Hessian
    scale: Tensor | None = None  # (in,): then the feedback is scale_k * matrix_kj off the diagonal

    @classmethod
    def of_hessian(cls, hessian: Tensor) -> "Feedback":
        """That of coordinate descent, -H_kj / H_kk; no H_kk may be 0 (see `live_hessian`)."""
        return cls(hessian, -1 / torch.diagonal(hessian))

    def onto(self, block: slice, columns: slice) -> Tensor:
        """feedback[block, columns]; the columns hold all of the block or nothing of it."""
        part = self.matrix[block, columns]
        if self.scale is None:
            return part
        part = part * self.scale[block, None]
        torch.diagonal(part, block.start - columns.start).zero_()
        return part

    def effects(self, block: slice) -> Tensor:
        """feedback[:, block] turned, (columns of the block, in): kernels push steps along its rows."""
        if self.scale is None:
            return self.matrix[:, block].T.contiguous()
        part = self.matrix[block] * self.scale
        torch.diagonal(part, block.start).zero_()
        return part


def coupling(hessian: Tensor) -> Tensor:
    """The feedback of coordinate descent, -H_kj / H_kk off the diagonal; no entry of which may be 0 on it
    (see live_hessian).
    """
    return (hessian / -torch.diagonal(hessian)[:, None]).fill_diagonal_(0)


class Descent:
    """The state of some rows, turned: (in, out).

    `pull` holds feedback @ offset, and it has to be exact for a block when its turn comes. Why not keep it
    exact all the time: the steps of one block change the pull of all columns, which is a product of
    (in, block) by (block, out), and a sweep of such products costs as much as one with the whole feedback
    whether a thousand weights moved or one. Late sweeps move few. So a block that has had its turn

        moved few    pushes its steps to all columns at once, one row of the feedback for each, into `pushed`,
                     which the other blocks take when their turn comes
        moved many   leaves them `pending`, and every later block multiplies all pending ones, neighbours
                     together, when its own turn comes: then each product is done once, and only for columns
                     that still have to be exact

    Where all blocks are pending (the first sweeps) the pull is computed afresh, which costs the same and lets
    no rounding noise gather. A GPU pushes nothing: there the product is the cheaper of the two.
    """

    def __init__(
        self,
        weight: Tensor,
        values: Tensor,
        feedback: Feedback,
        grid: Grid,
        block_size: int,
        limits: Tensor | None = None,
    ):
        """
        Args:
            weight, values: (out, in), what the targets are anchored to and where the sweeps start.
            limits: (in,), how far rounding may move a column's targets; those it would move further stay as
                they are.
        """
        self.weight, self.feedback = weight.T.contiguous(), feedback
        self.offset = values.T.contiguous() - self.weight
        self.pull = torch.zeros_like(self.weight)
        self.steps = torch.zeros_like(self.weight)  # of each block's latest turn
        starts = range(0, len(self.weight), block_size)
        self.blocks = [slice(start, min(start + block_size, len(self.weight))) for start in starts]
        self.all = slice(0, len(self.weight))
        self.grids = [grid.only(block) for block in self.blocks]
        self.limits = limits
        self.turns: dict[tuple[int, bool], Callable[[], int | Tensor]] = {}
        self.pending = [False] * len(self.blocks)
        self.pushes = is_compiled(weight)
        self.pushed = torch.zeros_like(weight) if self.pushes else None
        # has anything been pushed to this block since its last turn?
        self.waiting = [False] * len(self.blocks)
        self.stale = [bool(self.offset.any())] * len(self.blocks)  # has its pull to be computed from scratch?

    @property
    def values(self) -> Tensor:
        """(out, in), within rounding noise of the grid after a rounded sweep."""
        return (self.weight + self.offset).T

    def sweep(
        self, rounded: bool, dither: tuple[Tensor, Tensor] | None = None, matmul: Matmul = Matmul.float32
    ) -> int | Tensor:
        """One pass over all columns; how many values it moved.

        Args:
            matmul: of the products between blocks. On a GPU every pull is computed afresh, so a float32 sweep
                heals TF32 ones before it.
            dither: (in,) and (out,), whose outer product is added to the targets of this pass. `reset` has to
                follow.
        """
        total = 0
        for index, block in enumerate(self.blocks):
            with products_in(matmul, self.weight.device):
                self._refresh(index, block)
            if dither is not None:
                self.pull[block].addr_(dither[0][block], dither[1])
            moved = self._turn(index, rounded)()
            self._spread(index, block, moved)
            total += moved
        return total

    def reset(self, weight: Tensor, values: Tensor, grid: Grid, pull: Tensor | None = None) -> None:
        """Go on from other values (out, in), on another grid, with the targets anchored to another weight.

        Args:
            pull: (out, in), feedback @ (values - weight), from a caller who has it.
        """
        self.weight.copy_(weight.T)
        torch.sub(values.T, self.weight, out=self.offset)
        self.regrid(grid)
        self.stale = [pull is None] * len(self.blocks)
        if pull is not None:
            self.pull.copy_(pull.T)
            self.pending, self.waiting = [False] * len(self.blocks), [False] * len(self.blocks)
            if self.pushes:
                self.pushed.zero_()

    def exact_pull(self) -> Tensor:
        """`pull` for all columns at once, (in, out), after a sweep."""
        for index, block in enumerate(self.blocks):
            self._take_pushed(index, block)
            for columns in self._pending_runs(index):
                self.pull[block].addmm_(self.feedback.onto(block, columns), self.steps[columns])
        self.pending = [False] * len(self.blocks)
        return self.pull

    def shift(self, change: Tensor) -> None:
        """Anchor the targets to the weight less `change` (out, in), mostly zeros, the values staying as they
        are; `pull` is exact.
        """
        turned = change.T.contiguous()
        self.weight -= turned
        self.offset += turned
        if self.pushes:
            for block in self.blocks:
                push_steps(self.pushed, turned[block], self.feedback.effects(block))
            self.waiting = [True] * len(self.blocks)
        else:
            for block in self.blocks:
                self.pull[block].addmm_(self.feedback.onto(block, self.all), turned)

    def regrid(self, grid: Grid) -> None:
        """Round to another grid from now on."""
        self.grids = [grid.only(block) for block in self.blocks]
        self.turns.clear()

    def _turn(self, index: int, rounded: bool) -> Callable[[], int | Tensor]:
        """What moves the columns of a block, prepared at its first turn."""
        if (index, rounded) not in self.turns:
            block, grid = self.blocks[index], self.grids[index] if rounded else None
            limits = None if self.limits is None else self.limits[block]
            tensors = (values[block] for values in (self.weight, self.pull, self.offset, self.steps))
            self.turns[index, rounded] = bind_round_block(
                *tensors, self.feedback.onto(block, block), grid, limits
            )
        return self.turns[index, rounded]

    def _spread(self, index: int, block: slice, moved: int | Tensor) -> None:
        """Push a block's steps to all columns if they are few, else leave them pending."""
        self.pending[index] = not (self.pushes and moved < FEW_STEPS * self.steps[block].numel())
        if not self.pending[index] and moved:
            push_steps(self.pushed, self.steps[block], self.feedback.effects(block))
            self.waiting = [True] * len(self.blocks)

    def _refresh(self, index: int, block: slice) -> None:
        """Make the pull on a block exact."""
        self._take_pushed(index, block)
        if all(self.pending) or self.stale[index]:
            self.stale[index] = False
            # afresh: no noise gathers
            torch.mm(self.feedback.onto(block, self.all), self.offset, out=self.pull[block])
            return
        for columns in self._pending_runs():
            self.pull[block].addmm_(self.feedback.onto(block, columns), self.steps[columns])

    def _take_pushed(self, index: int, block: slice) -> None:
        if self.waiting[index]:
            take_pushed(self.pull[block], self.pushed[:, block])
            self.waiting[index] = False

    def _pending_runs(self, first: int = 0) -> list[slice]:
        """Neighbouring pending blocks from `first` on, as one slice of columns each."""
        runs = []
        for block, pending in zip(self.blocks[first:], self.pending[first:], strict=True):
            if pending and runs and runs[-1].stop == block.start:
                runs[-1] = slice(runs[-1].start, block.stop)
            elif pending:
                runs.append(block)
        return runs
