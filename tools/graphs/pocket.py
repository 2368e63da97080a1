"""The graphs of workflows/ on the small model that comes with this pack: what the paper claims."""

from __future__ import annotations

from typing import Any

from ipadapter_core.facts.presets import MIDDLE_OFF
from pocket.world.settings import GUIDANCE, HALF_WEIGHT, SILHOUETTE_WEIGHT, TEXT_WEIGHT
from tools.graphs.graph import Graph, Link, Node, Texts

ADAPTER, PLUS = "pocket.safetensors", "pocket_plus.safetensors"
BESIDE = {"adapter": PLUS, "layers": MIDDLE_OFF}  # a picture beside text or a silhouette
SIDE = 64
SWEEP = (0.0, 0.2, 0.6, 1.2)
SAMPLING = {
    "seed": 42, "steps": 20, "cfg": GUIDANCE, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0,
}  # fmt: skip
LARGER = {"upscale_method": "lanczos", "scale_by": 4.0}
TRY = "Nothing to download: *Load Pocket Model* comes with this pack. "


class PocketGraph(Graph):
    """A graph in the making, with pocket's own parts."""

    def load(self, **settings: str) -> Node:
        return self.add(0, "ImagePromptLoadPocket", **settings)

    def drawn(self, column: int, title: str, *attributes: str, seed: int = 0) -> Node:
        """A picture by its shape, colour, background, pattern and size."""
        names = ("shape", "colour", "background", "pattern", "size")
        scene = dict(zip(names, attributes, strict=True))
        return self.add(column, "ImagePromptPocketPicture", title, 430, **scene, seed=seed)

    def prompted(
        self, column: int, model: Link, picture: Node, title: str | None = None, adapter: str = ADAPTER, **settings: Any
    ) -> Link:
        return self.image_prompt(column, model, picture["picture"], adapter, title, **settings)

    def said(self, column: int, clip: Link, words: str) -> Texts:
        """What is wanted, and the empty text."""
        wanted = self.add(column, "CLIPTextEncode", "Text", 110, text=words, clip=clip)
        nothing = self.add(column, "CLIPTextEncode", "No text", 110, text="", clip=clip)
        return wanted["CONDITIONING"], nothing["CONDITIONING"]

    def latents(self, column: int, count: int = 4) -> Link:
        return self.add(column, "EmptyLatentImage", width=SIDE, height=SIDE, batch_size=count)["LATENT"]

    def result(
        self,
        column: int,
        name: str,
        vae: Link,
        model: Link,
        texts: Texts,
        latent: Link,
        title: str | None = None,
        tall: int = 400,
    ) -> None:
        """Sampler, decoder and what is saved, in three columns; enlarged, since the page shows pictures as they are."""
        images = self.decoded(column, vae, model, texts, latent, **SAMPLING)
        enlarged = self.add(column + 1, "ImageScaleBy", "Enlarge", image=images, **LARGER)["IMAGE"]
        self.add(column + 2, "SaveImage", title, tall, images=enlarged, filename_prefix=f"image_prompt/{name}")


def pocket_image_prompt() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**A picture as the prompt, on a model that comes with this pack.** {TRY}\n\n"
        "The text is empty: shape, colours, pattern and size can only come from *Reference*. No training ever saw a "
        "purple moon on stripes. Change the picture, or set *weight* to 0 to see what the model draws by itself.",
        190,
    )
    pocket = graph.load()
    reference = graph.drawn(0, "Reference", "moon", "purple", "mint", "stripes", "big")
    model = graph.prompted(1, pocket["MODEL"], reference)
    texts = graph.said(1, pocket["CLIP"], "")
    graph.result(2, "pocket_image_prompt", pocket["VAE"], model, texts, graph.latents(1))
    return graph


