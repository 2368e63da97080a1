"""Reading adapter files back as they were written: every layout and number format, and what is no adapter."""

import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ipadapter_core import build_adapter, read_adapter, read_weights, write_safetensors
from tests.support import published
from tests.support.published import small

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def nested(
    tensors: dict[str, Tensor], names: tuple[str, str] = ("image_proj", "ip_adapter")
) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in tensors.items():
        group, _, rest = key.partition(".")
        groups[names[group == "ip_adapter"]][rest] = value
    return groups


def assert_same(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    """Bit by bit, types included."""
    assert ours.keys() == reference.keys()
    for key, value in reference.items():
        assert ours[key].dtype == value.dtype
        assert torch.equal(ours[key].contiguous().view(torch.uint8), value.contiguous().view(torch.uint8)), key


LAYOUTS = ("safetensors", "bin", "bin, legacy", "bin, flat")
# The legacy format is older than 8 bit floats.
ROUND_TRIPS = [(layout, d) for layout in LAYOUTS for d in DTYPES if not (layout == "bin, legacy" and d.itemsize == 1)]


@pytest.mark.parametrize(("layout", "dtype"), ROUND_TRIPS, ids=str)
def test_round_trip(tmp_path, layout, dtype):
    tensors = small(dtype)
    path = tmp_path / "adapter"
    if layout == "safetensors":
        write_safetensors(path, tensors, {"base": "SD1.5", "step": "7"})
        assert read_adapter(path).metadata == {"base": "SD1.5", "step": "7"}
    elif layout == "bin, flat":
        torch.save(OrderedDict(tensors), path)
    else:
        torch.save(nested(tensors), path, _use_new_zipfile_serialization=layout == "bin")
    read = read_adapter(path)
    assert_same(read.tensors, tensors)
    assert_same(build_adapter(read.tensors).state_dict(), tensors)


@pytest.mark.parametrize("name", ["base SD1.5 (ViT-H), light", "plus, plus-face, composition SD1.5"])
def test_full_size_adapter_builds_and_writes_what_was_read(tmp_path, name):
    tensors = published.filled(published.LAYOUTS[name], torch.float16)
    torch.save(nested(tensors), tmp_path / "a.bin")
    adapter = build_adapter(read_adapter(tmp_path / "a.bin").tensors)
    write_safetensors(tmp_path / "b.safetensors", adapter.state_dict(), {})
    assert_same(read_adapter(tmp_path / "b.safetensors").tensors, tensors)
    assert not any(value.requires_grad for value in adapter.parameters())


@pytest.mark.parametrize("names", [("image_proj", "adapter_modules"), ("image_proj_model", "ip_adapter")])
def test_aliases(tmp_path, names):
    tensors = small()
    torch.save(nested(tensors, names), tmp_path / "a.bin")
    assert_same(read_adapter(tmp_path / "a.bin").tensors, tensors)
    save_file(
        {f"{group}.{k}": v for group, part in nested(tensors, names).items() for k, v in part.items()}, tmp_path / "a"
    )
    assert_same(read_adapter(tmp_path / "a").tensors, tensors)


def test_names_mean_nothing(tmp_path):
    tensors = small()
    torch.save(nested(tensors), tmp_path / "pickle.safetensors")
    write_safetensors(tmp_path / "safe.bin", tensors, {"step": "1"})
    assert_same(read_adapter(tmp_path / "pickle.safetensors").tensors, tensors)
    assert_same(read_adapter(tmp_path / "safe.bin").tensors, tensors)
    assert read_adapter(tmp_path / "safe.bin").metadata == {"step": "1"}


@pytest.mark.parametrize("start", [b"\x80", b"\x80\x02", b" <", b"PK"])
def test_header_lengths_that_look_like_another_format(tmp_path, start):
    """Safetensors begin with a length: 640 looks like a pickle, 15392 like a page, 19280 like a zip."""
    tensors = small()
    path = tmp_path / "a.safetensors"
    length = int.from_bytes(start, "little")
    write_safetensors(path, tensors, {"note": ""})
    room = length - int.from_bytes(path.read_bytes()[:8], "little")
    note = "x" * (room % 256 if start == b"\x80" else room if room > 0 else room + 65536)
    write_safetensors(path, tensors, {"note": note})
    assert path.read_bytes().startswith(start)
    read = read_adapter(path)
    assert_same(read.tensors, tensors)
    assert read.metadata == {"note": note}


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        read_adapter(path)
    message = str(error.value)
    print(message)
    assert path.name in message and "\n" not in message
    return message


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\r\n <html>", b"<?xml version='1.0'?><Error>"])
def test_web_page(tmp_path, page):
    path = tmp_path / "ip-adapter_sd15.safetensors"
    path.write_bytes(page + b"x" * 1000)
    assert "a web page" in refusal(path)


def test_empty(tmp_path):
    path = tmp_path / "a.bin"
    path.touch()
    assert "is empty" in refusal(path)


def test_git_lfs_pointer(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 44642768\n")
    assert "Git LFS pointer" in refusal(path)


@pytest.mark.parametrize("layout", ["safetensors", "bin", "bin, legacy"])
def test_truncated(tmp_path, layout):
    whole, path = tmp_path / "whole", tmp_path / "part"
    if layout == "safetensors":
        write_safetensors(whole, small(), {})
    else:
        torch.save(nested(small()), whole, _use_new_zipfile_serialization=layout == "bin")
    data = whole.read_bytes()
    places = [1, 4, 7, 8, 9, 100, *(len(data) * n // 20 for n in range(1, 20)), len(data) - 100, len(data) - 1]
    for place in places:
        path.write_bytes(data[:place])
        assert "damaged" in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", ["safetensors", "bin", "bin, legacy"])
def test_changed_bytes_give_weights_or_one_sentence(tmp_path, layout):
    path = tmp_path / "a"
    if layout == "safetensors":
        write_safetensors(path, small(), {})
    else:
        torch.save(nested(small()), path, _use_new_zipfile_serialization=layout == "bin")
    data, random, refused = path.read_bytes(), Random(0), 0
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(random.randrange(1, 4)):
            changed[random.randrange(min(len(data), 3000))] = random.randrange(256)
        path.write_bytes(changed)
        try:
            read_weights(path)
        except ValueError as error:
            assert path.name in str(error)
            refused += 1
    print(f"{layout}: {refused} of 500 were refused")
    assert refused > 50


def test_trailing_data(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, small(), {})
    path.write_bytes(path.read_bytes() + b"more")
    assert "damaged" in refusal(path)


class Attack:
    """Unpickled without care, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("layout", ["zip", "legacy", "plain pickle", "protocol 0"])
def test_code_in_a_pickle_never_runs(tmp_path, layout):
    mark, path = tmp_path / "mark", tmp_path / "a.bin"
    content = {"image_proj": {}, "ip_adapter": Attack(mark)}
    if layout in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    else:
        path.write_bytes(pickle.dumps(content, protocol=0 if layout == "protocol 0" else 2))
    assert "was not loaded" in (message := refusal(path)) or "damaged" in message
    assert not mark.exists()
    if layout not in ("zip", "legacy"):  # the attack is a real one
        pickle.loads(path.read_bytes())  # noqa: S301
        assert mark.exists()


def test_code_in_torchs_own_pickle_would_run_without_care(tmp_path):
    torch.save(Attack(tmp_path / "mark"), tmp_path / "a.bin")
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert (tmp_path / "mark").exists()


# float8_e4m3fn has no infinity: it saturates.
NOT_FINITE = [(d, value) for d in DTYPES for value in (math.nan, math.inf, -math.inf)
              if d != torch.float8_e4m3fn or math.isnan(value)]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), NOT_FINITE, ids=str)
def test_weights_that_are_not_finite(tmp_path, dtype, value):
    tensors = small(dtype)
    spoiled = tensors["ip_adapter.3.to_v_ip.weight"].float()
    spoiled[3, 3] = value
    tensors["ip_adapter.3.to_v_ip.weight"] = spoiled.to(dtype)
    write_safetensors(tmp_path / "a", tensors, {})
    message = refusal(tmp_path / "a")
    assert "NaN or infinite" in message and "ip_adapter.3.to_v_ip.weight" in message


@pytest.mark.parametrize(
    "content", [[torch.zeros(3)], torch.zeros(3), 7, "weights"], ids=["list", "tensor", "int", "str"]
)
def test_not_named_weights(tmp_path, content):
    torch.save(content, tmp_path / "a.bin")
    assert "not named weights" in refusal(tmp_path / "a.bin")


def test_missing_and_misshapen_weights():
    tensors = small()
    without = {key: value for key, value in tensors.items() if key != "ip_adapter.3.to_v_ip.weight"}
    with pytest.raises(ValueError, match=r"lacks 1 weights \(ip_adapter\.3\.to_v_ip\.weight"):
        build_adapter(without)
    with pytest.raises(ValueError, match=r"to_v_ip\.weight is \(4, 32\), expected \(8, 32\)"):
        build_adapter(tensors | {"ip_adapter.3.to_v_ip.weight": torch.zeros(4, 32)})


def test_keys_that_no_adapter_has_are_left_out():
    assert_same(build_adapter(small() | {"image_proj.extra": torch.zeros(2)}).state_dict(), small())


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "no such file")
