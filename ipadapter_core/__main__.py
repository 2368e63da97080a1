"""What an adapter file is, and conversion between the layouts that adapters are published in.

    python -m ipadapter_core FILE [FILE ...]       family, base, encoder, tokens, licence, and what it needs
    python -m ipadapter_core convert IN OUT        the same weights, bit for bit, as .safetensors or .bin

A folder stands for the only adapter in it, as diffusers keeps them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .facts.bases import base_name
from .facts.detect import detect
from .facts.encoders import encoder_name, encoder_of
from .facts.lora import lora_of
from .facts.variants import AUTO, VARIANTS, resolve_variant
from .files.build import build_adapter, extra_keys
from .files.describe import family, licence, needs
from .files.read import WeightsFile, find_adapter, read_adapter, read_weights
from .files.scaled import multiplied_out
from .files.write import write_pickle, write_safetensors

TEXT_PROJECTION = "encoder_hid_proj."


def describe_file(path: Path, file: WeightsFile, variant: str = AUTO) -> str:
    """A file's facts, one a line. Raises ValueError when it is not an adapter, or lacks weights."""
    spec = resolve_variant(detect(file.tensors), file.metadata, variant)
    build_adapter(file.tensors, spec=spec)
    encoder = encoder_of(spec)
    lora = lora_of(file.tensors)
    kinds = Counter(str(value.dtype).removeprefix("torch.") for value in file.tensors.values())
    size = sum(value.numel() * value.element_size() for value in file.tensors.values())
    facts = {
        "file": f"{path} ({size / 2**20:.1f} MiB, {', '.join(kinds)})",
        "family": family(spec, file.metadata),
        "base": f"{base_name(spec)}, {len(spec.layers)} layers",
        "encoder": f"{encoder.name}: {encoder.files}" if encoder else encoder_name(spec),
        "image tokens": f"{spec.num_tokens}{' for each face' if spec.identity else ''}",
        "needs": "; ".join(needs(spec)),
        "LoRA": f"{len(lora)} matrices of rank {next(iter(lora.values()))[0].shape[1]}" if lora else "",
        "licence": licence(spec, file.metadata),
        "metadata": ", ".join(f"{key}={value}" for key, value in sorted(file.metadata.items()) if value),
        "left out": ", ".join(extra_keys(file.tensors, spec)),
    }
    return "\n".join(f"{name + ':':14}{value}" for name, value in facts.items() if value)


def convert(source: Path, target: Path, text_projection: Path | None = None) -> str:
    """Write an adapter in the layout that the target's ending names; returns a line about what was written.

    text_projection: a Kolors UNet whose projection of text is added, for adapters whose tokens go through it.
    Raises ValueError when the source is not an adapter, the target has another ending or is the source.
    """
    if target.suffix not in (".safetensors", ".bin"):
        raise ValueError(f"{target} should end with .safetensors or .bin, which names the layout")
    source = find_adapter(source)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file that is converted: give another name")
    file = read_adapter(source)
    tensors = dict(file.tensors)
    if text_projection is not None:
        base = read_weights(text_projection)
        found = {key: value for key, value in base.tensors.items() if TEXT_PROJECTION in key}
        found = multiplied_out(found, base.metadata)
        added = {TEXT_PROJECTION + key.split(TEXT_PROJECTION)[1]: value for key, value in found.items()}
        if added.keys() != {f"{TEXT_PROJECTION}weight", f"{TEXT_PROJECTION}bias"}:
            raise ValueError(f"{text_projection} has no {TEXT_PROJECTION}weight and .bias: choose Kolors' UNet")
        tensors |= added
    build_adapter(tensors)
    if target.suffix == ".bin":
        write_pickle(target, tensors)
    else:
        write_safetensors(target, tensors, file.metadata)
    lost = (
        " (its metadata are left out: a pickle has no place for them)"
        if target.suffix == ".bin" and file.metadata
        else ""
    )
    same = "their 8 bit scales multiplied in (fp32)" if file.is_changed else "bit for bit"
    return f"{target}: {len(tensors)} weights of {source.name}, {same}{lost}"


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    is_conversion = arguments[:1] == ["convert"]
    parser = argparse.ArgumentParser(
        "python -m ipadapter_core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if is_conversion:
        parser.add_argument("command", choices=["convert"])
        parser.add_argument("source", type=Path, metavar="IN")
        parser.add_argument("target", type=Path, metavar="OUT", help="a name that ends with .safetensors or .bin")
        parser.add_argument("--text-projection", type=Path, metavar="UNET", help="Kolors' UNet, to add its projection")
    else:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--variant", choices=VARIANTS, default=AUTO, help="what the file cannot tell")
    options = parser.parse_args(arguments)
    if is_conversion:
        return _say(partial(convert, options.source, options.target, options.text_projection), options.source)
    codes = []
    for position, path in enumerate(options.files):
        if position:
            print()
        codes.append(_say(partial(_described, path, options.variant), path))
    return max(codes)


def _described(path: Path, variant: str) -> str:
    path = find_adapter(path)
    return describe_file(path, read_adapter(path), variant)


def _say(run: Callable[[], str], path: Path) -> int:
    """Print what `run` returns, or its one sentence of refusal; returns the exit status."""
    try:
        print(run())
    except (ValueError, OSError) as error:
        words = str(error)
        print(words if path.name in words else f"{path.name}: {words}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