def pocket_image_and_text() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Picture and text together.** {TRY}\n\n"
        "The text names a heart, the picture shows a star: the shape follows the text; colours, pattern and size the "
        f"picture. A weight of {TEXT_WEIGHT:g} leaves room for both; so does *middle off*, since the middle layer "
        "carries mostly shape.",
        170,
    )
    pocket = graph.load()
    reference = graph.drawn(0, "Reference", "star", "yellow", "sky", "stripes", "big")
    model = graph.prompted(1, pocket["MODEL"], reference, weight=TEXT_WEIGHT, **BESIDE)
    texts = graph.said(1, pocket["CLIP"], "a heart")
    graph.result(2, "pocket_image_and_text", pocket["VAE"], model, texts, graph.latents(1))
    return graph


def pocket_weights() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**From the text to the picture.** {TRY}\n\n"
        "The text says *a ring*, the reference is a blue square on checks. At weight 0 only the text counts; the "
        "higher the weight, the more of the picture comes through. All four start from the same noise.",
        170,
    )
    pocket = graph.load()
    adapter = graph.add(0, "ImagePromptLoadAdapter", None, 150, file=ADAPTER)  # it tells what it has loaded
    encoder = graph.load_encoder(1, adapter)
    reference = graph.drawn(0, "Reference", "square", "blue", "orange", "checks", "big")
    encoded = graph.add(2, "ImagePromptEncode", encoder=encoder["encoder"], image=reference["picture"])
    texts = graph.said(1, pocket["CLIP"], "a ring")
    latent = graph.latents(1, 1)
    for weight in SWEEP:
        title = f"Weight {weight:g}"
        model = graph.apply(3, pocket["MODEL"], adapter, encoded, f"Apply, {title.lower()}", weight=weight)
        graph.result(4, f"pocket_weight_{weight:g}", pocket["VAE"], model, texts, latent, title, 262)
    return graph


def pocket_fine_grained() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Global and fine-grained.** {TRY}\n\n"
        "*pocket* sees one embedding of the picture, as the paper's base adapter does; *pocket_plus* looks at its "
        "patches, as the paper's fine-grained one does. Compare where the shape is: this reference is off the middle.",
        170,
    )
    pocket = graph.load()
    reference = graph.drawn(0, "Reference", "triangle", "purple", "orange", "dots", "small", seed=OFF_CENTRE)
    texts = graph.said(1, pocket["CLIP"], "")
    latent = graph.latents(1)
    for kind, adapter in (("global", ADAPTER), ("fine-grained", PLUS)):
        title = kind.capitalize()
        model = graph.prompted(2, pocket["MODEL"], reference, f"Image Prompt, {kind}", adapter=adapter)
        graph.result(3, f"pocket_{kind.replace('-', '_')}", pocket["VAE"], model, texts, latent, title)
    return graph


