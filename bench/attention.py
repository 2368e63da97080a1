"""What an adapter adds to a step: image attention of all 16 layers of SD1.5, against the least that it can cost.

    python bench/attention.py [--check] [--device cuda] [--dtype bf16]
    python bench/attention.py --host [--check] [--device cuda]

Each row gets q, the text attention's result (made beforehand, so that only the addition is timed) and, but for the last
row, K' and V', and returns the sum of both attentions:

- floor: explicit softmax in plain torch, nothing else
- ours: the patch that runs in ComfyUI, with the host's own attention
- recomputed: K' and V' from the image tokens at each step, as a plain implementation does

Rows are interleaved and rotated; times are medians over rounds for all layers, ratios medians of each round's ratio.
`--check` fails unless ours takes at most 1.25 times the floor.

`--host` times what the host does for a layer, the least of many rounds, on tensors so small that kernels cost next to
nothing: the patch in ComfyUI's place with the options that it has there, against plain torch that does the same
operations: an SDPA and an addition for each reference, a multiplication for a mask or a curve. It prints the
dispatcher's operations of both, and `--check` fails above 1.2 times the plain one, or with one operation more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.unets import SD15

LIMIT = 1.25
HOST_LIMIT = 1.2
CALLS = 16  # of a row in a round: few, so that some rounds are undisturbed
CONTEXT = SD15["context_dim"]
FAMILIES = {"base": 4, "plus": 16}  # image tokens
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class LayerInput:
    """A layer's tensors: q, text and out [B, N, D], K' and V' [B, T, D] from tokens [B, T, C]."""

    index: int
    heads: int
    q: Tensor
    text: Tensor
    tokens: Tensor
    to_k: Tensor
    to_v: Tensor
    k: Tensor
    v: Tensor


def layers(host: Any, num_tokens: int, pixels: int, batch: int, **factory: Any) -> list[LayerInput]:
    """The 16 cross-attention layers of SD1.5 at this size, with random tensors."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = UNetModel(**SD15, device="meta", operations=comfy.ops.disable_weight_init)
    found = []
    for site in host.part("ipadapter_core").unet_sites(name for name, _ in unet.named_modules()):
        attn2 = unet.get_submodule(site.comfyui)
        width = attn2.to_q.out_features
        section, level = site.place[:2]
        halvings = {"down": level, "mid": 3, "up": 3 - level}[section]
        positions = (pixels // 8 // 2**halvings) ** 2
        q, text = (torch.randn(batch, positions, width, **factory) for _ in range(2))
        tokens = torch.randn(batch, num_tokens, CONTEXT, **factory)
        to_k, to_v = (torch.randn(width, CONTEXT, **factory) * CONTEXT**-0.5 for _ in range(2))
        found.append(LayerInput(site.index, attn2.heads, q, text, tokens, to_k, to_v, tokens @ to_k.T, tokens @ to_v.T))
    return found


def floor(x: LayerInput) -> Tensor:
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=x.heads) for t in (x.q, x.k, x.v))
    attended = (q @ (k * q.shape[-1] ** -0.5).transpose(-1, -2)).softmax(-1) @ v
    return x.text + rearrange(attended, "b h n d -> b n (h d)")


def recomputed(x: LayerInput) -> Tensor:
    k, v = x.tokens @ x.to_k.T, x.tokens @ x.to_v.T
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=x.heads) for t in (x.q, k, v))
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return x.text + rearrange(attended, "b h n d -> b n (h d)")


def ours(host: Any, inputs: list[LayerInput]) -> Callable[[LayerInput], Tensor]:
    """The nodes' patch of each layer, as it is called inside of a model."""
    patch, layout = host.part("nodes.hosts.unet"), host.part("nodes.layout")
    core = host.part("ipadapter_core")
    by_heads = {x.index: core.ImageKV(*(core.split_heads(part, x.heads) for part in (x.k, x.v))) for x in inputs}
    prepared = {0: layout.ReferenceTensors(by_heads)}
    calls = {}
    for x in inputs:
        layer_patch = patch.LayerPatch(x.index, lambda *_, text=x.text: text, (0,))
        calls[x.index] = (layer_patch, {"n_heads": x.heads, "attn_precision": None, layout.IMAGES: prepared})

    def call(x: LayerInput) -> Tensor:
        layer_patch, options = calls[x.index]
        return layer_patch(x.q, x.k, x.v, options)

    return call


def measure(rows: dict[str, Callable[[LayerInput], Tensor]], inputs: list[LayerInput], rounds: int) -> dict[str, Any]:
    """Milliseconds of each row over rounds, in rotating order."""
    synchronise = torch.cuda.synchronize if inputs[0].q.is_cuda else lambda: None
    times: dict[str, list[float]] = {name: [] for name in rows}
    order = itertools.cycle(rows)
    for number in range(-3, rounds):  # the first ones warm up
        next(order)
        for name in itertools.islice(order, len(rows)):
            synchronise()
            start = time.perf_counter()
            for x in inputs:
                rows[name](x)
            synchronise()
            if number >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {
            "ms": round(statistics.median(values), 2),
            "of_floor": round(statistics.median(a / b for a, b in zip(values, times["floor"])), 3),
        }
        for name, values in times.items()
    }


