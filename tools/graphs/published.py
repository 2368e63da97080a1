"""The graphs of workflows/, as tables: nodes in columns, their values and links. `tools.workflows` writes the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HUB = "https://huggingface.co/"
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "sd_xl_base_1.0.safetensors"
VIT_H = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
BASE = "ip-adapter_sd15.safetensors"
PLUS = "ip-adapter-plus_sd15.safetensors"
BASE_XL = "ip-adapter_sdxl_vit-h.safetensors"
CANNY = "control_v11p_sd15_canny_fp16.safetensors"
T2I_CANNY = "t2iadapter_canny_sd15v2.pth"
# Where published models are and where they belong, so that the page can offer those that are missing.
MODELS = {
    SD15: ("checkpoints", f"Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}"),
    SDXL: ("checkpoints", f"stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{SDXL}"),
    VIT_H: ("clip_vision", "h94/IP-Adapter/resolve/main/models/image_encoder/model.safetensors"),
    BASE: ("ipadapter", f"h94/IP-Adapter/resolve/main/models/{BASE}"),
    PLUS: ("ipadapter", f"h94/IP-Adapter/resolve/main/models/{PLUS}"),
    BASE_XL: ("ipadapter", f"h94/IP-Adapter/resolve/main/sdxl_models/{BASE_XL}"),
    CANNY: ("controlnet", f"comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{CANNY}"),
    T2I_CANNY: ("controlnet", f"TencentARC/T2I-Adapter/resolve/main/models/{T2I_CANNY}"),
}
PICTURE = "example.png"  # the one picture in every ComfyUI's input/
NEGATIVE = "lowres, blurry, deformed, watermark"


Link = tuple[int, str]  # a node's number and the name of its output


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
        self.nodes.append(Node(len(self.nodes) + 1, kind, column, title, tall, inputs))
        return self.nodes[-1]

    def note(self, text: str, tall: int = 130) -> None:
        self.add(0, "MarkdownNote", "About this workflow", tall, text=text)

    def picture(self, column: int, title: str) -> Node:
        return self.add(column, "LoadImage", title, 330, image=PICTURE)

    def texts(self, column: int, clip: Link, positive: str) -> tuple[Link, Link]:
        """What is wanted and what is not."""
        wanted = self.add(column, "CLIPTextEncode", "Text", 110, text=positive, clip=clip)
        avoided = self.add(column, "CLIPTextEncode", "Text to avoid", 110, text=NEGATIVE, clip=clip)
        return wanted["CONDITIONING"], avoided["CONDITIONING"]

    def empty(self, column: int, size: int = 512) -> Link:
        return self.add(column, "EmptyLatentImage", width=size, height=size)["LATENT"]

    def image_prompt(self, column: int, model: Link, picture: Node) -> Link:
        return self.add(column, "ImagePrompt", model=model, image=picture["IMAGE"], adapter=BASE, encoder=VIT_H)[
            "MODEL"
        ]

    def resized(self, column: int, picture: Node) -> Link:
        settings = {"upscale_method": "lanczos", "width": 512, "height": 512, "crop": "center"}
        return self.add(column, "ImageScale", "Resize", image=picture["IMAGE"], **settings)["IMAGE"]

    def half_mask(self, column: int, titles: tuple[str, str, str], size: tuple[int, int], at: tuple[int, int]) -> Link:
        """A white rectangle on black, in this column and the next."""
        black = self.add(column, "SolidMask", titles[0], value=0.0, width=512, height=512)
        white = self.add(column, "SolidMask", titles[1], value=1.0, width=size[0], height=size[1])
        links = {"destination": black["MASK"], "source": white["MASK"]}
        return self.add(column + 1, "MaskComposite", titles[2], **links, x=at[0], y=at[1], operation="add")["MASK"]

    def sample(self, column: int, name: str, vae: Link, denoise: float = 1.0, **links: Link) -> None:
        """Sampler, decoder and what is saved, in three columns."""
        settings = {"seed": 42, "steps": 30, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
        sampler = self.add(column, "KSampler", **links, **settings, denoise=denoise)
        decoded = self.add(column + 1, "VAEDecode", samples=sampler["LATENT"], vae=vae)
        self.add(column + 2, "SaveImage", None, 400, images=decoded["IMAGE"], filename_prefix=f"image_prompt/{name}")


def image_prompt() -> Graph:
    graph = Graph()
    graph.note(
        "**A picture as the prompt.** *Image Prompt* makes the model follow the picture: content, style and colours. "
        "*weight* is how strongly it counts; the text may stay empty.\n\n"
        "Adapters go to `models/ipadapter`, the encoder to `models/clip_vision`."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    reference = graph.picture(0, "Reference")
    model = graph.image_prompt(1, checkpoint["MODEL"], reference)
    positive, negative = graph.texts(1, checkpoint["CLIP"], "")
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": graph.empty(1)}
    graph.sample(2, "image_prompt", checkpoint["VAE"], **links)
    return graph


def image_and_text() -> Graph:
    graph = Graph()
    graph.note(
        "**Picture and text together.** The text says what is to change; a weight of 0.5 to 0.7 leaves room for it. "
        "The *plus* adapter keeps more detail of the picture than the base one.\n\n"
        "*seen* is exactly what the encoder sees: choose another *crop* when something important is cut off."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=PLUS)
    encoder = graph.add(0, "ImagePromptLoadEncoder", weights=VIT_H)
    reference = graph.picture(0, "Reference")
    encoded = graph.add(1, "ImagePromptEncode", encoder=encoder["encoder"], image=reference["IMAGE"])
    positive, negative = graph.texts(1, checkpoint["CLIP"], "in a snowy forest at night, best quality")
    latent = graph.empty(1)
    links = {"model": checkpoint["MODEL"], "adapter": adapter["adapter"], "image_prompt": encoded["image prompt"]}
    model = graph.add(2, "ImagePromptApply", **links, weight=0.6)["MODEL"]
    graph.add(2, "PreviewImage", "Seen", 300, images=encoded["seen"])
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    graph.sample(3, "image_and_text", checkpoint["VAE"], **links)
    return graph


def controlled(name: str, net: str, kind: str, note: str) -> Graph:
    """Structure from the edges of one picture, content from another."""
    graph = Graph()
    graph.note(note)
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    control = graph.add(0, "ControlNetLoader", f"Load {kind}", control_net_name=net)
    structure = graph.picture(0, "Structure")
    reference = graph.picture(1, "Reference")
    resized = graph.resized(1, structure)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference)
    positive, negative = graph.texts(2, checkpoint["CLIP"], "best quality")
    edges = graph.add(2, "Canny", image=resized, low_threshold=0.2, high_threshold=0.6)
    links = {"positive": positive, "negative": negative, "control_net": control["CONTROL_NET"], "image": edges["IMAGE"]}
    applied = graph.add(3, "ControlNetApplyAdvanced", f"Apply {kind}", **links, strength=0.8)
    latent = graph.empty(3)
    links = {"positive": applied["positive"], "negative": applied["negative"], "latent_image": latent}
    graph.sample(4, name, checkpoint["VAE"], model=model, **links)
    return graph


def controlnet() -> Graph:
    note = (
        "**Structure from a ControlNet, content from a picture.** The edges of *Structure* say where things are, "
        "*Reference* what they look like.\n\n"
        "Lower *strength* for more freedom in the layout, lower *weight* for less of the reference."
    )
    return controlled("controlnet", CANNY, "ControlNet", note)


def t2i_adapter() -> Graph:
    note = (
        "**Structure from a T2I-Adapter, content from a picture.** As with a ControlNet, but the structure costs "
        "almost no time: a T2I-Adapter runs once, not in every step.\n\n*Reference* says what things look like."
    )
    return controlled("t2i_adapter", T2I_CANNY, "T2I-Adapter", note)


def two_references() -> Graph:
    graph = Graph()
    graph.note(
        "**Two pictures, each in its own half.** Each *Apply IP-Adapter* has a mask that says where its reference "
        "counts; chain as many as you like.\n\n"
        "Nodes make the masks here; a mask drawn in *Load Image* works as well, of any size."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=PLUS)
    encoder = graph.add(0, "ImagePromptLoadEncoder", weights=VIT_H)
    pictures = {"left": graph.picture(1, "Left reference"), "right": graph.picture(1, "Right reference")}
    left = graph.half_mask(0, ("Black, whole", "White, half", "Left half"), (256, 512), (0, 0))
    prompts = {
        side: graph.add(2, "ImagePromptEncode", f"Encode {side}", encoder=encoder["encoder"], image=picture["IMAGE"])
        for side, picture in pictures.items()
    }
    positive, negative = graph.texts(2, checkpoint["CLIP"], "best quality")
    latent = graph.empty(2)
    masks = {"left": left, "right": graph.add(2, "InvertMask", "Right half", mask=left)["MASK"]}
    model = checkpoint["MODEL"]
    for side, encoded in prompts.items():
        links = {"model": model, "adapter": adapter["adapter"], "image_prompt": encoded["image prompt"]}
        model = graph.add(3, "ImagePromptApply", f"Apply {side}", **links, mask=masks[side], weight=0.8)["MODEL"]
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    graph.sample(4, "two_references", checkpoint["VAE"], **links)
    return graph


def inpaint() -> Graph:
    graph = Graph()
    graph.note(
        "**Fill a part of a picture with what another one shows.** Only what the mask covers changes.\n\n"
        "The mask is a square here: to draw your own, right-click *Picture to change*, *Open in Mask Editor*, and "
        "connect its MASK to *Set Latent Noise Mask*."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    picture = graph.picture(0, "Picture to change")
    reference = graph.picture(1, "Reference")
    mask = graph.half_mask(0, ("Keep", "Change", "What changes"), (256, 256), (128, 128))
    resized = graph.resized(1, picture)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference)
    encoded = graph.add(2, "VAEEncode", pixels=resized, vae=checkpoint["VAE"])
    positive, negative = graph.texts(3, checkpoint["CLIP"], "best quality")
    latent = graph.add(3, "SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask)["LATENT"]
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    graph.sample(4, "inpaint", checkpoint["VAE"], denoise=0.9, **links)
    return graph


def image_to_image() -> Graph:
    graph = Graph()
    graph.note(
        "**Change a picture towards another one.** *denoise* says how much of *Picture to change* may go (0.5 to 0.8), "
        "*Reference* where it goes.\n\nThe same picture in both gives variations of it."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    picture = graph.picture(0, "Picture to change")
    reference = graph.picture(1, "Reference")
    resized = graph.resized(1, picture)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference)
    positive, negative = graph.texts(2, checkpoint["CLIP"], "best quality")
    latent = graph.add(2, "VAEEncode", pixels=resized, vae=checkpoint["VAE"])["LATENT"]
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    graph.sample(3, "image_to_image", checkpoint["VAE"], denoise=0.65, **links)
    return graph


def sdxl() -> Graph:
    graph = Graph()
    graph.note(
        "**SDXL.** The adapters named *vit-h* take the same encoder as those for SD1.5, the others ViT-bigG. ComfyUI's "
        "own *Load CLIP Vision*, as here, works in place of *Load Image Encoder*.\n\n"
        "*layers* can pass on only the style or only the composition of the picture."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=BASE_XL)
    encoder = graph.add(0, "CLIPVisionLoader", clip_name=VIT_H)
    reference = graph.picture(0, "Reference")
    encoded = graph.add(1, "ImagePromptEncode", encoder=encoder["CLIP_VISION"], image=reference["IMAGE"])
    positive, negative = graph.texts(1, checkpoint["CLIP"], "best quality")
    latent = graph.empty(1, 1024)
    links = {"model": checkpoint["MODEL"], "adapter": adapter["adapter"], "image_prompt": encoded["image prompt"]}
    model = graph.add(2, "ImagePromptApply", **links, weight=0.7)["MODEL"]
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    graph.sample(3, "sdxl", checkpoint["VAE"], **links)
    return graph


GRAPHS = {
    make.__name__: make
    for make in (image_prompt, image_and_text, controlnet, two_references, inpaint, image_to_image, t2i_adapter, sdxl)
}
