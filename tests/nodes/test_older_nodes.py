"""Every older node runs, as programs call it in Python, and changes the prediction; its numbers are held elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import host, models, published
from tests.support.older import call, changed, classes, loaded, model, nested, pictures, plain, prediction

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
import folder_paths  # noqa: E402

SINGLE = {
    "IPAdapter": {"weight_type": "prompt is more important"},
    "IPAdapterAdvanced": {"combine_embeds": "norm average", "embeds_scaling": "K+mean(V) w/ C penalty"},
    "IPAdapterMS": {"layer_weights": "0:1, 5:0.5, 40:1", "insightface": None},
    "IPAdapterPreciseStyleTransfer": {"style_boost": 2.0},
    "IPAdapterPreciseComposition": {"composition_boost": 0.5},
    "IPAdapterClipVisionEnhancer": {"enhance_tiles": 2, "enhance_ratio": 0.5},
}
BATCHES = {
    "IPAdapterBatch": {"weight": [0.5, 1.0, 0.0], "encode_batch_size": 1},
    "IPAdapterPreciseStyleTransferBatch": {"weight": [1.0, 0.5]},
    "IPAdapterPreciseCompositionBatch": {},
    "IPAdapterClipVisionEnhancerBatch": {"enhance_tiles": 2},
}


@pytest.mark.parametrize("id", SINGLE)
def test_a_picture(id: str) -> None:
    """Whatever is left out, and None, does nothing."""
    adapter = loaded("plus" if id == "IPAdapterAdvanced" else "base")
    found, crops = call(id, model(), adapter, image=pictures(2), attn_mask=None, exact=None, **SINGLE[id])
    assert crops is None
    exact, _ = call(id, model(), adapter, image=pictures(2), exact=True, **SINGLE[id])
    # Without a mask and on a base adapter, only the middle block differs, where the node gives it a weight.
    assert torch.equal(changed(found), changed(exact)) == (id in ("IPAdapterMS", "IPAdapterPreciseStyleTransfer"))


@pytest.mark.parametrize("id", BATCHES)
def test_a_picture_for_each_latent(id: str) -> None:
    found, _ = call(id, model(), loaded(), image=pictures(2), attn_mask=torch.rand(2, 20, 30), **BATCHES[id])
    changed(found, 4)


def test_one_application_is_not_seen_upstream() -> None:
    call("IPAdapterAdvanced", model(), loaded(), image=pictures())
    assert torch.equal(prediction(model()), plain())


@pytest.mark.slow
@pytest.mark.parametrize("id", ["IPAdapterStyleComposition", "IPAdapterStyleCompositionBatch"])
def test_style_and_composition(id: str) -> None:
    inputs = {"image_style": pictures(), "image_composition": pictures(seed=1)}
    found, _ = call(id, model("SDXL"), loaded("base", "SDXL"), **inputs)
    other, _ = call(id, model("SDXL"), loaded("base", "SDXL"), **inputs | {"image_composition": pictures(seed=2)})
    assert not torch.equal(changed(found, 1, "SDXL"), changed(other, 1, "SDXL"))
    with pytest.raises(ValueError, match="SDXL"):
        call(id, model(), loaded(), **inputs)


@pytest.mark.parametrize("id", ["IPAdapterTiled", "IPAdapterTiledBatch"])
def test_tiles(id: str) -> None:
    found, tiles, masks = call(id, model(), loaded(), image=pictures(1, 64, 100), sharpening=0.5)
    assert tiles.shape == (2, 256, 256, 3) and masks.shape == (2, 256, 400)
    changed(found)


@pytest.mark.parametrize("family", ["base", "plus"])
def test_embeds(family: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    positive, negative = call("IPAdapterEncoder", loaded(family), pictures(2), 0.8, mask=torch.ones(1, 30, 40))
    joined = call("IPAdapterCombineEmbeds", positive, "concat", embed2=negative)[0]
    assert joined.shape[1:] == positive.shape[1:]
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    call("IPAdapterSaveEmbeds", positive, "sub/mine")
    call("IPAdapterSaveEmbeds", positive, "sub/mine")
    choices = classes()["IPAdapterLoadEmbeds"].INPUT_TYPES()["required"]["embeds"][0]
    assert choices == ["sub/mine_00001.ipadpt", "sub/mine_00002.ipadpt"]
    (again,) = call("IPAdapterLoadEmbeds", "sub/mine_00002.ipadpt")
    assert torch.equal(again, positive)
    for id in ("IPAdapterEmbeds", "IPAdapterEmbedsBatch"):
        (found,) = call(id, model(), loaded(family), pos_embed=again, neg_embed=None)
        changed(found, 2)


def test_an_embeds_file_with_code_in_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    torch.save(functools.partial(print, "run"), tmp_path / "bad.ipadpt")
    with pytest.raises(ValueError, match=r"bad\.ipadpt holds more than weights"):
        call("IPAdapterLoadEmbeds", "bad.ipadpt")
    with pytest.raises(ValueError, match="was not found"):
        call("IPAdapterLoadEmbeds", "../bad.ipadpt")


def test_regions() -> None:
    text = models.text(1)
    params, positive, negative = call(
        "IPAdapterRegionalConditioning", pictures(), 0.8, 0.5, "linear", 0.0, 1.0, torch.ones(1, 8, 8), text
    )
    assert positive[0][1]["mask_strength"] == 0.5 and positive[0][1]["set_area_to_bounds"] is False
    assert negative is None and params["weight"] == [0.8]
    without, same, _ = call("IPAdapterRegionalConditioning", pictures(seed=1), positive=text)
    assert same is text
    (both,) = call("IPAdapterCombineParams", params, without)
    (found,) = call("IPAdapterFromParams", model(), loaded(), both, "concat", "V only")
    changed(found)


def test_weights_and_pictures_of_frames() -> None:
    weights, inverse, total, first, second, strategy = call(
        "IPAdapterWeights", "1, 0", "linear", 3, 0, 9999, 1, 1, "shift batches", pictures(3)
    )
    assert weights == [1, 1, 0.5, 0, 1, 0.5, 0, 0] and inverse == weights[::-1] and total == 8
    assert len(first) == len(second) == 8
    again = call("IPAdapterWeightsFromStrategy", strategy, pictures(3))
    assert again[0] == weights and torch.equal(again[3], first)
    (schedule,) = call("IPAdapterPromptScheduleFromWeightsStrategy", strategy, "one\n\ntwo")
    assert schedule == '"0": "one",\n"1": "one",\n"4": "two",\n"7": "two",\n"10": "two",\n'
    assert call("IPAdapterCombineWeights", [0.5, 1.0], 0.0) == ([0.5, 1.0, 0.0], 3)
    assert call("IPAdapterWeights", "", "custom")[0] == [0.0]


@pytest.mark.parametrize("kind", ["fade", "dissolve", "gaussian", "shuffle"])
def test_noise(kind: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = (call("IPAdapterNoise", kind, 0.5, 4, pictures(1, 40, 60))[0] for _ in range(2))
    assert one.shape == (1, 224, 224, 3) and torch.equal(one, two) and torch.isfinite(one).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert call("IPAdapterNoise", kind, 1.0, 0)[0].std() > 0.01


@pytest.mark.parametrize("position", ["top", "bottom", "left", "right", "center", "pad"])
def test_prepared_pictures(position: str) -> None:
    (found,) = call("PrepImageForClipVision", pictures(2, 40, 61), "LANCZOS", position, 0.3)
    assert found.shape == (2, 224, 224, 3) and found.min() >= 0 and found.max() <= 1


def test_an_adapter_is_made_once_for_a_state_dict() -> None:
    sockets = host.part("nodes.older.sockets")
    weights = nested(models.adapter_weights("base", model()))
    one, two = (sockets.models_of({"ipadapter": {"file": "a", "model": weights}}).adapter for _ in range(2))
    assert one is two and sockets.models_of(weights).adapter is one
    kept = len(sockets._made)
    del weights, one, two
    assert len(sockets._made) == kept - 1


def test_versions_of_faceid_plus_are_told_by_the_dict() -> None:
    sockets = host.part("nodes.older.sockets")
    weights = nested(published.filled(published.LAYOUTS["FaceID plus v1 and v2 SD1.5"]))
    assert not sockets.models_of(weights).adapter.spec.shortcut
    assert sockets.models_of({**weights, "faceidplusv2": True}).adapter.spec.shortcut


def test_unknown_inputs_and_missing_parts() -> None:
    with pytest.raises(TypeError, match="no_such"):
        call("IPAdapterAdvanced", model(), loaded(), image=pictures(), no_such=1)
    bare = loaded()["ipadapter"]["model"]
    with pytest.raises(ValueError, match="clip_vision"):
        call("IPAdapterAdvanced", model(), bare, image=pictures())
    with pytest.raises(ValueError, match="unified loader"):
        call("IPAdapter", model(), bare, image=pictures())
