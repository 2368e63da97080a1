"""Decoupled cross-attention in diffusers' UNet: a processor that calls the core's function.

Shapes: B batch, N queries (latent positions), T tokens, C context width, D layer width, R rank of a LoRA.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import ImageKV, Lora, attention, attention_names, decoupled_attention, joint_attention
from ipadapter_core.method.attention import Attend

from .lora import lora_linear
from .sites import unet_layers

Kind = Literal["decoupled", "appended"]


class AdapterOutput(NamedTuple):
    """What an adapter gives a base for one forward of B samples: K', V' [B, T, D] by checkpoint index, and its LoRA."""

    keys_values: dict[int, tuple[Tensor, Tensor]]
    lora: Lora = {}

    def weighted(self, weight: float) -> AdapterOutput:
        """The same at the paper's weight of the image prompt, a factor of V' (lambda, eq. 8).

        The LoRA is a change of the base, so it has no weight and is there without a picture too.
        """
        if weight == 1:
            return self
        return self._replace(keys_values={index: (k, v * weight) for index, (k, v) in self.keys_values.items()})


class Mailbox:
    """What the layers of one UNet read: put there before its forward, and kept until backward is done.

    of_layer: K' and V' by checkpoint index. lora: (index, matrix) to (up [D, R], down [R, D or C]).
    Gradient checkpointing runs the layers again during backward, so they are not passed as arguments.
    """

    def __init__(self) -> None:
        self.of_layer: dict[int, tuple[ImageKV, ...]] = {}
        self.lora: Lora = {}
        self.norms: AttentionNorms | None = None

    def put(self, output: AdapterOutput) -> None:
        self.of_layer = {index: (ImageKV(k, v),) for index, (k, v) in output.keys_values.items()}
        self.lora = output.lora

    def clear(self) -> None:
        self.of_layer, self.lora = {}, {}


class AttentionNorms:
    """How much the layers attended to, while it is given to a base: sums of squares by checkpoint index, on the device.

    text: of Attention(Q, K, V). image: of Attention(Q, K', V'), the weight in V' with it.
    """

    def __init__(self) -> None:
        self.text: dict[int, Tensor] = {}
        self.image: dict[int, Tensor] = {}

    def counting(self, index: int, attend: Attend) -> tuple[Attend, Attend]:
        """The attention to a text and to a picture, as `attend` does them, whose results are counted for a layer."""
        return partial(self._counted, self.text, index, attend), partial(self._counted, self.image, index, attend)

    def _counted(self, sums: dict[int, Tensor], index: int, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attend(q, k, v)
        sums[index] = sums.get(index, 0) + out.float().square().sum()
        return out


class ImageAttention:
    """diffusers' attention processor of one layer with image prompts (IP-Adapter, eq. 5) and LoRA.

    Without text states it is self-attention, which has a LoRA alone.
    """

    def __init__(self, mailbox: Mailbox, index: int, kind: Kind = "decoupled") -> None:
        self.mailbox = mailbox
        self.index = index
        self.kind = kind

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        assert attention_mask is None, "a layer without a text mask"
        assert hidden_states.ndim == 3 and attn.group_norm is None and attn.spatial_norm is None
        residual = hidden_states
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross and encoder_hidden_states is not None:
            read = attn.norm_encoder_hidden_states(encoder_hidden_states)
        q = self._linear("to_q", attn.to_q, hidden_states)
        k, v = self._linear("to_k", attn.to_k, read), self._linear("to_v", attn.to_v, read)
        images = [
            image._replace(k=image.k.to(q.dtype), v=image.v.to(q.dtype))
            for image in self.mailbox.of_layer.get(self.index, ())
        ]
        attend = partial(attention, num_heads=attn.heads)
        if self.kind == "appended":
            out = joint_attention(q, k, v, images, attend)
        else:
            norms = self.mailbox.norms
            of_text, of_image = (attend, attend) if norms is None else norms.counting(self.index, attend)
            out = decoupled_attention(q, k, v, images, of_text, of_image)
        linear, dropout = attn.to_out
        out = dropout(self._linear("to_out", linear, out))
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _linear(self, name: str, linear: Any, x: Tensor) -> Tensor:
        return lora_linear(linear, x, self.mailbox.lora.get((self.index, name)))


def install(unet: UNet2DConditionModel, kind: Kind = "decoupled", has_lora: bool = False) -> Mailbox:
    """Give every cross-attention layer the processor of image prompts; returns where its K' and V' are put.

    has_lora: self-attention gets it as well. Raises ValueError for a base without cross-attention layers.
    """
    mailbox = Mailbox()
    processors = dict(unet.attn_processors)
    for index, name in attention_names(unet_layers(unet), "diffusers").items():
        if has_lora or index % 2:
            processors[f"{name}.processor"] = ImageAttention(mailbox, index, kind)
    unet.set_attn_processor(processors)
    return mailbox
