"""Layer weights by preset, by checkpoint index, against what other packs' presets do."""

import pytest

from ipadapter_core import (
    LAYER_WEIGHTS,
    Layers,
    Site,
    comfyui_block,
    layer_weights,
    layer_words,
    swapped_layers,
    unet_sites,
)


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


# By module in forward order, the numbers that people know these presets by; L is 16 and 11, WC and B are factors.
WC, B = 0.6, 0.7
SD, XL = range(16), range(11)


def named(count: int, weights: dict[int, float], rest: float = 0.0) -> list[float]:
    return [weights.get(t, rest) for t in range(count)]


BY_MODULE = {
    "ease in": [[0.05 + 0.95 * (1 - t / len(ts)) for t in ts] for ts in (SD, XL)],
    "ease out": [[0.05 + 0.95 * t / len(ts) for t in ts] for ts in (SD, XL)],
    "ease in-out": [[0.05 + 0.95 * (1 - abs(t - len(ts) / 2) / (len(ts) / 2)) for t in ts] for ts in (SD, XL)],
    "reverse in-out": [[0.05 + 0.95 * abs(t - len(ts) / 2) / (len(ts) / 2) for t in ts] for ts in (SD, XL)],
    "weak input": [named(16, dict.fromkeys(range(6), 0.2), 1), named(11, dict.fromkeys(range(4), 0.2), 1)],
    "weak middle": [named(16, {6: 0.2}, 1), named(11, {4: 0.2}, 1)],
    "weak output": [named(16, dict.fromkeys(range(7, 16), 0.2), 1), named(11, dict.fromkeys(range(5, 11), 0.2), 1)],
    "strong middle": [named(16, {6: 1}, 0.2), named(11, {4: 1}, 0.2)],
    "strong style": [named(16, {4: 0, 5: 0}, 1), named(11, {3: 0}, 1)],
    "style + composition": [
        named(16, dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0) | {4: 0.25 * WC, 5: WC}), named(11, {3: WC, 6: 1})
    ],
    "strong style + composition": [named(16, {4: WC, 5: WC}, 1), named(11, {3: WC}, 1)],
    "style precise": [
        named(16, dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0) | {4: 0.25 * B, 5: B}), named(11, {3: B, 6: 1})
    ],
    "composition precise": [
        named(16, {4: 0.25, 5: 1, 6: 0.1 * B, 7: 0.1 * B, 8: 0.1 * B}, B), named(11, {3: 1, 6: B}, 0.1 * B)
    ],
}  # fmt: skip


@pytest.mark.parametrize("preset", BY_MODULE)
def test_presets_by_module(preset):
    layers = Layers(preset, composition=WC, boost=B)
    for sites, expected in zip((SD15, SDXL), BY_MODULE[preset]):
        shares, modules = layer_weights(layers, sites), [site.place[:3] for site in sites]
        forward = sorted(set(modules), key=lambda place: ({"down": 0, "mid": 1, "up": 2}[place[0]], place[1:]))
        found = {forward.index(place): shares.get(site.index, 0) for site, place in zip(sites, modules)}
        assert [found[t] for t in range(len(expected))] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("preset", "of_sd", "of_sdxl"),
    [("style", [], []), ("style precise", [9, 11], range(29, 48, 2)),
     ("composition precise", [*range(1, 9, 2), *range(13, 32, 2)], [*range(1, 28, 2), *range(49, 140, 2)])],
)  # fmt: skip
def test_where_conditional_and_unconditional_change_places(preset, of_sd, of_sdxl):
    for sites, expected in ((SD15, of_sd), (SDXL, of_sdxl)):
        assert swapped_layers(preset, sites) == set(expected)
        assert swapped_layers(Layers(preset, text="3: 1"), sites) == set(expected)


def test_a_text_names_modules():
    assert layer_weights(Layers(text="3: 0.5, 6:1"), SDXL) == dict.fromkeys(range(29, 48, 2), 0.5) | ones(
        *range(69, 88, 2)
    )
    assert layer_weights(Layers("style", text="0-1: .5; 15: -1\n"), SD15) == {1: 0.5, 3: 0.5, 29: -1}
    assert layer_weights(Layers(text="middle: 2, up: 1, 15: 0"), SD15) == {31: 2} | ones(*range(13, 28, 2))
    assert layer_weights(Layers(text=" , "), SD15) == layer_weights("all", SD15)


@pytest.mark.parametrize("text", ["3", "3:", "x: 1", "3: one", "3: nan", "3: inf", "-1: 1", "3 0.5"])
def test_a_text_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="cannot be read: write a module, a range or one of down, middle, up"):
        Layers(text=text)


def test_a_text_that_names_what_the_model_does_not_have():
    with pytest.raises(ValueError, match="name 11, and this model has the attention modules 0 to 10"):
        layer_weights(Layers(text="11: 1"), SDXL)


def test_layers_in_words():
    assert layer_words(layer_weights("style + composition", SD15), SD15) == (
        "layers 0-3: 1, 4: 0.25, 5: 1, 9-15: 1 of 16 (0-5 down, 6 middle, 7-15 up)"
    )
    assert layer_words(layer_weights("all", SD15), SD15) == "layers 0-15: 1 of 16 (0-5 down, 6 middle, 7-15 up)"
    assert layer_words(layer_weights("style", SDXL), SDXL) == "layers 6: 1 of 11 (0-3 down, 4 middle, 5-10 up)"


def test_every_preset_is_tested():
    assert {preset for _, preset in EXPECTED} | set(BY_MODULE) == set(LAYER_WEIGHTS)


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
