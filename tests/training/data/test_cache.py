"""A cache gives what the frozen parts give, survives kill -9, and is read only by the training that it fits."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ipadapter_core import Encoder, normalised_square
from tests.support import runs, tiny_models
from tests.support.data_loading import real_pictures
from trainer.base.encoder import encoder_facts
from trainer.base.frozen import Frozen
from trainer.commands.cache import build_cache
from trainer.data.loader import open_loader
from trainer.data.shards import SMALL as SHARD
from trainer.run import loop
from trainer.run.folder import start as start_run
from trainer.settings.config import Config
from trainer.settings.config import tables as config_tables
from trainer.settings.load import parse_config
from trainer.step.inputs import to_inputs
from trainer.step.shape import adapter_spec

pytestmark = pytest.mark.slow


def facts(config: Config) -> Encoder:
    return encoder_facts(config.model.encoder)


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    tables = config_tables(config)
    for section, values in sections.items():
        tables[section] |= values
    return parse_config(tables)


@pytest.fixture(params=[("sd", "base"), ("sd", "plus"), ("sdxl", "base")], ids="-".join)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """Real pictures with several captions, one corrupt and one tiny."""
    kind, family = request.param
    tiny_models.write_base(tmp_path / "base", kind)
    tiny_models.write_encoder(tmp_path / "encoder")
    pictures = real_pictures(tmp_path / "data", 10)
    for number, path in enumerate(pictures):
        path.with_suffix(".txt").write_text(["a picture", f"number {number}", ""][number % 3] + "\nthe same text")
    (tmp_path / "data" / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "tiny.png")
    drops = {"drop_text": 0.2, "drop_image": 0.2}
    config = runs.tiny_config(
        tmp_path, data={"source": str(tmp_path / "data"), "held_out": 2, **drops}, run={"steps": 6}
    )
    return changed(config, adapter={"family": family})


def test_cached_and_uncached_batches_are_equal(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = changed(config, data={"cache": str(tmp_path / "cache")})
    with caplog.at_level(logging.INFO):
        build_cache(cached)
    assert "12 samples, 2 of them skipped" in caplog.text
    feature = "penultimate" if config.adapter.family == "plus" else "pooled"
    frozen, unloaded = Frozen(config.model), Frozen(config.model)
    spec = adapter_spec(config.adapter, frozen.base.sites, frozen.encoder_facts)
    shape = frozen.base.latent_shape(config.data.resolution)
    from_pictures, from_cache = (
        open_loader(one, frozen.encoder_facts, feature, latent_shape=shape) for one in (config, cached)
    )
    zero = from_cache.zero_features()
    assert zero is not None
    unloaded.zero_states_are(zero)
    worst: dict[str, float] = {}
    dropped = 0
    for ours, theirs in [
        *zip(from_cache.batches(0), from_pictures.batches(0), strict=True),
        *zip(from_cache.held_out(), from_pictures.held_out(), strict=True),
    ]:
        assert ours.pixels is ours.condition is theirs.moments is theirs.features is theirs.texts is None
        dropped += int(ours.drop_image.sum())
        a, b = to_inputs(ours, unloaded, spec, ours.uniform), to_inputs(theirs, frozen, spec, theirs.uniform)
        assert list(a.names) == list(b.names)
        assert torch.equal(ours.uniform, theirs.uniform)
        assert ours.geometries == theirs.geometries
        assert a.conditioning.keys() == b.conditioning.keys()
        pairs = {"x0": (a.x0, b.x0), "noise": (a.noise, b.noise), "features": (a.given.features, b.given.features)}
        pairs |= {name: (a.conditioning[name], value) for name, value in b.conditioning.items()}
        for name, (mine, other) in pairs.items():
            worst[name] = max(worst.get(name, 0.0), float((mine - other).abs().max()))
    print("\nlargest differences: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    assert max(worst.values()) <= 1e-5
    assert worst["noise"] == worst.get("time_ids", 0) == 0
    assert ("time_ids" in worst) == ("pooled" in worst)
    assert dropped > 0
    assert not unloaded.parts.loaded, f"a training with a cache has loaded {unloaded.parts.loaded}"


def test_losses_with_and_without_a_cache_are_equal(config: Config, tmp_path: Path) -> None:
    losses = {}
    for name, cache in (("pictures", ""), ("cache", str(tmp_path / "cache"))):
        run = {"folder": str(tmp_path / name), "validate_every_steps": 3}
        settings = changed(config, run=run, data={"cache": cache})
        if cache:
            build_cache(settings)
        loop.train(settings, start_run(settings))
        losses[name] = runs.losses(tmp_path / name)
    off = {step: abs(losses["cache"][step] - loss) / loss for step, loss in losses["pictures"].items()}
    print(f"\nlargest difference of a loss {max(off.values()):.1e} in {len(off)} steps")
    assert len(off) == config.run.steps
    assert max(off.values()) <= 1e-5


def test_low_precision_is_stored_as_it_was_computed(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"precision": "bf16"}, data={"cache": str(tmp_path / "cache")})
    build_cache(config)
    frozen = Frozen(config.model, dtype=torch.bfloat16)
    batch = next(iter(open_loader(config, facts(config), "pooled").batches(0)))
    pictures = changed(config, data={"cache": ""})
    shape = frozen.base.latent_shape(config.data.resolution)
    raw = next(iter(open_loader(pictures, facts(config), "pooled", latent_shape=shape).batches(0)))
    assert raw.condition is not None and raw.pixels is not None and batch.moments is not None
    wanted = frozen.encoder(normalised_square(raw.condition, frozen.encoder_facts), "pooled").float()
    assert batch.features is not None and float((batch.features.float() - wanted).abs().max()) <= 1e-2
    assert batch.texts is not None
    assert batch.features.dtype == batch.texts["states"].dtype == torch.bfloat16
    assert batch.moments.dtype == frozen.base.latent_dtype
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors"))
    build_cache(changed(config, run={"precision": "fp32"}, data={"cache": str(tmp_path / "whole")}))
    whole = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*.safetensors"))
    print(f"\n{size:,} bytes in bf16, {whole:,} in fp32")
    assert size < 0.6 * whole


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_killed_and_finished_is_byte_equal_to_never_killed(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path)
    rows = [{"image_file": f"{number % 12}.png", "text": f"caption {number}"} for number in range(2 * SHARD + 40)]
    (tmp_path / "data" / "many.json").write_text(json.dumps(rows))
    config = changed(config, data={"source": str(tmp_path / "data" / "many.json")})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs.run("cache", runs.write_config(changed(config, data={"cache": str(whole)}), tmp_path / "whole.toml"))
    arguments = ["cache", runs.write_config(changed(config, data={"cache": str(killed)}), tmp_path / "killed.toml")]
    for wanted in (2, 5):
        process = runs.spawn(arguments)
        while len(list(killed.rglob("0*.safetensors"))) < wanted:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        runs.kill(runs.family(process))
        process.communicate()
        reached = len(list(killed.rglob("0*.safetensors")))
        assert reached < len(list(whole.rglob("0*.safetensors")))
        print(f"killed at {reached} shards")
    (killed / "samples" / ".00002.safetensors.part").write_bytes(b"as a kill in the middle of writing leaves it")
    with pytest.raises(ValueError, match="is not complete"):
        open_loader(changed(config, data={"cache": str(killed)}), facts(config), "pooled")
    runs.run(*arguments)
    left, right = files(whole), files(killed)
    assert left.keys() == right.keys()
    mine = tmp_path / "mine"
    mine.touch()
    assert {path.stat().st_mode for path in killed.rglob("*") if path.is_file()} == {mine.stat().st_mode}
    assert left == right
    print(f"{len(left)} files, {sum(map(len, left.values())):,} bytes, all equal")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("made")
    config = runs.tiny_config(folder, data={"cache": str(folder / "cache")})
    build_cache(config)
    tiny_models.write_base(folder / "other_base", seed=5)
    tiny_models.write_encoder(folder / "other_encoder", seed=5)
    runs.write_data(folder / "other_data", number=13)
    return config


def in_folder(made: Config, sections: dict[str, dict[str, Any]]) -> Config:
    """A config with other values, whose "{folder}" is that of the cache."""
    folder = Path(made.data.cache).parent
    filled = {
        name: {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in values.items()}
        for name, values in sections.items()
    }
    return changed(made, **filled)


def refuse(config: Config, message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        open_loader(config, facts(config), "pooled")
    print(f"\n{found.value}")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"crop": "random"}}, "a cache holds one crop of a picture"),
        ({"data": {"cache": "{folder}/nowhere"}}, "has no samples: run python -m trainer cache"),
    ],
)
def test_a_training_that_no_cache_serves_is_refused(
    made: Config, sections: dict[str, dict[str, Any]], message: str
) -> None:
    refuse(in_folder(made, sections), message)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"resolution": 32}}, "of its samples the resolution is 64, this training's is 32"),
        ({"data": {"min_side": 8}}, "of its samples the smallest side is 16, this training's is 8"),
        ({"data": {"source": "{folder}/other_data/data.json"}}, "of its samples the data is"),
        (
            {"model": {"encoder": "{folder}/other_encoder"}},
            r"of its pooled the image encoder is encoder \(\w+\), this training's is other_encoder",
        ),
        ({"model": {"vae": "{folder}/other_base/vae"}}, "of its latents the autoencoder is vae"),
        ({"model": {"base": "{folder}/other_base"}}, "of its latents the autoencoder is vae"),
        ({"run": {"precision": "bf16"}}, "of its latents the precision is fp32, this training's is bf16"),
    ],
)
def test_a_cache_of_something_else_is_refused(made: Config, sections: dict[str, dict[str, Any]], message: str) -> None:
    other = in_folder(made, sections)
    refuse(other, message)
    before = files(Path(made.data.cache))
    with pytest.raises(ValueError, match="holds another cache: " + message):
        build_cache(other)
    assert files(Path(made.data.cache)) == before


def test_a_cache_grows_by_the_features_of_another_family(made: Config) -> None:
    plus = changed(made, adapter={"family": "plus"})
    with pytest.raises(ValueError, match="has no penultimate: run python -m trainer cache"):
        open_loader(plus, facts(plus), "penultimate")
    before = files(Path(made.data.cache))
    build_cache(plus)
    after = files(Path(made.data.cache))
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"penultimate"}
    assert len(list(open_loader(plus, facts(plus), "penultimate").batches(0))) == plus.run.steps


def test_the_same_weights_under_another_name_fit(made: Config, tmp_path: Path) -> None:
    tiny_models.write_encoder(tmp_path / "encoder")
    moved = changed(made, model={"encoder": str(tmp_path / "encoder")})
    assert next(iter(open_loader(moved, facts(moved), "pooled").batches(0))).features is not None


def test_a_damaged_shard_is_named(made: Config, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(made.data.cache, tmp_path / "cache")
    shard = tmp_path / "cache" / "latents" / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    broken = changed(made, data={"cache": str(tmp_path / "cache")})
    with pytest.raises(
        ValueError,
        match=r"latents/00000.safetensors is missing or damaged .* delete it and run python -m trainer cache again",
    ) as found:
        next(iter(open_loader(broken, facts(broken), "pooled").batches(0)))
    print(f"\n{found.value}")


def test_a_folder_that_cannot_be_written(made: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written .*; what is in it stays good") as found:
        build_cache(changed(made, data={"cache": str(tmp_path / "file" / "cache")}))
    print(f"\n{found.value}")


def test_losses_need_no_worker_processes(made: Config) -> None:
    names = {}
    for workers in (0, 2):
        settings = dataclasses.replace(made, data=dataclasses.replace(made.data, workers=workers))
        names[workers] = [
            (batch.names, batch.moments) for batch in open_loader(settings, facts(settings), "pooled").batches(0)
        ]
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(names[0], names[2], strict=True))  # type: ignore[arg-type]
