"""What of the model a method needs besides its weights: the walk computes it, planning counts it."""

from dataclasses import dataclass

from harness.config.groups import DataConfig, Propagate
from methods.contracts.method import Method
from methods.contracts.scheme import ActRange, Scheme


@dataclass(frozen=True)
class Needs:
    """One flag for each reason to send the calibration text through the blocks."""

    shared: bool  # Hessians are the float model's (propagate=float), so runs can share them
    watched: (
        bool  # what the float model makes of every block: a transform aims at it, data.block_error compares
    )
    static: bool  # static ranges of activations are measured in the finished block
    tuned: bool  # a tuning aims at what the float block makes of its inputs

    @classmethod
    def of(cls, method: Method, scheme: Scheme, data: DataConfig) -> "Needs":
        return cls(
            shared=data.propagate is Propagate.float,
            watched=method.transform is not None or data.block_error,
            static=scheme.quantizes_activations and scheme.act_range is ActRange.tensor,
            tuned=method.tuning is not None,
        )

    @property
    def activations(self) -> bool:
        """Are hidden states needed even where all Hessians of the float model are on disk?"""
        return not self.shared or self.watched or self.static or self.tuned
