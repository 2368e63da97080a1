"""What a file is, told by keys and shapes alone: every published layout, and those that nearly are another."""

import pytest
import torch

from ipadapter_core import (
    VARIANTS,
    AdapterSpec,
    FaceCrop,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
    base_name,
    detect,
    encoder_name,
    lora_of,
    resolve_variant,
)
from tests.support import published

SD15_LAYERS = tuple(range(1, 32, 2))
SDXL_LAYERS = tuple(range(1, 140, 2))

# As the nodes and the trainer see each published file.
SPECS = {
    "base SD1.5 (ViT-H), light": AdapterSpec("base", "pooled", 1024, 768, 4, SD15_LAYERS, LinearProjection()),
    "base SD1.5 vit-G": AdapterSpec("base", "pooled", 1280, 768, 4, SD15_LAYERS, LinearProjection()),
    "base SDXL (bigG)": AdapterSpec("base", "pooled", 1280, 2048, 4, SDXL_LAYERS, LinearProjection()),
    "base SDXL vit-h": AdapterSpec("base", "pooled", 1024, 2048, 4, SDXL_LAYERS, LinearProjection()),
    "plus, plus-face, composition SD1.5": AdapterSpec(
        "plus", "penultimate", 1280, 768, 16, SD15_LAYERS, ResamplerProjection(768, 4, 12, 3072)
    ),
    "plus, plus-face, composition SDXL vit-h": AdapterSpec(
        "plus", "penultimate", 1280, 2048, 16, SDXL_LAYERS, ResamplerProjection(1280, 4, 20, 5120)
    ),
    "full-face SD1.5": AdapterSpec("full-face", "penultimate", 1280, 768, 257, SD15_LAYERS, MLPProjection(1280)),
    "FaceID SD1.5": AdapterSpec(
        "FaceID", None, 0, 768, 4, SD15_LAYERS, IdentityProjection(1024), identity="normed", has_lora=True
    ),
    "FaceID SDXL": AdapterSpec(
        "FaceID", None, 0, 2048, 4, SDXL_LAYERS, IdentityProjection(1024), identity="normed", has_lora=True
    ),
    "FaceID portrait SD1.5": AdapterSpec(
        "FaceID portrait", None, 0, 768, 16, SD15_LAYERS, IdentityProjection(1024), identity="normed"
    ),
    "FaceID portrait SDXL": AdapterSpec(
        "FaceID portrait", None, 0, 2048, 16, SDXL_LAYERS, IdentityProjection(1024), identity="normed"
    ),
    "FaceID portrait unnorm SDXL": AdapterSpec(
        "FaceID portrait unnorm", None, 0, 2048, 16, SDXL_LAYERS, ResamplerProjection(1280, 4, 20, 5120), identity="raw"
    ),
    "FaceID plus v1 and v2 SD1.5": AdapterSpec(
        "FaceID plus", "penultimate", 1280, 768, 4, SD15_LAYERS,
        IdentityResamplerProjection(1024, ResamplerProjection(768, 4, 12, 3072)),
        identity="normed", face_crop=FaceCrop("aligned", 224), shortcut=True, has_lora=True,
    ),
    "FaceID plus v2 SDXL": AdapterSpec(
        "FaceID plus", "penultimate", 1280, 2048, 4, SDXL_LAYERS,
        IdentityResamplerProjection(1024, ResamplerProjection(2048, 4, 32, 8192)),
        identity="normed", face_crop=FaceCrop("aligned", 256), shortcut=True, has_lora=True,
    ),
    "Kolors plus": AdapterSpec(
        "Kolors plus", "penultimate", 1024, 2048, 16, SDXL_LAYERS, ResamplerProjection(2048, 4, 12, 8192),
        feature_length=577, base="Kolors",
    ),
    "Kolors FaceID plus": AdapterSpec(
        "Kolors FaceID plus", "penultimate", 1024, 2048, 6, SDXL_LAYERS,
        IdentityResamplerProjection(1024, ResamplerProjection(4096, 4, 64, 16384)),
        token_dim=4096, feature_length=577, identity="raw", face_crop=FaceCrop("box", 336), shortcut=True,
        zero_features=True, base="Kolors",
    ),
}  # fmt: skip
H, BIG_G, L336, NONE = "CLIP ViT-H/14", "CLIP ViT-bigG/14", "CLIP ViT-L/14-336", "no image encoder"
# For people: base model and encoder of each layout.
NAMES = {
    "base SD1.5 (ViT-H), light": ("SD1.5", H),
    "base SD1.5 vit-G": ("SD1.5", BIG_G),
    "base SDXL (bigG)": ("SDXL", BIG_G),
    "base SDXL vit-h": ("SDXL", H),
    "plus, plus-face, composition SD1.5": ("SD1.5", H),
    "plus, plus-face, composition SDXL vit-h": ("SDXL", H),
    "full-face SD1.5": ("SD1.5", H),
    "FaceID SD1.5": ("SD1.5", NONE),
    "FaceID SDXL": ("SDXL", NONE),
    "FaceID portrait SD1.5": ("SD1.5", NONE),
    "FaceID portrait SDXL": ("SDXL", NONE),
    "FaceID portrait unnorm SDXL": ("SDXL", NONE),
    "FaceID plus v1 and v2 SD1.5": ("SD1.5", H),
    "FaceID plus v2 SDXL": ("SDXL", H),
    "Kolors plus": ("Kolors", L336),
    "Kolors FaceID plus": ("Kolors", L336),
}


