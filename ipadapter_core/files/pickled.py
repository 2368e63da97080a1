"""What a torch pickle claims to hold, found before torch believes it.

torch's own reader with `weights_only` runs no code in a pickle, but it believes its sizes: a few bytes can ask for
terabytes, a zip can grow a thousandfold, and some of the types that it allows are made at any length. So the pickle is
first read here with stand-ins for everything in it. Only what `torch.save` writes for named weights passes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

ZIP = b"PK\x03\x04"
LAST_RECORDS = (1 << 16) + 98  # bytes at a zip's end: a comment, and the records that say where its table is
GROWTH = 2  # times the file's size that its content may take
# The names and shapes of the largest published adapters take 0.3 MB and 50,000 operations.
MAX_NAMES, NAMES_SHARE = 1 << 20, 16  # bytes, and the part of a file beyond
MAX_OPERATIONS, OPERATION_BYTES = 100_000, 256
MAX_DIMENSIONS = 64  # torch's own limit
# The operations that torch.save writes; none of them calls anything but what GLOBAL names.
OPERATIONS = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BININT",
    "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINGET", "LONG_BINGET", "BINPUT",
    "LONG_BINPUT",
})  # fmt: skip
# Bytes of a value, by the name of its storage's or its own type.
STORAGES = {
    "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16, "UntypedStorage": 1,
}  # fmt: skip
DTYPES = {
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "uint8": 1, "int8": 1, "bool": 1, "uint16": 2, "int16": 2, "float16": 2, "bfloat16": 2, "uint32": 4, "int32": 4,
    "float32": 4, "uint64": 8, "int64": 8, "float64": 8,
}  # fmt: skip


class RefusedError(Exception):
    """A file is not weights, or claims more of them than it can hold; the text goes on from the file's name."""


class ExcessError(RefusedError):
    """A file claims more than its size allows."""

    def __init__(self, claim: str) -> None:
        super().__init__(f"{claim}: it is damaged, or made to do harm, and was not loaded: download it again")


class StandIn:
    """In place of something in a pickle: nothing can be called, built or added to it."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle builds on something that is not a dictionary")


@dataclass(frozen=True)
class Type(StandIn):
    bytes_each: int


@dataclass(frozen=True)
class Storage(StandIn):
    key: str
    num_bytes: int
    bytes_each: int


@dataclass(frozen=True)
class Weights(StandIn):
    """A tensor."""

    num_bytes: int
    shape: tuple[int, ...] = ()


def check_claims(path: Path) -> Any:
    """Hold what a file of `torch.save` claims to its size, without making anything of it.

    Returns what is in it, with `Weights` in place of tensors. Raises UnpicklingError for anything but weights,
    RefusedError for claims that its size does not allow, and what readers of pickles and zips raise for a damaged file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(4) == ZIP
        file.seek(0)
        claims = _zipped(file, size) if is_zip else _in_a_row(file, size)
    held = sum(storage.num_bytes for storage in claims.storages.values())
    if held > GROWTH * size:
        raise ExcessError(f"claims {held:,} bytes of weights in {size:,} bytes of file")
    return claims.content


def _zipped(file: BinaryIO, size: int) -> _Claims:
    """What a zip claims: one pickle with the names, one entry for each storage."""
    room = room_for_names(size)
    if _bytes_of_entries(file) > room:
        raise ExcessError(f"has too many entries for its {size:,} bytes")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        packed = sum(entry.compress_size for entry in entries)
        if unpacked > GROWTH * size or packed > size:
            raise ExcessError(f"unpacks to {unpacked:,} bytes from {packed:,}, in {size:,} bytes of file")
        sizes = {entry.filename.casefold(): entry.file_size for entry in entries}  # torch's reader ignores case
        pickles = [entry for entry in entries if entry.filename.casefold().endswith("/data.pkl")]
        if not pickles:
            raise RefusedError("is a zip archive, not weights: unpack it, and choose the file of weights in it")
        if len(sizes) != len(entries) or len(pickles) > 1:
            raise pickle.UnpicklingError("a zip with two entries of one name")
        if pickles[0].file_size > room:
            raise ExcessError(f"has too many names for its {size:,} bytes")
        folder = pickles[0].filename.casefold().removesuffix("data.pkl")
        with archive.open(pickles[0]) as names:
            reader = _Reader(io.BytesIO(names.read()), size)
            claims = reader.one_pickle()
    for storage in claims.storages.values():
        held = sizes.get(f"{folder}data/{storage.key}".casefold(), 0)
        if storage.num_bytes > held:
            raise ExcessError(f"claims {storage.num_bytes:,} bytes of weights where it holds {held:,}")
    return claims


