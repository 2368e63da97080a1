"""ComfyUI's configurations of the bases' UNets, as its detection finds them in published checkpoints. Imports no more
than torch, so that it is loaded anywhere."""

from __future__ import annotations

from typing import Any

import torch

COMMON: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "dtype": torch.float32,
    "legacy": False, "use_checkpoint": False, "use_spatial_transformer": True, "use_temporal_attention": False,
    "use_temporal_resblock": False,
}  # fmt: skip
SD15 = COMMON | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "num_heads": 8, "num_head_channels": -1,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_linear_in_transformer": False, "context_dim": 768, "adm_in_channels": None,
}  # fmt: skip
SD2 = SD15 | {"num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True, "context_dim": 1024}
SDXL = SD2 | {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "context_dim": 2048, "adm_in_channels": 2816, "num_classes": "sequential",
}  # fmt: skip
# ComfyUI has no Kolors of its own: the packs that have one build it like this.
KOLORS = SDXL | {"adm_in_channels": 5632}
SSD_1B = SDXL | {
    "transformer_depth": [0, 0, 2, 2, 4, 4], "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
}  # fmt: skip
UNETS = {"SD15": SD15, "SD2": SD2, "SDXL": SDXL, "Kolors": KOLORS, "SSD-1B": SSD_1B}
