"""A freshly added node: with its defaults and its required sockets it runs, or says in a sentence what is missing."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support import clip_models, host, models

pytestmark = pytest.mark.comfy
nodes, sockets, pocket, folders = (
    host.part(name) for name in ("nodes", "nodes.sockets", "nodes.forms.pocket", "nodes.folders")
)

import folder_paths  # noqa: E402
from comfy_execution.utils import CurrentNodeContext  # noqa: E402

KINDS = host.part("nodes.prompts.noise").KINDS
NODES = {node.GET_SCHEMA().node_id: node for node in nodes.NODES}
H94 = "https://huggingface.co/h94/IP-Adapter/resolve/main/models"
NO_ADAPTER = ("pocket.safetensors is for another model", "models/ipadapter", f"{H94}/ip-adapter_sd15.safetensors")
NO_ENCODER = ("CLIP ViT-H/14 is missing", "1.3 GB", "clip_vision/clip_vision_h.safetensors", "models/clip_vision")
# What says something instead of running, wherever it is, with what the sentence names.
ALWAYS = {
    "ImagePromptEncodeFaces": ("neither pictures nor identities", "connect"),
    "ImagePromptLoad": ("Save Image Prompt", "models/image_prompts"),
    "ImagePromptAttentionMap": ("nothing has been recorded", "Connect it"),
}
APPLYING = ("ImagePrompt", "ImagePromptApply", "ImagePromptApplyInMasks", "ImagePromptRegions")


@pytest.fixture
def folder(folder: Path) -> Path:
    pocket.register()
    return folder


def defaults(node: Any) -> dict[str, Any]:
    """The widgets of a node as the page makes them: the default, else the first choice."""
    found = {}
    for entries in node.INPUT_TYPES().values():
        for name, (kind, *rest) in entries.items():
            settings = rest[0] if rest else {}
            first = settings["options"][0] if kind == "COMBO" else None
            if kind in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN") and not settings.get("forceInput"):
                found[name] = settings.get("default", first)
    return found


@torch.inference_mode()  # as ComfyUI runs nodes
def ran(node_id: str, **linked: Any) -> tuple[Any, ...]:
    """What a node gives with its defaults. Raises ValueError as the page would show it, before the run or in it."""
    node, values = NODES[node_id], defaults(NODES[node_id])
    if "validate_inputs" in node.__dict__:
        names = node.validate_inputs.__code__.co_varnames[1 : node.validate_inputs.__code__.co_argcount]
        if (verdict := node.validate_inputs(**{name: values[name] for name in names})) is not True:
            raise ValueError(verdict)
    return node.run(**values, **linked).args


def links(node_id: str, model: Any) -> dict[str, Any]:
    """What comes in at a node's required sockets: of freshly added nodes, where they are ours."""
    image, masks = torch.rand(1, 80, 64, 3), torch.ones(1, 8, 8)
    given = {
        "model": lambda: model,
        "image": lambda: image,
        "masks": lambda: masks,
        "latent": lambda: {"samples": torch.zeros(1, 4, 8, 8)},
        "adapter": lambda: ran("ImagePromptLoadAdapter")[0],
        "encoder": lambda: ran("ImagePromptLoadEncoder")[0],
        "image_prompt": lambda: ran("ImagePromptEncode", image=image, encoder=given["encoder"]())[0],
        "record": lambda: ran("ImagePromptRecord", model=model)[1],
        "regions": lambda: {"region_0": ran("ImagePromptRegion", image_prompt=given["image_prompt"]())[0]},
    }  # fmt: skip
    given["first"] = given["second"] = given["image_prompt"]
    required = NODES[node_id].INPUT_TYPES().get("required", {})
    return {name: given[name]() for name in required if name in given and name not in defaults(NODES[node_id])}


def said(node_id: str, model: Any) -> str:
    """The sentence of a freshly added node; "" where it runs."""
    try:
        ran(node_id, **links(node_id, model))
    except ValueError as error:
        print(f"\n{error}")
        assert "\n" not in str(error) and len(str(error)) < 400
        return str(error)
    return ""


def held(sentence: str, parts: tuple[str, ...]) -> None:
    assert bool(sentence) == bool(parts), sentence
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("node_id", NODES)
def test_on_pocket(node_id: str, folder: Path) -> None:
    """Nothing is downloaded: all but those that need a choice run."""
    held(said(node_id, ran("ImagePromptLoadPocket")[0]), ALWAYS.get(node_id, ()))


@pytest.mark.parametrize("node_id", APPLYING)
def test_on_sd15_without_files(node_id: str, folder: Path) -> None:
    """A newcomer's first checkpoint: the sentence has the file, its address and its folder."""
    held(said(node_id, models.comfy_model("SD15", 32)), NO_ADAPTER)


@pytest.mark.parametrize("node_id", APPLYING)
def test_on_sd15_with_an_adapter(node_id: str, folder: Path) -> None:
    """Without its encoder, the commonest state; then with it, of whatever name."""
    model = models.comfy_model("SD15", 32)
    save_file(models.adapter_weights("base", model), folder / "ipadapter" / "z.safetensors")
    folder_paths.filename_list_cache.clear()
    if node_id == "ImagePrompt":  # it alone knows the adapter before a picture is encoded
        held(said(node_id, model), NO_ENCODER)
    save_file(encoder_weights(), folder / "clip_vision" / "any name.safetensors")
    folder_paths.filename_list_cache.clear()
    assert said(node_id, model) == ""


