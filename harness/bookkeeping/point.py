"""One point of a sweep: its configuration, its key, its directory, and where it stands in the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.bookkeeping.keys import run_key
from harness.bookkeeping.token_ids import finished
from harness.config.run_config import RunConfig, from_plain
from harness.records.format import FAILED
from harness.records.store import Store


@dataclass(frozen=True)
class Point:
    """One combination of overrides, with its configuration or with what is wrong with it.

    Whoever has a point takes its key from it, so that a run has one key from the sweep to its record.
    """

    overrides: tuple[str, ...]
    config: RunConfig | None = None
    key: str | None = None
    plain: dict | None = None  # what `config` was built from, for processes that run it
    error: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The point of a configuration that is complete."""
        return cls((), config, run_key(config))

    @classmethod
    def of_plain(cls, plain: dict) -> Self:
        """The point of what `plain_config` gave, as it comes from another process."""
        config = from_plain(plain)
        return cls((), config, run_key(config), plain)

    @property
    def directory(self) -> Path:
        return self.store.directory(self.key)

    @property
    def store(self) -> Store:
        return Store(self.config.paths.results)

    def record(self) -> dict | None:
        return self.store.record(self.key)

    def status(self) -> str:
        """missing, or the status of the record."""
        record = self.record()
        return record["status"] if record else "missing"

    def settled(self, since: int | None = None) -> bool:
        """Is there nothing to do? A point that failed is settled unless retry=true, and then after an attempt
        later than `since`.
        """
        record = self.record()
        if record and record["status"] in FAILED:
            return not self.config.retry or (since is not None and record.get("attempt", 0) > since)
        return self.finished()

    def finished(self) -> bool:
        """Has it left everything that is asked of it, with the token ids of today?"""
        return finished(self.store, self.key, self.config)
