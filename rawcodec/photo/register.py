"""Find how a JPEG lies over a mosaic, from the two pictures themselves.

Three stages. *Search*: small pictures of both, every orientation and scale
that the sizes allow, by normalised cross-correlation. *Refine*: many blocks,
first of a reduced mosaic and then of the full one, each giving the place where
it matches best; a line per axis, fitted robustly through these, gives scale
and offset to a few hundredths of a photosite. Where the blocks see a bend, as
after lens correction or straightening, a warp is added to the lines. *Judge*:
the blocks of a true pair agree with the fit; those of another shot agree by
chance, less than one in ten of them (docs/results/tone.md).

Floating point is fine here: only the encoder searches, and what it finds is
stored in integers (:class:`rawcodec.photo.align.Alignment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import AlignmentError
from ..mosaic import Mosaic, planes
from ..sensor import Sensor
from ..stream.header import SITES_A_PIXEL
from .align import (
    CONE_TERMS,
    FRACTION_BITS,
    TERMS,
    WARP_BITS,
    Alignment,
    Lateral,
    Warp,
    orient,
)

SMALL = 192
"""Longest side of the pictures that are searched, in pixels."""

SCALE_STEP = 1.02
"""Ratio of neighbouring scales in the search: an edge moves by two small pixels."""

MIN_SCALE, MAX_SCALE = 0.12, 1.2
"""JPEG pixels per photosite that are searched: programs enlarge what they turn, to fill a frame."""

OVERHANG = 0.03
"""How far, relative to its size, a JPEG may reach beyond the visible mosaic."""

HYPOTHESES = 4
"""How many orientations and scales the search hands on to be refined."""

GRID = 12
"""At most GRID x GRID blocks are matched."""

MIN_BLOCKS = 8
"""Fewer agreeing blocks prove nothing."""

MIN_AGREEMENT = 0.3
"""Share of the matched blocks that must agree: true pairs show 0.8, others 0.1."""

SNAP = 0.35
"""A fit within this many pixels of a plain crop is taken for a plain crop."""

_FLOOR = np.float32(0.002)
"""Added before the square root, in units of a plane's mean, against the noise at black."""

_NEUTRAL = np.float32(1 / 255)
"""A JPEG's contrast below one code value is no texture."""

MIN_BEND = 0.6
"""A warp must move a tenth of the blocks by this share of a sample to be one."""

LEAST_LATERAL = 0.17
"""Pixels that red or blue must be away from green, half the longer side from the middle."""

MAX_LATERAL = 6.0
"""Pixels that they may be away."""

MAX_STRETCH = 0.08
"""How far a line's scale may be from that of the search, relative to it."""

MAX_SKEW = 0.08
"""Largest difference of a map's coefficients from the plain ones: 4 degrees and more."""

_DEGREES = np.array([i + j for i, j in TERMS] + [1 + i + j for i, j in CONE_TERMS])
"""Degree of each term of a warp: plain ones, then those with the distance from the middle."""

_IS_CONE = np.arange(len(_DEGREES)) >= len(TERMS)

_PLAIN = {d: np.flatnonzero(np.less_equal(_DEGREES, d) & ~_IS_CONE) for d in (1, 3, 5)}
"""Terms of warps without the distance, by their degree."""

_CONES = [
    np.flatnonzero(np.less_equal(_DEGREES, np.where(_IS_CONE, cone, plain)))
    for plain, cone in ((3, 2), (5, 4))
]
"""Terms of warps with it."""

