"""The layer table, derived from module names, against the published numbering, diffusers' own order and ComfyUI's."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel

from ipadapter_core import comfyui_block, unet_sites
from tests.support import published
from tools.unets import SD2, SD15, SDXL, SSD_1B

SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
}
# Bases in diffusers' words.
BASES = {
    "SD1.5": SD | {"cross_attention_dim": 768, "attention_head_dim": 8},
    "SD2": SD | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "SDXL": XL | {"transformer_layers_per_block": (1, 2, 10)},
    "SSD-1B": XL
    | {
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    "one layer a block": SD | {"cross_attention_dim": 768, "layers_per_block": 1},
}

# The published numbering, written out: checkpoint index, ComfyUI's block. Down, up, middle.
SD_TABLE = [
    (1, ("input", 1, 0)),
    (3, ("input", 2, 0)),
    (5, ("input", 4, 0)),
    (7, ("input", 5, 0)),
    (9, ("input", 7, 0)),
    (11, ("input", 8, 0)),
    (13, ("output", 3, 0)),
    (15, ("output", 4, 0)),
    (17, ("output", 5, 0)),
    (19, ("output", 6, 0)),
    (21, ("output", 7, 0)),
    (23, ("output", 8, 0)),
    (25, ("output", 9, 0)),
    (27, ("output", 10, 0)),
    (29, ("output", 11, 0)),
    (31, ("middle", 0, 0)),
]


def rows(depths: list[tuple[str, int, int]]) -> list[tuple[int, tuple[str, int, int]]]:
    """(section, number, depth) of attention modules in checkpoint order to one row for each layer."""
    blocks = [(section, number, i) for section, number, depth in depths for i in range(depth)]
    return [(2 * position + 1, block) for position, block in enumerate(blocks)]


def modules(section: str, numbers: range | tuple[int, ...], depth: int) -> list[tuple[str, int, int]]:
    return [(section, number, depth) for number in numbers]


SDXL_TABLE = rows(
    [
        *modules("input", (4, 5), 2),
        *modules("input", (7, 8), 10),
        *modules("output", (0, 1, 2), 10),
        *modules("output", (3, 4, 5), 2),
        *modules("middle", (0,), 10),
    ]
)
SSD_1B_TABLE = rows(
    [
        *modules("input", (4, 5), 2),
        *modules("input", (7, 8), 4),
        *modules("output", (0, 1), 4),
        ("output", 2, 10),
        ("output", 3, 2),
        ("output", 4, 1),
        ("output", 5, 1),
    ]
)
ONE_TABLE = rows([*modules("input", (1, 3, 5), 1), *modules("output", range(2, 8), 1), ("middle", 0, 1)])
TABLES = {
    "SD1.5": SD_TABLE,
    "SD2": SD_TABLE,
    "SDXL": SDXL_TABLE,
    "SSD-1B": SSD_1B_TABLE,
    "one layer a block": ONE_TABLE,
}
# ComfyUI's words for the same bases.
COMFYUI = {
    "SD1.5": SD15,
    "SD2": SD2,
    "SDXL": SDXL,
    "SSD-1B": SSD_1B,
    "one layer a block": SD15
    | {
        "num_res_blocks": [1, 1, 1, 1],
        "transformer_depth": [1, 1, 1, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0],
    },
}


def layers_per_block(name: str) -> int:
    return BASES[name].get("layers_per_block", 2)


@pytest.fixture(scope="module", params=BASES)
def base(request):
    """A base's name and its diffusers UNet, without data."""
    with torch.device("meta"):
        return request.param, UNet2DConditionModel(**BASES[request.param])


def module_names(unet: torch.nn.Module) -> list[str]:
    return [name for name, _ in unet.named_modules()]


def test_table_is_the_published_one(base):
    name, unet = base
    table = unet_sites(module_names(unet), layers_per_block(name))
    assert [(layer.index, comfyui_block(layer)) for layer in table] == TABLES[name]
    print(f"{name}: {len(table)} layers, indices {table[0].index} to {table[-1].index}")


def test_indices_are_positions_in_diffusers_processors(base):
    """The published files were written from this order."""
    name, unet = base
    processors = list(unet.attn_processors)
    for layer in unet_sites(module_names(unet), layers_per_block(name)):
        assert processors[layer.index] == f"{layer.diffusers}.processor"


@pytest.mark.parametrize("name, widths", [("SD1.5", "SD15_WIDTHS"), ("SD2", "SD15_WIDTHS"), ("SDXL", "SDXL_WIDTHS")])
def test_widths_are_the_published_ones(name, widths):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**BASES[name])
    table = unet_sites(module_names(unet))
    found = {layer.index: unet.get_submodule(layer.diffusers).to_k.out_features for layer in table}
    assert found == getattr(published, widths)


@pytest.mark.comfy
@pytest.mark.parametrize("name", COMFYUI)
def test_comfyui_names_give_the_same_table(name):
    from tests.support import host

    host.pack()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = copy.deepcopy(COMFYUI[name])
    unet = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    with torch.device("meta"):
        diffusers_names = module_names(UNet2DConditionModel(**BASES[name]))
    table = unet_sites(module_names(unet), layers_per_block(name))
    assert [(layer.index, comfyui_block(layer)) for layer in table] == TABLES[name]
    assert table == unet_sites(diffusers_names, layers_per_block(name))
    for layer in table:  # each name is a module's
        assert unet.get_submodule(layer.comfyui).to_k.in_features == config["context_dim"]


def test_other_models_have_no_layers():
    assert unet_sites(["double_blocks.0.img_attn.qkv", "joint_blocks.3.x_block.attn", "input_blocks.1.1.norm"]) == []
