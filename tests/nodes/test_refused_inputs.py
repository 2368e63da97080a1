"""What would become a black picture, or has no adapter anywhere, is said before anything runs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import host, models
from tools.unets import SD2, SDXL, SSD_1B

pytestmark = pytest.mark.comfy

core = host.part("ipadapter_core")
pictures, noise, tiled, insight = (
    host.part(f"nodes.prompts.{name}") for name in ("pictures", "noise", "tiled", "insight")
)
fit, older_features, older_pictures = (
    host.part(f"nodes.{name}") for name in ("hosts.fit", "older.features", "older.pictures")
)
encode_faces = host.part("nodes.forms.encode_faces")
REFINER = SDXL | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_middle": 4, "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    "context_dim": 1280, "adm_in_channels": 2560,
}  # fmt: skip
VEGA = SDXL | {
    "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}  # fmt: skip
CONFIGS = {"SDXLRefiner": REFINER, "SSD1B": SSD_1B, "Segmind_Vega": VEGA, "SD20": SD2}


def model(kind: str) -> Any:
    """A MODEL of a base's names and shapes, without weights."""
    config = copy.deepcopy(CONFIGS[kind]) | {"model_channels": 64}
    supported = getattr(models.comfy.supported_models, kind)(config)
    supported.unet_config = config
    built = supported.get_model({}, device="meta")
    return models.comfy.model_patcher.ModelPatcher(built, load_device="cpu", offload_device="cpu")


def adapter(identity: bool = False) -> Any:
    """Of SD1.5, thin."""
    layers = tuple(range(1, 32, 2))
    if identity:
        spec = core.AdapterSpec("FaceID", None, 0, 768, 4, layers, core.IdentityProjection(64), identity="normed")
    else:
        spec = core.AdapterSpec("base", "pooled", 1024, 768, 4, layers, core.LinearProjection())
    return models.loaded_adapter(core.IPAdapter(spec, dict.fromkeys(layers, 8)).state_dict())


@pytest.mark.parametrize("identity", [False, True], ids=["pictures", "faces"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("SDXLRefiner", "the SDXL refiner"), ("SSD1B", "SSD-1B"), ("Segmind_Vega", "Segmind Vega"), ("SD20", "SD2")],
)
def test_no_adapter_is_named_where_none_was_published(
    kind: str, name: str, identity: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_ = host.part("nodes.hosts.unet").UNet()
    target, given = model(kind), adapter(identity)
    with pytest.raises(ValueError, match=r"published for it, load a checkpoint of SD1\.5") as error:
        host_.check(given, target, host_.sites(target))
    print(error.value)
    assert f"but the model is {name}: no adapter" in str(error.value) and "an adapter for" not in str(error.value)
    monkeypatch.setattr(fit, "adapters_for", lambda *_: ["mine.safetensors"])  # someone trained one
    with pytest.raises(ValueError, match=r"load an adapter for .*\(mine\.safetensors\)"):
        host_.check(given, target, host_.sites(target))


def spoiled(shape: tuple[int, ...], value: float, everywhere: bool) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if everywhere:
        return torch.full_like(values, value)
    values.view(-1)[6] = value  # the first channel of a pixel
    return values


class Encoder:
    """What is needed of an encoder before it runs; it must never run."""

    image_size, patcher = 32, None

    def encode_image(self, _: Tensor) -> None:
        raise AssertionError


def detector() -> Any:
    return insight.FaceModel.__new__(insight.FaceModel)


READERS = {
    "Encode Image Prompt": lambda image: pictures.encode(Encoder(), image, "centre"),
    "mask of Encode Image Prompt": lambda image: pictures.encode(
        Encoder(), torch.rand(1, 24, 24, 3), "centre", image[..., 0]
    ),
    "mask that counts": lambda image: pictures.counted(torch.rand(1, 24, 24, 3), image[..., 0]),
    "tiles": lambda image: tiled.tile_views(image, host.part("ipadapter_core.method.tiles").tiling(24, 24), 32, 0.0),
    "faces": lambda image: detector().faces(image[0]),
    "given faces": lambda image: encode_faces.given_crops(image, 1)(core.FaceCrop("box", 32)),
    "Reference Noise": lambda image: noise.noisy(image, "fade", 0.5, 0),
    "attention mask": lambda image: core.Influence(mask=image[..., 0]),
    "older encode's mask": lambda image: older_features.encode(
        Encoder(), torch.rand(1, 24, 24, 3), "pooled", 32, mask=image[..., 0]
    ),
    "older encode": lambda image: older_features.encode(Encoder(), image, "pooled", 32),
    "older Prep Image": lambda image: older_pictures.prep_image(image),
}


@pytest.mark.parametrize("everywhere", [True, False], ids=["all", "one"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("reader", READERS)
def test_nan_is_said_before_it_is_black(reader: str, value: float, everywhere: bool) -> None:
    with pytest.raises(ValueError, match=r"NaN or infinite values.*make it again") as error:
        READERS[reader](spoiled((1, 24, 24, 3), value, everywhere))
    assert ("mask" in reader) == ("mask" in str(error.value))


def test_finite_values_beyond_0_and_1_are_read() -> None:
    """A sharpened picture or a soft mask may leave 0..1 a little: that is no fault."""
    image = torch.rand(2, 24, 24, 3) * 1.2 - 0.1
    assert pictures.encode(Encoder(), image, "centre", image[..., 0]).pixels.isfinite().all()
    assert core.Influence(mask=image[..., 0]).masks.shape == (2, 24, 24)