Corner = tuple[int, int]
Points = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Block centres (x, y) in photosites, and where they are (u, v) in the JPEG: (n,) each."""

FLAT_RAW = 0.003
"""Deviation of a block of companded green, whose mean is about 1, below which it is flat."""

FLAT_JPEG = 0.7
"""Deviation of a block of the JPEG, in code values, below which it is flat."""


@dataclass(frozen=True)
class Registration:
    """An alignment, and how well the pictures agree with it.

    blocks: how many blocks were matched; 0 where neither picture has texture
        and the alignment comes from the sizes and the orientation flags.
    agreement: share of the blocks that lie within a photosite of the fit.
    spread: median distance of those from the fit, in photosites.
    """

    alignment: Alignment
    blocks: int
    agreement: float
    spread: float


@dataclass(frozen=True)
class _Fit:
    """Oriented JPEG column = scale_x * x + origin_x + warp, and so for rows.

    warp: coefficients in JPEG pixels of the terms of x (first row) and of y, as
        :class:`rawcodec.photo.align.Warp` has them, float64 (2, 30); or None.
    middle, unit: what a warp's coordinates are relative to: the mosaic's middle
        (x, y) and half its longer side.
    """

    orientation: int
    scale_x: float
    origin_x: float
    scale_y: float
    origin_y: float
    middle: tuple[float, float]
    unit: float
    warp: np.ndarray | None = None

    def place(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows in the JPEG of sites (x, y): float64 (n,) each."""
        u = self.scale_x * x + self.origin_x
        v = self.scale_y * y + self.origin_y
        if self.warp is not None:
            terms = self.terms(x, y)
            u, v = u + terms @ self.warp[0], v + terms @ self.warp[1]
        return u, v

    def terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What a warp's coefficients belong to, at the relative position: float64 (n, 30)."""
        x = (np.asarray(x) - self.middle[0]) / self.unit
        y = (np.asarray(y) - self.middle[1]) / self.unit
        distance = np.hypot(x, y)
        plain = [x**i * y**j for i, j in TERMS]
        cone = [distance * x**i * y**j for i, j in CONE_TERMS]
        return np.stack(plain + cone, axis=-1)

    def boxes(self, corners: Sequence[Corner], span: int) -> np.ndarray:
        """Edges in the JPEG of span x span photosites whose first are at corners (y, x).

        Left, top, right and bottom: float64 (n, 4).
        """
        y, x = np.array(corners, np.float64).reshape(-1, 2).T + (span - 1) / 2
        u, v = self.place(x, y)
        half_u, half_v = (np.full(len(x), n * span / 2) for n in (self.scale_x, self.scale_y))
        if self.warp is not None:
            # perspective enlarges one side of the picture more than the other
            ends = span / 2
            across = self.place(x + ends, y)[0] - self.place(x - ends, y)[0]
            down = self.place(x, y + ends)[1] - self.place(x, y - ends)[1]
            half_u, half_v = (np.maximum(np.abs(n), 1) / 2 for n in (across, down))
        u, v = u + 0.5, v + 0.5
        return np.stack([u - half_u, v - half_v, u + half_u, v + half_v], axis=-1)


def register(mosaic: Mosaic, pixels: np.ndarray, jpeg_orientation: int = 1) -> Registration:
    """Find where the mosaic's sites lie in a JPEG of the same shot.

    pixels: uint8 (H, W, 3), the JPEG as stored. jpeg_orientation: its EXIF
    orientation (1 to 8), used only where neither picture has any texture.

    Raises AlignmentError, whose message says what was seen, where the JPEG
    cannot be a rendering of this raw.
    """
    green = Image.fromarray(pixels[:, :, 1])
    height, width = mosaic.samples.shape[:2]
    reduced = _Reduced(mosaic)
    candidates = _search(reduced, green, width, height)
    if not candidates:
        raise _other_size(green.width, green.height, width, height)
    best: Registration | None = None
    for candidate in candidates:
        result = _refine(reduced, green, candidate)
        if result is not None and (best is None or result.agreement > best.agreement):
            best = result
            if best.agreement > 0.8:
                break
    if best is not None and best.agreement >= MIN_AGREEMENT:
        lateral = _lateral(reduced, pixels, best.alignment)
        return replace(best, alignment=replace(best.alignment, lateral=lateral))
    if _textureless(reduced, green):
        return _from_sizes(mosaic.sensor, green, jpeg_orientation)
    seen = 0.0 if best is None else best.agreement
    raise AlignmentError(
        f"the JPEG is not a rendering of this raw ({seen:.0%} of the compared blocks agree, "
        f"{MIN_AGREEMENT:.0%} are needed); give the JPEG of the same shot"
    )


def check_size(jpeg_width: int, jpeg_height: int, width: int, height: int) -> None:
    """Raises AlignmentError for a JPEG of a size that no rendering of a mosaic has.

    By the numbers alone, before the JPEG is decoded: ``register`` is stricter.
    """
    longest = MAX_SCALE * (1 + OVERHANG) * max(width, height)
    too_small = width * height > SITES_A_PIXEL * jpeg_width * jpeg_height
    if max(jpeg_width, jpeg_height) > longest or too_small:
        raise _other_size(jpeg_width, jpeg_height, width, height)


def _other_size(jpeg_width: int, jpeg_height: int, width: int, height: int) -> AlignmentError:
    return AlignmentError(
        f"a picture of {jpeg_width}x{jpeg_height} cannot be a rendering of a raw of "
        f"{width}x{height}; give a JPEG between the sensor's scale and an eighth of it"
    )


