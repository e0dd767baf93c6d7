"""Plain paragraphs of prose from a MediaWiki XML dump, through the parse tree of mwparserfromhell."""

import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

VERSION = 1  # raise it when the same dump gives other paragraphs
SHORTEST = 100  # characters; below are captions, stubs of lists, formula lead-ins

# stands for what has no plain text; its paragraph is dropped rather than left with a hole
_UNSPEAKABLE = "\0"
_ITEM = "\1"  # stands for a list marker; items are dropped
_DEBRIS = re.compile(r"<ref|\{\{|\[\[|''|[\0\1]")  # what the author got wrong stays markup
_INLINE_TAGS = "abbr b big blockquote center code div em i nowiki s small span strong sub sup tt u var"
_INLINE_TAGS = set(_INLINE_TAGS.split())
_UNSPEAKABLE_TAGS = {"math", "chem", "ce", "score", "hiero"}
_ITEM_TAGS = {"li", "dd", "dt"}
_NO_PROSE_LINK = re.compile(r"\s*(file|image|media|category|[a-z]{2,3}(-[a-z]+)?)\s*:", re.IGNORECASE)
_SILENT_TEMPLATE = re.compile(
    r"cit(e|ation)|vcite|harv|sfn|ref|efn|rp$|r$|note|main|see|further|about|for$|other|redirect|hatnote|"
    r"use |pp-|good |featured|infobox|taxobox|sister|portal|commons|wik|clear|-$|anchor|vanchor|flag|ipa|"
    r"respell|pron|audio|coord|who|when|which|where|clarify|dead|fact|page |dubious|by whom|unref|expand|"
    r"multiple|image|legend|toc|div col|col|nav|authority|wayback|webarchive|google|isbn|inflation-fn|"
    r"better|verif|failed|according|non-primary|primary|specify",
    re.IGNORECASE,
)
_SPOKEN_TEMPLATE = {  # name -> the positional arguments that a reader sees
    "convert": (1, 2),
    "lang": (2,),
    "transl": (2,),
    "nowrap": (1,),
    "small": (1,),
    "smaller": (1,),
    "nihongo": (1,),
    "quote": (1,),
    "angbr": (1,),
}


def articles(dump: Path) -> Iterator[tuple[str, str]]:
    """Yield (title, text) of every article of a bzip2-compressed dump, in its order; redirects are skipped.

    The text is paragraphs of running prose, a blank line between two: no headings, lists, tables, references,
    captions, and no paragraph with a formula or an unknown template inside.
    """
    with bz2.open(dump) as file:
        for _, page in ElementTree.iterparse(file):
            if _name(page) != "page":
                continue
            fields = {_name(element): element for element in page.iter()}
            if fields["ns"].text == "0" and "redirect" not in fields:
                yield fields["title"].text or "", "\n\n".join(paragraphs(fields["text"].text or ""))
            page.clear()


def paragraphs(markup: str) -> list[str]:
    """The paragraphs of prose in wiki markup."""
    lines = (_tidy(line) for line in _speak(mwparserfromhell.parse(markup)).split("\n"))
    return [line for line in lines if _is_prose(line)]


def _speak(code: Wikicode | None) -> str:
    return "".join(_speak_node(node) for node in code.nodes) if code is not None else ""


def _speak_node(node) -> str:
    match node:
        case Text():
            return str(node.value)
        case HTMLEntity():
            return node.normalize() or ""
        case Wikilink():
            return "" if _NO_PROSE_LINK.match(str(node.title)) else _speak(node.text or node.title)
        case ExternalLink():
            return _speak(node.title)
        case Tag():
            return _speak_tag(node)
        case Template():
            return _speak_template(node)
    return "\n" if type(node).__name__ == "Heading" else ""


def _speak_tag(tag: Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _INLINE_TAGS:
        return _speak(tag.contents)
    if name in _ITEM_TAGS:
        return _ITEM
    if name == "br":
        return " "
    return _UNSPEAKABLE if name in _UNSPEAKABLE_TAGS else ""


def _speak_template(template: Template) -> str:
    name = str(template.name).strip().lower().replace("_", " ")
    if name in _SPOKEN_TEMPLATE:
        seen = (template.get(position, None) for position in map(str, _SPOKEN_TEMPLATE[name]))
        return " ".join(_speak(argument.value).strip() for argument in seen if argument is not None)
    return "" if _SILENT_TEMPLATE.match(name) else _UNSPEAKABLE


def _tidy(line: str) -> str:
    """Close the gaps that silent templates leave, most of them in the brackets after an article's subject."""
    line = re.sub(r"\s+", " ", line)
    line = re.sub(r"([(,;]) ?(?:[,;:] ?)+", r"\1 ", line)
    line = re.sub(r"\( ", "(", line)
    line = re.sub(r" ?\([,;: ]*\)", "", line)
    return re.sub(r" ([,.;:)])", r"\1", line).strip()


def _is_prose(line: str) -> bool:
    complete = re.search(r"[.!?][\"')”’]*$", line) is not None
    return complete and len(line) >= SHORTEST and not _DEBRIS.search(line)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
