"""The manual: every link leads somewhere, and every file that it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_front_page_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 160


def test_the_tree_names_the_rooms_that_are_there():
    tree = (ROOT / "docs" / "tree.md").read_text(encoding="utf-8")
    block = tree[tree.index("```") : tree.rindex("```")]
    rooms = [path for top in ("harness", "methods") for path in (ROOT / top).rglob("__init__.py")]
    names = {path.parent.name for path in rooms if path.parent.parent != ROOT}
    assert sorted(name for name in names if f"{name}/" not in block) == []
