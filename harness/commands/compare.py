"""Two runs side by side: `ptq-bench compare RUN_A RUN_B` prints what differs in configuration, metrics,
costs, layers and blocks.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.options import Options
from harness.foundation.errors import UserError
from harness.reporting.formats.terminal import print_tables
from harness.reporting.tables.comparison import compare
from harness.reporting.tables.run_lookup import find_run

EPILOG = """\
Differences and ratios say how B stands to A. Metrics are compared only under one protocol: paired bootstrap
over the same windows or items, 95 % intervals, p-values corrected after Holm for the number of metrics.
Perplexities are compared by their ratio.

Example:
  ptq-bench compare 62e58abc d5ffc29f --results results/demo
"""
RUN = "key, beginning of a key, or directory of a run (DIR/runs/KEY), which may lie in other results"


def main(argv: Sequence[str]) -> int:
    """Print the comparison.

    Raises:
        UserError: not two runs, an unknown option, or a run that is not there; the command line makes one
            line of it.
    """
    names, results = parse(argv)
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
    options = Options("compare", "Two runs side by side, from their records.", EPILOG)
    options.usage = "ptq-bench compare RUN_A RUN_B [--results DIR]"
    options.add_argument("runs", nargs="*", metavar="RUN", help=RUN)
    options.add_results("where runs left their records")
    chosen = options.parse_args(arguments)
    for name in chosen.runs:
        if "=" in name and not Path(name).is_dir():
            options.refuse(name)
    if (count := len(chosen.runs)) != 2:
        raise UserError(
            f"compare takes two runs, got {count}: keys, their beginnings, or directories of runs"
        )
    return chosen.runs, Path(chosen.results)
