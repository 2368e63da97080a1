"""The command that looks at data before a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.data_loading import real_pictures
from trainer.__main__ import main


def test_table_report_and_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    paths = real_pictures(folder, 6)
    paths[0].with_suffix(".txt").write_text("one\nanother")
    paths[1].with_suffix(".txt").write_text("a very long caption " * 40)
    (folder / "twin.png").write_bytes(paths[2].read_bytes())
    with Image.open(paths[3]) as opened:
        opened.resize((192, 192)).save(folder / "alike.jpg", quality=90)
    (folder / "bad.jpg").write_bytes(b"no picture")
    Image.new("RGB", (20, 200)).save(folder / "tiny.png")
    monkeypatch.chdir(tmp_path)
    assert (
        main(["check", str(folder), "--sheet", "sheet.png", "--set", "data.resolution=128", "--set", "data.workers=1"])
        == 0
    )
    lines = capsys.readouterr().out
    print(lines)
    table = {line[:21].strip(): line[21:].strip() for line in lines.splitlines()}
    assert table["samples"] == "10"
    assert table["usable"] == "8"
    assert table["skipped"] == "2"
    assert table["corrupt"] == table["too small"] == "1"
    assert table["captions"].startswith("3, 3 different")
    assert table["samples without"] == "6"
    assert table["samples with more"].startswith("1 ")
    assert "1 have more than 75: cut" in table["length"]
    assert table["same file"].startswith("1 ")
    assert table["look alike"].startswith("2 ")
    assert "002.png, twin.png" in lines
    named = [json.loads(line) for line in (tmp_path / "pictures_check.jsonl").read_text().splitlines()]
    assert {row["name"]: row["kind"] for row in named} == {"bad.jpg": "corrupt", "tiny.png": "too small"}
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 4 * 2 * 192 and len(sheet.convert("RGB").getcolors(2**24) or []) > 1000


def test_a_sentence_where_there_is_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nowhere"]) == 1
    assert "there is no data nowhere" in capsys.readouterr().err
