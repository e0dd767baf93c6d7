"""Scales and zeros that are codes themselves: the second level of a two-level grid.

Dettmers et al.: SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight Compression, arXiv
2306.03078, section 4.1. Small groups of weights make their float16 scales a large part of what is stored; so
the scales of some neighbouring output rows, at one column group, are rounded to a small grid that these rows
share, and so are float zeros.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.weights.packing import pack, unpack


@dataclass(frozen=True)
class Levels:
    """Values (out, groups), each  offset + code * step  with the step and offset of its rows."""

    bits: int
    codes: Tensor  # (out, groups) uint8
    step: Tensor  # (ceil(out / rows), groups), storable
    offset: Tensor  # (ceil(out / rows), groups), storable
    rows: int  # neighbouring output rows that share a step and an offset

    def decode(self) -> Tensor:
        step, offset = (
            values.repeat_interleave(self.rows, 0)[: len(self.codes)] for values in (self.step, self.offset)
        )
        return offset + self.codes.to(step.dtype) * step

    def choices(self) -> Tensor:
        """What each value could be, (out, groups, 2^bits)."""
        codes = torch.arange(2**self.bits, dtype=self.step.dtype, device=self.step.device)
        every = self.offset[..., None] + codes * self.step[..., None]
        return every.repeat_interleave(self.rows, 0)[: len(self.codes)]

    def nearby(self) -> tuple[Tensor, Tensor]:
        """Up to eight neighbouring codes around each present one, and their values; (out, groups, codes)
        each.
        """
        first = (self.codes.long() - 4).clamp(0, max(2**self.bits - 8, 0))
        codes = first[..., None] + torch.arange(min(2**self.bits, 8), device=first.device)
        return codes.to(torch.uint8), self.choices().gather(-1, codes)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What is stored, under keys that begin with `name`."""
        return {
            f"{name}_codes": pack(self.codes, self.bits),
            f"{name}_step": stored(self.step),
            f"{name}_offset": stored(self.offset),
        }

    @classmethod
    def restore(
        cls,
        tensors: dict[str, Tensor],
        name: str,
        bits: int,
        rows: int,
        out_features: int,
        dtype: torch.dtype,
    ) -> "Levels":
        step, offset = (tensors[f"{name}_{part}"].to(dtype) for part in ("step", "offset"))
        groups = step.shape[1]
        codes = unpack(tensors[f"{name}_codes"], bits, out_features * groups).view(out_features, groups)
        return cls(bits, codes, step, offset, rows)

    @classmethod
    def joined(cls, parts: "list[Levels]", dim: int) -> "Levels":
        """The rows (dim 0) or the groups (dim 1) of all parts in one; rows in whole blocks but for the last
        part.
        """
        return replace(
            parts[0],
            **{
                name: torch.cat([getattr(part, name) for part in parts], dim)
                for name in ("codes", "step", "offset")
            },
        )


def fit_levels(values: Tensor, bits: int, rows: int) -> Levels:
    """The min-max grid of each `rows` neighbouring rows of (out, groups), and the nearest codes on it."""
    low, high = torch.aminmax(_blocks(values, rows), dim=1)
    within = 5e-4 * torch.maximum(low.abs(), high.abs())  # what float16 loses of the larger end
    step, offset = storable((high - low) / (2**bits - 1), within), storable(low, within)
    levels = Levels(bits, torch.zeros_like(values, dtype=torch.uint8), step, offset, rows)
    return replace(levels, codes=(levels.choices() - values[..., None]).abs().argmin(-1).to(torch.uint8))


def at_least(share: float, values: Tensor, rows: int) -> Tensor:
    """Non-negative values (out, groups), none below a share of the largest in its block of rows; 1 where all
    are 0.

    Beside much larger neighbours a scale could only be rounded to 0; weights so small are as well served by a
    coarser one.
    """
    largest = _blocks(values, rows).amax(1).repeat_interleave(rows, 0)[: len(values)]
    return torch.where(largest > 0, torch.maximum(values, share * largest), 1.0)


def _blocks(values: Tensor, rows: int) -> Tensor:
    """(blocks, rows, groups); the last row repeated where rows are missing."""
    missing = -len(values) % rows
    padded = torch.cat([values, values[-1:].expand(missing, -1)]) if missing else values
    return padded.reshape(-1, rows, values.shape[1])


def stored(values: Tensor) -> Tensor:
    """In float16 where that represents every value exactly, else in float32."""
    half = values.to(torch.float16)
    return half if torch.equal(half.to(values.dtype), values) else values.to(torch.float32)


def storable(values: Tensor, within: Tensor | None = None) -> Tensor:
    """Round to float16 where that moves no value by more than `within` (default: 1 % of itself), else to
    float32; dtype unchanged.

    One matrix is stored in one dtype, so a single tiny or huge entry takes all of them to float32.
    """
    rounded = values.to(torch.float16).to(values.dtype)
    # false for overflow to inf
    fits = ((rounded - values).abs() <= (0.01 * values.abs() if within is None else within)).all()
    return values.to(torch.float16 if fits else torch.float32).to(values.dtype)


def storable_together(values: Tensor) -> Tensor:
    """The same for values that are added up: what float16 loses is judged by the largest of them."""
    return storable(values, within=5e-4 * values.abs().amax()) if values.numel() else values
