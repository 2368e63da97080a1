"""What older nodes predict, against formulas of their own: every node that applies an adapter, every mode of it.

Small UNets of SD1.5's and SDXL's structure, an encoder of ViT-H's widths, all with random weights.
"""

from __future__ import annotations

import pytest
import torch

from tests.support import figures, older_features, older_pictures
from tests.support.older import call
from tests.support.older_cases import (
    BAR,
    CHANNELS,
    KIND,
    advanced,
    compare,
    loaded,
    mask,
    model,
    pictures,
    said,
    weights,
)
from tests.support.older_features import Said, black, combine, masked, normalised, states, tokens
from tests.support.older_formulas import Application

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
WEIGHT_TYPES = (
    "linear", "ease in", "ease out", "ease in-out", "reverse in-out", "weak input", "weak output", "weak middle",
    "strong middle", "style transfer", "composition", "strong style transfer", "style and composition",
    "style transfer precise", "composition precise",
)  # fmt: skip
ALIKE = ("ease in", "ease out", "ease in-out", "weak input", "weak middle")  # in all bases: others show SDXL's numbers
IN_THE_MIDDLE = ("ease in", "weak middle", "strong middle", "strong style transfer", "composition precise")
SCALINGS = ("V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty")
COMBINED = {"combine_embeds": "average"}
COMBINE = ("concat", "add", "subtract", "average", "norm average")


@pytest.mark.parametrize(
    ("base", "exact", "kind"),
    [
        *(("SD15", False, kind) for kind in WEIGHT_TYPES),
        *(("SDXL", False, kind) for kind in WEIGHT_TYPES if kind not in ALIKE),
        *(("SD15", True, kind) for kind in IN_THE_MIDDLE),
    ],
)
def test_weight_types(base: str, exact: bool, kind: str) -> None:
    advanced(f"{kind}{' exact' * exact}", base=base, exact=exact,
             inputs={"weight": 0.7, "weight_type": kind}, weight=0.7, weight_type=kind)  # fmt: skip


@pytest.mark.parametrize("base", CHANNELS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scalings(scaling: str, base: str) -> None:
    """With two pictures side by side: the mean of V' is each picture's own."""
    advanced(f"{scaling}, two pictures", "plus" if base == "SD15" else "base", base, 2,
             inputs={"weight": 0.6, "embeds_scaling": scaling, "weight_type": "ease in"}, weight=0.6, scaling=scaling,
             weight_type="ease in")  # fmt: skip


@pytest.mark.parametrize("family", ["base", "plus", "full-face"])
@pytest.mark.parametrize("how", COMBINE)
def test_combined_pictures(how: str, family: str) -> None:
    advanced(f"{how} of three", family, count=3, how=how)


@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize("how", COMBINE)
def test_negative_pictures(how: str, family: str) -> None:
    advanced(f"{how} of three, two negatives", family, count=3, how=how,
             negative=pictures(2, seed=5), exact=how == "norm average" and family == "plus")  # fmt: skip


@pytest.mark.parametrize("family", ["base", "plus", "full-face"])
@pytest.mark.parametrize("how", ["concat", "norm average"])
def test_exact_families(family: str, how: str) -> None:
    advanced(f"{how} of two, exact", family, count=2, how=how, exact=True)


SIMPLE = {"standard": "linear", "prompt is more important": "ease out", "style transfer": "style transfer"}


@pytest.mark.parametrize("kind", SIMPLE)
def test_the_simple_node(kind: str) -> None:
    """Several pictures are side by side there."""
    patched, _ = call("IPAdapter", model(), loaded("plus"), image=pictures(2), weight=0.8, weight_type=kind)
    made = tokens(said("plus", pictures(2)))
    applied = Application(weights("plus"), **made, weight=0.8, weight_type=SIMPLE[kind])
    compare(f"SD15 plus simple: {kind}", patched, [applied])


PRECISE = {"IPAdapterPreciseStyleTransfer": ("style_boost", "style transfer precise"),
           "IPAdapterPreciseComposition": ("composition_boost", "composition precise")}  # fmt: skip


@pytest.mark.parametrize("batch", ["", "Batch"])
@pytest.mark.parametrize("base", CHANNELS)
@pytest.mark.parametrize("id", PRECISE)
def test_precise_nodes(id: str, base: str, batch: str) -> None:
    name, kind = PRECISE[id]
    advanced(f"{id}{batch}", "base", base, 2, id=f"{id}{batch}", batch=3 if batch else 1,
             inputs={"weight": 0.7, name: 1.6}, weight=0.7, boost=1.6, weight_type=kind)  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["linear", "ease in", "style transfer", "style transfer precise", "composition precise"]
)
@pytest.mark.parametrize("text", ["0:1, 4:0.5,5:2, 9:-0.5, 40:3", " "])
def test_layers_by_their_numbers(kind: str, text: str) -> None:
    advanced(f"layer_weights {text!r} {kind}", id="IPAdapterMS",
             inputs={"weight": 0.7, "weight_type": kind, "layer_weights": text}, weight=0.7, weight_type=kind,
             layer_weights=text)  # fmt: skip


