"""The graphs of workflows/ on published models. `tools.workflows` writes the files."""

from __future__ import annotations

from collections.abc import Mapping

from tools.graphs.graph import ENCODER, Graph

HUB = "https://huggingface.co/"
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "sd_xl_base_1.0.safetensors"
BASE = "ip-adapter_sd15.safetensors"
PLUS = "ip-adapter-plus_sd15.safetensors"
BASE_XL = "ip-adapter_sdxl_vit-h.safetensors"
CANNY = "control_v11p_sd15_canny_fp16.safetensors"
T2I_CANNY = "t2iadapter_canny_sd15v2.pth"
# Where published models are and where they belong, so that the page can offer those that are missing. It saves a file
# under the last part of its address, so that has to be the name that a graph asks for. The encoder's is ComfyUI's own
# copy: LAION trained other texts to the frozen ViT-H/14 of laion2b_s32b_b79k, the tower that adapters read.
MODELS = {
    SD15: ("checkpoints", f"Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}"),
    SDXL: ("checkpoints", f"stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{SDXL}"),
    ENCODER: ("clip_vision", f"Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/clip_vision/{ENCODER}"),
    BASE: ("ipadapter", f"h94/IP-Adapter/resolve/main/models/{BASE}"),
    PLUS: ("ipadapter", f"h94/IP-Adapter/resolve/main/models/{PLUS}"),
    BASE_XL: ("ipadapter", f"h94/IP-Adapter/resolve/main/sdxl_models/{BASE_XL}"),
    CANNY: ("controlnet", f"comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{CANNY}"),
    T2I_CANNY: ("controlnet", f"TencentARC/T2I-Adapter/resolve/main/models/{T2I_CANNY}"),
}


def by_hand(file: str, models: Mapping[str, tuple[str, str]]) -> str:
    """A link to a file of a kind that the page lists as missing, but does not download."""
    folder, path = models[file]
    return f"The page downloads safetensors alone: [{file}]({HUB}{path}) goes to `models/{folder}` by hand."


def image_prompt() -> Graph:
    graph = Graph()
    graph.note(
        "**A picture as the prompt.** *Image Prompt* makes the model follow the picture: content, style and colours. "
        "*weight* is how strongly it counts; the text may stay empty.\n\n"
        "Adapters go to `models/ipadapter`, the encoder to `models/clip_vision`, under any name: *auto* knows it by "
        "its content. For a picture of your own, put *Load Image* in place of *Reference*.",
        190,
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    graph.offer_encoder(0)
    reference = graph.picture(0, "Reference", "coffee")
    model = graph.image_prompt(1, checkpoint["MODEL"], reference["IMAGE"], BASE)
    texts = graph.texts(1, checkpoint["CLIP"], "")
    graph.sample(2, "image_prompt", checkpoint["VAE"], model, texts, graph.empty(1))
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
    reference = graph.picture(0, "Reference", "cat")
    encoder = graph.load_encoder(1, adapter)
    graph.offer_encoder(1)
    texts = graph.texts(1, checkpoint["CLIP"], "a cat in a snowy forest at night, best quality")
    latent = graph.empty(1)
    encoded = graph.add(2, "ImagePromptEncode", encoder=encoder["encoder"], image=reference["IMAGE"])
    graph.add(3, "PreviewImage", "Seen", 300, images=encoded["seen"])
    model = graph.apply(3, checkpoint["MODEL"], adapter, encoded, weight=0.6)
    graph.sample(4, "image_and_text", checkpoint["VAE"], model, texts, latent)
    return graph


def controlled(name: str, net: str, kind: str, pictured: str, text: str, note: str) -> Graph:
    """Structure from the edges of one picture, which shows `text`; content from another."""
    graph = Graph()
    graph.note(note, 170)
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    control = graph.add(0, "ControlNetLoader", f"Load {kind}", control_net_name=net)
    graph.offer_encoder(0)
    structure = graph.picture(0, "Structure", pictured)
    reference = graph.picture(1, "Reference", "painting")
    resized = graph.resized(1, structure)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference["IMAGE"], BASE)
    texts = graph.texts(2, checkpoint["CLIP"], f"{text}, best quality")
    edges = graph.add(2, "Canny", image=resized, low_threshold=0.2, high_threshold=0.6)
    links = {"positive": texts[0], "negative": texts[1], "control_net": control["CONTROL_NET"], "image": edges["IMAGE"]}
    applied = graph.add(3, "ControlNetApplyAdvanced", f"Apply {kind}", **links, strength=0.8)
    latent = graph.empty(3)
    graph.sample(4, name, checkpoint["VAE"], model, (applied["positive"], applied["negative"]), latent)
    return graph


def controlnet() -> Graph:
    note = (
        "**Structure from a ControlNet, content from a picture.** The edges of *Structure* say where things are, "
        "*Reference* what they look like.\n\n"
        "Lower *strength* for more freedom in the layout, lower *weight* for less of the reference."
    )
    return controlled("controlnet", CANNY, "ControlNet", "coffee", "a cup of coffee", note)


