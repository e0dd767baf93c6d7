"""The HTML page: nothing from outside, nothing unescaped, every number linked to its run; in a browser it
sorts, filters, zooms.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.foundation.text import visible
from harness.reporting.cells import SUMMARY, Cell, Row, Table
from harness.reporting.document import Bullets, Document, Facts, Paragraph, Picture, RunEntry, Section
from harness.reporting.formats.html import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "input", "img", "br", "col", "link", "hr"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><path id="a" d="M0 0L40 20"/></svg>'
NASTY = [
    "<script>alert(1)</script>",
    "</script><b>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    "&lt;b&gt;",
    "{{7*7}}{% x %}",
]
NASTY += [
    "\ud800",
    "a\x00b\x1b[31m",
    "\u202ertl\u2028sep",
    "javascript:alert(1)",
    "]]>",
    "<!--",
    "-->",
    "</table>",
    "http://e/x.png",
]
NASTY += ["é漢🦜", "a  b", "%s{0}"]


def cell(value, *keys, **more):
    return Cell(f"{value:.2f}", value=value, run_keys=keys, **more)


def document(word="x"):
    """Two blocks of methods that sort differently as texts and as numbers, a ledger, a figure; `word` is a
    text from a record.
    """
    lines = (
        Row("OPT", "", ()),
        Row("float", "float", (cell(5.0, "r1"), cell(6.0, "r1"))),
        Row(f"gptq {word}", "gptq", (cell(100.0, "r1", marks="¹"), cell(9.0, "r1"))),
        Row("rtn", "rtn", (cell(20.5, "r1", "r2", tied=True), Cell("–", why=f"not run {word}"))),
        Row("awq", "awq", (cell(3.0, "r2", best=True, detail="± 0.1"), cell(7.0, "r2"))),
        Row("bits per weight", "", (Cell("4.03"), Cell("4.03"))),
        Row("Llama", "", ()),
        Row("gptq", "gptq", (cell(2.0, "r2"), cell(1.0, "r2"))),
        Row("rtn", "rtn", (Cell("failed", "²", run_keys=("r2",)), cell(8.0, "unknown"))),
    )
    notes, head = (
        (f"¹ first {word}", f"² second {word}", "≈ cannot be told"),
        ("method", "wiki", f"ptb {word}"),
    )
    numbers = Table(
        "paper", f"Perplexity {word}", "", f"Caption {word}", head, lines, notes, ((f"4 bits {word}", 2),)
    )
    good = Cell("supported", f"1 < 2 {word}", tone="good", run_keys=("r1",))
    verdicts = (good, Cell("contradicted", tone="bad"), Cell("undecided", tone="open"))
    ledgers = []
    for paper in ("QuantEase", "VPTQ"):
        claims = tuple(
            Row(f"{paper} {place} {word}", "", (verdict,)) for place, verdict in enumerate(verdicts)
        )
        ledgers.append(Table("claims", f"{paper} {word}", "", "", ("claim", "toy"), claims, textual=True))
    counts = Table(
        "claims",
        "Counts",
        "",
        "",
        ("paper", "supported"),
        (Row("QuantEase", "", (Cell("1", value=1.0, tone="good"),)),),
    )
    open_questions = Table(
        "claims",
        "Not testable",
        "",
        "",
        ("claim", "why"),
        (Row("gone", "", (Cell("no run"),)),),
        textual=True,
    )
    picture = Picture("a", f"Figure {word}", f"Caption {word}", f"Alt {word}", b"png", SVG)
    prose = (Paragraph(word), Bullets((word, word)), Facts(((word, (word, word)),)))
    first = Section(f"Claims {word}", (*prose, counts, *ledgers, open_questions))
    sections = (first, Section("Tables", (numbers, picture)), Section("Tables", (), 2))
    runs = (
        RunEntry(
            "r1",
            f"toy · gptq {word}",
            "done",
            (("seed", "0"), (word, word)),
            "../results/runs/r1/record.json",
        ),
        RunEntry("r2", "toy · rtn", f"failed: {word}", (("seed", "1"),), f"{word}/record.json"),
    )
    return Document("toy", f"Report {word}", sections, runs)


class Reader(HTMLParser):
    """The elements of a page with their texts; fails where they are not nested."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.comments = [], [], 0
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        element = {
            "tag": tag,
            "text": "",
            "inside": [entry["tag"] for entry in self.open],
            **dict(attributes),
        }
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def handle_comment(self, data):
        self.comments += 1

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


