"""Where each photosite lies in the JPEG, in integers, and the JPEG resampled there.

An alignment is stored as fixed-point numbers and applied with integer
arithmetic alone, so that every machine gives the network and the tone layer
the same guide (design, section 4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FRACTION_BITS = 24
"""Fixed-point fraction of steps and origins: under 1/256 pixel across 65,535 sites."""

PHASE_BITS = 6
"""The interpolation kernel is tabulated at 2**6 positions between two pixels."""

TAP_BITS = 8
"""Kernel weights are multiples of 2**-8 and sum to one."""

GUIDE_BITS = 12
"""The resampled guide keeps 4 bits of fraction under the JPEG's 8."""

GUIDE_MAX = 255 << (GUIDE_BITS - 8)

MIN_STEP = (1 << FRACTION_BITS) // 5
MAX_STEP = (1 << FRACTION_BITS) * 5 // 4

_STRUCT = struct.Struct("<BIqIq")
_TAPS = 6


@dataclass(frozen=True)
class Alignment:
    """Position of every photosite of the visible mosaic in the JPEG.

    orientation: what to do to the JPEG's pixels to lay them over the sensor,
        as an EXIF orientation (1 to 8): 1 is nothing; see :func:`orient`.
    step_x, origin_x: site x lies at ``(step_x * x + origin_x) / 2**24`` pixels
        of the oriented JPEG, pixel centres being integers; y likewise.

    >>> Alignment(1, 1 << 24, -4 << 24, 1 << 24, -4 << 24).position_x(4)
    0.0
    """

    orientation: int
    step_x: int
    origin_x: int
    step_y: int
    origin_y: int

    SIZE = _STRUCT.size

    def pack(self) -> bytes:
        """The ALGN chunk's payload (docs/FORMAT.md)."""
        return _STRUCT.pack(
            self.orientation, self.step_x, self.origin_x, self.step_y, self.origin_y
        )

    @classmethod
    def unpack(cls, data: bytes) -> Alignment:
        """Read the ALGN chunk's payload.

        Raises ValueError where a field is out of its range.
        """
        if len(data) != _STRUCT.size:
            raise ValueError(f"the alignment has {len(data)} bytes, not {_STRUCT.size}")
        alignment = cls(*_STRUCT.unpack(data))
        if not 1 <= alignment.orientation <= 8:
            raise ValueError(f"orientation {alignment.orientation} is none of 1 to 8")
        for step in (alignment.step_x, alignment.step_y):
            if not MIN_STEP <= step <= MAX_STEP:
                raise ValueError(f"the scale {step / 2**FRACTION_BITS:.4f} is out of range")
        for origin in (alignment.origin_x, alignment.origin_y):
            if abs(origin) >= 1 << (16 + FRACTION_BITS):
                raise ValueError("the JPEG's offset is out of range")
        return alignment

    @classmethod
    def from_floats(
        cls, orientation: int, scale_x: float, origin_x: float, scale_y: float, origin_y: float
    ) -> Alignment:
        """Alignment from scales (JPEG pixels per photosite) and origins in JPEG pixels."""
        one = 1 << FRACTION_BITS
        return cls(
            orientation,
            round(scale_x * one),
            round(origin_x * one),
            round(scale_y * one),
            round(origin_y * one),
        )

    def position_x(self, x: float) -> float:
        """Column of the oriented JPEG where column x of the mosaic lies."""
        return float((self.step_x * x + self.origin_x) / (1 << FRACTION_BITS))

    def position_y(self, y: float) -> float:
        """Row of the oriented JPEG where row y of the mosaic lies."""
        return float((self.step_y * y + self.origin_y) / (1 << FRACTION_BITS))

    @property
    def scale(self) -> tuple[float, float]:
        """JPEG pixels per photosite, horizontally and vertically."""
        one = 1 << FRACTION_BITS
        return self.step_x / one, self.step_y / one

    def covered(
        self, width: int, height: int, jpeg_width: int, jpeg_height: int, margin: int
    ) -> tuple[int, int, int, int]:
        """The rectangle of photosites that the oriented JPEG covers.

        width, height: of the mosaic. jpeg_width, jpeg_height: of the oriented
        JPEG. margin: sites beyond the JPEG's outermost pixel centres that
        count as covered. Returns (left, top, right, bottom), half open, inside
        the mosaic; empty where the JPEG covers nothing.
        """
        left, right = _covered(self.step_x, self.origin_x, width, jpeg_width, margin)
        top, bottom = _covered(self.step_y, self.origin_y, height, jpeg_height, margin)
        return left, top, right, bottom


