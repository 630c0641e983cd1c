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

MIN_STEP = (1 << FRACTION_BITS) // 10
MAX_STEP = (1 << FRACTION_BITS) * 5 // 4

DEGREE = 5
"""Total degree of a warp's polynomials: radial distortion up to its fifth power."""

WARP_BITS = 16
"""A warp's coefficients are in units of 2**-16 JPEG pixels."""

TERMS = tuple((i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i))
"""Powers of x and y of a warp's terms, in the order of the coefficients."""

CONE = 3
"""Degree of the polynomials that a warp's distance from the middle is multiplied by."""

CONE_TERMS = tuple((i, j) for i in range(CONE + 1) for j in range(CONE + 1 - i) if (i, j) != (0, 0))
"""Powers of x and y of these, in the order of the coefficients."""

LATERAL = 4
"""The bit of the kind that says that the JPEG's red and blue lie elsewhere than its green."""

_STRUCT = struct.Struct("<BIqIqB")
_SHIFTS = struct.Struct("<8i")
_SIZES = {0: 0, 1: len(TERMS), 2: len(TERMS) + len(CONE_TERMS)}
"""Coefficients of each axis, by the kind of warp."""
_TAPS = 6
_UNIT_BITS = 15  # coordinates of a warp: the longer side spans -1 to 1
_WARPED_ROWS, _WARPED_SITES = 72, 18432  # at a time: few enough for the cache
_REACHED_BLOCK = 32  # sites each way that are told by their middle
_SCATTERED = 16  # times as many pixels around these sites are too many
_FIELD_BITS = 21  # of three pixels packed into 64 bits


@dataclass(frozen=True)
class Warp:
    """A smooth displacement: what lens correction or straightening did to the JPEG.

    x, y: coefficients of two polynomials in the position on the mosaic
        (``TERMS``), in units of 2**-16 pixels of the oriented JPEG, 32 bits
        each; the position is relative to the middle, the longer side being 2.
        Behind them may be those of two more (``CONE_TERMS``), which the distance
        from the middle is multiplied by: lens profiles have its odd powers,
        which no polynomial in x and y has.
    """

    x: tuple[int, ...]
    y: tuple[int, ...]


@dataclass(frozen=True)
class Lateral:
    """How far red and blue of the JPEG lie from green where sites of one place are meant.

    Correcting lateral chromatic aberration moves colours against one another;
    this moves them back to where the sensor has them.

    red, blue: (step x, origin x, step y, origin y), each of 32 bits, which are
        added to the alignment's.
    """

    red: tuple[int, int, int, int]
    blue: tuple[int, int, int, int]

    def of(self, colour: int) -> tuple[int, int, int, int]:
        """What is added for a colour of the JPEG: 0 red, 1 green, 2 blue."""
        return (self.red, (0, 0, 0, 0), self.blue)[colour]


