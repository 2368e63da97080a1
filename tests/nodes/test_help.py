"""Help panels, web/docs/NODE_ID.md: what each node has is named there, and what a page points at exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.support import host

pytestmark = pytest.mark.comfy

DOCS = host.ROOT / "web" / "docs"
IDS = [node.GET_SCHEMA().node_id for node in host.part("nodes").NODES]
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")  # with words for those who do not see it
LARGEST = 60_000  # bytes of a picture: a clone carries them all


def pages(id: str) -> list[Path]:
    """A node's page, and those in other languages, whose pictures the page looks for in the same place."""
    return [DOCS / f"{id}.md", *sorted((DOCS / id).glob("*.md"))]


@pytest.mark.parametrize("node", host.part("nodes").NODES, ids=IDS)
def test_a_page_names_all_that_its_node_has(node: type) -> None:
    schema = node.GET_SCHEMA()
    english = (DOCS / f"{schema.node_id}.md").read_text(encoding="utf-8")
    assert english.startswith(f"# {schema.display_name}\n")
    assert "\n## Example\n" in english
    for entry in schema.inputs:  # pages in other languages name them as those label them: test_locales
        assert f"**{entry.id}**" in english, f"{schema.node_id} does not name {entry.id}"
        assert entry.tooltip, f"{schema.node_id}.{entry.id} has no tooltip"


@pytest.mark.parametrize("id", IDS)
def test_what_a_page_points_at_exists(id: str) -> None:
    for page in pages(id):
        text = page.read_text(encoding="utf-8")
        for picture in PICTURE.findall(text):
            path = DOCS / picture
            assert path.stat().st_size <= LARGEST, picture
            with Image.open(path) as opened:
                opened.verify()
        for name in re.findall(r"`(docs/[^`]+|pocket/[^`]+)`", text):
            assert (host.ROOT / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("id", IDS)
def test_templates_that_a_page_names_are_offered(id: str) -> None:
    """By the beginning of their names, which are sentences."""
    offered = [path.stem for path in (host.ROOT / "workflows").glob("*.json")]
    text = (DOCS / f"{id}.md").read_text(encoding="utf-8")
    lines = [line.split(". ")[0] for line in text.splitlines() if line.startswith("Template")]
    named = [name for line in lines for name in re.findall(r"`([^`]+)`", line)]
    assert [name for name in named if not any(title.startswith(name) for title in offered)] == []


def test_no_picture_is_there_for_nothing() -> None:
    pages = [page for folder in ("web/docs", "docs") for page in (host.ROOT / folder).rglob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [path.name for path in (DOCS / "pictures").iterdir() if f"pictures/{path.name})" not in text] == []
