"""Pictures of ComfyUI's page with this pack for docs/screenshots: `python -m tools.screenshots`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tools import api_graphs as prompts
from tools.comfyui import ROOT, find_or_fetch
from tools.page import Page, open_page
from tools.random_models import ensure
from tools.server import PACK, Server

FOLDER = ROOT / "docs" / "screenshots"


LARGEST = 200_000  # bytes


def templates(page: Page, path: Path) -> None:
    """The template browser at our workflows."""
    page.tab.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.tab.get_by_text(PACK, exact=True).click()
    page.tab.wait_for_timeout(2500)
    page.tab.screenshot(path=path)


def masks(page: Page, path: Path) -> None:
    """A larger workflow alone."""
    page.open(prompts.workflow("two_references"))
    page.picture(path)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    models = ROOT / "out" / "random_models"
    ensure(models)
    shots = {"templates": templates, "two_references": masks}
    with Server(find_or_fetch(), ROOT / "out" / "workflows", models) as server:
        for name, shoot in shots.items():
            path = FOLDER / f"{name}.png"
            with open_page(server.address, 1800, 950) as page:
                shoot(page, path)
            if path.stat().st_size > LARGEST:
                Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
            print(path)


if __name__ == "__main__":
    main()
