"""The options of `python -m trainer evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_evaluate(found: argparse.ArgumentParser) -> None:
    """Give a parser the options of an evaluation."""
    # what is not given is the protocol's own (trainer/evaluation/protocol.py), which is the paper's
    found.add_argument("adapter", metavar="ADAPTER", nargs="*", help="adapter files, runs or checkpoints; NAME=PATH")
    found.add_argument("--data", type=Path, help="a folder with COCO's annotations/ and val2017/")
    found.add_argument("--out", type=Path, help="pictures, scores and the result; the same again goes on")
    found.add_argument("--pictures", action="append", default=[], metavar="NAME=DIR", help="made elsewhere: ID_0.png")
    found.add_argument("--no-adapter", action="store_true", help="the base alone too: what style is gained over")
    found.add_argument("--compare", nargs=2, metavar="RESULT", help="two result.json, or result.json:SYSTEM")
    for name in ("base", "encoder"):
        found.add_argument(f"--{name}", default="", help=f"as in `sample`: the {name} of all adapters")
    found.add_argument("--clip", default="ViT-L-14-quickgelu/openai", help="the judge: an open_clip tag, or a folder")
    found.add_argument("--dino", default="", help="a transformers folder of DINOv2, for DINO-I")
    found.add_argument("--style", default="", help="a file of CSD's weights, for style and content")
    found.add_argument("--faces", default="", help="a folder of insightface's .onnx files, for identity")
    found.add_argument("--split", default="val2017", help="annotations/captions_SPLIT.json and SPLIT/")
    found.add_argument("--skip-missing", action="store_true", help="leave out pictures and captions without the other")
    for name, kind, text in (
        ("samples", int, "pictures of each reference (4)"), ("steps", int, "of DDIM (50)"),
        ("guidance", float, "classifier-free (7.5)"), ("weight", float, "of the image prompt (1)"),
        ("prompt", str, 'text of all pictures (""); {caption} is the reference\'s own'),
        ("negative", str, 'the unconditional text ("")'), ("seed", int, "of the noise (0)"),
        ("resolution", int, "pixels; 0 = each adapter's training (0)"),
        ("batch", int, "references at a time; changes last bits (1)"),
        ("caption", int, "which caption of a picture, by id, from 0 (0)"), ("limit", int, "the first N; 0 = all (0)"),
        ("text-references", int, "how many get a text (500)"), ("text-samples", int, "of each (1)"),
        ("resamples", int, "of the bootstrap (2000)"), ("covered", float, "of the intervals (0.95)"),
    ):  # fmt: skip
        found.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
    found.add_argument("--text-prompts", nargs="+", metavar="TEXT", help="texts, in turns over the references")
    found.add_argument("--text-weights", nargs="+", type=float, metavar="W", help="weights with them (0 .25 .5 .75 1)")
    found.add_argument("--processes", type=int, default=1, help="on this machine, each with its own GPU")
    found.add_argument("--part", default="0/1", help="i/n: this machine's share; the last to end writes the table")
    found.add_argument("--dry-run", action="store_true", help="print what it would take, and stop")
    found.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu", "mps"])
    found.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
