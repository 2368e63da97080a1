"""What the encoder sees: another size, small batches, masks, tiles; against transformers and formulas written apart."""

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from tests.support import figures, host
from tests.support.clip_models import random_weights, small_config

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

LIMIT = 1e-5
encoders, sized, pictures, protocol = (
    host.part(f"nodes.{name}") for name in ("encoders", "sized", "prompts.pictures", "prompts.protocol")
)
forms = {name: host.part(f"nodes.forms.{name}") for name in ("encode", "encode_tiles")}
core = host.part("ipadapter_core")

CONFIG = small_config(hidden_size=768, num_attention_heads=12, image_size=64, patch_size=16)
MEAN, STD = (
    torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)


def encoder() -> Any:
    """4 x 4 patches of 16 px, 3 layers, of weights that fp16 holds."""
    return encoders.build_encoder(random_weights(CONFIG))


def image(count: int = 1, height: int = 96, width: int = 96, channels: int = 3, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, channels), generator=draw).float() / 255


@torch.inference_mode()
def encode(*inputs: Any, **settings: Any) -> Any:
    """The outputs of Encode Image Prompt, as ComfyUI runs it."""
    return forms["encode"].EncodeImagePrompt.execute(*inputs, **settings).result


@torch.inference_mode()
def encode_tiles(using: Any, picture: Tensor, **settings: Any) -> Any:
    defaults = {"rows": 0, "columns": 0, "overlap": 0.0, "mix": 0.5, "soft": True, "crop": "centre"}
    return forms["encode_tiles"].EncodeImageTiles.execute(using, picture, **defaults | settings).result


@torch.no_grad()
def by_transformers(pixels: Tensor) -> dict[str, Tensor]:
    """Features of normalised pixels [B, 3, S, S], S any multiple of the patch."""
    model = CLIPVisionModelWithProjection(CONFIG).eval()
    model.load_state_dict({key: value.float() for key, value in random_weights(CONFIG).items()}, strict=False)
    output = model(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
    return {"pooled": output.image_embeds, "penultimate": output.hidden_states[-2]}


@pytest.mark.parametrize("size", [96, 128, 48, 16])
def test_another_size_is_transformers_own(size: int) -> None:
    prompt, seen, _ = encode(encoder(), image(2), "centre", size=size)
    assert seen.shape == (2, size, size, 3)
    expected = by_transformers((seen.movedim(-1, 1) - MEAN) / STD)
    for feature, reference in expected.items():
        figures.show(f"{size} px {feature}, against transformers'", prompt.features(feature), reference, LIMIT)
    zeros = by_transformers(torch.zeros(1, 3, size, size))["penultimate"]
    figures.show(f"{size} px zero states", prompt.zero_states(), zeros, LIMIT)


def test_the_encoder_is_left_as_it_was() -> None:
    """A, B, A: own size, another one, own size, with one encoder that others hold; an error in between, too."""
    using = encoder()
    before = {key: value.clone() for key, value in using.get_sd().items()}
    first = encode(using, image(), "centre")[0].features("penultimate")
    other = encode(using, image(), "centre", size=96)[0]
    assert other.features("penultimate").shape == (1, 37, 768) and using.image_size == 64
    with pytest.raises((RuntimeError, ValueError)), torch.inference_mode():
        sized.seeing_size(using, 96).model(pixel_values=torch.zeros(1, 3, 64, 64))  # not the size that it is for
    again = encode(using, image(), "centre")[0].features("penultimate")
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[key]) for key, value in using.get_sd().items())
    assert other.encoder.patcher is using.patcher


def test_own_size_is_the_encoder_itself() -> None:
    using = encoder()
    plain = encode(using, image(), "centre")[0]
    for size in (0, 64):
        prompt = encode(using, image(), "centre", size=size)[0]
        assert prompt.encoder is using
        assert torch.equal(prompt.features("penultimate"), plain.features("penultimate"))


@pytest.mark.parametrize(
    ("size", "words"),
    [(100, "choose 96 or 112, or 0 for its own size (64)"), (8, "choose 16 or 32"), (2000, "choose 1344")],
)
def test_sizes_that_do_not_fit(size: int, words: str) -> None:
    with pytest.raises(ValueError) as error:
        encode(encoder(), image(), "centre", size=size)
    print(f"\n{error.value}")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_another_kind_of_encoder_has_one_size() -> None:
    using = encoder()
    using.model_type = "dinov2"
    with pytest.raises(ValueError, match="only a CLIP image encoder can see another size"):
        encode(using, image(), "centre", size=96)
    assert encode(using, image(), "centre")[0].encoder is using


def test_an_adapter_of_a_fixed_length_refuses_another_size() -> None:
    spec = core.AdapterSpec("full-face", "penultimate", 768, 768, 17, (1,), core.MLPProjection(8), feature_length=17)
    own, other = (encode(encoder(), image(), "centre", size=size)[0] for size in (0, 96))
    assert protocol.given_of(own, spec, "a")[0].features.shape == (1, 17, 768)
    with pytest.raises(ValueError) as error:
        protocol.given_of(other, spec, "a")
    print(f"\n{error.value}")
    assert "expects 17 hidden states of a picture, got 37" in str(error.value) and "size at 0" in str(error.value)


