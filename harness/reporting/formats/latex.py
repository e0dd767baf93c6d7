r"""Table bodies for LaTeX: `tables.tex` holds one `tabular` per table, to be copied into a table float.

They need `\usepackage{booktabs}` and compile with pdflatex, xelatex and lualatex, whatever characters the
records hold.
"""

import re
import unicodedata

from harness.foundation.text import visible
from harness.reporting.cells import Cell, Row, Table
from harness.reporting.document import Document, tables_of
from harness.reporting.formats.shown import TIE, groups_by_column, tied, title_of

HEAD = "% Table bodies of the report; they need \\usepackage{booktabs}.\n"
GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
]  # fmt: skip
LATIN_LIKE = {
    "alpha": "A", "beta": "B", "epsilon": "E", "zeta": "Z", "eta": "H", "iota": "I", "kappa": "K",
    "mu": "M", "nu": "N", "omicron": "O", "rho": "P", "tau": "T", "chi": "X",
}  # fmt: skip
MATHS = {
    "−": "-", "±": r"\pm", "∓": r"\mp", "≈": r"\approx", "×": r"\times", "·": r"\cdot", "⋅": r"\cdot",
    "‖": r"\|", "→": r"\rightarrow", "←": r"\leftarrow", "↑": r"\uparrow", "↓": r"\downarrow", "≤": r"\le",
    "≥": r"\ge", "≠": r"\ne", "∞": r"\infty", "√": r"\surd", "∑": r"\sum", "∏": r"\prod", "∂": r"\partial",
    "∈": r"\in", "¬": r"\neg", "°": r"^\circ", "µ": r"\mu", "ς": r"\varsigma",
}  # fmt: skip
TEXTS = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''{}", "`": "{}`{}", "[": "{[}", "]": "{]}",
    "*": "{*}", **{special: f"\\{special}" for special in "#$%&_{}"}, "†": r"\dag{}", "‡": r"\ddag{}",
    "§": r"\S{}", "–": "--{}", "—": "---{}", "…": r"\ldots{}", "“": "``{}", "”": "''{}", "‘": "`{}",
    "’": "'{}", "\u00a0": "~", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}",
}  # fmt: skip
# what would melt with the character after it, and all the rest
LIGATURES = re.compile("([-,'](?=[-,'\"–—’”]))|(.)", re.DOTALL)
ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327",
        "`'^~=u.\"rHvc",
        strict=True,
    )
)


def render(document: Document) -> dict[str, bytes]:
    """{"tables.tex": all tables of the document, in its order}."""
    return {"tables.tex": "\n".join([HEAD, *map(tabular, tables_of(document))]).encode()}


def tabular(table: Table) -> str:
    """Title and caption as comments, then the tabular with its footnotes below."""
    said = [visible(text).rstrip(" ") for text in (title_of(table), table.caption) if text]
    columns = len(table.head)
    width = f"p{{{(1 - 0.035 * (columns - 1)) / columns:.3f}\\linewidth}}"
    layout = width * columns if table.textual else "l" + "r" * (columns - 1)
    lines = [*(f"% {text}" for text in said), f"\\begin{{tabular}}{{@{{}}{layout}@{{}}}}", "\\toprule"]
    lines += [*_groups(table), _line(map(escape, table.head)), "\\midrule"]
    for place, row in enumerate(table.rows):
        lines += ["\\addlinespace"] if place and not row.cells else []
        lines.append(_row(row, columns))
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par{{\\footnotesize {escape(note)}\\par}}" for note in table.notes]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """LaTeX in ASCII that shows exactly this text on one line; a character that LaTeX does not know appears
    as an escape.
    """
    return LIGATURES.sub(lambda match: f"{match[1]}{{}}" if match[1] else _character(match[2]), visible(text))


def _character(character: str) -> str:
    known = _known(character)
    return "".join(map(_known, f"\\u{ord(character):04x}")) if known is None else known


def _known(character: str) -> str | None:
    """LaTeX for one character, None where there is none."""
    if character in TEXTS:
        return TEXTS[character]
    if character.isascii():
        return character
    if character in MATHS:
        return f"${MATHS[character]}$"
    if unicodedata.category(character) == "Zs":
        return " "
    return _greek(character) or _raised(character) or _accented(character)


def _greek(character: str) -> str | None:
    found = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(character, ""))
    name = found[2].lower().replace("lamda", "lambda") if found else ""
    if name not in GREEK:
        return None
    if found[1] == "SMALL":
        return "$o$" if name == "omicron" else f"$\\{name}$"
    return f"$\\mathrm{{{LATIN_LIKE[name]}}}$" if name in LATIN_LIKE else f"$\\{name.capitalize()}$"


def _raised(character: str) -> str | None:
    """Superscripts and subscripts, by what they decompose to."""
    place, _, code = unicodedata.decomposition(character).partition("> ")
    command = {"<super": "\\textsuperscript", "<sub": "\\textsubscript"}.get(place)
    inner = _known(chr(int(code, 16))) if command and " " not in code else None
    return f"{command}{{{inner}}}" if inner else None


def _accented(character: str) -> str | None:
    letter, *marks = unicodedata.normalize("NFD", character)
    if len(marks) != 1 or marks[0] not in ACCENTS or not (letter.isascii() and letter.isalpha()):
        return None
    return f"\\{ACCENTS[marks[0]]}{{{letter}}}"


def _groups(table: Table) -> list[str]:
    """The line of the groups and the short rules below them."""
    if not table.groups:
        return []
    groups_by_column(table)  # raises where groups and columns do not agree
    cells, rules, start = [""], [], 2
    for text, count in table.groups:
        cells += [f"\\multicolumn{{{count}}}{{c}}{{{escape(text)}}}"] if count else []
        rules += [f"\\cmidrule(lr){{{start}-{start + count - 1}}}"] if text and count else []
        start += count
    return [_line(cells), *([" ".join(rules)] if rules else [])]


def _row(row: Row, columns: int) -> str:
    label = escape(f"{row.label} {row.marks}".rstrip(" "))
    if not row.cells:
        return f"\\multicolumn{{{columns}}}{{@{{}}l}}{{\\textbf{{{label}}}}} \\\\"
    return _line([label, *map(_cell, row.cells)])


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"\\textbf{{{text}}}" if cell.best else text
    sign = f"${MATHS[TIE]}$" if tied(cell) else ""
    detail = [f"{{\\scriptsize {escape(cell.detail)}}}"] if cell.detail else []
    return " ".join(filter(None, [text + sign, *detail, escape(cell.marks)]))


def _line(cells) -> str:
    return " & ".join(cells) + " \\\\"
