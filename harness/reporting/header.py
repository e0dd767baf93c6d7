"""The head of a report: what was run, on which model, calibrated on what, with which versions."""

from collections import Counter

import pandas as pd

from harness.reporting.frames import STATUSES, entries_of
from harness.reporting.labels import SEPARATOR, present, settings, visible

MANY = 8  # of anything that is listed


def what_was_run(records: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """(subject, its entries) in the order of a report."""
    rows = entries_of(records)
    return [
        ("Runs", [_runs(records)]),
        ("Model", _distinct(_model(record) for record in rows)),
        ("Calibration", _distinct(settings(record, "data") for record in rows if present(record.get("data.name")))),
        ("Evaluation", _distinct(settings(record, "eval") for record in rows)),
        ("Seed", [", ".join(_distinct(str(seed) for seed in records.get("seed", [])))]),
        ("Versions", [_versions(records)]),
    ]


def _runs(records: pd.DataFrame) -> str:
    counts = Counter(records["status"])
    by_status = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(records)} record{'s' * (len(records) != 1)}: {by_status}"


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
    return SEPARATOR.join(f"{visible(name.removeprefix('versions.'))} {' / '.join(values)}" for name, values in found.items() if values)


def _distinct(texts) -> list[str]:
    """Sorted, each once, at most `MANY`."""
    found = sorted({visible(text) for text in texts})
    return found if len(found) <= MANY else [*found[:MANY], f"and {len(found) - MANY} more"]
