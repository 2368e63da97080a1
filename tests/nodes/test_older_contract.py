"""The older ids, inputs and outputs, as graphs and programs ask for them; and who keeps an id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import host
from tools import older_help

pytestmark = pytest.mark.comfy
register = host.part("nodes.older.register")
contract = host.part("nodes.older.contract")
import folder_paths  # noqa: E402

# Inputs, defaults, ranges, order and outputs of the 37 nodes, as they were published; for ever.
SNAPSHOT = json.loads(Path(__file__).with_name("older_contract.json").read_text())
FACTS = ("default", "min", "max", "step", "multiline")


def registered(**taken: Any) -> tuple[dict[str, Any], dict[str, str]]:
    classes, names = dict(taken), {}
    register.register(classes, names)
    return classes, names


def object_info(classes: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """What ComfyUI's /object_info says of nodes of the first kind."""
    info = {}
    for id, node in classes.items():
        inputs = node.INPUT_TYPES()
        info[id] = {
            "input": inputs,
            "input_order": {section: list(rows) for section, rows in inputs.items()},
            "output": node.RETURN_TYPES,
            "output_name": node.RETURN_NAMES,
            "display_name": names[id],
            "output_node": node.OUTPUT_NODE,
            "deprecated": node.DEPRECATED,
            "description": node.DESCRIPTION,
            "category": node.CATEGORY,
            "python_module": node.RELATIVE_PYTHON_MODULE,
        }
    return json.loads(json.dumps(info))


def described(entry: list[Any], section: str, is_file: bool) -> dict[str, Any]:
    kind, settings = entry
    is_choice = isinstance(kind, list)
    row = {"kind": "COMBO" if is_choice else kind, "optional": section == "optional"}
    row |= {fact: settings[fact] for fact in FACTS if fact in settings}
    return row | ({"choices": "files" if is_file else kind} if is_choice else {})


@pytest.mark.parametrize("id", SNAPSHOT)
def test_what_a_node_promises(id: str) -> None:
    """Inputs in their order, outputs, titles; `exact` comes after all widgets and changes nothing."""
    wanted = SNAPSHOT[id]
    info = object_info(*registered())[id]
    found: dict[str, Any] = {}
    for section in ("required", "optional"):
        for name, entry in info["input"].get(section, {}).items():
            assert entry[1]["tooltip"], name
            if name != "exact":
                found[name] = described(entry, section, wanted["inputs"].get(name, {}).get("choices") == "files")
    assert found == wanted["inputs"] and list(found) == list(wanted["inputs"])
    assert [list(pair) for pair in zip(info["output"], info["output_name"])] == wanted["outputs"]
    assert info["display_name"] == wanted["title"]
    assert info["output_node"] == (id == "IPAdapterSaveEmbeds")
    assert info["deprecated"] and info["description"] and info["category"] == "IP-Adapter/older graphs"
    if "exact" in info["input"].get("optional", {}):
        assert info["input"]["optional"]["exact"][1]["default"] is False
        assert list(info["input"]["optional"])[-1] == "exact"


def test_all_ids_are_there_each_with_a_class_of_its_own() -> None:
    classes, _ = registered()
    assert sorted(classes) == sorted(SNAPSHOT) and len(classes) == 37
    assert len(set(classes.values())) == 37
    for node in classes.values():
        assert not set(node.__mro__[1:]) & set(classes.values())
        assert callable(getattr(node(), node.FUNCTION))


def test_ids_of_another_pack_stay_its_own() -> None:
    theirs = type("Theirs", (), {})
    classes, names = registered(IPAdapter=theirs, PrepImageForClipVision=theirs)
    assert classes["IPAdapter"] is classes["PrepImageForClipVision"] is theirs
    assert "IPAdapter" not in names and len(names) == 35


def test_a_pack_that_comes_later_writes_over_ours() -> None:
    classes, _ = registered()
    theirs = type("Theirs", (), {})
    classes.update(dict.fromkeys(SNAPSHOT, theirs))
    assert set(classes.values()) == {theirs}


@pytest.mark.parametrize("word", ["0", "false", "off"])
def test_the_switch(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPADAPTER_OLDER_NODES", word)
    assert registered() == ({}, {})


def test_none_of_them_is_one_of_our_own_nodes() -> None:
    ours = {node.GET_SCHEMA().node_id for node in host.part("nodes").NODES}
    assert not ours & set(SNAPSHOT)


def test_every_node_has_its_help() -> None:
    for id, node in SNAPSHOT.items():
        page = (host.ROOT / "web" / "docs" / f"{id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['title']}\n")
        for name in node["inputs"]:
            assert f"**{name}**" in page, f"{id}: {name}"


def test_help_is_what_the_table_says() -> None:
    """Written anew with `python -m tools.older_help`."""
    for row in contract.NODES:
        written = (host.ROOT / "web" / "docs" / f"{row.id}.md").read_text(encoding="utf-8")
        assert written == older_help.page(row)


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a server with a few adapter files says of itself."""
    for name in (
        "ip-adapter_sd15.safetensors",
        "ip-adapter_sdxl_vit-h.safetensors",
        "faces/ip-adapter-faceid_sdxl.bin",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path)], {".safetensors", ".bin"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return object_info(*registered())


def test_what_krita_asks(info: dict[str, Any]) -> None:
    """Both ids, file names as they are under `required`, defaults or choices for whatever it leaves out, null."""
    assert {"IPAdapterModelLoader", "IPAdapter"} <= info.keys()
    files = [name.lower() for name in info["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"][0]]
    for part in ("ip-adapter_sd15", "ip-adapter_sdxl_vit-h", "ip-adapter-faceid_sdxl"):
        assert any(part in name for name in files)
    for id in ("IPAdapterEncoder", "IPAdapterCombineEmbeds", "IPAdapterEmbeds", "IPAdapterFaceID"):
        for name, (kind, settings) in info[id]["input"]["required"].items():
            is_socket = isinstance(kind, str) and kind not in ("FLOAT", "INT", "STRING", "BOOLEAN")
            assert is_socket or "default" in settings or kind[0], f"{id}.{name}"
        for name, (kind, settings) in info[id]["input"].get("optional", {}).items():
            # ComfyUI refuses null where it would turn it into a number or hold it to a range or a list.
            assert kind not in ("FLOAT", "INT") and not isinstance(kind, list) and "min" not in settings, f"{id}.{name}"


def test_what_swarmui_asks(info: dict[str, Any]) -> None:
    """Choices as the list in the first place."""
    assert {
        "IPAdapter",
        "IPAdapterModelLoader",
        "IPAdapterUnifiedLoader",
        "IPAdapterUnifiedLoaderFaceID",
    } <= info.keys()
    presets = info["IPAdapterUnifiedLoader"]["input"]["required"]["preset"][0]
    faces = info["IPAdapterUnifiedLoaderFaceID"]["input"]["required"]["preset"][0]
    weight_types = info["IPAdapter"]["input"]["required"]["weight_type"][0]
    assert "PLUS (high strength)" in presets and "FACEID PLUS V2" in faces
    assert weight_types == ["standard", "prompt is more important", "style transfer"]
    assert len(info["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"][0]) == 3
