"""HEIC and HEIF, the pictures of phones: read by pillow-heif where it is installed, named where it is not."""

from __future__ import annotations

from functools import lru_cache

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


class NeedsExtraError(OSError):
    """A picture of this kind needs a package that is not installed."""


def is_heif(start: bytes) -> bool:
    """Whether a file's first 12 bytes are those of HEIC or HEIF."""
    return start[4:8] == b"ftyp" and start[8:12] in BRANDS


@lru_cache(maxsize=1)
def teach() -> None:
    """Teach Pillow to read HEIF, once. Raises NeedsExtraError where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise NeedsExtraError("HEIC or HEIF, which needs an extra: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()