def t2i_adapter() -> Graph:
    note = (
        "**Structure from a T2I-Adapter, content from a picture.** As with a ControlNet, but the structure costs "
        "almost no time: a T2I-Adapter runs once, not in every step.\n\n" + by_hand(T2I_CANNY, MODELS)
    )
    return controlled("t2i_adapter", T2I_CANNY, "T2I-Adapter", "rocket", "a rocket on its launch pad", note)


def two_references() -> Graph:
    graph = Graph()
    graph.note(
        "**Two pictures, each in its own half.** Each *Apply IP-Adapter* has a mask that says where its reference "
        "counts; chain as many as you like.\n\n"
        "Nodes make the masks here; a mask drawn in *Load Image* works as well, of any size."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=PLUS)
    graph.offer_encoder(0)
    encoder = graph.load_encoder(1, adapter)
    shown = {"left": "cat", "right": "coffee"}
    pictures = {side: graph.picture(1, f"{side.capitalize()} reference", name) for side, name in shown.items()}
    left = graph.half_mask(0, ("Black, whole", "White, half", "Left half"), (256, 512), (0, 0))
    prompts = {
        side: graph.add(2, "ImagePromptEncode", f"Encode {side}", encoder=encoder["encoder"], image=picture["IMAGE"])
        for side, picture in pictures.items()
    }
    texts = graph.texts(2, checkpoint["CLIP"], "a cat beside a cup of coffee on a table, best quality")
    latent = graph.empty(2)
    masks = {"left": left, "right": graph.add(2, "InvertMask", "Right half", mask=left)["MASK"]}
    model = checkpoint["MODEL"]
    for side, encoded in prompts.items():
        model = graph.apply(3, model, adapter, encoded, f"Apply {side}", mask=masks[side], weight=0.8)
    graph.sample(4, "two_references", checkpoint["VAE"], model, texts, latent)
    return graph


def inpaint() -> Graph:
    graph = Graph()
    graph.note(
        "**Fill a part of a picture with what another one shows.** Only what the mask covers changes.\n\n"
        "The mask is a square here. To draw your own, put *Load Image* in place of *Picture to change*, right-click "
        "it, *Open in Mask Editor*, and connect its MASK to *Set Latent Noise Mask*.",
        150,
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    graph.offer_encoder(0)
    picture = graph.picture(0, "Picture to change", "coffee")
    reference = graph.picture(1, "Reference", "cat")
    mask = graph.half_mask(0, ("Keep", "Change", "What changes"), (256, 256), (128, 128))
    resized = graph.resized(1, picture)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference["IMAGE"], BASE)
    encoded = graph.add(2, "VAEEncode", pixels=resized, vae=checkpoint["VAE"])
    texts = graph.texts(3, checkpoint["CLIP"], "a cat on a saucer, best quality")
    latent = graph.add(3, "SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask)["LATENT"]
    graph.sample(4, "inpaint", checkpoint["VAE"], model, texts, latent, denoise=0.9)
    return graph


def image_to_image() -> Graph:
    graph = Graph()
    graph.note(
        "**Change a picture towards another one.** *denoise* says how much of *Picture to change* may go (0.5 to 0.8), "
        "*Reference* where it goes.\n\nThe same picture in both gives variations of it."
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    graph.offer_encoder(0)
    picture = graph.picture(0, "Picture to change", "rocket")
    reference = graph.picture(1, "Reference", "painting")
    resized = graph.resized(1, picture)
    model = graph.image_prompt(2, checkpoint["MODEL"], reference["IMAGE"], BASE)
    texts = graph.texts(2, checkpoint["CLIP"], "a rocket on its launch pad, best quality")
    latent = graph.add(2, "VAEEncode", pixels=resized, vae=checkpoint["VAE"])["LATENT"]
    graph.sample(3, "image_to_image", checkpoint["VAE"], model, texts, latent, denoise=0.65)
    return graph


def sdxl() -> Graph:
    graph = Graph()
    graph.note(
        "**SDXL.** The adapters named *vit-h* take the same encoder as those for SD1.5, the others ViT-bigG; *auto* "
        "knows which. ComfyUI's own *Load CLIP Vision* works in place of *Load Image Encoder*, too.\n\n"
        "*layers* can pass on only the style or only the composition of the picture.",
        150,
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=BASE_XL)
    reference = graph.picture(0, "Reference", "painting")
    encoder = graph.load_encoder(1, adapter)
    graph.offer_encoder(1)
    texts = graph.texts(1, checkpoint["CLIP"], "a lighthouse by the sea, best quality")
    latent = graph.empty(1, 1024)
    encoded = graph.add(2, "ImagePromptEncode", encoder=encoder["encoder"], image=reference["IMAGE"])
    model = graph.apply(3, checkpoint["MODEL"], adapter, encoded, weight=0.7)
    graph.sample(4, "sdxl", checkpoint["VAE"], model, texts, latent)
    return graph


GRAPHS = {
    make.__name__: make
    for make in (image_prompt, image_and_text, controlnet, two_references, inpaint, image_to_image, t2i_adapter, sdxl)
}
