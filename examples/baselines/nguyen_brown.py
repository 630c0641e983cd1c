"""Nguyen and Brown: one map from the picture's colours to the raw's, the same at all places.

After "RAW Image Reconstruction using a Self-Contained sRGB-JPEG Image with only 64 KB Overhead",
CVPR 2016, and the model of cameras that it builds on (Kim et al., "A New In-Camera Imaging Model
for Color Computer Vision and its Application", PAMI 2012). A camera takes a raw through white
balance and a matrix, a gamut mapping and a tone curve. Backwards:

    light = inverse curve(pixel);  raw = matrix x light + inverse gamut mapping(light)

The curve is one for the three channels. White balance is part of the matrix, as only their product
is ever used. The gamut mapping is a surface of radial functions through control points: means of
the cells of an octree over the picture's colours, cells being split where pixels are many.

The file has the curve, the matrix and, in 16 bits a channel, the raw at the control points less
what curve and matrix give there, packed by LZMA. 64 KB are the paper's limit; a few thousand
points, from where on more gain next to nothing, take a fraction of it. All bytes of the file are
counted. Where control points lie costs nothing, in the method's favour: the decoder builds the same
octree from the same picture, in integers.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from .interface import WHITE, pixels
from .sam import (
    LINEAR,
    check_pair,
    check_size,
    fit_surface,
    pack_integers,
    surface,
    unpack_integers,
)

LIMIT: Final = 64 << 10
"""Bytes of a file, at most."""

POINTS: Final = 4096
"""Control points, at most, which keeps files under 26 KB. Twice as many gained 0.1 dB on a photo
with many colours, and take four to eight times as long."""

_MAGIC: Final = b"NB64"
# magic, rows, columns, most pixels of a cell of the octree, control points, CRC-32 of the rest
_HEADER: Final = struct.Struct("<4sHHIHI")
_CRC_SIZE: Final = 4
_MATRIX: Final = np.dtype("<i4")
_FRACTION_BITS: Final = 16
_MOST: Final = 64
"""The largest entry of the matrix, which very dark pictures of bright raws might exceed."""

_LEVELS: Final = 256
_BITS: Final = 8
_RIDGE: Final = 0.1
"""How far the surface may miss a control point that is the mean of one pixel."""

_ITERATIONS: Final = 20
_SMOOTH, _PRIOR = 1e-3, 1e-6
"""What holds the curve: its bends, and its distance from that of sRGB where no pixel tells."""

_ENOUGH: Final = 64
"""Pixels that are not clipped, to fit curve and matrix to them alone."""


@dataclass(frozen=True)
class _Colours:
    """The colours of a picture, each once, in the order of an octree's leaves.

    levels: uint8 (n, 3). counts: pixels of each. index: the colour of each pixel, row by row.
    codes: the paths through the octree, three bits a level.
    """

    levels: np.ndarray
    counts: np.ndarray
    index: np.ndarray
    codes: np.ndarray

    @staticmethod
    def of(shown: np.ndarray) -> _Colours:
        """Those of pixels (H, W, 3)."""
        table = np.zeros(_LEVELS, np.int64)
        for bit in range(_BITS):
            table |= (np.arange(_LEVELS) >> bit & 1) << 3 * bit
        flat = shown.reshape(-1, 3)
        paths = table[flat[:, 0]] << 2 | table[flat[:, 1]] << 1 | table[flat[:, 2]]
        codes, first, index, counts = np.unique(
            paths, return_index=True, return_inverse=True, return_counts=True
        )
        return _Colours(flat[first], counts, index, codes)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Of values of pixels (H, W, 3), by colour: float64 (n, 3)."""
        sums = [
            np.bincount(self.index, values[:, :, k].ravel(), len(self.counts)) for k in range(3)
        ]
        means: np.ndarray = np.stack(sums, 1) / self.counts[:, None]
        return means

    def cells(self, most: int) -> np.ndarray:
        """The cell of each colour, numbered from 0: the largest with at most ``most`` pixels.

        A cell of one colour may have more.
        """
        depth = np.full(len(self.codes), _BITS)
        for level in range(_BITS - 1, -1, -1):
            paths = self.codes >> 3 * (_BITS - level)
            starts = np.flatnonzero(np.diff(paths, prepend=-1))
            sums = np.add.reduceat(self.counts, starts)
            sizes = np.diff(starts, append=len(paths))
            depth[np.repeat(sums, sizes) <= most] = level
        paths = self.codes >> 3 * (_BITS - depth)
        # neighbours in one cell have the same path, of the same length
        changes = (np.diff(paths, prepend=-1) != 0) | (np.diff(depth, prepend=-1) != 0)
        return np.cumsum(changes) - 1


