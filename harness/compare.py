"""Two runs side by side: `ptq-bench compare RUN_A RUN_B` prints what differs in configuration, metrics, costs, layers and blocks."""

import difflib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.foundation.errors import UserError
from harness.foundation.text import visible
from harness.reporting.comparison import Run, compare
from harness.reporting.frames import entries_of, load_records
from harness.reporting.terminal import print_tables

DEFAULTS = {"paths.results": "results"}
SHOWN = 4  # runs that a message about an ambiguous prefix names
HELP = """\
ptq-bench compare: two runs side by side, from their records

  ptq-bench compare RUN_A RUN_B [paths.results=DIR]

  RUN_A, RUN_B        a run key, the beginning of one, or the directory of a run (DIR/runs/KEY), which may lie in other results
  paths.results=DIR   where runs left their records (default: results)

Differences and ratios say how B stands to A. Metrics are compared only under one protocol: paired bootstrap over the same windows or
items, 95 % intervals, p-values corrected after Holm for the number of metrics. Perplexities are compared by their ratio.

Example:
  ptq-bench compare 62e58abc d5ffc29f paths.results=results/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison.

    Raises:
        UserError: not two runs, an unknown option, or a run that is not there; the command line makes one line of it.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    names, results = parse(arguments)
    a, b = (find_run(name, results) for name in names)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show − must not cost the comparison
    print_tables(compare(a, b))
    return 0


def parse(arguments: Sequence[str]) -> tuple[list[str], Path]:
    """The two runs asked for, and the results directory.

    Raises:
        UserError: other than two runs, or an option that is none.
    """
    options, names = dict(DEFAULTS), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or Path(argument).is_dir():
            names.append(argument)
        elif key not in options:
            raise UserError(f"unknown option {key!r}: known: {', '.join(options)}")
        elif not value:
            raise UserError(f"{key}: give it a value, e.g. {key}={DEFAULTS[key]}")
        else:
            options[key] = value
    if len(names) != 2:
        raise UserError(f"compare takes two runs, got {len(names)}: keys, beginnings of keys, or directories of runs (--help says more)")
    return names, Path(options["paths.results"])


def find_run(name: str, results: Path) -> Run:
    """The run that a key, the beginning of one or a directory names.

    Raises:
        UserError: there is none, or more than one.
    """
    if Path(name, "record.json").is_file():
        directory = Path(name).resolve()
        if directory.parent.name != "runs":
            raise UserError(f"{name}: a run lies in DIR/runs/KEY; this one does not lie in a directory called runs")
        return _choose(directory.name, directory.parent.parent, exact=True)
    return _choose(name, results, exact=False)


def _choose(name: str, results: Path, exact: bool) -> Run:
    records = load_records(results)
    runs = entries_of(records.frame)
    known = sorted({one["place"] for one in runs} | {one["run_key"] for one in runs})
    found = [one for one in runs if name in (one["place"], *(() if exact else (one["run_key"],)))]
    found = found or [one for one in runs if not exact and name and (one["place"].startswith(name) or one["run_key"].startswith(name))]
    if len(found) == 1:
        return Run(found[0], results / "runs" / found[0]["place"])
    if found:
        places = [one["place"] for one in found]
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        raise UserError(f"{name!r} begins {len(found)} runs: {', '.join(map(visible, places[:SHOWN]))}{more}; give more of the key")
    unusable = next((reason for place, reason in records.left_out if place.split("/")[1].startswith(name) and name), None)
    if unusable:
        raise UserError(f"run {name!r} below {results / 'runs'} cannot be used: {unusable}")
    if not known:
        raise UserError(f"no records below {results / 'runs'}; point paths.results=DIR at some")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(visible, close))}?" if close else f"there are {len(runs)}, e.g. {visible(known[0])}"
    raise UserError(f"no run {name!r} below {results / 'runs'}: {hint} (or point paths.results=DIR elsewhere)")
