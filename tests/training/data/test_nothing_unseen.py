"""Nothing in the data goes unseen: captions wherever people keep them, and a name for all that is left out or bad."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from trainer.__main__ import main
from trainer.commands.texts import Texts
from trainer.data.batch import Item
from trainer.data.order import Draws
from trainer.data.reader import PictureReader
from trainer.data.report import read_report
from trainer.data.sources import describe_source, open_source
from trainer.settings.config import DataConfig

FIRST = Draws(0.0, 0.0, 0.0, 0.0, 0.0, 0)
HALF = "cut in an emoji \ud83d"
LATIN = os.fsdecode(b"caf\xe9.jpg")


def picture(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def kinds(data: DataConfig) -> dict[str, str]:
    """By name what becomes of each sample: its first caption, "usable" without one, or "kind: reason"."""
    source = open_source(data)
    reader = PictureReader(source, data, None)
    found = [reader.read(index, FIRST, drop_text=False) for index in range(len(source))]
    Texts(source)  # and the cache's pass over the captions ends well
    return {
        one.name: (one.caption or "usable") if isinstance(one, Item) else f"{one.kind}: {one.reason}" for one in found
    }


@pytest.mark.parametrize(
    ("files", "source", "place"),
    [
        ({"a.caption": "a cat"}, "", ".caption"),
        ({"a.TXT": "a cat"}, "", ".TXT"),
        ({"a.png.txt": "a cat"}, "", ".txt"),
        ({"metadata.jsonl": '{"file_name": "a.png", "text": "a cat"}\n'}, "", "metadata.jsonl"),
        ({"metadata.csv": "file_name,prompt\na.png,a cat\n"}, "", "metadata.csv"),
        ({"data.json": '[{"image_file": "a.png", "prompt": "a cat"}]'}, "data.json", "prompt"),
    ],
)
def test_captions_wherever_they_are(files: dict[str, str], source: str, place: str, tmp_path: Path) -> None:
    fill(tmp_path, {"a.png": picture(), **files})
    opened = open_source(DataConfig(source=str(tmp_path / source)))
    assert opened.captions(0) == opened.read(0).captions == ("a cat",)
    (line,) = describe_source(opened)
    print(f"\n{line}")
    assert f"captions from {place} (1)" in line


def test_bad_captions_are_skipped_and_named(tmp_path: Path) -> None:
    fill(tmp_path, {f"{name}.png": picture() for name in "abcd"})
    fill(tmp_path, {"a.txt": "grün".encode("latin-1"), "b.txt": "a cat".encode("utf-16"), "c.txt": "good"})
    (tmp_path / "d.txt").symlink_to("/nowhere")
    found = kinds(DataConfig(source=str(tmp_path)))
    print(f"\n{found}")
    assert found["c.png"] == "good"
    assert all(found[f"{name}.png"].startswith("caption: ") for name in "abd")
    rows = [{"image_file": f"{name}.png", "text": text} for name, text in zip("abc", (3, HALF, ["good"]), strict=True)]
    fill(tmp_path, {"data.json": json.dumps(rows)})
    found = kinds(DataConfig(source=str(tmp_path / "data.json")))
    assert found["c.png"] == "good" and all(found[f"{name}.png"].startswith("caption: ") for name in "ab")


def test_bad_captions_of_shards_and_datasets(tmp_path: Path) -> None:
    bad = {
        "1.json": b'{"text": "cut',
        "2.json": b"[1]",
        "3.json": b'{"text": 3}',
        "4.txt": b"\xff\xfe\x00",
        "5.txt": b"good",
    }
    members = {
        name: content for key, text in bad.items() for name, content in ((f"{key[0]}.png", picture()), (key, text))
    }
    shard(tmp_path / "a.tar", members)
    found = kinds(DataConfig(source=str(tmp_path)))
    print(f"\n{found}")
    assert found["a.tar/5"] == "good"
    assert [text.partition(":")[0] for text in found.values()] == ["caption"] * 4 + ["good"]
    columns = {"image": [{"bytes": picture(), "path": None}] * 2, "text": [1, 2]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "hf"))
    assert {text.partition(":")[0] for text in kinds(DataConfig(source=str(tmp_path / "hf"))).values()} == {"caption"}


def test_links_odd_names_and_endings_are_named(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "data",
        {"a.png": picture(), "b.svg": "x", "README": "x", "alone.txt": "x", "c.JFIF": picture("JPEG")},
    )
    (folder / LATIN).write_bytes(b"no picture")
    for name, target in (
        ("9.jpg", "/nonexistent/9.jpg"),
        ("gone", "/nonexistent"),
        ("loop", "."),
        ("self.png", "self.png"),
    ):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    source = open_source(DataConfig(source=str(folder)))
    print("\n" + "\n".join(describe_source(source)).encode("ascii", "backslashreplace").decode())
    found = kinds(DataConfig(source=str(folder)))
    assert {name for name, text in found.items() if text == "usable"} == {"a.png", "c.JFIF"}
    assert found["9.jpg"].startswith("missing") and found["self.png"].startswith("corrupt")
    assert found[LATIN].startswith("corrupt")
    counts = source.left_out.counts
    assert counts[".svg files"] == counts[".txt files without a picture of their name"] == 1
    assert counts["pipes and devices"] == counts["links back to a folder above"] == 1
    assert counts["files without an ending"] == 2
    assert len(source) == 5


def test_check_lists_everything_whatever_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    fill(
        folder,
        {"a.png": picture(), "b.png": picture(), "c.png": picture(), "b.txt": b"\xff", "c.txt": b"\xfe", "x.svg": b""},
    )
    (folder / LATIN).write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(folder), "--set", "data.workers=0", "--sheet", "new/sheet.png"]) == 0
    lines = capsys.readouterr().out
    print(lines)
    table = {line[:21].strip(): line[21:].strip() for line in lines.splitlines()}
    assert (table["usable"], table["skipped"], table["caption"], table["corrupt"]) == ("1", "3", "2", "1")
    assert "1 .svg files: x.svg" in lines and Path("new/sheet.png").exists()
    (report,) = tmp_path.glob("*_check.jsonl")
    assert {fault.name for fault in read_report(report)} == {"b.png", "c.png", LATIN}
    assert main(["check", str(folder), "--sheet", "sheet.xyz"]) == 1
    assert "sheet.xyz has no ending of a picture" in capsys.readouterr().err


def test_no_captions_at_all_are_said(tmp_path: Path) -> None:
    fill(tmp_path, {"a.png": picture(), "b.png": picture(), "b.txt": " \n"})
    lines = describe_source(open_source(DataConfig(source=str(tmp_path))))
    print(f"\n{lines}")
    assert "all captions are empty" in lines[1] and ".caption" in lines[1] and "metadata.jsonl" in lines[1]


def test_damaged_shards_and_members_left_out_are_named(tmp_path: Path) -> None:
    good = {"1.jpg": picture("JPEG"), "1.txt": b"x", "photo.v2.jpg": picture("JPEG"), "photo.v2.txt": b"y"}
    others = {f"{kind}.{kind}": picture(kind) for kind in ("TIFF", "BMP", "GIF", "AVIF")}
    whole = shard(tmp_path / "0000.tar", good | others | {"late.txt": b"z", os.fsdecode(b"\xe9.jpg"): picture("JPEG")})
    (tmp_path / "0001.tar").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "0002.tar").touch()
    (tmp_path / "0003.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    (tmp_path / "0004.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "0005.tar").symlink_to("/nowhere")
    source = open_source(DataConfig(source=str(tmp_path)))
    print("\n" + "\n".join(describe_source(source)))
    assert {fault.name for fault in source.left_out.faults} == {
        "0001.tar",
        "0002.tar",
        "0003.tar",
        "0004.tar.gz",
        "0005.tar",
    }
    assert len(source) == 1 + 4 + 1
    counts = source.left_out.counts
    assert (
        counts["members .v2.jpg without a picture of their key"]
        == counts["members .txt without a picture of their key"]
        == 1
    )


def test_shards_by_patterns_and_in_folders_below(tmp_path: Path) -> None:
    for name in ("x/00008.tar", "x/00010.tar", "y/00008.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shard(tmp_path / name, {"1.png": picture(), "1.txt": name.encode()})
    assert len(open_source(DataConfig(source=str(tmp_path)))) == 3
    assert len(open_source(DataConfig(source=f"{tmp_path}/*/*.tar"))) == 3
    assert len(open_source(DataConfig(source=f"{tmp_path}/{{x,y}}/00008.tar"))) == 2
    source = open_source(DataConfig(source=f"{tmp_path}/x/{{00008..00010}}.tar"))
    assert len(source) == 2 and [fault.name for fault in source.left_out.faults] == ["00009.tar"]
    assert {name for name in kinds(DataConfig(source=str(tmp_path)))} == {
        "x/00008.tar/1",
        "x/00010.tar/1",
        "y/00008.tar/1",
    }
    for wrong, words in (("s3://bucket/a.tar", "download it first"), (f"{tmp_path}/z/*.tar", "there is no data")):
        with pytest.raises(ValueError, match=words) as found:
            open_source(DataConfig(source=wrong))
        assert wrong in str(found.value)
