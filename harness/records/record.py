"""What a run leaves in its record.json: a `Description` from before the run, its `Ending`, and its `Results`.

Values are as JSON has them; numbers that it lacks are the strings "inf", "-inf" and "nan".
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

from harness.records.protocol import Protocol, parse


@dataclass(frozen=True)
class Metric:
    """A number and what it takes to compare it with another.

    `value` is inf for the perplexity of a model that has diverged; `stderr` is None where it cannot be given
    (one window or item, a value that is not finite); `n` counts tokens scored or items asked.
    """

    value: float
    stderr: float | None
    protocol: Protocol
    n: int

    def entry(self) -> dict[str, Any]:
        """As records have it: the protocol as a sentence and in fields."""
        protocol = {"protocol": str(self.protocol), "protocol_fields": asdict(self.protocol)}
        return {"value": self.value, "stderr": self.stderr, "n": self.n} | protocol

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        """The metric of such an entry; it is enough if that has the sentence."""
        return cls(entry["value"], entry["stderr"], parse(entry["protocol"]), entry["n"])
