"""Learnable factors of seams, and the gradual mask under which their matrices grow from diagonals.

A site is a seam with the form of what is learned there. Its matrix is A = P ∘ GM (AffineQuant, arXiv
2403.12544, Eq. 6 to 9), where P starts as the identity and GM is 1 on the diagonal, the stability factor
where 0 < |i - j| <= share * size, and 0 beyond. The chain rule scales the gradients of P by the same mask.

Why a mask: every step needs the inverse, and a matrix whose diagonal outweighs the rest of each row has one
(Levy-Desplanques). So training begins with diagonals, and each epoch lets in more bands of off-diagonals,
held small by the stability factor: the matrix stays diagonally dominant, or near it, while it grows.

Where heads are rotated (RoPE), the rotated part of P is one scaling and turning [[a, -b], [b, a]] for each
pair (i, i + rotary / 2): these are the matrices that commute with the rotations by all positions. The mask
treats b as the entries they are, at the distance rotary / 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.blocks.rewriting import Factor
from methods.contracts.seams import MiddleSeam, NormSeam, QueryKeySeam, Seam, ValueSeam

DIAGONAL, WHOLE = 0.0, 1.0  # shares of the off-diagonals that are let in: none, all
SMALLEST = 1e-2  # of what a diagonal entry started with: below it the inverse explodes


@dataclass(frozen=True, eq=False)
class Site:
    """A seam, and whether a full matrix and a shift are learned there."""

    seam: Seam
    full: bool
    shift: bool

    @property
    def heads(self) -> tuple[int, ...]:
        """(heads,) of separate matrices, or () for one."""
        if isinstance(self.seam, ValueSeam):
            return (self.seam.value.count,)
        if isinstance(self.seam, QueryKeySeam) and self.seam.norms is None:
            return (self.seam.key.count,)
        return ()

    @property
    def size(self) -> int:
        """Rows of each matrix."""
        if isinstance(self.seam, NormSeam | MiddleSeam):
            return self.seam.width
        return (self.seam.value if isinstance(self.seam, ValueSeam) else self.seam.key).size

    @property
    def rotary(self) -> int:
        return self.seam.rotary if isinstance(self.seam, QueryKeySeam) else 0

    def identity(self, device: torch.device) -> dict[str, Tensor]:
        """The parameters, float32, of the factor that changes nothing."""
        rest = self.size - self.rotary
        ones = torch.ones(*self.heads, rest, device=device)
        parameters = {"matrix": torch.diag_embed(ones) if self.full else ones} if rest else {}
        if self.rotary:
            parameters["pairs"] = torch.ones(*self.heads, self.rotary // 2, device=device)
            if self.full:
                parameters["turns"] = torch.zeros_like(parameters["pairs"])
        if self.shift:
            parameters["shift"] = torch.zeros(*self.heads, self.size, device=device)
        return parameters

    def factor(self, parameters: Mapping[str, Tensor], share: float, stability: float) -> Factor:
        """What stands at the seam while `share` of the off-diagonals is let in, differentiably."""
        matrix = parameters.get("matrix")
        if self.full and matrix is not None:
            matrix = matrix * gradual_mask(matrix.shape[-1], share, stability, matrix)
        if self.rotary:
            matrix = self._with_pairs(parameters, matrix, share, stability)
        return Factor(matrix, parameters.get("shift"))

    def _with_pairs(
        self, parameters: Mapping[str, Tensor], rest: Tensor | None, share: float, stability: float
    ) -> Tensor:
        pairs = parameters["pairs"]
        if not self.full:
            return torch.cat([pairs, pairs, *([] if rest is None else [rest])], -1)
        let_in = stability if pairs.shape[-1] <= share * self.size else 0.0
        scaled, turned = torch.diag_embed(pairs), torch.diag_embed(let_in * parameters["turns"])
        rotated = torch.cat([torch.cat([scaled, -turned], -1), torch.cat([turned, scaled], -1)], -2)
        if rest is None:
            return rotated
        after, before = rest.shape[-1], rotated.shape[-1]
        return F.pad(rotated, (0, after, 0, after)) + F.pad(rest, (before, 0, before, 0))

    @torch.no_grad()
    def keep_invertible_(self, parameters: Mapping[str, Tensor]) -> None:
        """Hold the diagonal off zero, in place."""
        for name in parameters.keys() & {"matrix", "pairs"}:
            entries = parameters[name]
            diagonal = entries.diagonal(dim1=-2, dim2=-1) if name == "matrix" and self.full else entries
            diagonal.clamp_(min=SMALLEST)


def mask_schedule(epoch: int, epochs: int) -> float:
    """The share of the off-diagonals that the mask lets in during an epoch (from 1): e / E of Eq. 6, so all
    of them in the last.
    """
    return epoch / epochs


def gradual_mask(size: int, share: float, stability: float, like: Tensor) -> Tensor:
    """GM of Eq. 6, (size, size): 1 on the diagonal, `stability` in the bands let in, 0 elsewhere."""
    band = int(share * size + 1e-6)  # a share such as 0.29 may be a hair too small
    return like.new_full((size, size), stability).tril_(band).triu_(-band).fill_diagonal_(1.0)


def dominance_margin(matrix: Tensor) -> float:
    """min over rows of (|a_ii| - sum of the other |a_ij|) / |a_ii|; above 0 the matrix is invertible."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).abs()
    return ((2 * diagonal - matrix.abs().sum(-1)) / diagonal).min().item()


def condition(matrix: Tensor) -> float:
    """Largest condition number of these matrices in the 2-norm, computed in float64."""
    return torch.linalg.cond(matrix.double()).max().item()
