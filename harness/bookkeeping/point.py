"""One point of a sweep: its configuration, its key, its directory, and where it stands in the store."""

from dataclasses import dataclass
from pathlib import Path

from harness.bookkeeping.token_ids import finished
from harness.config.run_config import RunConfig
from harness.records.format import FAILED
from harness.records.store import Store


@dataclass(frozen=True)
class Point:
    """One combination of overrides, with its configuration or with what is wrong with it."""

    overrides: tuple[str, ...]
    config: RunConfig | None = None
    key: str | None = None
    plain: dict | None = None  # what `config` was built from, for processes that run it
    error: str | None = None

    @property
    def directory(self) -> Path:
        return self._store.directory(self.key)

    @property
    def _store(self) -> Store:
        return Store(self.config.paths.results)

    def record(self) -> dict | None:
        return self._store.record(self.key)

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
        return finished(self._store, self.key, self.config)
