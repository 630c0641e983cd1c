"""What the network sees, and sites by their place in 2x2 blocks.

The same functions serve the codec, on integers, and training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import ACTIVATION_MAX, PICTURE_INPUTS, ZERO


def blocks(sites: Tensor) -> Tensor:
    """The four sites of each 2x2 block as channels: (..., C, H, W) to (..., C, 4, H/2, W/2)."""
    return torch.stack(
        [sites[..., i::2, j::2] for i in (0, 1) for j in (0, 1)],
        dim=-3,
    )


def unblocks(planes: Tensor) -> Tensor:
    """The inverse of :func:`blocks`: (..., 4, H, W) to (..., 2H, 2W)."""
    *lead, _, height, width = planes.shape
    sites = planes.new_empty((*lead, 2 * height, 2 * width))
    for k in range(4):
        sites[..., k // 2 :: 2, k % 2 :: 2] = planes[..., k, :, :]
    return sites


def inputs(guide: Tensor, tone: Tensor, mask: Tensor, missing: Tensor, earlier: Tensor) -> Tensor:
    """The network's input activations: uint8 (B, 40, H/2, W/2).

    guide: int16 (B, 3, H, W), the JPEG at the sites, 0..4080.
    tone: int32 (B, H, W), the tone layer's companded prediction, 0..46340.
    mask: uint8 (B, 12, H/2, W/2), 1 where a site (4) has a colour (3), site
        by site.
    missing: uint8 (B, 1, H/2, W/2), 1 where the JPEG does not reach a site.
    earlier: int32 (B, H, W), what the plane before was decoded to, less its
        own tone prediction; companded; 0 for a first plane.

    8-bit pixels do not fit 7-bit activations: a block's mean per colour and
    the differences from it enter apart (design, section 4).
    """
    colours = blocks(guide)
    picture = picture_inputs(colours, means(colours), tone)
    return torch.cat([picture, other_inputs(mask, missing, earlier)], 1)


def means(colours: Tensor) -> Tensor:
    """The mean of each block, rounded: int16 (B, 3, 4, H/2, W/2) to (B, 3, H/2, W/2)."""
    return (colours.sum(2, dtype=torch.int16) + 2) >> 2


def picture_inputs(colours: Tensor, mean: Tensor, tone: Tensor) -> Tensor:
    """The first 23 of the :func:`inputs`, of the JPEG and the tone layer.

    colours: the guide's :func:`blocks`. mean: their :func:`means`.
    """
    detail = (colours - mean[:, :, None]) >> 3
    values = blocks(tone)  # B, 4, H/2, W/2
    middle = (values.sum(1, keepdim=True, dtype=torch.int32) + 2) >> 2
    texture = (values - middle) >> 5
    parts = (
        (mean >> 5),
        _signed(detail.flatten(1, 2)),
        (values >> 8).clamp(0, ACTIVATION_MAX),
        _signed(texture),
    )
    result = torch.cat([part.to(torch.uint8) for part in parts], 1)
    assert result.shape[1] == PICTURE_INPUTS
    return result


def other_inputs(mask: Tensor, missing: Tensor, earlier: Tensor) -> Tensor:
    """The rest of the :func:`inputs`, which for many planes are the same everywhere."""
    return torch.cat(
        [_signed(blocks(earlier) >> 5).to(torch.uint8), mask * ZERO, missing * ZERO], 1
    )


def _signed(values: Tensor) -> Tensor:
    return (values + ZERO).clamp(0, ACTIVATION_MAX)
