"""What people feed by mistake: one clear sentence each, and nothing is lost; or it simply works."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import host, models
from tests.support.bad_files import FILES, GOOD, Attack, with_code
from tests.support.refusals import refusal

pytestmark = pytest.mark.comfy

adapters, forms_apply, forms_image_prompt, image_prompt = (
    host.part(f"nodes.{name}") for name in ("models", "forms.apply", "forms.image_prompt", "prompts.pictures")
)
core = host.part("ipadapter_core")

import comfy.clip_vision  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)
import folder_paths  # noqa: E402

BAD = "bad.safetensors"


@cache
def model() -> Any:
    return models.comfy_model("SD15", 32)


@cache
def weights(family: str = "base") -> dict[str, Tensor]:
    return models.adapter_weights(family, model())


@cache
def encoder(pooled: int = 1024, hidden: int = 1280) -> comfy.clip_vision.ClipVisionModel:
    """An encoder of these widths with two thin layers; ViT-H's by default."""
    config = {
        "model_type": "clip_vision_model", "image_size": 224, "patch_size": 32, "num_channels": 3,
        "hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16,
        "projection_dim": pooled, "hidden_act": "gelu",
    }  # fmt: skip
    built = comfy.clip_vision.ClipVisionModel(config)
    torch.manual_seed(0)
    for value in built.model.parameters():
        torch.nn.init.normal_(value, std=0.05)
    return built


@torch.inference_mode()  # as ComfyUI runs nodes
def encode(image: Tensor, crop: str = "centre", mask: Tensor | None = None, using: Any = None) -> tuple[Any, Tensor]:
    """The node: an image prompt and what the encoder saw."""
    return host.part("nodes.forms.encode").EncodeImagePrompt.execute(using or encoder(), image, crop, mask).result[:2]


@torch.inference_mode()
def load(name: str) -> Any:
    """The node: an adapter from a file in models/ipadapter."""
    return host.part("nodes.forms.load_adapter").LoadAdapter.execute(name).result[0]


@torch.inference_mode()
def apply(adapter: Any, prompt: Any, to: Any = None, **settings: Any) -> Any:
    """The node: a model that follows the prompt."""
    return forms_apply.ApplyAdapter.execute(to or model(), adapter, prompt, **settings).result[0]


def run(patched: Any) -> Tensor:
    result = models.sample(patched, models.text(5), models.text(0), steps=1, size=(8, 8))
    assert torch.isfinite(result).all()
    return result


def reference(height: int = 40, width: int = 30, channels: int = 3) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """models/ipadapter with one good adapter in it."""
    place = tmp_path_factory.mktemp("ipadapter")
    known = folder_paths.folder_names_and_paths["ipadapter"]
    folder_paths.folder_names_and_paths["ipadapter"] = ([str(place)], known[1])
    core.write_safetensors(place / GOOD, weights(), {})
    yield place
    folder_paths.folder_names_and_paths["ipadapter"] = known
    folder_paths.filename_list_cache.pop("ipadapter", None)


@dataclass(frozen=True)
class Works:
    """What works: a loaded adapter, a model patched with it, the pictures of the model and of the patched one."""

    adapter: Any
    patched: Any
    base: Tensor
    picture: Tensor


@pytest.fixture(scope="module")
def works(folder: Path) -> Works:
    adapter = load(GOOD)
    patched = apply(adapter, encode(reference())[0])
    base, picture = run(model()), run(patched)
    assert not torch.equal(base, picture)
    return Works(adapter, patched, base, picture)


@pytest.fixture
def nothing_lost(works: Works, folder: Path) -> Iterator[None]:
    """After a mistake all is as before it, bit for bit, and what was loaded is not loaded again."""
    files = {path: path.read_bytes() for path in folder.iterdir()}
    yield
    assert load(GOOD) is works.adapter
    assert torch.equal(run(works.patched), works.picture)
    assert torch.equal(run(model()), works.base)
    assert files.items() <= {path: path.read_bytes() for path in folder.iterdir()}.items()


@pytest.mark.parametrize("kind", FILES)
def test_file_that_is_no_adapter(folder: Path, nothing_lost: None, kind: str) -> None:
    write, words = FILES[kind]
    path = folder / BAD
    write(path)
    for _ in range(2):  # a refusal is not remembered as a success
        with refusal(BAD, *words):
            load(BAD)
    path.unlink()
    core.write_safetensors(path, weights(), {"note": "downloaded again"})
    run(apply(load(BAD), encode(reference())[0]))
    path.unlink()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_never_runs(folder: Path) -> None:
    path, mark = folder / BAD, folder / "mark"
    with_code(path)
    with refusal("was not loaded"):
        load(BAD)
    assert not mark.exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)  # the attack is a real one
    assert mark.exists()
    mark.rmdir()
    path.write_bytes(pickle.dumps(Attack(mark)))
    with refusal("was not loaded"):
        load(BAD)
    assert not mark.exists()
    path.unlink()


def test_missing_file(folder: Path, nothing_lost: None) -> None:
    with refusal("'gone.safetensors' was not found", str(folder), GOOD):
        load("gone.safetensors")
    assert host.part("nodes.forms.load_adapter").LoadAdapter.fingerprint_inputs(GOOD)
    with refusal("'gone.safetensors' was not found", str(folder), GOOD):
        host.part("nodes.forms.load_adapter").LoadAdapter.fingerprint_inputs("gone.safetensors")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname"])
def test_name_that_leads_out_of_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.safetensors").write_bytes((folder / GOOD).read_bytes())
    with refusal("was not found"):
        load(name)


