"""The tone layer's parameters, and the mosaic that they predict, in integers.

A site's prediction takes four steps, all in integers, so that every machine
gives the same mosaic (design, section 4):

1. a symmetric 5x5 filter over the guide (the JPEG resampled to photosites)
   takes back the sharpening or blurring of the camera's rendering;
2. a colour table per raw colour, 9x9x9 nodes over the guide's RGB, linear in
   between, gives a companded value;
3. a gain per raw colour, from a grid over the picture (9x12) and over
   brightness (4), takes back vignetting, local contrast and what the JPEG
   clipped;
4. the companded value, a square root, is expanded to DN.

Where the JPEG does not reach (a crop), a coarse grid of companded values per
colour takes the place of steps 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..mosaic import planes
from ..sensor import Sensor

NODES = 9
"""Nodes of the colour table along each of R, G and B."""

ROWS, COLUMNS, LEVELS = 9, 12, 4
"""Nodes of the gain grid: down, across, and over brightness."""

UNIT_BITS = 15
"""A companded value of 2**15 is the white level; 0 is the black level."""

VALUE_MAX = 46340
"""Largest companded value: its square fits 31 bits, twice the white level."""

GAIN_BITS = 12
GAIN_MAX = (1 << 15) - 1
TABLE_MAX = (1 << 16) - 1

FILTER_BITS = 10
FILTER_LIMIT = 1 << FILTER_BITS
REACH = 2
"""Sites around a band that the filter looks at."""

CLASSES = ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
"""The filter's taps, by distance: |dy|, |dx| or the reverse."""

TAPS = (4, 4, 4, 8, 4)
"""How many neighbours each class has."""

MARGIN = 4
"""Sites beyond the JPEG's edge that its edge pixels still predict better than the border grid."""

_CELL_BITS = 9  # 8 cells of 512 across 4096
_GUIDE_MAX = 4080


@dataclass(frozen=True)
class Border:
    """Companded values over the sites that the JPEG does not reach.

    shift: nodes are 2**shift sites apart, the first at the first site.
    nodes: int32 (3, rows, columns), for R, G, B; only nodes near uncovered
        sites matter, others are 0.
    """

    shift: int
    nodes: np.ndarray


@dataclass(frozen=True)
class Tone:
    """The tone layer of one photo.

    taps: five filter weights, in units of 2**-10, of the classes ``CLASSES``.
    table: int32 (3, 9, 9, 9): companded value by raw colour and guide R, G, B.
    gains: int32 (3, 4, 9, 12): by raw colour, brightness, row and column, in
        units of 2**-12.
    border: None where the JPEG covers the mosaic (but for ``MARGIN`` sites).
    """

    taps: tuple[int, ...]
    table: np.ndarray
    gains: np.ndarray
    border: Border | None


def used_colours(sensor: Sensor) -> tuple[int, ...]:
    """Colours that the sensor has, green first: (1, 0, 2), or (1,) if monochrome."""
    present = {colour for colour, _, _ in planes(sensor)}
    return tuple(c for c in (1, 0, 2) if c in present)


def neighbour_sums(guide: np.ndarray) -> list[np.ndarray]:
    """Sums over each class of neighbours: int16 (3, rows, columns) each.

    guide: int16 (3, rows + 4, columns + 4), 0..4080; eight of its values still
    fit 16 bits.
    """
    height, width = guide.shape[1] - 4, guide.shape[2] - 4

    def at(rows: np.ndarray, dx: int) -> np.ndarray:
        return rows[:, :, 2 + dx : 2 + dx + width]

    middle = guide[:, 2 : 2 + height]
    near = guide[:, 1 : 1 + height] + guide[:, 3 : 3 + height]
    far = guide[:, 0:height] + guide[:, 4 : 4 + height]
    return [
        at(middle, -1) + at(middle, 1) + at(near, 0),
        at(near, -1) + at(near, 1),
        at(middle, -2) + at(middle, 2) + at(far, 0),
        at(near, -2) + at(near, 2) + at(far, -1) + at(far, 1),
        at(far, -2) + at(far, 2),
    ]


def sharpen(guide: np.ndarray, taps: tuple[int, ...]) -> np.ndarray:
    """Step 1: the guide filtered, int32 (3, rows, columns), on a scale of 0 to 4096.

    guide: int16 (3, rows + 4, columns + 4), 0..4080.
    """
    centre = guide[:, 2:-2, 2:-2]
    if any(taps):
        weight = (1 << FILTER_BITS) - sum(n * w for n, w in zip(TAPS, taps, strict=True))
        total = centre * np.int32(weight)
        for sums, tap in zip(neighbour_sums(guide), taps, strict=True):
            total += sums * np.int32(tap)
        total += 1 << (FILTER_BITS - 1)
        total >>= FILTER_BITS
        np.clip(total, 0, _GUIDE_MAX, out=total)
    else:
        total = centre.astype(np.int32)
    # 4080 to 4096: table cells of 512
    total += (total + 128) >> 8
    return total


