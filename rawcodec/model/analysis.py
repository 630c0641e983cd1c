"""The encoder's hyper-analysis: float, run on the encoder only, on any device.

It makes the hyper-latents v of the latents z. Nothing that the decoder
computes depends on how it rounds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BLOCK, HYPER, HYPER_WIDTH, QUAD, RATES

_SITES = BLOCK * BLOCK
_ANCHORS = 9


def working_type(device: torch.device) -> torch.dtype:
    """What it computes with: bfloat16 where a CPU has it, else float32."""
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def between_anchors(anchors: Tensor, rate: Tensor) -> Tensor:
    """Values (A, ...) at evenly spaced anchors, interpolated at rates (B,): (B, ...)."""
    position = rate.to(anchors.dtype) * ((len(anchors) - 1) / (RATES - 1))
    low = position.floor().clamp(0, len(anchors) - 2).long()
    share = (position - low).reshape(-1, *[1] * (anchors.ndim - 1))
    result: Tensor = anchors[low] * (1 - share) + anchors[low + 1] * share
    return result


class HyperAnalysis(nn.Module):
    """h_a: from the latents, (B, 4, 8h, 8w), the hyper-latents, (B, 8, h, w), unrounded."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * _SITES, HYPER_WIDTH, 4, stride=2, padding=1)
        self.rate = nn.Parameter(torch.zeros(_ANCHORS, HYPER_WIDTH))
        self.second = nn.Conv2d(HYPER_WIDTH, HYPER_WIDTH, 4, stride=2, padding=1)
        self.last = nn.Conv2d(HYPER_WIDTH, HYPER, 1)

    def forward(self, latents: Tensor, rate: Tensor) -> Tensor:
        return self.end(self.begin(F.pad(latents, [QUAD] * 4), rate))

    def begin(self, latents: Tensor, rate: Tensor) -> Tensor:
        """The first layer, of latents with a quad more on every side: (B, 4, 8h + 4, 8w + 4).

        Returns (B, 32, 2h, 2w). Bands of rows can be given one by one; ``end`` takes all of them.
        """
        soft = F.pixel_unshuffle(torch.sign(latents) * torch.log2(1 + latents.abs()), QUAD)
        first = self.first
        x = F.conv2d(torch.cat([soft, soft.abs()], 1), first.weight, first.bias, first.stride)
        return torch.relu(x + between_anchors(self.rate, rate)[:, :, None, None])

    def end(self, x: Tensor) -> Tensor:
        """The hyper-latents of what ``begin`` returns."""
        result: Tensor = self.last(torch.relu(self.second(x)))
        return result
