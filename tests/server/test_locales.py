"""The page in Chinese: titles, categories, inputs, outputs and tooltips of our nodes, and their help."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page as Tab

from tools import locales
from tools.page import Page, show_help
from tools.server import PACK, Server

pytestmark = pytest.mark.comfy
# What the page shows of a node; a label comes before the name in the page's language, as where it draws them.
SHOWN = """type => {
    const node = LiteGraph.createNode(type), shown = slot => slot.label || slot.localized_name;
    return {
        title: node.title, category: node.constructor.category, description: node.constructor.nodeData.description,
        inputs: Object.fromEntries(node.inputs.map(slot => [slot.name, shown(slot)])),
        widgets: Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.label])),
        outputs: node.outputs.map(shown),
    };
}"""
OFFERED = "() => app.extensionManager.setting.settings['Comfy.Locale'].options.map(option => option.value ?? option)"
READY = "() => 'ImagePrompt' in (window.LiteGraph?.registered_node_types ?? {}) && window.app?.vueAppReady"


@pytest.fixture(scope="module")
def chinese(page: Page, server: Server) -> Iterator[Tab]:
    """A second tab beside the session's own, which stays as it is."""
    setting = f"{server.address}/settings/Comfy.Locale"
    page.tab.request.post(setting, data='"zh"')
    tab = page.tab.context.browser.new_page()
    tab.goto(server.address)
    tab.wait_for_function(READY, timeout=90_000)
    yield tab
    tab.close()
    page.tab.request.post(setting, data='"en"')


def test_our_nodes_are_in_chinese(chinese: Tab, server: Server) -> None:
    """All of them, those of older graphs too."""
    nodes = json.loads((locales.LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    parts = json.loads((locales.LOCALES / "zh" / "main.json").read_text(encoding="utf-8"))["nodeCategories"]
    known = server.get("/object_info")
    ours = {id: info for id, info in known.items() if info["python_module"] == f"custom_nodes.{PACK}"}
    assert set(ours) == set(nodes)
    for id, entry in nodes.items():
        shown = chinese.evaluate(SHOWN, id)
        assert shown["title"] == entry["display_name"]
        assert shown["category"] == "/".join(parts.get(part, part) for part in ours[id]["category"].split("/"))
        assert shown["description"] == entry["description"]
        # Sockets that grow (region_0, region_1) are named by the page, in every language alike.
        names = {key: told["name"] for key, told in entry["inputs"].items() if key != "regions"}
        assert {key: shown["inputs"].get(key) for key in names} == names
        assert {key: name for key, name in shown["widgets"].items() if key in names}.items() <= names.items()
        for index, told in entry.get("outputs", {}).items():
            assert shown["outputs"][int(index)] == told.get("name", shown["outputs"][int(index)])


def test_help_is_in_chinese(chinese: Tab) -> None:
    """The page takes NODE/zh.md before NODE.md."""
    show_help(chinese, "ImagePromptRecord")
    heading = chinese.locator(".node-help-content h1")
    heading.wait_for(timeout=30_000)
    assert heading.inner_text() == locales.read("zh")["titles"]["Record Attention"]


def test_languages_are_the_page_s_own(chinese: Tab, server: Server) -> None:
    offered = chinese.evaluate(OFFERED)
    print(f"\nthe page offers {offered}")
    assert set(locales.LANGUAGES) <= set(offered)
    assert set(locales.LANGUAGES) <= set(server.get("/i18n"))
