"""Pickles with code in them: each class of operation that can call something, in every container that torch reads."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.hostile import Case, good
from tests.support.hostile.zips import archive

EXTENSION = 0x55  # a code that the test registers for os.mkdir, as a program might


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def called(function: str, *arguments: bytes) -> bytes:
    """GLOBAL and REDUCE: `function` as "module name"."""
    module, name = function.split()
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def attack(path: Path) -> dict[str, bytes]:
    """Protocol 2 pickles, less PROTO and STOP, by name; each makes `path` when it is read without care."""
    where, python = text(str(path)), text(f"__import__('os').mkdir({str(path)!r})")
    shell, plain = text(f"mkdir '{path}'"), str(path).encode()
    mkdir = b"cos\nmkdir\n"
    partial = b"cfunctools\npartial\n"
    state = b"(" + mkdir + b"(" + where + b"t}Nt"  # of a partial: function, arguments, keywords, attributes
    listed = b"(" + text("mkdir") + where + b"l"
    folder, made = called("pathlib PosixPath", where), called("os mkdir", where)
    inner = called("_codecs encode", text(f"cos\nmkdir\n(V{path}\ntR."), text("latin1"))
    taken = called("builtins getattr", called("builtins __import__", text("os")), text("mkdir"))
    ordered, parameter = b"ccollections\nOrderedDict\n)R", b"ctorch._utils\n_rebuild_parameter\n("
    return {
        "GLOBAL os.mkdir": called("os mkdir", where),
        "GLOBAL posix.mkdir": called("posix mkdir", where),
        "GLOBAL os.system": called("os system", shell),
        "GLOBAL builtins.eval": called("builtins eval", python),
        "GLOBAL builtins.exec": called("builtins exec", python),
        "GLOBAL __builtin__.eval": called("__builtin__ eval", python),
        "GLOBAL subprocess.call": called("subprocess call", listed),
        "GLOBAL subprocess.check_output": called("subprocess check_output", listed),
        "GLOBAL shutil.copytree": called("shutil copytree", text("/proc/self/task/../net/stat"), where),
        "GLOBAL of a dotted name": called("pathlib Path.mkdir", folder),
        "GLOBAL os.makedirs": called("os makedirs", where),
        "GLOBAL runpy": called("runpy _run_code", called("builtins compile", python, text("a"), text("eval")), b"}"),
        "GLOBAL timeit": called("timeit timeit", python),
        "GLOBAL pickle.loads": called("pickle loads", inner),
        "GLOBAL operator.methodcaller": called("operator methodcaller", text("mkdir")) + b"(" + folder + b"tR",
        "GLOBAL builtins.getattr": taken + b"(" + where + b"tR",
        "GLOBAL builtins.map": called("builtins list", called("builtins map", mkdir, b"(" + where + b"l")),
        "GLOBAL torch.load": called("torch.utils.collect_env run", shell),
        "STACK_GLOBAL": text("os") + text("mkdir") + b"\x93(" + where + b"tR",
        "STACK_GLOBAL of a dotted name": text("os") + text("path.os.mkdir") + b"\x93(" + where + b"tR",
        "INST": b"(" + where + b"ios\nmkdir\n",
        "OBJ": b"(c_io\nFileIO\n" + where + text("w") + b"o",
        "NEWOBJ and BUILD": partial + b"(" + mkdir + b"t\x81" + state + b"b)R",
        "NEWOBJ_EX": partial + b"(" + mkdir + where + b"t}\x92)R",
        "EXT1": b"\x82" + bytes([EXTENSION]) + b"(" + where + b"tR",
        "EXT2": b"\x83" + struct.pack("<H", EXTENSION) + b"(" + where + b"tR",
        "EXT4": b"\x84" + struct.pack("<i", EXTENSION) + b"(" + where + b"tR",
        "REDUCE of a memo": mkdir + b"q\x00" + b"0" + b"h\x00(" + where + b"tR",
        "code as a key": b"}" + made + b"Ns",
        "code in an OrderedDict": ordered + text("image_proj") + made + b"s",
        "code as a hook of weights": parameter + made + b"\x88NtR",
        "BUILD of an OrderedDict": ordered + b"}" + text("_metadata") + made + b"sb",
        "protocol 0": b"cos\nmkdir\n(V" + plain + b"\ntR",
        "code in a persistent id": b"(" + text("storage") + mkdir + text("0") + text("cpu") + b"K\x01tQ",
        "a module as a persistent id": b"(" + text("module") + mkdir + text("0") + text("1") + b"tQ",
        "a persistent id of protocol 0": b"P" + plain + b"\n",
        "a number as a persistent id": b"K\x07Q",
    }  # fmt: skip


HARMLESS = {  # where nothing without care would call it
    "GLOBAL shutil.copytree", "code in a persistent id", "a module as a persistent id", "a persistent id of protocol 0",
    "a number as a persistent id", "code as a hook of weights",
}  # fmt: skip
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "zip": lambda content: archive({"data.pkl": content}),
    "in a row": good.in_a_row_with,
    "first in a row": lambda content: content + good.in_a_row(),
}


def pickled(name: str, mark: Path) -> bytes:
    """The attack as a whole pickle; dotted names are for protocol 4."""
    return (b"\x80\x04" if "dotted" in name else b"\x80\x02") + attack(mark)[name] + b"."


def cases() -> Iterator[Case]:
    for name in attack(Path()):
        for container, wrap in CONTAINERS.items():

            def write(path: Path, mark: Path, name: str = name, wrap: Callable[[bytes], bytes] = wrap) -> None:
                path.write_bytes(wrap(pickled(name, mark)))

            yield Case(f"{name}, {container}", "code in a pickle", write, name not in HARMLESS)
    for protocol in range(6):
        content = pickle.dumps({"image_proj": {}, "ip_adapter": range(3)}, protocol)
        yield Case(
            f"a harmless object, protocol {protocol}", "code in a pickle",
            lambda path, mark, content=content: path.write_bytes(content) and None,
        )  # fmt: skip
