"""The older nodes as ComfyUI's first kind of nodes (V1), put where ComfyUI looks, each only where its id is free.

V1, because programs and scripts read choices as a list in the first place, and call nodes in Python as
`NODE_CLASS_MAPPINGS[id]().apply_ipadapter(...)`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths

from .. import folders
from ..sockets import OLDER, refusals_said
from . import apply, embeds, loaders, pictures, regional, weights
from .contract import NODES, Contract

log = logging.getLogger(__name__)
SWITCH = "IPADAPTER_OLDER_NODES"  # in the environment; 0 leaves the older nodes out
# As ComfyUI found it: a link to it has a name of its own.
PACK = Path(__file__).parents[2].name

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "IPAdapter": apply.simple,
    "IPAdapterAdvanced": apply.apply,
    "IPAdapterBatch": partial(apply.apply, unfold=True),
    "IPAdapterMS": apply.apply,
    "IPAdapterFaceID": apply.apply,
    "IPAAdapterFaceIDBatch": partial(apply.apply, unfold=True),
    "IPAdapterFaceIDKolors": apply.apply,
    "IPAdapterStyleComposition": apply.style_and_composition,
    "IPAdapterStyleCompositionBatch": partial(apply.style_and_composition, unfold=True),
    "IPAdapterPreciseStyleTransfer": apply.style_precise,
    "IPAdapterPreciseStyleTransferBatch": partial(apply.style_precise, unfold=True),
    "IPAdapterPreciseComposition": apply.composition_precise,
    "IPAdapterPreciseCompositionBatch": partial(apply.composition_precise, unfold=True),
    "IPAdapterClipVisionEnhancer": apply.apply,
    "IPAdapterClipVisionEnhancerBatch": partial(apply.apply, unfold=True),
    "IPAdapterTiled": apply.tiled,
    "IPAdapterTiledBatch": partial(apply.tiled, unfold=True),
    "IPAdapterEmbeds": apply.embeds,
    "IPAdapterEmbedsBatch": partial(apply.embeds, unfold=True),
    "IPAdapterEncoder": embeds.encode_picture,
    "IPAdapterCombineEmbeds": embeds.combine,
    "IPAdapterSaveEmbeds": embeds.save,
    "IPAdapterLoadEmbeds": embeds.load,
    "IPAdapterRegionalConditioning": regional.conditioning,
    "IPAdapterCombineParams": regional.combine,
    "IPAdapterFromParams": apply.from_params,
    "IPAdapterWeights": weights.weights,
    "IPAdapterWeightsFromStrategy": weights.weights,
    "IPAdapterPromptScheduleFromWeightsStrategy": weights.prompt_schedule,
    "IPAdapterCombineWeights": weights.combine,
    "IPAdapterNoise": pictures.make_noise,
    "PrepImageForClipVision": pictures.prep_image,
    "IPAdapterModelLoader": loaders.load_file,
    "IPAdapterInsightFaceLoader": loaders.load_faces,
    "IPAdapterUnifiedLoader": loaders.load_preset,
    "IPAdapterUnifiedLoaderFaceID": loaders.load_preset,
    "IPAdapterUnifiedLoaderCommunity": loaders.load_preset,
}
# Inputs in the order of Python calls, where that is not the order of the node's own.
POSITIONS = {"load_models": ["model", "preset", "lora_strength", "provider", "ipadapter"]}
# Nodes whose result is in a file of the list: it is read again when it changes.
FILES = {
    "ipadapter_file": lambda name: folders.path_of(folders.ADAPTERS, name),
    "embeds": lambda name: Path(folder_paths.get_input_directory(), name),
}


class OlderNode:
    """What all of them have; it is no node itself."""

    CATEGORY = OLDER
    DEPRECATED = True


def node_class(contract: Contract) -> type[OlderNode]:
    """A class of ComfyUI's first kind for a row of the table."""
    function = FUNCTIONS[contract.id]
    positions = POSITIONS.get(contract.method, contract.order)
    says = contract.method == "load_models"

    def input_types(cls: type[OlderNode]) -> dict[str, Any]:
        types = contract.input_types()
        return types | ({"hidden": {"unique_id": "UNIQUE_ID"}} if says else {})

    def run(self: OlderNode, *args: Any, **given: Any) -> Any:
        if len(args) > len(positions):
            raise TypeError(f"{contract.id} takes {len(positions)} inputs, got {len(args)}")
        with refusals_said():
            return function(**dict(zip(positions, args)), **given)

    members: dict[str, Any] = {
        "__doc__": f"{contract.title}, as older graphs know it.",
        "__module__": __name__,
        "INPUT_TYPES": classmethod(input_types),
        "RETURN_TYPES": tuple(kind for kind, _ in contract.outputs),
        "RETURN_NAMES": tuple(name for _, name in contract.outputs),
        "FUNCTION": contract.method,
        "OUTPUT_NODE": contract.is_output,
        "DESCRIPTION": f"For older graphs, with the same numbers. In new ones use {contract.ours}.",
        contract.method: run,
    }
    name = next((row for row in contract.required if row in ("ipadapter_file", "file of embeds")), None)
    if name is not None:
        members["IS_CHANGED"] = classmethod(partial(_changed, contract.order[0]))
    return type(contract.id, (OlderNode,), members)


def _changed(name: str, cls: type[OlderNode], **inputs: Any) -> str:
    """A digest of the state of a node's file."""
    return folders.fingerprint(FILES[name](inputs[name]))


def is_on() -> bool:
    """Whether the older nodes are wanted."""
    return os.environ.get(SWITCH, "1").strip().lower() not in ("0", "false", "off", "no")


def register(classes: MutableMapping[str, Any], names: MutableMapping[str, str]) -> list[str]:
    """Put the older nodes where ComfyUI looks; the ids that were free. A pack that has an id already keeps it."""
    free = [contract for contract in NODES if contract.id not in classes] if is_on() else []
    for contract in free:
        node = node_class(contract)
        node.RELATIVE_PYTHON_MODULE = f"custom_nodes.{PACK}"  # type: ignore[attr-defined]
        classes[contract.id] = node
        names[contract.id] = contract.title
    return [contract.id for contract in free]


def register_in_comfyui() -> None:
    """Beside the nodes that ComfyUI has loaded; outside of a running ComfyUI there are none."""
    comfyui = sys.modules.get("nodes")  # ComfyUI's own, never imported for this
    classes = getattr(comfyui, "NODE_CLASS_MAPPINGS", None)
    if classes is None:
        return
    free = register(classes, comfyui.NODE_DISPLAY_NAME_MAPPINGS)  # type: ignore[union-attr]
    if free and len(free) < len(NODES):
        log.info(f"{len(NODES) - len(free)} ids of older nodes belong to another pack and were left to it")
