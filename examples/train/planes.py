"""Filters over colour planes: float32 tensors of shape (3, H, W) or (1, H, W)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def gaussian(planes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of sigma sites; edges are replicated. Below 0.15 sites nothing happens."""
    if sigma < 0.15:
        return planes
    if sigma > 6:  # at a smaller scale: what is left of the finest detail does not count
        factor = 2 ** int(math.log2(sigma / 3))
        small = gaussian(reduce(planes, factor), sigma / factor)
        return resize(small, planes.shape[-2], planes.shape[-1], antialias=False)
    radius = min(max(1, math.ceil(3 * sigma)), *(n - 1 for n in planes.shape[-2:]))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return separable(planes, kernel / kernel.sum())


def separable(planes: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Symmetric odd kernel (n,) applied down and across; edges are replicated."""
    radius = len(kernel) // 2
    padded = functional.pad(planes[None], (radius,) * 4, mode="replicate")[0]
    height, width = planes.shape[-2:]
    # sums of shifted views: several times faster than a depthwise convolution on a CPU
    down = padded[:, radius : radius + height] * kernel[radius]
    for k in range(1, radius + 1):
        both = padded[:, radius - k : radius - k + height].add(
            padded[:, radius + k : radius + k + height]
        )
        down.add_(both, alpha=float(kernel[radius + k]))
    across = down[:, :, radius : radius + width] * kernel[radius]
    for k in range(1, radius + 1):
        both = down[:, :, radius - k : radius - k + width].add(
            down[:, :, radius + k : radius + k + width]
        )
        across.add_(both, alpha=float(kernel[radius + k]))
    return across


def box(planes: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over squares of 2 radius + 1 sites; edges are replicated."""
    return separable(planes, torch.full((2 * radius + 1,), 1 / (2 * radius + 1)))


def reduce(planes: torch.Tensor, factor: int) -> torch.Tensor:
    """Means over squares of ``factor`` sites; the last ones may be smaller."""
    return functional.avg_pool2d(planes[None], factor, ceil_mode=True, count_include_pad=False)[0]


def resize(planes: torch.Tensor, height: int, width: int, antialias: bool = True) -> torch.Tensor:
    """Bilinear resampling, with a wide enough kernel where it reduces."""
    return functional.interpolate(
        planes[None], (height, width), mode="bilinear", align_corners=False, antialias=antialias
    )[0]


def guided(planes: torch.Tensor, radius: int, noise: float) -> torch.Tensor:
    """Self-guided filter (He et al., "Guided Image Filtering", ECCV 2010).

    Smooths where the local standard deviation is below ``noise``.
    """
    mean = box(planes, radius)
    variance = (box(planes * planes, radius) - mean * mean).clamp_(min=0)
    slope = variance / (variance + noise * noise)
    offset = mean - slope * mean
    return box(slope, radius) * planes + box(offset, radius)


def radius_squared(height: int, width: int) -> torch.Tensor:
    """Squared distance from the middle, 1 at the corners: (H, W)."""
    y = torch.linspace(-1, 1, height) * height
    x = torch.linspace(-1, 1, width) * width
    return (y[:, None] ** 2 + x[None] ** 2) / (height**2 + width**2)
