"""Combine, Save and Load Image Prompt: what an adapter reads of them, and what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.support import host, models
from tests.support.figures import show
from tests.support.refusals import refusal

pytestmark = pytest.mark.comfy

combine, saved_prompt, protocol = (
    host.part(f"nodes.{name}") for name in ("prompts.combined", "prompts.saved", "prompts.protocol")
)
face_prompt, image_prompt = (host.part(f"nodes.{name}") for name in ("prompts.faces", "prompts.pictures"))
core = host.part("ipadapter_core")

import comfy.clip_vision  # noqa: E402
import folder_paths  # noqa: E402


def encoder(pooled: int = 1024, hidden: int = 1280, size: int = 64) -> Any:
    """Of these widths, with two thin layers."""
    built = comfy.clip_vision.ClipVisionModel(
        {
            "model_type": "clip_vision_model", "image_size": size, "patch_size": 32, "num_channels": 3,
            "hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16,
            "projection_dim": pooled, "hidden_act": "gelu",
        }
    )  # fmt: skip
    torch.manual_seed(0)
    for value in built.model.parameters():
        torch.nn.init.normal_(value, std=0.05)
    return built


ENCODER = encoder()


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def seen(count: int = 1, seed: int = 0, using: Any = ENCODER) -> Any:
    return image_prompt.encode(using, pictures(count, seed), "centre")


def faces(count: int = 1, seed: int = 0) -> Any:
    """Faces with pictures that differ with the crop."""

    def crops(crop: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed + crop.size)
        return torch.rand(count, crop.size, crop.size, 3, generator=generator)

    identities = torch.randn(count, 512, generator=torch.Generator().manual_seed(seed)) * 20
    return face_prompt.FacePrompt(identities, crops, ENCODER)


def spec(family: str) -> Any:
    """What an adapter of a family needs, of ViT-H's widths."""
    layers, resampler = (1, 3), core.ResamplerProjection(64, 1, 1, 64)
    mlp = core.IdentityProjection(64)
    both = core.IdentityResamplerProjection(64, resampler)
    aligned = {"identity": "normed", "face_crop": core.FaceCrop("aligned", 224)}
    return {
        "base": core.AdapterSpec("base", "pooled", 1024, 768, 4, layers, core.LinearProjection()),
        "plus": core.AdapterSpec("plus", "penultimate", 1280, 768, 16, layers, resampler),
        "FaceID": core.AdapterSpec("FaceID", None, 0, 768, 4, layers, mlp, identity="normed"),
        "FaceID plus": core.AdapterSpec("FaceID plus", "penultimate", 1280, 768, 4, layers, both, **aligned),
    }[family]


def adapter(family: str) -> Any:
    """An adapter of the family, thin."""
    built = core.IPAdapter(spec(family), {1: 8, 3: 8})
    return host.part("nodes.models").Adapter(f"{family}.safetensors", built, {})


def read(prompt: Any, family: str) -> list[Tensor]:
    """All that an adapter of the family reads of it."""
    given, nothing = protocol.given_of(prompt, spec(family), "a")
    values = [given.features, given.identities, nothing.features, nothing.identities]
    return [value for value in values if value is not None]


