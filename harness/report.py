"""Reports, made from records alone: `ptq-bench report` writes reports/<name>.md with its figure, and prints the tables."""

import difflib
import io
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import UserError
from harness.files import write_atomic
from harness.reporting.cells import Table
from harness.reporting.figures import PANELS, draw_figure
from harness.reporting.frames import Records, load_records
from harness.reporting.header import what_was_run
from harness.reporting.markdown import escape, markdown_table
from harness.reporting.tables import build_tables
from harness.reporting.terminal import print_tables

__all__ = ["load_records", "main", "print_report", "write_report"]

DEFAULTS = {"paths.results": "results", "paths.reports": "reports", "name": "report"}
HELP = """\
ptq-bench report: tables and a figure from the records of finished runs

  paths.results=DIR   where runs left their records (default: results)
  paths.reports=DIR   where to write (default: reports)
  name=NAME           the report is DIR/NAME.md with its figure DIR/NAME.png (default: report)

Example:
  ptq-bench report paths.results=results name=demo
"""
GUIDE = (
    "Every cell is a value, ± its standard error (with n=…: mean ± standard deviation over n seeds), and in brackets the "
    "difference to the float model. **Bold** is the best of its column, with everything that rounds to the same number. "
    "Columns are bits, after g the number of neighbouring weights that share a scale, after s the bits of the scales themselves; "
    "@ and the last line are the bits that are really stored, scales, offsets and outliers included. – was not run."
)


def write_report(results_dir: str | Path, reports_dir: str | Path, name: str = "report", select: Collection[str] | None = None) -> Path:
    """Write reports_dir/name.md and its figure from the records below results_dir; the same records give the same bytes.

    Args:
        select: the run keys to report on; None: all.

    Raises:
        UserError: there is no usable record, or the report cannot be written.
    """
    records = _selected(results_dir, select)
    return _write(records, build_tables(records.frame), Path(reports_dir), name)


def _write(records: Records, tables: Sequence[Table], reports_dir: Path, name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UserError(f"name={name!r}: letters, digits, '.', '_' and '-' only, at most 100; it becomes the name of a file")
    try:
        reports_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{reports_dir}: {error.strerror}; choose another place with paths.reports=DIR") from error
    figure = draw_figure(tables)
    if figure:
        write_atomic(reports_dir / f"{name}.png", figure)
    write_atomic(reports_dir / f"{name}.md", compose(name, records, tables, bool(figure)))
    return reports_dir / f"{name}.md"


def print_report(results_dir: str | Path, select: Collection[str] | None = None) -> None:
    """Print the tables of a report on the terminal.

    Raises:
        UserError: there is no usable record.
    """
    print_tables(build_tables(_selected(results_dir, select).frame))


def compose(name: str, records: Records, tables: Sequence[Table], with_figure: bool) -> str:
    """The Markdown of a report."""
    facts = [f"- **{subject}:** {'; '.join(map(escape, texts))}" for subject, texts in what_was_run(records.frame) if any(texts)]
    parts = [f"# Report: {escape(name)}\n", "\n".join(facts) + "\n"]
    if with_figure:
        parts.append(f"![Perplexity against stored bits per weight, one line per method]({name}.png)\n")
        panels = sum(table.kind == "perplexity" for table in tables)
        parts += [f"The figure shows {PANELS} of {panels} perplexity tables.\n"] if panels > PANELS else []
    parts.append(GUIDE + "\n")
    model = None
    for table in tables:
        if table.model != model:
            model = table.model
            parts.append(f"## {escape(model)}\n")
        parts.append(markdown_table(table))
    if records.left_out:
        lines = [f"- {escape(place)}: {escape(reason)}" for place, reason in records.left_out]
        parts.append("\n".join(["## Left out", "", *lines, ""]))
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """`ptq-bench report [paths.results=DIR] [paths.reports=DIR] [name=NAME]`: write the report and print its tables.

    Raises:
        UserError: an unknown option, nothing to report on, or no place to write; the command line makes one line of it.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    options = parse(arguments)
    records = _selected(options["paths.results"], None)
    tables = build_tables(records.frame)
    path = _write(records, tables, Path(options["paths.reports"]), options["name"])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show † must not cost the report
    print_tables(tables)
    print(path)
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
            raise UserError(f"{key}: give it a value, e.g. {key}={DEFAULTS[key]}")
        options[key] = value
    return options


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
