"""The kinds of models that take image prompts; `host_of` is the only place that asks what kind a model is."""

from __future__ import annotations

from typing import Any

from ...ipadapter_core import BASE_NAMES, Site
from .host import Host
from .unet import UNet

HOSTS: tuple[Host, ...] = (UNet(),)


def host_of(model: Any) -> tuple[Host, list[Site]]:
    """The host of a MODEL and the sites that it found. Raises ValueError for a model of no known kind."""
    for host in HOSTS:
        if sites := host.sites(model):
            return host, sites
    raise ValueError(
        f"this model ({type(model.model).__name__}) has no cross-attention layers to put an image prompt in: "
        f"use a UNet model ({BASE_NAMES})"
    )
