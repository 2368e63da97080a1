"""One image encoder, three implementations: open_clip's, transformers' and ComfyUI's give the same features.

Weights are seeded random ones that fp16 holds exactly, because ComfyUI stores them so on a CPU; pixels are of 8 bits.
"""

import json
import sys

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.support import figures, host
from tests.support.clip_models import random_weights, small_config, to_open_clip, vision_config

pytestmark = pytest.mark.comfy

LIMIT = 1e-5
encoders = host.part("nodes.encoders")
image_prompt = host.part("nodes.prompts.pictures")

import comfy.clip_vision  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)
import folder_paths  # noqa: E402

MEAN, STD = (
    torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)
# open_clip's names; the chosen architecture, None where weights alone must do.
ARCHITECTURES = {
    "ViT-H-14": None,
    "ViT-bigG-14": None,
    "ViT-L-14-quickgelu": None,
    "ViT-L-14": "ViT-L-14",
}


def pictures() -> Tensor:
    """Two squares [2, 224, 224, 3] of 8 bit values as floats of 0..1."""
    return torch.randint(0, 256, (2, 224, 224, 3), generator=torch.Generator().manual_seed(1)).float() / 255


def normalised(pixels: Tensor) -> Tensor:
    return (pixels.movedim(-1, 1) - MEAN) / STD


def by_transformers(config: CLIPVisionConfig, weights: dict[str, Tensor], pixels: Tensor) -> dict[str, Tensor]:
    """Features of normalised pixels [B, 3, 224, 224]."""
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
    model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False, assign=True)
    positions = len(weights["vision_model.embeddings.position_embedding.weight"])
    model.vision_model.embeddings.position_ids = torch.arange(positions)[None]  # no weight, so it was left on meta
    output = model.eval()(pixels, output_hidden_states=True)
    return {"pooled": output.image_embeds, "penultimate": output.hidden_states[-2]}


def by_open_clip(name: str, weights: dict[str, Tensor], pixels: Tensor) -> dict[str, Tensor]:
    config = open_clip.get_model_config(name)
    tower = _build_vision_tower(
        config["embed_dim"], config["vision_cfg"] | {"layers": 2}, config.get("quick_gelu", False)
    )
    tower.load_state_dict({key: value.float() for key, value in weights.items()})
    seen = []
    tower.transformer.resblocks[-2].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    return {"pooled": tower.eval()(pixels), "penultimate": seen[0]}


def by_comfyui(encoder: comfy.clip_vision.ClipVisionModel, pixels: Tensor) -> dict[str, Tensor]:
    """Through the nodes' image prompt, as Apply asks for them."""
    prompt = image_prompt.ImagePrompt(encoder, pixels)
    return {"pooled": prompt.features("pooled"), "penultimate": prompt.features("penultimate")}


@pytest.fixture
def folder(tmp_path):
    """A folder that ComfyUI lists encoders from."""
    known = folder_paths.folder_names_and_paths["clip_vision"]
    folder_paths.folder_names_and_paths["clip_vision"] = ([str(tmp_path)], known[1])
    folder_paths.filename_list_cache.pop("clip_vision", None)
    yield tmp_path
    folder_paths.folder_names_and_paths["clip_vision"] = known
    folder_paths.filename_list_cache.pop("clip_vision", None)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_three_implementations_agree(name):
    config, pixels = vision_config(name), pictures()
    weights = random_weights(config)
    reference = by_transformers(config, weights, normalised(pixels))
    known = encoders.architecture_facts(ARCHITECTURES[name]) if ARCHITECTURES[name] else None
    open_clips = to_open_clip(weights)
    given = {
        "open_clip's own": by_open_clip(name, open_clips, normalised(pixels)),
        "ours, transformers' layout": by_comfyui(encoders.build_encoder(dict(weights), known), pixels),
        "ours, open_clip's layout": by_comfyui(
            encoders.build_encoder({f"visual.{key}": value for key, value in open_clips.items()}, known), pixels
        ),
        "ours, open_clip's tower alone": by_comfyui(encoders.build_encoder(dict(open_clips), known), pixels),
    }
    for who, features in given.items():
        for kind, value in features.items():
            figures.show(f"{name} {kind}, {who} against transformers'", value, reference[kind], LIMIT)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ViT-H-14", "ViT-L-14-quickgelu"])