def test_layers_by_their_numbers_sdxl() -> None:
    text = "3:2.5, 6:1"
    advanced("layer_weights", base="SDXL", id="IPAdapterMS", inputs={"layer_weights": text},
             layer_weights=text)  # fmt: skip


def test_a_part_of_the_sampling() -> None:
    advanced("0.2 to 0.7 of the sampling", steps=6, inputs={"start_at": 0.2, "end_at": 0.7},
             start=0.2, end=0.7)  # fmt: skip


def test_the_order_of_applications() -> None:
    first, _ = call("IPAdapterAdvanced", model(), loaded("plus"), image=pictures(), weight=0.5)
    patched, _ = call("IPAdapterAdvanced", first, loaded(), image=pictures(seed=3), attn_mask=mask(),
                      weight_type="style transfer precise")  # fmt: skip
    applied = [
        Application(weights("plus"), **tokens(said("plus", pictures())), weight=0.5),
        Application(weights(), **tokens(said("base", pictures(seed=3))), weight_type="style transfer precise",
                    mask=mask()),
    ]  # fmt: skip
    compare("two applications", patched, applied)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("id", ["IPAdapterStyleComposition", "IPAdapterStyleCompositionBatch"])
def test_style_and_composition(id: str, expand: bool) -> None:
    count, unfold, seen, laid = 2, id.endswith("Batch"), pictures(2), pictures(2, seed=4)
    how = {} if unfold else {"combine_embeds": "average"}
    patched, _ = call(id, model("SDXL"), loaded("base", "SDXL"), image_style=seen, image_composition=laid,
                      weight_style=0.8, weight_composition=1.3, expand_style=expand, **how)  # fmt: skip
    source = said("base", seen, None, "SDXL", composition=states(normalised(laid), "pooled"))
    kind = "strong style and composition" if expand else "style and composition"
    applied = Application(weights("base", "SDXL"), **tokens(source, "average", unfold), weight=0.8,
                          composition_weight=1.3, weight_type=kind)  # fmt: skip
    compare(f"SDXL {id} {kind}", patched, [applied], "SDXL", count if unfold else 1)


@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", ["", "Batch"])
def test_the_enhancer(family: str, count: int, batch: str) -> None:
    seen, kind, how = pictures(count, 61, 83), KIND.get(family, "penultimate"), "average" if count == 2 else "concat"
    given = {} if batch else {"combine_embeds": how}
    patched, _ = call(f"IPAdapterClipVisionEnhancer{batch}", model(), loaded(family), image=seen, enhance_tiles=2,
                      enhance_ratio=0.3, **given)  # fmt: skip
    source = Said(weights(family), older_features.enhanced(seen, 2, 0.3, kind), black(kind))
    applied = Application(weights(family), **tokens(source, how, bool(batch)))
    name = f"SD15 {family} Enhancer{batch}, {count} pictures"
    compare(name, patched, [applied], batch=2 if batch else 1)


