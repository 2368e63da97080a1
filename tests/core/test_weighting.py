"""Layer weights by preset, by checkpoint index, against what other packs' presets do."""

import pytest

from ipadapter_core import LAYER_WEIGHTS, Site, comfyui_block, layer_weights, unet_sites


def table(down: dict[tuple[int, int], int], up: dict[tuple[int, int], int], middle: int) -> list[Site]:
    """The table of a UNet with attention modules (level, number) of these depths."""
    places = [("down_blocks", place, depth) for place, depth in down.items()]
    places += [("up_blocks", place, depth) for place, depth in up.items()]
    names = [
        f"{section}.{level}.attentions.{number}.transformer_blocks.{i}.attn2"
        for section, (level, number), depth in places
        for i in range(depth)
    ]
    return unet_sites(names + [f"mid_block.attentions.0.transformer_blocks.{i}.attn2" for i in range(middle)])


SD15 = table(
    {(level, n): 1 for level in (0, 1, 2) for n in (0, 1)}, {(level, n): 1 for level in (1, 2, 3) for n in (0, 1, 2)}, 1
)
SDXL = table(
    {(1, 0): 2, (1, 1): 2, (2, 0): 10, (2, 1): 10},
    {(0, 0): 10, (0, 1): 10, (0, 2): 10, (1, 0): 2, (1, 1): 2, (1, 2): 2},
    10,
)
SSD_1B = table({(1, 0): 2, (2, 0): 4}, {(0, 0): 4, (0, 1): 4}, 0)


def ones(*indices: int) -> dict[int, float]:
    return dict.fromkeys(indices, 1.0)


# In forward order SD1.5 has 0-5 down (1 to 11), 6 middle (31), 7-15 up (13 to 29). Style is 0-3 and 9-15, composition
# is 4, at a quarter, and 5. SDXL has 0-3 down, 4 middle, 5-10 up; style is 6 (69 to 87), composition 3 (29 to 47).
EXPECTED = {
    ("SD1.5", "all"): ones(*range(1, 32, 2)),
    ("SD1.5", "style"): ones(1, 3, 5, 7, 17, 19, 21, 23, 25, 27, 29),
    ("SD1.5", "composition"): {9: 0.25, 11: 1.0},
    ("SD1.5", "style + composition"): ones(1, 3, 5, 7, 11, 17, 19, 21, 23, 25, 27, 29) | {9: 0.25},
    ("SD1.5", "middle off (as in older packs)"): ones(*range(1, 30, 2)),
    ("SDXL", "all"): ones(*range(1, 140, 2)),
    ("SDXL", "style"): ones(69, 71, 73, 75, 77, 79, 81, 83, 85, 87),
    ("SDXL", "composition"): ones(29, 31, 33, 35, 37, 39, 41, 43, 45, 47),
    ("SDXL", "style + composition"): ones(*range(29, 48, 2), *range(69, 88, 2)),
    ("SDXL", "middle off (as in older packs)"): ones(*range(1, 120, 2)),
}


@pytest.mark.parametrize(("base", "preset"), EXPECTED)
def test_presets(base, preset):
    weights = layer_weights(preset, {"SD1.5": SD15, "SDXL": SDXL}[base])
    print(base, preset, weights)
    assert weights == EXPECTED[base, preset]


def test_every_preset_is_tested():
    assert {preset for _, preset in EXPECTED} == set(LAYER_WEIGHTS)


def test_style_of_sdxl_is_the_up_block_at_width_1280_and_composition_the_last_down_attention():
    blocks = {layer.index: comfyui_block(layer)[:2] for layer in SDXL}
    assert {blocks[index] for index in layer_weights("style", SDXL)} == {("output", 1)}
    assert {blocks[index] for index in layer_weights("composition", SDXL)} == {("input", 8)}


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"unknown layer weights 'vibes': choose one of all, style"):
        layer_weights("vibes", SD15)


@pytest.mark.parametrize("preset", ["style", "composition", "style + composition"])
def test_base_of_another_shape(preset):
    with pytest.raises(
        ValueError, match=r"known for SD1\.5, SD2, SDXL, Kolors; this model has 4 attention modules: choose 'all'"
    ):
        layer_weights(preset, SSD_1B)


def test_base_of_another_shape_with_presets_that_need_none():
    assert layer_weights("all", SSD_1B) == ones(*range(1, 28, 2))
    assert layer_weights("middle off (as in older packs)", SSD_1B) == ones(*range(1, 28, 2))
