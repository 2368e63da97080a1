"""The older loaders on a folder of models: what they choose by content, how names tell twins apart, what is refused."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support import clip_models, host, models, published
from tests.support.model_folders import Header

pytestmark = pytest.mark.comfy
loaders, find, presets, sockets, register, inputs = (
    host.part(f"nodes.older.{n}") for n in ("loaders", "find", "presets", "sockets", "register", "inputs")
)
import folder_paths  # noqa: E402

core = host.part("ipadapter_core")
BASES = {base.name: base for base in core.BASES}
# By the layout's name: files of that content, with names as they were published.
SD15_FILES = {
    "base SD1.5 (ViT-H), light": ("ip-adapter_sd15_light", "ip-adapter_sd15_light_v11", "ip-adapter_sd15"),
    "base SD1.5 vit-G": ("ip-adapter_sd15_vit-G",),
    "plus, plus-face, composition SD1.5": (
        "ip-adapter-plus_sd15", "ip-adapter-plus-face_sd15", "ip_plus_composition_sd15",
    ),
    "full-face SD1.5": ("ip-adapter-full-face_sd15",),
    "FaceID SD1.5": ("ip-adapter-faceid_sd15",),
    "FaceID plus v1 and v2 SD1.5": ("ip-adapter-faceid-plus_sd15", "ip-adapter-faceid-plusv2_sd15"),
    "FaceID portrait SD1.5": ("ip-adapter-faceid-portrait_sd15", "ip-adapter-faceid-portrait-v11_sd15"),
}  # fmt: skip
SDXL_FILES = {
    "base SDXL (bigG)": ("ip-adapter_sdxl",),
    "base SDXL vit-h": ("ip-adapter_sdxl_vit-h",),
    "plus, plus-face, composition SDXL vit-h": (
        "ip-adapter-plus_sdxl_vit-h", "ip-adapter-plus-face_sdxl_vit-h", "ip_plus_composition_sdxl",
    ),
    "FaceID SDXL": ("ip-adapter-faceid_sdxl",),
    "FaceID plus v2 SDXL": ("ip-adapter-faceid-plusv2_sdxl",),
    "FaceID portrait SDXL": ("ip-adapter-faceid-portrait_sdxl",),
    "FaceID portrait unnorm SDXL": ("ip-adapter-faceid-portrait_sdxl_unnorm",),
    "Kolors plus": ("Kolors-IP-Adapter-Plus",),
}  # fmt: skip
CHOSEN = {
    ("SD1.5", "LIGHT - SD1.5 only (low strength)"): "ip-adapter_sd15_light_v11",
    ("SD1.5", "STANDARD (medium strength)"): "ip-adapter_sd15",
    ("SD1.5", "VIT-G (medium strength)"): "ip-adapter_sd15_vit-G",
    ("SD1.5", "PLUS (high strength)"): "ip-adapter-plus_sd15",
    ("SD1.5", "PLUS FACE (portraits)"): "ip-adapter-plus-face_sd15",
    ("SD1.5", "FULL FACE - SD1.5 only (portraits stronger)"): "ip-adapter-full-face_sd15",
    ("SD1.5", "FACEID"): "ip-adapter-faceid_sd15",
    ("SD1.5", "FACEID PLUS - SD1.5 only"): "ip-adapter-faceid-plus_sd15",
    ("SD1.5", "FACEID PLUS V2"): "ip-adapter-faceid-plusv2_sd15",
    ("SD1.5", "FACEID PORTRAIT (style transfer)"): "ip-adapter-faceid-portrait-v11_sd15",
    ("SD1.5", "FACEID PORTRAIT UNNORM - SDXL only (strong)"): None,
    ("SD1.5", "Composition"): "ip_plus_composition_sd15",
    ("SD1.5", "Kolors"): None,
    ("SDXL", "LIGHT - SD1.5 only (low strength)"): None,
    ("SDXL", "STANDARD (medium strength)"): "ip-adapter_sdxl_vit-h",
    ("SDXL", "VIT-G (medium strength)"): "ip-adapter_sdxl",
    ("SDXL", "PLUS (high strength)"): "ip-adapter-plus_sdxl_vit-h",
    ("SDXL", "PLUS FACE (portraits)"): "ip-adapter-plus-face_sdxl_vit-h",
    ("SDXL", "FULL FACE - SD1.5 only (portraits stronger)"): None,
    ("SDXL", "FACEID"): "ip-adapter-faceid_sdxl",
    ("SDXL", "FACEID PLUS - SD1.5 only"): None,
    ("SDXL", "FACEID PLUS V2"): "ip-adapter-faceid-plusv2_sdxl",
    ("SDXL", "FACEID PORTRAIT (style transfer)"): "ip-adapter-faceid-portrait_sdxl",
    ("SDXL", "FACEID PORTRAIT UNNORM - SDXL only (strong)"): "ip-adapter-faceid-portrait_sdxl_unnorm",
    ("SDXL", "Composition"): "ip_plus_composition_sdxl",
    ("Kolors", "Kolors"): "Kolors-IP-Adapter-Plus",
}


@pytest.fixture
def write(folder: Path) -> Header:
    return Header(folder / "ipadapter")


def chosen(base: str, preset: str) -> str:
    return find.find_adapter(presets.preset_of(preset), preset, BASES[base], "a model").name


def write_all(write: Header) -> None:
    for number, (layout, names) in enumerate((SD15_FILES | SDXL_FILES).items()):
        for place, name in enumerate(names):
            write(f"{name}.safetensors", published.LAYOUTS[layout], 1 + 10 * number + place)


def test_every_preset_among_all_published_files(write: Header) -> None:
    write_all(write)
    for (base, preset), wanted in CHOSEN.items():
        if wanted is None:
            with pytest.raises(ValueError, match="has adapters for"):
                chosen(base, preset)
        else:
            assert chosen(base, preset) == f"{wanted}.safetensors", (base, preset)


TWINS = {
    "LIGHT - SD1.5 only (low strength)": ("base SD1.5 (ViT-H), light", {"ip-adapter_sd15_light_v11", "my_light"}),
    "STANDARD (medium strength)": ("base SD1.5 (ViT-H), light", {"ip-adapter_sd15"}),
    "PLUS (high strength)": ("plus, plus-face, composition SD1.5", {"ip-adapter-plus_sd15"}),
    "PLUS FACE (portraits)": ("plus, plus-face, composition SD1.5", {"ip-adapter-plus-face_sd15"}),
    "Composition": ("plus, plus-face, composition SD1.5", {"ip_plus_composition_sd15"}),
    "FACEID PLUS - SD1.5 only": ("FaceID plus v1 and v2 SD1.5", {"ip-adapter-faceid-plus_sd15"}),
    "FACEID PLUS V2": ("FaceID plus v1 and v2 SD1.5", {"ip-adapter-faceid-plusv2_sd15"}),
}
NAMES = (
    "ip-adapter_sd15_light_v11", "my_light", "ip-adapter_sd15", "ip-adapter-plus_sd15", "ip-adapter-plus-face_sd15",
    "ip_plus_composition_sd15", "ip-adapter-faceid-plus_sd15", "ip-adapter-faceid-plusv2_sd15", "unnamed",
)  # fmt: skip


@pytest.mark.parametrize("preset", TWINS)
def test_every_pair_of_names_of_one_content(preset: str, write: Header, folder: Path) -> None:
    """A name that says what is asked for is taken, one that says something else never, one that says nothing last."""
    layout, right = TWINS[preset]
    family = presets.preset_of(preset).family
    of_family = [name for name in NAMES if name == "unnamed" or presets.twin_of(name, family, {})]
    if family == "plus":
        of_family = [name for name in of_family if "faceid" not in name]
    for pair in itertools.combinations(of_family, 2):
        for number, name in enumerate(pair):
            write(f"{name}.safetensors", published.LAYOUTS[layout], number)
        fitting = [name for name in NAMES if name in pair and name in right] or [n for n in pair if n == "unnamed"]
        if fitting:
            assert chosen("SD1.5", preset) == f"{fitting[0]}.safetensors", pair
        else:
            with pytest.raises(ValueError, match=r"no file in .* is one: put .* from https://huggingface\.co"):
                chosen("SD1.5", preset)
        for name in pair:
            (folder / "ipadapter" / f"{name}.safetensors").unlink()
        folder_paths.filename_list_cache.clear()


def test_a_renamed_file_is_known_by_its_content(write: Header) -> None:
    write("ip-adapter_sd15.safetensors", published.LAYOUTS["plus, plus-face, composition SD1.5"])
    write("whatever.safetensors", published.LAYOUTS["base SD1.5 (ViT-H), light"])
    assert chosen("SD1.5", "STANDARD (medium strength)") == "whatever.safetensors"


def test_other_things_in_the_folder_are_passed_by(write: Header, folder: Path) -> None:
    (folder / "ipadapter" / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "ipadapter" / "page.safetensors").write_text("<html>")
    write("lora.safetensors", {"lora_unet_down.lora_up.weight": torch.empty(4, 4)})
    write("mine.safetensors", published.LAYOUTS["full-face SD1.5"])
    assert chosen("SD1.5", "FULL FACE - SD1.5 only (portraits stronger)") == "mine.safetensors"


def test_two_that_fit_equally_are_named(write: Header) -> None:
    layout = published.LAYOUTS["full-face SD1.5"]
    write("one.safetensors", layout, 1)
    write("two.safetensors", layout, 2)
    with pytest.raises(ValueError, match=r"2 files fit equally \(one\.safetensors, two\.safetensors\)"):
        chosen("SD1.5", "FULL FACE - SD1.5 only (portraits stronger)")
    write("two.safetensors", layout, 1)  # the same bytes
    assert chosen("SD1.5", "FULL FACE - SD1.5 only (portraits stronger)") == "one.safetensors"


def test_metadata_tell_more_than_a_name(write: Header) -> None:
    layout = published.LAYOUTS["FaceID plus v1 and v2 SD1.5"]
    write("ip-adapter-faceid-plus_sd15.safetensors", layout, 1, shortcut="true")
    assert chosen("SD1.5", "FACEID PLUS V2") == "ip-adapter-faceid-plus_sd15.safetensors"


def test_a_pickle_is_known_without_its_weights(folder: Path) -> None:
    weights = models.adapter_weights("base", models.comfy_model("SD15", 32))
    nested: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in weights.items():
        group, _, rest = key.partition(".")
        nested[group][rest] = value
    torch.save(nested, folder / "ipadapter" / "ip-adapter_sd15.bin")
    save_file(weights, folder / "ipadapter" / "ip-adapter_sd15.safetensors")
    path = folder / "ipadapter" / "ip-adapter_sd15.bin"
    shapes = {key: value.shape for key, value in core.read_shapes(path).shapes.items()}
    assert shapes == {key: tuple(value.shape) for key, value in weights.items()}
    assert chosen("SD1.5", "STANDARD (medium strength)") == "ip-adapter_sd15.safetensors"


@functools.cache
def encoder_weights(name: str) -> dict[str, torch.Tensor]:
    return clip_models.random_weights(clip_models.vision_config(name, layers=2))


def test_encoders_by_their_widths(folder: Path) -> None:
    write = Header(folder / "clip_vision")
    with pytest.raises(ValueError, match=r"CLIP ViT-H/14 .*: put https://\S+/clip_vision_h\.safetensors there"):
        find.find_encoder(presets.VIT_H)
    assert find.find_encoder(presets.VIT_H, is_needed=False) is None
    write("a.safetensors", encoder_weights("ViT-H-14"), 1)
    write("b.safetensors", encoder_weights("ViT-bigG-14"), 2)
    assert find.find_encoder(presets.VIT_H).name == "a.safetensors"
    assert find.find_encoder(presets.VIT_BIG_G).name == "b.safetensors"
    write("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", encoder_weights("ViT-H-14"), 3)
    assert find.find_encoder(presets.VIT_H).name == "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
    write("other-vit-h-14.safetensors", encoder_weights("ViT-H-14"), 4)
    with pytest.raises(ValueError, match="2 files fit equally"):
        find.find_encoder(presets.VIT_H)


def test_a_preset_is_loaded_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapter and encoder in the shape that older nodes know; what was chosen is said on the node."""
    model = models.comfy_model("SD15", 32)
    save_file(models.adapter_weights("base", model), folder / "ipadapter" / "mine.safetensors")
    save_file(encoder_weights("ViT-H-14"), folder / "clip_vision" / "encoder.safetensors")
    folder_paths.filename_list_cache.clear()
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(loaders, "say_on", lambda id, text: said.append((id, text)))
    classes: dict[str, Any] = {}
    register.register(classes, {})
    node = classes["IPAdapterUnifiedLoader"]()
    assert node.INPUT_TYPES()["hidden"] == {"unique_id": "UNIQUE_ID"}
    same, found = node.load_models(model, "STANDARD (medium strength)", 0, "CPU", None, unique_id="7")
    assert same is model
    assert found["ipadapter"]["file"] == str(folder / "ipadapter" / "mine.safetensors")
    assert found["ipadapter"]["model"].keys() == {"image_proj", "ip_adapter"}
    assert found["clipvision"]["model"].image_size == 224 and found["insightface"] == {"provider": None, "model": None}
    assert said == [("7", "adapter: mine.safetensors (the only one that fits)\n"
                     "image encoder: encoder.safetensors (the only one that fits)")]  # fmt: skip
    (again,) = classes["IPAdapterModelLoader"]().load_ipadapter_model("mine.safetensors")
    assert again is found["ipadapter"]["model"]  # the same unchanged file is read once
    with pytest.raises(ValueError, match=r"'LIGHT.*no file in"):
        Path(folder / "ipadapter" / "mine.safetensors").rename(folder / "ipadapter" / "ip-adapter_sd15.safetensors")
        folder_paths.filename_list_cache.clear()
        node.load_models(model, "LIGHT - SD1.5 only (low strength)")


