"""What the nodes that load an image encoder offer, and which one a choice means."""

from __future__ import annotations

import hashlib
from typing import Any

from ...ipadapter_core import ENCODERS, AdapterSpec
from .. import folders
from ..encoders import AUTO, OPEN_CLIP, TAGS
from ..find import encoder_for, only_encoder, size_of, there

_SIZES = ", ".join(f"{one.name.removeprefix('CLIP ')} {one.tag_size:g} GB" for one in ENCODERS)
DOWNLOADS = f"A tag of open_clip is downloaded once: {_SIZES}."


def encoder_choices() -> list[str]:
    """Auto, the user's files and folders, tags to download, and what comes with the pack."""
    return [AUTO, *folders.own_encoder_files(), *TAGS, *folders.bundled_encoder_files()]


def chosen_encoder(choice: str, spec: AdapterSpec | None, adapter: str = "") -> tuple[str, str]:
    """The listed name of the image encoder that a choice means, and why it was taken, in words.

    spec, adapter: of the adapter that is to read it, where one is known.
    Raises ValueError, for auto, when no file is the one, or none can be told.
    """
    if choice != AUTO:
        return choice, ""
    found = only_encoder() if spec is None else encoder_for(spec, adapter)
    return found.name, found.why


def loaded_words(name: str, why: str, encoder: Any) -> str:
    """What a loaded CLIP_VISION is: its kind first, then its name and why it was taken."""
    facts = encoder.config
    size = (facts["hidden_size"], facts["projection_dim"], facts["image_size"])
    kind = next((one.name for one in ENCODERS if size_of(one.encoder) == size), f"CLIP {size[0]} wide, {size[2]} px")
    return f"{kind} · {name}" + (f"\n{AUTO}: {why}" if why else "")


def fingerprint_of(choice: str) -> str:
    """What changes when the encoder that a choice means may have changed."""
    if choice.startswith(OPEN_CLIP):
        return choice
    if choice != AUTO:
        return folders.fingerprint(folders.path_of(folders.ENCODERS, choice))
    states = [(name, folders.state(path)) for name, path in there(folders.ENCODERS, encoder_choices())]
    return hashlib.sha256(repr(states).encode()).hexdigest()