def _covered(step: int, origin: int, sites: int, pixels: int, margin: int) -> tuple[int, int]:
    last = (pixels - 1) << FRACTION_BITS
    first_site = -(origin // step)  # ceil(-origin / step)
    last_site = (last - origin) // step
    first = max(0, min(sites, first_site - margin))
    end = max(first, min(sites, last_site + 1 + margin))
    return first, end


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """View of an (H, W, ...) picture with an EXIF orientation applied.

    The meaning is that of Exif 2.32, tag 0x0112: ``orient(p, 6)`` turns p by
    90 degrees clockwise. Returns a view, (W, H, ...) for 5 to 8.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


@lru_cache(maxsize=1)
def kernel() -> np.ndarray:
    """Integer interpolation weights, int32 of shape (64, 6), rows summing to 256.

    The six-point cubic convolution of Keys (IEEE Trans. ASSP 29, 1981,
    section on higher accuracy), third-order accurate with a flat pass band,
    evaluated in exact rational arithmetic: no library's sine takes part.
    """
    phases = 1 << PHASE_BITS
    one = 1 << TAP_BITS
    weights = np.zeros((phases, _TAPS), dtype=np.int32)
    for phase in range(phases):
        # numerators over 12 * phases**3, of distances |d| = |tap - 2 - phase / phases|
        row = []
        for tap in range(_TAPS):
            d = abs((tap - 2) * phases - phase)
            row.append(_keys6(d, phases))
        scale = 12 * phases**3
        rounded = [(2 * value * one + scale) // (2 * scale) for value in row]
        rounded[2 if phase <= phases // 2 else 3] += one - sum(rounded)
        weights[phase] = rounded
    return weights


def _keys6(d: int, n: int) -> int:
    """12 * n**3 times Keys' six-point kernel at distance d / n."""
    if d < n:
        return 16 * d**3 - 28 * d**2 * n + 12 * n**3
    if d < 2 * n:
        return -7 * d**3 + 36 * d**2 * n - 59 * d * n**2 + 30 * n**3
    if d < 3 * n:
        return d**3 - 8 * d**2 * n + 21 * d * n**2 - 18 * n**3
    return 0


def _positions(step: int, origin: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixel and phase of the sites first..last-1, int64."""
    position = np.arange(first, last, dtype=np.int64) * step + origin
    shift = FRACTION_BITS - PHASE_BITS
    position = (position + (1 << (shift - 1))) >> shift
    return position >> PHASE_BITS, position & ((1 << PHASE_BITS) - 1)


class Guide:
    """The oriented JPEG, resampled to photosites, in bands of rows.

    pixels: uint8 (H, W, 3), already oriented (:func:`orient`).
    left, right: columns of the mosaic, half open; they may lie outside it.
    Sites outside the JPEG see its nearest edge pixel.
    """

    def __init__(self, pixels: np.ndarray, alignment: Alignment, left: int, right: int) -> None:
        self._pixels = pixels
        self._alignment = alignment
        whole, phase = _positions(alignment.step_x, alignment.origin_x, left, right)
        limit = pixels.shape[1] - 1
        self._columns = np.clip(whole[:, None] + np.arange(-2, 4), 0, limit)
        self._column_taps = kernel()[phase]
        self._exact_columns = not phase.any()

    def band(self, top: int, bottom: int) -> np.ndarray:
        """Guide of rows top..bottom-1, which may lie outside the mosaic.

        int16 (3, bottom - top, right - left), 0..4080. The result does not
        depend on how rows are grouped into bands.
        """
        whole, phase = _positions(self._alignment.step_y, self._alignment.origin_y, top, bottom)
        limit = self._pixels.shape[0] - 1
        if not phase.any():
            rows = self._pixels[np.clip(whole, 0, limit)]
            planes = np.ascontiguousarray(rows.transpose(2, 0, 1)).astype(np.int16) << 4
        else:
            taps = kernel()[phase]
            first = int(np.clip(whole[0] - 2, 0, limit))
            last = int(np.clip(whole[-1] + 3, 0, limit))
            source = np.ascontiguousarray(self._pixels[first : last + 1].transpose(2, 0, 1))
            total = np.zeros((3, bottom - top, source.shape[2]), dtype=np.int32)
            for tap in range(_TAPS):
                rows = source[:, np.clip(whole + (tap - 2), 0, limit) - first]
                total += rows * taps[:, tap][None, :, None]
            # 8 + 8 bits down to 12, keeping overshoot for the horizontal pass
            planes = ((total + 8) >> 4).astype(np.int16)
        if self._exact_columns:
            planes = np.take(planes, self._columns[:, 2], axis=2)
        else:
            total = np.zeros((3, bottom - top, len(self._columns)), dtype=np.int32)
            for tap in range(_TAPS):
                columns = np.take(planes, self._columns[:, tap], axis=2)
                total += columns * self._column_taps[:, tap]
            planes = ((total + 128) >> TAP_BITS).astype(np.int16)
        np.clip(planes, 0, GUIDE_MAX, out=planes)
        return planes