class _Reduced:
    """The companded green of a mosaic, whole at a reduced size and in blocks.

    Green alone, against the JPEG's green: what other colours add is shifted by
    lateral chromatic aberration, by up to half a site at a picture's corners.

    factor: photosites per sample of ``picture``, a multiple of the CFA's
        period, so that every sample averages the same sites of a cell.
    picture: float32 (H // factor, W // factor).
    halves: two pictures from disjoint halves of the green sites of each
        sample, so that their noise is independent and only texture is in both.
    """

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic
        self.factor = 6 if max(mosaic.sensor.period) == 6 else 4
        self._blacks, self._gains = self._levels(1)
        first, second = self._reduce()
        self.picture = _compand((first + second) / 2)
        self.halves = _compand(first), _compand(second)

    def _levels(self, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """Black level and gain of each cell of the pattern; the gain is 0 of other colours."""
        rows, columns = self.mosaic.sensor.period
        blacks = np.zeros((rows, columns), np.float32)
        gains = np.zeros((rows, columns), np.float32)
        for colour, black, index in planes(self.mosaic.sensor):
            if colour == wanted:
                start = [n.start or 0 for n in index[:2] if isinstance(n, slice)]
                # every eighth site at most, and one at least
                sparse = self.mosaic.samples[index][::8, ::8].astype(np.float32) - black
                mean = float(sparse.mean()) if sparse.size else 0.0
                blacks[start[0], start[1]] = black
                gains[start[0], start[1]] = 1 / max(mean, 1.0)
        return blacks, gains

    def _samples(self, colour: int) -> np.ndarray:
        samples = self.mosaic.samples
        return samples[:, :, colour] if self.mosaic.sensor.linear else samples

    def _reduce(self) -> tuple[np.ndarray, np.ndarray]:
        factor = self.factor
        rows, columns = self.mosaic.sensor.period
        samples = self._samples(1)
        height, width = (n // factor for n in samples.shape)
        sums = np.zeros((2, height, width), np.float32)
        counts = [0, 0]
        for i in range(factor):
            for j in range(factor):
                gain = self._gains[i % rows, j % columns]
                if gain:
                    half = int(counts[0] > counts[1])
                    part = samples[i::factor, j::factor][:height, :width]
                    sums[half] += gain * (part - self._blacks[i % rows, j % columns])
                    counts[half] += 1
        return sums[0] / counts[0], sums[1] / counts[1]

    def blocks(self, corners: list[Corner], size: int, factor: int, colour: int = 1) -> np.ndarray:
        """Blocks at corners (y, x) in photosites: float32 (n, size, size).

        factor: photosites per sample; where it is ``self.factor``, the corners
        must be multiples of it. colour: that of the sites, 0 red, 1 green, 2 blue.
        """
        if factor == self.factor and colour == 1:
            tiles = [
                self.picture[y // factor : y // factor + size, x // factor : x // factor + size]
                for y, x in corners
            ]
            return np.stack(tiles)
        # wide enough that every site has neighbours of the colour
        taps = [1, 2, 1] if max(self.mosaic.sensor.period) <= 2 else [1, 2, 3, 2, 1]
        reach = len(taps) // 2
        span = size * factor
        values, weights = (
            _smooth(np.stack(part), taps, span)
            for part in zip(*self._sites(corners, span, reach, colour), strict=True)
        )
        full = values / weights
        binned = full.reshape(len(corners), size, factor, size, factor).mean(axis=(2, 4))
        return _compand(binned)

    def _sites(
        self, corners: list[Corner], span: int, reach: int, colour: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Samples of a colour, 0 at other sites, and where they are, with a margin of reach."""
        rows, columns = self.mosaic.sensor.period
        samples = self._samples(colour)
        height, width = samples.shape
        blacks, gains = self._levels(colour)
        for top, left in corners:
            y = np.clip(np.arange(top - reach, top + span + reach), 0, height - 1)
            x = np.clip(np.arange(left - reach, left + span + reach), 0, width - 1)
            cell = np.ix_(y % rows, x % columns)
            values = (samples[np.ix_(y, x)] - blacks[cell]) * gains[cell]
            yield values, (gains[cell] > 0).astype(np.float32)


def _compand(picture: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.sqrt(np.maximum(picture, 0) + _FLOOR)
    return result


def _smooth(pictures: np.ndarray, taps: list[int], span: int) -> np.ndarray:
    """A separable filter over the last two axes, which shrink to span samples."""
    for axis in (1, 2):
        pictures = sum(
            (k * np.take(pictures, np.arange(t, t + span), axis=axis) for t, k in enumerate(taps)),
            start=np.zeros(1, np.float32),
        )
    return pictures


def _box_blur(pictures: np.ndarray, radius: int) -> np.ndarray:
    """Mean over (2 radius + 1)^2 samples of the last two axes, edges repeated."""
    span = 2 * radius + 1
    for axis in (-1, -2):
        length = pictures.shape[axis]
        pad = [(0, 0)] * pictures.ndim
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(pictures, pad, mode="edge"), axis=axis, dtype=np.float64)
        high = np.take(total, np.arange(span, span + length), axis=axis)
        low = np.take(total, np.arange(length), axis=axis)
        pictures = ((high - low) / span).astype(np.float32)
    return pictures


def _contrast(pictures: np.ndarray, radius: int, floor: float) -> np.ndarray:
    """Local contrast: mean 0 and deviation 1 in every neighbourhood with texture.

    It takes away what a tone curve, local contrast or vignetting adds.
    """
    detail = pictures - _box_blur(pictures, radius)
    power = _box_blur(detail * detail, radius)
    result: np.ndarray = detail / np.sqrt(power + np.float32(floor * floor))
    return result


def _search(reduced: _Reduced, green: Image.Image, width: int, height: int) -> list[_Fit]:
    """The likeliest orientations, scales and offsets, best first."""
    step = max(1.0, max(width, height) / SMALL)
    size = (max(8, round(width / step)), max(8, round(height / step)))
    small = Image.fromarray(reduced.picture).resize(size, Image.Resampling.BOX)
    raw = _contrast(np.asarray(small), 5, 0.02)
    rows, columns = raw.shape
    shape = (2 * rows, 2 * columns)
    spectrum = np.fft.rfft2(raw, shape)
    found: list[tuple[float, _Fit]] = []
    for transposed in (False, True):
        w, h = (green.height, green.width) if transposed else green.size
        for scale in _scales(w / width, h / height):
            sw, sh = round(w / (scale * step)), round(h / (scale * step))
            if sw < 4 or sh < 4:
                continue
            resized = green.resize((sh, sw) if transposed else (sw, sh), Image.Resampling.BOX)
            picture = _contrast(np.asarray(resized, np.float32) / 255, 5, 0.02)
            norm = np.sqrt(float((picture * picture).sum()) * sw * sh) + 1e-6
            y = np.arange(-int(OVERHANG * rows) - 1, rows - sh + int(OVERHANG * rows) + 2)
            x = np.arange(-int(OVERHANG * columns) - 1, columns - sw + int(OVERHANG * columns) + 2)
            if not len(y) or not len(x):
                continue
            for orientation in (5, 6, 7, 8) if transposed else (1, 2, 3, 4):
                other = np.fft.rfft2(orient(picture, orientation), shape)
                product = np.fft.irfft2(spectrum * np.conj(other), shape)
                inside = product[np.ix_(y % shape[0], x % shape[1])]
                best = int(inside.argmax())
                top, left = y[best // len(x)], x[best % len(x)]
                fit = _Fit(
                    orientation,
                    scale,
                    -scale * left * step + (scale - 1) / 2,
                    scale,
                    -scale * top * step + (scale - 1) / 2,
                    ((width - 1) / 2, (height - 1) / 2),
                    max(width, height) / 2,
                )
                found.append((float(inside.flat[best] / norm), fit))
    found.sort(key=lambda item: -item[0])
    return _distinct([fit for _, fit in found])


def _scales(across: float, down: float) -> Iterator[float]:
    """Scales at which a JPEG of these relative sizes lies within the mosaic."""
    whole = max(across, down)
    scale = max(whole / (1 + OVERHANG) * SCALE_STEP, MIN_SCALE)
    while scale <= MAX_SCALE:
        yield scale
        scale *= SCALE_STEP


def _distinct(fits: list[_Fit]) -> list[_Fit]:
    """The first few fits that differ in orientation, or in scale by several steps."""
    kept: list[_Fit] = []
    for fit in fits:
        if all(
            fit.orientation != other.orientation
            or abs(np.log(fit.scale_x / other.scale_x)) > 2.5 * np.log(SCALE_STEP)
            for other in kept
        ):
            kept.append(fit)
        if len(kept) == HYPOTHESES:
            break
    return kept


def _refine(reduced: _Reduced, green: Image.Image, fit: _Fit) -> Registration | None:
    """Registration from a rough fit, or None where the blocks find nothing in common."""
    oriented = Image.fromarray(np.ascontiguousarray(orient(np.asarray(green), fit.orientation)))
    shape = reduced.mosaic.samples.shape[:2]
    # a small JPEG resolves no single sites: match at about its own resolution
    fine = max(1, round(0.7 / fit.scale_x))
    levels = [fine, fine] if min(shape) < 64 * reduced.factor else [reduced.factor, fine, fine]
    for level, factor in enumerate(levels):
        size = 64 if min(shape) >= 192 * factor else 32 if min(shape) >= 96 * factor else 16
        corners = _corners(reduced, oriented.size, fit, size * factor)
        if len(corners) < MIN_BLOCKS:
            return None
        points = _match(reduced, oriented, fit, corners, size, factor)
        if len(points[0]) < MIN_BLOCKS:
            return None
        fit, off = _fit_all(fit, points, factor * fit.scale_x)
        agree = off < factor * fit.scale_x
        needed = MIN_BLOCKS if level + 1 == len(levels) else MIN_BLOCKS // 2
        if agree.sum() < needed:
            return None
    return Registration(
        _alignment(fit, shape[1], shape[0]),
        len(off),
        float(agree.mean()),
        float(np.median(off[agree])) / fit.scale_x,
    )


def _fit_all(fit: _Fit, points: Points, tolerance: float) -> tuple[_Fit, np.ndarray]:
    """A fit to matched blocks, and their distances from it in JPEG pixels.

    A line per axis, and a warp on top of it only where the lines leave much to
    explain: blocks that disagree, or a bend that many blocks see.
    """
    x, y, u, v = points
    across = _line(x, u, fit.scale_x, tolerance)
    down = _line(y, v, fit.scale_y, tolerance)
    lines = replace(
        fit,
        scale_x=across[0],
        origin_x=across[1],
        scale_y=down[0],
        origin_y=down[1],
        warp=None,
    )
    off = _distances(lines, points)
    agree = off < tolerance
    bent = _bend(fit, lines, points, tolerance)
    if bent is None:
        return lines, off
    bent_off = _distances(bent, points)
    bent_agree = bent_off < tolerance
    gained = float(bent_agree.mean() - agree.mean())
    both = agree & bent_agree
    sharper = both.any() and np.median(bent_off[both]) < 0.6 * np.median(off[both])
    bend = np.hypot(*(a - b for a, b in zip(bent.place(x, y), lines.place(x, y), strict=True)))
    visible = float(np.quantile(bend, 0.9)) > MIN_BEND * tolerance
    if visible and (gained > 0.1 or (gained > -0.02 and sharper)):
        return bent, bent_off
    return lines, off


def _distances(fit: _Fit, points: Points) -> np.ndarray:
    x, y, u, v = points
    found_u, found_v = fit.place(x, y)
    distances: np.ndarray = np.hypot(found_u - u, found_v - v)
    return distances


def _bend(before: _Fit, lines: _Fit, points: Points, tolerance: float) -> _Fit | None:
    """The lines and a warp, grown outwards from blocks that agree with one affine map.

    Or from those that agree with the warp of the level before, where they are more: perspective
    is far from affine.
    """
    x, y, u, v = points
    terms = lines.terms(x, y)
    rest = np.stack([u, v]) - np.stack(lines.place(x, y))
    agree = _affine_votes(lines, points, 2 * tolerance)
    stages = [(1, 4), (1, 4), (3, 4), (3, 3), (3, 2), (3, 2), (5, 2), (5, 1.5), (5, 1)]
    if before.warp is not None:
        known = _distances(before, points) < 4 * tolerance
        if known.sum() > agree.sum():
            agree, stages = known, stages[2:]
    warp = np.zeros((2, len(_DEGREES)))
    for degree, reach in stages:
        found = _least_squares(terms[agree], rest[:, agree], _PLAIN[degree])
        if found is not None:
            warp, _ = found
            agree = np.hypot(*(rest - warp @ terms.T)) < reach * tolerance
    # many terms follow the noise at the picture's edges where fewer explain all
    best = np.inf
    for used in (*_PLAIN.values(), *_CONES):
        found = _least_squares(terms[agree], rest[:, agree], used)
        if found is not None and found[1] < 0.9 * best:
            warp, best = found
    return replace(lines, warp=warp) if warp.any() else None


def _corners(reduced: _Reduced, jpeg_size: tuple[int, int], fit: _Fit, span: int) -> list[Corner]:
    """First sites (y, x) of the most textured block of each part of the mosaic."""
    height, width = reduced.mosaic.samples.shape[:2]
    factor = reduced.factor
    slope_y, slope_x = (np.abs(np.diff(reduced.picture, axis=axis)) for axis in (0, 1))
    down = min(GRID, max(1, 2 * height // span))
    across = min(GRID, max(1, 2 * width // span))
    parts = [
        [
            (y, x)
            for y in _starts(row, down, height, span, factor)
            for x in _starts(column, across, width, span, factor)
        ]
        for row in range(down)
        for column in range(across)
    ]
    every = [corner for part in parts for corner in part]
    boxes = fit.boxes(every, span)
    shown = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] <= jpeg_size).all(axis=1)
    inside = {every[n] for n in np.flatnonzero(shown)}

    def texture(corner: Corner) -> float:
        y, x = corner
        part = np.s_[y // factor : (y + span) // factor, x // factor : (x + span) // factor]
        # both directions must have texture, or the block slides along an edge
        return min(_mean(slope_y[part]), _mean(slope_x[part]))

    corners = set()
    for part in parts:
        seen = [corner for corner in part if corner in inside]
        if seen:
            corners.add(max(seen, key=texture))
    return sorted(corners)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _starts(part: int, parts: int, length: int, span: int, factor: int) -> list[int]:
    """Up to three starts, multiples of factor, of blocks in one part of an axis."""
    low = part * length // parts
    high = max(low, (part + 1) * length // parts - span)
    starts = {min(s, length - span) // factor * factor for s in (low, (low + high) // 2, high)}
    return sorted(s for s in starts if s >= 0)


def _least_squares(
    terms: np.ndarray, wanted: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """A warp (2, 30) of the terms used and its leave-one-out error; None with too few points.

    terms: (n, 30) at the points. wanted: (2, n), the displacements there. used: the terms'
    numbers.
    """
    if len(terms) < 2 * len(used):
        return None
    part = terms[:, used]
    ridge = np.diag(1e-7 * _DEGREES[used] ** 2 * len(terms))
    hat = np.linalg.solve(part.T @ part + ridge, part.T)
    warp = np.zeros((2, len(_DEGREES)))
    warp[:, used] = (hat @ wanted.T).T
    leverage = np.einsum("nk,kn->n", part, hat)
    error = (wanted - warp @ terms.T) / np.maximum(1 - leverage, 1e-3)
    return warp, float(np.mean(error**2))


def _affine_votes(fit: _Fit, points: Points, tolerance: float) -> np.ndarray:
    """Blocks within tolerance of the affine map that most are: bool (n,), by RANSAC."""
    x, y, u, v = points
    ones = np.stack([np.ones_like(x), x, y], axis=-1)
    triples = np.random.default_rng(0).integers(0, len(x), (2000, 3))
    corners = ones[triples]
    # three blocks in a row hold no plane
    area = np.abs(np.linalg.det(corners))
    triples = triples[area > 0.01 * np.ptp(x) * np.ptp(y)]
    if not len(triples):
        return np.zeros(len(x), bool)
    maps = np.linalg.solve(ones[triples], np.stack([u, v], axis=-1)[triples])
    linear = np.array([[fit.scale_x, 0], [0, fit.scale_y]])
    plausible = np.abs(maps[:, 1:] / fit.scale_x - linear / fit.scale_x).max(axis=(1, 2)) < MAX_SKEW
    maps = maps[plausible]
    if not len(maps):
        return np.zeros(len(x), bool)
    off = np.linalg.norm(ones @ maps - np.stack([u, v], axis=-1), axis=2)
    votes = (off < tolerance).sum(axis=1)
    agree: np.ndarray = off[votes.argmax()] < tolerance
    return agree


def _match(
    reduced: _Reduced,
    oriented: Image.Image,
    fit: _Fit,
    corners: list[Corner],
    size: int,
    factor: int,
    colour: int = 1,
) -> Points:
    """Centres of the textured blocks, and where they were found in a colour of the JPEG."""
    span = size * factor
    ours = reduced.blocks(corners, size, factor, colour)
    boxes = fit.boxes(corners, span)
    theirs = np.stack(
        [
            np.asarray(oriented.resize((size, size), Image.Resampling.BICUBIC, box=box), np.float32)
            for box in map(tuple, boxes)
        ]
    )
    # flat blocks correlate with nothing, and would all vote for the same shift
    textured = (ours.std(axis=(1, 2)) > FLAT_RAW) & (theirs.std(axis=(1, 2)) > FLAT_JPEG)
    dy, dx = _shifts(ours[textured], theirs[textured] / 255)
    y, x = np.array(corners, np.float64)[textured].T + (span - 1) / 2
    u, v = fit.place(x, y)
    left, top, right, bottom = boxes[textured].T
    return x, y, u + (right - left) / size * dx, v + (bottom - top) / size * dy


def _lateral(reduced: _Reduced, pixels: np.ndarray, alignment: Alignment) -> Lateral | None:
    """How far red and blue lie from green; None where it is too little to matter."""
    sensor = reduced.mosaic.sensor
    if not {0, 1, 2} <= {colour for colour, _, _ in planes(sensor)}:
        return None
    fit = _fit_of(alignment, sensor.width, sensor.height)
    # the sites of these colours are two apart at least
    factor = max(2, round(0.7 / fit.scale_x))
    size = 64 if min(sensor.width, sensor.height) >= 192 * factor else 32
    oriented = orient(pixels, alignment.orientation)
    corners = _corners(reduced, oriented.shape[1::-1], fit, size * factor)
    if len(corners) < 2 * MIN_BLOCKS:
        return None
    found = []
    for colour in (0, 2):
        picture = Image.fromarray(np.ascontiguousarray(oriented[:, :, colour]))
        points = _match(reduced, picture, fit, corners, size, factor, colour)
        found.append(_magnification(fit, points))
    if max(map(abs, found)) < LEAST_LATERAL:
        return None
    shifts = []
    for magnification in found:
        step = magnification / fit.unit
        origins = (-step * middle for middle in fit.middle)
        shifts.append(tuple(round(n * (1 << FRACTION_BITS)) for n in (step, *origins)))
    (red, red_x, red_y), (blue, blue_x, blue_y) = shifts
    return Lateral((red, red_x, red, red_y), (blue, blue_x, blue, blue_y))


def _magnification(fit: _Fit, points: Points) -> float:
    """By how many pixels blocks are found further out than they should be, at ``fit.unit``."""
    x, y, u, v = points
    if len(x) < 2 * MIN_BLOCKS:
        return 0.0
    placed_u, placed_v = fit.place(x, y)
    out = np.stack([x - fit.middle[0], y - fit.middle[1]]) / fit.unit
    off = np.stack([u - placed_u, v - placed_v])
    agree = np.hypot(*off) < MAX_LATERAL
    for _ in range(6):
        if agree.sum() < 0.5 * len(x):
            return 0.0
        # by how much all blocks are off tells of demosaicing, not of the lens
        middle, shift = (n[:, agree].mean(axis=1, keepdims=True) for n in (out, off))
        slope = float(((out - middle) * (off - shift))[:, agree].sum())
        slope /= float(((out - middle)[:, agree] ** 2).sum())
        left = np.hypot(*(off - shift - slope * (out - middle)))
        agree = left < max(3 * float(np.median(left[agree])), 0.1)
    return slope


def _fit_of(alignment: Alignment, width: int, height: int) -> _Fit:
    one = 1 << FRACTION_BITS
    warp = None
    if alignment.warp is not None:
        warp = np.zeros((2, len(_DEGREES)))
        for row, coefficients in zip(warp, (alignment.warp.x, alignment.warp.y), strict=True):
            row[: len(coefficients)] = np.array(coefficients) / (1 << WARP_BITS)
    return _Fit(
        alignment.orientation,
        alignment.step_x / one,
        alignment.origin_x / one,
        alignment.step_y / one,
        alignment.origin_y / one,
        ((width - 1) / 2, (height - 1) / 2),
        max(width, height) / 2,
        warp,
    )


def _shifts(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of our blocks lies in theirs: (dy, dx) in samples, to sub-sample precision."""
    count, size, _ = ours.shape
    window = np.hanning(size + 2)[1:-1].astype(np.float32)
    window = window[:, None] * window
    a, b = (_contrast(blocks, 6, 0.01) * window for blocks in (ours, theirs))
    product = np.fft.irfft2(np.fft.rfft2(b) * np.conj(np.fft.rfft2(a)), (size, size))
    product = np.fft.fftshift(product, axes=(1, 2))
    edge = size // 8  # shifts by more leave too little overlap
    inner = product[:, edge:-edge, edge:-edge].reshape(count, (size - 2 * edge) ** 2)
    peak = inner.argmax(axis=1)
    y, x = peak // (size - 2 * edge) + edge, peak % (size - 2 * edge) + edge
    n = np.arange(count)
    dy = _vertex(product[n, y - 1, x], product[n, y, x], product[n, y + 1, x])
    dx = _vertex(product[n, y, x - 1], product[n, y, x], product[n, y, x + 1])
    return y - size // 2 + dy, x - size // 2 + dx


def _vertex(before: np.ndarray, peak: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Vertex of the parabola through three samples, relative to the middle one."""
    curvature = before - 2 * peak + after
    vertex: np.ndarray = np.where(
        curvature < 0, 0.5 * (before - after) / np.minimum(curvature, -1e-12), 0
    )
    np.clip(vertex, -0.5, 0.5, out=vertex)
    return vertex


def _line(x: np.ndarray, u: np.ndarray, scale: float, tolerance: float) -> tuple[float, float]:
    """Scale and origin of the line that most points lie within tolerance of.

    Random pairs of points (RANSAC), then least squares over those that agree.
    """
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(x), (2, 500))
    apart = np.abs(x[first] - x[second]) > 0.15 * np.ptp(x)
    first, second = first[apart], second[apart]
    if not len(first):
        return scale, float(np.median(u - scale * x))
    slopes = (u[first] - u[second]) / (x[first] - x[second])
    near = np.abs(slopes / scale - 1) < MAX_STRETCH
    slopes, first = slopes[near], first[near]
    if not len(first):
        return scale, float(np.median(u - scale * x))
    origins = u[first] - slopes * x[first]
    votes = (np.abs(slopes[:, None] * x + origins[:, None] - u) < tolerance).sum(axis=1)
    slope, origin = float(slopes[votes.argmax()]), float(origins[votes.argmax()])
    for _ in range(4):
        agree = np.abs(slope * x + origin - u) < tolerance
        if agree.sum() < 3 or np.ptp(x[agree]) == 0:
            break
        slope, origin = (float(c) for c in np.polyfit(x[agree], u[agree], 1))
    return slope, origin


def _alignment(fit: _Fit, width: int, height: int) -> Alignment:
    """Fixed-point alignment; a plain crop where the fit is one within its error.

    The edges of sharpened or laterally aberrated pictures pull the fit by a
    tenth of a pixel or two, and a pixel-exact guide is worth up to 1 dB.
    """
    if fit.warp is not None:
        warp = fit.warp if fit.warp[:, _IS_CONE].any() else fit.warp[:, ~_IS_CONE]
        x, y = (tuple(round(float(c) * (1 << WARP_BITS)) for c in row) for row in warp)
        across, down = (fit.scale_x, fit.origin_x), (fit.scale_y, fit.origin_y)
        return Alignment.from_floats(fit.orientation, *across, *down, warp=Warp(x, y))
    across, down = (
        _snap(fit.scale_x, fit.origin_x, width),
        _snap(fit.scale_y, fit.origin_y, height),
    )
    return Alignment.from_floats(fit.orientation, *across, *down)


def _snap(scale: float, origin: float, length: int) -> tuple[float, float]:
    middle = (length - 1) / 2
    whole = round(scale * middle + origin - middle)
    ends = (origin - whole, (scale - 1) * (length - 1) + origin - whole)
    return (1.0, float(whole)) if max(map(abs, ends)) < SNAP else (scale, origin)


def _textureless(reduced: _Reduced, green: Image.Image) -> bool:
    """True where neither picture has anything to compare."""
    contrasts = [_contrast(half, 3, 0.0005) for half in reduced.halves]
    height, width = contrasts[0].shape
    if min(height, width) < 8:
        return True
    even, odd = contrasts
    # texture is in both halves of the sites; noise is not
    correlation = float((even * odd).sum() / np.sqrt((even**2).sum() * (odd**2).sum() + 1e-9))
    small = green.resize((width, height), Image.Resampling.BOX)
    levels = np.asarray(small, np.float32) / 255
    detail = levels - _box_blur(levels, 3)
    flat_jpeg = float(np.mean(np.abs(detail) > 2 * _NEUTRAL)) < 0.02
    return correlation < 0.3 and flat_jpeg


def _from_sizes(sensor: Sensor, green: Image.Image, jpeg_orientation: int) -> Registration:
    """Centred, upright as the flags say: all there is to know of two empty pictures."""
    one = 1 << FRACTION_BITS
    orders = [_between(jpeg_orientation, sensor.orientation), 1]
    for orientation in orders:
        w, h = (green.height, green.width) if orientation >= 5 else green.size
        scale = max(w / sensor.width, h / sensor.height)
        fits = min(w / sensor.width, h / sensor.height) > scale / (1 + OVERHANG)
        if not fits or not MIN_SCALE <= scale <= 1 + OVERHANG:
            continue
        if scale > 1 / (1 + OVERHANG):
            scale = 1.0
        origin_x = (w - 1) / 2 - scale * (sensor.width - 1) / 2
        origin_y = (h - 1) / 2 - scale * (sensor.height - 1) / 2
        if scale == 1.0:
            origin_x, origin_y = float(round(origin_x)), float(round(origin_y))
        alignment = Alignment(
            orientation,
            round(scale * one),
            round(origin_x * one),
            round(scale * one),
            round(origin_y * one),
        )
        return Registration(alignment, 0, 0.0, 0.0)
    raise AlignmentError(
        f"neither picture has any texture to compare, and {green.width}x{green.height} is not "
        f"the shape of a raw of {sensor.width}x{sensor.height}; give the JPEG of the same shot"
    )


_MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, -1, 1, 0),
    7: (0, -1, -1, 0),
    8: (0, 1, -1, 0),
}


def _between(jpeg: int, raw: int) -> int:
    """What turns a JPEG flagged ``jpeg`` over a raw flagged ``raw`` (EXIF orientations)."""
    a, b = (np.array(_MATRICES[n]).reshape(2, 2) for n in (jpeg, raw))
    product = tuple(int(v) for v in (b.T @ a).ravel())
    return next(n for n, matrix in _MATRICES.items() if matrix == product)
