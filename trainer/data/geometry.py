"""The sizes of a picture and its crop, as facts of the picture; what a base makes of them is the base's business."""

from __future__ import annotations

from typing import NamedTuple


class Geometry(NamedTuple):
    """original: height and width in pixels, as read. corner: top and left of the crop, in the resized picture.

    target: height and width of the crop.
    """

    original: tuple[int, int]
    corner: tuple[int, int]
    target: tuple[int, int]
