"""The base models that adapters are made for: one row each. Sentences, defaults, presets and the trainer ask it.

A model whose numbers no row has still runs; it is then named by its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..method.spec import AdapterSpec, FaceCrop

# What the attention modules carry, by their place in forward order: style, and composition with a share of the weight.
SD_STYLE = (0, 1, 2, 3, *range(9, 16))
SD_COMPOSITION = {4: 0.25, 5: 1.0}
SDXL_STYLE = (6,)
SDXL_COMPOSITION = {3: 1.0}


@dataclass(frozen=True)
class Base:
    """What is known of a base.

    name: for people, in metadata and in specs. layout: of its cross-attention; bases of one layout have the same sites.
    num_sites: its cross-attention layers. num_modules: the attention modules that they are in.
    context_dim: width of the text states that cross-attention reads. text_dim: of those that the text encoder gives,
    where the base projects them first. vector_dim: of pooled text and sizes together, where the UNet reads them.
    resolution: pixels of its training. face_crop: the face's picture that FaceID plus reads.
    resampler_width: W of the published fine-grained adapters.
    style: the attention modules, in forward order, that carry style. composition: those that carry composition, with
    their shares of the weight.
    """

    name: str
    layout: str
    num_sites: int
    num_modules: int
    context_dim: int
    resolution: int
    face_crop: FaceCrop
    resampler_width: int
    style: tuple[int, ...]
    composition: Mapping[int, float]
    text_dim: int | None = None
    vector_dim: int | None = None


SD15 = Base("SD1.5", "SD", 16, 16, 768, 512, FaceCrop("aligned", 224), 768, SD_STYLE, SD_COMPOSITION)
SD2 = Base("SD2", "SD", 16, 16, 1024, 512, FaceCrop("aligned", 224), 1024, SD_STYLE, SD_COMPOSITION)
SDXL = Base(
    "SDXL", "SDXL", 70, 11, 2048, 1024, FaceCrop("aligned", 256), 1280, SDXL_STYLE, SDXL_COMPOSITION, vector_dim=2816
)
KOLORS = Base(
    "Kolors",
    "SDXL",
    70,
    11,
    2048,
    1024,
    FaceCrop("box", 336),
    2048,
    SDXL_STYLE,
    SDXL_COMPOSITION,
    text_dim=4096,
    vector_dim=5632,
)
BASES = (SD15, SD2, SDXL, KOLORS)
NAMES = ", ".join(base.name for base in BASES)
# UNets that people load and no adapter was published for, by width of the text and number of cross-attention layers.
WITHOUT_ADAPTERS = {
    (1280, 44): "the SDXL refiner",
    (2048, 34): "SSD-1B",
    (2048, 15): "Segmind Vega",
    (2048, 21): "KOALA-700M",
    (2048, 30): "KOALA-1B",
}


def find_base(context_dim: int, num_sites: int | None = None, vector_dim: int | None = None) -> Base | None:
    """The first base with these numbers, or None. num_sites, vector_dim: None where they are not known."""
    return next(
        (
            base
            for base in BASES
            if base.context_dim == context_dim
            and num_sites in (None, base.num_sites)
            and vector_dim in (None, base.vector_dim)
        ),
        None,
    )


def base_of(spec: AdapterSpec) -> Base | None:
    """The base of an adapter; None where its numbers are nobody's."""
    named = next((base for base in BASES if base.name == spec.base), None)
    return named or find_base(spec.context_dim, len(spec.layers))


def base_name(spec: AdapterSpec) -> str:
    """The base of an adapter, for people: its name, or its numbers."""
    base = base_of(spec)
    return base.name if base else numbers_of(spec.context_dim, len(spec.layers))


def numbers_of(context_dim: int, num_sites: int) -> str:
    """A base that no row has, in words."""
    return f"a model with {num_sites} cross-attention layers and {context_dim}-wide text"