def _bytes_of_entries(file: BinaryIO) -> int:
    """The size of a zip's table of entries, which Python reads whole: from its last record, or its 64 bit one."""
    file.seek(-min(file.seek(0, io.SEEK_END), LAST_RECORDS), io.SEEK_END)
    tail = file.read()
    last = tail.rfind(b"PK\x05\x06")
    if last < 0:
        raise zipfile.BadZipFile("no last record")
    (count,) = struct.unpack_from("<I", tail, last + 12)
    if last < 76 or tail[last - 20 : last - 16] != b"PK\x06\x07":
        return int(count)
    if tail[last - 76 : last - 72] != b"PK\x06\x06":
        raise zipfile.BadZipFile("the 64 bit record is not at its place")
    return int(struct.unpack_from("<Q", tail, last - 36)[0])


def room_for_names(size: int) -> int:
    """Bytes that the names and shapes in a file of `size` bytes may take."""
    return MAX_NAMES + size // NAMES_SHARE


def _in_a_row(file: BinaryIO, size: int) -> _Claims:
    """What torch's older layout claims: five pickles one after the other, the fourth with the names."""
    reader = _Reader(file, size)
    found = [reader.one_pickle() for _ in range(5)]
    return found[3]


class _Reader:
    """Pickles in a file of `size` bytes. Reads never ask for more than is there: Python makes room before it reads."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.end = file.seek(0, io.SEEK_END)
        file.seek(0)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.end - self.file.tell()))

    def readline(self) -> bytes:
        return self.file.readline(MAX_NAMES)

    def one_pickle(self) -> _Claims:
        """Read the next pickle with stand-ins for everything in it."""
        start = self.tell()
        room = room_for_names(self.size)
        for number, (operation, argument, position) in enumerate(pickletools.genops(cast(BinaryIO, self))):
            if operation.name not in OPERATIONS:
                raise pickle.UnpicklingError(f"a pickle with {operation.name} in it")
            if operation.name == "LONG_BINPUT" and int(argument or 0) > number:  # Python makes room for as many
                raise ExcessError(f"claims {argument:,} objects after {number}")
            if number > MAX_OPERATIONS + self.size // OPERATION_BYTES or (position or start) - start > room:
                raise ExcessError(f"has too many names for its {self.size:,} bytes")
        end = self.tell()
        self.file.seek(start)
        claims = _Claims(io.BytesIO(self.file.read(end - start)), self.size)
        claims.content = claims.load()
        return claims


class _Claims(pickle.Unpickler):
    """A pickle's content as stand-ins; `storages` by key."""

    content: Any = None

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}
        self.size = size
        self.room = GROWTH * size

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in STORAGES:
            return Type(STORAGES[name])
        if module == "torch" and name in DTYPES:
            return Type(DTYPES[name])
        known = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor,
            "_rebuild_tensor_v3": self._typed_tensor,
            "_rebuild_parameter": lambda weights, *_: weights,
        }
        if module == "torch._utils" and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")

    def persistent_load(self, claim: Any) -> Storage:
        kind, type_, key, _, count, *_ = claim
        if kind != "storage" or not isinstance(type_, Type) or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError("a pickle with something other than weights outside of it")
        storage = Storage(str(key), count * type_.bytes_each, type_.bytes_each)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError("a pickle with two storages of one name")
        return storage

    def _tensor(self, storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Weights:
        return self._weights(storage, storage.bytes_each, offset, shape, strides)

    def _typed_tensor(
        self, storage: Storage, offset: int, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Type, *_: Any
    ) -> Weights:
        return self._weights(storage, dtype.bytes_each, offset, shape, strides)

    def _weights(self, storage: Storage, bytes_each: int, offset: int, shape: Any, strides: Any) -> Weights:
        is_shape = len(shape) == len(strides) <= MAX_DIMENSIONS
        if not is_shape or not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
            raise pickle.UnpicklingError("a pickle with weights of an impossible shape")
        count = math.prod(shape)
        # More values than bytes to hold them: a stride of zero repeats what is there.
        reach = offset + 1 + sum((n - 1) * stride for n, stride in zip(shape, strides)) if count else 0
        claimed = bytes_each * max(reach, count)
        self.room -= bytes_each * count
        if self.room < 0:
            raise ExcessError(f"claims more weights than fit into its {self.size:,} bytes")
        if claimed > storage.num_bytes:
            raise ExcessError(f"claims {claimed:,} bytes of weights where it holds {storage.num_bytes:,}")
        return Weights(bytes_each * count, tuple(shape))
