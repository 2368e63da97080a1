"""Writes locales/, what ComfyUI's page shows of our nodes in other languages: `python -m tools.locales`.

A language is one table, tools/translations/CODE.json: its words by ours. What a table lacks is listed, and stops the
writing; what nothing uses any more is listed, too. A text that changes in a node is a new one here, so no translation
outlives its sense. The choices of a combo are not translated: the page has no place for that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tools.comfyui import ROOT
from tools.pack import load

LANGUAGES = ("zh", "zh-TW", "ja", "ko", "fr", "es", "pt-BR", "ru")  # as the page's setting Comfy.Locale names them
TABLES = ROOT / "tools" / "translations"
LOCALES = ROOT / "locales"
SECTIONS = ("categories", "titles", "names", "texts")  # of a table


@dataclass(frozen=True)
class Form:
    """What the page shows of a node. inputs, outputs: key, name and tooltip; a tooltip may be empty."""

    id: str
    category: str
    title: str
    description: str
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]


def forms(nodes: Any) -> list[Form]:
    """All nodes of the pack, its module `nodes` being given: our own, then those of older graphs."""
    ours = [_form(node, node.GET_SCHEMA().node_id, node.GET_SCHEMA().display_name) for node in nodes.NODES]
    older = nodes.older
    return ours + [_form(older.node_class(contract), contract.id, contract.title) for contract in older.NODES]


def _form(node: Any, id: str, title: str) -> Form:
    groups = [entries for group, entries in node.INPUT_TYPES().items() if group != "hidden"]
    inputs = [
        (name, name, _tooltip(rest[0] if rest else {})) for entries in groups for name, (_, *rest) in entries.items()
    ]
    tooltips = getattr(node, "OUTPUT_TOOLTIPS", None) or [None] * len(node.RETURN_TYPES)
    # An output that has its type's name is translated by the page, as a type.
    outputs = [
        (str(index), "" if name == kind else name, tooltip or "")
        for index, (kind, name, tooltip) in enumerate(zip(node.RETURN_TYPES, node.RETURN_NAMES, tooltips))
    ]
    return Form(id, node.CATEGORY, title, node.DESCRIPTION, tuple(inputs), tuple(outputs))


def _tooltip(settings: dict[str, Any]) -> str:
    return settings.get("tooltip") or ""


def wanted(found: Iterable[Form]) -> dict[str, dict[str, str]]:
    """By section, every word and text that a table needs, each with a place where it is."""
    words: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for form in found:
        for part in form.category.split("/")[1:]:  # the first is the method's own name
            words["categories"].setdefault(part, form.category)
        words["titles"].setdefault(form.title, form.id)
        words["texts"].setdefault(form.description, form.id)
        for key, name, tooltip in (*form.inputs, *form.outputs):
            words["names"].setdefault(name, f"{form.id}.{key}")
            words["texts"].setdefault(tooltip, f"{form.id}.{key}")
    return {section: {word: place for word, place in found.items() if word} for section, found in words.items()}


def missing(found: Iterable[Form], table: dict[str, dict[str, str]]) -> list[str]:
    """What a table lacks, each with where it is needed."""
    return [
        f"{section}: {word!r} of {place}"
        for section, words in wanted(found).items()
        for word, place in words.items()
        if not table.get(section, {}).get(word)
    ]


def stale(found: Iterable[Form], table: dict[str, dict[str, str]]) -> list[str]:
    """What a table has that no node uses."""
    words = wanted(found)
    return [
        f"{section}: {word!r}" for section in table for word in table[section] if word not in words.get(section, {})
    ]


def translated(form: Form, table: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A node's entry of nodeDefs.json. Raises KeyError for a word that the table lacks."""

    def entries(rows: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
        told = {
            key: {"name": name and table["names"][name], "tooltip": tooltip and table["texts"][tooltip]}
            for key, name, tooltip in rows
        }
        shown = {key: {word: text for word, text in entry.items() if text} for key, entry in told.items()}
        return {key: entry for key, entry in shown.items() if entry}

    entry = {
        "display_name": table["titles"][form.title],
        "description": table["texts"][form.description],
        "inputs": entries(form.inputs),
        "outputs": entries(form.outputs),
    }
    return {key: value for key, value in entry.items() if value}


def files(found: list[Form], table: dict[str, dict[str, str]]) -> dict[str, str]:
    """The files of a language by name, in the order of the nodes."""
    return {
        "main.json": _json({"nodeCategories": table["categories"]}),
        "nodeDefs.json": _json({form.id: translated(form, table) for form in found}),
    }


def _json(value: Any, depth: int = 0) -> str:
    """JSON with a line for each input, and for each text that belongs to none."""
    if not isinstance(value, dict) or (depth and all(key in ("name", "tooltip") for key in value)):
        return json.dumps(value, ensure_ascii=False)
    lines = [f"{' ' * (depth + 1)}{json.dumps(key)}: {_json(one, depth + 1)}" for key, one in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}" + ("" if depth else "\n")


def read(language: str) -> dict[str, dict[str, str]]:
    """A language's table: sections, and in them its words by ours."""
    return json.loads((TABLES / f"{language}.json").read_text(encoding="utf-8"))


def main() -> None:
    found = forms(load())
    for language in LANGUAGES:
        table = read(language)
        lacking = missing(found, table)
        if lacking:
            raise SystemExit("\n".join([f"{TABLES / language}.json lacks", *lacking]))
        for line in stale(found, table):
            print(f"{language} has what nothing uses: {line}")
        folder = LOCALES / language
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files(found, table).items():
            (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
