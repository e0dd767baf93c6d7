"""Reports, made from records alone: `ptq-bench report` writes tables, figures and verdicts in every format,
and prints the tables.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.foundation.errors import UserError, nearest_name
from harness.reporting.formats.terminal import print_first
from harness.reporting.writing import FORMATS, document_of, names_in, selected, target_of, write

DEFAULTS = {
    "paths.results": "results",
    "paths.reports": "reports",
    "name": "report",
    "table": "",
    "format": ",".join(FORMATS),
}
HELP = """\
ptq-bench report: tables, figures and verdicts from the records of finished runs, while a sweep runs or after it

  paths.results=DIR   where runs left their records (default: results)
  paths.reports=DIR   where to write (default: reports)
  name=NAME           the report is DIR/NAME/report.md, .html, .pdf, tables.tex, tables.csv and figures/ (default: report)
  table=NAME,...      only these tables of the papers, or FILE.yaml: one of your own (default: the whole report)
  format=FORMAT,...   md, html, pdf, tex, csv (default: all; pdf needs the package typst)

Tables:
{tables}

Examples:
  ptq-bench report paths.results=results name=demo
  ptq-bench report table=quantease-main format=pdf
"""


def main(argv: Sequence[str] | None = None) -> int:
    """`ptq-bench report [table=…] [format=…] [name=…] [paths.results=…] [paths.reports=…]`: write the report
    and print its tables.

    Raises:
        UserError: an unknown option, nothing to report on, or no place to write; the command line makes one
            line of it.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(HELP.format(tables=_known_tables()), end="")
        return 0
    options = parse(arguments)
    for key in ("table", "format"):
        if options[key] and not names_in(options[key]):
            raise UserError(
                f"{key}={options[key]}: names nothing; give it a value, e.g. {key}={DEFAULTS[key] or 'quantease-main'}"
            )
    table, name = options["table"], options["name"]
    if table and name == DEFAULTS["name"]:
        name = "-".join(Path(one).stem for one in names_in(table))
    formats = _formats(
        options["format"], asked="format" in {argument.partition("=")[0] for argument in arguments}
    )
    target = target_of(options["paths.reports"], name)
    document = document_of(
        selected(options["paths.results"], None), name, table, options["paths.results"], target
    )
    path = write(document, target, formats)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show † must not cost the report
    print_first(document, whole=not table)
    print(path.parent if len(formats) > 1 else path)
    return 0


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """key=value overrides of `DEFAULTS`.

    Raises:
        UserError: an argument is no override, or of an unknown key.
    """
    options = dict(DEFAULTS)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in options:
            hint = nearest_name(key, options, cutoff=0.5).replace("?", "=…?")
            hint = hint or f"known: {', '.join(options)}"
            raise UserError(f"unknown option {key!r}: {hint}")
        if not equals or not value:
            raise UserError(f"{key}: give it a value, e.g. {key}={DEFAULTS[key] or 'quantease-main'}")
        options[key] = value
    return options


def _formats(text: str, asked: bool) -> tuple[str, ...]:
    """The formats to write, each once, in our order; a pdf that nobody asked for is left out where nothing
    can typeset it.

    Raises:
        UserError: there is no such format.
    """
    wanted = names_in(text)
    for form in wanted:
        if form not in FORMATS:
            raise UserError(f"format={form!r}: choose among {', '.join(FORMATS)}")
    if not asked and "pdf" in wanted and not _can_typeset():
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
