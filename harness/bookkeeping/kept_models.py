"""Quantized models that runs have kept: measuring one in another way costs no quantizing again.

What identifies such a model is a key of its own: the run key's without the evaluation. The config.yaml that
every run leaves is what its run key is the hash of, so both keys of any run, however old, can be told from
it, and what was edited since is no run's.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from transformers import PreTrainedModel

from harness.bookkeeping.costs import Clock
from harness.bookkeeping.keys import digest, quantized_key, quantized_key_of
from harness.bookkeeping.point import Point
from harness.bookkeeping.token_ids import CALIBRATION, token_ids
from harness.checkpoints import checkpoint
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.records import layout
from harness.records.record import Record, Results
from harness.records.store import Store

WALK = ("calibrate", "quantize", "transform")  # seconds that making the model took
OF_EVALUATION = {"metrics", "baseline", "reused", "seconds", "peak_memory_bytes", "token_ids", "family"}


@dataclass(frozen=True)
class KeptModel:
    """The quantized model of a run that is done, beside its record."""

    directory: Path  # of the run
    record: Record

    @property
    def key(self) -> str:
        return self.record["run_key"]

    def load(self, device: str) -> PreTrainedModel:
        return checkpoint.load(self.directory / layout.CHECKPOINT, device)[0]

    def hand_on(self, directory: Path, clock: Clock) -> dict:
        """What a record of the same model says of how it was made; tables of linears and blocks are copied to
        `directory`, and the seconds it took are counted, as those of an attempt before are.
        """
        for name in (layout.LAYERS, layout.BLOCKS):
            if (table := self.directory / name).exists():
                write_atomic(directory / name, table.read_bytes())
        for stage in WALK:
            if stage in self.record["seconds"]:
                clock.add(stage, self.record["seconds"][stage])
        made = Results.__annotations__.keys() - OF_EVALUATION
        return {name: self.record[name] for name in sorted(made & self.record.keys())}


def kept_model(point: Point, intact: bool = True) -> KeptModel | None:
    """The model of a point where another run of the same results directory has kept it, made of the token ids
    of today.

    Args:
        intact: read the whole checkpoint to see that it is as it was saved; else whoever loads it will.
    """
    if point.config.method.solver is None:
        return None
    manifests = sorted(point.store.runs.glob(f"*/{layout.CHECKPOINT}/{checkpoint.MANIFEST}"))
    donors = [manifest.parents[1] for manifest in manifests if manifest.parents[1].name != point.key]
    if not donors:
        return None
    wanted, today = quantized_key(point.config), token_ids(point.config)[CALIBRATION]
    for directory in donors:
        if key_of(directory) != wanted:
            continue
        record = _done(directory)
        if not record or (record.get("token_ids") or {}).get(CALIBRATION, today) != today:
            continue
        if not intact or checkpoint.is_intact(directory / layout.CHECKPOINT):
            return KeptModel(directory, record)
    return None


def key_of(directory: Path) -> str | None:
    """The key of the quantized model of a run; None where its config.yaml is not what the run was made of."""
    path = directory / layout.CONFIG
    try:
        return _key_of(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)  # every point of a sweep asks
def _key_of(path: Path, stamp: int) -> str | None:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(fields, dict) or digest(fields) != path.parent.name:
        return None
    return quantized_key_of(fields)


def _done(directory: Path) -> Record | None:
    try:
        record = Store(layout.results_of(directory)).record(directory.name)
    except UserError:
        return None
    return record if record and record["status"] == "done" else None
