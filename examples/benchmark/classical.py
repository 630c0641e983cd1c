"""What the learned layer is compared with: the tone layer, and JPEG 2000 of the rest.

The rest, raw less the tone layer's mosaic, is coded by OpenJPEG, its components
under one rate-distortion slope, so that every bit goes where it lowers the
squared error most: with five levels of the irreversible 9/7 wavelet, or with
none, so that the block coder codes samples. The bytes are decoded again, added
to the prediction, rounded and clipped.

The four planes of a Bayer mosaic (generally: of every cell of the CFA) can go
in as they are, after a Hadamard transform of 2x2 sites, or turned to their
principal axes, which are stored; or the mosaic goes in as one picture. The
rest can be taken in linear values or in their square roots. ``VARIANTS`` has
all combinations, and :func:`curve` measures one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rawcodec.mosaic import Mosaic, mosaic_digest, planes
from rawcodec.pipeline import mosaic_error
from rawcodec.sensor import Sensor

from .curves import Point, psnr_at

LAYOUTS = ("planes", "Hadamard", "principal axes", "mosaic")
DOMAINS = ("linear", "square root")

LEVELS = (5, 0)
"""Of the wavelet."""

LOWEST, HIGHEST = 0.01, 2.0
"""Bits per site that a curve spans, where the photo allows it."""

BUDGETS = (0.1, 0.4, 1.0)
"""Bits per site at which variants are compared."""

CROP = (1536, 1024)
"""Width and height of the middle of a photo that variants are compared on."""

_HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
_AXES_UNIT = 127  # the axes are stored as int8
# A curve's points are so many dB over what zeros give: doubled until the steps are long enough,
# halved at the low end, and refined until no point has more than _RATIO times the rate of the last.
_FIRST_RISE, _MOST_RISE, _LEAST_RISE, _LAST_RISE = 0.5, 2.5, 0.03, 60.0
_RATIO = 2.0


@dataclass(frozen=True)
class Variant:
    """How the rest is given to JPEG 2000: one of ``LAYOUTS``, one of ``DOMAINS``.

    levels: of the wavelet.
    """

    layout: str = "principal axes"
    domain: str = "linear"
    levels: int = 5

    @property
    def name(self) -> str:
        """What tables call it."""
        wavelet = f"{self.levels} levels" if self.levels else "no wavelet"
        return f"{self.layout}, {self.domain}, {wavelet}"


VARIANTS = tuple(
    Variant(layout, domain, levels) for levels in LEVELS for domain in DOMAINS for layout in LAYOUTS
)


def curve(
    mosaic: Mosaic,
    prediction: np.ndarray,
    tone_bpp: float,
    variant: Variant,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
) -> list[Point]:
    """Points from ``lowest`` to ``highest`` bits per site, where it goes, all bytes counted.

    prediction: the tone layer's mosaic, uint16 of the mosaic's shape.
    tone_bpp: what the tone layer's sidecar takes.
    """
    rest = Rest(mosaic, prediction, variant)
    found: dict[float, Point] = {}

    def measure(rise: float) -> Point:
        data = rest.encode(rise)
        psnr, _ = mosaic_error(mosaic, decode(mosaic.sensor, prediction, data))
        sites = mosaic.sensor.width * mosaic.sensor.height
        found[rise] = Point(tone_bpp + 8 * len(data) / sites, psnr)
        return found[rise]

    rise = _FIRST_RISE
    while measure(rise).bpp > lowest and rise > _LEAST_RISE:
        rise /= 2
    rise = _FIRST_RISE
    while rise < _LAST_RISE and max(point.bpp for point in found.values()) < highest:
        rise += min(rise, _MOST_RISE)
        measure(rise)
    while gaps := [
        (low + high) / 2
        for low, high in pairwise(sorted(found))
        if high - low > _LEAST_RISE
        and found[high].bpp > max(lowest, _RATIO * found[low].bpp)
        and found[low].bpp < highest
    ]:
        for rise in gaps:
            measure(rise)
    return _useful(list(found.values()), lowest)


def compare(
    mosaic: Mosaic, prediction: np.ndarray, tone_bpp: float
) -> dict[Variant, list[float | None]]:
    """PSNR of the middle of a photo at ``BUDGETS``, by variant; None where out of reach."""
    part, samples = crop(mosaic, prediction, *CROP)
    return {
        variant: [psnr_at(points, bpp) for bpp in BUDGETS]
        for variant in VARIANTS
        for points in [curve(part, samples, tone_bpp, variant, min(BUDGETS), max(BUDGETS))]
    }


class Kept:
    """Points of photos in a file, measured again where a photo or this module changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def measure(
        self, name: str, mosaic: Mosaic, prediction: np.ndarray, tone_bpp: float
    ) -> tuple[dict[Variant, list[float | None]], Variant, list[Point]]:
        """What variants reach on the middle of a photo, the best of them, and its curve."""
        source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
        of = [mosaic.digest().hex(), mosaic_digest(prediction).hex(), f"{tone_bpp:.6f}", source]
        entry = self._entries.get(name)
        if entry is None or entry["of"] != of:
            compared = compare(mosaic, prediction, tone_bpp)
            points = curve(mosaic, prediction, tone_bpp, best(compared))
            entry = {
                "of": of,
                "compared": {variant.name: scores for variant, scores in compared.items()},
                "points": [[point.bpp, point.psnr] for point in points],
            }
            self._entries[name] = entry
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._entries, indent=1) + "\n")
        named = {variant.name: variant for variant in VARIANTS}
        compared = {named[key]: scores for key, scores in entry["compared"].items()}
        return compared, best(compared), [Point(*pair) for pair in entry["points"]]


