"""Pocket's presets belong to pocket: the trainer knows nothing of them, and they serve any working folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket.evidence.studio import sources
from pocket.places import ROOT, Places
from pocket.training import adapters
from trainer.settings.load import load_config

NAMES = ("pocket", "pocket_plus", adapters.SIMPLE)


@pytest.mark.parametrize("name", NAMES)
def test_from_the_repositorys_root_a_preset_finds_its_parts(name: str) -> None:
    config = load_config(adapters.preset(name))
    assert (ROOT / config.model.base).samefile(Places().base)
    assert (ROOT / config.model.encoder).samefile(Places().encoder)


@pytest.mark.parametrize("name", NAMES)
def test_pocket_names_every_path_whatever_the_working_folder(name: str, tmp_path: Path) -> None:
    places = Places(tmp_path / "weights", tmp_path / "work")
    settings = adapters.own_settings(name, places) | {"run.folder": places.work / "runs" / name}
    words = adapters.chosen(settings)
    assert words[::2] == ["--set"] * len(settings)
    config = load_config(adapters.preset(name), words[1::2])
    paths = [config.model.base, config.model.encoder, config.data.source, config.data.cache, config.run.folder]
    assert all(Path(path).is_relative_to(tmp_path) for path in paths), paths
    assert config.adapter.attention == ("appended" if name == adapters.SIMPLE else "decoupled")


def test_pictures_depend_on_sources_that_are_there() -> None:
    """By what is imported, so a file that moves is followed."""
    found = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert all((ROOT / name).exists() for name in found)
    assert {"ipadapter_core", "pocket/world/drawing.py", "pocket/evidence/studio.py"} <= found
    assert {name.split("/")[0] for name in found} == {"ipadapter_core", "pocket", "trainer"}
