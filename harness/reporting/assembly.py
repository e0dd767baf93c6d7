"""From records to a document: which chapters a report has, in which order, and what stands in them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.records import layout
from harness.records.measurements import Items
from harness.records.record import finite
from harness.reporting.cells import Table
from harness.reporting.claims.ledger import UNTESTED, Layers, headline, judge, ledger_tables, load_claims
from harness.reporting.document import Block, Bullets, Document, Facts, Paragraph, RunEntry, Section
from harness.reporting.figures.pictures import pictures
from harness.reporting.frames import Records, entries_of
from harness.reporting.keys import ColumnKey, row_rank
from harness.reporting.labels import SEPARATOR, present, value_text
from harness.reporting.papers.tables import Spec, paper_tables
from harness.reporting.parallel import at_once
from harness.reporting.tables.all_numbers import build_tables
from harness.reporting.tables.header import what_was_run
from harness.reporting.tables.in_short import in_short
from harness.reporting.tables.ties import mark_ties

GUIDE = (
    "A cell is a value, ± its standard error (with n=…: mean ± standard deviation over n seeds), and in "
    "brackets the difference to the "
    "float model.",
    "Bold is the best of its column, with everything that rounds to the same number; ≈ marks what a paired "
    "bootstrap over the same "
    "windows or items cannot tell from the best (95 %, corrected after Holm for the number of comparisons).",
    "Columns are bits, after g the number of neighbouring weights that share a scale, after s the bits of "
    "the scales themselves, after a "
    "those of activations. The last line has the bits that most cells of a column really store, @ is what a "
    "cell stores that differs: "
    "codes, scales, offsets, codebooks, outliers and their indices, matrices that stay at run time.",
    "– is missing; a footnote says why. Numbers of two protocols never stand in one column.",
)
COMMANDS = (
    "Where a run is missing, a note has the command that makes it, under the settings of the runs beside "
    "it. It writes to results/; "
    "paths.results=DIR adds to the records of another directory."
)
SHOWN_FALLBACKS, SHOWN_RUNS = 3, 40
CONFIGURATION = ("model.", "data.", "scheme.", "method.", "eval.")


def full_document(
    name: str, records: Records, specs: Mapping[str, Spec], results_dir: Path, report_dir: Path
) -> Document:
    """Everything that these records say: in short, verdicts on the papers' claims, the papers' tables,
    figures, and all numbers.
    """
    items, places = Items(results_dir), _places(records)

    def numbers() -> tuple:
        plain = build_tables(records.frame)
        return at_once(
            [
                lambda: pictures(records, plain, results_dir),
                lambda: (mark_ties(plain, items, places), run_entries(records, results_dir, report_dir)),
            ]
        )

    verdicts, papers, (drawn, (tables, runs)) = at_once(
        [
            lambda: judge(records.frame, items, load_claims(), Layers(results_dir)),
            lambda: _papers(records, specs, items, places),
            numbers,
        ]
    )
    claims = ledger_tables(verdicts)
    tested, untested = (
        [table for table in claims if table.title != UNTESTED],
        [table for table in claims if table.title == UNTESTED],
    )
    sections = [in_short(records.frame, tables, headline(verdicts) if tested else "")]
    sections += [Section("What holds of the papers' claims", tuple(tested))] if tested else []
    sections += _paper_chapter(papers, specs)
    sections += [Section("Figures", tuple(drawn))] if drawn else []
    sections += _all_numbers(tables)
    sections += [Section(UNTESTED, tuple(untested))] if untested else []
    sections += [_what_was_run(records), *_not_as_asked(records), *_left_out(records)]
    return Document(name, f"Report: {name}", tuple(sections), runs)


def table_document(
    name: str, records: Records, specs: Mapping[str, Spec], results_dir: Path, report_dir: Path
) -> Document:
    """Only the papers' tables that were asked for."""
    items, places = Items(results_dir), _places(records)
    papers = _papers(records, specs, items, places)
    chapters = [
        Section(specs[key].title, tuple(tables) or (Paragraph("No record fills this table."),))
        for key, tables in papers.items()
    ]
    title = SEPARATOR.join(spec.title for spec in specs.values())
    runs = run_entries(records, results_dir, report_dir)
    return Document(
        name,
        title,
        (*chapters, _what_was_run(records), _guide(), *_not_as_asked(records), *_left_out(records)),
        runs,
    )


def _papers(
    records: Records, specs: Mapping[str, Spec], items: Items, places: Mapping[str, str]
) -> dict[str, list[Table]]:
    """The tables of each specification, none where no record fills it."""
    return {key: mark_ties(paper_tables(records.frame, spec), items, places) for key, spec in specs.items()}


def run_entries(records: Records, results_dir: Path, report_dir: Path) -> tuple[RunEntry, ...]:
    """What the numbers of a report link to, in the order of its tables."""
    base = Path(os.path.relpath(results_dir, report_dir)).as_posix()
    entries = [(_rank(record), _entry(record, base)) for record in entries_of(records.frame)]
    return tuple(entry for _, entry in sorted(entries, key=lambda pair: pair[0]))