def test_zeros_are_zero_after_normalisation(name):
    """What stands for "no picture" in the training of the fine-grained adapters."""
    config = vision_config(name)
    weights = random_weights(config)
    zeros = encoders.encode_zeros(encoders.build_encoder(dict(weights)))
    reference = by_transformers(config, weights, torch.zeros(1, 3, 224, 224))["penultimate"]
    figures.show(f"{name} zero pixels", zeros, reference, LIMIT)


def test_zero_states_are_those_of_a_picture_of_zeros():
    encoder = encoders.build_encoder(random_weights(vision_config("ViT-H-14")))
    prompt = image_prompt.ImagePrompt(encoder, pictures())
    assert torch.equal(prompt.zero_states(), encoders.encode_zeros(encoder))


@pytest.mark.slow
@torch.no_grad()
def test_full_depth_through_comfyuis_own_loader(folder):
    """ViT-L, 24 layers, a file in open_clip's layout: an image prompt from ComfyUI's CLIP_VISION and from ours."""
    config, pixels = vision_config("ViT-L-14-quickgelu", layers=24), pictures()[:1]
    weights = random_weights(config)
    path = folder / "clip_vision_l.safetensors"
    save_file({f"visual.{key}": value for key, value in to_open_clip(weights).items()}, path)
    theirs, ours = comfy.clip_vision.load(str(path)), encoders.load_encoder(path.name)
    reference = by_transformers(config, weights, normalised(pixels))
    for who, encoder in (("ComfyUI's loader", theirs), ("ours", ours)):
        prompt = image_prompt.encode(encoder, pixels, "centre")
        for kind in ("pooled", "penultimate"):
            figures.show(f"ViT-L/14 full {kind}, {who}", prompt.features(kind), reference[kind], LIMIT)
    assert torch.equal(encoders.encode_zeros(theirs), encoders.encode_zeros(ours))


def test_unchanged_file_is_read_once_and_a_changed_one_again(folder):
    config = vision_config("ViT-L-14")
    path = folder / "a.safetensors"
    save_file(random_weights(config), path)
    first = encoders.load_encoder(path.name)
    assert encoders.load_encoder(path.name) is first
    assert encoders.load_encoder(path.name, "ViT-L-14") is not first
    before = host.part("nodes.forms.load_encoder").LoadEncoder.fingerprint_inputs(path.name, "auto")
    save_file(random_weights(config, seed=1) | {"more": torch.zeros(1)}, path)
    assert host.part("nodes.forms.load_encoder").LoadEncoder.fingerprint_inputs(path.name, "auto") != before
    second = encoders.load_encoder(path.name)
    assert second is not first
    key = "visual_projection.weight"
    assert not torch.equal(first.get_sd()[key], second.get_sd()[key])


def show_folder(what, config, weights):
    """The folder `encoder` against transformers with the same weights."""
    pixels = pictures()[:, :64, :64]
    ours = by_comfyui(encoders.load_encoder("encoder/"), pixels)
    reference = by_transformers(config, weights, normalised(pixels))
    for feature, value in ours.items():
        figures.show(f"{what}, {feature}", value, reference[feature], LIMIT)


@torch.no_grad()
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("kind", ["safetensors", "bin", "whole CLIP"])
def test_transformers_folder(folder, kind, act):
    config = small_config(hidden_act=act)
    weights = random_weights(config)
    place = folder / "encoder"
    if kind == "whole CLIP":
        text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        whole = CLIPModel(CLIPConfig(vision_config=config.to_dict(), text_config=text, projection_dim=48))
        whole.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)
        whole.save_pretrained(place)
    else:
        model = CLIPVisionModelWithProjection(config)
        model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)
        model.save_pretrained(place)
        if kind == "bin":
            (place / "model.safetensors").unlink()
            torch.save(model.state_dict(), place / "pytorch_model.bin")
    assert "encoder/" in host.part("nodes.folders").own_encoder_files()
    show_folder(f"folder, {kind}, {act}", config, weights)


