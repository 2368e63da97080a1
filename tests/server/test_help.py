"""Help panels in ComfyUI's page: the button with the i opens a node's page, and its pictures are loaded."""

from __future__ import annotations

import pytest

from tools.page import Page

pytestmark = pytest.mark.comfy

ADD = """kind => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    app.canvas.selectNode(node);
    app.canvas.setDirty(true, true);
}"""
LOADED = """() => {
    const pictures = [...document.querySelectorAll('.node-help-content img')];
    return pictures.length > 0 && pictures.every(picture => picture.complete && picture.naturalWidth > 0)
        ? pictures.map(picture => picture.alt) : null;
}"""


@pytest.mark.parametrize("kind", ["ImagePrompt", "ImagePromptTiles"])
def test_pictures_are_shown(kind: str, page: Page) -> None:
    page.tab.evaluate(ADD, kind)
    page.tab.locator("[data-testid=info-button]").click()
    pictures = page.tab.wait_for_function(LOADED, timeout=30_000).json_value()
    print(f"\n{kind}: {pictures}")
    assert "## " not in page.tab.locator(".node-help-content").inner_text()  # read as Markdown
