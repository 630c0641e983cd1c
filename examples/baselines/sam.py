"""SAM: a grid of raw samples, interpolated over places and colours.

After Punnappurath and Brown, "Spatially Aware Metadata for Raw Reconstruction", WACV 2021: the raw
is sampled on a uniform grid, and window by window radial basis functions over (x, y, R, G, B),
place and sRGB colour, are put through the samples. There is no training.

Bits per pixel are 8 x bytes of the file / pixels, everything included. Tables of later papers
count, by their numbers, 48 bits a sample, three of 16 bits, whose places cost nothing: one sample
in 8x8 pixels is their 0.75 bpp, in 71x71 their 9.52e-3, in 224x224 their 9.56e-4. Here samples
keep their 16 bits but are packed, to some 30 bits by three, and the grid is the finest that the
rate pays for.
"""

from __future__ import annotations

import binascii
import lzma
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from .interface import WHITE, pixels

_MAGIC: Final = b"SM"
# magic, rows and columns of the picture, rows and columns of the grid, settings, CRC-16 of the rest
_HEADER: Final = struct.Struct("<2sHHHHBH")
_CRC_SIZE: Final = 2
_LEAST: Final = 3
"""Rows and columns of a grid, at least: fewer samples do not span the colours. Pictures too small
for their rate get as many."""

_CORE, _MARGIN = 8, 4
"""A window's samples, a side: pixels among ``_CORE`` are interpolated, ``_MARGIN`` around help."""

_UNITS: Final = tuple(1 << n for n in range(5, 13))
_RIDGES: Final = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_TRIED_WINDOWS, _TRIED_PIXELS = 64, 400
"""What settings are tried on, at most: windows, and pixels of each."""

_HALVINGS: Final = 14
"""Of the range that the grid's spacing is looked for in: to less than one part in a thousand."""

_CHUNK: Final = 1 << 20
"""Distances at a time."""

_LEVEL: Final = np.arange(256) / 255
LINEAR: Final = np.where(_LEVEL <= 0.04045, _LEVEL / 12.92, ((_LEVEL + 0.055) / 1.055) ** 2.4)
"""Light by level of sRGB (IEC 61966-2-1), 0..1."""

_WHOLE: Final = np.round(LINEAR * WHITE).astype(np.int64)
_FRACTION_BITS: Final = 12
_COEFFICIENTS: Final = (4, 3)
# a large dictionary would be cleared for every few bytes that are packed
_FILTERS: Final = [
    {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}
]


@dataclass(frozen=True)
class _Settings:
    """How windows are interpolated.

    linear: colours are linear light, not sRGB. unit: pixels as far apart as black and white.
    ridge: how far the surface may miss samples; 0 for not at all.
    """

    linear: bool
    unit: int
    ridge: float

    def pack(self) -> int:
        """As 7 bits."""
        return self.linear | _UNITS.index(self.unit) << 1 | _RIDGES.index(self.ridge) << 4

    @staticmethod
    def unpack(bits: int) -> _Settings:
        return _Settings(bool(bits & 1), _UNITS[bits >> 1 & 7], _RIDGES[bits >> 4 & 7])


@dataclass(frozen=True)
class _Window:
    """Slices of the picture whose pixels are interpolated, and of the grid whose samples count."""

    pixels: tuple[slice, slice]
    samples: tuple[slice, slice]


