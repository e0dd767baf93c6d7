"""`ptq-bench sync`: mirror finished runs into a tracker."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track

from harness.commands.options import Options
from harness.config.compose import option
from harness.config.groups import TrackerConfig
from harness.config.run_config import typed
from harness.foundation.errors import UserError
from harness.records import layout
from harness.tracking.marks import marked
from harness.tracking.replay import replay
from harness.tracking.tracker import BACKENDS

console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(argv: list[str]) -> int:
    """Mirror what is missing; 1 if a run could not be mirrored."""
    arguments = _parser().parse_args(argv)
    tracker = tracker_config(arguments)
    directories = [
        path.parent for path in sorted(Path(arguments.results).glob(f"**/{layout.RUNS}/*/{layout.RECORD}"))
    ]
    if not directories:
        raise UserError(
            f"{arguments.results}: no finished run; another directory of results goes to --results DIR"
        )
    todo = [directory for directory in directories if arguments.again or not marked(directory, tracker)]
    failed, quiet = 0, not console.is_terminal
    for directory in track(todo, "mirroring", console=console, transient=True, disable=quiet):
        try:
            replay(directory, tracker)
        except Exception as error:  # one run must not keep the others back
            failed += 1
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            console.print(f"[red]failed[/] {directory}: {kind}{' '.join(str(error).split())}")
    mirror = " ".join(filter(None, (tracker.name, tracker.mode)))
    there = f"{len(directories) - len(todo)} already there"
    console.print(f"{len(todo) - failed} runs mirrored to {mirror}, {there}, {failed} failed")
    if tracker.mode == "offline" and len(todo) > failed:
        console.print(f"upload them with: wandb sync {arguments.results}/runs/*/wandb/offline-run-*")
    return int(failed > 0)


def _parser() -> Options:
    parser = Options("sync", "Mirror finished runs into a tracker: what it has not seen, once.")
    parser.add_results("directory whose runs are mirrored, at any depth")
    parser.add_argument("--tracker", default="wandb", choices=sorted(BACKENDS), help="(default: %(default)s)")
    parser.add_argument(
        "--mode", choices=["offline", "online"], help="of wandb (default: what conf/tracker says)"
    )
    parser.add_argument("--project", help="(default: what conf/tracker says)")
    parser.add_argument("--entity", help="user or team of wandb")
    parser.add_argument("--group", help="put the runs into a group, e.g. the name of a sweep")
    parser.add_argument(
        "--again", action="store_true", help="also runs that were mirrored before; they are overwritten"
    )
    return parser


def tracker_config(arguments: argparse.Namespace) -> TrackerConfig:
    """`conf/tracker/<name>.yaml`, with what the command line says."""
    options = {name: getattr(arguments, name) for name in ("mode", "project", "entity", "group")}
    said = {name: value for name, value in options.items() if value is not None}
    return typed(TrackerConfig, option("tracker", arguments.tracker) | said, "tracker")
