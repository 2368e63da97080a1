"""ComfyUI's page in headless Chromium: open graphs, drop pictures, and see what the page makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page as Tab
from playwright.sync_api import Playwright, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_running: list[Playwright] = []
# The nodes are registered, and the page has opened its own first graph.
READY = """() => window.app?.vueAppReady && 'ImagePrompt' in (window.LiteGraph?.registered_node_types ?? {})
    && app.graph?.nodes.length > 0"""
# Graphs alone: no first visit's template browser, no map, no counters over the canvas.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
# One new node of a kind, selected.
ALONE = """kind => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    app.canvas.selectNode(node);
    app.canvas.setDirty(true, true);
}"""
# Everything on the page that is no graph.
BARE = ".workflow-tabs-container, .side-toolbar-container, .p-splitter, .p-toast { display: none !important }"
# The part of the page that asks a hub, at any later moment, how large the models are that its own first graph lacks.
HUB = "/missingModelDownload-"
FIT = """([margin]) => {
    const nodes = app.graph.nodes.map(node => node.boundingRect ?? node.getBounding());
    const left = Math.min(...nodes.map(r => r[0])), top = Math.min(...nodes.map(r => r[1]));
    const right = Math.max(...nodes.map(r => r[0] + r[2])), bottom = Math.max(...nodes.map(r => r[1] + r[3]));
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [margin - left, margin - top];
    app.canvas.setDirty(true, true);
    return [right - left + 2 * margin, bottom - top + 2 * margin].map(Math.ceil);
}"""
RUN = """milliseconds => new Promise(async (resolve, reject) => {
    const failed = event => reject(new Error(event.detail.exception_message));
    app.api.addEventListener('execution_success', () => resolve(), {once: true});
    app.api.addEventListener('execution_error', failed, {once: true});
    setTimeout(() => reject(new Error('the graph did not end in time')), milliseconds);
    await app.queuePrompt(0);
})"""
SHOWN = """() => app.graph.nodes.filter(node => node.type === 'SaveImage')
    .every(node => node.imgs?.length && node.imgs.every(picture => picture.complete))"""
DROP = """async ([name, base64]) => {
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    await app.handleFile(new File([bytes], name, {type: 'image/png'}));
}"""


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Page:
    """An open page. `errors`: the console's errors and uncaught exceptions so far, with where they came from."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.errors: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", self._note)

    def _note(self, message: Any) -> None:
        if message.type == "error" and HUB not in message.location.get("url", ""):
            self.errors.append(_described(message))

    def open(self, workflow: dict[str, Any]) -> None:
        """Open a graph in page format, as the template browser does."""
        self.tab.evaluate("workflow => app.loadGraphData(workflow)", workflow)

    def drop(self, name: str, base64: str) -> None:
        """Drop a PNG on the page."""
        self.tab.evaluate(DROP, [name, base64])

    def missing(self) -> list[str]:
        """The types of nodes in the graph that the page does not know."""
        return self.tab.evaluate(
            "app.graph.nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type])"
        )

    def graph(self) -> dict[str, Any]:
        """The open graph in page format."""
        return json.loads(self.tab.evaluate("JSON.stringify(app.graph.serialize())"))

    def prompt(self) -> dict[str, Any]:
        """The open graph in API form, as the page sends it."""
        return self.tab.evaluate("async () => (await app.graphToPrompt()).output")

    def run(self, seconds: float = 120) -> None:
        """Run the open graph, and wait until its pictures are shown in it."""
        self.tab.evaluate(RUN, seconds * 1000)
        self.tab.wait_for_function(SHOWN, timeout=30_000)
        self.tab.wait_for_timeout(500)

    def picture(self, path: Path) -> None:
        """Save what the graph looks like as a PNG, without the page around it."""
        width, height = self.tab.evaluate(FIT, [20])
        self.tab.set_viewport_size({"width": width, "height": height})
        style = self.tab.add_style_tag(content=BARE)
        self.tab.evaluate(FIT, [20])
        self.tab.wait_for_timeout(1000)  # the canvas draws at its own pace
        self.tab.screenshot(path=path)
        style.evaluate("element => element.remove()")


def show_help(tab: Tab, kind: str) -> None:
    """Put one new node of a kind on the canvas, and open its help panel."""
    tab.evaluate(ALONE, kind)
    if not tab.locator(".node-help-content").is_visible():  # it follows the selection once it is open
        tab.locator("[data-testid=info-button]").click()


def _described(message: Any) -> str:
    return f"{message.text} ({message.location.get('url', '')})"


@contextmanager
def _playwright() -> Iterator[Playwright]:
    """The Playwright that runs already, or a new one: a thread cannot have two."""
    if _running:
        yield _running[0]
        return
    with sync_playwright() as started:
        _running.append(started)
        try:
            yield started
        finally:
            _running.clear()


@contextmanager
def open_page(address: str, width: int = 1600, height: int = 900) -> Iterator[Page]:
    """ComfyUI's page at `address` in a fresh browser. Raises ValueError when no Chromium is installed."""
    browser = find_browser()
    if browser is None:
        raise ValueError(f"no Chromium was found: install it as {', '.join(BROWSERS[:-1])} or {BROWSERS[-1]}")
    with _playwright() as playwright, playwright.chromium.launch(executable_path=browser, args=FLAGS) as chromium:
        tab = chromium.new_page(viewport={"width": width, "height": height})
        page = Page(tab)
        tab.request.post(f"{address}/settings", data=SETTINGS)
        tab.goto(address)
        tab.wait_for_function(READY, timeout=90_000)
        tab.wait_for_timeout(500)
        yield page