class SAM:
    """Samples on a grid that takes ``rate`` bits per pixel, or up to a few per cent less.

    The radial function is the distance itself, with an affine part, as in the models of colour of
    one of the authors. The plain method puts the surface through every sample and takes colours as
    they are in the picture. That is weak where samples are noisy, or so few that they cannot follow
    the curve of sRGB. So the encoder also tries surfaces that miss samples a little, colours in
    linear light, and how much a pixel of distance weighs against colour; what does best on a share
    of the windows is written in one byte.

    A window where the affine part has no unique solution, since its colours lie in a plane or are
    all the same, as in strongly compressed JPEGs, gets the solution of least slope.

    tuned: False for the plain method, the picture's longer side being as far as black from white.
    """

    def __init__(self, rate: float, tuned: bool = True) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is positive, not {rate}")
        self.rate = rate
        self.tuned = tuned
        self.name = f"SAM, {rate:g} bpp" if tuned else f"SAM untuned, {rate:g} bpp"

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``. Pictures have up to 65535 rows and columns."""
        shown = pixels(picture)
        check_pair(raw, shown)
        grid, body, predicted = self._sample(raw, shown)
        settings = _choose(raw, shown, grid) if self.tuned else _plain(shown)
        height, width, _ = shown.shape
        bits = settings.pack() | predicted << 7
        rows, columns = (len(places) for places in grid)
        head = _HEADER.pack(_MAGIC, height, width, rows, columns, bits, 0)[:-_CRC_SIZE]
        return head + binascii.crc_hqx(head + body, 0).to_bytes(_CRC_SIZE, "little") + body

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``."""
        if len(data) < _HEADER.size:
            raise ValueError(f"truncated: {len(data)} of the first {_HEADER.size} bytes are there")
        magic, height, width, rows, columns, bits, crc = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not written by SAM")
        body = data[_HEADER.size :]
        if binascii.crc_hqx(data[: _HEADER.size - _CRC_SIZE] + body, 0) != crc:
            raise ValueError("truncated or damaged: the CRC-16 does not match")
        shown = pixels(picture)
        check_size(shown, height, width)
        if not (0 < rows <= height and 0 < columns <= width):
            raise ValueError(f"damaged: a grid of {rows} x {columns} does not fit the picture")
        grid = _places(height, rows), _places(width, columns)
        samples = _unpack(body, shown[np.ix_(*grid)], bool(bits >> 7))
        settings = _Settings.unpack(bits)
        raw = np.empty(shown.shape, np.uint16)
        for window in _windows(height, width, rows, columns):
            values = _interpolate(window, shown, grid, samples, settings)
            raw[window.pixels] = np.round(values).astype(np.uint16)
        return raw

    def _sample(
        self, raw: np.ndarray, shown: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], bytes, bool]:
        """The finest grid that the rate pays for, its packed samples, and if they are predicted."""
        height, width, _ = shown.shape
        budget = self.rate * height * width / 8 - _HEADER.size
        fine, coarse = 0.0, np.log2(max(height, width))
        best = None
        for _ in range(_HALVINGS):
            middle = (fine + coarse) / 2
            found = _packed(raw, shown, _grid(height, width, 2**middle))
            if len(found[1]) <= budget:
                coarse, best = middle, found
            else:
                fine = middle
        return best or _packed(raw, shown, _grid(height, width, max(height, width)))


def check_pair(raw: np.ndarray, shown: np.ndarray) -> None:
    """ValueError unless samples and pixels are as ``System`` has them, and sizes fit 16 bits."""
    if raw.dtype != np.uint16 or raw.shape != shown.shape:
        raise ValueError(f"a raw of {raw.dtype} {raw.shape} for a picture of {shown.shape}")
    if max(raw.shape) > 0xFFFF:
        raise ValueError(f"{raw.shape[0]} x {raw.shape[1]} pixels; the limit is 65535 a side")


def check_size(shown: np.ndarray, height: int, width: int) -> None:
    """ValueError unless a picture has the size that the data are for."""
    if shown.shape[:2] != (height, width):
        raise ValueError(
            f"the data are for {height} x {width} pixels, the picture has "
            f"{shown.shape[0]} x {shown.shape[1]}"
        )


def pack_integers(values: np.ndarray) -> bytes:
    """Integers, those beyond 16 bits wrapped, as LZMA of their high bytes, then their low bytes."""
    halves = values.astype(np.int64).astype("<u2").reshape(-1, 1).view(np.uint8)
    return lzma.compress(halves.T[::-1].tobytes(), lzma.FORMAT_RAW, filters=_FILTERS)