@dataclass(frozen=True)
class Alignment:
    """Position of every photosite of the visible mosaic in the JPEG.

    orientation: what to do to the JPEG's pixels to lay them over the sensor,
        as an EXIF orientation (1 to 8): 1 is nothing; see :func:`orient`.
    step_x, origin_x: site x lies at ``(step_x * x + origin_x) / 2**24`` pixels
        of the oriented JPEG, pixel centres being integers; y likewise.
    warp: what is added to these positions; None for a plain crop or reduction.
    lateral: what more is added for red and blue of the JPEG; None for nothing.

    >>> Alignment(1, 1 << 24, -4 << 24, 1 << 24, -4 << 24).position_x(4)
    0.0
    """

    orientation: int
    step_x: int
    origin_x: int
    step_y: int
    origin_y: int
    warp: Warp | None = None
    lateral: Lateral | None = None

    def pack(self) -> bytes:
        """The ALGN chunk's payload (docs/FORMAT.md)."""
        warp, lateral = self.warp, self.lateral
        kind = 0 if warp is None else 1 + (len(warp.x) > len(TERMS))
        data = _STRUCT.pack(
            self.orientation,
            self.step_x,
            self.origin_x,
            self.step_y,
            self.origin_y,
            kind if lateral is None else kind | LATERAL,
        )
        if warp is not None:
            data += struct.pack(f"<{2 * len(warp.x)}i", *warp.x, *warp.y)
        if lateral is not None:
            data += _SHIFTS.pack(*lateral.red, *lateral.blue)
        return data

    @classmethod
    def unpack(cls, data: bytes) -> Alignment:
        """Read the ALGN chunk's payload.

        Raises ValueError where a field is out of its range.
        """
        if len(data) < _STRUCT.size:
            raise ValueError(f"the alignment has {len(data)} bytes, {_STRUCT.size} are its least")
        orientation, step_x, origin_x, step_y, origin_y, kind = _STRUCT.unpack_from(data)
        count = _SIZES.get(kind & ~LATERAL)
        if count is None:
            raise ValueError(f"the alignment is of the unknown kind {kind}")
        end = _STRUCT.size + 8 * count
        size = end + (_SHIFTS.size if kind & LATERAL else 0)
        if len(data) != size:
            raise ValueError(f"the alignment has {len(data)} bytes, not {size}")
        warp = lateral = None
        if count:
            coefficients = struct.unpack_from(f"<{2 * count}i", data, _STRUCT.size)
            warp = Warp(coefficients[:count], coefficients[count:])
        if kind & LATERAL:
            shifts = _SHIFTS.unpack_from(data, end)
            lateral = Lateral(shifts[:4], shifts[4:])
        alignment = cls(orientation, step_x, origin_x, step_y, origin_y, warp, lateral)
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
        """Column and row in the JPEG's green of sites, in units of 2**-24 pixels: int64 each.

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
            distance = _distance(x, y) if len(self.warp.x) > len(TERMS) else None
            u = u + (_displacement(self.warp.x, x, y, distance) << shift)
            v = v + (_displacement(self.warp.y, x, y, distance) << shift)
        return u, v

    def reached(
        self, width: int, height: int, jpeg_width: int, jpeg_height: int, margin: int
    ) -> np.ndarray | None:
        """Which sites the oriented JPEG reaches: bool (height, width), None for all.

        width, height: of the mosaic. jpeg_width, jpeg_height: of the oriented
        JPEG. margin: sites beyond its outermost pixel centres that count.
        """
        half = _REACHED_BLOCK // 2
        moves = half * self._steepest(max(width, height))
        rows, columns = np.arange(height, dtype=np.int64), np.arange(width, dtype=np.int64)
        # blocks whose middle is so far inside that no bend leads out from there
        sizes = (width, height), (jpeg_width, jpeg_height)
        middles = rows[half::_REACHED_BLOCK], columns[half::_REACHED_BLOCK]
        sure = self._inside(*middles, *sizes, margin, moves)
        each = np.repeat(sure, _REACHED_BLOCK, axis=1)[:, :width]
        known = np.zeros((-(-height // _REACHED_BLOCK), width), bool)
        known[: len(each), : each.shape[1]] = each
        result = np.ones((height, width), bool)
        for block, top in enumerate(range(0, height, _REACHED_BLOCK)):
            here = rows[top : top + _REACHED_BLOCK]
            left = columns[~known[block]]
            if len(left):
                result[here[:, None], left] = self._inside(here, left, *sizes, margin, 0)
        return None if result.all() else result

    def _inside(
        self,
        rows: np.ndarray,
        columns: np.ndarray,
        size: tuple[int, int],
        jpeg_size: tuple[int, int],
        margin: int,
        distance: int,
    ) -> np.ndarray:
        """Which sites lie inside the JPEG and its margin, by a distance: bool (r, c).

        size, jpeg_size: width and height. distance: in 2**-24 pixels.
        """
        inside = np.ones((len(rows), len(columns)), bool)
        positions = self.positions(rows, columns, *size)
        steps = self.step_x, self.step_y
        for position, step, pixels in zip(positions, steps, jpeg_size, strict=True):
            low = distance - margin * step
            high = ((pixels - 1) << FRACTION_BITS) + margin * step - distance
            inside &= (position >= low) & (position <= high)
        return inside

    def _steepest(self, length: int) -> int:
        """The most that a position changes over a site across and one down, in 2**-24 pixels.

        length: of the mosaic's longer side. No coordinate of a warp is beyond 1, nor its distance
        from the middle beyond the root of 2.
        """
        steepest = max(self.step_x, self.step_y)
        if self.warp is not None:
            slopes = [i + j for i, j in TERMS] + [2 + 2 * (i + j) for i, j in CONE_TERMS]
            bends = (
                sum(abs(c) * slope for c, slope in zip(axis, slopes, strict=False))
                for axis in (self.warp.x, self.warp.y)
            )
            most = max(bends)
            # coordinates are rounded, which the second is for, and so is what each is multiplied by
            units = -(-2 * most // length) + (most >> _UNIT_BITS) + 32
            steepest += units << (FRACTION_BITS - WARP_BITS)
        return steepest


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance of the sites (y, x) from the middle, rounded down: int64 (len(y), len(x))."""
    square = (x * x)[None, :] + (y * y)[:, None]
    root: np.ndarray = np.sqrt(square.astype(np.float64)).astype(np.int64)
    # whatever a library's root rounds to, the integer is the right one
    root -= root * root > square
    root += (root + 1) * (root + 1) <= square
    return root


