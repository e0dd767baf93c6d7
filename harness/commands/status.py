"""`ptq-bench status`: how far a sweep is, from any terminal, while it runs or after. `watch` draws the same
beside a sweep.
"""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from harness.commands.options import Options
from harness.foundation.errors import UserError
from harness.records.format import FAILED
from harness.records.standing import Plan, Standing, plans, standing
from harness.sweeps.progress_display import INTERVAL, overview

# seconds without a running point, after which --follow ends; between two points a sweep needs a few
IDLE = 10
WIDE = 200  # characters of a line that goes to a file


def main(argv: list[str]) -> int:
    """Show the state of every sweep of a results directory; 1 if a point failed."""
    arguments = _parser().parse_args(argv)
    results, console = (
        Path(arguments.results),
        Console(highlight=False, width=None if sys.stdout.isatty() else WIDE),
    )
    if not plans(results):
        raise UserError(f"{results}: no sweep and no run; another directory of results goes to --results DIR")
    states = _look(results)
    if arguments.follow and console.is_terminal:
        states = _follow(results, console)
    console.print(overview(states))
    return int(any(entry.state in FAILED for _, standings in states for entry in standings))


def _parser() -> Options:
    parser = Options("status", "How far a sweep is, from any terminal, while it runs or after.")
    parser.add_results("directory that the runs write to")
    parser.add_argument("--follow", action="store_true", help="draw anew until nothing runs any more")
    return parser


def _look(results: Path) -> list[tuple[Plan, list[Standing]]]:
    return [(plan, [standing(results, *point) for point in plan.points]) for plan in plans(results)]


def _follow(results: Path, console: Console) -> list[tuple[Plan, list[Standing]]]:
    """Draw until nothing has run for a while; returns the last look."""
    states, last = _look(results), time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while (
            any(entry.state in ("running", "waiting") for _, found in states for entry in found)
            and time.monotonic() - last < IDLE
        ):
            live.update(overview(states), refresh=True)
            time.sleep(2 * INTERVAL)
            states = _look(results)
            if any(entry.state == "running" for _, found in states for entry in found):
                last = time.monotonic()
    return states
