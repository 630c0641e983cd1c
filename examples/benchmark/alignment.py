"""How exactly JPEGs are laid over raws, and whether wrong ones are refused.

The truth: a base JPEG is a plain crop of the sensor's picture, so that every
site lies at a whole pixel; a JPEG scaled by Pillow keeps its edges, so that
pixel u of W goes to ``(u + 0.5) * W' / W - 0.5`` of W'; turned pixels turn the
orientation and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rawcodec.errors import AlignmentError
from rawcodec.mosaic import Mosaic
from rawcodec.photo.align import FRACTION_BITS, Alignment, orient
from rawcodec.photo.jpeg import Jpeg, read_jpeg
from rawcodec.photo.register import Registration, register

from .pairs import Pair

SCALES = ((2, 3), (1, 2), (1, 3))
SCALED_QUALITY = 85
TURNED_QUALITY = 95

BENDS = ((-0.03, 0.0), (0.02, 0.0), (0.0, 1.0))
"""Radial distortion, as a share of the distance at the corner, and rotation in degrees."""
ORIENTATIONS = range(1, 9)

_MESH = 24  # pixels; within one, a bend is close to linear
_TILE = 256
_TILES = 5


@dataclass(frozen=True)
class Found:
    """A registration beside the truth.

    error: at the worst corner of the mosaic, in photosites; infinite where the
        orientation is wrong or a right pair is refused.
    agreement: share of the blocks that agree; 0 where refused.
    """

    error: float
    agreement: float


@dataclass(frozen=True)
class Study:
    """Everything found about one pair.

    base: the JPEG as it is. truth: its plain crop. scaled: one a scale of
    ``SCALES``. bent: one a bend of ``BENDS``. turned: pixels turned, one an
    orientation. flagged: the EXIF flag alone changed, one an orientation.
    """

    pair: Pair
    base: Registration
    truth: Alignment
    found: Found
    scaled: list[Found]
    bent: list[Found]
    turned: list[Found]
    flagged: list[Found]

    @property
    def all(self) -> list[Found]:
        """Every registration of the study of a JPEG that is a plain crop, scaled or turned."""
        return [self.found, *self.scaled, *self.turned, *self.flagged]


def study(pair: Pair, mosaic: Mosaic, scratch: Path) -> Study:
    """Register a pair's JPEG as it is, scaled, turned and flagged."""
    jpeg = read_jpeg(pair.jpeg)
    base = register(mosaic, jpeg.pixels, jpeg.orientation)
    truth = _plain_crop(base.alignment)
    variant = scratch / "variant.jpg"
    scaled, bent, turned, flagged = [], [], [], []
    for numerator, denominator in SCALES:
        old = jpeg.pixels.shape[1], jpeg.pixels.shape[0]
        new = round(old[0] * numerator / denominator), round(old[1] * numerator / denominator)
        picture = Image.fromarray(jpeg.pixels).resize(new, Image.Resampling.LANCZOS)
        picture.save(variant, quality=SCALED_QUALITY)
        scaled.append(_find(mosaic, read_jpeg(variant), _rescaled(truth, old, new)))
    for bend in BENDS:
        _bend(jpeg.pixels, *bend).save(variant, quality=SCALED_QUALITY)
        bent.append(_find_bent(mosaic, read_jpeg(variant), truth, bend))
    for orientation in ORIENTATIONS:
        picture = Image.fromarray(np.ascontiguousarray(orient(jpeg.pixels, orientation)))
        picture.save(variant, quality=TURNED_QUALITY)
        turned.append(_find(mosaic, read_jpeg(variant), _turned_back(truth, orientation)))
        variant.write_bytes(_flagged(pair.jpeg.read_bytes(), orientation))
        flagged.append(_find(mosaic, read_jpeg(variant), truth))
    found = _compare(mosaic, base, truth)
    return Study(pair, base, truth, found, scaled, bent, turned, flagged)


