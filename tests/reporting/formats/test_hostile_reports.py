"""5,000 hostile texts through every format: readers of their own find the same structure, and the same texts
where a format keeps them.
"""

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from harness.foundation.text import visible
from harness.reporting.cells import Row, Table
from harness.reporting.document import Document, tables_of
from harness.reporting.formats import csv_tables, html, latex, markdown, pdf
from tests.helpers.documents import PLACES, document, hostile
from tests.helpers.invented_records import markdown_tokens, text

DOCUMENTS = 43  # times PLACES makes more than 5,000 texts


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    texts = hostile(PLACES * DOCUMENTS, seed=0)
    assert len(set(texts)) > 5000
    return [document(texts[start : start + PLACES]) for start in range(0, len(texts), PLACES)]


def squeezed(shown: str) -> str:
    return " ".join(shown.split())


def shown_cells(table: Table, row: Row, sign: str) -> list[str]:
    """The texts of a line as a reader should see them."""
    cells = [
        visible(cell.text.strip(" "))
        + sign * (cell.tied and not cell.best)
        + f" {visible(f'{cell.detail} {cell.marks}')}"
        for cell in row.cells
    ]
    return [
        squeezed(shown)
        for shown in (visible(f"{row.label} {row.marks}"), *(cells or [""] * (len(table.head) - 1)))
    ]


def test_markdown_keeps_structure_and_texts(documents):
    for found in documents:
        tokens = markdown_tokens(markdown.render(found)["report.md"].decode())
        kinds = Counter(token.type for token in tokens)
        inline = Counter(child.type for token in tokens for child in token.children or [])
        assert not {"html_block", "fence", "code_block", "hr", "blockquote_open", "ordered_list_open"} & set(
            kinds
        )
        assert (
            set(inline)
            <= {"text", "text_special", "strong_open", "strong_close", "em_open", "em_close", "image"}
            and inline["image"] == 1
        )
        assert kinds["table_open"] == 2 and kinds["list_item_open"] == 2 + 1 + 2
        lines, line = [], []
        for place, token in enumerate(tokens):
            if token.type in ("th_open", "td_open"):
                line.append(squeezed(text(tokens[place + 1])))
            elif token.type == "tr_close":
                lines, line = [*lines, line], []
        tables = tables_of(found)
        expected = [
            row for table in tables for row in [None, *(shown_cells(table, row, "≈") for row in table.rows)]
        ]
        assert [row for row, wanted in zip(lines, expected, strict=True) if wanted] == [
            row for row in expected if row
        ]
        section = found.sections[0]
        paragraphs = [
            text(tokens[place + 1])
            for place, token in enumerate(tokens)
            if token.type == "paragraph_open" and token.level == 0
        ]
        wanted = squeezed(visible(section.blocks[0].text))
        assert not wanted or squeezed(paragraphs[0]) == wanted


def test_csv_keeps_every_text_and_computes_nothing(documents):
    for found in documents:
        lines = list(
            csv.reader(
                io.StringIO(csv_tables.render(found)["tables.csv"].decode("utf-8"), newline=""), strict=True
            )
        )
        cells = [(table, row, cell) for table in tables_of(found) for row in table.rows for cell in row.cells]
        assert len(lines) == 1 + len(cells) and {len(line) for line in lines} == {len(csv_tables.COLUMNS)}
        for line, (table, row, cell) in zip(lines[1:], cells, strict=True):
            assert not any(field.lstrip().startswith(("=", "+", "-", "@")) for field in line)
            entry = dict(zip(lines[0], line, strict=True))
            texts = {
                "table": table.title,
                "row": row.label,
                "text": cell.text,
                "detail": cell.detail,
                "protocol": cell.protocol,
                "why": cell.why,
            }
            assert all(
                entry[name].removeprefix("'") == visible(wanted).removeprefix("'")
                for name, wanted in texts.items()
            )
            assert entry["value"] == ("" if cell.value is None else repr(cell.value))


