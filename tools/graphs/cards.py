"""How the graphs of workflows/ look in the template browser: their titles, in its order, and what their pictures show.

The page takes a title from the file's name, shows its first 30 letters or so in bold, and finds what a search asks for
among the first 30 alone: so IP-Adapter and the subject come first. A name has to be one on Windows too.
"""

from __future__ import annotations

from dataclasses import dataclass

FREE = "nothing to download"
SD15, SDXL = "SD1.5: models to download", "SDXL: models to download"
RESULT = "Save Image"


@dataclass(frozen=True)
class Cell:
    """A picture on a card: the title of the node that shows it, its number there, and a word on it."""

    node: str
    number: int = 0
    label: str = ""


@dataclass(frozen=True)
class Card:
    """title: the file's name. foot: a line along the lower edge. cells: one picture or four that fill the card. insets:
    nodes of references, shown small on top. Without cells the card shows the example pictures that the graph is given:
    what it makes of them can only be seen with its models.
    """

    title: str
    foot: str
    cells: tuple[Cell, ...] = ()
    insets: tuple[str, ...] = ()


def each(*labels: str) -> tuple[Cell, ...]:
    """Two pictures of each of two nodes, in a row."""
    return tuple(Cell(label, number, label.lower() if number == 0 else "") for label in labels for number in (0, 1))


ONE = (Cell(RESULT),)
OF_REFERENCE = ("Reference",)
CARDS = {
    "pocket_image_prompt": Card(
        f"01 IP-Adapter - try it now (a picture as the prompt, {FREE})", FREE, ONE, OF_REFERENCE
    ),
    "pocket_image_and_text": Card(f"02 IP-Adapter with text ({FREE})", FREE, ONE, OF_REFERENCE),
    "pocket_weights": Card(
        f"03 IP-Adapter weights (from the text to the picture, {FREE})", FREE,
        tuple(Cell(f"Weight {weight}", 0, f"weight {weight}") for weight in ("0", "0.2", "0.6", "1.2")), OF_REFERENCE,
    ),
    "pocket_fine_grained": Card(
        f"04 IP-Adapter base and plus (global and fine-grained, {FREE})", FREE, each("Global", "Fine-grained"),
        OF_REFERENCE,
    ),
    "pocket_two_references": Card(
        f"05 IP-Adapter with two pictures (each in its own half, {FREE})", FREE, ONE,
        ("Upper reference", "Lower reference"),
    ),
    "pocket_regions": Card(
        f"06 IP-Adapter in regions (three pictures, texts of their own, {FREE})", FREE, ONE,
        tuple(f"Picture, {place}" for place in ("upper half", "lower left", "background")),
    ),
    "pocket_controlnet": Card(
        f"07 IP-Adapter with ControlNet ({FREE})", FREE, ONE, ("Structure", "Reference")
    ),
    "pocket_other_look": Card(f"08 IP-Adapter with a LoRA (another look, {FREE})", FREE, ONE, OF_REFERENCE),
    "pocket_negative": Card(
        f"09 IP-Adapter negative picture (what to move away from, {FREE})", FREE, each("Both", "With the negative"),
        ("Reference", "What to avoid"),
    ),
    "pocket_layers": Card(
        f"10 IP-Adapter layers (colours alone, pattern alone, {FREE})", FREE,
        tuple(Cell(one, 0, one.lower()) for one in ("Reference", "All layers", "Colours", "Pattern")),
    ),
    "pocket_curve": Card(
        f"11 IP-Adapter curve (early or late in the sampling, {FREE})", FREE, each("Falling", "Rising"), OF_REFERENCE
    ),
    "pocket_frames": Card(
        f"12 IP-Adapter over frames (a weight for each, {FREE})", FREE,
        tuple(Cell(RESULT, number, f"frame {number}") for number in (0, 2, 4, 7)), OF_REFERENCE,
    ),
    "pocket_attention_map": Card(
        f"13 IP-Adapter attention map (where the picture acts, {FREE})", FREE,
        (Cell(RESULT, 0), Cell("Image Attention Map", 0, "map"), Cell(RESULT, 1), Cell("Image Attention Map", 1)),
        OF_REFERENCE,
    ),
    "image_prompt": Card("21 IP-Adapter SD1.5 (a picture as the prompt)", SD15),
    "image_and_text": Card("22 IP-Adapter SD1.5 plus and text (a subject in a new place)", SD15),
    "controlnet": Card("23 IP-Adapter SD1.5 ControlNet (structure of one picture, style of another)", SD15),
    "t2i_adapter": Card("24 IP-Adapter SD1.5 T2I-Adapter (structure of one picture, style of another)", SD15),
    "two_references": Card("25 IP-Adapter SD1.5 two pictures (each in its own half)", SD15),
    "inpaint": Card("26 IP-Adapter SD1.5 inpainting (fill a part with another picture)", SD15),
    "image_to_image": Card("27 IP-Adapter SD1.5 image to image (change a picture towards another)", SD15),
    "sdxl": Card("28 IP-Adapter SDXL (a picture as the prompt)", SDXL),
    "plus_face": Card("31 IP-Adapter face (plus-face, SD1.5)", SD15),
    "face_id_plus": Card("32 IP-Adapter FaceID (a person in a new scene, SD1.5)", SD15),
    "two_faces": Card("33 IP-Adapter FaceID two people (SD1.5)", SD15),
}  # fmt: skip