def grid_positions(
    length: int, nodes: int, first: int, last: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cell and 12-bit fraction of sites first, first + step... below last, int32.

    The first of ``nodes`` nodes is at site 0, the last at site length - 1.
    """
    sites = np.arange(first, last, step, dtype=np.int64)
    position = sites * ((nodes - 1) << 12) // max(length - 1, 1)
    cell = np.minimum(position >> 12, nodes - 2)
    return cell.astype(np.int32), (position - (cell << 12)).astype(np.int32)


def _lerp(a: np.ndarray, b: np.ndarray, fraction: np.ndarray, bits: int) -> np.ndarray:
    """a + (b - a) * fraction / 2**bits, rounded half up."""
    b -= a
    b *= fraction
    b += 1 << (bits - 1)
    b >>= bits
    b += a
    return b


def _look_up(table: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Step 2: int32 companded values of a plane; rgb int32 (3, n), 0..4096."""
    cell = np.minimum(rgb >> _CELL_BITS, NODES - 2)
    fraction = rgb - (cell << _CELL_BITS)
    # of the type that "take" wants, so that it need not convert it eight times
    base = ((cell[0] * NODES + cell[1]) * NODES + cell[2]).astype(np.intp)
    flat = table.reshape(-1)

    def edge(offset: int) -> np.ndarray:
        low, high = flat[offset:].take(base), flat[offset + 1 :].take(base)
        return _lerp(low, high, fraction[2], _CELL_BITS)

    def face(offset: int) -> np.ndarray:
        return _lerp(edge(offset), edge(offset + NODES), fraction[1], _CELL_BITS)

    return _lerp(face(0), face(NODES * NODES), fraction[0], _CELL_BITS)


def _gain(
    gains: np.ndarray,
    rgb: np.ndarray,
    down: tuple[np.ndarray, np.ndarray],
    across: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Step 3: int32 gains of a plane of rows x columns sites; rgb int32 (3, n)."""
    cell, fraction = down
    lines = _lerp(gains[:, cell], gains[:, cell + 1], fraction[:, None], 12)
    cell, fraction = across
    maps = _lerp(lines[:, :, cell], lines[:, :, cell + 1], fraction, 12).reshape(LEVELS, -1)
    position = (rgb[0] + 2 * rgb[1] + rgb[2] + 2) >> 2
    position *= LEVELS - 1
    level = np.minimum(position >> 12, LEVELS - 2)
    position -= level << 12
    sites = maps.shape[1]
    place = level.astype(np.intp) * sites
    place += np.arange(sites)
    flat = maps.reshape(-1)
    return _lerp(flat.take(place), flat[sites:].take(place), position, 12)


def expand(values: np.ndarray, black: int, white: int) -> np.ndarray:
    """Step 4: companded values, integers, to DN, uint16."""
    wide: np.ndarray = np.clip(values, 0, VALUE_MAX).astype(np.int64)
    wide *= wide
    wide *= white - black
    wide += 1 << (2 * UNIT_BITS - 1)
    wide >>= 2 * UNIT_BITS
    wide += black
    np.minimum(wide, 65535, out=wide)
    return wide.astype(np.uint16)


def predict_band(
    tone: Tone,
    sensor: Sensor,
    guide: np.ndarray,
    top: int,
    reached: np.ndarray | None,
    out: np.ndarray,
) -> None:
    """Predict the mosaic's rows top, top + 1... into ``out``, as companded values.

    guide: int16 (3, rows + 4, W + 4): the guide of these rows with two more
        sites on every side. reached: bool (rows, W), the sites that the
        JPEG reaches, or None for all. out: uint16 (rows, W), or (rows, W, 3),
        0..``VALUE_MAX``.

    The result does not depend on how rows are grouped into bands.
    """
    rgb = sharpen(guide, tone.taps)
    rows, width = rgb.shape[1:]
    for colour, _, index in planes(sensor):
        first, rows_step, j, columns_step = _lattice(index, top)
        target = (slice(first, None, rows_step), *index[1:])
        part = np.ascontiguousarray(rgb[:, first::rows_step, j::columns_step])
        shape = part.shape[1:]
        if not all(shape):
            continue
        down = grid_positions(sensor.height, ROWS, top + first, top + rows, rows_step)
        across = grid_positions(sensor.width, COLUMNS, j, width, columns_step)
        flat = part.reshape(3, -1)
        values = _look_up(tone.table[colour], flat)
        values *= _gain(tone.gains[colour], flat, down, across)
        values += 1 << (GAIN_BITS - 1)
        values >>= GAIN_BITS
        values = values.reshape(shape)
        if tone.border is not None and reached is not None:
            _predict_border(
                tone.border,
                colour,
                np.arange(top + first, top + rows, rows_step),
                np.arange(j, width, columns_step),
                reached[first::rows_step, j::columns_step],
                values,
            )
        out[target] = np.clip(values, 0, VALUE_MAX, out=values)


def expand_band(sensor: Sensor, values: np.ndarray, top: int, out: np.ndarray) -> None:
    """Step 4 for the rows top, top + 1...: companded ``values`` to DN in ``out``.

    values: integers of the shape of ``out``: uint16 (rows, W) or (rows, W, 3).
    """
    for _, black, index in planes(sensor):
        first, rows_step, _, _ = _lattice(index, top)
        target = (slice(first, None, rows_step), *index[1:])
        out[target] = expand(values[target], black, sensor.white)


@lru_cache(maxsize=8)
def companded(black: int, white: int) -> np.ndarray:
    """The inverse of step 4, for encoders: the nearest companded values of all DN, uint16 (65536,).

    Below the black level, 0.
    """
    linear = np.arange(1 << 16, dtype=np.float32)
    linear -= black
    linear *= np.float32((1 << 2 * UNIT_BITS) / (white - black))
    np.maximum(linear, 0, out=linear)
    np.sqrt(linear, out=linear)
    return np.minimum(np.rint(linear, out=linear), VALUE_MAX).astype(np.uint16)


class Companded:
    """A plane of samples, companded where it is looked at: see ``companded``."""

    def __init__(self, sensor: Sensor, samples: np.ndarray, colour: int | None) -> None:
        """samples: uint16 of ``sensor.shape``. colour: which plane of a linear raw, else None."""
        self._samples = samples if colour is None else samples[:, :, colour]
        self.shape = self._samples.shape
        levels = sensor.black if colour is None else (sensor.black[colour],)
        self._period = sensor.period if len(set(levels)) > 1 else (1, 1)
        self._tables = [companded(black, sensor.white) for black in levels]

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Rows from one to before another: uint16 (h, W)."""
        part = self._samples[rows]
        if self._period == (1, 1):
            return self._tables[0].take(part)
        result = np.empty(part.shape, np.uint16)
        down, across = self._period
        first = rows.indices(len(self._samples))[0]
        for number, table in enumerate(self._tables):
            here = np.s_[(number // across - first) % down :: down, number % across :: across]
            result[here] = table.take(part[here])
        return result


def _lattice(index: tuple[slice | int, ...], top: int) -> tuple[int, int, int, int]:
    """A plane in a band that starts at row ``top``: first row and step, first column and step."""
    (i, rows_step), (j, columns_step) = (
        (s.start or 0, s.step or 1) for s in index[:2] if isinstance(s, slice)
    )
    return (i - top) % rows_step, rows_step, j, columns_step


def _predict_border(
    border: Border,
    colour: int,
    y: np.ndarray,
    x: np.ndarray,
    reached: np.ndarray,
    values: np.ndarray,
) -> None:
    """Replace the companded values of sites (y, x) that the JPEG does not reach."""
    missing = ~reached
    rows, columns = (np.flatnonzero(missing.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return
    part = np.ix_(rows, columns)
    instead = border_values(border, colour, y[rows], x[columns])
    values[part] = np.where(missing[part], instead, values[part])


def border_values(border: Border, colour: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Border grid at the sites of rows y and columns x: int32 (len(y), len(x))."""
    shift = border.shift
    mask = (1 << shift) - 1
    nodes = border.nodes[colour]
    rows, columns = y >> shift, x >> shift
    fy, fx = ((n & mask).astype(np.int32) for n in (y, x))
    lines = _lerp(nodes[rows], nodes[rows + 1], fy[:, None], shift)
    return _lerp(lines[:, columns], lines[:, columns + 1], fx, shift)


def border_shape(sensor: Sensor, shift: int) -> tuple[int, int]:
    """Rows and columns of a border grid: a node at or beyond every site and one more."""
    return (sensor.height - 1 >> shift) + 2, (sensor.width - 1 >> shift) + 2


def border_mask(sensor: Sensor, reached: np.ndarray, shift: int) -> np.ndarray:
    """Which nodes of the border grid matter: bool (rows, columns).

    The corners of cells that hold a site which the JPEG does not reach.
    reached: bool (H, W).
    """
    rows, columns = border_shape(sensor, shift)
    size = 1 << shift
    lines = np.logical_and.reduceat(reached, np.arange(0, sensor.height, size), axis=0)
    cells = ~np.logical_and.reduceat(lines, np.arange(0, sensor.width, size), axis=1)
    mask = np.zeros((rows, columns), bool)
    for dy in (0, 1):
        for dx in (0, 1):
            mask[dy : dy + rows - 1, dx : dx + columns - 1] |= cells
    return mask
