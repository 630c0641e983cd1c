"""The mosaic: what a raw file is to this codec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .sensor import Sensor

COLOURS = "RGB"


@dataclass(frozen=True)
class Mosaic:
    """The visible samples of a raw, in the sensor's own DN.

    samples: uint16, C-contiguous, of shape ``sensor.shape``: (H, W), or
        (H, W, 3) for a linear raw. The black level is not subtracted.
    make, model: the camera, as its files name it; may be empty.
    tags: the raw's colour tags as (TIFF tag, TIFF type, count, little-endian
        value bytes), sorted by tag (Digital Negative Specification 1.6).
    """

    samples: np.ndarray
    sensor: Sensor
    make: str = ""
    model: str = ""
    tags: tuple[tuple[int, int, int, bytes], ...] = field(default=())

    def digest(self) -> bytes:
        """First 16 bytes of SHA-256 over the samples, little-endian."""
        return mosaic_digest(self.samples)


def mosaic_digest(samples: np.ndarray) -> bytes:
    """First 16 bytes of SHA-256 over uint16 samples, row by row, little-endian."""
    data = np.ascontiguousarray(samples, dtype="<u2")
    return hashlib.sha256(data.data).digest()[:16]


def planes(sensor: Sensor) -> Iterator[tuple[int, int, tuple[slice | int, ...]]]:
    """The planes of a mosaic: the sets of sites that share a colour and a black level.

    Yields (colour, black, index): the colour 0, 1, 2 for R, G, B, the black
    level in DN, and what to index the samples with to get the plane: one cell
    of the CFA's pattern, or one channel of a linear raw.
    """
    if sensor.linear:
        for colour in range(3):
            yield colour, sensor.black[colour], (slice(None), slice(None), colour)
        return
    rows, columns = sensor.period
    for i in range(rows):
        for j in range(columns):
            colour = COLOURS.index(sensor.cfa[i][j])
            index = (slice(i, None, rows), slice(j, None, columns))
            yield colour, sensor.black[i * columns + j], index