@pytest.mark.parametrize("name", published.LAYOUTS)
def test_published_layouts(name):
    spec = detect(published.LAYOUTS[name])
    print(name, "is", spec)
    assert spec == SPECS[name]
    assert (base_name(spec), encoder_name(spec)) == NAMES[name]


def test_parameters_of_the_paper():
    """22 M, as the paper says; the exact counts are those of the published SD1.5 file."""
    sizes = {key: value.numel() for key, value in published.LAYOUTS["base SD1.5 (ViT-H), light"].items()}
    projection = sum(size for key, size in sizes.items() if key.startswith("image_proj."))
    layers = sum(size for key, size in sizes.items() if key.startswith("ip_adapter."))
    print(f"{projection + layers:,} parameters: {projection:,} in the projection, {layers:,} in K' and V'")
    assert (projection, layers, projection + layers) == (3_150_336, 19_169_280, 22_319_616)


def test_sd2():
    assert base_name(detect(published.base(1024, 1024))) == "SD2"


def test_odd_base_is_described_in_numbers():
    """SSD-1B and the like: other depths are an adapter like any other."""
    tensors = {key: value for key, value in published.base(2048, 1280).items() if not key.startswith("ip_adapter.1")}
    spec = detect(tensors)
    assert "2048-wide text" in base_name(spec) and f"{len(spec.layers)} cross-attention layers" in base_name(spec)


def without_lora(tensors):
    return {key: value for key, value in tensors.items() if "_lora." not in key}


def family(tensors):
    spec = detect(tensors)
    print(
        f"{spec.family} for {base_name(spec)}: {spec.num_tokens} tokens, {spec.identity} identity, {encoder_name(spec)}"
    )
    return spec.family


def test_face_id_against_portrait():
    """The same keys: four tokens or a LoRA is FaceID, sixteen without a LoRA the portrait."""
    assert family(published.face_id(768, 4)) == "FaceID"
    assert family(published.face_id(768, 16)) == "FaceID"
    assert family(without_lora(published.face_id(768, 4))) == "FaceID"
    assert family(published.face_id(768, 16, has_lora=False)) == "FaceID portrait"
    assert family(published.face_id(2048, 16, has_lora=False)) == "FaceID portrait"


def test_unnorm_against_plus():
    """The same keys and the same resampler: only what it reads, 512 or 1280 wide, tells."""
    assert family(published.plus(2048, 1280, 20)) == "plus"
    assert family(published.plus(2048, 1280, 20, feature_dim=512)) == "FaceID portrait unnorm"