def unpack_integers(data: bytes, count: int) -> np.ndarray:
    """What ``pack_integers`` wrote: uint16 (count,). ValueError if it is anything else."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        halves = decoder.decompress(data, 2 * count + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError("damaged: the packed values cannot be read") from error
    if len(halves) != 2 * count or not decoder.eof or decoder.unused_data:
        raise ValueError(f"truncated or damaged: not {count} values")
    planes = np.frombuffer(halves, np.uint8).reshape(2, -1).astype(np.uint16)
    values: np.ndarray = planes[0] << 8 | planes[1]
    return values


def fit_surface(points: np.ndarray, values: np.ndarray, ridge: np.ndarray | float) -> np.ndarray:
    """Weights of a surface of radial functions through values at points.

    The surface is the sum of weight x distance over the points, and an affine function. Distances
    are conditionally negative definite, so with the affine part's slopes held by a trace of ridge
    there is always one solution, even where points lie in a plane; where they do not, that trace
    is too little to be seen.

    points: float64 (n, d), no two the same where ``ridge`` is 0, around 0. values: (n, k).
    ridge: how far the surface may miss values, for each point or for all.
    Returns float64 (n + 1 + d, k).
    """
    count, dimensions = points.shape
    size = count + 1 + dimensions
    system = np.zeros((size, size))
    system[:count, :count] = _distances(points, points)
    system[np.arange(count), np.arange(count)] = -np.asarray(ridge)
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1 :] = points
    system[count + 1 :, :count] = points.T
    slopes = np.arange(count + 1, size)
    system[slopes, slopes] = 1e-6
    right = np.zeros((size, values.shape[1]))
    right[:count] = values
    weights: np.ndarray = np.linalg.solve(system, right)
    return weights


def surface(weights: np.ndarray, points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The values (m, k) of a surface that ``fit_surface`` gave for points, at others (m, d)."""
    count = len(points)
    values: np.ndarray = weights[count] + at @ weights[count + 1 :]
    step = max(1, _CHUNK // count)
    for start in range(0, len(at), step):
        part = slice(start, start + step)
        values[part] += _distances(at[part], points) @ weights[:count]
    return values


def _distances(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """Between points (m, d) and points (n, d): (m, n)."""
    squares = (these**2).sum(1)[:, None] + (those**2).sum(1)
    squares -= 2 * these @ those.T
    if these is those:
        np.fill_diagonal(squares, 0)
    distances: np.ndarray = np.sqrt(np.maximum(squares, 0, out=squares), out=squares)
    return distances


def _places(size: int, count: int) -> np.ndarray:
    """Rows or columns of a grid of ``count``: the middles of as many equal parts."""
    return (2 * np.arange(count) + 1) * size // (2 * count)


def _grid(height: int, width: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of samples, one in about ``spacing`` x ``spacing`` pixels."""
    rows = min(height, max(_LEAST, round(height / spacing)))
    # columns make up for what was rounded
    columns = min(width, max(_LEAST, round(height * width / spacing**2 / rows)))
    return _places(height, rows), _places(width, columns)


def _packed(
    raw: np.ndarray, shown: np.ndarray, grid: tuple[np.ndarray, np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], bytes, bool]:
    """A grid, its samples packed, and if they are predicted."""
    samples, colours = raw[np.ix_(*grid)], shown[np.ix_(*grid)]
    stored = samples.astype("<u2").tobytes()
    coefficients = _prediction(samples, colours)
    rest = samples - _predict(coefficients, colours)
    predicted = coefficients.astype("<i2").tobytes() + pack_integers(rest)
    shorter = len(predicted) < len(stored)
    return grid, predicted if shorter else stored, shorter


def _unpack(body: bytes, colours: np.ndarray, predicted: bool) -> np.ndarray:
    """The samples (rows, columns, 3), uint16, of what ``_packed`` gave."""
    if not predicted:
        if len(body) != 2 * colours.size:
            raise ValueError(f"truncated: {len(body)} of {2 * colours.size} bytes are there")
        return np.frombuffer(body, "<u2").reshape(colours.shape)
    size = 2 * _COEFFICIENTS[0] * _COEFFICIENTS[1]
    if len(body) < size:
        raise ValueError(f"truncated: {len(body)} of {size} bytes of coefficients are there")
    coefficients = np.frombuffer(body[:size], "<i2").reshape(_COEFFICIENTS).astype(np.int64)
    rest = unpack_integers(body[size:], colours.size).reshape(colours.shape)
    samples: np.ndarray = (_predict(coefficients, colours) + rest).astype(np.uint16)
    return samples


def _prediction(samples: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The affine function of linear colours nearest to samples: of ``_COEFFICIENTS``, 16 bits."""
    ones = np.full((samples.size // 3, 1), WHITE)
    rows = np.concatenate([_WHOLE[colours].reshape(-1, 3), ones], 1)
    found = np.linalg.lstsq(rows.astype(float), samples.reshape(-1, 3).astype(float), None)[0]
    whole = np.clip(np.round(found * (1 << _FRACTION_BITS)), -32768, 32767)
    coefficients: np.ndarray = whole.astype(np.int64)
    return coefficients


def _predict(coefficients: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Samples by colour, int64 (rows, columns, 3); integers only, so that it cannot differ."""
    sums = _WHOLE[colours] @ coefficients[:3] + WHITE * coefficients[3]
    samples: np.ndarray = np.clip(sums + (1 << _FRACTION_BITS >> 1) >> _FRACTION_BITS, 0, WHITE)
    return samples


def _windows(height: int, width: int, rows: int, columns: int) -> Iterator[_Window]:
    """Windows whose pixels cover the picture once."""
    for down in _spans(height, rows):
        for across in _spans(width, columns):
            yield _Window((down[0], across[0]), (down[1], across[1]))


def _spans(size: int, count: int) -> list[tuple[slice, slice]]:
    """Along one side of a grid of ``count``: the pixels of each window, and its samples."""
    parts = -(-count // _CORE)
    edges = [count * part // parts for part in range(parts + 1)]
    return [
        (
            slice(size * low // count, size * high // count),
            slice(max(0, low - _MARGIN), high + _MARGIN),
        )
        for low, high in pairwise(edges)
    ]


def _interpolate(
    window: _Window,
    shown: np.ndarray,
    grid: tuple[np.ndarray, np.ndarray],
    samples: np.ndarray,
    settings: _Settings,
    step: int = 1,
) -> np.ndarray:
    """Every ``step``-th row and column of a window's pixels: (h, w, 3), 0..``WHITE``."""
    rows, columns = (places[part] for places, part in zip(grid, window.samples, strict=True))
    down, across = (np.arange(part.start, part.stop, step) for part in window.pixels)
    points = _coordinates(shown, rows, columns, settings)
    at = _coordinates(shown, down, across, settings)
    middle = points.mean(0)
    values = samples[window.samples].reshape(-1, 3).astype(float)
    weights = fit_surface(points - middle, values, settings.ridge)
    found = np.clip(surface(weights, points - middle, at - middle), 0, WHITE)
    part: np.ndarray = found.reshape(len(down), len(across), 3)
    return part


def _coordinates(
    shown: np.ndarray, rows: np.ndarray, columns: np.ndarray, settings: _Settings
) -> np.ndarray:
    """Place and colour of the pixels of some rows and columns: float64 (rows x columns, 5)."""
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), 2) / settings.unit
    curve = LINEAR if settings.linear else _LEVEL
    return np.concatenate([places, curve[shown[np.ix_(rows, columns)]]], 2).reshape(-1, 5)


def _plain(shown: np.ndarray) -> _Settings:
    """What comes nearest to coordinates that are each divided by their range, and no ridge."""
    longer = max(shown.shape[:2])
    return _Settings(False, min(_UNITS, key=lambda unit: abs(np.log2(unit / longer))), _RIDGES[0])


def _choose(raw: np.ndarray, shown: np.ndarray, grid: tuple[np.ndarray, np.ndarray]) -> _Settings:
    """The settings with the least squared error on some windows, one setting after the other."""
    windows = list(_windows(*shown.shape[:2], *map(len, grid)))
    tried = windows[:: -(-len(windows) // _TRIED_WINDOWS)]
    samples = raw[np.ix_(*grid)]
    errors: dict[_Settings, float] = {}

    def error(settings: _Settings) -> float:
        if settings not in errors:
            total = 0.0
            for window in tried:
                truth = raw[window.pixels]
                # odd, lest all tried pixels have one phase of a JPEG's blocks
                step = int(np.sqrt(truth.size / 3 / _TRIED_PIXELS)) | 1
                found = _interpolate(window, shown, grid, samples, settings, step)
                total += step**2 * float(np.square(found - truth[::step, ::step]).sum())
            errors[settings] = total
        return errors[settings]

    best = min(_plain(shown), _Settings(True, 512, 0.1), key=error)
    for _ in range(2):
        best = min((replace(best, ridge=ridge) for ridge in _RIDGES), key=error)
        best = min((replace(best, unit=unit) for unit in _UNITS), key=error)
        best = min((replace(best, linear=linear) for linear in (True, False)), key=error)
    return best
