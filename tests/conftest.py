"""One real ComfyUI server and one open page of it for a whole test session, on seeded random models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import figures, needs
from tools.comfyui import ROOT, find_or_fetch
from tools.page import Page, find_browser, open_page
from tools.server import Server

MODELS = ROOT / "out" / "random_models"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    # In a process of its own, so that what it reads of ComfyUI and its memory are gone afterwards.
    subprocess.run([sys.executable, "-m", "tools.random_models", str(MODELS)], check=True, cwd=ROOT)
    with Server(
        find_or_fetch(), ROOT / "out" / "tests", MODELS, [ROOT / "tests" / "support" / "small_nodes"]
    ) as running:
        yield running


@pytest.fixture(scope="session")
def page(server: Server) -> Iterator[Page]:
    if find_browser() is None:
        needs.missing("chromium, chromium-browser or google-chrome")
    with open_page(server.address) as opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables that tests filled a row each, whole and once."""
    for title, lines in config.stash.get(figures.TABLES, {}).items():
        terminalreporter.section(title)
        terminalreporter.write_line("\n".join(lines))
