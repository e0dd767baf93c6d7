"""A codebook."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Book:
    """A vector is centroids[code], or centroids[code] + residual[residual_code] where there are two stages."""

    centroids: Tensor  # (k, length)
    residual: Tensor | None  # (k2, length)

    @property
    def length(self) -> int:
        return self.centroids.shape[1]

    @property
    def stages(self) -> tuple[Tensor, ...]:
        return (self.centroids,) if self.residual is None else (self.centroids, self.residual)

    def shortened(self, length: int) -> "Book":
        """The first coordinates alone, for short vectors."""
        return Book(
            *(
                None if stage is None else stage[:, :length].contiguous()
                for stage in (self.centroids, self.residual)
            )
        )

    def decode(self, codes: tuple[Tensor, ...], rows: int) -> Tensor:
        """(columns, rows) from codes (columns, vectors) of each stage."""
        values = sum(stage[code] for stage, code in zip(self.stages, codes, strict=True))
        return values.reshape(len(values), -1)[:, :rows]
