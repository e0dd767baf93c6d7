"""The formats one by one: PDF, LaTeX, CSV, Markdown, terminal."""

import hashlib
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.foundation.errors import UserError
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.document import Bullets, Document, Facts, Paragraph, Picture, RunEntry, Section
from harness.reporting.formats import csv_tables, latex, markdown, pdf
from harness.reporting.formats.shown import title_parts
from harness.reporting.formats.terminal import print_first, print_tables
from tests.helpers.documents import PNG, SVG
from tests.helpers.invented_records import markdown_tokens

NUMBERS = (
    Row("OPT-125M", "", ()),
    Row("rtn", "rtn", (Cell("37.3", "± 1.2 (+9.6)", "†", 37.28123456789, 1.2, 4.03, metric="perplexity/c4", protocol="p1",  # noqa: E501
                            run_keys=("a", "b")), Cell("–", "", "¹", why="not run: scheme=w3"))),
    Row("gptq", "gptq", (Cell("31.1", "± 1.0", value=31.1, tied=True, published=31.5, gap=-0.4), Cell("1.5e3", value=1500.0))),  # noqa: E501
    Row("quantease", "quantease", (Cell("30.9", value=30.9, best=True, tied=True), Cell("49.2", value=49.2, best=True)), "*"),  # noqa: E501
    Row("bits per weight", "", (Cell("4.03"), Cell("3.03"))),
)  # fmt: skip
PAPER = Table("paper", "QuantEase: perplexity", "", "Lower is better", ("method", "C4", "C4"), NUMBERS, ("¹ not run", "† doubtful"),  # noqa: E501
              (("4 bits", 1), ("3 bits", 1)))  # fmt: skip
VERDICT = Row("It is lower", "", (Cell("supported", "0.755 [0.70, 0.81]", tone="good"),))
LEDGER = Table("claims", "Claims", "", "", ("claim", "toy"), (VERDICT,), textual=True)
RUNS = tuple(RunEntry(f"{place:04x}", f"toy · rtn · {place}", "done", (), "x") for place in range(301))


def wide(columns: int) -> Table:
    row = Row(
        "rtn",
        "rtn",
        tuple(Cell(f"{place}.00", "± 1.37 (+3.40) @2.28", value=float(place)) for place in range(columns)),
    )
    return Table(
        "perplexity", "Wide", "toy", "", ("method", *(f"c{place}" for place in range(columns))), (row,)
    )


def report(*blocks, runs: tuple[RunEntry, ...] = ()) -> Document:
    return Document("name", "A report", (Section("Tables", blocks or (PAPER, LEDGER)),), runs)


def pages_of(document: Document) -> list:
    pytest.importorskip("typst")
    return list(pytest.importorskip("pymupdf").open(stream=pdf.render(document)["report.pdf"]))


def words(pages: list) -> str:
    return " ".join(" ".join(page.get_text() for page in pages).split())


def test_pdf_shows_tables_pictures_texts_and_runs():
    picture = Picture("slug", "A figure", "said below", "alt", PNG, SVG)
    facts = Facts((("Model", ("toy", "other")),))
    pages = pages_of(
        report(Paragraph("#let x = [*no*]"), Bullets(("one",)), facts, PAPER, picture, LEDGER, runs=RUNS)
    )
    shown = words(pages)
    for text in ("A report", "#let x = [*no*]", "Table 1. QuantEase: perplexity", "OPT-125M", "37.3", "± 1.2 (+9.6)", "31.1≈", "¹ not run",  # noqa: E501
                 "Figure 1. A figure. said below", "Table 2. Claims", "0.755 [0.70, 0.81]", "301 runs",
                 "the first 300", "toy · rtn · 299"):  # fmt: skip
        assert text in shown, text
    assert "toy · rtn · 300" not in shown and "30.9≈" not in shown
    spans = [
        span
        for page in pages
        for block in page.get_text("dict")["blocks"]
        for line in block.get("lines", [])
        for span in line["spans"]
    ]
    fonts = {span["text"].strip(): span["font"] for span in spans}
    assert "Bold" in fonts["30.9"] and "Bold" not in fonts["37.3"] and "Bold" in fonts["supported"]