def test_unnorm_against_portrait():
    unnorm = detect(published.LAYOUTS["FaceID portrait unnorm SDXL"])
    portrait = detect(published.LAYOUTS["FaceID portrait SDXL"])
    assert (unnorm.identity, portrait.identity) == ("raw", "normed")
    assert unnorm.num_tokens == portrait.num_tokens == 16


def test_kolors_against_sdxl():
    """Layers and text are as wide: Kolors' resampler is as wide as the text, and reads ViT-L."""
    assert base_name(detect(published.plus(2048, 2048, 12, feature_dim=1024))) == "Kolors"
    assert base_name(detect(published.plus(2048, 1280, 20, feature_dim=1024))) == "SDXL"  # trained on ViT-L
    assert base_name(detect(published.plus(2048, 2048, 32))) == "SDXL"  # a wide one on ViT-H
    assert base_name(detect(published.face_id_plus(2048))) == "SDXL"
    assert base_name(detect(published.face_id_plus(2048, 4096, 1024, 6, has_lora=False))) == "Kolors"


def test_full_face_against_face_id():
    """Both have `proj.0` and `proj.2`: FaceID reads 512 and has its norm outside."""
    assert family(published.full_face()) == "full-face"
    assert family(published.face_id()) == "FaceID"


def test_face_id_plus_without_its_lora_is_still_one():
    spec = detect(without_lora(published.face_id_plus(768)))
    assert (spec.family, spec.has_lora) == ("FaceID plus", False)


def test_one_layout_is_one_family_and_only_metadata_or_the_user_tell():
    spec = detect(published.LAYOUTS["FaceID plus v1 and v2 SD1.5"])
    assert resolve_variant(spec, {}).shortcut
    assert not resolve_variant(spec, {}, "FaceID plus v1").shortcut
    assert resolve_variant(spec, {}, "FaceID plus v2").shortcut
    assert not resolve_variant(spec, {"shortcut": "false"}).shortcut
    with pytest.raises(ValueError, match="metadata contradict"):
        resolve_variant(spec, {"shortcut": "false"}, "FaceID plus v2")
    with pytest.raises(ValueError, match="expected true or false"):
        resolve_variant(spec, {"shortcut": "perhaps"})
    with pytest.raises(ValueError, match="unknown variant"):
        resolve_variant(spec, {}, "v9")
    full = detect(published.full_face())
    assert not resolve_variant(full, {}).zero_features
    assert resolve_variant(full, {}, "full-face, zero features").zero_features
    for variant in VARIANTS[1:]:
        with pytest.raises(ValueError, match="choose auto"):
            resolve_variant(detect(published.base(768, 1024)), {}, variant)


def test_identical_layouts_are_one_family():
    assert detect(published.base(768, 1024)) == detect(published.LAYOUTS["base SD1.5 (ViT-H), light"])
    names = ("plus, plus-face, composition SD1.5", "plus, plus-face, composition SDXL vit-h")
    assert {detect(published.LAYOUTS[name]).family for name in names} == {"plus"}


@pytest.mark.parametrize(("context", "layers"), [(768, 32), (2048, 140)], ids=["SD1.5", "SDXL"])
def test_lora_of_every_attention_layer(context, layers):
    found = lora_of(published.face_id(context))
    assert set(found) == {(index, name) for index in range(layers) for name in ("to_q", "to_k", "to_v", "to_out")}
    up, down = found[1, "to_k"]
    assert up.shape[1] == down.shape[0] == 128 and down.shape[1] == context
    assert lora_of(published.base(768, 1024)) == {}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ip_adapter.3.to_q_lora.up.weight", None, "lacks a half"),
        ("ip_adapter.3.to_q_lora.up.weight", (320, 64), "do not fit each other"),
        ("ip_adapter.3.to_q_lora.up.weight", (320,), "do not fit each other"),
    ],
)
def test_broken_lora(key, value, words):
    tensors = published.face_id()
    if value is None:
        del tensors[key]
    else:
        tensors[key] = torch.empty(value, device="meta")
    with pytest.raises(ValueError, match=words):
        lora_of(tensors)