def test_many_pictures_are_encoded_a_few_at_a_time() -> None:
    """The encoder never sees more than 16, and gives what it gives for all at once."""
    using, pixels = encoder(), image(40, 64, 64)
    runs: list[int] = []
    hook = using.model.register_forward_pre_hook(
        lambda _module, _inputs, given: runs.append(len(given["pixel_values"])), with_kwargs=True
    )
    ours = {feature: pictures.ImagePrompt(using, pixels).features(feature) for feature in ("pooled", "penultimate")}
    hook.remove()
    print(f"\nruns of {runs}")
    assert max(runs) == 16 and sum(runs) == 2 * 40
    whole = using.encode_image(pixels)
    figures.show("40 pictures, pooled", ours["pooled"], whole["image_embeds"], LIMIT)
    figures.show("40 pictures, penultimate", ours["penultimate"], whole["penultimate_hidden_states"], LIMIT)


@pytest.mark.parametrize("count", [1, 16])
def test_few_pictures_are_encoded_as_before(count: int) -> None:
    using, pixels = encoder(), image(count, 64, 64)
    assert torch.equal(
        pictures.ImagePrompt(using, pixels).features("pooled"), using.encode_image(pixels)["image_embeds"]
    )


def test_what_counts_is_opacity_and_mask() -> None:
    picture = image(2, 40, 60, 4)
    mask = torch.rand(1, 40, 60)
    using = encoder()
    counted = encode(using, picture, "centre", mask)[2]
    assert torch.allclose(counted, picture[..., 3] * mask, atol=1e-6)
    assert torch.equal(encode(using, picture, "centre")[2], picture[..., 3])
    assert torch.equal(encode(using, picture[..., :3], "centre")[2], torch.ones(2, 40, 60))
    other = encode(using, picture, "centre", torch.ones(1, 10, 10))[2]
    assert torch.allclose(other, picture[..., 3], atol=1e-6)


def test_what_does_not_count_is_white() -> None:
    """The picture on white by its opacity times the mask, within the rounding to 8 bits."""
    picture, mask = image(1, 64, 64, 4), torch.rand(1, 64, 64)
    seen = encode(encoder(), picture, "centre", mask)[1]
    share = (picture[..., 3] * mask)[..., None]
    worst = (seen - (picture[..., :3] * share + 1 - share)).abs().max().item()
    print(f"largest difference {worst * 255:.2f} of 255")
    assert worst <= 1.5 / 255


@pytest.mark.parametrize(
    ("size", "grid"),
    [((64, 64), (2, 2)), ((48, 96), (1, 2)), ((24, 192), (1, 8)), ((192, 24), (8, 1)), ((1, 3), (1, 3))],
)
def test_tiles_are_pictures_with_places(size: tuple[int, int], grid: tuple[int, int]) -> None:
    using, picture = encoder(), image(1, *size)
    _, tiles, masks, seen = encode_tiles(using, picture)
    rows, columns = grid
    assert seen.shape == (rows * columns, 64, 64, 3) and masks.shape == (rows * columns, *size)
    height, width = size[0] // rows, size[1] // columns
    for number in range(rows * columns):
        top, left = number // columns * height, number % columns * width
        cut = picture[:, top : top + height, left : left + width]
        alone = encode(using, cut, "stretch")
        assert torch.equal(seen[number], alone[1][0])
        figures.show(f"tile {number}", tiles.features("pooled")[number], alone[0].features("pooled")[0], LIMIT)
        place = torch.zeros(size)
        place[top : top + height, left : left + width] = 1
        assert torch.equal(masks[number], place)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_mix_of_the_whole_and_its_tiles(mix: float) -> None:
    using, picture = encoder(), image(2, 96, 96)
    merged, tiles, masks, _ = encode_tiles(using, picture, rows=2, columns=2, mix=mix)
    whole = encode(using, picture, "centre")[0]
    assert len(masks) == 8 and torch.equal(masks[:4], masks[4:])
    pooled = tiles.features("pooled").reshape(2, 4, -1).mean(1)
    states = tiles.features("penultimate").reshape(2, 2, 2, 17, 768)
    token = states[..., 0, :].mean((1, 2))[:, None]
    laid = torch.zeros(2, 8, 8, 768)
    for row in range(2):
        for column in range(2):
            laid[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = states[:, row, column, 1:].reshape(
                2, 4, 4, 768
            )
    patches = torch.nn.functional.avg_pool2d(laid.movedim(-1, 1), 2).flatten(2).mT
    for feature, of_tiles in (("pooled", pooled), ("penultimate", torch.cat([token, patches], 1))):
        expected = whole.features(feature) * (1 - mix) + of_tiles * mix
        figures.show(f"mix {mix}, {feature}", merged.features(feature), expected, LIMIT)
    if mix == 0:
        assert torch.equal(merged.features("pooled"), whole.features("pooled"))
    assert torch.equal(merged.zero_states(), whole.zero_states()) and merged.identities() is None
    assert merged.digest != encode_tiles(using, picture, rows=2, columns=2, mix=0.9)[0].digest


def test_large_tiles_have_small_masks() -> None:
    _, _, masks, _ = encode_tiles(encoder(), image(1, 8, 3000))
    assert masks.shape == (16, 3, 1024)
    assert (masks.sum(0) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"mix": 1.5}, "the mix of tiles"), ({"rows": 17}, "choose 1 to 16"), ({"size": 100}, "96 or 112")],
)
def test_bad_numbers_of_tiles(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_tiles(encoder(), image(), **settings)


def test_outside_of_a_server_nothing_is_shown() -> None:
    assert forms["encode"].EncodeImagePrompt.execute(encoder(), image(), "centre").ui is None
