"""Reports, made from records alone: `ptq-bench report` writes tables, figures and verdicts in every format,
and prints the tables.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.options import Options
from harness.foundation.errors import UserError
from harness.reporting.formats.terminal import print_first
from harness.reporting.writing import FORMATS, document_of, names_in, selected, target_of, write

EPILOG = """\
The report is DIR/NAME/report.md, .html, .pdf, tables.tex, tables.csv and figures/.

Tables:
{tables}

Examples:
  ptq-bench report --results results/demo --name demo
  ptq-bench report --table quantease-main --format pdf
"""
EXAMPLES = {"table": "quantease-main", "format": "md,html"}


def main(argv: Sequence[str]) -> int:
    """Write the report that the options ask for, and print its tables.

    Raises:
        UserError: an unknown option, nothing to report on, or no place to write; the command line makes one
            line of it.
    """
    options = _options().parse_args(argv)
    for name, example in EXAMPLES.items():
        text = getattr(options, name)
        if text is not None and not names_in(text):
            raise UserError(f"--{name} {text}: names nothing; give it a value, e.g. --{name} {example}")
    formats, table = _formats(options.format), options.table or ""
    name = options.name or "-".join(Path(file).stem for file in names_in(table)) or "report"
    target = target_of(options.reports, name)
    document = document_of(selected(options.results, None), name, table, options.results, target)
    path = write(document, target, formats)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show † must not cost the report
    print_first(document, whole=not table)
    print(path.parent if len(formats) > 1 else path)
    return 0


def _options() -> Options:
    what = "Tables, figures and verdicts from the records of finished runs, while a sweep runs or after it."
    options = Options("report", what, EPILOG.format(tables=_known_tables()))
    options.add_results("where runs left their records")
    options.add_argument(
        "--reports", default="reports", metavar="DIR", help="where to write (default: reports)"
    )
    options.add_argument("--name", help="of the report (default: report, or the names of its tables)")
    tables = "only these tables of the papers, or FILE.yaml: one of your own (default: the whole report)"
    options.add_argument("--table", metavar="NAME,...", help=tables)
    known = ", ".join(FORMATS)
    options.add_argument("--format", metavar="FORMAT,...", help=f"{known} (default: all; pdf needs typst)")
    return options


def _formats(text: str | None) -> tuple[str, ...]:
    """The formats to write, each once, in our order; None: all, but for a pdf where nothing can typeset it.

    Raises:
        UserError: there is no such format.
    """
    wanted = names_in(text) if text else list(FORMATS)
    for form in wanted:
        if form not in FORMATS:
            raise UserError(f"--format {form}: choose among {', '.join(FORMATS)}")
    if not text and not _can_typeset():
        wanted.remove("pdf")
        print("ptq-bench: no PDF: pip install 'ptq-bench[pdf]' for that", file=sys.stderr)
    return tuple(form for form in FORMATS if form in wanted)


def _can_typeset() -> bool:
    from importlib.util import find_spec

    return find_spec("typst") is not None


def _known_tables() -> str:
    from harness.reporting.papers.tables import load_specs

    specs = load_specs()
    width = max(map(len, specs), default=0)
    return "\n".join(f"  {name:<{width}}  {spec.title}" for name, spec in specs.items())