def read(word="x"):
    page = render(document(word))["report.html"]
    return page, Reader(page.decode("utf-8"))


def shape(reader):
    return [element["tag"] for element in reader.elements]


@pytest.mark.parametrize("word", NASTY)
def test_hostile_texts_stay_texts(word):
    _, reader = read(word)
    assert shape(reader) == shape(read()[1]) and reader.comments == 0
    shown = visible(word)
    assert reader.all("h1")[0]["text"] == f"Report {shown}" and reader.all("p")[0]["text"] == shown
    assert [entry["text"] for entry in reader.all("dd")] == [shown, shown]
    assert f"Alt {shown}" == reader.all("img")[0]["alt"]
    assert any(entry.get("title") == f"not run {shown}" for entry in reader.all("td"))
    facts = next(entry["text"] for entry in reader.all("script") if entry.get("id") == "facts")
    assert shown in json.loads(facts)["texts"] and "<" not in facts
    handlers = [name for element in reader.elements for name in element if name.startswith("on")]
    assert handlers == []


@pytest.mark.parametrize("word", NASTY)
def test_nothing_is_fetched(word):
    _, reader = read(word)
    for element in reader.elements:
        assert element["tag"] not in ("link", "iframe", "object", "embed", "base", "form")
        assert element.get("src", "data:").startswith("data:")
        link = element.get("href", "#")
        assert link.startswith(("#", "./", "../")), link
    styles = "".join(entry["text"] for entry in reader.all("style"))
    assert "url(" not in styles and "@import" not in styles
    policy = next(
        entry["content"]
        for entry in reader.all("meta")
        if entry.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


def test_links_lead_somewhere_and_every_number_has_one():
    _, reader = read("é é")
    ids = [element["id"] for element in reader.elements if "id" in element]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in ids)
    links = [element["href"][1:] for element in reader.all("a") if element["href"].startswith("#")]
    assert set(links) <= set(ids)
    numbers = [entry["text"] for entry in reader.all("a") if entry.get("class") == "number"]
    values = ["5.00", "6.00", "100.00", "9.00", "20.50", "3.00", "7.00", "2.00", "1.00"]
    assert sorted(numbers) == sorted([*values, "failed", "supported", "supported"])
    assert "../results/runs/r1/record.json" in {entry["href"] for entry in reader.all("a")}
    assert sum(entry["href"] == "#run-2" for entry in reader.all("a")) == 6  # the second seed too


def test_marks_lead_to_their_footnotes():
    _, reader = read()
    notes = {entry["id"]: entry["text"] for entry in reader.all("li") if "-note-" in entry.get("id", "")}
    marks = {
        entry["text"]: notes[entry["href"][1:]] for entry in reader.all("a") if entry.get("class") == "mark"
    }
    assert marks == {"¹": "¹ first x", "²": "² second x", "≈": "≈ cannot be told"}


def test_heads_name_what_they_stand_over():
    _, reader = read()
    scopes = [(entry["text"], entry.get("scope")) for entry in reader.all("th")]
    assert (
        ("4 bits x", "colgroup") in scopes
        and ("OPT", "rowgroup") in scopes
        and ("wiki", "col") in scopes
        and ("awq", "row") in scopes
    )
    assert len(reader.all("caption")) == len(reader.all("table")) == 6


