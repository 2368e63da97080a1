"""`python -m ipadapter_core`: what a file is, in every layout and precision, and conversion bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ipadapter_core import WeightsFile, base_name, build_adapter, detect, encoder_name, read_adapter, write_safetensors
from ipadapter_core.__main__ import convert, describe_file, main
from ipadapter_core.files.read import find_adapter
from tests.support import oracles, published

pytestmark = pytest.mark.slow

WIDTHS = dict.fromkeys(published.SD15_WIDTHS, 8)  # thin layers: files of some megabytes
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
EACH = [pytest.param(d, marks=() if d == torch.float16 else pytest.mark.slow) for d in DTYPES]


def face_id(dtype=torch.float16):
    """A FaceID adapter of SD1.5 with its LoRA, its layers thin."""
    with torch.device("meta"):
        projection = oracles.IdentityProjection(768, 512, 4)
    return published.filled(published.adapter(projection, 768, WIDTHS) | published.lora(768, WIDTHS, rank=4), dtype)


def nested(tensors, image_proj="image_proj", ip_adapter="ip_adapter"):
    return {image_proj: oracles.group(tensors, "image_proj"), ip_adapter: oracles.group(tensors, "ip_adapter")}


def renamed(tensors):
    names = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
    return {f"{names[key.split('.')[0]]}.{key.partition('.')[2]}": value for key, value in tensors.items()}


LAYOUTS = {
    "safetensors": ("a.safetensors", lambda path, t: save_file(t, path)),
    "safetensors, aliases": ("a.safetensors", lambda path, t: save_file(renamed(t), path)),
    "pickle": ("a.bin", lambda path, t: torch.save(nested(t), path)),
    "pickle, Kolors' alias": ("a.bin", lambda path, t: torch.save(nested(t, ip_adapter="adapter_modules"), path)),
    "pickle, the trainer's aliases, flat": ("a.bin", lambda path, t: torch.save(renamed(t), path)),
    "pickle of another name": ("a.safetensors", lambda path, t: torch.save(nested(t), path)),
    "a diffusers folder": ("", lambda path, t: folder(path, t)),
}


def folder(path, tensors):
    """As diffusers' `load_ip_adapter` finds it: the weights, and an encoder in a folder beside them."""
    (path / "image_encoder").mkdir()
    torch.save(nested(tensors), path / "ip-adapter.bin")
    save_file({"vision_model.x": torch.zeros(2)}, path / "image_encoder" / "model.safetensors")


def same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype and value.shape == theirs[key].shape
        assert torch.equal(value.contiguous().view(torch.uint8), theirs[key].contiguous().view(torch.uint8)), key


