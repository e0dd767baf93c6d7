"""A method is a solver of linears, with a transform of the block before it and a tuning of the block after it
(or none).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from methods.contracts.problem import LayerSolver
from methods.contracts.scheme import Scheme
from methods.contracts.seams import Seam
from methods.contracts.transform import BlockTransform
from methods.contracts.tuning import BlockTuning


@dataclass(frozen=True)
class Method:
    """What `conf/method/<name>.yaml` describes. A solver of None leaves the weights as they are."""

    name: str
    solver: LayerSolver | None
    transform: BlockTransform | None = None
    tuning: BlockTuning | None = None  # once all linears of a block are rounded

    def skip_reason(self, scheme: Scheme, seams: Sequence[Seam]) -> str | None:
        """Why this scheme, or a model whose blocks have these seams, makes no sense for it, or None."""
        if self.solver is None:
            return None
        return self.solver.skip_reason(scheme) or (
            self.transform and self.transform.skip_reason(scheme, seams)
        )
