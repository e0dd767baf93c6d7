"""What the renderers agree upon: how a cell and the heads of columns read."""

from collections.abc import Mapping

from harness.reporting.cells import Cell, Table
from harness.reporting.document import Section
from harness.reporting.labels import SEPARATOR

TIE = "≈"


def tied(cell: Cell) -> bool:
    """Whether the cell carries the sign of a tie: the best one itself does not."""
    return cell.tied and not cell.best


def groups_by_column(table: Table) -> list[str]:
    """The text of the group above every column but the first; "" where there is none.

    Raises:
        ValueError: the groups cover more or fewer columns than there are.
    """
    columns = len(table.head) - 1
    groups = [text for text, count in table.groups for _ in range(count)] if table.groups else [""] * columns
    if len(groups) != columns:
        raise ValueError(f"{table.title!r}: groups over {len(groups)} columns, {columns} columns")
    return groups


def below(chapters: Mapping[int, str], section: Section) -> dict[int, str]:
    """The headings above what stands in this section, by level, given those above the section."""
    return {level: title for level, title in chapters.items() if level < section.level} | {
        section.level: section.title
    }


def title_of(table: Table, chapters: tuple[str, ...] = ()) -> str:
    """Title and model, without what the headings above have just said; "" where they said all of it."""
    return SEPARATOR.join(filter(None, title_parts(table, chapters)))


def title_parts(table: Table, chapters: tuple[str, ...] = ()) -> tuple[str, str]:
    """The same as (title, model)."""
    title = table.title
    for chapter in chapters:
        if chapter and title.startswith(f"{chapter}: "):
            title = title.removeprefix(f"{chapter}: ")
            title = title if title == table.model else title[:1].upper() + title[1:]
    title = "" if title in (*chapters, table.model) else title
    return title, "" if table.model in chapters or title.endswith(f": {table.model}") else table.model
