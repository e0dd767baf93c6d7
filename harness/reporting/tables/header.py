"""The head of a report: what was run, on which model, calibrated on what, with which versions."""

from collections import Counter

import pandas as pd

from harness.foundation.text import visible
from harness.records.format import STATUSES
from harness.records.record import finite
from harness.reporting.frames import entries_of
from harness.reporting.labels import SEPARATOR, present, settings

MANY = 8  # of anything that is listed


def what_was_run(records: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """(subject, its entries) in the order of a report."""
    rows = entries_of(records)
    return [
        ("Runs", [runs_in_words(records)]),
        ("Model", _distinct(_model(record) for record in rows)),
        (
            "Calibration",
            _distinct(settings(record, "data") for record in rows if present(record.get("data.name"))),
        ),
        ("Evaluation", _distinct(settings(record, "eval") for record in rows)),
        ("Seed", [", ".join(_distinct(str(seed) for seed in records.get("seed", [])))]),
        ("Versions", [_versions(records)]),
    ]


def runs_in_words(records: pd.DataFrame) -> str:
    """How many there are, and how they ended."""
    counts = Counter(records["status"])
    by_status = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(records)} record{'s' * (len(records) != 1)}: {by_status}"


def models_in_words(records: pd.DataFrame) -> list[str]:
    """Their names, and what rankings on them are worth."""
    return _distinct(
        f"{record['model.name']}"
        + (f" (came with {bits:g}-bit weights: rankings from there on are no evidence)" if bits else "")
        for record in entries_of(records)
        for bits in [finite(record.get("model.source_bits"))]
    )


def _model(record: dict) -> str:
    """Name, origin and content, e.g. "smollm2-135m · id=asset:smollm2-135m · … · fingerprint 3f2a91bc"."""
    fingerprint = record.get("model.fingerprint")
    if present(fingerprint):
        record = record | {"model.fingerprint": str(fingerprint).removeprefix("sha256:")[:12]}
    return settings(record, "model")


def _versions(records: pd.DataFrame) -> str:
    """Every version; where records differ, all of them."""
    columns = sorted(name for name in records if name.startswith("versions."))
    found = {name: _distinct(str(value) for value in records[name] if present(value)) for name in columns}
    return SEPARATOR.join(
        f"{visible(name.removeprefix('versions.'))} {' / '.join(values)}"
        for name, values in found.items()
        if values
    )


def _distinct(texts) -> list[str]:
    """Sorted, each once, at most `MANY`."""
    found = sorted({visible(text) for text in texts})
    return found if len(found) <= MANY else [*found[:MANY], f"and {len(found) - MANY} more"]
