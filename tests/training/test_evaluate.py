"""`python -m trainer evaluate` as a whole: a tiny random base of SD1.5's kind, real pictures in COCO's layout."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.support import coco, evaluation, needs, runs, tiny_models
from trainer.__main__ import main
from trainer.evaluation.draw import seed_of
from trainer.evaluation.judges import Clip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> evaluation.World:
    return evaluation.write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world: evaluation.World) -> Iterator[Path]:
    """A run that was left alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(world.arguments(world.folder / "whole")) == 0
    yield world.folder / "whole"
    torch.set_num_threads(before)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "pictures").rglob("*.png"))}


def test_the_result_has_every_system_and_measure(world: evaluation.World, whole: Path) -> None:
    found = read(whole)
    assert [row["name"] for row in found["systems"]] == ["plain", "plus", "simple", "no adapter"]
    assert [(row["name"], row["weight"]) for row in found["with_text"]] == [
        (name, weight) for name in ("plain", "plus", "simple") for weight in (0.0, 1.0)
    ]
    assert found["keys"] == [f"{139 + 146 * place:012d}" for place in range(5)]
    for row in found["systems"]:
        measures = {"clip_i", "clip_t", "clip_score", "dino_i", "style", "content", "diversity", "clip_i_wrong"}
        assert measures <= row["figures"].keys()
        assert ("gained_less_leaked" in row["figures"]) == (row["name"] != "no adapter")
        assert all(figure["count"] == 5 for figure in row["figures"].values())
        assert row["figures"]["clip_i"]["low"] <= row["figures"]["clip_i"]["value"] <= row["figures"]["clip_i"]["high"]
    counts = [int(row["parameters"].replace(",", "") or 0) for row in found["systems"]]
    assert 0 < counts[2] < counts[0] and counts[3] == 0  # the simple adapter is its projection alone
    assert list(found["not_measured"]) == ["identity"]
    assert found["protocol"]["steps"] == 2 and found["protocol"]["guidance"] == 7.5
    assert found["data"]["left_out"] == ["crowd entries: 1", "empty captions: 1", "entries that come twice: 2"]
    table = (whole / "table.md").read_text()
    assert "| IP-Adapter | 22M | 0.828 | 0.235 | 0.588 |" in table
    assert "another protocol (samples 2, the paper's 4; steps 2, the paper's 50; 5 pictures of val2017" in table
    page = (whole / "index.html").read_text()
    assert page.count("<svg") == 3 and page.count("data:image/jpeg") == 9 and "http" not in page
    numbers = found["scores"]
    count = sum(len(rows) * len(rows[0]) for rows in (one["clip_i"] for one in numbers.values()))
    assert count == len(pictures(whole)) == 4 * 5 * 2 + 6 * 3


def test_scores_are_of_the_pictures_in_the_folder(world: evaluation.World, whole: Path) -> None:
    """CLIP-I and CLIP-T anew from the files, one picture at a time, with the caption of the smallest id."""
    judge, found, off = Clip(world.clip, torch.device("cpu")), read(whole), 0.0
    firsts = [texts[-1] for texts in coco.PHOTOS.values()]  # written with descending ids
    one = lambda path: judge.embed([Image.open(path).convert("RGB")])["clip"][0]  # noqa: E731
    for place, key in enumerate(found["keys"]):
        reference, text = one(Path(world.coco) / "val2017" / f"{key}.jpg"), judge.embed_text(firsts[place])
        for sample in range(2):
            made = one(whole / "pictures" / "plain" / f"{key}_{sample}.png")
            scores = found["scores"]["plain"]
            off = max(off, abs(scores["clip_i"][place][sample] - float(F.cosine_similarity(made, reference, dim=0))))
            off = max(off, abs(scores["clip_t"][place][sample] - float(F.cosine_similarity(made, text, dim=0))))
    means = [sum(row) / 2 for row in found["scores"]["plain"]["clip_i"]]
    row = found["systems"][0]["figures"]["clip_i"]
    print(f"\nlargest difference of a cosine from the files': {off:.1e}")
    assert off <= 2e-6
    assert row["value"] == pytest.approx(sum(means) / 5, abs=1e-9)


def test_weight_zero_is_the_base_and_layouts_change_nothing(world: evaluation.World, whole: Path) -> None:
    """Fewer references, and more samples: the same pictures, since a batch has one layout whatever is left."""
    few = world.folder / "few"
    assert main(world.arguments(few, "--limit", "3")) == 0
    first, again = pictures(whole), pictures(few)
    same = [name for name in again if first.get(name) == again[name]]
    print(f"\n{len(same)} of {len(again)} pictures of a shorter run are the same to the byte")
    assert len(same) == len(again) > 20
    keys = read(whole)["keys"][:3]
    for key in keys:
        by_weight = [first[f"pictures/{name}@text-0/{key}_0.png"] for name in ("plain", "plus")]
        assert by_weight[0] == by_weight[1] != first[f"pictures/plain@text-1/{key}_0.png"]
    assert len({seed_of(seed, key, sample) for seed in (0, 1) for key in keys for sample in (0, 1)}) == 12


