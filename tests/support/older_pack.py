"""A pack that owns older ids, with the shapes that were on their sockets: it gives them, and is strict in taking them.

It is copied into a folder as `__init__.py`, with the ids it owns in `ids.json` beside it.
"""

import json
from pathlib import Path

import torch

OWNED = json.loads(Path(__file__).with_name("ids.json").read_text())
PARAMS = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")


def check(condition, what):
    if not condition:
        raise TypeError(f"not of the old shape: {what}")


def check_adapter(ipadapter):
    """A loader's dict, or the state dict alone."""
    if "ipadapter" in ipadapter:
        check({"file", "model"} <= ipadapter["ipadapter"].keys(), "ipadapter")
        check({"file", "model"} <= ipadapter["clipvision"].keys(), "clipvision")
        check({"provider", "model"} <= ipadapter["insightface"].keys(), "insightface")
        check(hasattr(ipadapter["clipvision"]["model"], "encode_image"), "clipvision model")
        ipadapter = ipadapter["ipadapter"]["model"]
    check(isinstance(ipadapter["image_proj"], dict) and isinstance(ipadapter["ip_adapter"], dict), "state dict")
    check(ipadapter["ip_adapter"]["1.to_k_ip.weight"].ndim == 2, "keys and values")
    return ipadapter


class Answer:
    """What the two classes of sinks and sources have."""

    CATEGORY = "another pack"


class Gives(Answer):
    """Everything on older sockets, from a file of an adapter."""

    RETURN_TYPES = ("IPADAPTER", "EMBEDS", "IPADAPTER_PARAMS", "WEIGHTS_STRATEGY")
    FUNCTION = "give"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"ipadapter": ("IPADAPTER",), "clip_vision": ("CLIP_VISION",), "image": ("IMAGE",)}}

    def give(self, ipadapter, clip_vision, image):
        state_dict = {group: dict(check_adapter(ipadapter)[group]) for group in ("image_proj", "ip_adapter")}
        loaded = {
            "ipadapter": {"file": "/somewhere/another.safetensors", "model": state_dict},
            "clipvision": {"file": "/somewhere/encoder.safetensors", "model": clip_vision},
            "insightface": {"provider": None, "model": None},
        }
        params = dict(zip(PARAMS, ([image], [None], [0.7], ["linear"], [0.0], [1.0])))
        strategy = {
            "weights": "1.0, 0.5", "timing": "linear", "frames": 3, "start_frame": 0, "end_frame": 9999,
            "add_starting_frames": 0, "add_ending_frames": 0, "method": "full batch", "frame_count": 2,
        }  # fmt: skip
        return loaded, torch.ones(2, 1024), params, strategy


class Takes(Answer):
    """Whatever is on older sockets, and says that its shape is the old one."""

    RETURN_TYPES = ()
    FUNCTION = "take"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        kinds = ("IPADAPTER", "EMBEDS", "IPADAPTER_PARAMS", "WEIGHTS_STRATEGY", "INSIGHTFACE")
        return {"required": {}, "optional": {kind.lower(): (kind,) for kind in kinds}}

    def take(self, **given):
        for kind, value in given.items():
            if kind == "ipadapter":
                check_adapter(value)
            elif kind == "embeds":
                check(isinstance(value, torch.Tensor) and value.ndim in (2, 3), "a tensor of features")
            elif kind == "ipadapter_params":
                check(set(value) == set(PARAMS) and all(isinstance(one, list) for one in value.values()), "lists")
            elif kind == "weights_strategy":
                check(isinstance(value, dict) and isinstance(value["weights"], str), "what was typed")
            else:
                check(hasattr(value, "get") and hasattr(value, "det_model"), "a FaceAnalysis")
        return {"ui": {"text": [" ".join(sorted(given))]}}


def applies(kind):
    """An id of theirs that applies an adapter: it is strict in what it takes, and changes nothing."""

    class Applies(Answer):
        RETURN_TYPES = ("MODEL",)
        FUNCTION = "apply_ipadapter"

        @classmethod
        def INPUT_TYPES(cls):  # noqa: N802
            more = {"pos_embed": ("EMBEDS",), "ipadapter_params": ("IPADAPTER_PARAMS",), "image": ("IMAGE",)}
            return {"required": {"model": ("MODEL",), "ipadapter": ("IPADAPTER",)}, "optional": more}

        def apply_ipadapter(self, model, ipadapter, pos_embed=None, ipadapter_params=None, image=None):
            check_adapter(ipadapter)
            check(pos_embed is None or isinstance(pos_embed, torch.Tensor), "a tensor of features")
            check(ipadapter_params is None or set(ipadapter_params) == set(PARAMS), "params")
            return (model,)

    return type(kind, (Applies,), {})


NODE_CLASS_MAPPINGS = {"PeerGives": Gives, "PeerTakes": Takes} | {kind: applies(kind) for kind in OWNED}
