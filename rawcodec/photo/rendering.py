"""A mosaic as a picture to look at: averaged over blocks, balanced, with the gamma of sRGB.

The colours are the camera's own, without a profile: good enough to compare two renderings of one
raw, which is all that they are for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import lcm

import numpy as np

from ..mosaic import Mosaic, planes
from .align import orient
from .dngtags import AS_SHOT_NEUTRAL

_BRIGHTEST = 99.5
"""The percentile of the sites that is shown white, if none of them is saturated."""


@dataclass(frozen=True)
class Look:
    """How linear values are shown. gains: of R, G and B, exposure and white balance: (3,)."""

    gains: np.ndarray

    @classmethod
    def of(cls, mosaic: Mosaic) -> Look:
        """The balance that the camera measured, or the grey world's; the brightest is white."""
        rgb = cells(mosaic, 4 * cell(mosaic))
        balance = _as_shot(mosaic)
        if balance is None:
            means = rgb.mean((0, 1))
            balance = means.max() / np.maximum(means, means.max() / 16 + 1e-9)
        balance = balance / balance.min()
        brightest = float(np.percentile(np.minimum(rgb * balance, 1), _BRIGHTEST))
        return cls(balance / max(brightest, 1e-3))

    def show(self, rgb: np.ndarray, exposure: float = 1.0) -> np.ndarray:
        """Linear values, black 0 and white 1, as uint8 of the same shape."""
        # what is saturated in one colour is white: other colours may hold more than that
        light = np.minimum(rgb, 1) * self.gains * exposure
        light = np.clip(light, 0, 1)
        bent = 1.055 * light ** (1 / 2.4) - 0.055  # IEC 61966-2-1
        levels = np.where(light <= 0.0031308, 12.92 * light, bent)
        result: np.ndarray = np.rint(255 * levels).astype(np.uint8)
        return result


def reduced(mosaic: Mosaic, longest: int) -> np.ndarray:
    """Linear R, G, B, black 0 and white 1, of at most so many pixels each way, upright.

    Returns float64 (h, w, 3).
    """
    block = cell(mosaic)
    while max(mosaic.samples.shape[:2]) > longest * block:
        block += cell(mosaic)
    return orient(cells(mosaic, block), mosaic.sensor.orientation)


def cell(mosaic: Mosaic) -> int:
    """Sites across the smallest square block that has all colours."""
    return max(2, lcm(*mosaic.sensor.period)) if not mosaic.sensor.linear else 1


def cells(mosaic: Mosaic, block: int) -> np.ndarray:
    """Linear R, G, B of blocks of so many sites across: float64 (h, w, 3).

    block: a multiple of the pattern's period. Blocks at the lower and right edge that are not
    whole are left out, unless there are no others.
    """
    sensor = mosaic.sensor
    size = tuple(max(1, n // block) for n in mosaic.samples.shape[:2])
    total, count = np.zeros((*size, 3)), np.zeros(3)
    for colour, black, index in planes(sensor):
        steps = [(s.step or 1) if isinstance(s, slice) else 1 for s in index[:2]]
        plane = (mosaic.samples[index].astype(np.float64) - black) / (sensor.white - black)
        for axis, step in enumerate(steps):
            plane = _averaged(plane, max(1, block // step), axis, size[axis])
        total[:, :, colour] += plane
        count[colour] += 1
    if not count[0] and not count[2]:  # monochrome
        return np.repeat(total[:, :, 1:2] / count[1], 3, 2)
    return total / np.maximum(count, 1)


def _averaged(plane: np.ndarray, block: int, axis: int, wanted: int) -> np.ndarray:
    """Means of so many rows (axis 0) or columns: as many of them as are wanted."""
    lines = np.moveaxis(plane, axis, 0)[: wanted * block]
    if len(lines) < wanted * block:  # a picture that is smaller than a block
        return np.moveaxis(lines.mean(0, keepdims=True), 0, axis)
    means = lines.reshape(wanted, block, -1).mean(1)
    return np.moveaxis(means, 0, axis)


def _as_shot(mosaic: Mosaic) -> np.ndarray | None:
    """Gains of R, G and B that make what was neutral grey; None where the raw does not tell."""
    for tag, _, count, data in mosaic.tags:
        if tag == AS_SHOT_NEUTRAL and count == 3 and len(data) == 24:
            parts = struct.unpack("<6I", data)
            neutral = np.array(
                [n / d if d else 0 for n, d in zip(parts[::2], parts[1::2], strict=True)]
            )
            if neutral.min() > 0:
                gains: np.ndarray = 1 / neutral
                return gains
    return None
