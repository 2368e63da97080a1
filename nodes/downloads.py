"""The weights of an open_clip tag: from the hub's cache, or downloaded into it with progress on the node."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

import comfy.utils
from comfy_execution.utils import get_executing_context

from ..ipadapter_core import ENCODERS


def open_clip() -> Any:
    """The package open_clip, imported late: it takes seconds, few graphs need it, and it need not be installed."""
    try:
        import open_clip as package
    except ModuleNotFoundError as error:
        raise ValueError(
            f"open_clip's tags need a package that is missing ({error.name}): run `python -m pip install "
            "open_clip_torch` with ComfyUI's Python and restart ComfyUI, or choose a file in models/clip_vision"
        ) from error
    return package


def downloaded(architecture: str, tag: str) -> Path:
    """The file of a tag's weights in the hub's cache, where open_clip looks for it, too.

    Raises ValueError that says what can be put where instead, when there is no such tag or the hub does not answer.
    """
    from_hub = open_clip().get_pretrained_cfg(architecture, tag).get("hf_hub", "")
    if not from_hub:
        tags = ", ".join(open_clip().list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"open_clip has no weights {tag!r} of {architecture} on the hub: choose one of {tags}")
    repository, _, name = from_hub.rpartition("/")
    try:
        return _from_hub(repository, [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
    except OSError as error:
        raise ValueError(_instead(architecture, tag, repository, error)) from error


def _from_hub(repository: str, names: list[str]) -> Path:
    """The first of the files that is in the cache, else in a repository. Raises OSError where it is in neither."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        with suppress(LocalEntryNotFoundError):  # without asking the hub: it may not answer
            return Path(hf_hub_download(repository, name, local_files_only=True))
    # Older versions of the hub's package show progress in the log alone.
    known = inspect.signature(hf_hub_download).parameters
    shown: dict[str, Any] = {"tqdm_class": _bar()} if "tqdm_class" in known else {}
    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repository, name, **shown))
        except LocalEntryNotFoundError:  # no answer
            raise
        except EntryNotFoundError:  # an answer, that it has no such file
            continue
    return Path(hf_hub_download(repository, names[-1], **shown))


def _bar() -> type[Any]:
    """tqdm's bar, which also moves that of the node that runs now, from whatever thread."""
    from tqdm.auto import tqdm

    running = get_executing_context()
    page = comfy.utils.ProgressBar(1, node_id=None if running is None else running.node_id)

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            moved = super().update(n)
            if self.total:
                page.update_absolute(int(self.n), int(self.total))
            return moved

    return Bar


def _instead(architecture: str, tag: str, repository: str, error: OSError) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    known = next((one for one in ENCODERS if one.tag == f"{architecture}/{tag}"), None)
    address = f"https://huggingface.co/{repository}" if known is None else f"{known.url} ({known.size:g} GB)"
    return (
        f"the download of {architecture}/{tag} failed: put {address} into models/clip_vision, and choose auto or the "
        f"file. ({reason})"
    )