@pytest.mark.parametrize(("columns", "landscape", "parts"), [(3, False, 1), (9, True, 1), (30, False, 5)])
def test_a_wide_table_is_turned_then_split(columns, landscape, parts):
    pages = pages_of(report(wide(columns)))
    assert (max(page.rect.width for page in pages) > 800) is landscape
    shown = words(pages)
    found = re.findall(r"\((\d) of (\d)\)", shown)
    assert len(found) >= parts if parts > 1 else not found
    assert all(
        re.search(rf"\bc{place}\b", shown) and re.search(rf"\b{place}\.00", shown) for place in range(columns)
    )
    assert shown.count("rtn") == max(1, len(found))
    right = [word[2] / page.rect.width for page in pages for word in page.get_text("words")]
    assert max(right) < 0.97, "something runs over the edge of the page"


@pytest.mark.parametrize(("lines", "landscape"), [(8, False), (30, True)])
def test_a_long_table_is_rather_turned_than_stacked(lines, landscape):
    table = wide(6)
    pages = pages_of(report(replace(table, rows=table.rows * lines)))
    assert (max(page.rect.width for page in pages) > 800) is landscape


def test_footnotes_stay_on_the_page_of_their_table():
    pages = pages_of(
        report(*(block for _ in range(12) for block in (Paragraph("A line between tables."), PAPER)))
    )
    assert len(pages) > 2
    for page in pages:
        shown = page.get_text()
        assert shown.count("bits per weight") == shown.count("† doubtful") == shown.count("Lower is better")


def test_claims_keep_the_marks_of_their_footnotes():
    ledger = replace(LEDGER, rows=(replace(VERDICT, marks="¹"),), notes=("¹ not in every table",))
    assert "It is lower ¹" in words(pages_of(report(ledger)))


def test_a_long_table_repeats_its_head_and_stops():
    rows = tuple(Row(f"row{place}", "m", (Cell(f"{place}.0"),)) for place in range(200))
    pages = pages_of(report(Table("t", "Long", "", "", ("method", "value of it"), rows)))
    shown = words(pages)
    assert (
        len(pages) > 1
        and shown.count("value of it") >= 2
        and "row119" in shown
        and "row120" not in shown
        and "80 more lines" in shown
    )


@pytest.mark.slow  # the bytes of a whole report are compared in tests/reporting/test_writing.py
def test_the_same_document_gives_the_same_pdf():
    pytest.importorskip("typst")
    code = (
        "import sys, hashlib; sys.path.insert(0, '.'); from tests.reporting.formats.test_print_formats import *;"  # noqa: E501
        "print(hashlib.sha256(pdf.render(report(runs=RUNS))['report.pdf']).hexdigest())"
    )
    made = pdf.render(report(runs=RUNS))["report.pdf"]
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Kolkata",
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "1234567890",
    }
    root = Path(__file__).parents[3]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert other.strip() == hashlib.sha256(made).hexdigest()
    assert b"CreationDate" not in made and b"ModDate" not in made


def test_without_typst_a_pdf_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(UserError, match=r"pip install 'ptq-bench\[pdf\]'") as error:
        pdf.render(report())
    assert "\n" not in str(error.value)


def test_characters_without_a_glyph_become_escapes_and_long_words_may_break():
    assert pdf.printable("漢 α≈‖ᵀ⁻⁹ ␀\x07") == "\\u6f22 α≈‖ᵀ⁻⁹ \\u2400\\u2407"
    assert (
        pdf.printable("x" * 60).replace("\u200b", "") == "x" * 60
        and max(map(len, pdf.printable("x" * 60).split("\u200b"))) <= 22
    )