FAMILIES: dict[str, Callable[..., Any]] = {"base": seen, "plus": seen, "FaceID": faces, "FaceID plus": faces}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty models/image_prompts."""
    known = folder_paths.folder_names_and_paths["image_prompts"]
    folder_paths.folder_names_and_paths["image_prompts"] = ([str(tmp_path)], known[1])
    yield tmp_path
    folder_paths.folder_names_and_paths["image_prompts"] = known
    folder_paths.filename_list_cache.pop("image_prompts", None)


def save(prompt: Any, family: str, name: str = "hero") -> str:
    with torch.inference_mode():  # as ComfyUI runs nodes
        return host.part("nodes.forms.saved").SaveImagePrompt.execute(prompt, adapter(family), name).ui["text"][0]


@torch.inference_mode()
def load(name: str) -> Any:
    return host.part("nodes.forms.saved").LoadImagePrompt.execute(name).result[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_is_the_same(folder: Path, family: str) -> None:
    """Bit by bit, for several pictures; no file is written over."""
    prompt = FAMILIES[family](3)
    name = save(prompt, family)
    assert name == "hero_00001_.safetensors" and save(prompt, family) == "hero_00002_.safetensors"
    for ours, expected in zip(read(load(name), family), read(prompt, family), strict=True):
        assert torch.equal(ours, expected)
    with safe_open(folder / name, "pt") as file:
        told = file.metadata()
    print(f"\n{family}: {(folder / name).stat().st_size:,} bytes, {told}")
    assert told["family"] == family and told["pictures"] == prompt.digest == load(name).digest
    assert told.get("encoder") == core.encoder_name(spec(family))
    assert len(told["pictures"]) == 64 and FAMILIES[family](3, seed=1).digest != prompt.digest


def test_folders_and_names(folder: Path) -> None:
    assert save(seen(), "base", "people/anna") == "anna_00001_.safetensors"
    load("people/anna_00001_.safetensors")
    for name in ("../out", "/tmp/out", "", "a/../../b"):
        with pytest.raises(ValueError, match="is no name for a file"):
            save(seen(), "base", name)
    assert not (folder.parent / "out_00001_.safetensors").exists()


@pytest.mark.parametrize(
    ("saved_for", "used_by", "words"),
    [
        ("base", "plus", "saved for base adapters (encoder: CLIP ViT-H/14) and has pooled, but this adapter reads pen"),
        ("plus", "base", "has penultimate, unconditional.penultimate, but this adapter reads pooled"),
        ("base", "FaceID", "has none: make it with Encode Faces"),
        ("FaceID", "FaceID plus", "has identities, but this adapter reads aligned-224.penultimate"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, saved_for: str, used_by: str, words: str) -> None:
    name = save(FAMILIES[saved_for](), saved_for)
    with refusal(words):
        read(load(name), used_by)
    assert read(load(name), saved_for)


def test_an_encoder_of_another_width_is_refused(folder: Path) -> None:
    wide = seen(using=encoder(pooled=1280, hidden=1664))
    with refusal("expects 1024-wide pooled image features, got 1280 (from CLIP ViT-bigG/14)"):
        save(wide, "base")
    assert list(folder.iterdir()) == []


def test_identities_of_another_program(folder: Path) -> None:
    """A file of nothing but identities, of any name and shape."""
    identities = torch.randn(2, 1, 512)
    save_file({"embedding": identities}, folder / "other.safetensors")
    torch.save({"face": identities.half()}, folder / "other.bin")
    assert torch.equal(load("other.safetensors").identities(), identities[:, 0])
    assert torch.allclose(load("other.bin").identities(), identities[:, 0], atol=2e-3)
    assert read(load("other.safetensors"), "FaceID")
    with refusal("this adapter reads aligned-224.penultimate"):
        read(load("other.safetensors"), "FaceID plus")


def test_files_that_are_no_image_prompt(folder: Path) -> None:
    name = save(seen(), "base")
    whole = (folder / name).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-9])
    with refusal("truncated or damaged"):
        load("cut.safetensors")
    (folder / "page.safetensors").write_text("<html></html>")
    with refusal("web page"):
        load("page.safetensors")
    save_file({"a": torch.zeros(1, 512), "b": torch.zeros(1, 512)}, folder / "two.safetensors")
    with refusal("two.safetensors is not an image prompt"):
        load("two.safetensors")
    save_file({"pooled": torch.full((1, 1024), torch.nan)}, folder / "nan.safetensors", {"format": "image prompt 1"})
    with refusal("nan.safetensors is damaged"):
        load("nan.safetensors")
    save_file({"pooled": torch.zeros(1024)}, folder / "flat.safetensors", {"format": "image prompt 1"})
    with refusal("flat.safetensors is damaged"):
        load("flat.safetensors")
    with refusal("'gone.safetensors' was not found"):
        load("gone.safetensors")


def combined(method: str, first: Any, second: Any, amount: float = 0.25) -> Any:
    with torch.inference_mode():
        return host.part("nodes.forms.combine").CombineImagePrompts.execute(first, second, method, amount).result[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_combined(family: str) -> None:
    """Each method against its formula, on features and raw identities."""
    first, second = (FAMILIES[family](2, seed) for seed in (0, 7))
    formulas: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "concatenate": lambda a, b: torch.cat([a, b]),
        "average": lambda a, b: torch.cat([a, b]).mean(0, keepdim=True),
        "weighted": lambda a, b: 0.75 * a + 0.25 * b,
        "subtract": lambda a, b: a - 0.25 * b,
    }
    kind = spec(family)
    for method, formula in formulas.items():
        prompt = combined(method, first, second)
        if kind.feature:
            a, b = (part.features(kind.feature, kind.face_crop) for part in (first, second))
            show(f"{family}, {method}, features", prompt.features(kind.feature, kind.face_crop), formula(a, b), 1e-6)
            assert torch.equal(prompt.zero_states(), first.zero_states())
        if kind.identity:
            a, b = first.identities(), second.identities()
            show(f"{family}, {method}, identities", prompt.identities(), formula(a, b), 1e-6)
        assert read(prompt, family)


def test_combined_is_used_saved_and_combined_again(folder: Path) -> None:
    prompt = combined("concatenate", combined("average", seen(2), seen(3, 1)), seen(1, 2))
    assert prompt.features("pooled").shape == (2, 1024)
    again = load(save(prompt, "base"))
    assert torch.equal(again.features("pooled"), prompt.features("pooled"))
    assert len({prompt.digest, combined("concatenate", seen(1), seen(1, 2)).digest}) == 2
    assert torch.equal(combined("weighted", seen(3), seen(1, 1), 0).features("pooled"), seen(3).features("pooled"))


def test_what_cannot_be_combined() -> None:
    other = seen(using=encoder(pooled=1280, hidden=1664))
    with refusal("of 1024 and 1280: make them with the same encoder"):
        combined("average", seen(), other).features("pooled")
    with refusal("got 2 and 3"):
        combined("subtract", seen(2), seen(3)).features("pooled")
    with refusal("has faces' identities and another has none"):
        combined("average", seen(), faces()).identities()
    with refusal("unknown method"):
        combined("multiply", seen(), seen())
    assert combined("average", seen(), seen()).identities() is None
    with refusal("reads faces' identities"):
        read(combined("average", seen(), seen()), "FaceID")


def test_a_picture_made_with_a_loaded_prompt_is_the_same(folder: Path) -> None:
    """Through Apply and the sampler."""
    model = models.comfy_model("SD15", 32)
    loaded = models.loaded_adapter(models.adapter_weights("base", model))
    prompt = seen()
    file = saved_prompt.save_prompt(prompt, loaded, "hero").name
    results = [
        models.sample(models.apply(model, loaded, used), models.text(5), models.text(0), steps=1, size=(8, 8))
        for used in (prompt, load(file))
    ]
    assert torch.equal(*results)
    assert not torch.equal(results[0], models.sample(model, models.text(5), models.text(0), steps=1, size=(8, 8)))
