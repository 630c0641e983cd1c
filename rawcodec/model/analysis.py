"""The encoder's transforms: float, run on the encoder only, on any device.

The analysis g_a adds a nonlinear part to the residual of the sites; the
hyper-analysis h_a makes the hyper-latents v of the latents z. Nothing that the
decoder computes depends on how they round.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BLOCK, HYPER, HYPER_WIDTH, RATES, WIDTH

_SITES = BLOCK * BLOCK
_WIDTH = 48
_ANCHORS = 9

REACH = 8
"""Positions around the picture that the analysis looks at."""


def working_type(device: torch.device) -> torch.dtype:
    """What these transforms compute with: bfloat16 where a CPU has it, else float32."""
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


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        result: Tensor = torch.relu(self.second(y)) + self.shortcut(x)
        return result


class _Unit(nn.Module):
    """The bottleneck of the attention block: 1x1, 3x3, 1x1 at half the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width // 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class Attention(nn.Module):
    """The simplified attention block of Cheng et al., CVPR 2020, section 3.4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(_Unit(width) for _ in range(3)))
        self.mask = nn.Sequential(*(_Unit(width) for _ in range(3)), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.trunk(x) * torch.sigmoid(self.mask(x))
        return result


class Analysis(nn.Module):
    """g_a: what to add to the residual of the sites.

    Reaches ``REACH`` positions; zero padding around the picture. The layer
    ``LAST`` gives the result, and is linear in its parameters.
    """

    LAST = "layers.3"

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(_SITES + WIDTH, _WIDTH, 1)
        self.rate = nn.Parameter(torch.zeros(_ANCHORS, _WIDTH))
        self.layers = nn.Sequential(
            _Residual(_WIDTH, _WIDTH),
            Attention(_WIDTH),
            _Residual(_WIDTH, 32),
            nn.Conv2d(32, _SITES, 3, padding=1),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, linear: Tensor, guide: Tensor, rate: Tensor) -> Tensor:
        """What to add to latents (B, 4, 2h, 2w), in steps.

        guide: (B, 64, h, w), 0..4. rate: (B,).
        """
        soft = F.pixel_unshuffle(torch.sign(linear) * torch.log2(1 + linear.abs()), 2)
        x = self.mix(torch.cat([soft, guide], 1))
        x = torch.relu(x + between_anchors(self.rate, rate)[:, :, None, None])
        return F.pixel_shuffle(self.layers(x), 2)


class HyperAnalysis(nn.Module):
    """h_a: from the latents, (B, 4, 8h, 8w), the hyper-latents, (B, 8, h, w), unrounded."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * _SITES, HYPER_WIDTH, 4, stride=2, padding=1)
        self.rate = nn.Parameter(torch.zeros(_ANCHORS, HYPER_WIDTH))
        self.second = nn.Conv2d(HYPER_WIDTH, HYPER_WIDTH, 4, stride=2, padding=1)
        self.last = nn.Conv2d(HYPER_WIDTH, HYPER, 1)

    def forward(self, latents: Tensor, rate: Tensor) -> Tensor:
        soft = F.pixel_unshuffle(torch.sign(latents) * torch.log2(1 + latents.abs()), 2)
        x = self.first(torch.cat([soft, soft.abs()], 1))
        x = torch.relu(x + between_anchors(self.rate, rate)[:, :, None, None])
        result: Tensor = self.last(torch.relu(self.second(x)))
        return result