COMMAND = re.compile(r"\\([a-zA-Z]+|.)")
COMMANDS = (
    "begin end toprule midrule bottomrule cmidrule addlinespace multicolumn textbf textsuperscript mathrm scriptsize footnotesize "  # noqa: E501
    "par linewidth textbackslash textasciitilde textasciicircum textless textgreater textbar dag ddag S ldots ss ae AE o O l L pm "  # noqa: E501
    "mp approx times cdot rightarrow leftarrow uparrow downarrow le ge ne infty surd sum prod partial in neg circ mu varsigma H r "  # noqa: E501
    "u v c alpha "
)
KNOWN = set(COMMANDS.split())


def tabulars(source: str) -> list[tuple[int, list[str]]]:
    """(columns, lines) of every tabular, with comments taken away."""
    found, inside = [], None
    for line in source.split("\n"):
        if line.startswith("%"):
            continue
        assert line.isascii() and not re.search(r"(?<!\\)(\\\\)*[%#]", line) and "^^" not in line
        bare = re.sub(r"\\[\\{}]", "", line)
        assert bare.count("{") == bare.count("}") and re.sub(r"\\\$", "", line).count("$") % 2 == 0
        assert {name for name in COMMAND.findall(line) if name.isalpha()} <= KNOWN
        if line.startswith(r"\begin{tabular}"):
            layout = re.sub(
                r"@\{\}|p\{[^}]*\}",
                lambda match: "p" * match[0].startswith("p"),
                line[len(r"\begin{tabular}{") : -1],
            )
            inside = (len(layout), [])
        elif line == r"\end{tabular}":
            found, inside = [*found, inside], None
        elif inside:
            inside[1].append(line)
        else:
            assert not line or line.startswith(r"\par{\footnotesize ")
    assert inside is None
    return found


def test_latex_keeps_its_structure(documents):
    for found in documents:
        made = tabulars(latex.render(found)["tables.tex"].decode())
        for (columns, lines), table in zip(made, tables_of(found), strict=True):
            rows = [
                line
                for line in lines
                if not line.startswith(
                    (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule", r"\addlinespace")
                )
            ]
            assert columns == len(table.head) and len(rows) == len(table.rows) + 1 + bool(table.groups)
            for line in rows:
                spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                assert (
                    line.endswith(r" \\")
                    and len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == columns
                )
                assert not line.startswith(("[", "*")), "an argument of the line break before it"


class Tags(HTMLParser):
    """What a page consists of, and whether anything on it would be fetched or run."""

    def __init__(self, page: str):
        super().__init__()
        self.found: Counter = Counter()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found[tag] += 1
        handlers = [name for name, _ in attrs if name.startswith("on")]
        fetched = [
            value
            for name, value in attrs
            if name in ("src", "href") and not (value or "").startswith(("#", "data:image/", "../results/"))
        ]
        assert not handlers and not fetched, (tag, attrs)


def test_html_keeps_its_structure(documents):
    fixed = (
        "table",
        "tr",
        "td",
        "th",
        "script",
        "style",
        "img",
        "iframe",
        "object",
        "meta",
        "link",
        "base",
        "form",
    )
    harmless = Tags(html.render(document(["plain"]))["report.html"].decode()).found
    for found in documents:
        tags = Tags(html.render(found)["report.html"].decode("utf-8")).found
        assert {name: tags[name] for name in fixed} == {name: harmless[name] for name in fixed}


def test_pdf_keeps_texts_and_has_a_glyph_for_everything(documents):
    pytest.importorskip("typst")
    pymupdf = pytest.importorskip("pymupdf")
    for start in range(0, len(documents), 11):  # typesetting takes a second, however many texts there are
        group = documents[start : start + 11]
        whole = Document(
            "name", "Hostile", tuple(section for found in group for section in found.sections), group[0].runs
        )
        pages = list(pymupdf.open(stream=pdf.render(whole)["report.pdf"]))
        shown = "".join(re.sub(r"\s|\u200b", "", page.get_text()) for page in pages)
        numbers = {int(number) for number in re.findall(r"Table(\d+)\.", shown)} | {
            int(n) for n in re.findall(r"Table(\d+)\(1of", shown)
        }
        assert numbers >= set(range(1, 2 * len(group) + 1))
        for found in group:
            wanted = re.sub(r"\s|\u200b", "", pdf.printable(found.sections[0].blocks[0].text))
            assert len(wanted) > 250 or wanted in shown, "a text of that length stands on one page"
        assert all(glyph for page in pages for span in page.get_texttrace() for _, glyph, *_ in span["chars"])