@pytest.mark.parametrize("dtype", EACH, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_precision(layout, dtype, tmp_path):
    tensors = face_id(dtype)
    name, write = LAYOUTS[layout]
    write(tmp_path / name, tensors)
    path = find_adapter(tmp_path / name)
    file = read_adapter(path)
    same_bits(file.tensors, tensors)
    assert "FaceID" in describe_file(path, file)
    adapter = build_adapter(file.tensors)
    assert {value.dtype for value in adapter.state_dict().values()} == {dtype}


@pytest.mark.parametrize("dtype", EACH, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_converts_bit_for_bit_there_and_back(layout, dtype, tmp_path):
    tensors = face_id(dtype)
    source = tmp_path / "source"
    source.mkdir()
    name, write = LAYOUTS[layout]
    write(source / name, tensors)
    first, second, third = (tmp_path / file for file in ("one.bin", "two.safetensors", "three.bin"))
    for a, b in ((source / name, first), (first, second), (second, third)):
        print(convert(a, b))
        same_bits(read_adapter(b).tensors, tensors)
    content = torch.load(first, weights_only=True)
    assert set(content) == {"image_proj", "ip_adapter"}  # what the reference's package and diffusers read


def test_mixed_precision_is_not_narrowed():
    tensors = face_id(torch.float8_e4m3fn)
    exact = torch.full_like(tensors["image_proj.norm.weight"], 1.0, dtype=torch.float16) + 2**-10
    adapter = build_adapter(tensors | {"image_proj.norm.weight": exact})
    assert torch.equal(adapter.image_proj.norm.weight, exact)
    both = build_adapter(
        tensors | {"image_proj.norm.weight": exact, "image_proj.norm.bias": torch.zeros(768).bfloat16()}
    )
    assert both.image_proj.norm.weight.dtype == torch.float32


def test_metadata_are_kept(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(source, face_id(), {"licence": "CC0", "shortcut": "false"})
    convert(source, target)
    assert read_adapter(target).metadata == {"licence": "CC0", "shortcut": "false"}
    assert "left out" in convert(source, tmp_path / "b.bin")


@pytest.mark.parametrize("name", published.LAYOUTS)
def test_says_what_each_published_file_is(name):
    text = describe_file(Path("a.bin"), WeightsFile(dict(published.LAYOUTS[name])))
    print(f"\n{name}\n{text}")
    spec = detect(published.LAYOUTS[name])
    for words in (spec.family, base_name(spec), encoder_name(spec), f"{spec.num_tokens}"):
        assert words in text
    is_face = "FaceID" in name
    assert ("ArcFace identities" in text) == is_face
    assert ("research only" in text) == is_face
    assert ("LoRA:" in text) == spec.has_lora
    assert "left out" not in text


def test_stated_licence_comes_first():
    text = describe_file(Path("a.bin"), WeightsFile(dict(published.base(768, 1024)), {"licence": "CC-BY-4.0"}))
    assert "licence:      CC-BY-4.0" in text
    faces = describe_file(Path("a.bin"), WeightsFile(dict(published.face_id()), {"license": "MIT"}))
    assert "MIT; insightface's face models are for non-commercial research only" in faces


def test_unknown_keys_are_reported_and_not_fatal(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    save_file(face_id() | {"note": torch.zeros(3), "image_proj.extra.weight": torch.zeros(2)}, path)
    assert main([str(path)]) == 0
    assert "left out:     image_proj.extra.weight, note" in capsys.readouterr().out
    convert(path, tmp_path / "b.bin")
    assert "note" in read_adapter(tmp_path / "b.bin").tensors


def test_variant_is_said(tmp_path, capsys):
    tensors = published.filled(published.face_id_plus(768), torch.float16)
    path = tmp_path / "plus.safetensors"
    save_file(tensors, path)
    for arguments, words in (([], "FaceID plus v2"), (["--variant", "FaceID plus v1"], "FaceID plus v1")):
        assert main([str(path), *arguments]) == 0
        assert f"family:       {words}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.bin"], "gone.bin"),
        (["web.bin"], "is a web page"),
        (["convert", "a.safetensors", "a.ckpt"], "should end with .safetensors or .bin"),
        (["convert", "a.safetensors", "a.safetensors"], "is the file that is converted"),
        (["convert", "a.safetensors", "b.bin", "--text-projection", "a.safetensors"], "choose Kolors' UNet"),
        (["convert", "web.bin", "b.bin"], "is a web page"),
        (["two"], "should hold one adapter, found 2 (a.bin, b.safetensors)"),
        (["a.safetensors", "--variant", "FaceID plus v1"], "choose auto"),
    ],
    ids=" ".join,
)
def test_refusals_are_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_file(face_id(), "a.safetensors")
    (tmp_path / "web.bin").write_text("<html>")
    (tmp_path / "two").mkdir()
    for name in ("a.bin", "b.safetensors"):
        (tmp_path / "two" / name).touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 1
    said = capsys.readouterr().err
    print(said)
    assert words in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_kolors_text_projection_is_added_from_the_unet(tmp_path):
    shapes = published.face_id_plus(2048, 4096, 1024, 6, has_lora=False)
    assert "base's own projection of text, 4096 to 2048" in describe_file(Path("a.bin"), WeightsFile(dict(shapes)))
    shapes |= {"encoder_hid_proj.weight": torch.empty(2048, 4096), "encoder_hid_proj.bias": torch.empty(2048)}
    assert "base's own projection" not in describe_file(Path("a.bin"), WeightsFile(dict(shapes)))
    assert detect(shapes).has_text_projection


def test_as_a_command(tmp_path):
    path = tmp_path / "a.bin"
    torch.save(nested(face_id()), path)
    run = [sys.executable, "-m", "ipadapter_core"]
    done = subprocess.run([*run, str(path), "gone"], capture_output=True, text=True, check=False, cwd=tmp_path)
    print(done.stdout, done.stderr)
    assert done.returncode == 1 and "family:       FaceID" in done.stdout and "gone" in done.stderr
    done = subprocess.run(
        [*run, "convert", str(path), "b.safetensors"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert "bit for bit" in done.stdout and (tmp_path / "b.safetensors").exists()
