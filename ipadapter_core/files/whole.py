"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str], writer: str = "part") -> Iterator[Path]:
    """An empty file beside `path` to write in; when the block ends well, it is flushed and takes the place of `path`.

    Until then, and when the block raises, `path` is what it was. A kill leaves the hidden `.NAME.WRITER`, which the
    next writer of that name writes over; where several programs may write `path` at once, each needs its own name.
    However the block makes the file, it gets the permissions of any file that the user makes.
    Raises OSError when the folder is missing, full or cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{writer}")
    try:
        part.unlink(missing_ok=True)
        part.touch()
        permissions = part.stat().st_mode
        yield part
        part.chmod(permissions)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
