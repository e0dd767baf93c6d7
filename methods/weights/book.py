"""A codebook."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Book:
    """A vector is centroids[code], or with two stages centroids[code] + residual[residual_code]."""

    centroids: Tensor  # (k, length)
    residual: Tensor | None  # (k2, length)

    @classmethod
    def of(cls, stages: Sequence[Tensor]) -> "Book":
        """From the centroids of one stage, or of two."""
        return cls(stages[0], stages[1] if len(stages) > 1 else None)

    @property
    def length(self) -> int:
        return self.centroids.shape[1]

    @property
    def stages(self) -> tuple[Tensor, ...]:
        return (self.centroids,) if self.residual is None else (self.centroids, self.residual)

    def shortened(self, length: int) -> "Book":
        """The first coordinates alone, for short vectors."""
        return Book.of([stage[:, :length].contiguous() for stage in self.stages])

    def decode(self, codes: tuple[Tensor, ...], rows: int) -> Tensor:
        """(columns, rows) from codes (columns, vectors) of each stage."""
        values = sum(stage[code] for stage, code in zip(self.stages, codes, strict=True))
        return values.reshape(len(values), -1)[:, :rows]
