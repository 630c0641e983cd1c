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

DEGREE = 5
"""Total degree of a warp's polynomials: radial distortion up to its fifth power."""

WARP_BITS = 16
"""A warp's coefficients are in units of 2**-16 JPEG pixels."""

TERMS = tuple((i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i))
"""Powers of x and y of a warp's terms, in the order of the coefficients."""

_STRUCT = struct.Struct("<BIqIqB")
_COEFFICIENTS = struct.Struct(f"<{2 * len(TERMS)}i")
_TAPS = 6
_UNIT_BITS = 15  # coordinates of a warp: the longer side spans -1 to 1
_WARPED_ROWS = 16  # at a time: few enough for the cache, enough for threads to pay
_FIELD_BITS = 21  # of the three colours packed into 64 bits


@dataclass(frozen=True)
class Warp:
    """A smooth displacement: what lens correction or straightening did to the JPEG.

    x, y: coefficients of two polynomials in the position on the mosaic
        (``TERMS``), in units of 2**-16 pixels of the oriented JPEG, 32 bits
        each; the position is relative to the middle, the longer side being 2.
    """

    x: tuple[int, ...]
    y: tuple[int, ...]


@dataclass(frozen=True)
class Alignment:
    """Position of every photosite of the visible mosaic in the JPEG.

    orientation: what to do to the JPEG's pixels to lay them over the sensor,
        as an EXIF orientation (1 to 8): 1 is nothing; see :func:`orient`.
    step_x, origin_x: site x lies at ``(step_x * x + origin_x) / 2**24`` pixels
        of the oriented JPEG, pixel centres being integers; y likewise.
    warp: what is added to these positions; None for a plain crop or reduction.

    >>> Alignment(1, 1 << 24, -4 << 24, 1 << 24, -4 << 24).position_x(4)
    0.0
    """

    orientation: int
    step_x: int
    origin_x: int
    step_y: int
    origin_y: int
    warp: Warp | None = None

    def pack(self) -> bytes:
        """The ALGN chunk's payload (docs/FORMAT.md)."""
        warp = self.warp
        head = _STRUCT.pack(
            self.orientation,
            self.step_x,
            self.origin_x,
            self.step_y,
            self.origin_y,
            warp is not None,
        )
        return head if warp is None else head + _COEFFICIENTS.pack(*warp.x, *warp.y)

    @classmethod
    def unpack(cls, data: bytes) -> Alignment:
        """Read the ALGN chunk's payload.

        Raises ValueError where a field is out of its range.
        """
        if len(data) < _STRUCT.size:
            raise ValueError(f"the alignment has {len(data)} bytes, {_STRUCT.size} are its least")
        orientation, step_x, origin_x, step_y, origin_y, warped = _STRUCT.unpack_from(data)
        size = _STRUCT.size + (_COEFFICIENTS.size if warped else 0)
        if warped > 1 or len(data) != size:
            raise ValueError(f"the alignment has {len(data)} bytes, not {size}")
        warp = None
        if warped:
            coefficients = _COEFFICIENTS.unpack_from(data, _STRUCT.size)
            warp = Warp(coefficients[: len(TERMS)], coefficients[len(TERMS) :])
        alignment = cls(orientation, step_x, origin_x, step_y, origin_y, warp)
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
        cls,
        orientation: int,
        scale_x: float,
        origin_x: float,
        scale_y: float,
        origin_y: float,
        warp: Warp | None = None,
    ) -> Alignment:
        """Alignment from scales (JPEG pixels per photosite) and origins in JPEG pixels."""
        one = 1 << FRACTION_BITS
        return cls(
            orientation,
            round(scale_x * one),
            round(origin_x * one),
            round(scale_y * one),
            round(origin_y * one),
            warp,
        )

    def position_x(self, x: float) -> float:
        """Column of the oriented JPEG where column x of the mosaic lies, but for the warp."""
        return float((self.step_x * x + self.origin_x) / (1 << FRACTION_BITS))

    def position_y(self, y: float) -> float:
        """Row of the oriented JPEG where row y of the mosaic lies, but for the warp."""
        return float((self.step_y * y + self.origin_y) / (1 << FRACTION_BITS))

    @property
    def scale(self) -> tuple[float, float]:
        """JPEG pixels per photosite, horizontally and vertically."""
        one = 1 << FRACTION_BITS
        return self.step_x / one, self.step_y / one

    def positions(
        self, rows: np.ndarray, columns: np.ndarray, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Column and row in the JPEG of sites, in units of 2**-24 pixels: int64 each.

        rows, columns: int64 (r,) and (c,), the sites' coordinates. width,
        height: of the mosaic. Returns two arrays that broadcast to (r, c).
        """
        u = (columns * self.step_x + self.origin_x)[None, :]
        v = (rows * self.step_y + self.origin_y)[:, None]
        if self.warp is not None:
            length = max(width, height)
            x = ((2 * columns - (width - 1)) << _UNIT_BITS) // length
            y = ((2 * rows - (height - 1)) << _UNIT_BITS) // length
            shift = FRACTION_BITS - WARP_BITS
            u = u + (_polynomial(self.warp.x, x, y) << shift)
            v = v + (_polynomial(self.warp.y, x, y) << shift)
        return u, v

    def reached(
        self, width: int, height: int, jpeg_width: int, jpeg_height: int, margin: int
    ) -> np.ndarray | None:
        """Which sites the oriented JPEG reaches: bool (height, width), None for all.

        width, height: of the mosaic. jpeg_width, jpeg_height: of the oriented
        JPEG. margin: sites beyond its outermost pixel centres that count.
        """
        result = np.empty((height, width), bool)
        columns = np.arange(width, dtype=np.int64)
        # a warp's positions take 16 bytes a site: not all of them at once
        for top in range(0, height, 64):
            rows = np.arange(top, min(top + 64, height), dtype=np.int64)
            u, v = self.positions(rows, columns, width, height)
            inside = []
            for position, step, pixels in (
                (u, self.step_x, jpeg_width),
                (v, self.step_y, jpeg_height),
            ):
                low = -margin * step
                high = ((pixels - 1) << FRACTION_BITS) + margin * step
                inside.append((position >= low) & (position <= high))
            result[top : top + 64] = inside[0] & inside[1]
        return None if result.all() else result


def _polynomial(coefficients: tuple[int, ...], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Value in 2**-16 pixels at the sites (y, x), coordinates in 2**-15: int64 (len(y), len(x)).

    Horner's scheme, rounding after each product; all products fit 64 bits.
    """
    terms = dict(zip(TERMS, coefficients, strict=True))
    half = 1 << (_UNIT_BITS - 1)
    total = np.zeros((len(y), len(x)), np.int64)
    for i in range(DEGREE, -1, -1):
        line = np.zeros(len(y), np.int64)
        for j in range(DEGREE - i, -1, -1):
            line = ((line * y + half) >> _UNIT_BITS) + terms[i, j]
        total *= x
        total += half
        total >>= _UNIT_BITS
        total += line[:, None]
    return total


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


def _whole_and_phase(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixel and phase of positions in 2**-24 pixels, int64."""
    shift = FRACTION_BITS - PHASE_BITS
    position = (position + (1 << (shift - 1))) >> shift
    return position >> PHASE_BITS, position & ((1 << PHASE_BITS) - 1)


def _round_sums(total: np.ndarray) -> np.ndarray:
    """Weighted sums of one pass over columns to guide values: int32 to int16."""
    total += 1 << (TAP_BITS - 1)
    total >>= TAP_BITS
    return total.astype(np.int16)


class Guide:
    """The oriented JPEG, resampled to photosites, in bands of rows.

    pixels: uint8 (H, W, 3), already oriented (:func:`orient`).
    width, height: of the mosaic. reach: columns beyond it, on both sides, that
        bands have too.
    Sites outside the JPEG see its nearest edge pixel.
    """

    def __init__(
        self, pixels: np.ndarray, alignment: Alignment, width: int, height: int, reach: int
    ) -> None:
        self._pixels = pixels
        self._alignment = alignment
        self._size = width, height
        self._sites = np.arange(-reach, width + reach, dtype=np.int64)
        if alignment.warp is not None:
            # the three colours in one integer are looked up and weighed at once
            wide = np.zeros(pixels.shape[:2], np.int64)
            for colour in range(3):
                wide |= pixels[:, :, colour].astype(np.int64) << (colour * _FIELD_BITS)
            self._packed = wide.ravel()

    def band(self, top: int, bottom: int) -> np.ndarray:
        """Guide of rows top..bottom-1, which may lie outside the mosaic.

        int16 (3, bottom - top, width + 2 reach), 0..4080. The result does not
        depend on how rows are grouped into bands.
        """
        if self._alignment.warp is None:
            rows = np.arange(top, bottom, dtype=np.int64)
            u, v = self._alignment.positions(rows, self._sites, *self._size)
            planes = self._straight(u[0], v[:, 0])
        else:
            planes = np.empty((3, bottom - top, len(self._sites)), np.int16)
            for first in range(top, bottom, _WARPED_ROWS):
                rows = np.arange(first, min(first + _WARPED_ROWS, bottom), dtype=np.int64)
                u, v = self._alignment.positions(rows, self._sites, *self._size)
                planes[:, first - top : first - top + _WARPED_ROWS] = self._warped(u, v)
        np.clip(planes, 0, GUIDE_MAX, out=planes)
        return planes

    def _straight(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Resampling where columns and rows are independent: int16 (3, rows, columns)."""
        whole, phase = _whole_and_phase(v)
        limit = self._pixels.shape[0] - 1
        if not phase.any():
            rows = self._pixels[np.clip(whole, 0, limit)]
            planes = np.ascontiguousarray(rows.transpose(2, 0, 1)).astype(np.int16) << 4
        else:
            taps = kernel()[phase]
            first = int(np.clip(whole[0] - 2, 0, limit))
            last = int(np.clip(whole[-1] + 3, 0, limit))
            source = np.ascontiguousarray(self._pixels[first : last + 1].transpose(2, 0, 1))
            total = np.zeros((3, len(v), source.shape[2]), dtype=np.int32)
            for tap in range(_TAPS):
                rows = source[:, np.clip(whole + (tap - 2), 0, limit) - first]
                total += rows * taps[:, tap][None, :, None]
            # 8 + 8 bits down to 12, keeping overshoot for the horizontal pass
            planes = ((total + 8) >> 4).astype(np.int16)
        whole, phase = _whole_and_phase(u)
        limit = self._pixels.shape[1] - 1
        if not phase.any():
            plain: np.ndarray = np.take(planes, np.clip(whole, 0, limit), axis=2)
            return plain
        taps = kernel()[phase]
        total = np.zeros((3, len(v), len(u)), dtype=np.int32)
        for tap in range(_TAPS):
            columns = np.take(planes, np.clip(whole + (tap - 2), 0, limit), axis=2)
            total += columns * taps[:, tap]
        return _round_sums(total)

    def _warped(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Resampling where every site has its own phases: int16 (3, rows, columns)."""
        column, phase_x = _whole_and_phase(u)
        row, phase_y = _whole_and_phase(v)
        bottom, right = (n - 1 for n in self._pixels.shape[:2])
        stride = right + 1
        lines = [np.clip(row + (tap - 2), 0, bottom) * stride for tap in range(_TAPS)]
        taps_x, taps_y = (
            np.ascontiguousarray(np.moveaxis(kernel()[phase].astype(np.int64), 2, 0))
            for phase in (phase_x, phase_y)
        )
        # keeps the fields from borrowing from one another
        bias = 1 << (_FIELD_BITS - 1)
        biases = bias | bias << _FIELD_BITS | bias << 2 * _FIELD_BITS
        total = np.zeros((3, *u.shape), np.int32)
        sums, place, looked_up = (np.empty(u.shape, np.int64) for _ in range(3))
        for tap_x in range(_TAPS):
            across = np.clip(column + (tap_x - 2), 0, right)
            sums.fill(biases)
            for tap_y in range(_TAPS):
                np.add(lines[tap_y], across, out=place)
                # the places are all inside; "clip" spares a check and a copy
                self._packed.take(place, out=looked_up, mode="clip")
                looked_up *= taps_y[tap_y]
                sums += looked_up
            for colour in range(3):
                field = (sums >> (colour * _FIELD_BITS)) & ((1 << _FIELD_BITS) - 1)
                value = ((field - bias) + 8) >> 4
                total[colour] += (value * taps_x[tap_x]).astype(np.int32)
        return _round_sums(total)