def test_the_ledger_filters_by_its_verdicts():
    _, reader = read()
    options = [entry["value"] for entry in reader.all("option")]
    assert options == [
        "",
        "supported",
        "contradicted",
        "undecided",
        "",
        "table-2",
        "table-3",
        "table-4",
        "",
        "done",
        "failed",
    ]
    folded = [entry["text"] for entry in reader.all("details") if entry.get("class") == "fold"]
    assert len(folded) == 1 and "gone" in folded[0]


def test_a_summary_stays_whatever_is_filtered_and_wide_tables_are_set_closer():
    def looks(kind, columns, detail=""):
        row = Row("rtn", "rtn", tuple(cell(1.0, detail=detail) for _ in range(columns)))
        table = Table(kind, "t", "", "", ("method", *(f"c{place}" for place in range(columns))), (row,))
        (found,) = Reader(render(Document("n", "t", (Section("s", (table,)),)))["report.html"].decode()).all(
            "table"
        )
        return found["data-scope"], found["class"]

    assert looks(SUMMARY, 3) == ("none", "numbers") and looks("perplexity", 3) == ("tables", "numbers")
    assert (
        looks("perplexity", 9)
        == looks("perplexity", 5, "± 1.37 (+3.40) (n=3) @2.28")
        == ("tables", "numbers dense")
    )


def test_groups_must_cover_the_columns():
    table = Table("paper", "t", "", "", ("method", "a", "b"), (), groups=(("x", 1),))
    with pytest.raises(ValueError, match="groups"):
        render(Document("n", "t", (Section("s", (table,)),)))


def test_a_page_of_nothing():
    reader = Reader(render(Document("n", "t", ()))["report.html"].decode())
    assert reader.all("h1")[0]["text"] == "t" and not reader.all("table")


@pytest.mark.slow  # the bytes of a whole report are compared in tests/reporting/test_writing.py
def test_same_document_same_bytes():
    code = "import hashlib; from tests.reporting.formats.test_html import document; from harness.reporting.formats.html import render\n"  # noqa: E501
    code += "print(hashlib.sha256(render(document('é'))['report.html']).hexdigest())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,  # noqa: E501
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }  # fmt: skip
    assert len(outputs) == 1


def test_any_text_survives():
    generator = random.Random(0)
    alphabet = "ab<>&\"'/=-!`{}%#\x00\n\t\u2028\u202e\ud800é漢 " + "".join(NASTY)
    plain = shape(read()[1])
    for _ in range(40):
        word = "".join(generator.choices(alphabet, k=30)).strip() + "x"
        reader = read(word)[1]
        assert shape(reader) == plain and reader.all("p")[0]["text"] == visible(word)


DRIVER = """
addEventListener("load", () => {
  const found = {}, table = document.querySelector("table.numbers[data-scope=tables]"), $ = (name) => document.querySelector(name);
  const column = (at) => [...table.tBodies].map((body) => [...body.rows].map((row) => row.cells[at]?.textContent ?? row.textContent));
  const head = table.querySelector("[data-column='1']");
  const steps = [0, 1, 2].map(() => { head.querySelector("button").click(); return [head.getAttribute("aria-sort"), column(0)]; });
  found.sorted = steps;
  const region = table.closest(".scroll"), label = () => table.tBodies[0].rows[1].cells[0].getBoundingClientRect().left;
  region.style.width = "8rem";
  found.label = [label()];
  region.scrollLeft = 60;
  found.label.push(label(), region.scrollLeft);
  region.style.width = "";
  const shown = (scope) => [...document.querySelectorAll(`table[data-scope=${scope}] tbody tr:not(.heading)`)]
    .filter((row) => row.checkVisibility()).map((row) => row.cells[scope === "runs" ? 1 : 0].textContent);
  const set = (name, value) => { $(name).value = value; $(name).dispatchEvent(new Event("input", { bubbles: true })); };
  const after = (wait, step) => setTimeout(() => { step(); document.body.dataset.found = JSON.stringify(found); }, wait);
  set("[data-filters=tables] [data-words]", "awq");
  set("[data-filters=claims] [data-verdict]", "contradicted");
  set("[data-filters=claims] [data-table]", "table-3");
  set("[data-filters=runs] [data-words]", "gptq");
  after(400, () => { found.shown = { tables: shown("tables"), claims: shown("claims"), runs: shown("runs") }; location.hash = "#run-2"; });
  after(800, () => {
    found.followed = { runs: shown("runs"), facts: [...document.querySelectorAll("#run-2 dd")].map((entry) => entry.textContent) };
    set("[data-filters=tables] [data-words]", "");
  });
  after(1200, () => {
    [...document.querySelectorAll("a.number")].find((link) => link.textContent === "20.50").click();
    found.seeds = [...document.querySelectorAll("#seeds a")].map((link) => [link.getAttribute("href"), link.checkVisibility()]);
    $("#seeds").hidePopover();
    const image = () => $("#zoom img").getBoundingClientRect().width;
    $(".picture button").click();
    found.zoom = [$("#zoom").open, image()];
    $("#zoom").dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
    found.zoom.push(image());
    $("[data-zoom=close]").click();
    found.zoom.push($("#zoom").open);
  });
});
"""  # noqa: E501