# One row of two, three by three as near-square as it gets, a long one cut to 4 : 1, and a high one.
@pytest.mark.parametrize("size", [(64, 100), (70, 90), (30, 153), (130, 60)], ids=str)
def test_tiles(size: tuple[int, int]) -> None:
    """The tiles and their masks, and an application of each in turn."""
    seen, place = pictures(2, *size), mask(1, *size)
    id, unfold, how = ("IPAdapterTiledBatch", True, {}) if size[0] == 64 else ("IPAdapterTiled", False, COMBINED)
    patched, tiles, masks = call(id, model(), loaded(), image=seen, attn_mask=place, sharpening=0.3, weight=0.5, **how)
    parts, places = older_pictures.tiles(seen, place, 0.3)
    errors = [float((one - torch.cat(other)).abs().max()) for one, other in ((tiles, parts), (masks, places))]
    print(f"\n{len(parts)} tiles: {errors[0]:.1e}, masks {errors[1]:.1e}")
    assert max(errors) <= 1 / 255
    if size != (30, 153):
        applied = [
            Application(weights(), **tokens(said("base", part), "average", unfold), weight=0.5, mask=inside)
            for part, inside in zip(parts, places)
        ]
        compare(f"SD15 base {id} {size}", patched, applied, batch=2 if unfold else 1)


@pytest.mark.parametrize("exact", [False, True], ids=["as it was", "exact"])
def test_params_of_regions(exact: bool) -> None:
    seen, places = [pictures(2), pictures(1, seed=3)], [mask(), None]
    regions = [
        call("IPAdapterRegionalConditioning", one, 0.6 + n, 1.0, kind, 0.0, 1.0, place)[0]
        for n, (one, place, kind) in enumerate(zip(seen, places, ("ease in", "style transfer")))
    ]
    (both,) = call("IPAdapterCombineParams", *regions)
    negative = pictures(1, seed=7)
    patched = call("IPAdapterFromParams", model(), loaded("plus"), both, "add", "K+V", negative, exact=exact)[0]
    applied = [
        Application(weights("plus"), **tokens(said("plus", one, negative, exact=exact), "add"), weight=0.6 + n,
                    weight_type=kind, mask=place, scaling="K+V", exact=exact)
        for n, (one, place, kind) in enumerate(zip(seen, places, ("ease in", "style transfer")))
    ]  # fmt: skip
    compare(f"SD15 plus params{' exact' * exact}", patched, applied)


@pytest.mark.parametrize("family", ["base", "plus"])
def test_embeds(family: str) -> None:
    """Encoder's features to both nodes, with and without negatives, combined before."""
    kind, cut = KIND.get(family, "penultimate"), mask()
    positive, negative = call("IPAdapterEncoder", loaded(family), pictures(2), 0.8, mask=cut)
    expected = 0.8 * masked(pictures(2), cut, kind)
    errors = [figures.relative(positive, expected), *(float((row - black(kind)[0]).abs().max()) for row in negative)]
    print(f"\n{family}: features {errors[0]:.1e}, of no picture {max(errors[1:]):.1e}")
    assert max(errors) <= BAR
    for id, unfold in (("IPAdapterEmbeds", False), ("IPAdapterEmbedsBatch", True)):
        patched = call(id, model(), loaded(family), pos_embed=positive, weight=0.9)[0]
        source = Said(weights(family), expected, black(kind))
        applied = Application(weights(family), **tokens(source, unfold=unfold), weight=0.9)
        compare(f"SD15 {family} {id}", patched, [applied], batch=2)
    against, _ = call("IPAdapterEncoder", loaded(family), pictures(2, seed=6), 1.0)
    patched = call("IPAdapterEmbeds", model(), loaded(family), pos_embed=positive, neg_embed=against)[0]
    source = Said(weights(family), expected, states(normalised(pictures(2, seed=6)), kind))
    applied = Application(weights(family), **tokens(source))
    compare(f"SD15 {family} IPAdapterEmbeds with negatives", patched, [applied])


@pytest.mark.parametrize("exact", [False, True], ids=["as it was", "exact"])
@pytest.mark.parametrize("how", [*COMBINE, "max", "min"])
def test_combined_embeds(how: str, exact: bool) -> None:
    rows = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    (found,) = call("IPAdapterCombineEmbeds", rows[:1], how, embed2=rows[1:3], embed5=rows[3:], exact=exact)
    (single,) = call("IPAdapterCombineEmbeds", rows[:1], how, exact=exact)
    # A single row is left as it is where the older pack gave NaN, and by `exact`, as in the nodes of today.
    alone = rows[:1] if exact or how == "subtract" else combine(rows[:1], how)
    worst = max(figures.relative(found, combine(rows, how, exact)), figures.relative(single, alone))
    print(f"\n{how}: {worst:.1e}")
    assert worst <= 1e-6
