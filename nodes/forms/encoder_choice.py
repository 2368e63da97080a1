"""What the nodes that load an image encoder offer, and which one a choice means."""

from __future__ import annotations

import hashlib
from typing import Any

from ...ipadapter_core import ARCHITECTURES, ENCODERS, AdapterSpec, Encoder
from .. import folders
from ..encoders import AUTO, OPEN_CLIP, TAGS
from ..find import adapter_facts, encoder_facts, encoder_for, mismatch, only_encoder, reads, size_of, there

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


def check_choice(choice: str) -> None:
    """Hold a choice to what is there. Raises ValueError that says what to choose."""
    if choice.startswith(OPEN_CLIP):
        if choice not in TAGS:
            raise ValueError(f"{choice} is not offered: choose {AUTO}, a file, or one of {', '.join(TAGS)}")
    elif choice != AUTO:
        folders.encoder_path(choice)


def check_pair(adapter: str | None, choice: str | None) -> None:
    """Hold Image Prompt's files to each other, as far as their headers tell; None: linked, not known yet.

    Raises ValueError for a file that is missing or of another kind, and for an encoder that the adapter does not read.
    """
    spec = None
    if adapter is not None:
        spec = adapter_facts(folders.path_of(folders.ADAPTERS, adapter))[0]
        if spec.identity is not None:
            raise ValueError(f"{adapter} reads faces: use Encode Faces and Apply IP-Adapter in place of Image Prompt")
    if choice is None:
        return
    check_choice(choice)
    if spec is not None and choice == AUTO:
        encoder_for(spec, str(adapter))
    elif choice != AUTO:
        encoder = _facts_of(choice)
        if spec is not None and spec.feature is not None and not reads(spec, encoder):
            raise ValueError(mismatch(spec, str(adapter), encoder, choice))


def _facts_of(choice: str) -> Encoder:
    if choice.startswith(OPEN_CLIP):
        return ARCHITECTURES[choice.removeprefix(OPEN_CLIP).partition("/")[0]]
    return encoder_facts(folders.encoder_path(choice))


def loaded_words(name: str, why: str, encoder: Any) -> str:
    """What a loaded CLIP_VISION is: its kind first, then its name and why it was taken."""
    facts = encoder.config
    size = (facts["hidden_size"], facts["projection_dim"], facts["image_size"])
    kind = next((one.name for one in ENCODERS if size_of(one.encoder) == size), f"CLIP {size[0]} wide, {size[2]} px")
    return f"{kind} · {name}" + (f" ({why})" if why else "")


def fingerprint_of(choice: str) -> str:
    """What changes when the encoder that a choice means may have changed."""
    if choice.startswith(OPEN_CLIP):
        return choice
    if choice != AUTO:
        return folders.fingerprint(folders.encoder_path(choice))
    states = [(name, folders.state(path)) for name, path in there(folders.ENCODERS, encoder_choices())]
    return hashlib.sha256(repr(states).encode()).hexdigest()
