"""Pickles that claim more than they hold, or would grow while they are read."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator

from tests.support.hostile import Case, good, of
from tests.support.hostile.attacks import called, text
from tests.support.hostile.zips import archive

HUGE = 2**40


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def shape(*sizes: int) -> bytes:
    return b"(" + b"".join(number(size) for size in sizes) + b"t"


def storage(count: int = 4, key: str = "0", kind: str = "torch FloatStorage") -> bytes:
    module, name = kind.split()
    located = text("storage") + f"c{module}\n{name}\n".encode() + text(key) + text("cpu") + number(count)
    return b"(" + located + b"tQ"


def tensor(
    sizes: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, held: bytes | None = None, end: bytes = b"\x89N"
) -> bytes:
    """Weights of four floats, or what is held."""
    body = (held or storage()) + number(offset) + shape(*sizes) + shape(*strides) + end
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tR"


def repeated(operation: bytes, count: int) -> bytes:
    return operation * count


def contents() -> dict[str, bytes]:
    """Pickles less PROTO and STOP."""
    return {
        "a shape of a terabyte": tensor((HUGE,), (1,)),
        "a shape of 2^80": tensor((HUGE, HUGE), (HUGE, 1)),
        "a stride of zero": tensor((HUGE, HUGE), (0, 0)),
        "a small stride of zero": tensor((3, 4), (0, 1)),
        "strides beyond the data": tensor((2, 2), (HUGE, 1)),
        "an offset beyond the data": tensor((4,), (1,), HUGE),
        "a negative offset": tensor((2,), (1,), -2),
        "a negative shape": tensor((-1, 4), (4, 1)),
        "a negative stride": tensor((2, 2), (-2, 1)),
        "a shape without strides": tensor((2, 2), ()),
        "a shape of 100,000 dimensions": tensor((1,) * 100_000, (1,) * 100_000),
        "a shape of numbers of 250 bytes": tensor((2**1990,) * 60, (1,) * 60),
        "data of a terabyte": tensor((4,), (1,), held=storage(HUGE)),
        "data of 8 GB": tensor((4,), (1,), held=storage(2**31)),
        "data of less than nothing": tensor((4,), (1,), held=storage(-4)),
        "data of the wrong type": tensor((4,), (1,), held=storage(4, kind="torch DoubleStorage")),
        "data that is not there": tensor((4,), (1,), held=storage(4, "7")),
        "data of another folder": tensor((4,), (1,), held=storage(4, "../data/0")),
        "data of two types": tensor((4,), (1,)) + b"0" + tensor((2,), (1,), held=storage(4, kind="torch HalfStorage")),
        "data claimed 300 times": b"]" + b"".join(tensor((4,), (1,)) + b"a" for _ in range(300)),
        "no data": tensor((4,), (1,), held=b"N"),
        "a storage made": called("torch.storage UntypedStorage", number(2**33)),
        "a storage made by NEWOBJ": b"ctorch.storage\nUntypedStorage\n(" + number(2**33) + b"t\x81",
        "a tensor made": called("torch Tensor", number(2**20), number(2**12)),
        "a tensor made by NEWOBJ": b"ctorch\nTensor\n(" + number(2**20) + number(2**12) + b"t\x81",
        "a tensor built": tensor((4,), (1,)) + b"(" + storage() + number(0) + shape(HUGE) + shape(1) + b"tb",
        "a bytearray made": called("builtins bytearray", number(2**33)),
        "a size made": called("torch Size", b"(" + number(1) * 1000 + b"l"),
        "a sparse tensor": called("torch._utils _rebuild_sparse_tensor", b"N", b"(" + shape(HUGE) + b"t"),
        "a meta tensor": called("torch._utils _rebuild_meta_tensor_no_storage", b"N", shape(HUGE), shape(1), b"\x89"),
        "a wrapped tensor": called("torch._utils _rebuild_wrapper_subclass", b"N", b"N", shape(HUGE)),
        "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**33),
        "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**33),
        "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**33),
        "BINUNICODE": b"X" + struct.pack("<I", 2**32 - 1),
        "BINBYTES": b"B" + struct.pack("<I", 2**32 - 1),
        "BINSTRING": b"T" + struct.pack("<i", 2**31 - 1),
        "LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "FRAME": b"\x95" + struct.pack("<Q", 2**40),
        "a memo of 4 billion": b"Nr" + struct.pack("<I", 2**32 - 1),
        "a memo never made": b"j" + struct.pack("<I", 2**32 - 1),
        "a million dictionaries": b"(" + repeated(b"}", 1_000_000) + b"l",
        "a million sets": b"(" + repeated(b"\x8f", 1_000_000) + b"l",
        "100,000 OrderedDicts": b"(" + repeated(b"ccollections\nOrderedDict\n)R", 100_000) + b"l",
        "a million marks": repeated(b"(", 1_000_000),
        "nested a million deep": b")" + repeated(b"\x85", 1_000_000),
        "lists in lists": repeated(b"]", 90_000) + repeated(b"a", 89_999),
        "one thing a million times": b"(" + repeated(b"N2", 500_000) + b"l",
        "a text of 4 MB, wide": text("x" * 4_000_000 + "\N{GRINNING FACE}"),
        "a dictionary of itself": b"}q\x00" + text("image_proj") + b"h\x00s",
        "a list as a key": b"}]Ns",
        "a stack run empty": b"R",
        "a mark never made": b"t",
        "an unknown operation": b"\xff",
        "no end": b"}" + repeated(b"N", 10),
    }  # fmt: skip


def cases() -> Iterator[Case]:
    for name, content in contents().items():
        whole = b"\x80\x02" + content + b"."
        yield of(f"{name}, zip", "claims of pickles", archive({"data.pkl": whole, "data/0": bytes(16)}))
        yield of(f"{name}, in a row", "claims of pickles", good.in_a_row_with(whole))