def best(compared: Mapping[Variant, Sequence[float | None]]) -> Variant:
    """The variant with the highest mean PSNR at the budgets that all reach."""
    shared = [
        number
        for number in range(len(BUDGETS))
        if all(scores[number] is not None for scores in compared.values())
    ]
    return max(compared, key=lambda variant: sum(compared[variant][n] or 0.0 for n in shared))


def crop(mosaic: Mosaic, samples: np.ndarray, width: int, height: int) -> tuple[Mosaic, np.ndarray]:
    """The middle of a mosaic, and the same of further samples of it: whole cells of the CFA."""
    sensor = mosaic.sensor
    rows, columns = sensor.period
    width = min(width, sensor.width) // columns * columns
    height = min(height, sensor.height) // rows * rows
    left = (sensor.width - width) // 2 // columns * columns
    top = (sensor.height - height) // 2 // rows * rows
    here = (slice(top, top + height), slice(left, left + width))
    part = replace(
        mosaic, samples=mosaic.samples[here], sensor=replace(sensor, width=width, height=height)
    )
    return part, samples[here]


class Rest:
    """What the tone layer leaves of a mosaic, ready to be coded at any rate."""

    def __init__(self, mosaic: Mosaic, prediction: np.ndarray, variant: Variant) -> None:
        self._variant = variant
        sensor = mosaic.sensor
        ours = _values(sensor, mosaic.samples, variant.domain)
        ours -= _values(sensor, prediction, variant.domain)
        components = _split(sensor, ours, variant.layout)
        axes = b""
        if variant.layout == "principal axes":
            flat = components.reshape(-1, components.shape[2]).astype(np.float64)
            _, vectors = np.linalg.eigh(flat.T @ flat)
            axes = np.round(vectors * _AXES_UNIT).astype(np.int8).tobytes()
        unit = _unit(components.shape[2])
        turned = _turn(components, _matrix(variant.layout, components.shape[2], axes)) * unit
        self._integers = np.clip(np.round(turned), -32768, 32767).astype(np.int16)
        power = max(float((turned.astype(np.float64) ** 2).mean()), 1e-9)
        self._level = -10 * math.log10(power / 65535**2)
        self._head = bytes([LAYOUTS.index(variant.layout), DOMAINS.index(variant.domain)])
        self._head += int(mosaic.samples.max()).to_bytes(2, "little") + axes

    def encode(self, rise: float) -> bytes:
        """The rest, coded so that its PSNR (in its domain) is ``rise`` dB over that of zeros."""
        import imagecodecs

        data: bytes = imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(self._integers.squeeze()),
            level=self._level + rise,
            resolutions=self._variant.levels + 1,
            reversible=False,
            mct=False,
            codecformat="j2k",
            numthreads=2,
        )
        return self._head + data


