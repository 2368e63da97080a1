"""ComfyUI's folders of models with nothing in them, for tests of which files are found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder that holds them."""
    from tests.support.model_folders import empty_folders  # reads ComfyUI

    with empty_folders(tmp_path) as root:
        yield root