def test_latex_is_a_table_in_booktabs_style():
    source = latex.render(report())["tables.tex"].decode()
    assert r"\begin{tabular}{@{}lrr@{}}" in source and r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in source
    assert r" & \multicolumn{1}{c}{4 bits} & \multicolumn{1}{c}{3 bits} \\" in source
    assert r"\multicolumn{3}{@{}l}{\textbf{OPT-125M}} \\" in source
    assert r"rtn & 37.3 {\scriptsize $\pm$ 1.2 (+9.6)} \dag{} & --{} \textsuperscript{1} \\" in source
    assert r"gptq & 31.1$\approx$ {\scriptsize $\pm$ 1.0} & 1.5e3 \\" in source
    assert r"quantease {*} & \textbf{30.9} & \textbf{49.2} \\" in source
    assert r"\par{\footnotesize \textsuperscript{1} not run\par}" in source and "% Lower is better" in source


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "a_b & 5 % of $x$ #1 {y} ~ ^",
            r"a\_b \& 5 \% of \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{}",
        ),
        ("\\end{tabular}", r"\textbackslash{}end\{tabular\}"),
        ("[1em] *", "{[}1em{]} {*}"),
        (
            "−0.5 ± α Σ Α ≤ ²₃ ᵀ",
            r"$-$0.5 $\pm$ $\alpha$ $\Sigma$ $\mathrm{A}$ $\le$ \textsuperscript{2}\textsubscript{3} \textsuperscript{T}",  # noqa: E501
        ),
        ("é Ç ö ß", r"\'{e} \c{C} \"{o} \ss{}"),
        ("a--b ''c ?`", "a-{}-b '{}'c ?{}`{}"),
        ("漢\n\u202e", r"\textbackslash{}u6f22\textbackslash{}u240a\textbackslash{}u202e"),
    ],
)
def test_latex_escapes(text, wanted):
    assert latex.escape(text) == wanted


def test_csv_reads_back_as_numbers_and_texts():
    hostile = replace(
        PAPER,
        rows=(
            *NUMBERS,
            Row("=1+1", "@x", (Cell("-5", "+1", value=-5.0), Cell("1,2\n", 'a "b"', value=float("inf")))),
        ),
    )
    made = csv_tables.render(report(hostile, LEDGER))["tables.csv"]
    found = pd.read_csv(
        io.BytesIO(made),
        keep_default_na=False,
        na_values={name: [""] for name in ("value", "spread", "bits", "published", "gap")},
    )
    assert list(found) == list(csv_tables.COLUMNS) and len(found) == 2 * 5 + 1 and b"\r" not in made
    first = found.iloc[0]
    assert (first["value"], first["spread"], first["bits"], first["run_keys"]) == (
        37.28123456789,
        1.2,
        4.03,
        "a b",
    )
    assert (first["table"], first["heading"], first["row"], first["group"], first["column"]) == (
        "QuantEase: perplexity",
        "OPT-125M",
        "rtn",
        "4 bits",
        "C4",
    )
    assert found["group"].to_list()[:2] == ["4 bits", "3 bits"] and found["why"][1] == "not run: scheme=w3"
    assert found["best"].dtype == bool and found["best"].sum() == 2 and found["tied"].sum() == 1
    assert (found["published"][2], found["gap"][2]) == (31.5, -0.4)
    assert (found["row"][8], found["method"][8], found["text"][8], found["detail"][8], found["value"][8]) == (
        "'=1+1",
        "'@x",
        "'-5",
        "'+1",
        -5.0,
    )
    assert found["detail"][9] == 'a "b"' and found["value"][9] == float("inf") and found["text"][9] == "1,2␊"


def test_markdown_folds_groups_and_keeps_headings_and_ties():
    text = markdown.render(report())["report.md"].decode()
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert lines[0] == ["method", "4 bits: C4", "3 bits: C4"]
    assert lines[2] == ["**OPT-125M**", "", ""] and lines[3] == ["rtn", "37.3 ± 1.2 (+9.6) †", "– ¹"]
    assert lines[4][1] == "31.1≈ ± 1.0" and lines[5][1] == "**30.9**" and lines[6][0] == "*bits per weight*"
    assert lines[-1] == ["It is lower", r"**supported** 0.755 \[0.70, 0.81\]"] and set(lines[-2][1]) == {
        ":",
        "-",
    }
    assert "### QuantEase: perplexity\n" in text and "- ¹ not run\n" in text


def test_markdown_lines_up_columns_as_long_as_somebody_can_read_them():
    def lines(columns):
        text = markdown.render(report(wide(columns)))["report.md"].decode()
        return [line for line in text.splitlines() if line.startswith("|")]

    assert len({len(line) for line in lines(4)}) == 1
    head, rule, row = lines(12)
    assert head.startswith("| method |  c0 |  c1 |") and rule.count("--:") == 12 and "  " not in row
    assert markdown_tokens("\n".join((head, rule, row)))[0].type == "table_open"


