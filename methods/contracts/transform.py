"""Transforms rewrite a block into one that computes the same and is easier to round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from methods.contracts.block import Block
from methods.contracts.problem import Ranges
from methods.contracts.scheme import Scheme
from methods.contracts.seams import Seam
from methods.contracts.tuning import Sample

# (steps done, steps in all, what a person wants to read beside the bar)
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Transformed:
    """What a transform found besides the rewritten block."""

    # learned end points, by path of the linear; absent: the scheme's rule
    ranges: Mapping[str, Ranges] = field(default_factory=dict)
    # for the record, e.g. loss_before, loss_after, margin, condition
    stats: Mapping[str, float] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()  # anything done instead of what was asked, in words


class BlockTransform(Protocol):
    """Rewrites one block in place, preserving its function. Deterministic in block and samples."""

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        """Why this scheme, or a block with these seams, makes no sense for this transform, or None."""
        ...

    def apply_(self, block: Block, samples: Sequence[Sample], scheme: Scheme, watch: Watch) -> Transformed:
        """
        Args:
            block: float, in the model's dtype; its seams say what may be rewritten.
            samples: what goes into it, and what the float model makes of it.
            scheme: how the block will be rounded afterwards.
            watch: called now and then with the progress.
        """
        ...