def _entry(record: Mapping[str, Any], base: str) -> RunEntry:
    fields = [name for name in sorted(record) if name.startswith(CONFIGURATION) or name == "seed"]
    facts = [(name, value_text(record[name])) for name in fields if present(record[name])]
    facts += [
        (name, f"{found['value']} · {found['protocol']}") for name, found in sorted(record["metrics"].items())
    ]
    facts += [
        (name, value_text(record[name]))
        for name in sorted(record)
        if _is_cost(name) and finite(record[name]) is not None
    ]
    facts += [("not as asked", text) for text in record["fallbacks"]]
    facts += [("versions", SEPARATOR.join(_versions(record)))]
    reason = record.get("reason")
    status = f"{record['status']}: {reason}" if isinstance(reason, str) and reason else record["status"]
    href = f"{quote(base)}/{layout.RUNS}/{quote(record['place'].encode('utf-8', 'replace'))}/{layout.RECORD}"
    return RunEntry(record["run_key"], _title(record), status, tuple(facts), href)


def _title(record: Mapping[str, Any]) -> str:
    outliers = finite(record.get("scheme.outlier_ratio"))
    parts = [record["model.name"], record["method.name"]]
    column = ColumnKey.of(record)
    parts += [] if column.bits is None else [column.in_words(" ")]
    parts += [f"{100 * outliers:g} % outliers"] if outliers else []
    return SEPARATOR.join(parts)


def _rank(record: Mapping[str, Any]) -> tuple:
    return (
        record["model.name"],
        row_rank(record["method.name"], ""),
        ColumnKey.of(record).rank,
        record["run_key"],
        record["place"],
    )


def _is_cost(name: str) -> bool:
    return name in ("bits_per_weight", "outlier_share") or name.startswith(
        ("layer_error.", "block_error.", "seconds.", "peak_memory_bytes.")
    )


def _versions(record: Mapping[str, Any]) -> Iterable[str]:
    names = sorted(name for name in record if name.startswith("versions.") and present(record[name]))
    return (f"{name.removeprefix('versions.')} {value_text(record[name])}" for name in names)


def _places(records: Records) -> dict[str, str]:
    """Where the items of each run lie whose numbers count: one that diverged may have kept some."""
    done = records.frame[records.frame["status"] == "done"]
    return dict(zip(done["run_key"], done["place"], strict=True))


def _what_was_run(records: Records) -> Section:
    facts = tuple((subject, tuple(texts)) for subject, texts in what_was_run(records.frame) if any(texts))
    return Section("What was run", (Facts(facts),))


def _guide() -> Section:
    return Section("How to read the tables", (Bullets(GUIDE),))


def _paper_chapter(papers: Mapping[str, Sequence[Table]], specs: Mapping[str, Spec]) -> list[Section]:
    filled = {key: tables for key, tables in papers.items() if tables}
    empty = [key for key, tables in papers.items() if not tables]
    told = (*([Paragraph(COMMANDS)] if filled else []), *_told(empty, specs))
    sections = [Section("The papers' tables", told)] if filled or empty else []
    return sections + [Section(specs[key].title, tuple(tables), 2) for key, tables in filled.items()]


def _told(empty: Sequence[str], specs: Mapping[str, Spec]) -> tuple[Block, ...]:
    if not empty:
        return ()
    names = ", ".join(f"{specs[key].title} ({key})" for key in empty)
    return (Paragraph(f"No record fills: {names}."),)


def _all_numbers(tables: Sequence[Table]) -> list[Section]:
    models = list(dict.fromkeys(table.model for table in tables))
    guide = Section("All numbers", (Bullets(GUIDE),))
    return (
        [
            guide,
            *(
                Section(model, tuple(table for table in tables if table.model == model), 2)
                for model in models
            ),
        ]
        if tables
        else []
    )


def _not_as_asked(records: Records) -> list[Section]:
    """What runs had to do otherwise than configured, each kind of run once: all tables refer to it."""
    found: dict[tuple, dict[str, None]] = {}
    for record in entries_of(records.frame):
        if record["fallbacks"]:
            found.setdefault((_rank(record)[:3], _title(record)), {}).update(
                dict.fromkeys(record["fallbacks"])
            )
    lines = []
    for (_, title), texts in sorted(found.items(), key=lambda entry: entry[0]):
        more = len(texts) - SHOWN_FALLBACKS
        lines.append(
            f"{title}: {'; '.join(list(texts)[:SHOWN_FALLBACKS])}"
            + (f"; and {more} more" if more > 0 else "")
        )
    more = len(lines) - SHOWN_RUNS
    lines = [*lines[:SHOWN_RUNS], *([f"and {more} more"] if more > 0 else [])]
    return [Section("Not as asked", (Bullets(tuple(lines)),))] if lines else []


def _left_out(records: Records) -> list[Section]:
    if not records.left_out:
        return []
    return [
        Section("Left out", (Bullets(tuple(f"{place}: {reason}" for place, reason in records.left_out)),))
    ]