class NguyenBrown:
    """See the module. points: control points, at most; no more than ``POINTS``."""

    name = "Nguyen and Brown"

    def __init__(self, points: int = POINTS) -> None:
        if not 1 <= points <= POINTS:
            raise ValueError(f"there are 1 to {POINTS} control points, not {points}")
        self._points = points

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``. Pictures have up to 65535 rows and columns; at most ``LIMIT`` bytes."""
        shown = pixels(picture)
        check_pair(raw, shown)
        height, width, _ = shown.shape
        colours = _Colours.of(shown)
        most = _cell_size(colours, self._points)
        cells = colours.cells(most)
        curve, matrix = _fit(shown, raw)
        _, mapped = _linear(colours, cells, curve, matrix)
        rest = np.round(_by_cell(colours, cells, colours.means(raw))).astype(np.int64) - mapped
        body = matrix.astype(_MATRIX).tobytes()
        body += pack_integers(np.concatenate([np.diff(curve, prepend=0), rest.ravel()]))
        head = _HEADER.pack(_MAGIC, height, width, most, len(rest), 0)[:-_CRC_SIZE]
        return head + zlib.crc32(head + body).to_bytes(_CRC_SIZE, "little") + body

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``."""
        least = _HEADER.size + 9 * _MATRIX.itemsize
        if len(data) < least:
            raise ValueError(f"truncated: {len(data)} of the first {least} bytes are there")
        magic, height, width, most, points, crc = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not written by Nguyen and Brown's method")
        if zlib.crc32(data[: _HEADER.size - _CRC_SIZE] + data[_HEADER.size :]) != crc:
            raise ValueError("truncated or damaged: the CRC-32 does not match")
        shown = pixels(picture)
        check_size(shown, height, width)
        colours = _Colours.of(shown)
        cells = colours.cells(most)
        if points > POINTS or points != cells[-1] + 1:
            raise ValueError(f"{points} control points are not this picture's: it is another one")
        matrix = np.frombuffer(data[_HEADER.size : least], _MATRIX).reshape(3, 3).astype(np.int64)
        numbers = unpack_integers(data[least:], _LEVELS + 3 * points)
        curve = np.cumsum(numbers[:_LEVELS], dtype=np.int64) & WHITE
        linear, mapped = _linear(colours, cells, curve, matrix)
        means = mapped + numbers[_LEVELS:].reshape(-1, 3) & WHITE  # packed values are modulo 2^16
        light = curve[colours.levels] / WHITE
        middle = light.mean(0)
        controls = _by_cell(colours, cells, light) - middle
        # a mean of many pixels is to be trusted more
        ridge = _RIDGE / np.bincount(cells, colours.counts)
        weights = fit_surface(controls, means - mapped, ridge)
        found = linear + surface(weights, controls, light - middle)
        samples = np.round(np.clip(found, 0, WHITE)).astype(np.uint16)
        raw: np.ndarray = samples[colours.index].reshape(shown.shape)
        return raw


def _cell_size(colours: _Colours, points: int) -> int:
    """The least that ``_Colours.cells`` takes to give no more cells than this."""
    low, high = 1, int(colours.counts.sum())
    while low < high:
        middle = (low + high) // 2
        if colours.cells(middle)[-1] < points:
            high = middle
        else:
            low = middle + 1
    return low


def _linear(
    colours: _Colours, cells: np.ndarray, curve: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What curve and matrix give by colour (n, 3), and by cell (cells, 3).

    In integers, lest the values at control points depend on how a sum was rounded.
    """
    linear = curve[colours.levels] @ matrix.T >> _FRACTION_BITS
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    sums = np.add.reduceat(linear * colours.counts[:, None], starts)
    return linear, sums // np.add.reduceat(colours.counts, starts)[:, None]


def _by_cell(colours: _Colours, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over cells of values by colour (n, 3), by pixels: float64 (cells, 3)."""
    sums = [np.bincount(cells, colours.counts * values[:, k]) for k in range(3)]
    return np.stack(sums, 1) / np.bincount(cells, colours.counts)[:, None]


def _fit(shown: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse tone curve and matrix, by alternating least squares on the raw.

    Returns integers: (256,), rising to ``WHITE``, and (3, 3), 1 being 2^``_FRACTION_BITS``.
    Pixels with a clipped channel are left to the gamut mapping. A level's value is the mean over
    the pixels that were rounded to it, so rounding to 8 bits is part of the model.
    """
    levels = shown.reshape(-1, 3)
    samples = raw.reshape(-1, 3) / WHITE
    inside = ((levels > 0) & (levels < _LEVELS - 1)).all(1)
    if inside.sum() >= _ENOUGH:
        levels, samples = levels[inside], samples[inside]
    # all that both fits need of the pixels: which levels meet, and the raw's sum by level
    whole = levels.astype(np.int64)
    meet = np.empty((3, 3, _LEVELS, _LEVELS))
    sums = np.empty((3, _LEVELS, 3))
    for c in range(3):
        for d in range(3):
            pairs = np.bincount(whole[:, c] * _LEVELS + whole[:, d], minlength=_LEVELS**2)
            meet[c, d] = pairs.reshape(_LEVELS, _LEVELS) / len(levels)
            sums[c, :, d] = np.bincount(whole[:, c], samples[:, d], _LEVELS) / len(levels)
    bends = np.diff(np.eye(_LEVELS), 2, axis=0)
    curve = LINEAR
    for _ in range(_ITERATIONS):
        matrix = _matrix(curve, meet, sums)
        system = np.einsum("kc,kd,cdij->ij", matrix, matrix, meet, optimize=True)
        scale = np.trace(system) / _LEVELS + 1e-12
        system += scale * (_SMOOTH * bends.T @ bends + _PRIOR * np.eye(_LEVELS))
        right = np.einsum("kc,cik->i", matrix, sums) + scale * _PRIOR * LINEAR
        curve = np.maximum.accumulate(np.maximum(np.linalg.solve(system, right), 0))
        curve = curve / curve[-1] if curve[-1] > 0 else LINEAR
    written = np.round(curve * WHITE).astype(np.int64)
    matrix = np.clip(_matrix(written / WHITE, meet, sums), -_MOST, _MOST)
    return written, np.round(matrix * (1 << _FRACTION_BITS)).astype(np.int64)


def _matrix(curve: np.ndarray, meet: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) from light to raw that goes best with a curve."""
    products = np.einsum("i,cdij,j->cd", curve, meet, curve, optimize=True)
    matrix: np.ndarray = np.linalg.solve(
        products + 1e-9 * np.eye(3), np.einsum("i,cik->ck", curve, sums)
    ).T
    return matrix
