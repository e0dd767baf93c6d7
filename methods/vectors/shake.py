"""Out of optima that no single move leaves: shake the targets a little, settle again, keep what is better.

Given the codebooks, blocks of rows that hold whole vectors are problems of their own. So one shake is a trial
for each of them at once, and each takes its better answer: the error never rises (iterated local search).
"""

import torch
from torch import Tensor

from methods.vectors.descent import Codes, Sweeper


def shake(sweeper: Sweeper, hessian: Tensor, weight: Tensor, offset: Tensor, codes: Codes,
          size: float, sweeps: int, generator: torch.Generator) -> tuple[Tensor, Codes]:  # fmt: skip
    """A sweep towards noisy weights, up to `sweeps` towards the true ones; (offset, codes), better rows.

    Args:
        hessian: (in, in), what errors are compared by.
        weight, offset: (in, out).
        size: deviation of the noise, relative to that of each column's offset.
        generator: of the CPU, so that every device shakes alike.
    """
    noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
    noise *= size * offset.square().mean(1, keepdim=True).sqrt()
    moved, moved_codes, _ = sweeper.over_rows(weight + noise, offset - noise, codes, 1)
    moved, moved_codes, _ = sweeper.over_rows(weight, moved + noise, moved_codes, sweeps)
    better = _block_errors(hessian, moved, sweeper.unit) < _block_errors(hessian, offset, sweeper.unit)
    rows = better.repeat_interleave(sweeper.unit)[: weight.shape[1]]
    better_codes = []
    for span, new, old in zip(sweeper.spans, moved_codes, codes, strict=True):
        vectors = better.repeat_interleave(sweeper.unit // span.book.length)[: new[0].shape[1]]
        pairs = zip(new, old, strict=True)
        better_codes.append(tuple(torch.where(vectors, after, before) for after, before in pairs))
    return torch.where(rows, moved, offset), better_codes


def _block_errors(hessian: Tensor, offset: Tensor, unit: int) -> Tensor:
    """offset^T H offset of every row, summed over blocks of `unit` rows."""
    errors = ((hessian @ offset) * offset).sum(0)
    return torch.nn.functional.pad(errors, (0, -len(errors) % unit)).view(-1, unit).sum(1)
