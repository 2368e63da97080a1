"""Writes that fail leave the old file as it was."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ipadapter_core import write_adapter
from tests.support.published import small


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes past `size` bytes of a file fail, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_write_that_runs_out_of_space_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_adapter(path, small(), {"step": "1"})
    before = path.read_bytes()
    with file_size_limit(1 << 20), pytest.raises(OSError, match=r"File too large"):
        write_adapter(path, {"image_proj.big": torch.zeros(1 << 20)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def without_root() -> Iterator[None]:
    """Permissions do not bind root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_read_only_folder_leaves_the_old_file():
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    path = folder / "a.safetensors"
    write_adapter(path, small(), {})
    before = path.read_bytes()
    folder.chmod(0o555)
    try:
        with without_root(), pytest.raises(OSError, match=r"(?i)permission denied"):
            write_adapter(path, {"image_proj.other": torch.zeros(3)}, {})
        assert path.read_bytes() == before
        assert list(folder.iterdir()) == [path]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_written_file_has_the_users_own_permissions(tmp_path):
    write_adapter(tmp_path / "a", small(), {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
