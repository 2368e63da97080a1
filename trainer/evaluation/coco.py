"""References and their captions from COCO's own layout: annotations/captions_val2017.json beside val2017/.

The references are in the order of their ids. Of a picture's captions, which are in the order of theirs, the protocol
takes one, by default the first; the paper does not say which it took.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.pictures import Unusable, decode

SPLIT = "val2017"
NAMED = 3  # of many names, how many a sentence gives


@dataclass(frozen=True)
class Item:
    """A reference: its id as COCO writes it in a file's name, its picture's file, its caption."""

    key: str
    path: Path
    caption: str

    def picture(self) -> Image.Image:
        """RGB, upright. Raises ValueError when the file cannot be read."""
        found = decode(self.path)
        if isinstance(found, Unusable):
            raise ValueError(
                f"{self.path} cannot be used ({found.reason}): fetch it again; what is made so far is kept"
            )
        return found


@dataclass(frozen=True)
class References:
    """name: the split. left_out: what the annotation file has and was not used, in words."""

    items: tuple[Item, ...]
    name: str
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digest(self) -> str:
        """Of ids, files' names and captions, in order."""
        words = json.dumps([[item.key, item.path.name, item.caption] for item in self.items])
        return hashlib.sha256(words.encode()).hexdigest()[:16]


def read_coco(
    folder: Path, split: str = SPLIT, caption: int = 0, limit: int = 0, skip_missing: bool = False
) -> References:
    """The references of a split. Left out and counted: crowd entries, empty captions, what comes twice.

    skip_missing: leave out pictures without a file, and captions without a picture, as well.
    Raises ValueError when the annotations are missing or damaged, or pictures and captions do not go together.
    """
    path, pictures = folder / "annotations" / f"captions_{split}.json", folder / split
    content = _read(path, folder, split)
    images, left_out, orphans = _images(content["images"], path), list[str](), list[str]()
    captions: dict[int, list[str]] = {}
    crowds, empty, seen = 0, 0, set[int]()
    for one in sorted(content["annotations"], key=lambda entry: entry["id"]):
        text = str(one.get("caption") or "").strip()
        if one["id"] in seen:
            continue
        seen.add(one["id"])
        if one.get("iscrowd"):
            crowds += 1
        elif not text:
            empty += 1
        elif one["image_id"] not in images:
            orphans.append(str(one["image_id"]))
        else:
            captions.setdefault(one["image_id"], []).append(" ".join(text.split()))
    twice = len(content["annotations"]) - len(seen) + len(content["images"]) - len(images)
    for count, what in ((crowds, "crowd entries"), (empty, "empty captions"), (twice, "entries that come twice")):
        left_out += [f"{what}: {count}"] if count else []
    absent = [images[one] for one in sorted(captions) if not (pictures / images[one]).is_file()]
    bare = [images[one] for one in sorted(images) if one not in captions]
    for names, what in (
        (orphans, "captions of pictures that it does not list"),
        (absent, f"pictures without a file in {pictures.name}/"),
        (bare, "pictures without a caption"),
    ):
        if names and not skip_missing:
            raise ValueError(
                f"{path.name} has {len(names)} {what}: {some(names)}: fetch the data again, or leave them out with "
                "--skip-missing"
            )
        left_out += [f"{what}: {len(names)}"] if names else []
    chosen = [one for one in sorted(captions) if (pictures / images[one]).is_file()]
    items = [
        Item(Path(images[one]).stem, pictures / images[one], captions[one][min(caption, len(captions[one]) - 1)])
        for one in chosen
    ]
    stems = [item.key for item in items]
    if len(set(stems)) < len(stems):
        raise ValueError(f"{path.name} names files that differ in their ending alone: pictures are told by the rest")
    if not items:
        raise ValueError(f"{path} gives no picture with a caption: is it the file of {split}?")
    return References(tuple(items[: limit or None]), split, tuple(left_out))


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _read(path: Path, folder: Path, split: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"there are no annotations {path}: unpack COCO's annotations_trainval2017.zip and {split}.zip into {folder}"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ids = [int(one[name]) for one in found["annotations"] for name in ("id", "image_id")]
        names = [(int(one["id"]), one["file_name"]) for one in found["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or no file of captions ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if not ids or not names:
        raise ValueError(f"{path} lists no captions or no pictures: it should be COCO's captions_{split}.json")
    return found


def _images(entries: Sequence[dict[str, Any]], path: Path) -> dict[int, str]:
    """File names by id."""
    images: dict[int, str] = {}
    for one in entries:
        name = Path(str(one["file_name"])).name
        if images.setdefault(one["id"], name) != name:
            raise ValueError(
                f"{path.name} names two files for the picture {one['id']}, {images[one['id']]} and {name}: "
                "fetch it again"
            )
    return images
