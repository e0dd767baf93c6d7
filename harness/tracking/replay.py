"""`ptq-bench sync`: mirror finished runs into a tracker, from their files alone; runs that it already holds
are left out.
"""

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from harness.config.groups import TrackerConfig
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.records import layout
from harness.records.record import read
from harness.tracking.story import Story
from harness.tracking.tracker import BACKENDS


def replay(directory: Path, tracker: TrackerConfig) -> None:
    """Tell a tracker the run that lies in `directory`, as if it went on now.

    Raises:
        Exception: whatever the tracker raises, or the files of the run where they are damaged.
    """
    record = read((directory / layout.RECORD).read_bytes())
    story = Story(BACKENDS[tracker.name](), tracker)
    story.load()
    story.start(record, directory)
    for step, report in reports(directory):
        (story.layer if isinstance(report, LayerReport) else story.block)(step, report)
    story.finish()


def reports(directory: Path) -> Iterator[tuple[int, LayerReport | BlockReport]]:
    """What the walk over the blocks told, in its order: of each block its linears, then itself; with the
    number of linears so far.
    """
    layers = [LayerReport(**_fields(row, LayerReport)) for row in _rows(directory / layout.LAYERS)]
    blocks = {row["block"]: _block_report(row) for row in _rows(directory / layout.BLOCKS)}
    for step, layer in enumerate(layers, 1):
        yield step, layer
        if layer.block in blocks and (step == len(layers) or layers[step].block != layer.block):
            yield step, blocks[layer.block]


def _block_report(row: dict[str, Any]) -> BlockReport:
    stats = {
        name.removeprefix("stats."): value
        for name, value in row.items()
        if name.startswith("stats.") and value is not None
    }
    return BlockReport(**_fields(row, BlockReport), stats=stats)


def _fields(row: dict[str, Any], schema: type) -> dict[str, Any]:
    """The values of those fields of a dataclass that a table has; a run of an older version may lack some."""
    return {
        field.name: row.get(field.name) for field in fields(schema) if field.name not in ("stats", "losses")
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, None where it has no value."""
    if not path.exists():
        return []
    rows = pd.read_parquet(path).to_dict("records")
    return [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in rows
    ]