@torch.no_grad()
def test_transformers_folder_that_leaves_out_what_is_default(folder):
    """Some published config.json name only what differs from transformers' defaults (12 heads, quick_gelu)."""
    config = small_config(num_attention_heads=12, hidden_act="quick_gelu")
    weights = random_weights(config)
    place = folder / "encoder"
    place.mkdir()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size", "projection_dim")
    (place / "config.json").write_text(json.dumps({name: getattr(config, name) for name in names}))
    save_file(weights, place / "model.safetensors")
    show_folder("folder with a short config", config, weights)


def refusal(call) -> str:
    with pytest.raises(ValueError) as error:
        call()
    print(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tag_without_open_clip_says_what_to_install(monkeypatch):
    """requirements.txt has no open_clip: files do not need it."""
    monkeypatch.setitem(sys.modules, "open_clip", None)
    message = refusal(lambda: encoders.load_encoder(encoders.TAGS[0]))
    assert "pip install open_clip_torch" in message and "models/clip_vision" in message


def test_wrong_architecture(folder):
    save_file(random_weights(vision_config("ViT-L-14")), folder / "a.safetensors")
    message = refusal(lambda: encoders.load_encoder("a.safetensors", "ViT-H-14"))
    assert "1024 wide" in message and "1280" in message and "'auto'" in message and "a.safetensors" in message


@pytest.mark.parametrize("name", ["ViT-X-99", "RN50"])
def test_unknown_architecture(folder, name):
    save_file(random_weights(vision_config("ViT-L-14")), folder / "a.safetensors")
    message = refusal(lambda: encoders.load_encoder("a.safetensors", name))
    assert f"no vision transformer named {name!r}: choose one of" in message


def test_missing_weights(folder):
    weights = random_weights(vision_config("ViT-L-14"))
    del weights["vision_model.encoder.layers.1.mlp.fc2.weight"]
    save_file(weights, folder / "a.safetensors")
    message = refusal(lambda: encoders.load_encoder("a.safetensors"))
    assert "lacks 1 weights (vision_model.encoder.layers.1.mlp.fc2.weight" in message


def test_weights_of_another_shape(folder):
    weights = random_weights(vision_config("ViT-L-14"))
    weights["vision_model.encoder.layers.1.mlp.fc2.weight"] = torch.zeros(3, 4).half()
    save_file(weights, folder / "a.safetensors")
    message = refusal(lambda: encoders.load_encoder("a.safetensors"))
    assert "vision_model.encoder.layers.1.mlp.fc2.weight is (3, 4), expected (1024, 4096)" in message


def test_no_encoder_at_all(folder):
    save_file({"lora_unet_mid.lora_down.weight": torch.zeros(4, 4)}, folder / "a.safetensors")
    assert "no CLIP image encoder was found in it" in refusal(lambda: encoders.load_encoder("a.safetensors"))


def test_encoder_of_no_published_width(folder):
    save_file(random_weights(small_config()), folder / "a.safetensors")
    assert "no published encoder is 96 wide" in refusal(lambda: encoders.load_encoder("a.safetensors"))


def test_folder_without_weights(folder):
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text("{}")
    assert "none of model.safetensors, pytorch_model.bin" in refusal(lambda: encoders.load_encoder("encoder/"))


def test_folder_with_a_damaged_config(folder):
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text("{")
    save_file(random_weights(small_config()), folder / "encoder" / "model.safetensors")
    assert "config.json" in refusal(lambda: encoders.load_encoder("encoder/"))


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x80\x02junk"], ids=["empty", "web page", "damaged"])
def test_damaged_file(folder, content):
    (folder / "a.safetensors").write_bytes(content)
    assert refusal(lambda: encoders.load_encoder("a.safetensors")).count("a.safetensors") == 1


def test_missing_file(folder):
    save_file(random_weights(small_config()), folder / "there.safetensors")
    message = refusal(lambda: encoders.load_encoder("not there.safetensors"))
    assert str(folder) in message and "there.safetensors" in message


def test_nan_in_an_encoder_is_caught_before_a_sampler(folder):
    weights = random_weights(small_config(hidden_size=768, num_attention_heads=12))
    weights["visual_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "a.safetensors")
    encoder = encoders.load_encoder("a.safetensors")
    assert "the image encoder gave NaN" in refusal(lambda: by_comfyui(encoder, pictures()[:, :64, :64]))
