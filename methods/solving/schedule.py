"""Which sweeps of a descent round, which relax, and how precisely they multiply."""

from dataclasses import dataclass
from typing import Annotated

from methods.contracts.bounds import Count, CountOrZero, Within, check_bounds
from methods.solving.descent import Matmul

RelaxEvery = Annotated[int, Within(2, 10**6, "null for no relaxed sweeps")]


@dataclass(frozen=True)
class Schedule:
    """
    Sweeps are counted from 0. A relaxed one leaves the weights unrounded, so that they get away from points
    that no rounded step leaves; the last ones round, in float32, which heals what TF32 lost before.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    sweeps: CountOrZero  # passes over all columns
    relax_every: RelaxEvery | None  # of so many sweeps the second relaxes; None: all round
    settle: Count  # the last so many sweeps always round; the very last has to
    matmul: Matmul  # of all sweeps but those

    def __post_init__(self):
        check_bounds(self)

    def relaxes(self, sweep: int) -> bool:
        return self.relax_every is not None and sweep % self.relax_every == 1 and not self._settles(sweep)

    def precision(self, sweep: int) -> Matmul:
        """Of the products in this sweep."""
        return Matmul.float32 if self._settles(sweep) else self.matmul

    @property
    def last_relaxed(self) -> int:
        """-1 where none relaxes."""
        return max((sweep for sweep in range(self.sweeps) if self.relaxes(sweep)), default=-1)

    def _settles(self, sweep: int) -> bool:
        return sweep >= self.sweeps - self.settle
