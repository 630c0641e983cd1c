"""What every system of the comparison is: two functions between a raw, a picture and bytes.

The paper's protocol: the raw is demosaiced, the picture is a rendering of it of the same size, and
what is written is paid for in bytes.
"""

from __future__ import annotations

import io
import math
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

WHITE = (1 << 16) - 1
"""The sample that stands for white; 0 is black."""


class System(Protocol):
    """A way to get a raw back from a picture and some bytes.

    name: what tables call it.
    """

    name: str

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """What ``decode`` needs beside the picture.

        raw: uint16 (H, W, 3), linear and demosaiced, 0..``WHITE``, white balance not applied.
        picture: a JPEG or PNG file, H x W pixels of 8 bits.
        """
        ...

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """The raw, uint16 (H, W, 3), from ``encode``'s bytes and the same picture.

        ValueError for data that ``encode`` did not write, as far as that shows.
        """
        ...


class Trainable(Protocol):
    """A system of weights that are trained: all get the same data and the same time.

    network: all the weights. patch: rows and columns of the squares it is trained on.
    """

    name: str
    network: nn.Module
    patch: int

    def loss(
        self, raw: Tensor, picture: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and figures of it to be noted (such as bits per pixel and PSNR).

        raw, picture: float32 (B, 3, h, w), 0..1. progress: share of the time that has passed.
        """
        ...


def pixels(picture: bytes) -> np.ndarray:
    """The pixels of a JPEG or PNG file: uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def to_planes(values: np.ndarray) -> Tensor:
    """Samples or pixels (H, W, 3), integers, as float32 (1, 3, H, W), 0..1."""
    most = np.iinfo(values.dtype).max
    planes = np.ascontiguousarray(values.transpose(2, 0, 1), np.float32) / np.float32(most)
    return torch.from_numpy(planes)[None]


def to_samples(planes: Tensor) -> np.ndarray:
    """float32 (1, 3, H, W), 0..1, as samples: uint16 (H, W, 3), clipped."""
    whole = torch.round(planes[0].detach().float().clamp(0, 1) * WHITE).to(torch.int32)
    return whole.permute(1, 2, 0).contiguous().numpy().astype(np.uint16)


def decibels(error: float) -> float:
    """PSNR of a mean squared error of values 0..1; at most 120."""
    return -10 * math.log10(max(error, 1e-12))


def psnr(raw: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR of samples in dB; infinite if they are equal."""
    error = float(np.square(raw.astype(np.float64) - decoded).mean())
    return float("inf") if error == 0 else 10 * np.log10(WHITE**2 / error)
