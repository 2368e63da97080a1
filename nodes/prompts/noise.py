"""Pictures of noise, made of a picture or of grey: what a negative image prompt shows.

Shapes: B pictures of H x W, three channels last, 0..1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ...ipadapter_core.method.picture import check_finite

KINDS = ("fade", "dissolve", "gaussian", "shuffle")
GREY = 0.5
GRID = 224  # pixels of the shorter side on which a shuffle is drawn, so that it looks the same at every size
REACH, SMOOTHNESS = 75.0, 3.5  # of a shuffle, in pixels of that grid
NOISE_OF_SHUFFLE = 0.75


def noisy(image: Tensor, kind: str, strength: float, seed: int, blur: float = 0.0) -> Tensor:
    """Pictures [B, H, W, 1, 3 or 4] with noise, [B, H, W, 3]; of a transparent one the colours alone count.

    kind: "fade" to uniform noise; "dissolve", pixel by pixel, into it; "gaussian" noise added; "shuffle", places moved
    about, turned upside down, with noise. strength: 0 (nothing) to 1. blur: standard deviation in pixels, afterwards.
    The same seed gives the same pictures on every machine. Raises ValueError for an unknown kind, numbers out of range,
    NaN in a picture and an empty batch.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of noise {kind!r}: choose one of {', '.join(KINDS)}")
    if not 0 <= strength <= 1 or blur < 0:
        raise ValueError(f"strength {strength} and blur {blur} of the noise: expected 0 to 1, and 0 or more pixels")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"the picture has no pixels (shape {tuple(image.shape)}): expected [batch, height, width, 3]")
    check_finite(image, "the picture")
    picture = image[..., :3].detach().cpu().float().expand(*image.shape[:3], 3).clamp(0, 1)
    if strength:
        draw = torch.Generator().manual_seed(seed)
        picture = {"fade": _fade, "dissolve": _dissolve, "gaussian": _gaussian, "shuffle": _shuffle}[kind](
            picture, strength, draw
        ).clamp(0, 1)
    return blurred(picture.movedim(-1, 1), blur).movedim(1, -1) if blur else picture


def _fade(picture: Tensor, strength: float, draw: Generator) -> Tensor:
    return picture * (1 - strength) + torch.rand(picture.shape, generator=draw) * strength


def _dissolve(picture: Tensor, strength: float, draw: Generator) -> Tensor:
    is_noise = torch.rand((*picture.shape[:3], 1), generator=draw) < strength
    return torch.where(is_noise, torch.rand(picture.shape, generator=draw), picture)


def _gaussian(picture: Tensor, strength: float, draw: Generator) -> Tensor:
    return picture + strength * torch.randn(picture.shape, generator=draw)


def _shuffle(picture: Tensor, strength: float, draw: Generator) -> Tensor:
    """Moved along random ways, less smooth with the strength, mirrored at both middles, and with noise."""
    moved = _moved(picture, strength, draw).flip(1, 2)
    noise = NOISE_OF_SHUFFLE * strength * torch.randn(picture.shape, generator=draw)
    return moved * (1 - noise) + noise


def _moved(picture: Tensor, strength: float, draw: Generator) -> Tensor:
    height, width = picture.shape[1:3]
    scale = GRID / min(height, width)
    grid = (max(1, round(height * scale)), max(1, round(width * scale)))
    ways = torch.rand((len(picture), 2, *grid), generator=draw) * 2 - 1
    ways = blurred(ways, SMOOTHNESS * (1 - strength)) * REACH
    ways = ways * torch.tensor([2 / grid[1], 2 / grid[0]])[:, None, None]  # grid_sample's picture is 2 wide and high
    ways = F.interpolate(ways, size=(height, width), mode="bilinear", align_corners=False)
    still = F.affine_grid(torch.eye(2, 3)[None].expand(len(picture), -1, -1), [len(picture), 3, height, width], False)
    places = still + ways.movedim(1, -1)
    return F.grid_sample(picture.movedim(-1, 1), places, padding_mode="reflection", align_corners=False).movedim(1, -1)


def blurred(values: Tensor, deviation: float) -> Tensor:
    """[B, C, H, W] blurred by a Gaussian of a standard deviation in pixels; at the edges the outermost values go on."""
    reach = round(3 * deviation)
    if reach == 0:
        return values
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = (weights / weights.sum()).repeat(values.shape[1], 1, 1, 1)
    values = F.conv2d(F.pad(values, (reach, reach, 0, 0), "replicate"), kernel, groups=values.shape[1])
    return F.conv2d(F.pad(values, (0, 0, reach, reach), "replicate"), kernel.mT, groups=values.shape[1])
