"""Checkpoints of the reference's trainer, and of programs like it, are read as the adapters that they are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from ipadapter_core import build_adapter, detect, read_adapter, read_shapes
from ipadapter_core.__main__ import convert, main

CONTEXT, WIDTHS = 32, (32, 64)


class Nothing(nn.Module):
    """The reference's processor of self-attention: no weights."""


class Keys(nn.Module):
    """The reference's processor of cross-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (nn.Linear(CONTEXT, width, bias=False) for _ in range(2))


class LoraLayer(nn.Module):
    def __init__(self, reads: int, gives: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(reads, 4, bias=False), nn.Linear(4, gives, bias=False)


class FaceKeys(nn.Module):
    """FaceID's processors: a LoRA in each, K' and V' in those of cross-attention."""

    def __init__(self, width: int, is_cross: bool) -> None:
        super().__init__()
        context = CONTEXT if is_cross else width
        self.to_q_lora, self.to_out_lora = LoraLayer(width, width), LoraLayer(width, width)
        self.to_k_lora, self.to_v_lora = LoraLayer(context, width), LoraLayer(context, width)
        if is_cross:
            self.to_k_ip, self.to_v_ip = (nn.Linear(CONTEXT, width, bias=False) for _ in range(2))


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.norm = nn.Linear(16, 4 * CONTEXT), nn.LayerNorm(CONTEXT)


class FaceProjection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(512, 16), nn.GELU(), nn.Linear(16, 4 * CONTEXT))
        self.norm = nn.LayerNorm(CONTEXT)


class Trained(nn.Module):
    """What the reference's trainer prepares and saves: three modules, the processors in two of them."""

    def __init__(self, unet: nn.Module, image_proj_model: nn.Module, adapter_modules: nn.Module) -> None:
        super().__init__()
        self.unet, self.image_proj_model, self.adapter_modules = unet, image_proj_model, adapter_modules


def trained(is_face: bool) -> Trained:
    """On a UNet whose names do not sort as they lie: twelve blocks deep, the middle last; weights tell their place."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=WIDTHS, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, layers_per_block=1, transformer_layers_per_block=(1, 12),
        cross_attention_dim=CONTEXT, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    processors = {}
    for position, name in enumerate(unet.attn_processors):
        is_cross = name.endswith("attn2.processor")
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        made = FaceKeys(width, is_cross) if is_face else Keys(width) if is_cross else Nothing()
        for value in made.parameters():
            nn.init.constant_(value, position)
        processors[name] = made
    unet.set_attn_processor(processors)
    projection = FaceProjection() if is_face else Projection()
    return Trained(unet, projection, nn.ModuleList(unet.attn_processors.values())).requires_grad_(False)


@pytest.fixture(scope="module", params=[False, True], ids=["base", "FaceID"])
def model(request: pytest.FixtureRequest) -> Trained:
    return trained(request.param)


def split(model: Trained) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Projection, processors by number, processors by the UNet's names."""
    by_name = {name: value for name, value in model.unet.state_dict().items() if ".processor." in name}
    return model.image_proj_model.state_dict(), model.adapter_modules.state_dict(), by_name


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def whole(model: Trained) -> dict[str, Tensor]:
    return dict(model.state_dict())


def kept_once(model: Trained) -> dict[str, Tensor]:
    """As accelerate gives it to safetensors, which holds nothing twice: shared weights under their first name."""
    first: dict[int, str] = {}
    for key, value in whole(model).items():
        first.setdefault(value.data_ptr(), key)
    kept = {key: value for key, value in whole(model).items() if first[value.data_ptr()] == key}
    assert not any(key.startswith("adapter_modules.") for key in kept)  # the UNet comes first
    return kept


def numbered_alone(model: Trained) -> dict[str, Tensor]:
    return {key: value for key, value in whole(model).items() if not key.startswith("unet.")}


def attn_procs(model: Trained) -> dict[str, Tensor]:
    """diffusers' names, with the number of the adapter, beside the projection."""
    projection, _, by_name = split(model)
    return projection_of(projection) | {
        key.replace("_ip.weight", "_ip.0.weight"): value.clone() for key, value in by_name.items()
    }


def projection_of(projection: dict[str, Tensor]) -> dict[str, Tensor]:
    return prefixed("image_proj.", projection)


