"""How a matrix is cut into tiles of rows and columns with one codebook each."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Tiling:
    """Columns here are in the order of rounding, and filled up to whole vectors."""

    rows: int
    rows_per_block: int
    length: int  # of a vector
    order: Tensor  # (vectors,): the vectors (by their place in the matrix) in the order of rounding
    groups: tuple[slice, ...]  # of columns
    columns: Tensor  # (in,): the matrix's columns in the order of rounding

    @property
    def row_blocks(self) -> int:
        return -(-self.rows // self.rows_per_block)

    def blocked(self, matrix: Tensor) -> Tensor:
        """(out, columns) -> (row_blocks, rows_per_block, vectors, length); rows that are not there are 0."""
        filled = pad(matrix, (0, 0, 0, self.row_blocks * self.rows_per_block - self.rows))
        return filled.view(self.row_blocks, self.rows_per_block, -1, self.length)

    def used(self, device: torch.device) -> Tensor:
        """(row_blocks, rows_per_block) bool: which rows are there."""
        rows = self.row_blocks * self.rows_per_block
        return (torch.arange(rows, device=device) < self.rows).view(self.row_blocks, -1)

    def group_index(self) -> Tensor:
        """(vectors,) the group of every vector of the matrix, in the matrix's order."""
        index = torch.empty_like(self.order)
        for number, group in enumerate(self.groups):
            index[self.order[group.start // self.length : group.stop // self.length]] = number
        return index
