"""`ptq-bench sync`: mirror finished runs into a tracker, from their files alone; runs that it already holds are left out."""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track

import conf
from harness.config.groups import TrackerConfig
from harness.config.run_config import typed
from harness.foundation.errors import UserError
from harness.quantization.layer_reports import BlockReport, LayerReport
from harness.tracking.marks import marked
from harness.tracking.story import Story
from harness.tracking.tracker import BACKENDS

console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(argv: list[str]) -> int:
    """Mirror what is missing; 1 if a run could not be mirrored."""
    arguments = _parser().parse_args(argv)
    tracker = tracker_config(arguments)
    directories = [path.parent for path in sorted(Path(arguments.results).glob("**/runs/*/record.json"))]
    if not directories:
        raise UserError(f"{arguments.results}: no finished run; another directory of results goes to --results DIR")
    todo = [directory for directory in directories if arguments.again or not marked(directory, tracker)]
    failed = 0
    for directory in track(todo, "mirroring", console=console, transient=True, disable=not console.is_terminal):
        try:
            replay(directory, tracker)
        except Exception as error:  # one run must not keep the others back
            failed += 1
            reason = " ".join(str(error).split())
            console.print(f"[red]failed[/] {directory}: {reason if isinstance(error, UserError) else f'{type(error).__name__}: {reason}'}")
    place = " ".join(filter(None, (tracker.name, tracker.mode)))
    console.print(f"{len(todo) - failed} runs mirrored to {place}, {len(directories) - len(todo)} already there, {failed} failed")
    if tracker.mode == "offline" and len(todo) > failed:
        console.print(f"upload them with: wandb sync {arguments.results}/runs/*/wandb/offline-run-*")
    return int(failed > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ptq-bench sync", description=__doc__)
    parser.add_argument("--results", default="results", help="directory whose runs are mirrored, at any depth (default: %(default)s)")
    parser.add_argument("--tracker", default="wandb", choices=sorted(BACKENDS), help="(default: %(default)s)")
    parser.add_argument("--mode", choices=["offline", "online"], help="of wandb (default: what conf/tracker says)")
    parser.add_argument("--project", help="(default: what conf/tracker says)")
    parser.add_argument("--entity", help="user or team of wandb")
    parser.add_argument("--group", help="put the runs into a group, e.g. the name of a sweep")
    parser.add_argument("--again", action="store_true", help="also runs that were mirrored before; they are overwritten")
    return parser


def tracker_config(arguments: argparse.Namespace) -> TrackerConfig:
    """`conf/tracker/<name>.yaml`, with what the command line says."""
    node = OmegaConf.to_container(OmegaConf.load(Path(conf.__file__).parent / "tracker" / f"{arguments.tracker}.yaml"))
    said = {name: getattr(arguments, name) for name in ("mode", "project", "entity", "group") if getattr(arguments, name) is not None}
    return typed(TrackerConfig, node | said, "tracker")


def replay(directory: Path, tracker: TrackerConfig) -> None:
    """Tell a tracker the run that lies in `directory`, as if it went on now.

    Raises:
        Exception: whatever the tracker raises, or the files of the run where they are damaged.
    """
    record = json.loads((directory / "record.json").read_text(encoding="utf-8"))
    story = Story(BACKENDS[tracker.name](), tracker)
    story.load()
    story.start(record, directory)
    for step, report in reports(directory):
        (story.layer if isinstance(report, LayerReport) else story.block)(step, report)
    story.finish()


def reports(directory: Path) -> Iterator[tuple[int, LayerReport | BlockReport]]:
    """What the walk over the blocks told, in its order: of each block its linears, then itself; with the number of linears so far."""
    layers = [LayerReport(**_fields(row, LayerReport)) for row in _rows(directory / "layers.parquet")]
    blocks = {row["block"]: _block_report(row) for row in _rows(directory / "blocks.parquet")}
    for step, layer in enumerate(layers, 1):
        yield step, layer
        if layer.block in blocks and (step == len(layers) or layers[step].block != layer.block):
            yield step, blocks[layer.block]


def _block_report(row: dict[str, Any]) -> BlockReport:
    stats = {name.removeprefix("stats."): value for name, value in row.items() if name.startswith("stats.") and value is not None}
    return BlockReport(**_fields(row, BlockReport), stats=stats)


def _fields(row: dict[str, Any], schema: type) -> dict[str, Any]:
    """The values of those fields of a dataclass that a table has; a run of an older version may lack some."""
    return {field.name: row.get(field.name) for field in fields(schema) if field.name not in ("stats", "losses")}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, None where it has no value."""
    if not path.exists():
        return []
    rows = pd.read_parquet(path).to_dict("records")
    return [{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()} for row in rows]
