"""A graph of workflows/ in the making, as a table: nodes in columns, their values and links."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ENCODER = "clip_vision_h.safetensors"  # the image encoder of nearly all published adapters, CLIP ViT-H/14
NEGATIVE = "lowres, blurry, deformed, watermark"

# Pixels that a node needs for what it says or shows after a run.
TALL = {"ImagePromptApply": 490, "ImagePromptEncode": 310, "ImagePrompt": 790}

Link = tuple[int, str]  # a node's number and the name of its output
Texts = tuple[Link, Link]  # what is wanted, and what is not


@dataclass(frozen=True)
class Node:
    """A node: its values and links by input name; links are made by indexing a node."""

    number: int
    kind: str
    column: int
    title: str | None
    tall: int | None
    inputs: dict[str, Any]

    def __getitem__(self, output: str) -> Link:
        return self.number, output


@dataclass
class Graph:
    """A graph in the making."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, column: int, kind: str, title: str | None = None, tall: int | None = None, /, **inputs: Any) -> Node:
        """A node in a column, below those that are there; `tall` in pixels where its content does not say."""
        tall = tall or TALL.get(kind)
        self.nodes.append(Node(len(self.nodes) + 1, kind, column, title, tall, inputs))
        return self.nodes[-1]

    def note(self, text: str, tall: int = 130) -> None:
        self.add(0, "MarkdownNote", "About this workflow", tall, text=text)

    def picture(self, column: int, title: str, name: str) -> Node:
        """One of the pictures that come with this pack."""
        return self.add(column, "ImagePromptExamplePicture", title, 330, picture=name)

    def offer_encoder(self, column: int) -> None:
        """A loader that nothing needs: *auto* names no file, and the page offers those that a loader names alone."""
        self.add(column, "CLIPVisionLoader", "Image encoder, to download (auto finds it)", clip_name=ENCODER)

    def load_encoder(self, column: int, adapter: Node) -> Node:
        """The encoder that an adapter needs."""
        return self.add(column, "ImagePromptLoadEncoder", weights="auto", adapter=adapter["adapter"])

    def texts(self, column: int, clip: Link, positive: str) -> Texts:
        """What is wanted and what is not."""
        wanted = self.add(column, "CLIPTextEncode", "Text", 110, text=positive, clip=clip)
        avoided = self.add(column, "CLIPTextEncode", "Text to avoid", 110, text=NEGATIVE, clip=clip)
        return wanted["CONDITIONING"], avoided["CONDITIONING"]

    def empty(self, column: int, size: int = 512) -> Link:
        return self.add(column, "EmptyLatentImage", width=size, height=size)["LATENT"]

    def image_prompt(
        self,
        column: int,
        model: Link,
        picture: Link,
        adapter: str,
        title: str | None = None,
        **settings: Any,
    ) -> Link:
        links = {"model": model, "image": picture}
        return self.add(column, "ImagePrompt", title, **links, adapter=adapter, **settings)["MODEL"]

    def resized(self, column: int, picture: Node) -> Link:
        settings = {"upscale_method": "lanczos", "width": 512, "height": 512, "crop": "center"}
        return self.add(column, "ImageScale", "Resize", image=picture["IMAGE"], **settings)["IMAGE"]

    def half_mask(self, column: int, titles: tuple[str, str, str], size: tuple[int, int], at: tuple[int, int]) -> Link:
        """A white rectangle on black, in this column and the next."""
        black = self.add(column, "SolidMask", titles[0], value=0.0, width=512, height=512)
        white = self.add(column, "SolidMask", titles[1], value=1.0, width=size[0], height=size[1])
        links = {"destination": black["MASK"], "source": white["MASK"]}
        return self.add(column + 1, "MaskComposite", titles[2], **links, x=at[0], y=at[1], operation="add")["MASK"]

    def apply(
        self, column: int, model: Link, adapter: Node, prompt: Node, title: str | None = None, **settings: Any
    ) -> Link:
        links = {"model": model, "adapter": adapter["adapter"], "image_prompt": prompt["image prompt"]}
        return self.add(column, "ImagePromptApply", title, **links, **settings)["MODEL"]

    def decoded(self, column: int, vae: Link, model: Link, texts: Texts, latent: Link, **settings: Any) -> Link:
        """Sampler and decoder, in two columns: the pictures."""
        links = {"model": model, "positive": texts[0], "negative": texts[1], "latent_image": latent}
        sampler = self.add(column, "KSampler", **links, **settings)
        return self.add(column + 1, "VAEDecode", samples=sampler["LATENT"], vae=vae)["IMAGE"]

    def sample(
        self, column: int, name: str, vae: Link, model: Link, texts: Texts, latent: Link, denoise: float = 1.0
    ) -> None:
        """Sampler, decoder and what is saved, in three columns."""
        settings = {"seed": 42, "steps": 30, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
        images = self.decoded(column, vae, model, texts, latent, **settings, denoise=denoise)
        self.add(column + 2, "SaveImage", None, 400, images=images, filename_prefix=f"image_prompt/{name}")