@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize(
    ("pooled", "hidden", "name"), [(1280, 1664, "CLIP ViT-bigG/14"), (768, 1024, "CLIP ViT-L/14")], ids=["bigG", "L"]
)
def test_encoder_of_the_wrong_width(nothing_lost: None, family: str, pooled: int, hidden: int, name: str) -> None:
    """The sentence names the encoder that fits, and the one that was used."""
    adapter = models.loaded_adapter(weights(family))
    prompt, _ = encode(reference(), using=encoder(pooled, hidden))
    expected, found = (1024, pooled) if family == "base" else (1280, hidden)
    with refusal(f"expects {expected}-wide", f"got {found}", f"from {name}", "load CLIP ViT-H/14"):
        apply(adapter, prompt)


def of_another_base(context_dim: int, layers: int) -> dict[str, Tensor]:
    """A base adapter with as many layers as that base has, each thin."""
    spec = core.AdapterSpec(
        "base", "pooled", 1024, context_dim, 4, tuple(range(1, 2 * layers, 2)), core.LinearProjection()
    )
    return core.IPAdapter(spec, dict.fromkeys(spec.layers, 8)).state_dict()


@pytest.mark.parametrize(
    ("context_dim", "layers", "name"),
    [(2048, 70, "SDXL"), (1024, 16, "SD2"), (2048, 34, "another model (34 layers, 2048-wide text)")],
    ids=["SDXL", "SD2", "another"],
)
def test_adapter_of_another_base(nothing_lost: None, context_dim: int, layers: int, name: str) -> None:
    adapter = models.loaded_adapter(of_another_base(context_dim, layers))
    with refusal(f"is for {name}, but the model is SD1.5", "load an adapter for SD1.5"):
        apply(adapter, encode(reference())[0])


def test_adapter_of_another_width(nothing_lost: None) -> None:
    """As many layers and the same text, but narrower or wider than the model's."""
    adapter = models.loaded_adapter(of_another_base(768, 16))
    with refusal("8", "32"):
        apply(adapter, encode(reference())[0])


def test_model_without_cross_attention(nothing_lost: None) -> None:
    flux = models.transformer()
    conditioning = [[torch.zeros(1, 8, 32), {"pooled_output": torch.zeros(1, 16)}]]

    def sampled() -> Tensor:
        noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            return models.comfy.sample.sample(
                flux, noise, 1, 1.0, "euler", "simple", conditioning, conditioning, torch.zeros_like(noise), seed=0,
                disable_pbar=True,
            )  # fmt: skip

    before = sampled()
    with refusal("Flux", "has no cross-attention layers", "use a UNet model (SD1.5, SD2, SDXL, Kolors)"):
        apply(load(GOOD), encode(reference())[0], to=flux)
    assert torch.equal(sampled(), before)


@pytest.mark.parametrize("crop", ["centre", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1)], ids=str)
def test_extreme_pictures_work(works: Works, shape: tuple[int, int], crop: str) -> None:
    prompt, seen = encode(reference(*shape), crop)
    assert seen.shape == (1, 224, 224, 3)
    assert not torch.equal(run(apply(works.adapter, prompt)), works.base)


def test_transparent_pictures_are_seen_on_white(works: Works) -> None:
    rgba = reference(channels=4)
    rgba[..., 3] = (rgba[..., 3] > 0.5).float()
    on_white = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
    a, b = (encode(picture)[1] for picture in (rgba, on_white))
    print(f"largest difference {(a - b).abs().max() * 255:.0f} of 255")
    assert torch.equal(a, b)
    assert not torch.equal(run(apply(works.adapter, encode(rgba)[0])), works.base)


@pytest.mark.parametrize("shape", [(1, 77, 50), (1, 1, 1), (1, 9, 4000), (50, 77), (1, 1, 77, 50)], ids=str)
def test_mask_of_another_size_works(works: Works, shape: tuple[int, ...]) -> None:
    prompt, _ = encode(reference())
    everywhere, nowhere = (run(apply(works.adapter, prompt, mask=fill(shape))) for fill in (torch.ones, torch.zeros))
    assert torch.allclose(everywhere, works.picture, atol=1e-5)
    assert torch.equal(nowhere, works.base)
    _, seen = encode(reference(), mask=torch.zeros(shape))
    assert (seen == 1).all()  # everything outside is white


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 0, 8), (1, 8, 0)], ids=str)
def test_mask_without_pixels(nothing_lost: None, shape: tuple[int, ...]) -> None:
    with refusal("the mask has no pixels"):
        apply(load(GOOD), encode(reference())[0], mask=torch.zeros(shape))
    with refusal("the mask has no pixels"):
        encode(reference(), mask=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 0, 8, 3), (1, 8, 0, 3)], ids=str)
def test_empty_batch(nothing_lost: None, shape: tuple[int, ...]) -> None:
    with refusal("the reference has no pixels", "expected [batch, height, width, 3]"):
        encode(torch.zeros(shape))


def test_unknown_layer_weights(nothing_lost: None) -> None:
    with refusal("unknown layer weights 'vibes'", "choose one of all"):
        apply(load(GOOD), encode(reference())[0], layers="vibes")


def test_image_prompt_node_refuses_as_its_parts_do(folder: Path, nothing_lost: None) -> None:
    encoders = folder_paths.folder_names_and_paths["clip_vision"]
    folder_paths.folder_names_and_paths["clip_vision"] = ([str(folder)], encoders[1])
    settings = {"model": model(), "image": reference(), "crop": "centre"}
    try:
        with refusal("'gone.bin' was not found"):
            forms_image_prompt.ImagePromptNode.execute(adapter=GOOD, encoder="gone.bin", **settings)
        with refusal("no CLIP image encoder was found in it"):  # an adapter in place of an encoder
            forms_image_prompt.ImagePromptNode.execute(adapter=GOOD, encoder=GOOD, **settings)
    finally:
        folder_paths.folder_names_and_paths["clip_vision"] = encoders
