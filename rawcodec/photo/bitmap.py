"""A map of bits or errors as a picture: colours from dark to bright, and a scale below."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .align import orient

LONGEST = 1600
"""Pixels that no side of the map exceeds, whatever the photo's size."""

# Every sixteenth of viridis by Stéfan van der Walt and Nathaniel Smith (CC0): its lightness
# rises evenly, and colour-blind readers can tell its colours apart.
_ANCHORS = bytes.fromhex(
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c"
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
)

_COLOURS, _GREYS = 240, 16
"""The palette's colours of values, and behind them the greys of the scale."""

_BRIGHTEST = 99.5
"""The percentile that the scale's end is not below: a few outliers would darken all the rest."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn. block: sites across that a pixel stands for.

    width, height: of the map in pixels, without the scale. low, high: its range, in its unit.
    """

    width: int
    height: int
    block: int
    low: float
    high: float


def write_map(
    file: BinaryIO,
    sites: np.ndarray,
    orientations: tuple[int, ...] = (),
    unit: str = "bits per site",
) -> Drawn:
    """Writes a map as a PNG, colours by the square root, so that small values show too.

    file: open for writing. sites: (H, W), the value of each site, not negative; the map has their
    mean over blocks where they are many. orientations: what to do to the map, one after the
    other: see ``orient``. unit: of the values, for the scale.
    """
    block = 1
    while max(sites.shape) > LONGEST * block:
        block *= 2
    means = block_means(sites, block)
    for orientation in orientations:
        means = orient(means, orientation)
    end = _end(means)
    place = np.sqrt(np.minimum(means / end, 1)) * (_COLOURS - 1)
    picture = np.rint(place).astype(np.uint8)
    clipped = bool(means.max() > end)
    drawn = Image.fromarray(np.concatenate([picture, _scale(picture.shape[1], end, clipped, unit)]))
    drawn.putpalette(_palette())
    drawn.save(file, "PNG", optimize=True)
    height, width = means.shape
    return Drawn(width, height, block, float(means.min()), float(means.max()))


def block_means(sites: np.ndarray, block: int) -> np.ndarray:
    """Means over squares of so many sites across: float64; those at the edge may be smaller."""
    result, count = sites, 1
    for axis in (0, 1):
        starts = np.arange(0, sites.shape[axis], block)
        result = np.add.reduceat(result, starts, axis, np.float64)
        sizes = np.minimum(sites.shape[axis] - starts, block)
        count = np.multiply.outer(count, sizes)
    means: np.ndarray = result / count
    return means


def _end(means: np.ndarray) -> float:
    """The scale's end: a round number."""
    least = np.percentile(means, _BRIGHTEST)
    return next(number for number in _round_numbers() if number >= least)


def _round_numbers() -> Iterator[float]:
    """0.01, 0.02, 0.05, 0.1 and so on."""
    for power in itertools.count(-2):
        for digit in (1, 2, 5):
            yield digit * 10.0**power


def _scale(width: int, end: float, clipped: bool, unit: str) -> np.ndarray:
    """A bar of the colours with numbers below, as wide as the map: palette entries, uint8 (h, w).

    end: the value at its right end. clipped: whether there are larger ones.
    """
    font = _font(min(max(width // 50, 10), 28))
    gap = round(_size(font, "0")[1])
    bar = slice(gap, max(width - gap, gap + 1))
    canvas = Image.new("L", (width, 5 * gap), 255)
    draw = ImageDraw.Draw(canvas)
    taken: list[tuple[float, float]] = []
    for value, text in _labels(end, clipped, unit):
        at = bar.start + (value / end) ** 0.5 * (bar.stop - bar.start - 1)
        size = _size(font, text)[0]
        left = max(min(at - size / 2, bar.stop - size), bar.start)
        if all(left + size + gap <= start or stop + gap <= left for start, stop in taken):
            taken.append((left, left + size))
            draw.text((left, 3 * gap), text, 0, font)
            draw.line((round(at), 2 * gap, round(at), 2.6 * gap), 0)
    entries = np.asarray(canvas) // (256 // _GREYS) + _COLOURS
    ramp = np.linspace(0, _COLOURS - 1, bar.stop - bar.start).round()
    entries[gap : 2 * gap, bar] = ramp[: max(width - gap, 0)]
    return entries.astype(np.uint8)


def _labels(end: float, clipped: bool, unit: str) -> Iterator[tuple[float, str]]:
    """Values and how they are written; those come first that matter most."""
    yield end, f"{end:g}{' or more' if clipped else ''} {unit}"
    yield 0, "0"
    for value in reversed(list(itertools.takewhile(lambda each: each < end, _round_numbers()))):
        yield value, f"{value:g}"


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):  # Pillow 10.0, or one without FreeType, has one size
        return ImageFont.load_default()


def _size(font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str) -> tuple[float, float]:
    left, top, right, bottom = font.getbbox(text)
    return right - left, bottom - top


def _palette() -> list[int]:
    anchors = np.frombuffer(_ANCHORS, np.uint8).reshape(-1, 3)
    at = np.linspace(0, len(anchors) - 1, _COLOURS)
    ours = [np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T]
    greys = np.linspace(0, 255, _GREYS)[:, None].repeat(3, 1)
    table = np.concatenate([np.transpose(ours), greys]).round().astype(int)
    return [int(value) for value in table.ravel()]