def test_paths_tell_what_content_cannot(folder: Path) -> None:
    layout = published.filled(published.LAYOUTS["FaceID plus v1 and v2 SD1.5"], torch.float16)
    for name, key in (("ip-adapter-faceid-plus_sd15", False), ("ip-adapter-faceid-plusv2_sd15", True)):
        save_file({k: v for k, v in layout.items() if "lora" not in k}, folder / "ipadapter" / f"{name}.safetensors")
        folder_paths.filename_list_cache.clear()
        (found,) = loaders.load_file(f"{name}.safetensors")
        assert ("faceidplusv2" in found) is key
        assert sockets.models_of(found).adapter.spec.shortcut is key


def lora_file(weights: dict[str, torch.Tensor], sites: Any) -> dict[str, torch.Tensor]:
    """The LoRA inside of an adapter as a file of its own, in the names of trainers' files."""
    names = core.attention_names(sites, "diffusers")
    found = {}
    for (index, matrix), (up, down) in core.lora_of(weights).items():
        name = f"lora_unet_{names[index]}.{core.MATRICES[matrix]}".replace(".", "_")
        found |= {f"{name}.lora_up.weight": up.clone(), f"{name}.lora_down.weight": down.clone()}
    return found


def test_the_lora_of_its_own_file(folder: Path) -> None:
    """By its name, or as the one inside of the adapter; missing, it is named with its address."""
    model = models.comfy_model("SD15", 32)
    _, sites = host.part("nodes.hosts").host_of(model)
    widths = {site.index: model.model.diffusion_model.get_submodule(site.comfyui).to_k.out_features for site in sites}
    weights = published.filled(published.lora(768, widths, rank=4))
    projection = {k: v for k, v in published.face_id(768, has_lora=False).items() if k.startswith("image_proj.")}
    layers = {k: v for k, v in models.adapter_weights("base", model).items() if k.startswith("ip_adapter.")}
    weights |= published.filled(projection) | layers
    adapter = models.loaded_adapter(weights)
    preset = presets.preset_of("FACEID")

    def found() -> str:
        folder_paths.filename_list_cache.clear()
        return find.find_lora(preset, BASES["SD1.5"], adapter, model).name

    with pytest.raises(ValueError, match=r"put faceid_sd15_lora\.safetensors from https://huggingface\.co/h94/IP-A"):
        found()
    own = lora_file(weights, sites)
    other = {key: torch.randn_like(value) for key, value in own.items()}
    save_file(other, folder / "loras" / "style.safetensors")
    save_file(own, folder / "loras" / "renamed.safetensors")
    assert found() == "renamed.safetensors"
    save_file(other, folder / "loras" / "ip-adapter-faceid_sd15_lora.safetensors")
    assert found() == "ip-adapter-faceid_sd15_lora.safetensors"