@pytest.mark.slow
def test_two_processes_and_parts_give_the_same(world: evaluation.World, whole: Path, tmp_path: Path) -> None:
    runs.run(*world.arguments(tmp_path / "two", "--processes", "2"))
    assert (tmp_path / "two" / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert pictures(tmp_path / "two") == pictures(whole)
    for part in ("1/3", "0/3", "2/3"):  # machines in any order: the last one writes the table
        assert not (tmp_path / "parts" / "result.json").exists()
        assert main(world.arguments(tmp_path / "parts", "--part", part)) == 0
    assert (tmp_path / "parts" / "result.json").read_bytes() == (whole / "result.json").read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on(world: evaluation.World, whole: Path, tmp_path: Path) -> None:
    from tests.support.kill_evaluation import kill_test

    outcome = kill_test(world, whole, tmp_path / "killed", kills=2)
    print(f"\n{outcome}")
    assert outcome.is_same


def test_a_lost_picture_and_another_judge_cost_only_themselves(
    world: evaluation.World, whole: Path, tmp_path: Path, capsys: Any
) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / "pictures" / "plus" / "000000000139_1.png").unlink()
    shutil.rmtree(copy / "scores" / "plus")
    assert main(world.arguments(copy)) == 0
    assert "4 pictures made" in (said := capsys.readouterr().out) and "10 scored" in said  # its batch of two
    assert pictures(copy) == pictures(whole)
    assert (copy / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    arguments = world.arguments(copy)
    place = arguments.index("--dino")
    assert main([*arguments[:place], *arguments[place + 2 :]]) == 0
    said = capsys.readouterr().out
    assert "pictures made" not in said and "DINO-I: no --dino" in said


def test_pictures_made_elsewhere(world: evaluation.World, whole: Path, tmp_path: Path, capsys: Any) -> None:
    """An adapter's own pictures, given as a folder, get its own scores; names may leave the zeros out."""
    shutil.copytree(whole / "pictures" / "plain", tmp_path / "theirs")
    (tmp_path / "theirs" / "000000000139_0.png").rename(tmp_path / "theirs" / "139_0.png")
    base = ["evaluate", "--data", world.coco, "--clip", world.clip, "--batch", "2", "--device", "cpu"]
    assert main([*base, "--out", str(tmp_path / "out"), "--pictures", f"theirs={tmp_path / 'theirs'}"]) == 0
    mine, theirs = read(whole), read(tmp_path / "out")
    for measure, rows in theirs["scores"]["theirs"].items():
        assert rows == mine["scores"]["plain"][measure]
    capsys.readouterr()
    (tmp_path / "theirs" / "139_0.png").rename(tmp_path / "theirs" / "unknown.png")
    (tmp_path / "theirs" / "000000000139_1.png").unlink()
    assert main([*base, "--out", str(tmp_path / "out"), "--pictures", f"theirs={tmp_path / 'theirs'}"]) == 1
    said = capsys.readouterr().err
    assert "has no picture of 1 of 5 references: 000000000139; 1 files there name no reference: unknown.png" in said


def test_compare_is_paired_and_refuses_other_protocols(
    world: evaluation.World, whole: Path, tmp_path: Path, capsys: Any
) -> None:
    result = str(whole / "result.json")
    assert main(["evaluate", "--compare", f"{result}:plain", f"{result}:no adapter"]) == 0
    said = capsys.readouterr().out
    first, second = (np.array(read(whole)["scores"][name]["clip_i"]).mean(1) for name in ("plain", "no adapter"))
    assert f"CLIP-I: {(second - first).mean():+.3f}" in said and "5 references" in said and "chance" in said
    assert main(["evaluate", "--compare", f"{result}:plain", f"{result}:plain"]) == 0
    assert "CLIP-I: +0.000 (+0.000 to +0.000), no more than chance (p 1," in capsys.readouterr().out
    changed = read(whole)
    changed["protocol"]["steps"] = 50
    (tmp_path / "other.json").write_text(json.dumps(changed))
    assert main(["evaluate", "--compare", result, str(tmp_path / "other.json")]) == 1
    assert "cannot be compared, they differ in: steps 2 and 50" in capsys.readouterr().err


def test_it_says_what_it_takes_and_starts_nothing(world: evaluation.World, tmp_path: Path, capsys: Any) -> None:
    assert main(world.arguments(tmp_path / "out", "--dry-run")) == 0
    said = capsys.readouterr().out
    print(f"\n{said}")
    assert "5 references, 10 series: 58 pictures to make and 58 to score" in said and " s by the speed" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_faces_by_insightface(world: evaluation.World, tmp_path: Path) -> None:
    """A photo of people, and models of random weights: the same picture has the same identity, another one another."""
    insightface, face_models = needs.module("insightface"), needs.module("tools.face_models")
    face_models.detector(tmp_path / "models" / "det_10g.onnx")
    face_models.recogniser(tmp_path / "models" / "w600k_r50.onnx")
    data, made = tmp_path / "coco", tmp_path / "made"
    (data / "annotations").mkdir(parents=True)
    (data / "val2017").mkdir()
    made.mkdir()
    with Image.open(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg") as photo:
        photo.save(data / "val2017" / "000000000001.png")
        photo.save(made / "1_0.png")
        photo.crop((photo.width // 2, 0, photo.width, photo.height)).save(made / "1_1.png")
    image, text = {"id": 1, "file_name": "000000000001.png"}, {"id": 1, "image_id": 1, "caption": "six people"}
    coco.write_annotations(data, [image], [text])
    assert main(["evaluate", "--data", str(data), "--out", str(tmp_path / "out"), "--clip", world.clip, "--device",
                 "cpu", "--pictures", f"made={made}", "--faces", str(tmp_path / "models")]) == 0  # fmt: skip
    scores = read(tmp_path / "out")["scores"]["made"]
    print(f"\nidentity {scores['identity']}, face found {scores['face']}")
    assert scores["face"] == [[1.0, 1.0]]
    assert scores["identity"][0][0] == pytest.approx(1, abs=1e-5)
    assert scores["identity"][0][1] < 0.999


def write_pieces(folder: Path) -> tuple[Path, dict[str, Any]]:
    coco.write_coco(folder, 2)
    path = folder / "annotations" / "captions_val2017.json"
    return path, json.loads(path.read_text())


def test_bad_input_is_a_sentence(world: evaluation.World, tmp_path: Path, capsys: Any) -> None:
    def fails(*arguments: str, data: Path | str = world.coco, start: list[str] | None = None) -> str:
        ours = start if start is not None else [f"{world.folder / 'plain'}.safetensors", "--base", world.base,
                                                "--encoder", world.encoder]  # fmt: skip
        common = ["--data", str(data), "--out", str(tmp_path / "out"), "--clip", world.clip, "--device", "cpu"]
        assert main(["evaluate", *ours, *common, *arguments]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        print(line)
        assert not list((tmp_path / "out").rglob("result.json"))
        return line

    assert "there are no annotations" in fails(data=tmp_path)
    assert "--part is '2/2'" in fails("--part", "2/2")
    assert "samples is 0: give at least 1" in fails("--samples", "0")
    assert "there is nothing to evaluate" in fails(start=[])
    assert "for DINO-I give a folder of DINOv2's" in fails("--dino", world.clip)
    assert "no image encoder" in fails("--clip", "nothing")
    assert "there is no folder" in fails("--pictures", f"x={tmp_path / 'nothing'}")
    path, content = write_pieces(tmp_path / "coco")
    (tmp_path / "coco" / "val2017" / "000000000285.jpg").unlink()
    assert "has 1 pictures without a file in val2017/: 000000000285.jpg" in fails(data=tmp_path / "coco")
    content["images"].pop(0)
    path.write_text(json.dumps(content))
    assert "captions of pictures that it does not list: 139" in fails(data=tmp_path / "coco")
    path.write_text(path.read_text()[:100])
    assert "is damaged, or no file of captions" in fails(data=tmp_path / "coco")
    config = runs.tiny_config(world.folder)
    tiny_models.write_base(tmp_path / "wide", context=48, unet=wide_unet())
    assert "expects 32 text states, the base has 48" in fails("--base", str(tmp_path / "wide"))
    tiny_models.write_encoder(tmp_path / "other", embed_dim=40)
    assert "expects 24 image features, the encoder has 40" in fails("--encoder", str(tmp_path / "other"))
    assert config.model.base == world.base


def wide_unet() -> Any:
    from diffusers import UNet2DConditionModel

    config = dict(tiny_models.tiny_unet().config) | {"cross_attention_dim": 48}
    return UNet2DConditionModel.from_config(config)


def test_other_settings_in_the_same_folder_are_refused(world: evaluation.World, whole: Path, capsys: Any) -> None:
    before = pictures(whole)
    assert main(world.arguments(whole, "--guidance", "3")) == 1
    assert "pictures of plain with other settings (guidance 7.5 and 3.0)" in capsys.readouterr().err
    assert pictures(whole) == before


def test_a_full_disk_is_a_sentence_and_nothing_is_lost(world: evaluation.World, tmp_path: Path, capsys: Any) -> None:
    """In a file system of its own, too small for the pictures."""
    place = tmp_path / "small"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True)
    if mount.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        assert main(world.arguments(place / "out")) == 1
        said = capsys.readouterr().err
        assert "its disk is full: make room and give the same command again; what is made is kept" in said
        kept = list((place / "out").rglob("*.png"))
        assert kept
        for path in kept:
            Image.open(path).load()
        subprocess.run(["mount", "-o", "remount,size=20m", place], check=True)
        assert main(world.arguments(place / "out")) == 0
        assert read(place / "out")["keys"]
    finally:
        subprocess.run(["umount", "-l", place], check=True)  # a mapped file may still be open
