"""Reports, made from records alone: `ptq-bench report` writes tables, figures and verdicts in every format, and prints the tables."""

import difflib
import io
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.reporting.document import Document
from harness.reporting.frames import Records, load_records
from harness.reporting.terminal import print_first, print_tables

__all__ = ["load_records", "main", "print_report", "write_report"]

FORMATS = {"md": "markdown", "html": "html", "pdf": "pdf", "tex": "latex", "csv": "csv_tables"}  # and the module that renders it
DEFAULTS = {"paths.results": "results", "paths.reports": "reports", "name": "report", "table": "", "format": ",".join(FORMATS)}
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


def write_report(
    results_dir: str | Path,
    reports_dir: str | Path,
    name: str = "report",
    select: Collection[str] | None = None,
    formats: Sequence[str] = tuple(FORMATS),
) -> Path:
    """Write the report reports_dir/name/ from the records below results_dir; the same records give the same bytes.

    Args:
        select: the run keys to report on; None: all.
        formats: of `FORMATS`.

    Returns:
        The Markdown file, or the first one written where Markdown was not asked for.

    Raises:
        UserError: there is no usable record, or the report cannot be written.
    """
    target = _target(reports_dir, name)
    return _write(_document(_selected(results_dir, select), name, "", results_dir, target), target, formats)


def print_report(results_dir: str | Path, select: Collection[str] | None = None) -> None:
    """Print the tables of a report on the terminal.

    Raises:
        UserError: there is no usable record.
    """
    from harness.reporting.tables import build_tables

    print_tables(build_tables(_selected(results_dir, select).frame))


def main(argv: Sequence[str] | None = None) -> int:
    """`ptq-bench report [table=…] [format=…] [name=…] [paths.results=…] [paths.reports=…]`: write the report and print its tables.

    Raises:
        UserError: an unknown option, nothing to report on, or no place to write; the command line makes one line of it.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(HELP.format(tables=_known_tables()), end="")
        return 0
    options = parse(arguments)
    for key in ("table", "format"):
        if options[key] and not _listed(options[key]):
            raise UserError(f"{key}={options[key]}: names nothing; give it a value, e.g. {key}={DEFAULTS[key] or 'quantease-main'}")
    table, name = options["table"], options["name"]
    if table and name == DEFAULTS["name"]:
        name = "-".join(Path(one).stem for one in _listed(table))
    formats = _formats(options["format"], asked="format" in {argument.partition("=")[0] for argument in arguments})
    target = _target(options["paths.reports"], name)
    document = _document(_selected(options["paths.results"], None), name, table, options["paths.results"], target)
    path = _write(document, target, formats)
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
            close = difflib.get_close_matches(key, options, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}=…?" if close else f"known: {', '.join(options)}"
            raise UserError(f"unknown option {key!r}: {hint}")
        if not equals or not value:
            raise UserError(f"{key}: give it a value, e.g. {key}={DEFAULTS[key] or 'quantease-main'}")
        options[key] = value
    return options


def _document(records: Records, name: str, table: str, results_dir: str | Path, target: Path) -> Document:
    from harness.reporting.assembly import full_document, table_document

    if table:
        return table_document(name, records, _specs(table), Path(results_dir), target)
    from harness.reporting.paper_tables import load_specs

    return full_document(name, records, load_specs(), Path(results_dir), target)


def _write(document: Document, target: Path, formats: Sequence[str]) -> Path:
    """Render the formats, and write one after the other; the path of the first file of the first format."""
    from harness.reporting.beside import at_once

    page = [form for form in formats if form == "html"]  # takes as long as all others together
    others = [form for form in formats if form != "html"]  # in this process: typst has threads, which a fork would lose
    made = at_once([partial(_rendered, document, part) for part in (page, others) if part])
    rendered = {form: files for part in made for form, files in part.items()}
    first: Path | None = None
    for form in formats:
        for file, content in rendered[form].items():
            path = target / file
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content)
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}; choose another place with paths.reports=DIR") from error
            first = first or path
    assert first is not None
    return first


def _rendered(document: Document, formats: Sequence[str]) -> dict[str, Mapping[str, bytes]]:
    return {form: import_module(f"harness.reporting.{FORMATS[form]}").render(document) for form in formats}


def _target(reports_dir: str | Path, name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UserError(f"name={name!r}: letters, digits, '.', '_' and '-' only, at most 100; it becomes the name of a directory")
    return Path(reports_dir) / name


def _formats(text: str, asked: bool) -> tuple[str, ...]:
    """The formats to write, each once, in our order; a pdf that nobody asked for is left out where nothing can typeset it.

    Raises:
        UserError: there is no such format.
    """
    wanted = _listed(text)
    for form in wanted:
        if form not in FORMATS:
            raise UserError(f"format={form!r}: choose among {', '.join(FORMATS)}")
    if not asked and "pdf" in wanted and not _can_typeset():
        wanted.remove("pdf")
        print("ptq-bench: no PDF: pip install 'ptq-bench[pdf]' for that", file=sys.stderr)
    return tuple(form for form in FORMATS if form in wanted)


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _can_typeset() -> bool:
    from importlib.util import find_spec

    return find_spec("typst") is not None


def _specs(table: str) -> dict:
    """The tables called NAME,… or FILE.yaml,….

    Raises:
        UserError: there is no such table.
    """
    from harness.reporting.paper_tables import load_spec, load_specs

    known, chosen = load_specs(), {}
    for name in _listed(table):
        if name in known:
            chosen[name] = known[name]
        elif name.endswith((".yaml", ".yml")):
            chosen[name] = load_spec(Path(name))
        else:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"table={name}: no such table in conf/report; {hint} A table of your own: table=FILE.yaml")
    return chosen


def _known_tables() -> str:
    from harness.reporting.paper_tables import load_specs

    specs = load_specs()
    width = max(map(len, specs), default=0)
    return "\n".join(f"  {name:<{width}}  {spec.title}" for name, spec in specs.items())


def _selected(results_dir: str | Path, select: Collection[str] | None) -> Records:
    """The records to report on.

    Raises:
        UserError: there is none.
    """
    records = load_records(results_dir)
    if select is not None and len(records.frame):
        frame = records.frame[records.frame["run_key"].isin(set(select))].reset_index(drop=True)
        missing = sorted(set(select) - set(frame["run_key"]))
        places = {f"runs/{key}" for key in missing} | {f"runs/{key}/record.json" for key in missing}
        left_out = [entry for entry in records.left_out if entry[0] in places]
        listed = {place.split("/")[1] for place, _ in left_out}
        unknown = [(f"runs/{key}", "not run yet") for key in missing if key not in listed]
        records = replace(records, frame=frame, left_out=(*left_out, *unknown))
    if not len(records.frame):
        found = f"{len(records.left_out)} unusable ones, first {': '.join(records.left_out[0])}; " if records.left_out else ""
        raise UserError(
            f"no records below {Path(results_dir) / 'runs'} ({found}make some with `ptq-bench run method=rtn scheme=w4`, "
            "or point paths.results=DIR at them)"
        )
    return records


if __name__ == "__main__":
    from harness.cli import main as command

    sys.exit(command(["report", *sys.argv[1:]]))
