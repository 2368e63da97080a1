"""Our nodes in the page's other languages: nothing is missing, nothing is left over, and no fact is lost."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.support import host
from tools import locales

pytestmark = pytest.mark.comfy

DOCS = host.ROOT / "web" / "docs"
FORMS = locales.forms(host.part("nodes"))
CHOICES = {
    choice
    for node in host.part("nodes").NODES
    for entries in node.INPUT_TYPES().values()
    for kind, *rest in entries.values()
    if kind == "COMBO"
    for choice in rest[0].get("options", [])
}
SYNTAX = re.compile(r"[{}@|<>]")  # the page would read these as placeholders, links, plurals and tags
NUMBER = re.compile(r"\d+(?:\.\d+)?")
QUOTED = re.compile(r"(?<!\w)'([^']+)'")
LANGUAGES = pytest.mark.parametrize("language", locales.LANGUAGES)


@LANGUAGES
def test_no_word_is_missing_or_left_over(language: str) -> None:
    table = locales.read(language)
    assert locales.missing(FORMS, table) == []
    assert locales.stale(FORMS, table) == []


@LANGUAGES
def test_files_are_as_the_table_and_the_nodes_make_them(language: str) -> None:
    """Else: `python -m tools.locales`."""
    written = {path.name: path.read_text(encoding="utf-8") for path in (locales.LOCALES / language).iterdir()}
    assert written == locales.files(FORMS, locales.read(language))


@LANGUAGES
def test_every_title_input_output_and_tooltip_has_a_text(language: str) -> None:
    """In the file that the page reads, by the page's own keys."""
    nodes = json.loads((locales.LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert list(nodes) == [form.id for form in FORMS]
    for form in FORMS:
        entry = nodes[form.id]
        assert entry["display_name"] and entry["description"]
        for group, rows in (("inputs", form.inputs), ("outputs", form.outputs)):
            words = {
                key: {word for word, text in (("name", name), ("tooltip", tip)) if text} for key, name, tip in rows
            }
            needed = {key: one for key, one in words.items() if one}
            assert {key: set(told) for key, told in entry.get(group, {}).items()} == needed, form.id


@LANGUAGES
def test_texts_keep_what_they_say(language: str) -> None:
    """Choices stay as the page shows them, names of inputs are the translated ones, and numbers are all there."""
    table = locales.read(language)
    names = table["names"]
    lost = []
    for text, told in table["texts"].items():
        kept = [word if word in CHOICES else names.get(word, "") for word in QUOTED.findall(text)]
        lost += [f"{word} in {told}" for word in kept if word not in told]
        fewer = Counter(NUMBER.findall(text)) - Counter(NUMBER.findall(told))  # more are counting words: 1枚
        lost += [f"{number} in {told}" for number in fewer]
    assert lost == []
    assert [word for words in table.values() for word in words.values() if SYNTAX.search(word)] == []


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_help_pages_name_what_the_page_shows(language: str) -> None:
    table = locales.read(language)
    for node in host.part("nodes").NODES:
        schema = node.GET_SCHEMA()
        text = (DOCS / schema.node_id / f"{language}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {table['titles'][schema.display_name]}\n"), schema.node_id
        inputs = {table["names"][entry.id] for entry in schema.inputs}
        assert inputs - set(re.findall(r"\*\*([^*]+)\*\*", text)) == set(), schema.node_id
        for title in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text):
            assert title not in table["titles"], f"{schema.node_id} names {title!r} in English"
