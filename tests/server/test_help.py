"""Help panels in ComfyUI's page: the button with the i opens a node's page, and its pictures are loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import needs
from tools.page import Page, find_browser, open_page, show_help
from tools.server import Server

pytestmark = pytest.mark.comfy

LOADED = """title => {
    const panel = document.querySelector('.node-help-content');
    const pictures = [...panel?.querySelectorAll('img') ?? []];
    const areLoaded = pictures.length > 0 && pictures.every(picture => picture.complete && picture.naturalWidth > 0);
    return panel?.querySelector('h1')?.innerText === title && areLoaded && pictures.map(picture => picture.alt);
}"""
CLOSE = "app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)"  # the server remembers it


@pytest.fixture(scope="module")
def own_page(server: Server) -> Iterator[Page]:
    """A page apart: this one looks for help in its language first, and notes as an error that there is none."""
    if find_browser() is None:
        needs.missing("chromium, chromium-browser or google-chrome")
    with open_page(server.address) as page:
        page.tab.evaluate(CLOSE)
        yield page
        page.tab.evaluate(CLOSE)


@pytest.mark.parametrize(
    ("kind", "title"), [("ImagePrompt", "Image Prompt"), ("ImagePromptTiles", "Encode Image Tiles")]
)
def test_pictures_are_shown(kind: str, title: str, own_page: Page) -> None:
    tab = own_page.tab
    show_help(tab, kind)
    pictures = tab.wait_for_function(LOADED, arg=title, timeout=30_000).json_value()
    print(f"\n{title}: {pictures}")
