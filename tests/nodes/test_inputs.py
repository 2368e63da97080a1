"""What Apply asks of image prompts: pictures and faces, and one sentence where they do not have it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import host, models, oracles, published
from tests.support.refusals import refusal

pytestmark = pytest.mark.comfy

protocol, faces, image_prompt = (
    host.part(f"nodes.{name}") for name in ("prompts.protocol", "prompts.faces", "prompts.pictures")
)
encoders = host.part("nodes.encoders")
core = host.part("ipadapter_core")

import comfy.clip_vision  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)

CHANNELS = 32


@functools.cache
def adapter(layout: str, base: str = "SD15", variant: str = "auto") -> Any:
    """An adapter of a published layout with layers as wide as the small model's."""
    channels = CHANNELS if base == "SD15" else 64

    def narrow(key: str, value: Tensor) -> Tensor:
        sizes = (s * channels // 320 if key.startswith("ip_") and s in (320, 640, 1280) else s for s in value.shape)
        return torch.empty(tuple(sizes), device="meta")

    shapes = {key: narrow(key, value) for key, value in published.LAYOUTS[layout].items()}
    return models.loaded_adapter(published.filled(shapes), f"{layout}.bin", variant)


def spec_of(layout: str, variant: str = "auto") -> Any:
    return core.resolve_variant(core.detect(published.LAYOUTS[layout]), {}, variant)


class Encoder(comfy.clip_vision.ClipVisionModel):
    """An image encoder of a published one's widths with two thin layers, which keeps what it sees."""

    def __init__(self, size: int = 224, hidden: int = 1280, pooled: int = 1024) -> None:
        super().__init__({
            "model_type": "clip_vision_model", "image_size": size, "patch_size": 14, "num_channels": 3,
            "hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16,
            "projection_dim": pooled, "hidden_act": "gelu",
        })  # fmt: skip
        torch.manual_seed(0)
        for value in self.model.parameters():
            torch.nn.init.normal_(value, std=0.05)
        self.seen: list[Tensor] = []

    @torch.inference_mode()
    def encode_image(self, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(image)
        return super().encode_image(image, *args, **kwargs)


class Crops:
    """Cuts faces of one colour each, and remembers how it was asked."""

    def __init__(self, num_faces: int = 2) -> None:
        self.num_faces, self.asked = num_faces, []

    def __call__(self, crop: Any) -> Tensor:
        self.asked.append(crop)
        colours = torch.arange(1, self.num_faces + 1) / 255
        return colours.reshape(-1, 1, 1, 1).expand(-1, crop.size, crop.size, 3)


IDENTITIES = torch.randn(2, 512, generator=torch.Generator().manual_seed(0)) * 1.1
FACE_LAYOUTS = [name for name in published.LAYOUTS if "FaceID" in name]


@pytest.mark.parametrize("layout", FACE_LAYOUTS)
def test_pictures_are_refused_for_faces(layout: str) -> None:
    prompt = image_prompt.ImagePrompt(Encoder(), torch.rand(1, 224, 224, 3))
    with refusal("a.bin", "reads faces' identities", "Encode Faces"):
        protocol.given_of(prompt, spec_of(layout), "a.bin")
    assert prompt.encoder.seen == []  # nothing was computed for it


@pytest.mark.parametrize("layout", FACE_LAYOUTS)
def test_faces_are_read_as_the_family_needs(layout: str) -> None:
    spec = spec_of(layout)
    kolors = spec.base == "Kolors"
    encoder = Encoder(336, 1024, 768) if kolors else Encoder()
    crops = Crops()
    prompt = faces.FacePrompt(IDENTITIES, crops, encoder)
    given, nothing = protocol.given_of(prompt, spec, "a.bin")
    raw = "unnorm" in layout or kolors
    assert (
        torch.equal(given.identities, IDENTITIES)
        if raw
        else torch.allclose(given.identities, F.normalize(IDENTITIES, dim=-1), atol=1e-6)
    )
    assert torch.equal(nothing.identities, torch.zeros(1, 512))
    if "plus" not in layout:
        assert given.features is nothing.features is None and crops.asked == encoder.seen == []
        return
    kind, size = ("box", 336) if kolors else ("aligned", 256 if "SDXL" in layout else 224)
    assert crops.asked == [core.FaceCrop(kind, size)]
    assert [tuple(seen.shape) for seen in encoder.seen] == [(2, encoder.image_size, encoder.image_size, 3)]
    assert given.features.shape == (2, *((577, 1024) if kolors else (257, 1280)))
    zeros = encoders.encode_zeros(encoder).float()
    assert torch.equal(nothing.features, torch.zeros_like(zeros) if kolors else zeros)
    protocol.given_of(prompt, spec, "a.bin")
    assert len(crops.asked) == len(encoder.seen) == 1  # computed once


def test_faces_without_what_is_needed() -> None:
    plus = spec_of("FaceID plus v1 and v2 SD1.5")
    with refusal("identities only", "give Encode Faces the pictures"):
        protocol.given_of(faces.FacePrompt(IDENTITIES, None, Encoder()), plus, "a.bin")
    with refusal("through an image encoder", "connect Load Image Encoder to Encode Faces"):
        protocol.given_of(faces.FacePrompt(IDENTITIES, Crops()), plus, "a.bin")
    given, _ = protocol.given_of(faces.FacePrompt(IDENTITIES), spec_of("FaceID SD1.5"), "a.bin")
    assert given.rows == 2


def test_normed_identities_are_refused_where_raw_ones_are_read() -> None:
    normed = faces.FacePrompt(F.normalize(IDENTITIES, dim=-1))
    with refusal("as the face model gives them", "length one"):
        protocol.given_of(normed, spec_of("FaceID portrait unnorm SDXL"), "a.bin")
    given, _ = protocol.given_of(normed, spec_of("FaceID SD1.5"), "a.bin")
    assert torch.allclose(given.identities, F.normalize(IDENTITIES, dim=-1), atol=1e-6)


@pytest.mark.parametrize("shape", [(512,), (0, 512), (1, 256), (1, 1, 512)], ids=str)
def test_identities_of_another_shape(shape: tuple[int, ...]) -> None:
    with refusal("expected [faces, 512]"):
        faces.FacePrompt(torch.zeros(shape))


def test_encoder_of_another_size_for_kolors() -> None:
    """ViT-L at 224 is as wide: only the number of hidden states tells."""
    prompt = image_prompt.ImagePrompt(Encoder(224, 1024, 768), torch.rand(1, 224, 224, 3))
    with refusal("577 hidden states", "got 257", "CLIP ViT-L/14-336"):
        protocol.given_of(prompt, spec_of("Kolors plus"), "a.bin")


def test_faces_with_an_adapter_for_pictures() -> None:
    """plus-face reads the box of the face; so a face prompt serves every adapter."""
    crops = Crops()
    prompt = faces.FacePrompt(IDENTITIES, crops, Encoder())
    given, _ = protocol.given_of(prompt, spec_of("plus, plus-face, composition SD1.5"), "a.bin")
    assert crops.asked == [core.FaceCrop("box", 224)] and given.identities is None


def test_full_face_of_zero_features() -> None:
    prompt = image_prompt.ImagePrompt(Encoder(), torch.rand(1, 224, 224, 3))
    zeros = encoders.encode_zeros(prompt.encoder).float()
    for variant, expected in (("auto", zeros), ("full-face, zero features", torch.zeros_like(zeros))):
        _, nothing = protocol.given_of(prompt, spec_of("full-face SD1.5", variant), "a.bin")
        assert torch.equal(nothing.features, expected)


@pytest.mark.parametrize("layout", ["FaceID portrait SD1.5", "FaceID plus v1 and v2 SD1.5"])
def test_two_faces_are_the_tokens_of_both(layout: str) -> None:
    """Concatenated, as the portrait was trained: both faces' tokens side by side; a swap changes nothing."""
    model = models.comfy_model("SD15", CHANNELS)
    two, swapped, one = (
        models.apply(model, adapter(layout), faces.FacePrompt(IDENTITIES[rows], Crops(len(rows)), Encoder()))
        for rows in ([0, 1], [1, 0], [0])
    )
    references = [model.get_attachment("image_prompt").references[0] for model in (two, swapped, one)]
    made = host.part("nodes.reference").constant_keys_values(references, torch.device("cpu"), torch.float32)
    kv = [constant.kv for constant in made]
    tokens = adapter(layout).spec.num_tokens
    assert len(kv[0]) == 2
    for role in kv[0]:
        k2, k1 = kv[0][role][1][0], kv[2][role][1][0]
        assert k2.shape[1] == 2 * tokens and k1.shape[1] == tokens
        if "portrait" in layout:
            assert torch.allclose(k2[:, :tokens], k1, atol=1e-6)
            assert torch.allclose(kv[1][role][1][0][:, tokens:], k1, atol=1e-6)


def test_shortcut_scale_of_zero_is_the_identity_alone() -> None:
    layout = "FaceID plus v1 and v2 SD1.5"
    given = core.Given(torch.randn(1, 257, 1280), F.normalize(IDENTITIES[:1], dim=-1))
    found = adapter(layout).model.image_tokens(given, 0.0)
    proj = oracles.group(adapter(layout).model.state_dict(), "image_proj")
    identity = oracles.IdentityProjection(768, 512, 4)
    identity.load_state_dict({key: value for key, value in proj.items() if not key.startswith("perceiver")})
    assert torch.allclose(found, identity(given[1]), atol=1e-5)


@pytest.mark.slow
def test_kolors_needs_the_text_projection_of_its_base() -> None:
    """From the model, or from the file; never from nowhere. And SDXL is not Kolors, in either direction."""
    kolors, sdxl = models.comfy_model("Kolors", 64), models.comfy_model("SDXL", 64)
    prompt = models.Features.random(tokens=577, pooled=768, hidden=1024)
    plus = adapter("Kolors plus", "Kolors")
    assert models.apply(kolors, plus, prompt) is not kolors
    with refusal("is for Kolors, but the model is SDXL"):
        models.apply(sdxl, plus, prompt)
    with refusal("is for SDXL, but the model is Kolors"):
        models.apply(kolors, adapter("base SDXL vit-h", "SDXL"), models.Features.random())
    projection = kolors.model.diffusion_model.encoder_hid_proj
    del kolors.model.diffusion_model.encoder_hid_proj  # its wider vector still tells that it is Kolors
    try:
        spec = core.detect(published.LAYOUTS["Kolors FaceID plus"])
        with refusal("base's projection of text, 4096 to 2048", "encoder_hid_proj"):
            host.part("nodes.hosts.fit").text_projection(type("Adapter", (), {"spec": spec, "name": "a.bin"}), kolors)
    finally:
        kolors.model.diffusion_model.encoder_hid_proj = projection
