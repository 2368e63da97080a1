"""`make demo`: a real ComfyUI with this pack runs workflows/image_prompt.json on a real picture.

On a machine without pretrained models it writes seeded random ones first, so the pictures have no meaning; what it
prints shows that the adapter acts.
"""

from __future__ import annotations

import importlib.resources
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo import prompts
from demo.comfyui import ROOT, find_or_fetch
from demo.random_models import ensure
from demo.server import Server
from ipadapter_core import build_adapter, read_adapter

MODELS = ROOT / "out" / "random_models"
FOLDER = ROOT / "out" / "demo"
SIZE, STEPS = 256, 4
# Stills that ComfyUI itself requires, in a package of its own.
STILLS = "comfyui_workflow_templates_media_image"
REFERENCES = {"a rose": "flux_canny_model_example-1.webp", "a hedgehog": "image_flux2_klein_text_to_image-1.webp"}


def main() -> None:
    content = prompts.smaller(prompts.prompt("image_prompt"), SIZE, STEPS)
    settings = prompts.inputs_of(content, "ImagePrompt")
    checkpoint = prompts.inputs_of(content, "CheckpointLoaderSimple")["ckpt_name"]
    ensure(
        MODELS, [f"checkpoints/{checkpoint}", f"ipadapter/{settings['adapter']}", f"clip_vision/{settings['encoder']}"]
    )

    start = time.monotonic()
    with Server(find_or_fetch(), FOLDER, MODELS) as server:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        print(f"ComfyUI {version} from {server.comfyui} with this pack: ready after {time.monotonic() - start:.1f} s")
        print("The models are seeded random ones of the published shapes: the pictures have no meaning.")
        pictures = {}
        for subject, still in REFERENCES.items():
            copy_still(still, FOLDER / "input")
            prompts.inputs_of(content, "LoadImage")["image"] = still
            for weight in (0.0, 1.0) if not pictures else (1.0,):
                settings["weight"] = weight
                label = f"reference {subject}, weight {weight:g}" if weight else "weight 0, without the adapter"
                pictures[subject if weight else "none"] = run(server, content, label)

    adapter = build_adapter(read_adapter(MODELS / "ipadapter" / settings["adapter"]).tensors)
    num_weights = sum(value.numel() for value in adapter.parameters())
    spec = adapter.spec
    print(
        f"{settings['adapter']}: {spec.family} adapter for {spec.base}, {spec.num_tokens} image tokens into "
        f"{len(spec.layers)} layers, {num_weights:,} weights"
    )
    (first, rose), (second, hedgehog) = ((subject, pictures[subject]) for subject in REFERENCES)
    print(
        f"mean absolute difference, of 255: weight 1 ({first}) from weight 0: {difference(rose, pictures['none']):.2f}"
    )
    print(f"                                  {first} from {second}: {difference(rose, hedgehog):.2f}")


def run(server: Server, content: prompts.Prompt, label: str) -> Path:
    """Run the prompt, show its progress, say where the picture is."""

    def progress(kind: str, data: dict[str, Any]) -> None:
        if kind == "progress":
            print(f"\r{label}: step {data['value']} of {data['max']}", end="", flush=True)

    result = server.run(content, prompts.workflow("image_prompt"), progress)
    print(f"\r{label}: {result.seconds:.1f} s, {result.pictures[0]}")
    return result.pictures[0]


def copy_still(name: str, folder: Path) -> None:
    source = importlib.resources.files(STILLS) / "templates" / name
    (folder / name).write_bytes(source.read_bytes())


def difference(first: Path, second: Path) -> float:
    """The mean absolute difference of two pictures, in steps of 8 bits."""
    one, other = (np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) for path in (first, second))
    return float(np.abs(one - other).mean())


if __name__ == "__main__":
    main()
