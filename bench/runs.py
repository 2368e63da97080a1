"""What our part of a run takes before its first forward pass: the first run of a graph, and those after it.

    python bench/runs.py [--check] [--device cuda] [--dtype fp16]

From the start of ComfyUI's OUTER_SAMPLE to the first forward pass of the base: K' and V' of one image prompt, and the
layout of a batch of both roles; everything of ComfyUI's own and the model's forward are left out. The bases' UNets have
their published shapes, all 16 or 70 layers, on no device: nothing of their weights is read.

- first: nothing is kept yet, and the adapter is loaded, computed and released
- second: the same graph again
- weight, layers, picture: *Apply* with another weight, with another set of layers (of the first ones, then all), or
  another picture

`--check` fails unless the second takes at most 0.05 times the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.unets import UNETS

LIMIT = 0.05
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST, SECOND = "first", "second"
CHANGES = ("weight", "layers", "picture")


def model_of(base: str, device: str, dtype: torch.dtype) -> Any:
    """A MODEL with a UNet of published shape without weights."""
    from tests.support import models

    comfy = models.comfy
    supported = {"SD15": comfy.supported_models.SD15, "SDXL": comfy.supported_models.SDXL}[base]
    config = UNETS[base] | {"dtype": dtype}
    model_config = supported(config)
    model_config.unet_config = config
    model_config.set_inference_dtype(dtype, None)
    built = model_config.get_model({}, device="meta")
    return comfy.model_patcher.ModelPatcher(built, load_device=torch.device(device), offload_device=torch.device("cpu"))


def set_up(clone: Any, size: tuple[int, int]) -> float:
    """Milliseconds of our part of a run's beginning."""
    from tests.support import host

    layout, stacks = host.part("nodes.layout"), host.part("nodes.stacks")
    hooks = clone.get_attachment(layout.KEY)
    guider = SimpleNamespace(model_patcher=clone, model_options={"transformer_options": {}})

    class Executor:
        class_obj = guider

        def __call__(self, *_: Any, **__: Any) -> None:
            pass

    noise = torch.zeros(1, 4, *size)
    x = torch.zeros(2, 4, *size, device=clone.load_device)
    synchronise = torch.cuda.synchronize if x.is_cuda else lambda: None
    synchronise()
    start = time.perf_counter()
    hooks.outer_sample(Executor(), noise)
    run = guider.model_options["transformer_options"][layout.KEY]
    run.chunks = {"negative": layout.UNKNOWN, "positive": layout.Chunk(stacks.Role.CONDITIONAL)}
    run.tensors(x, {"uuids": ["negative", "positive"]})
    synchronise()
    return (time.perf_counter() - start) * 1e3


def measure(base: str, family: str, args: argparse.Namespace) -> dict[str, float]:
    """Medians over rounds of each kind of run, each round from nothing kept."""
    from tests.support import host, models

    kept, core = host.part("nodes.kept"), models.core
    model = model_of(base, args.device, DTYPES[args.dtype])
    loaded = models.loaded_adapter(models.adapter_weights(family, model))
    size = (64, 64) if base == "SD15" else (128, 128)
    times: dict[str, list[float]] = {name: [] for name in (FIRST, SECOND, *CHANGES)}
    some = dict.fromkeys(loaded.spec.layers[::2], 1.0)
    for number in range(-1, args.rounds):  # the first one warms up
        prompt = models.Features.random(seed=abs(number))
        found: dict[str, list[float]] = {}
        kept.clear()
        clone = models.apply(model, loaded, prompt)
        found[FIRST] = [set_up(clone, size)]
        found[SECOND] = [set_up(clone, size) for _ in range(5)]
        found["weight"] = [set_up(models.apply(model, loaded, prompt, 0.7), size)]
        found["picture"] = [set_up(models.apply(model, loaded, models.Features.random(seed=1000 + number)), size)]
        kept.clear()
        set_up(models.apply(model, loaded, prompt, influence=core.Influence(layers=some)), size)
        found["layers"] = [set_up(clone, size)]
        if number >= 0:
            for name, values in found.items():
                times[name].append(statistics.median(values))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"fail where a second run takes over {LIMIT} of the first")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    from tests.support import host

    host.pack()
    result = {}
    with torch.inference_mode():
        for base in ("SD15", "SDXL"):
            for family in ("base", "plus"):
                result[f"{base} {family}"] = measure(base, family, args)
    print(f"set-up of a run in ms, {args.dtype} on {args.device}, {torch.get_num_threads()} threads")
    print(f"{'':12}" + "".join(f"{name:>10}" for name in (FIRST, SECOND, *CHANGES)) + f"{'second of first':>18}")
    shares = {name: times[SECOND] / times[FIRST] for name, times in result.items()}
    for name, times in result.items():
        print(f"{name:12}" + "".join(f"{value:10.2f}" for value in times.values()) + f"{shares[name]:17.4f}x")
    print(json.dumps({"bench": "runs", "device": args.device, "dtype": args.dtype} | result))
    worst = max(shares.values())
    if args.check and worst > LIMIT:
        print(f"a second run takes {worst:.3f} of the first, more than {LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
