"""From records to files: the document of a report, rendered and written in every format."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from harness.foundation.did_you_mean import nearest_name
from harness.foundation.errors import UserError
from harness.foundation.files import write_atomic
from harness.records import layout
from harness.reporting.document import Document
from harness.reporting.formats.terminal import print_tables
from harness.reporting.frames import Records, load_records

# and the module that renders it
FORMATS = {"md": "markdown", "html": "html", "pdf": "pdf", "tex": "latex", "csv": "csv_tables"}


def write_report(
    results_dir: str | Path,
    reports_dir: str | Path,
    name: str = "report",
    select: Collection[str] | None = None,
    formats: Sequence[str] = tuple(FORMATS),
) -> Path:
    """Write the report reports_dir/name/ from the records below results_dir; the same records give the same
    bytes.

    Args:
        select: the run keys to report on; None: all.
        formats: of `FORMATS`.

    Returns:
        The Markdown file, or the first one written where Markdown was not asked for.

    Raises:
        UserError: there is no usable record, or the report cannot be written.
    """
    target = target_of(reports_dir, name)
    return write(document_of(selected(results_dir, select), name, "", results_dir, target), target, formats)


def print_report(results_dir: str | Path, select: Collection[str] | None = None) -> None:
    """Print the tables of a report on the terminal.

    Raises:
        UserError: there is no usable record.
    """
    from harness.reporting.tables.all_numbers import build_tables

    print_tables(build_tables(selected(results_dir, select).frame))


def document_of(records: Records, name: str, table: str, results_dir: str | Path, target: Path) -> Document:
    from harness.reporting.assembly import full_document, table_document

    if table:
        return table_document(name, records, _specs(table), Path(results_dir), target)
    from harness.reporting.papers.tables import load_specs

    return full_document(name, records, load_specs(), Path(results_dir), target)


def write(document: Document, target: Path, formats: Sequence[str]) -> Path:
    """Render the formats, and write one after the other; the path of the first file of the first format."""
    from harness.reporting.parallel import at_once

    page = [form for form in formats if form == "html"]  # takes as long as all others together
    # in this process: typst has threads, which a fork would lose
    others = [form for form in formats if form != "html"]
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
                raise UserError(
                    f"{path}: {error.strerror}; choose another place with paths.reports=DIR"
                ) from error
            first = first or path
    assert first is not None
    return first


def _rendered(document: Document, formats: Sequence[str]) -> dict[str, Mapping[str, bytes]]:
    return {
        form: import_module(f"harness.reporting.formats.{FORMATS[form]}").render(document) for form in formats
    }


def target_of(reports_dir: str | Path, name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UserError(
            f"name={name!r}: letters, digits, '.', '_' and '-' only, at most 100; "
            "it becomes the name of a directory"
        )
    return Path(reports_dir) / name


def names_in(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _specs(table: str) -> dict:
    """The tables called NAME,… or FILE.yaml,….

    Raises:
        UserError: there is no such table.
    """
    from harness.reporting.papers.tables import load_spec, load_specs

    known, chosen = load_specs(), {}
    for name in names_in(table):
        if name in known:
            chosen[name] = known[name]
        elif name.endswith((".yaml", ".yml")):
            chosen[name] = load_spec(Path(name))
        else:
            hint = nearest_name(name, known, cutoff=0.4) or f"known: {', '.join(known)}"
            raise UserError(
                f"table={name}: no such table in conf/report; {hint} A table of your own: table=FILE.yaml"
            )
    return chosen


def selected(results_dir: str | Path, select: Collection[str] | None) -> Records:
    """The records to report on.

    Raises:
        UserError: there is none.
    """
    records = load_records(results_dir)
    if select is not None and len(records.frame):
        frame = records.frame[records.frame["run_key"].isin(set(select))].reset_index(drop=True)
        missing = sorted(set(select) - set(frame["run_key"]))
        places = {f"{layout.RUNS}/{key}{file}" for key in missing for file in ("", f"/{layout.RECORD}")}
        left_out = [entry for entry in records.left_out if entry[0] in places]
        listed = {place.split("/")[1] for place, _ in left_out}
        unknown = [(f"{layout.RUNS}/{key}", "not run yet") for key in missing if key not in listed]
        records = replace(records, frame=frame, left_out=(*left_out, *unknown))
    if not len(records.frame):
        unusable = records.left_out
        first = f"{len(unusable)} unusable ones, first {': '.join(unusable[0])}; " if unusable else ""
        raise UserError(
            f"no records below {Path(results_dir) / 'runs'} ({first}make some with "
            "`ptq-bench run method=rtn scheme=w4`, or point paths.results=DIR at them)"
        )
    return records