class Operations(TorchDispatchMode):
    """The dispatcher's operations, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def host_rows(host: Any, device: str) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """By name: a call of plain torch, and ours; both roles of one latent, two heads, four positions, four tokens."""
    patch, layout, core = host.part("nodes.hosts.unet"), host.part("nodes.layout"), host.part("ipadapter_core")
    batch, positions, heads, width = 2, 4, 2, 16
    q, text = (torch.randn(batch, positions, width, device=device) for _ in range(2))
    kv = core.ImageKV(*(core.split_heads(torch.randn(batch, 4, width, device=device), heads) for _ in range(2)))
    mask, step = torch.rand(batch, positions, 1, device=device), torch.rand(1, 1, 1, device=device)
    where = layout.Where(torch.rand(batch, 1, 2, 2, device=device), {(2, 2): mask})
    tensors = layout.ReferenceTensors
    options = {
        "n_heads": heads, "dim_head": width // heads, "attn_precision": None, "cond_or_uncond": [1, 0], "uuids": [0, 1],
        "sigmas": torch.ones(batch, device=device), "sample_sigmas": torch.ones(21, device=device), "wrappers": {},
        "callbacks": {}, "block": ("input", 1), "block_index": 0, "activations_shape": [batch, width, 2, 2],
        "original_shape": [batch, 4, 2, 2], layout.KEY: object(),
    }  # fmt: skip

    def plain(count: int, factor: Tensor | None) -> Tensor:
        out = text
        for _ in range(count):
            by_heads = q.view(batch, positions, heads, -1).transpose(1, 2)
            attended = F.scaled_dot_product_attention(by_heads, kv.k, kv.v).transpose(1, 2).reshape(q.shape)
            out = out + (attended if factor is None else attended * factor)
        return out

    def row(given: list[Any], factor: Tensor | None) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        ours = patch.LayerPatch(1, lambda *_: text, tuple(range(len(given))))
        extra = options | {layout.IMAGES: dict(enumerate(given))}
        return lambda: plain(len(given), factor), lambda: ours(q, q, q, extra)

    return {
        "one reference": row([tensors({1: kv})], None),
        "a mask": row([tensors({1: kv}, where)], mask),
        "a curve": row([tensors({1: kv}, factor=step)], step),
        "two references": row([tensors({1: kv})] * 2, None),
    }


def host_time(host: Any, args: argparse.Namespace) -> int:
    """Print the host's microseconds a layer and the operations; 1 where a bar is missed and `--check` asks."""
    rows, result, is_missed = host_rows(host, args.device), {}, False
    synchronise = torch.cuda.synchronize if args.device == "cuda" else lambda: None

    def microseconds(call: Callable[[], Tensor]) -> float:
        synchronise()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        return (time.perf_counter() - start) / CALLS * 1e6

    print(f"host time of a layer on {args.device}; without the text's attention, which is made beforehand")
    print(f"{'':16}{'plain torch':>14}{'ours':>10}{'ratio':>8}{'operations: plain':>19}{'ours':>6}")
    with torch.inference_mode():
        for name, (plain, ours) in rows.items():
            torch.testing.assert_close(ours(), plain(), atol=1e-6, rtol=0)
            counts = []
            for call in (plain, ours):
                with Operations() as operations:
                    call()
                counts.append(len(operations.names))
            times = [(microseconds(plain), microseconds(ours)) for _ in range(25 * args.rounds)][5:]
            # The least: what else runs on the machine only adds to it.
            floor_us, ours_us = (min(column) for column in zip(*times))
            ratio = ours_us / floor_us
            is_missed |= ratio > HOST_LIMIT or counts[1] > counts[0]
            result[name] = {"plain_us": round(floor_us, 1), "us": round(ours_us, 1), "ratio": round(ratio, 3),
                            "operations": counts}  # fmt: skip
            print(f"{name:16}{floor_us:11.1f} us{ours_us:7.1f} us{ratio:7.2f}x{counts[0]:19}{counts[1]:6}")
    print(json.dumps({"bench": "attention --host", "device": args.device} | result))
    if args.check and is_missed:
        print(f"a row is above {HOST_LIMIT} times plain torch, or has more operations", file=sys.stderr)
    return int(args.check and is_missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT} times the floor")
    parser.add_argument("--host", action="store_true", help="time the host's work alone")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()

    from tests.support import host

    host.pack()
    from comfy.ldm.modules.attention import optimized_attention

    torch.manual_seed(0)
    if args.host:
        return host_time(host, args)
    dtype, result = DTYPES[args.dtype], {}
    for family, num_tokens in FAMILIES.items():
        inputs = layers(host, num_tokens, args.pixels, args.batch, device=args.device, dtype=dtype)
        rows = {"floor": floor, "ours": ours(host, inputs), "recomputed": recomputed}
        with torch.inference_mode():
            for x in inputs:  # all rows compute the same
                for row in rows.values():
                    torch.testing.assert_close(row(x), floor(x), atol=1e-4 if dtype == torch.float32 else 5e-2, rtol=0)
            result[family] = measure(rows, inputs, args.rounds)

    print(f"SD1.5 at {args.pixels} px, {len(inputs)} layers, batch {args.batch}, {args.dtype} on {args.device}, "
          f"{torch.get_num_threads()} threads, the host's attention is {optimized_attention.__name__}")  # fmt: skip
    print(f"{'added per step':16}" + "".join(f"{f'{family}, {n} tokens':>28}" for family, n in FAMILIES.items()))
    for name in rows:
        figures = [result[family][name] for family in FAMILIES]
        print(f"{name:16}" + "".join(f"{row['ms']:15.1f} ms {row['of_floor']:8.2f}x" for row in figures))
    settings = {"bench": "attention", "device": args.device, "dtype": args.dtype, "pixels": args.pixels}
    print(json.dumps(settings | result))
    worst = max(result[family]["ours"]["of_floor"] for family in FAMILIES)
    if args.check and worst > LIMIT:
        print(f"ours takes {worst:.2f} times the floor, more than {LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