def pocket_two_references() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Two pictures, each in its own half.** {TRY}\n\n"
        "Each *Image Prompt* has a mask that says where its reference counts. A weight above 1 parts the two more "
        "clearly.",
        130,
    )
    pocket = graph.load()
    black = graph.add(0, "SolidMask", "Black, whole", value=0.0, width=SIDE, height=SIDE)
    white = graph.add(0, "SolidMask", "White, half", value=1.0, width=SIDE, height=SIDE // 2)
    references = {
        "upper": graph.drawn(1, "Upper reference", "circle", "red", "sky", "plain", "big"),
        "lower": graph.drawn(1, "Lower reference", "circle", "yellow", "mint", "dots", "big"),
    }
    links = {"destination": black["MASK"], "source": white["MASK"]}
    upper = graph.add(1, "MaskComposite", "Upper half", **links, x=0, y=0, operation="add")["MASK"]
    masks = {"upper": upper, "lower": graph.add(1, "InvertMask", "Lower half", mask=upper)["MASK"]}
    model = pocket["MODEL"]
    for side, reference in references.items():
        model = graph.prompted(
            3, model, reference, f"{side.capitalize()} half", adapter=PLUS, weight=HALF_WEIGHT, mask=masks[side]
        )
    texts = graph.said(2, pocket["CLIP"], "")
    graph.result(4, "pocket_two_references", pocket["VAE"], model, texts, graph.latents(2))
    return graph


def pocket_controlnet() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Structure from a ControlNet, the rest from a picture.** {TRY}\n\n"
        "The silhouette says which shape, where and how large; *Reference* gives colours and pattern. The negative "
        "goes past the ControlNet, so that *cfg* strengthens the silhouette as it does the picture.",
        170,
    )
    pocket = graph.load()
    structure = graph.drawn(0, "Structure", "heart", "black", "white", "plain", "big", seed=3)
    reference = graph.drawn(0, "Reference", "ring", "blue", "orange", "stripes", "big")
    model = graph.prompted(2, pocket["MODEL"], reference, weight=SILHOUETTE_WEIGHT, **BESIDE)
    texts = graph.said(1, pocket["CLIP"], "")
    links = {"control_net": pocket["CONTROL_NET"], "image": structure["silhouette"]}
    applied = graph.add(2, "ControlNetApplyAdvanced", positive=texts[0], negative=texts[1], **links)
    graph.result(3, "pocket_controlnet", pocket["VAE"], model, (applied["positive"], texts[1]), graph.latents(2))
    return graph


def pocket_other_look() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Another look, the same adapter.** {TRY}\n\n"
        "*look* loads a fine-tune of pocket on stickers: a white rim and a dark line. The adapter was never trained on "
        "it, and what the picture shows comes through all the same.",
        150,
    )
    pocket = graph.load(look="sticker")
    reference = graph.drawn(0, "Reference", "cross", "green", "pink", "dots", "big")
    model = graph.prompted(1, pocket["MODEL"], reference)
    texts = graph.said(1, pocket["CLIP"], "")
    graph.result(2, "pocket_other_look", pocket["VAE"], model, texts, graph.latents(1))
    return graph


def pocket_attention_map() -> Graph:
    graph = PocketGraph()
    graph.note(
        f"**Where the picture acts, and where the text.** {TRY}\n\n"
        "*Record Attention* keeps what the layers attended to, *Image Attention Map* shows it: bright where the "
        "reference has the larger share. The text names a star, and takes it: the reference keeps the ground. Write "
        "*up* or *3* into *layers*, or choose a part of the sampling.",
        190,
    )
    pocket = graph.load()
    reference = graph.drawn(0, "Reference", "heart", "blue", "pink", "dots", "small")
    model = graph.prompted(1, pocket["MODEL"], reference, weight=TEXT_WEIGHT, **BESIDE)
    recorded = graph.add(1, "ImagePromptRecord", model=model)
    texts = graph.said(1, pocket["CLIP"], "a star")
    latent = graph.latents(1, 2)
    links = {"model": recorded["MODEL"], "positive": texts[0], "negative": texts[1], "latent_image": latent}
    sampler = graph.add(2, "KSampler", **links, **SAMPLING)
    images = graph.add(2, "VAEDecode", samples=sampler["LATENT"], vae=pocket["VAE"])["IMAGE"]
    enlarged = graph.add(2, "ImageScaleBy", "Enlarge", image=images, **LARGER)["IMAGE"]
    graph.add(3, "SaveImage", None, 300, images=enlarged, filename_prefix="image_prompt/pocket_attention_map")
    shown = {"record": recorded["record"], "latent": sampler["LATENT"], "picture": enlarged}
    graph.add(3, "ImagePromptAttentionMap", "Image Attention Map", 440, **shown)
    return graph


OFF_CENTRE = 27  # a seed that draws the shape well off the middle: up and to the right

POCKET_GRAPHS = {
    make.__name__: make
    for make in (
        pocket_image_prompt, pocket_image_and_text, pocket_weights, pocket_fine_grained, pocket_two_references,
        pocket_controlnet, pocket_other_look, pocket_attention_map,
    )
}  # fmt: skip