def refusal(mosaic: Mosaic, jpeg: Jpeg) -> float | None:
    """None where a wrong JPEG is accepted; else the agreement at which it was refused."""
    try:
        register(mosaic, jpeg.pixels, jpeg.orientation)
    except AlignmentError as error:
        seen = re.search(r"\((\d+)%", str(error))
        return int(seen[1]) / 100 if seen else 0.0
    return None


def disagreement(studies: Sequence[Study]) -> tuple[float, float]:
    """How far two JPEGs of one raw are from where their truths put them, in pixels.

    It checks the truths independently of the raw and of ``register``: phase
    correlation of tiles of the one JPEG with the other's, median over the
    tiles, horizontally and vertically.
    """
    first, second = (
        orient(read_jpeg(s.pair.jpeg).pixels, s.truth.orientation)[:, :, 1] for s in studies
    )
    a, b = (s.truth for s in studies)
    dx = round(b.position_x(0) - a.position_x(0))
    dy = round(b.position_y(0) - a.position_y(0))
    left, top = max(0, -dx), max(0, -dy)
    right = min(first.shape[1], second.shape[1] - dx) - _TILE
    bottom = min(first.shape[0], second.shape[0] - dy) - _TILE
    shifts = [
        _shift(
            first[y : y + _TILE, x : x + _TILE],
            second[y + dy : y + dy + _TILE, x + dx : x + dx + _TILE],
        )
        for y in np.linspace(top, bottom, _TILES).astype(int)
        for x in np.linspace(left, right, _TILES).astype(int)
    ]
    across, down = np.median(shifts, axis=0)
    return float(across), float(down)


def _find(mosaic: Mosaic, jpeg: Jpeg, truth: Alignment) -> Found:
    try:
        registration = register(mosaic, jpeg.pixels, jpeg.orientation)
    except AlignmentError:
        return Found(math.inf, 0.0)
    return _compare(mosaic, registration, truth)


def _compare(mosaic: Mosaic, registration: Registration, truth: Alignment) -> Found:
    height, width = mosaic.samples.shape[:2]
    found = registration.alignment
    if found.orientation != truth.orientation:
        return Found(math.inf, registration.agreement)
    corners = np.array([0, height - 1]), np.array([0, width - 1])
    off = [
        np.abs(a - b).max() / step
        for a, b, step in zip(
            found.positions(*corners, width, height),
            truth.positions(*corners, width, height),
            (truth.step_x, truth.step_y),
            strict=True,
        )
    ]
    return Found(math.hypot(*off), registration.agreement)


