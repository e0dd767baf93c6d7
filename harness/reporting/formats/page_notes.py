"""Marks in cells and the footnotes they stand for, as links."""

import re
from collections.abc import Sequence
from typing import NamedTuple

MARK = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+|[†‡*≈]")


class Note(NamedTuple):
    id: str
    mark: str  # "" where the footnote has none
    text: str


class Piece(NamedTuple):
    """A part of a text; a mark has the footnote it stands for."""

    text: str
    note: Note | None


def notes_of(notes: Sequence[str], anchor: str) -> list[Note]:
    """Footnotes taken apart, with ids that begin with the table's."""
    found = []
    for place, note in enumerate(notes, 1):
        mark, _, text = note.partition(" ")
        found.append(
            Note(f"{anchor}-note-{place}", mark, text)
            if MARK.fullmatch(mark)
            else Note(f"{anchor}-note-{place}", "", note)
        )
    return found


def pieces(text: str, notes: Sequence[Note], place: str) -> list[Piece]:
    """The text in parts, every mark that has a footnote with that one; of several under one mark, the one
    about `place`.
    """
    if not text or not notes or not MARK.search(text):
        return [Piece(text, None)] if text else []
    found, end = [], 0
    for match in MARK.finditer(text):
        linked = [Piece(mark, _note(mark, notes, place)) for mark in _marks(match[0], notes)]
        found += [Piece(text[end : match.start()], None), *linked]
        end = match.end()
    return [piece for piece in (*found, Piece(text[end:], None)) if piece.text]


def _marks(digits: str, notes: Sequence[Note]) -> list[str]:
    """One mark, "¹²", where there are twelve footnotes, else two of them, "¹" and "²"."""
    return [digits] if any(note.mark == digits for note in notes) else list(digits)


def _note(mark: str, notes: Sequence[Note], place: str) -> Note | None:
    own = [note for note in notes if note.mark == mark]
    return next((note for note in own if note.text.startswith(f"{place}:")), own[0] if own else None)
