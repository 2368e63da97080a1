"""Decoupled attention of one layer against the package's and diffusers' processors."""

from functools import partial

import pytest
import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from torch import Tensor

from ipadapter_core import (
    ImageKV,
    ImageKVLayer,
    add_image_attention,
    attention,
    decoupled_attention,
    joint_attention,
)
from tests.support import figures, oracles

LIMIT = 1e-5
CONTEXT = 768


class Layer:
    """A cross-attention layer of SD1.5, its input, its text, and two image prompts of 4 and 16 tokens."""

    def __init__(self, width: int) -> None:
        torch.manual_seed(width)
        self.width = width
        self.attn = Attention(width, CONTEXT, heads=8, dim_head=width // 8)
        self.hidden = torch.randn(2, 64, width)
        self.text = torch.randn(2, 77, CONTEXT)
        self.tokens = [torch.randn(2, 4, CONTEXT), torch.randn(2, 16, CONTEXT)]
        self.layers = [ImageKVLayer(CONTEXT, width), ImageKVLayer(CONTEXT, width)]

    def ours(self, scales: list[float], masks: list[Tensor] | None = None) -> Tensor:
        attend = partial(attention, num_heads=8)
        prompts = []
        for tokens, layer, scale, mask in zip(self.tokens, self.layers, scales, masks or [None, None]):
            k, v = layer(tokens)
            prompts.append(ImageKV(k, v * scale, mask))
        q, k, v = self.attn.to_q(self.hidden), self.attn.to_k(self.text), self.attn.to_v(self.text)
        return self.attn.to_out[0](decoupled_attention(q, k, v, prompts, attend, attend))

    def package(self, scale: float) -> Tensor:
        processor = oracles.IPAttnProcessor2_0(self.width, CONTEXT, scale, num_tokens=4)
        processor.load_state_dict(self.layers[0].state_dict())
        return processor(self.attn, self.hidden, torch.cat([self.text, self.tokens[0]], dim=1))

    def diffusers(self, scales: list[float], masks: list[Tensor] | None = None) -> Tensor:
        processor = IPAdapterAttnProcessor2_0(self.width, CONTEXT, num_tokens=(4, 16)[: len(scales)], scale=scales)
        weights = {
            f"{name}.{number}.weight": getattr(layer, name).weight
            for number, layer in enumerate(self.layers[: len(scales)])
            for name in ("to_k_ip", "to_v_ip")
        }
        processor.load_state_dict(weights)
        images = [tokens[:, None] if masks else tokens for tokens in self.tokens[: len(scales)]]
        return processor(self.attn, self.hidden, (self.text, images), ip_adapter_masks=masks)


@pytest.fixture(scope="module", params=[320, 640, 1280])
def layer(request):
    return Layer(request.param)


@torch.no_grad()
@pytest.mark.parametrize("scale", [-0.5, 0.3, 1.0, 1.5])
def test_one_prompt(layer, scale):
    ours = layer.ours([scale])
    figures.show(f"width {layer.width}, scale {scale}, the package", ours, layer.package(scale), LIMIT)
    figures.show(f"width {layer.width}, scale {scale}, diffusers", ours, layer.diffusers([scale]), LIMIT)
    assert figures.relative(ours, layer.ours([])) > 1e-2  # the prompt matters


@torch.no_grad()
def test_two_prompts(layer):
    ours = layer.ours([0.7, -0.4])
    figures.show(f"width {layer.width}, two prompts, diffusers", ours, layer.diffusers([0.7, -0.4]), LIMIT)


@torch.no_grad()
def test_masks(layer):
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    masks = [left, 1 - left]
    ours = layer.ours([1.0, 0.5], [mask.reshape(1, 64, 1) for mask in masks])
    figures.show(f"width {layer.width}, two masks, diffusers", ours, layer.diffusers([1.0, 0.5], masks), LIMIT)
    nothing = torch.zeros(1, 64, 1)
    assert torch.equal(layer.ours([1.0, 1.0], [nothing, nothing]), layer.ours([]))


@torch.no_grad()
def test_no_prompt_is_the_text_alone(layer):
    """Exactly what the host's own attention gives."""
    alone = attention(layer.attn.to_q(layer.hidden), layer.attn.to_k(layer.text), layer.attn.to_v(layer.text), 8)
    assert torch.equal(layer.ours([]), layer.attn.to_out[0](alone))


def test_gradients_reach_the_image_layers():
    """The trainer trains through the same function."""
    layer = Layer(320)
    layer.ours([1.0, 1.0]).square().mean().backward()
    for kv in layer.layers:
        for weight in kv.parameters():
            assert weight.grad is not None and weight.grad.abs().max() > 0


def test_a_factor_and_keys_of_the_base():
    """Written out: what was attended, times the factor; with the base's keys in K' for hosts that need them there."""
    torch.manual_seed(0)
    q, k, v, out = (torch.randn(2, 9, 16) for _ in range(4))
    images = [torch.randn(2, 4, 16) for _ in range(2)]
    factor = torch.rand(2, 9, 1)
    attend = partial(attention, num_heads=1)
    keys, values = (torch.cat([own, image], 1) for own, image in zip((k, v), images))
    expected = out + factor * ((q @ keys.mT / 4).softmax(-1) @ values)
    figures.show("added", add_image_attention(out, q, [ImageKV(keys, values, factor)], attend), expected, LIMIT)
    joint = (q @ keys.mT / 4).softmax(-1) @ values
    figures.show("joint", joint_attention(q, k, v, [ImageKV(*images)], attend), joint, LIMIT)
