"""A folder in COCO's layout: pictures from scikit-image, captions written here, and the oddities of the real file."""

from __future__ import annotations

import json
from pathlib import Path

import skimage.data
from PIL import Image

PHOTOS = {
    "astronaut.png": ("A woman in an orange suit smiles before a flag.", "An astronaut beside a model of a shuttle."),
    "chelsea.png": ("A ginger cat looks at something.", "The face of a tabby cat, very near."),
    "coffee.png": ("A cup of coffee on a saucer with a spoon.",),
    "rocket.jpg": ("A rocket stands before its start at dusk.", "A rocket and four towers."),
    "motorcycle_left.png": ("A motorcycle in a shed.",),
    "retina.jpg": ("The inside of an eye.",),
}


def write_coco(folder: Path, number: int = 6, side: int = 96, split: str = "val2017") -> Path:
    """The first so many pictures, their longer side `side`, with several captions, a crowd entry and duplicates.

    Captions come in another order than their ids, as in the real file.
    """
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, captions = [], []
    for place, (name, texts) in enumerate(list(PHOTOS.items())[:number]):
        one = 139 + 146 * place
        file = f"{one:012d}.jpg"
        with Image.open(Path(skimage.data.__file__).parent / name) as photo:
            photo = photo.convert("RGB")
            photo.thumbnail((side, side))
            photo.save(folder / split / file, quality=95)
        images.append({"id": one, "file_name": file, "width": photo.width, "height": photo.height})
        captions += [
            {"id": 1000 + 10 * place - which, "image_id": one, "caption": f"{text}\n"}
            for which, text in enumerate(texts)
        ]
    first = images[0]["id"]
    captions.append({"id": 1, "image_id": first, "caption": "a crowd of people", "iscrowd": 1})
    captions.append({"id": 2, "image_id": first, "caption": "  "})
    captions.append(dict(captions[0]))
    write_annotations(folder, [*images, dict(images[1])] if number > 1 else images, captions, split)
    return folder


def write_annotations(
    folder: Path, images: list[dict[str, object]], captions: list[dict[str, object]], split: str = "val2017"
) -> None:
    content = {"info": {}, "licenses": [], "images": images, "annotations": captions}
    (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