def in_chromium(path, *options):
    """The page as the browser leaves it."""
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'profile'}",
        *options,
    ]
    return subprocess.run(
        [*command, "--virtual-time-budget=4000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
    ).stdout


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """What a reader finds who sorts, filters, follows a link and opens a figure."""
    if not CHROMIUM:
        pytest.skip("no chromium")
    page = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(document())["report.html"].decode()
    )
    path = tmp_path_factory.mktemp("page") / "driven.html"
    path.write_text(page.replace("</body>", f"<script>{DRIVER}</script></body>"), encoding="utf-8")
    return json.loads(Reader(in_chromium(path)).all("body")[0]["data-found"])


def test_sorting_is_by_value_within_each_part(driven):
    up, down, restored = driven["sorted"]
    assert up == [
        "ascending",
        [["OPT", "awq", "float", "rtn", "gptq x", "bits per weight"], ["Llama", "gptq", "rtn"]],
    ]
    assert down == [
        "descending",
        [["OPT", "gptq x", "rtn", "float", "awq", "bits per weight"], ["Llama", "gptq", "rtn"]],
    ]
    assert restored == [
        "none",
        [["OPT", "float", "gptq x", "rtn", "awq", "bits per weight"], ["Llama", "gptq", "rtn"]],
    ]


def test_labels_stay_when_a_wide_table_is_moved(driven):
    before, after, moved = driven["label"]
    assert before == after and moved == 60


def test_filters_hide_the_rest(driven):
    assert driven["shown"] == {
        "tables": ["float", "awq", "bits per weight"],
        "claims": ["VPTQ 1 x"],
        "runs": [driven["shown"]["runs"][0]],
    }
    assert driven["shown"]["runs"][0].startswith("toy · gptq x")


def test_a_link_finds_a_run_that_a_filter_hid(driven):
    assert len(driven["followed"]["runs"]) == 2 and driven["followed"]["facts"] == ["1"]


def test_several_seeds_are_several_links(driven):
    assert driven["seeds"] == [["#run-1", True], ["#run-2", True]]


def test_a_figure_opens_grows_and_closes(driven):
    opened, fitted, larger, closed = driven["zoom"]
    assert opened and fitted > 300 and larger > 1.3 * fitted and not closed


@pytest.mark.skipif(not CHROMIUM, reason="no chromium")
def test_the_policy_lets_the_page_itself_run(tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(render(document("<script>document.title='owned'</script>"))["report.html"])
    page = Reader(in_chromium(path))
    assert page.all("html")[0]["class"] == "scripted" and len(page.all("button")) > 8
    assert page.all("title")[0]["text"].startswith("Report <script>")
