"""A claim: the pictures it asks for, and what it reads from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .figures import Findings
from .orders import MOST, Order
from .studio import Made, Studio


@dataclass(frozen=True)
class Bench:
    """What a claim measures with. made: the pictures of its orders, by their names. sheets: the folder for pictures."""

    studio: Studio
    made: Mapping[str, Made]
    sheets: Path


@dataclass(frozen=True)
class Claim:
    """orders: by name, before they are given a world. measure: fills the findings. most: pictures measured of each.

    Orders of MOST pictures are shared by claims; the smaller ones measure the first of them.
    """

    name: str
    title: str
    orders: Mapping[str, Order]
    measure: Callable[[Bench, Findings], None]
    most: int = MOST