@functools.cache
def encoder_weights() -> dict[str, torch.Tensor]:
    return clip_models.random_weights(clip_models.vision_config("ViT-H-14", layers=2))


def test_a_wrong_base_names_the_adapters_that_fit(folder: Path) -> None:
    small = models.comfy_model("SD15", 32)
    save_file(models.adapter_weights("base", small), folder / "ipadapter" / "a.safetensors")
    folder_paths.filename_list_cache.clear()
    held(said("ImagePrompt", ran("ImagePromptLoadPocket")[0]), ("CLIP ViT-H/14 is missing",))
    adapter = ran("ImagePromptLoadAdapter")[0]
    with pytest.raises(ValueError, match=r"a\.safetensors is for SD1\.5, but .*\(pocket\.safetensors, pocket_plus"):
        host.part("nodes.apply").checked_host(ran("ImagePromptLoadPocket")[0], adapter)


def test_pocket_is_in_our_lists_alone_and_last(folder: Path) -> None:
    """Other nodes cannot read its files: ComfyUI's Load CLIP Vision and LoRA loaders do not offer them."""
    for kind, name in (("ipadapter", "a.safetensors"), ("clip_vision", "b.safetensors")):
        (folder / kind / name).write_bytes(b"")
    folder_paths.filename_list_cache.clear()
    assert folders.adapter_files() == ["a.safetensors", "pocket.safetensors", "pocket_plus.safetensors"]
    listed = NODES["ImagePromptLoadEncoder"].INPUT_TYPES()["required"]["weights"][1]["options"]
    assert listed[:2] == ["auto", "b.safetensors"] and listed[-1] == "pocket/"
    for kind in ("ipadapter", "clip_vision", "loras"):
        assert not [name for name in folder_paths.get_filename_list(kind) if "pocket" in name]


def test_the_sticker_look_is_the_lora(folder: Path) -> None:
    plain, tuned = ran("ImagePromptLoadPocket")[0], NODES["ImagePromptLoadPocket"].execute(look="sticker").args[0]
    print(f"\npatches: plain {len(plain.patches)}, sticker {len(tuned.patches)}")
    assert not plain.patches and len(tuned.patches) > 100


class Page:
    """Stands where ComfyUI's server does: what nodes show, by their id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[tuple[str, str]] = []
        instance = SimpleNamespace(send_progress_text=lambda text, node: self.texts.append((node, text)))
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
        monkeypatch.setitem(host.sys.modules, "server", module)

    def run(self, node_id: str, number: str, **inputs: Any) -> Any:
        self.texts.clear()
        with CurrentNodeContext("prompt", number, 0):
            return NODES[node_id].run(**inputs)


def test_a_refusal_is_shown_on_its_node_and_goes_when_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)
    with pytest.raises(ValueError, match="no image prompt is saved yet") as error:
        page.run("ImagePromptLoad", "7", file="none saved yet")
    assert page.texts == [("7", f"⚠ {error.value}")]
    save_file({"faces": torch.ones(1, 512)}, folder / "image_prompts" / "face.safetensors")
    page.run("ImagePromptLoad", "7", file="face.safetensors")
    assert page.texts == [("7", "identities of 1 face")]
    # a node that says nothing of itself: the page never takes a text away
    noise = {"kind": KINDS[0], "strength": 1.0, "blur": 0.0, "seed": 0}
    with pytest.raises(ValueError, match="NaN or infinite values"):
        page.run("ImagePromptNoise", "8", **noise, image=torch.full((1, 8, 8, 3), torch.nan))
    page.run("ImagePromptNoise", "8", **noise, image=torch.rand(1, 8, 8, 3))
    assert page.texts == [("8", "✓")]
    page.run("ImagePromptNoise", "8", **noise, image=torch.rand(1, 8, 8, 3))
    assert page.texts == []


def test_loaders_say_what_a_file_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, model = Page(monkeypatch), models.comfy_model("SD15", 32)
    save_file(models.adapter_weights("base", model), folder / "ipadapter" / "a.safetensors")
    save_file(encoder_weights(), folder / "clip_vision" / "e.safetensors")
    folder_paths.filename_list_cache.clear()
    adapter = page.run("ImagePromptLoadAdapter", "1", file="a.safetensors").args[0]
    assert page.texts[0][1].splitlines()[0] == "SD1.5 · base · needs ViT-H/14"
    page.run("ImagePromptLoadEncoder", "2", weights="auto", architecture="auto", adapter=adapter)
    assert page.texts == [("2", "CLIP ViT-H/14 · e.safetensors (the one that fits)")]
    settings = defaults(NODES["ImagePrompt"]) | {"layers": "all"}
    page.run("ImagePrompt", "3", model=model, image=torch.rand(1, 80, 64, 3), **settings)
    lines = page.texts[0][1].splitlines()
    assert lines[:2] == ["SD1.5 · base · needs ViT-H/14", "CLIP ViT-H/14 · e.safetensors (the one that fits)"]
    assert lines[2].startswith("layers 0-15")
