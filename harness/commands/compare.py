"""Two runs side by side: `ptq-bench compare RUN_A RUN_B` prints what differs in configuration, metrics,
costs, layers and blocks.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.foundation.errors import UserError
from harness.records.lookup import find_run
from harness.reporting.formats.terminal import print_tables
from harness.reporting.tables.comparison import compare

DEFAULTS = {"paths.results": "results"}
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
        UserError: not two runs, an unknown option, or a run that is not there; the command line makes one
            line of it.
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
        raise UserError(
            f"compare takes two runs, got {len(names)}: keys, beginnings of keys, or directories of runs (--help says more)"
        )
    return names, Path(options["paths.results"])
