"""Invented documents for the tests of the formats, and hostile texts to fill them with."""

import itertools
import random
from collections.abc import Sequence

from harness.reporting.cells import Cell, Row, Table
from harness.reporting.document import Bullets, Document, Facts, Paragraph, Picture, RunEntry, Section

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" viewBox="0 0 40 20"><rect width="40" height="20" fill="#ccc"/></svg>'  # noqa: E501
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d4944415478da63fcffff3f030005fe02fea72d99d10000000049454e44ae426082"
)
INJECTIONS = [
    # Markdown
    "**b** _i_ ~~s~~ `c`", "# head", "- item", "1. one", "12) two", "+ plus", "===", "---", "> quote", "| a | b |", "|-|-|",  # noqa: E501
    "![i](http://e/x.png)",
    "[l](javascript:alert(1))", "[a]: http://e", "[^1]: note", "```", "~~~", "    code", "\\|", "\\", "a\\", "$x$", "$$",  # noqa: E501
    "<!-- ", "-->",
    # HTML
    "<script>alert(1)</script>", "</script><script>", "</td></tr></table>", "<img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)", "' x='",
    "&lt;b&gt;", "&#x3c;", "&amp;amp;", "</style>", "]]>", "<![CDATA[", "{{7*7}}", "{% raw %}", "${7*7}", "javascript:alert(1)",  # noqa: E501
    # LaTeX
    "\\input{/etc/passwd}", "\\end{tabular}", "\\\\[1em]", "[2pt]", "*", "& & &", "%", "\\write18{id}", "^^M", "^^5c", "$", "{",  # noqa: E501
    "}", "}{", "#1", "~",
    "\\par", "--", "``q''", "?`", "!`", "\\catcode`\\%=12", "\\begin{document}", "_", "^",
    # typst
    "#let x = 1", "#read(\"/etc/passwd\")", "#eval(\"1\")", "= Title", "@label", "<label>", "*b*", "$ x $", "\\u{41}", "/* c */",  # noqa: E501
    "// c", "#[", "]",
    # spreadsheets
    "=cmd|' /C calc'!A0", "=HYPERLINK(\"http://e\")", "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "a,b", "a;b", "\"",  # noqa: E501
    "\"\"", "'", "a\"b", "1e5", "NaN",
    # paths and commands
    "../../etc/passwd", "/dev/null", "C:\\x", "a/b", "..", "con", "~root", "%2e%2e", "$(id)", "`id`", "; rm -rf /", "name=x",  # noqa: E501
    # characters
    "\x00", "\x07", "\x1b[31mred\x1b[0m", "\x1b]8;;http://e\x07", "\n", "\r\n", "a\n\nb", "\u2028", "\u2029", "\x85", "\x0b\x0c",  # noqa: E501
    "\ud800", "\udfff x",
    "\u202eabc", "\u2066x\u2069", "\u200b", "\ufeff", "\u00ad", "\u00a0", "\u3000", "e\u0301\u0302\u0303" * 5, "é漢字", "🦜👩‍👩‍👧",  # noqa: E501
    "𝔘", "אבג", "ﬁ", "\U0010ffff",
    "", " ", "  a  ", "x" * 300, "word " * 60, "a_b_c __init__ _x_", "α − ± ≈ † ‡ ⁰¹²³ ᵀ ‖x‖ → ·",
]  # fmt: skip
PLACES = 118
ALPHABET = "ab1 _*`~|\\<>&[]()!#$%^-=+.,:;\n\r\t\"'{}/@?\x00\x1b\x7f\u2028\u202e\u0301é漢🦜\ud800"


def hostile(count: int, seed: int) -> list[str]:
    """Distinct texts: every injection (where `count` allows), then mixtures of them and random characters."""
    generator = random.Random(seed)
    found = dict.fromkeys(INJECTIONS[:count])
    while len(found) < count:
        pieces = [
            generator.choice(INJECTIONS),
            "".join(generator.choices(ALPHABET, k=generator.randint(0, 9))),
            generator.choice(INJECTIONS),
        ]
        found.setdefault("".join(generator.sample(pieces, generator.randint(1, 3))))
    texts = list(found)
    generator.shuffle(texts)
    return texts


def document(texts: Sequence[str]) -> Document:
    """One of everything with a text from `texts` in every place that can hold one; `PLACES` texts fill it
    once.
    """
    take = itertools.cycle(texts).__next__

    def cell(number: int) -> Cell:
        said = {"metric": take(), "protocol": take(), "why": take(), "run_keys": (take(),)}
        return Cell(take(), take(), take(), 1.5 * number, 0.25, 3.0625, number == 1, tied=number == 2, **said)

    def words() -> Cell:
        return Cell(take(), take(), tone="good", why=take())

    lines = [Row(take(), "m", (cell(place), cell(place + 1)), take()) for place in range(4)]
    numbers = Table("perplexity", take(), take(), take(), (take(), take(), take()), (Row(take(), "", ()), *lines), (take(), take()),  # noqa: E501
                    ((take(), 1), (take(), 1)))  # fmt: skip
    claims = [Row(take(), "", (words(), words())) for _ in range(2)]
    textual = Table(
        "claims", take(), "", take(), (take(), take(), take()), (*claims, Row(take(), "", ())), textual=True
    )
    texts_of_run = [
        RunEntry(take(), take(), take(), ((take(), take()),), "../results/runs/a/record.json")
        for _ in range(2)
    ]
    chapter = Section(
        take(), (Paragraph(take()), Bullets((take(), take())), Facts(((take(), (take(), take())),)))
    )
    shown = (numbers, Picture(take(), take(), take(), take(), PNG, SVG), textual)
    return Document("name", take(), (chapter, Section(take(), shown, 2)), tuple(texts_of_run))