Write = Callable[[Path, Trained], None]
FILES: dict[str, tuple[str, Write]] = {
    "pytorch_model.bin": ("a.bin", lambda path, m: torch.save(whole(m), path)),
    "model.safetensors": ("a.safetensors", lambda path, m: save_file(kept_once(m), path)),
    "DDP": ("a.bin", lambda path, m: torch.save(prefixed("module.", whole(m)), path)),
    "DDP, safetensors": ("a.safetensors", lambda path, m: save_file(prefixed("module.", kept_once(m)), path)),
    "DeepSpeed": ("a.pt", lambda path, m: torch.save({"module": whole(m), "dtype": None}, path)),
    "torch.compile": (
        "a.bin",
        lambda path, m: torch.save(
            {f"_orig_mod.{key}".replace("unet.", "unet._orig_mod."): value for key, value in whole(m).items()}, path
        ),
    ),
    "list alone": ("a.bin", lambda path, m: torch.save(numbered_alone(m), path)),
    "the UNet's names in ip_adapter": (
        "a.bin",
        lambda path, m: torch.save({"image_proj": split(m)[0], "ip_adapter": prefixed("unet.", split(m)[2])}, path),
    ),
    "save_attn_procs and the projection": ("a.safetensors", lambda path, m: save_file(attn_procs(m), path)),
    "in a dictionary": (
        "a.ckpt",
        lambda path, m: torch.save({"state_dict": {"image_proj": split(m)[0], "ip_adapter": split(m)[1]}}, path),
    ),
    "in two dictionaries": ("a.ckpt", lambda path, m: torch.save({"model": {"state_dict": whole(m)}}, path)),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_layer_is_at_its_place(kind: str, model: Trained, tmp_path: Path) -> None:
    """diffusers' own list of processors is the published order."""
    name, write = FILES[kind]
    write(tmp_path / name, model)
    file = read_adapter(tmp_path / name)
    projection, numbered, _ = split(model)
    expected = prefixed("image_proj.", projection) | prefixed("ip_adapter.", numbered)
    assert file.tensors.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(file.tensors[key], value), key
    assert read_shapes(tmp_path / name).shapes.keys() == expected.keys()
    positions = {index: name for index, name in enumerate(model.unet.attn_processors) if "attn2" in name}
    adapter = build_adapter(file.tensors)
    assert adapter.spec.layers == tuple(positions)
    for index in positions:
        assert (file.tensors[f"ip_adapter.{index}.to_k_ip.weight"] == index).all()
    assert adapter.spec.has_lora == (detect(expected).family == "FaceID")


def test_order_is_neither_alphabetical_nor_down_middle_up(model: Trained) -> None:
    """The fixture can tell them apart."""
    names = [name for name in model.unet.attn_processors if "attn2" in name]
    assert names != sorted(names) and names[-1].startswith("mid_block")
    assert any(".transformer_blocks.11." in name for name in names)


def test_folder_of_a_checkpoint(model: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(whole(model), tmp_path / "pytorch_model.bin")
    for name in ("optimizer.bin", "scheduler.bin", "scaler.pt", "random_states_0.pkl"):
        torch.save({"state": {}}, tmp_path / name)
    assert main([str(tmp_path)]) == 0
    assert "pytorch_model.bin" in capsys.readouterr().out
    print(convert(tmp_path, tmp_path.parent / "published.safetensors"))
    found = read_adapter(tmp_path.parent / "published.safetensors").tensors
    assert all(key.startswith(("image_proj.", "ip_adapter.")) for key in found)


@pytest.mark.parametrize("prefix", ["", "unet.", "module.unet."])
def test_half_of_an_adapter_says_which(model: Trained, prefix: str, tmp_path: Path) -> None:
    projection, _, by_name = split(model)
    torch.save(prefixed(prefix, by_name), tmp_path / "procs.bin")
    with pytest.raises(ValueError, match=r"K' and V' alone .* choose the whole checkpoint"):
        detect(read_adapter(tmp_path / "procs.bin").tensors)
    torch.save(prefixed("image_proj_model.", projection), tmp_path / "proj.bin")
    with pytest.raises(ValueError, match=r"image_proj\.\* alone"):
        detect(read_adapter(tmp_path / "proj.bin").tensors)


def test_several_adapters_in_one_unet(model: Trained, tmp_path: Path) -> None:
    both = attn_procs(model) | {key.replace("_ip.0.", "_ip.1."): value for key, value in attn_procs(model).items()}
    torch.save(both, tmp_path / "two.bin")
    for read in (read_adapter, read_shapes):
        with pytest.raises(ValueError, match=r"two\.bin: .*several adapters: save each"):
            read(tmp_path / "two.bin")


def test_projection_in_diffusers_names(tmp_path: Path) -> None:
    """A UNet that was saved with an adapter on it, by diffusers."""
    model = trained(False)
    projection, numbered, _ = split(model)
    layer = "encoder_hid_proj.image_projection_layers.0."
    unet = {key.replace("_ip.weight", "_ip.0.weight"): value for key, value in model.unet.state_dict().items()}
    names = {key: layer + key.replace("proj.", "image_embeds.") for key in projection}
    torch.save(unet | {names[key]: value for key, value in projection.items()}, tmp_path / "unet.bin")
    found = read_adapter(tmp_path / "unet.bin").tensors
    expected = prefixed("image_proj.", projection) | prefixed("ip_adapter.", numbered)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], value) for key, value in expected.items())


def test_numbers_that_no_unet_writes(tmp_path: Path) -> None:
    key = "down_blocks.00.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.weight"
    torch.save({key: torch.ones(2, 2), "image_proj.proj.weight": torch.ones(2, 2)}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="is a UNet alone, not an IP-Adapter"):
        detect(read_adapter(tmp_path / "a.bin").tensors)
