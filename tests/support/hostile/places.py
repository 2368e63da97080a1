"""What is no file of weights at all: pages, texts, other formats, links, folders, pipes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.hostile import Case, good, of

PAGES = {
    "a page": b"<!DOCTYPE html><html><title>404</title></html>",
    "a page after a byte order mark": b"\xef\xbb\xbf<!DOCTYPE html><html></html>",
    "a page in UTF-16": "<!DOCTYPE html><html></html>".encode("utf-16"),
    "a page after 100 lines": b"\n" * 100 + b"<html></html>",
    "an error in XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "an error in JSON": b'{"error":"Repository not found"}',
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 44642768\n",
    "a sentence": b"Access to model is restricted. You must be authenticated to access it.",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(3000),
    "a program": b"\x7fELF" + bytes(3000),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(3000),
    "gzip": b"\x1f\x8b\x08" + bytes(3000),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(3000),
    "RAR": b"Rar!\x1a\x07\x01" + bytes(3000),
    "ONNX": b"\x08\x08\x12\x07pytorch" + bytes(3000),
    "a numpy array": b"\x93NUMPY\x01\0" + bytes(3000),
}


def tar(first: str) -> bytes:
    """A tar whose first bytes look like another format, with a name that leads out of the folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name in (first, "../../../out_of_here", "storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"data"))
    return buffer.getvalue()


def link(target: str) -> Callable[[Path, Path], None]:
    return lambda path, mark: path.symlink_to(target)


def _loop(path: Path, mark: Path) -> None:
    other = path.with_name(f"{path.name}.other")
    path.symlink_to(other)
    other.symlink_to(path)


def _folder_of_links(path: Path, mark: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(path)


def cases() -> Iterator[Case]:
    for name, content in PAGES.items():
        yield of(name, "web pages and other formats", content)
    for first in ("PK\x03\x04", "PK", "\x80\x02", "tensors"):
        yield of(f"a tar that begins with {first!r}", "web pages and other formats", tar(first))
    yield Case("a link to itself", "links and places", lambda path, mark: path.symlink_to(path))
    yield Case("two links to each other", "links and places", _loop)
    yield Case("a link to nowhere", "links and places", link("nowhere"))
    yield Case("a link to a device without end", "links and places", link("/dev/zero"))
    yield Case("a link to a device that waits", "links and places", link("/dev/tty"))
    yield Case("a link to the memory of the process", "links and places", link("/proc/self/mem"))
    yield Case("a pipe that nobody writes to", "links and places", lambda path, mark: os.mkfifo(path))
    yield Case("an empty folder", "links and places", lambda path, mark: path.mkdir())
    yield Case("a folder with a link to itself", "links and places", _folder_of_links)
    yield Case("a sparse file of 64 GB", "links and places", _sparse)


def _sparse(path: Path, mark: Path) -> None:
    path.write_bytes(good.zipped())
    os.truncate(path, 64 << 30)