@pytest.mark.parametrize(
    "text",
    [
        "1. one",
        "12) two",
        "- item",
        "+ item",
        "* item",
        "===",
        "---",
        "# head",
        "> quote",
        "    code",
        "```",
        "|a|",
        "<b>",
    ],
)
def test_a_paragraph_stays_a_paragraph(text):
    found = markdown_tokens(
        markdown.render(Document("n", "T", (Section("", (Paragraph(text), Bullets((text,)))),)))[
            "report.md"
        ].decode()
    )
    kinds = [token.type for token in found]
    assert (
        kinds.count("paragraph_open") == 2
        and kinds.count("list_item_open") == 1
        and kinds.count("heading_open") == 1
    )
    assert [token.content for token in found if token.type == "inline"].__len__() == 3


def test_pictures_are_files_below_figures_whatever_their_slug():
    pictures = [Picture(slug, "t", "c", "alt", PNG, SVG) for slug in ("ppl", "../../evil", "", "ppl")]
    files = markdown.render(report(*pictures))
    assert sorted(files) == [
        "figures/evil.png",
        "figures/ppl-2.png",
        "figures/ppl.png",
        "figures/untitled.png",
        "report.md",
    ]
    assert re.findall(r"\]\((.*?)\)", files["report.md"].decode()) == [
        "figures/ppl.png",
        "figures/evil.png",
        "figures/untitled.png",
        "figures/ppl-2.png",
    ]


def printed(*tables: Table, width: int = 120) -> str:
    output = io.StringIO()
    print_tables(tables, Console(file=output, force_terminal=True, width=width, color_system=None))
    return output.getvalue()


def test_the_terminal_shows_groups_headings_ties_and_verdicts():
    shown = printed(PAPER, LEDGER)
    head = [line.split() for line in shown.splitlines() if "bits" in line][:1]
    assert (
        head == [["4", "bits", "3", "bits"]]
        and "OPT-125M" in shown
        and "31.1≈ ± 1.0" in shown
        and "30.9≈" not in shown
    )
    assert re.search(r"It is lower +supported 0\.755 \[0\.70, 0\.81\]", shown)


def test_the_terminal_says_once_what_holds_for_all_tables():
    one, other = (
        replace(PAPER, title=title, notes=("† as we got it", "¹ of this one")) for title in ("A", "B")
    )
    shown = printed(one, other)
    assert shown.count("† as we got it") == 1 and shown.count("¹ of this one") == 2
    assert shown.index("† as we got it") < shown.index("B")


def test_a_whole_report_begins_with_who_leads_and_then_perplexities_on_a_terminal(capsys):
    def table(kind, lines):
        return Table(
            kind, f"{kind} {lines}", "", "", ("method", "3"), (Row("rtn", "rtn", (Cell("1.0"),)),) * lines
        )

    tables = [PAPER, LEDGER, table("acc", 60), table("perplexity", 50), table("summary", 2), table("acc", 9)]
    print_first(report(*tables), whole=True)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if re.fullmatch(r"(summary|perplexity|acc) \d+", line)] == [
        "summary 2",
        "perplexity 50",
    ]
    assert said.endswith("… and 2 more tables, in the files\n")
    print_first(report(*tables[:2]), whole=False)
    assert "supported" in capsys.readouterr().out


def test_words_are_wrapped_on_a_narrow_terminal_and_nothing_is_lost():
    long = replace(
        LEDGER, rows=(Row("It is much lower " * 5, "", (Cell("supported", "because " * 20 + "end"),)),)
    )
    shown = printed(long, width=60)
    assert "…" not in shown and "end" in shown and max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    "render",
    [csv_tables.render, latex.render, markdown.render, pdf.data_of],
    ids=lambda render: render.__module__,
)
def test_groups_that_do_not_cover_the_columns_are_an_error(render):
    with pytest.raises(ValueError, match="groups over 3 columns, 2 columns"):
        render(report(replace(PAPER, groups=(("4 bits", 3),))))


def test_titles_do_not_repeat_the_headings_above():
    def parts(title: str, model: str, *chapters: str) -> tuple[str, str]:
        return title_parts(Table("paper", title, model, "", ("method",), ()), chapters)

    assert parts("Perplexity", "toy", "All numbers", "toy") == ("Perplexity", "")
    assert parts("A: b", "toy", "Tables", "A: b") == ("", "toy")
    assert parts("A: b: as published", "big, small", "A: b") == ("As published", "big, small")
    assert parts("A: toy", "toy", "A") == ("", "toy")
    assert parts("A: b", "toy", "other") == ("A: b", "toy")
    assert parts("A: b: toy", "toy") == ("A: b: toy", "")
    assert parts("Claims", "", "Claims") == ("", "")
