"""`make demo`: a real ComfyUI with this pack runs pocket's workflows on pictures that the model has never seen.

Writes out/demo.html, out/demo.png and, of its first rows, out/demo.webp (in docs/screenshots). Prints how often a
picture agrees with its reference, with the adapter and without. Everything that it needs comes with the pack.
"""

from __future__ import annotations

import time

from torch import Tensor

from demo.page import Table, write_page
from demo.sheet import write_sheet
from demo.showcase import COUNT, Showcase
from pocket.places import Places
from pocket.training.judge import Judge
from pocket.training.judge import load as load_judge
from pocket.world.scenes import ATTRIBUTES
from tools.comfyui import ROOT, find_or_fetch
from tools.server import Server

OUT = ROOT / "out"
FOLDER = OUT / "demo"
COVER = 1  # sections that say it at a glance


def main() -> None:
    start = time.monotonic()
    (FOLDER / "models").mkdir(parents=True, exist_ok=True)  # empty: pocket comes with the pack
    judge = load_judge(Places())
    with Server(find_or_fetch(), FOLDER, FOLDER / "models") as server:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        print(f"ComfyUI {version} from {server.comfyui} with this pack: ready after {time.monotonic() - start:.1f} s")
        sections = list(Showcase(server, judge).sections())
    judged = {label: pair for section in sections for label, pair in section.judged.items()}
    table = {label: agreement(judge, *pair) for label, pair in judged.items()}
    show(table)
    write_sheet(sections, OUT / "demo.png")
    write_sheet(sections[:COVER], OUT / "demo.webp")
    write_page(sections, table, COUNT, OUT / "demo.html")
    print(f"{time.monotonic() - start:.0f} s in all. See {OUT / 'demo.html'} and {OUT / 'demo.png'}")


def agreement(judge: Judge, made: Tensor, scenes: Tensor) -> dict[str, float]:
    """The share of pictures with each attribute of the scene [N, 5] that they should show, and with all of them."""
    right = judge.verdict(made).attributes == scenes
    shares = {name: float(right[:, place].float().mean()) for place, name in enumerate(ATTRIBUTES)}
    return shares | {"all five": float(right.all(1).float().mean())}


def show(table: Table) -> None:
    names = list(next(iter(table.values())))
    print(f"\nAgreement with what was given, {COUNT} references never seen:")
    print(f"{'':26}" + "".join(f"{name:>12}" for name in names))
    for label, shares in table.items():
        print(f"{label:26}" + "".join(f"{share:12.0%}" for share in shares.values()))
    print()


if __name__ == "__main__":
    main()
