"""Pocket's text encoder and tokenizer as CLIP: ComfyUI's classes for SD1.5's, with few tokens and narrow states."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.sd
import comfy.supported_models_base
import folder_paths
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer

from ..places import Places
from .files import read


class PocketTextModel(SDClipModel):
    """described: config.json of transformers' CLIPTextModel."""

    def __init__(self, described: dict[str, Any], device: Any = "cpu", dtype: Any = None, model_options: Any = None):
        tokens = {
            "start": described["bos_token_id"], "end": described["eos_token_id"], "pad": described["pad_token_id"]
        }  # fmt: skip
        super().__init__(
            device=device, dtype=dtype, textmodel_json_config=described, special_tokens=tokens,
            return_projected_pooled=False, model_options=model_options or {},
        )  # fmt: skip
        # ComfyUI's class always has the 49,408 tokens of CLIP.
        self.transformer.set_input_embeddings(
            self.operations.Embedding(described["vocab_size"], described["hidden_size"], dtype=dtype, device=device)
        )


def load_clip(places: Places) -> comfy.sd.CLIP:
    """Raises ValueError when the weights are not there."""
    described, weights = read(places.base / "text_encoder")
    weights = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()}
    # CLIPTextModel has none; ComfyUI's class always has one.
    weights["text_projection.weight"] = torch.eye(described["hidden_size"])
    tokenizer = partial(
        SDTokenizer, tokenizer_path=str(places.base / "tokenizer"), embedding_size=described["hidden_size"]
    )
    target = comfy.supported_models_base.ClipTarget(
        partial(SD1Tokenizer, tokenizer=tokenizer),
        partial(SD1ClipModel, clip_model=partial(PocketTextModel, described)),
    )
    return comfy.sd.CLIP(target, embedding_directory=folder_paths.get_folder_paths("embeddings"), state_dict=[weights])