def decode(sensor: Sensor, prediction: np.ndarray, data: bytes) -> np.ndarray:
    """The mosaic's samples, uint16, from the tone layer's and the bytes of the rest."""
    import imagecodecs

    layout, domain = LAYOUTS[data[0]], DOMAINS[data[1]]
    highest = int.from_bytes(data[2:4], "little")
    values = _values(sensor, prediction, domain)
    empty = _split(sensor, values, layout)
    height, width, count = empty.shape
    size = count**2 if layout == "principal axes" else 0
    decoded = imagecodecs.jpeg2k_decode(data[4 + size :], numthreads=2)
    turned = decoded.reshape(height, width, count).astype(np.float32) / _unit(count)
    matrix = _matrix(layout, count, data[4 : 4 + size])
    values += _join(sensor, _turn(turned, matrix.T), layout)
    if domain == "square root":
        values = np.maximum(values, 0) ** 2
    samples = np.empty(sensor.shape, np.uint16)
    for _, black, index in planes(sensor):
        dn = np.round(values[index] * (sensor.white - black) + black)
        samples[index] = np.clip(dn, 0, highest)
    return samples


def _values(sensor: Sensor, samples: np.ndarray, domain: str) -> np.ndarray:
    """Black-subtracted values, white = 1, in a domain: float32 of the mosaic's shape."""
    values = np.empty(sensor.shape, np.float32)
    for _, black, index in planes(sensor):
        values[index] = (samples[index].astype(np.float32) - black) / (sensor.white - black)
    return np.sqrt(np.maximum(values, 0)) if domain == "square root" else values


def _split(sensor: Sensor, values: np.ndarray, layout: str) -> np.ndarray:
    """A mosaic as components: (rows, columns, components). Shorter planes repeat their edge."""
    if layout == "mosaic":
        return values.reshape(sensor.height, sensor.width, -1)
    parts = [values[index] for _, _, index in planes(sensor)]
    rows, columns = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    return np.stack(
        [
            np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1])), mode="edge")
            for part in parts
        ],
        axis=2,
    )


def _join(sensor: Sensor, components: np.ndarray, layout: str) -> np.ndarray:
    if layout == "mosaic":
        return components.reshape(sensor.shape)
    values = np.empty(sensor.shape, np.float32)
    for number, (_, _, index) in enumerate(planes(sensor)):
        rows, columns = values[index].shape
        values[index] = components[:rows, :columns, number]
    return values


def _matrix(layout: str, count: int, axes: bytes) -> np.ndarray:
    """The orthonormal matrix that components, a row a site, are multiplied with."""
    if layout == "Hadamard" and count == 4:
        return _HADAMARD
    if layout == "principal axes":
        stored = np.frombuffer(axes, np.int8).reshape(count, count) / _AXES_UNIT
        left, _, right = np.linalg.svd(stored)  # the nearest orthonormal matrix
        matrix: np.ndarray = left @ right
        return matrix
    return np.eye(count)


def _turn(components: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    turned: np.ndarray = components @ matrix.astype(np.float32)
    return turned


def _unit(count: int) -> int:
    """What 1 is in the integers that are coded, so that they fit 16 bits."""
    return 1 << (15 - math.ceil(math.log2(count) / 2))


def _useful(points: Sequence[Point], lowest: float) -> list[Point]:
    """By rate, without those that cost more than a better one, and all but one below ``lowest``."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: point.bpp):
        if not kept or (point.psnr > kept[-1].psnr and point.bpp > kept[-1].bpp):
            kept.append(point)
    below = sum(point.bpp < lowest for point in kept)
    return kept[max(0, below - 1) :]
