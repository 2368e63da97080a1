"""Pictures of ComfyUI's page with this pack for docs/screenshots: `python -m tools.screenshots`.

They need no models: the templates' browser, and a graph on pocket after a run.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tools import api_graphs as prompts
from tools.comfyui import ROOT, find_or_fetch
from tools.page import Page, open_page
from tools.server import PACK, Server

FOLDER = ROOT / "docs" / "screenshots"
SIZE = 1440, 900  # pixels, as shown
FINER = 5 / 3  # a graph on a larger page: one that is zoomed out far has no words in it
FIRST = "pocket_image_prompt"


def graph(page: Page) -> None:
    """The first template as a run leaves it."""
    page.open(prompts.workflow(FIRST))
    page.run(300)
    page.tab.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")


def templates(page: Page) -> None:
    """The template browser at our workflows, in the order of their numbers."""
    page.tab.evaluate("app.extensionManager.setting.set('Comfy.Templates.SortBy', 'alphabetical')")
    page.tab.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.tab.get_by_text(PACK, exact=True).click()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    models = ROOT / "out" / "no_models"
    models.mkdir(parents=True, exist_ok=True)
    with Server(find_or_fetch(), ROOT / "out" / "workflows", models) as server:
        for shoot, finer in ((graph, FINER), (templates, 1)):
            with open_page(server.address, *(round(side * finer) for side in SIZE)) as page:
                shoot(page)
                page.tab.wait_for_timeout(3000)  # pictures load, the view moves
                seen = page.tab.screenshot()
            path: Path = FOLDER / f"{shoot.__name__}.webp"
            picture = Image.open(io.BytesIO(seen)).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
            picture.save(path, quality=80, method=6)
            print(path)


if __name__ == "__main__":
    main()
