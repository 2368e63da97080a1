"""The graphs of workflows/ with faces in them, as tables like those of `tools.graphs.published`."""

from __future__ import annotations

from tools.graphs.graph import Graph, Link, Node
from tools.graphs.published import SD15, by_hand

PLUS_FACE = "ip-adapter-plus-face_sd15.safetensors"
FACE_ID_PLUS = "ip-adapter-faceid-plusv2_sd15.bin"
FACE_MODEL = "buffalo_l"
# As in `tools.graphs.published`. insightface's own models are not among them: they come as a zip, which the page
# cannot unpack.
FACE_MODELS = {
    PLUS_FACE: ("ipadapter", f"h94/IP-Adapter/resolve/main/models/{PLUS_FACE}"),
    FACE_ID_PLUS: ("ipadapter", f"h94/IP-Adapter-FaceID/resolve/main/{FACE_ID_PLUS}"),
}
NEEDS = (
    "Needs `insightface` in ComfyUI's environment and its face model *buffalo_l* in `models/insightface/models`. "
    "The face models and FaceID adapters are for non-commercial research only. "
)
NEEDS_FACE_ID = NEEDS + by_hand(FACE_ID_PLUS, FACE_MODELS)


def faces(graph: Graph, column: int, title: str, encoder: Link, picture: Node) -> Node:
    """Encode Faces of the largest face in a picture."""
    links = {"image": picture["IMAGE"], "encoder": encoder}
    return graph.add(column, "ImagePromptEncodeFaces", title, **links, face_model=FACE_MODEL)


def one_face(name: str, adapter_file: str, shown: str, who: str, text: str, weight: float, note: str) -> Graph:
    """One person in a new scene."""
    graph = Graph()
    graph.note(note, 270)
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=adapter_file)
    person = graph.picture(0, "Person", who)
    encoder = graph.load_encoder(1, adapter)
    graph.offer_encoder(1)
    texts = graph.texts(1, checkpoint["CLIP"], text)
    latent = graph.empty(1)
    encoded = faces(graph, 2, "Encode Faces", encoder["encoder"], person)
    graph.add(3, "PreviewImage", "Face that was found", 300, images=encoded[shown])
    model = graph.apply(3, checkpoint["MODEL"], adapter, encoded, weight=weight)
    graph.sample(4, name, checkpoint["VAE"], model, texts, latent)
    return graph


def plus_face() -> Graph:
    note = (
        "**A face as the prompt.** *plus-face* follows the look of a face: its features, its light and its "
        "expression. *Encode Faces* finds the face and cuts it; the preview shows what the encoder sees.\n\n" + NEEDS
    )
    return one_face("plus_face", PLUS_FACE, "box", "astronaut", "portrait in a garden, best quality", 0.7, note)


def face_id_plus() -> Graph:
    note = (
        "**A person in a new scene.** *FaceID plus v2* keeps who somebody is, by the face's identity, and some of how "
        "the face looks. *shortcut_scale* of Apply says how much of the looks; its LoRA comes from the same "
        "file.\n\nIs your file the first FaceID plus, choose that *variant* in Load IP-Adapter.\n\n"
        + NEEDS
        + by_hand(FACE_ID_PLUS, FACE_MODELS)
    )
    text = "a painter in her studio, best quality"
    return one_face("face_id_plus", FACE_ID_PLUS, "aligned", "commodore", text, 0.8, note)


def two_faces() -> Graph:
    graph = Graph()
    graph.note(
        "**Two people in one picture.** Each *Apply IP-Adapter* has its own person, and a mask that says where that "
        "person stands. Are both in one photo, use it twice and choose *faces: index* 0 and 1.\n\n"
        + NEEDS
        + by_hand(FACE_ID_PLUS, FACE_MODELS),
        250,
    )
    checkpoint = graph.add(0, "CheckpointLoaderSimple", ckpt_name=SD15)
    adapter = graph.add(0, "ImagePromptLoadAdapter", file=FACE_ID_PLUS)
    graph.offer_encoder(0)
    encoder = graph.load_encoder(1, adapter)
    shown = {"left": "astronaut", "right": "commodore"}
    people = {side: graph.picture(1, f"Person on the {side}", name) for side, name in shown.items()}
    left = graph.half_mask(0, ("Black, whole", "White, half", "Left half"), (256, 512), (0, 0))
    encoded = {
        side: faces(graph, 2, f"Encode face, {side}", encoder["encoder"], person) for side, person in people.items()
    }
    texts = graph.texts(2, checkpoint["CLIP"], "two friends at a table, best quality")
    latent = graph.empty(2)
    masks = {"left": left, "right": graph.add(2, "InvertMask", "Right half", mask=left)["MASK"]}
    model = checkpoint["MODEL"]
    for side, prompt in encoded.items():
        model = graph.apply(3, model, adapter, prompt, f"Apply {side}", mask=masks[side], weight=0.8)
    graph.sample(4, "two_faces", checkpoint["VAE"], model, texts, latent)
    return graph


FACE_GRAPHS = {make.__name__: make for make in (plus_face, face_id_plus, two_faces)}
