"""A method is a pair: a transform of the block (or none) and a solver of its linears."""

from dataclasses import dataclass

from methods.core.problem import LayerSolver


@dataclass(frozen=True)
class Method:
    """What `conf/method/<name>.yaml` describes. A solver of None leaves the weights as they are."""

    name: str
    solver: LayerSolver | None
