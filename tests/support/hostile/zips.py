"""Zips: bombs, wrong tables, names that lead elsewhere, and zips of other things."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache

from tests.support.hostile import Case, good, of

DEFLATED = zipfile.ZIP_DEFLATED


def archive(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, folder: str = "archive/") -> bytes:
    """A zip as torch writes it, with these entries in one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in ({"version": b"3\n"} | dict(entries)).items():
            file.writestr(folder + name, content)
    return buffer.getvalue()


@cache
def entries() -> dict[str, bytes]:
    """What torch's own zip of the good adapter holds."""
    with zipfile.ZipFile(io.BytesIO(good.zipped())) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def cases() -> Iterator[Case]:
    zeros = bytes(60_000_000)
    first = next(name for name in entries() if name.startswith("data/"))
    bombs = {
        "weights of 60 MB of zeros": archive(entries() | {first: zeros}, DEFLATED),
        "a pickle of 60 MB": archive(entries() | {"data.pkl": zeros}, DEFLATED),
        "an entry that nobody reads": archive(entries() | {"readme": zeros}, DEFLATED),
        "by bzip2": archive(entries() | {"readme": zeros}, zipfile.ZIP_BZIP2),
        "by lzma": archive(entries() | {"readme": zeros}, zipfile.ZIP_LZMA),
        "version of 60 MB": archive(entries() | {"version": zeros}, DEFLATED),
        "byteorder of 60 MB": archive(entries() | {"byteorder": zeros}, DEFLATED),
        "one zip in another": archive({"data/0": archive({"data/0": zeros}, DEFLATED), "data.pkl": b"\x80\x02}."}),
        "entries that overlap": overlapping(),
        "50,000 empty entries": archive({"data.pkl": b"\x80\x02}."} | {f"data/{n}": b"" for n in range(50_000)}),
    }
    for name, content in bombs.items():
        yield of(f"bomb: {name}", "zip bombs", content)
    for name, content in tables().items():
        yield of(f"zip with {name}", "zip tables", content)
    for name in ("../../../etc/cron.d/x", "/etc/passwd", "..\\..\\x", "C:\\x", "a/../../b", "x\0y", "data/../data.pkl"):
        yield of(f"entry {name!r}", "path traversal", archive({name: b"x"}))
        moved = {other if other != first else f"data/{name}": content for other, content in entries().items()}
        yield of(f"weights at {name!r}", "path traversal", archive(moved))
    others = {
        "the good safetensors": archive({"a.safetensors": good.safetensors()}, folder=""),
        "a document": archive({"[Content_Types].xml": b"<xml/>", "word/document.xml": b"<xml/>"}, folder=""),
        "a program of torch": archive(entries() | {"constants.pkl": b"\x80\x02)."}),
        "nothing": b"PK\x05\x06" + bytes(18),
        "no pickle": archive({name: content for name, content in entries().items() if name != "data.pkl"}),
        "an empty pickle": archive(entries() | {"data.pkl": b""}),
        "no weights": archive({name: content for name, content in entries().items() if not name.startswith("data/")}),
        "one weight missing": archive({name: content for name, content in entries().items() if name != first}),
        "one weight cut": archive(entries() | {first: entries()[first][:-4]}),
        "two pickles": archive(entries() | {"other/data.pkl": b"\x80\x02}."}),
        "two pickles by case": archive(entries() | {"DATA.PKL": b"\x80\x02}."}),
        "a byte order of its own": archive(entries() | {"byteorder": b"middle"}),
        "a link in place of weights": with_link(first),
    }
    for name, content in others.items():
        yield of(f"zip of {name}", "zips of other things", content)


def overlapping() -> bytes:
    """Twenty entries for the same 100 KB."""
    data = archive({"data.pkl": b"\x80\x02}.", "data/0": bytes(100_000)})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    last = data.rindex(b"PK\x01\x02", 0, end)
    copies = b"".join(data[last : end - 1] + str(n % 10).encode() for n in range(20))
    table = data[start:last] + copies
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, 22, 22, len(table))
    return data[:start] + table + bytes(tail)


def tables() -> dict[str, bytes]:
    """The good zip with one thing in its tables changed."""
    good_zip = archive(entries())
    end = good_zip.rindex(b"PK\x05\x06")
    entry = good_zip.rindex(b"archive/data.pkl", 0, end) - 46
    changes = {
        "another version": (entry + 6, "<H", 99),
        "an encrypted entry": (entry + 8, "<H", 1),
        "a method nobody knows": (entry + 10, "<H", 93),
        "a wrong checksum": (entry + 16, "<I", 1),
        "a compressed size of 4 GB": (entry + 20, "<I", 2**32 - 2),
        "an entry of 4 GB": (entry + 24, "<I", 2**32 - 2),
        "an entry of a 64 bit size": (entry + 24, "<I", 2**32 - 1),
        "a name of 65,535": (entry + 28, "<H", 65535),
        "an entry elsewhere": (entry + 42, "<I", 2**31),
        "65,535 entries": (end + 10, "<H", 65535),
        "a table of 4 GB": (end + 12, "<I", 2**32 - 1),
        "a table of no bytes": (end + 12, "<I", 0),
        "a table elsewhere": (end + 16, "<I", 2**31),
    }
    changed = {}
    for name, (place, kind, value) in changes.items():
        data = bytearray(good_zip)
        struct.pack_into(kind, data, place, value)
        changed[name] = bytes(data)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**9, 10**9, 2**40, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    changed["a 64 bit table of a terabyte"] = good_zip[:end] + record + locator + good_zip[end:]
    changed["a 64 bit record elsewhere"] = good_zip[:end] + record + bytes(8) + locator + good_zip[end:]
    return changed


def with_link(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for other, content in entries().items():
            info = zipfile.ZipInfo(f"archive/{other}")
            if other == name:
                info.external_attr, content = 0o120777 << 16, b"/etc/passwd"
            file.writestr(info, content)
    return buffer.getvalue()