def _displacement(
    coefficients: tuple[int, ...], x: np.ndarray, y: np.ndarray, distance: np.ndarray | None
) -> np.ndarray:
    """In 2**-16 pixels at the sites (y, x), coordinates in 2**-15: int64 (len(y), len(x)).

    All products fit 64 bits.
    """
    total = _polynomial(dict(zip(TERMS, coefficients, strict=False)), DEGREE, x, y)
    if distance is not None:
        cone = dict(zip(CONE_TERMS, coefficients[len(TERMS) :], strict=True))
        part = _polynomial({(0, 0): 0, **cone}, CONE, x, y)
        part *= distance
        part += 1 << (_UNIT_BITS - 1)
        part >>= _UNIT_BITS
        total += part
    return total


def _polynomial(
    terms: dict[tuple[int, int], int], degree: int, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Horner's scheme, rounding after each product: int64 (len(y), len(x))."""
    half = 1 << (_UNIT_BITS - 1)
    lines = []
    for i in range(degree + 1):
        line = np.zeros(len(y), np.int64)
        for j in range(degree - i, -1, -1):
            line = ((line * y + half) >> _UNIT_BITS) + terms[i, j]
        lines.append(line[:, None])
    total: np.ndarray = lines[degree] + np.zeros_like(x)
    for line in lines[degree - 1 :: -1]:
        total *= x
        # rounds, and the line is added in the same step
        total += (line << _UNIT_BITS) + half
        total >>= _UNIT_BITS
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
    """Weighted sums of one pass over columns to guide values, int16; in place."""
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
        self._reach = reach
        self._sites = np.arange(-reach, width + reach, dtype=np.int64)

    @property
    def is_plain(self) -> bool:
        """Whether it is the JPEG's own pixels, so that bands are quickly made once more."""
        one, a = 1 << FRACTION_BITS, self._alignment
        whole = a.step_x == a.step_y == one and a.origin_x % one == a.origin_y % one == 0
        return whole and a.warp is None and a.lateral is None

    def take(self, rows: np.ndarray, axis: int, /) -> np.ndarray:
        """Rows of the mosaic by their numbers, without the columns beyond: int16 (3, n, width).

        As an array of all of them would give them, axis being 1.
        """
        first, last = int(rows.min()), int(rows.max()) + 1
        band = self.band(first, last)[:, :, self._reach : self._reach + self._size[0]]
        return band if np.all(np.diff(rows) == 1) else band.take(rows - first, axis)

    def band(self, top: int, bottom: int) -> np.ndarray:
        """Guide of rows top..bottom-1, which may lie outside the mosaic.

        int16 (3, bottom - top, width + 2 reach), 0..4080. The result does not
        depend on how rows are grouped into bands.
        """
        planes = np.empty((3, bottom - top, len(self._sites)), np.int16)
        if self._alignment.warp is None:
            rows = np.arange(top, bottom, dtype=np.int64)
            u, v = self._alignment.positions(rows, self._sites, *self._size)
            if self._alignment.lateral is None:
                planes[:] = self._straight(u[0], v[:, 0], slice(None))
            else:
                for colour in range(3):
                    across, down = self._moved(colour, rows, self._sites, u, v)
                    planes[colour] = self._straight(
                        across[0], down[:, 0], slice(colour, colour + 1)
                    )[0]
        else:
            for first in range(top, bottom, _WARPED_ROWS):
                rows = np.arange(first, min(first + _WARPED_ROWS, bottom), dtype=np.int64)
                columns = _WARPED_SITES // len(rows)
                for left in range(0, len(self._sites), columns):
                    sites = self._sites[left : left + columns]
                    u, v = self._alignment.positions(rows, sites, *self._size)
                    part = planes[:, first - top :, left:][:, : len(rows), : len(sites)]
                    if self._alignment.lateral is None:
                        part[:] = self._warped(u, v, slice(None))
                        continue
                    for colour in range(3):
                        moved = self._moved(colour, rows, sites, u, v)
                        part[colour] = self._warped(*moved, slice(colour, colour + 1))[0]
        np.clip(planes, 0, GUIDE_MAX, out=planes)
        return planes

    def _moved(
        self, colour: int, rows: np.ndarray, sites: np.ndarray, u: np.ndarray, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions in a colour of the JPEG, from those in its green."""
        lateral = self._alignment.lateral
        assert lateral is not None
        step_x, origin_x, step_y, origin_y = lateral.of(colour)
        return u + (step_x * sites + origin_x), v + (step_y * rows + origin_y)[:, None]

    def _straight(self, u: np.ndarray, v: np.ndarray, colours: slice) -> np.ndarray:
        """Resampling where columns and rows are independent: int16 (colours, rows, columns)."""
        whole, phase = _whole_and_phase(v)
        pixels = self._pixels[:, :, colours]
        limit = pixels.shape[0] - 1
        if not phase.any():
            rows = pixels[np.clip(whole, 0, limit)]
            planes = np.ascontiguousarray(rows.transpose(2, 0, 1)).astype(np.int16) << 4
        else:
            taps = kernel()[phase]
            first = int(np.clip(whole.min() - 2, 0, limit))
            last = int(np.clip(whole.max() + 3, 0, limit))
            source = np.ascontiguousarray(pixels[first : last + 1].transpose(2, 0, 1))
            total = np.zeros((len(source), len(v), source.shape[2]), dtype=np.int32)
            for tap in range(_TAPS):
                rows = source[:, np.clip(whole + (tap - 2), 0, limit) - first]
                total += rows * taps[:, tap][None, :, None]
            # 8 + 8 bits down to 12, keeping overshoot for the horizontal pass
            planes = ((total + 8) >> 4).astype(np.int16)
        whole, phase = _whole_and_phase(u)
        limit = pixels.shape[1] - 1
        if not phase.any():
            plain: np.ndarray = np.take(planes, np.clip(whole, 0, limit), axis=2)
            return plain
        taps = kernel()[phase]
        total = np.zeros((len(planes), len(v), len(u)), dtype=np.int32)
        for tap in range(_TAPS):
            columns = np.take(planes, np.clip(whole + (tap - 2), 0, limit), axis=2)
            total += columns * taps[:, tap]
        return _round_sums(total)

    def _around(self, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels around sites, uint8 (h, w, 3), and in them the place of each site's first.

        column, row: of that first pixel, from which 6 x 6 are weighed; int64 of any shape.
        Beyond the JPEG is its nearest edge pixel.
        """
        bottom, right = (n - 1 for n in self._pixels.shape[:2])
        beyond = -_TAPS  # all six are that edge pixel
        column, row = (np.clip(n, beyond, m) for n, m in ((column, right), (row, bottom)))
        (left, last), (top, lowest) = ((int(n.min()), int(n.max()) + _TAPS) for n in (column, row))
        width, height = last - left, lowest - top
        if width * height <= _SCATTERED * max(column.size, _WARPED_SITES // _WARPED_ROWS):
            rows = np.clip(np.arange(top, lowest), 0, bottom)
            columns = np.clip(np.arange(left, last), 0, right)
            pixels = self._pixels[rows[0] : rows[-1] + 1].take(columns, 1).take(rows - rows[0], 0)
            return pixels, (row - top) * width + (column - left)
        # as no lens bends a picture, but damaged data may: each site has its own six columns
        taps = np.arange(_TAPS)
        columns = np.clip(column.reshape(-1, 1) + taps, 0, right).ravel()
        rows = np.clip(np.repeat(row.ravel(), _TAPS) + taps[:, None], 0, bottom)
        return self._pixels[rows, columns], np.arange(0, columns.size, _TAPS).reshape(row.shape)

    def _warped(self, u: np.ndarray, v: np.ndarray, colours: slice) -> np.ndarray:
        """Resampling where every site has its own phases: int16 (colours, rows, columns)."""
        column, phase_x = _whole_and_phase(u)
        row, phase_y = _whole_and_phase(v)
        pixels, first = self._around(column - 2, row - 2)
        across, down = (
            [weights.take(phase) for weights in kernel().T.astype(np.int64)]
            for phase in (phase_x, phase_y)
        )
        # keeps the fields from borrowing from one another; weights sum to one, and so it comes back
        bias = 1 << (_FIELD_BITS - 1)
        half = (bias + 8) * (1 | 1 << _FIELD_BITS | 1 << 2 * _FIELD_BITS)
        shift = 4
        back = (bias >> shift) << TAP_BITS
        sums, place, looked_up = (np.empty(u.shape, np.int64) for _ in range(3))
        planes = []
        for plane in np.moveaxis(pixels[:, :, colours], 2, 0):
            # a pixel and the two right of it in one integer are looked up and weighed at once
            flat = plane.astype(np.int64).ravel()
            packed = flat.copy()
            packed[:-1] |= flat[1:] << _FIELD_BITS
            packed[:-2] |= flat[2:] << 2 * _FIELD_BITS
            total = np.full(u.shape, -back, np.int64)
            for tap_x in range(0, _TAPS, 3):
                sums.fill(half)
                np.add(first, tap_x, out=place)
                for weights in down:
                    # the places are all inside; "clip" spares a check and a copy
                    packed.take(place, out=looked_up, mode="clip")
                    looked_up *= weights
                    sums += looked_up
                    place += plane.shape[1]
                for n in range(3):
                    np.right_shift(sums, n * _FIELD_BITS + shift, out=looked_up)
                    looked_up &= (1 << (_FIELD_BITS - shift)) - 1
                    looked_up *= across[tap_x + n]
                    total += looked_up
            planes.append(_round_sums(total))
        return np.stack(planes)
