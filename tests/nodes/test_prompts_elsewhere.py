"""Image prompts that other programs saved: loaded where ours are, by shape; what is none says what was expected."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support import host, model_folders

pytestmark = pytest.mark.comfy

core, saved, protocol, older = (
    host.part(name) for name in ("ipadapter_core", "nodes.forms.saved", "nodes.prompts.protocol", "nodes.older.embeds")
)
LAYERS = (1, 3)
RESAMPLER = core.ResamplerProjection(64, 1, 1, 64)
BASE = core.AdapterSpec("base", "pooled", 1024, 768, 4, LAYERS, core.LinearProjection())
BIG_G = core.AdapterSpec("base", "pooled", 1280, 2048, 4, LAYERS, core.LinearProjection())
PLUS = core.AdapterSpec("plus", "penultimate", 1280, 768, 16, LAYERS, RESAMPLER)
KOLORS = core.AdapterSpec("Kolors plus", "penultimate", 1024, 2048, 16, LAYERS, RESAMPLER, feature_length=577)
FACE = core.AdapterSpec("FaceID", None, 0, 768, 4, LAYERS, core.IdentityProjection(64), identity="normed")


@pytest.fixture
def folder(folder: Path) -> Path:
    model_folders.folder_paths.folder_names_and_paths["image_prompts"] = ([str(folder / "image_prompts")], set())
    return folder / "image_prompts"


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def load(name: str) -> Any:
    model_folders.folder_paths.filename_list_cache.clear()
    assert host.part("nodes.folders").prompt_files() == [name]
    return saved.LoadImagePrompt.execute(name).result[0]


POOLED, STATES, LONG = values(3, 1024), values(2, 257, 1280), values(2, 577, 1024)
CASES: dict[str, tuple[Any, Any, Tensor, Tensor | None]] = {
    # what torch.save wrote; the adapter; what it reads of the pictures and of "no picture"
    "pooled": (POOLED, BASE, POOLED, None),
    "pooled, one number after the other": (POOLED[0], BASE, POOLED[:1], None),
    "pooled [B, 1, D]": (POOLED[:, None], BASE, POOLED, None),
    "pooled, fp16": (POOLED.half(), BASE, POOLED.half().float(), None),
    "pooled, bigG": (values(2, 1280), BIG_G, values(2, 1280), None),
    "a list of several": ([POOLED[:1], POOLED[1:]], BASE, POOLED, None),
    "a list of several [B, 1, D]": ([POOLED[:1, None], POOLED[1:, None]], BASE, POOLED, None),
    "states": (STATES, PLUS, STATES, torch.zeros(1, 257, 1280)),
    "states of one picture": (STATES[0], PLUS, STATES[:1], torch.zeros(1, 257, 1280)),
    "a list of states": ([STATES[:1], STATES[1:]], PLUS, STATES, torch.zeros(1, 257, 1280)),
    "states at 336 pixels": (LONG, KOLORS, LONG, torch.zeros(1, 577, 1024)),
    "states seen larger": (values(1, 1025, 1280), PLUS, values(1, 1025, 1280), torch.zeros(1, 1025, 1280)),
    "diffusers, pooled": ([torch.stack([torch.zeros(3, 1024), POOLED])], BASE, POOLED, None),
    "diffusers, without guidance": ([POOLED[None]], BASE, POOLED, None),
    "diffusers, states": ([torch.stack([values(2, 257, 1280, seed=5), STATES])], PLUS, STATES,
                          values(2, 257, 1280, seed=5)[:1]),
    "by name": ({"image_embeds": POOLED}, BASE, POOLED, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_features(case: str, folder: Path) -> None:
    content, spec, expected, nothing = CASES[case]
    torch.save(content, folder / "style.ipadpt")
    prompt = load("style.ipadpt")
    given, without = protocol.given_of(prompt, spec, "adapter")
    assert torch.equal(given.features, expected)
    assert torch.equal(without.features, torch.zeros_like(expected[:1]) if nothing is None else nothing)
    assert len(prompt.digest) == 64 and core.encoder_name(spec) in prompt.words
    with pytest.raises(ValueError, match=r"style\.ipadpt holds .* features of .* but this adapter reads"):
        prompt.features("pooled" if spec.feature == "penultimate" else "penultimate")


def test_several_kinds_in_one_file(folder: Path) -> None:
    """diffusers keeps a list with one entry for each adapter."""
    torch.save([POOLED[None, :2], STATES[None], values(1, 1, 2, 512)], folder / "all.pt")
    prompt = load("all.pt")
    assert torch.equal(protocol.given_of(prompt, BASE, "a")[0].features, POOLED[:2])
    assert torch.equal(protocol.given_of(prompt, PLUS, "a")[0].features, STATES)
    assert protocol.given_of(prompt, FACE, "a")[0].identities.shape == (2, 512)
    assert prompt.words.count(",") == 2


FACES = values(3, 512) * 20


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(512,), (1, 512), (3, 512), (3, 1, 512)], ids=str)
def test_identities_of_numpy(shape: tuple[int, ...], dtype: type, folder: Path) -> None:
    faces = FACES[: shape[0] if len(shape) > 1 else 1]
    np.save(folder / "face.npy", faces.numpy().astype(dtype).reshape(shape))
    prompt = load("face.npy")
    assert torch.allclose(prompt.identities(), faces, rtol=1e-3)
    assert protocol.given_of(prompt, FACE, "adapter")[0].identities.norm(dim=1).allclose(torch.ones(len(faces)))


@pytest.mark.parametrize("layout", ["tensor", "list", "diffusers", "old"])
def test_identities_of_torch(layout: str, folder: Path) -> None:
    content = {"list": list(FACES), "diffusers": [torch.stack([torch.zeros(1, 3, 512), FACES[None]])]}.get(
        layout, FACES
    )
    torch.save(content, folder / "face.pt", _use_new_zipfile_serialization=layout != "old")
    assert torch.equal(load("face.pt").identities(), FACES)


def test_a_file_of_the_older_nodes_is_one_of_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folders.folder_paths, "get_input_directory", lambda: str(folder))
    torch.save([POOLED], folder / "a.ipadpt")
    assert torch.equal(older.load("a.ipadpt")[0], load("a.ipadpt").features("pooled"))


def no_literal(path: Path) -> None:
    np.save(path, np.zeros(512, np.float32))
    path.write_bytes(path.read_bytes().replace(b"(512,)", b"(9*9,)"))


def claimed(path: Path) -> None:
    np.save(path, np.zeros((512, 1), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(512, 1)", b"(512,999999999)"))


WRONG = {
    "image tokens": (lambda path: torch.save(values(1, 4, 768), path), "are image tokens of one adapter"),
    "wide tokens": (lambda path: torch.save(values(2, 16, 2048), path), "which no encoder gives"),
    "no width": (lambda path: torch.save(torch.tensor(1.0), path), "is not an image prompt: it holds float32 ()"),
    "another width": (lambda path: torch.save(values(2, 333), path), "which no encoder gives"),
    "nobody": (lambda path: torch.save(torch.zeros(0, 512), path), "it holds float32 (0, 512)"),
    "no list": (lambda path: torch.save([], path), "other things than tensors"),
    "words": (lambda path: torch.save(["a"], path), "more than weights|other things than tensors"),
    "code": (lambda path: torch.save(functools.partial(print, "run"), path), "holds more than weights"),
    "two encoders": (lambda path: torch.save([POOLED, values(1, 1280)], path), "keep those of one encoder"),
    "no face": (lambda path: np.save(path, np.zeros(512)), "an identity of zeros"),
    "NaN": (lambda path: np.save(path, np.full(512, np.nan)), "not finite"),
    "objects": (lambda path: np.save(path, np.array([{}] * 512, dtype=object)), "no array of numbers"),
    "texts": (lambda path: np.save(path, np.array(["a"] * 512)), "no array of numbers"),
    "cut": (lambda path: path.write_bytes(b"\x93NUMPY\x01"), "no array of numbers"),
    "an expression": (no_literal, "no array of numbers"),
    "too large": (claimed, "no array of numbers"),
    "an adapter": (lambda path: save_file({"image_proj.proj.weight": values(8, 9)}, path), "which no encoder gives"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_none_is_refused_in_a_sentence(case: str, folder: Path) -> None:
    write, words = WRONG[case]
    with (folder / "odd.npy").open("wb"):
        pass
    write(folder / "odd.npy")
    with pytest.raises(ValueError, match=r"odd\.npy") as error:
        load("odd.npy")
    print(error.value)
    assert any(part in str(error.value) for part in words.split("|")), error.value
