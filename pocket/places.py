"""Where pocket's parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Places:
    """weights: what is kept, in the repository. work: checkpoints and pictures, which may be thrown away."""

    weights: Path = Path(__file__).parent / "weights"
    work: Path = ROOT / "out" / "pocket"

    @property
    def base(self) -> Path:
        """A diffusers folder: unet, vae, text_encoder, tokenizer, scheduler."""
        return self.weights / "base"

    @property
    def encoder(self) -> Path:
        """A transformers folder of the image encoder."""
        return self.weights / "clip_vision" / "pocket"

    @property
    def judge(self) -> Path:
        return self.weights / "judge.safetensors"

    @property
    def adapters(self) -> Path:
        """Folder of the adapters."""
        return self.weights / "ipadapter"

    def adapter(self, name: str) -> Path:
        """An adapter's file; the simple one, which no node runs, is apart from those that ComfyUI lists."""
        folder = self.weights / "comparison" if name == "pocket_simple" else self.adapters
        return folder / f"{name}.safetensors"

    @property
    def controlnet(self) -> Path:
        """A diffusers folder of the ControlNet for silhouettes."""
        return self.weights / "controlnet"

    @property
    def shuffle(self) -> Path:
        """A diffusers folder of the ControlNet for shuffled pictures, a rival; too large to be kept with the rest."""
        return self.work / "shuffle"

    @property
    def look(self) -> Path:
        """The other look of the base, as a LoRA."""
        return self.weights / "loras" / "pocket_sticker.safetensors"

    @property
    def sheets(self) -> Path:
        return self.work / "sheets"
