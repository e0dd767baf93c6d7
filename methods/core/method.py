"""A method is a solver of linears, with a tuning of the block afterwards (or none)."""

from dataclasses import dataclass

from methods.core.problem import LayerSolver
from methods.core.tuning import BlockTuning


@dataclass(frozen=True)
class Method:
    """What `conf/method/<name>.yaml` describes. A solver of None leaves the weights as they are."""

    name: str
    solver: LayerSolver | None
    tuning: BlockTuning | None = None  # once all linears of a block are rounded
