"""CLIP's tokenizer without a download."""

from __future__ import annotations

import gzip
from importlib import resources

from transformers import CLIPTokenizer


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's tokenizer, 77 tokens long, from the merges that open_clip ships."""
    with resources.files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").open("rb") as file:
        lines = gzip.decompress(file.read()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]  # as CLIP: the vocabulary has 49,408 entries
    letters = list(_byte_letters().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = [tuple(merge.split()) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=pad_token, model_max_length=77)


def _byte_letters() -> dict[int, str]:
    """Every byte as a printable letter, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}