def _source(
    u: np.ndarray, v: np.ndarray, size: tuple[int, int], radial: float, degrees: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixel (u, v) of a bent picture comes from in the one before."""
    x, y = (size[0] - 1) / 2, (size[1] - 1) / 2
    dx, dy = u - x, v - y
    factor = 1 + radial * (dx**2 + dy**2) / (x**2 + y**2)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return x + factor * (cosine * dx + sine * dy), y + factor * (cosine * dy - sine * dx)


def _bend(pixels: np.ndarray, radial: float, degrees: float) -> Image.Image:
    """A picture as after a lens correction or straightening, in the same frame."""
    picture = Image.fromarray(pixels)
    width, height = picture.size
    mesh = []
    for top in range(0, height, _MESH):
        for left in range(0, width, _MESH):
            right, bottom = min(left + _MESH, width), min(top + _MESH, height)
            # Pillow counts from the pixels' edges
            edges = np.array([(left, top), (left, bottom), (right, bottom), (right, top)]) - 0.5
            u, v = _source(edges[:, 0], edges[:, 1], picture.size, radial, degrees)
            quad = tuple(float(n) for n in (np.stack([u, v], axis=1) + 0.5).ravel())
            mesh.append(((left, top, right, bottom), quad))
    return picture.transform(
        picture.size, Image.Transform.MESH, mesh, resample=Image.Resampling.BICUBIC
    )


def _find_bent(mosaic: Mosaic, jpeg: Jpeg, truth: Alignment, bend: tuple[float, float]) -> Found:
    """The error at points of a grid that the bent JPEG shows."""
    try:
        registration = register(mosaic, jpeg.pixels, jpeg.orientation)
    except AlignmentError:
        return Found(math.inf, 0.0)
    found = registration.alignment
    if found.orientation != truth.orientation:
        return Found(math.inf, registration.agreement)
    height, width = mosaic.samples.shape[:2]
    rows = np.linspace(0, height - 1, 7).astype(np.int64)
    columns = np.linspace(0, width - 1, 9).astype(np.int64)
    one = 1 << FRACTION_BITS
    u, v = np.broadcast_arrays(*(p / one for p in found.positions(rows, columns, width, height)))
    wanted = [p / one for p in truth.positions(rows, columns, width, height)]
    # the distortion is one of the JPEG as stored, and the alignment one of the JPEG turned
    size = jpeg.pixels.shape[1], jpeg.pixels.shape[0]
    mirrored = truth.orientation == 2
    stored = size[0] - 1 - u if mirrored else u
    x, y = _source(stored, v, size, *bend)
    x = size[0] - 1 - x if mirrored else x
    shown = (u >= 0) & (v >= 0) & (u <= size[0] - 1) & (v <= size[1] - 1)
    off = np.hypot(x - wanted[0], y - wanted[1])[shown]
    return Found(float(off.max()), registration.agreement)


def _plain_crop(found: Alignment) -> Alignment:
    """The crop at whole pixels that is nearest to what was found."""
    return Alignment.from_floats(
        found.orientation, 1.0, round(found.position_x(0)), 1.0, round(found.position_y(0))
    )


def _rescaled(base: Alignment, old: tuple[int, int], new: tuple[int, int]) -> Alignment:
    """Truth of a JPEG scaled from old to new (width, height), both as stored."""
    if base.orientation >= 5:
        old, new = old[::-1], new[::-1]
    x, y = (n / o for n, o in zip(new, old, strict=True))
    return Alignment.from_floats(
        base.orientation,
        x,
        (base.position_x(0) + 0.5) * x - 0.5,
        y,
        (base.position_y(0) + 0.5) * y - 0.5,
    )


def _turned_back(base: Alignment, orientation: int) -> Alignment:
    """Truth of a JPEG whose pixels were turned by ``orientation``."""
    marks = np.arange(6).reshape(2, 3)
    wanted = orient(marks, base.orientation)
    turned = orient(marks, orientation)
    needed = next(n for n in ORIENTATIONS if np.array_equal(orient(turned, n), wanted))
    return Alignment(needed, base.step_x, base.origin_x, base.step_y, base.origin_y)


def _flagged(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with another EXIF orientation, its other bytes unchanged.

    The first EXIF segment counts, so this one goes before all others.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def _shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How far the second tile's picture lies from the first's: (x, y) in pixels."""
    window = np.hanning(_TILE)
    window = window[:, None] * window
    spectra = []
    for tile in (first, second):
        picture = tile.astype(np.float64)
        spectra.append(np.fft.fft2((picture - picture.mean()) * window))
    product = spectra[1] * np.conj(spectra[0])
    # whitened in part: edges count, and so does where the signal is strong
    product /= np.sqrt(np.abs(product)) + 1e-9
    peaks = np.fft.fftshift(np.fft.ifft2(product).real)
    y, x = np.unravel_index(peaks[1:-1, 1:-1].argmax(), (_TILE - 2, _TILE - 2))
    row, column = int(y) + 1, int(x) + 1
    middle = _TILE // 2
    return (
        column - middle + _vertex(peaks[row, column - 1 : column + 2]),
        row - middle + _vertex(peaks[row - 1 : row + 2, column]),
    )


def _vertex(three: np.ndarray) -> float:
    before, peak, after = (float(v) for v in three)
    return 0.5 * (before - after) / min(before - 2 * peak + after, -1e-12)
