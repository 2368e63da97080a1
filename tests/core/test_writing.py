"""Writes that fail leave the old file as it was."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ipadapter_core import write_safetensors
from ipadapter_core.files.whole import whole
from tests.support.limits import file_size_limit, without_root
from tests.support.published import small


def test_write_that_runs_out_of_space_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, small(), {"step": "1"})
    before = path.read_bytes()
    with file_size_limit(1 << 20), pytest.raises(OSError, match=r"File too large"):
        write_safetensors(path, {"image_proj.big": torch.zeros(1 << 20)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_read_only_folder_leaves_the_old_file():
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    path = folder / "a.safetensors"
    write_safetensors(path, small(), {})
    before = path.read_bytes()
    folder.chmod(0o555)
    try:
        with without_root(), pytest.raises(OSError, match=r"(?i)permission denied"):
            write_safetensors(path, {"image_proj.other": torch.zeros(3)}, {})
        assert path.read_bytes() == before
        assert list(folder.iterdir()) == [path]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def replace_part(part: Path) -> None:
    """As libraries do that write a file of their own first."""
    with tempfile.NamedTemporaryFile(dir=part.parent, delete=False) as file:
        file.write(b"new")
    Path(file.name).replace(part)


@pytest.mark.parametrize("write", [lambda part: part.write_bytes(b"new"), replace_part,
                                   lambda part: save_file(small(), part)])  # fmt: skip
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_written_file_has_the_users_own_permissions(tmp_path, write, mask):
    before = os.umask(mask)
    try:
        with whole(tmp_path / "a") as part:
            write(part)
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"a", "plain"}


KILLED = """
import os, signal, sys
from ipadapter_core.files.whole import whole

with whole(sys.argv[1]) as part:
    part.write_bytes(b"half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_in_the_middle_leaves_the_old_file_and_a_hidden_one_that_is_written_over(tmp_path):
    path, left = tmp_path / "a", tmp_path / ".a.part"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert left.read_bytes() == b"half of the n"
    left.chmod(0o400)
    with whole(path) as part:
        part.write_bytes(b"new")
        written = part.stat().st_ino
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino == written  # renamed, not copied
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        part.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "a"
    with whole(path, "one") as one, whole(path, "two") as two:
        one.write_bytes(b"all of one")
        two.write_bytes(b"all of two")
    assert path.read_bytes() == b"all of one"  # the last that ended
    assert list(tmp_path.iterdir()) == [path]
