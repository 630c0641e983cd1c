"""Finds the gain at which a photo takes a wanted number of bytes.

The bits of a sample of tiles, at a few gains, tell where to try; the photo itself, coded there,
tells by how much the sample was wrong. Filters are left out of both: what they take does not grow
with the photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .config import FINE, HYPER_BLOCK, RATES
from .view import PlaneView

FINEST = RATES * FINE - 1
"""The largest number of a gain: of sixteenths of a rate."""

TILE = 12 * HYPER_BLOCK
"""Sites across a tile; a multiple of the period of Bayer and X-Trans patterns."""

TILES = 12
"""How many, four to a row of the sample."""

_ACROSS = 4
_USUAL = 23.6, 2.95
"""The rate at which an ordinary photo takes one bit a site, and how many rates double the bits."""

_SLOPE = 0.5 / FINE
"""Doublings of the bits from one gain to the next, before it is known better."""

_NEAR = 0.04
_TRIALS = 5


def sample(
    planes: Sequence[PlaneView], raws: Sequence[np.ndarray]
) -> tuple[list[PlaneView], list[np.ndarray]]:
    """A small photo of tiles of a large one, spread evenly; a small one as it is.

    raws: uint16 (H, W) of each plane, companded.
    """
    height, width = raws[0].shape
    if height * width <= 2 * TILES * TILE**2:
        return list(planes), list(raws)
    down = round(math.sqrt(TILES * height / width))
    down = min(max(down, 1), TILES)
    across = -(-TILES // down)
    places = [
        (_place(i, down, height), _place(j, across, width))
        for i in range(down)
        for j in range(across)
    ]

    def tiles(values: np.ndarray) -> np.ndarray:
        parts = [values[..., y : y + TILE, x : x + TILE] for y, x in places]
        parts = parts[: len(parts) // _ACROSS * _ACROSS]
        rows = [np.concatenate(parts[i : i + _ACROSS], -1) for i in range(0, len(parts), _ACROSS)]
        return np.concatenate(rows, -2)

    return [
        replace(
            plane,
            guide=tiles(plane.guide),
            tone=tiles(plane.tone),
            reached=None if plane.reached is None else tiles(plane.reached),
        )
        for plane in planes
    ], [tiles(raw) for raw in raws]


def _place(number: int, count: int, size: int) -> int:
    """Where a tile begins, on a whole hyper-block of whole patterns."""
    unit = 3 * HYPER_BLOCK
    return max(int((number + 0.5) * size / count - TILE / 2) // unit * unit, 0)


def usual(bpp: float) -> int:
    """The gain at which an ordinary photo takes so many bits a site."""
    at_one, doubling = _USUAL
    gain = round(FINE * (at_one + doubling * math.log2(bpp)))
    return min(max(gain, 0), FINEST)


class Search:
    """Gains by the bits that they take: each trial makes the next one better."""

    def __init__(self, bits: Callable[[int], float], start: int) -> None:
        """bits: of the sample at a gain, 0..``FINEST``. start: the gain to begin with."""
        self._bits, self._start = bits, start
        self._known: dict[int, float] = {}

    def log_bits(self, gain: int) -> float:
        """log2 of the bits at a gain."""
        if gain not in self._known:
            self._known[gain] = math.log2(max(self._bits(gain), 1.0))
        return self._known[gain]

    def find(self, bits: float) -> int:
        """The gain that takes nearest to so many bits."""
        wanted = math.log2(max(bits, 1.0))
        gain = self._start if not self._known else self._nearest(wanted)
        for _ in range(_TRIALS):
            if abs(self.log_bits(gain) - wanted) < _NEAR:
                break
            following = self._guess(wanted)
            if following in self._known:
                break
            gain = following
        self.log_bits(gain)
        return self._nearest(wanted)

    def slope(self, gain: int) -> float:
        """Doublings of the bits from one gain to the next, between the two known nearest to one."""
        near = sorted(self._known, key=lambda known: abs(known - gain))[:2]
        if len(near) < 2:
            return _SLOPE
        return (self._known[near[0]] - self._known[near[1]]) / (near[0] - near[1])

    def _nearest(self, wanted: float) -> int:
        return min(self._known, key=lambda gain: abs(self._known[gain] - wanted))

    def _guess(self, wanted: float) -> int:
        """Between the two known gains around what is wanted, or beyond the last."""
        below = [gain for gain, found in self._known.items() if found <= wanted]
        above = [gain for gain, found in self._known.items() if found > wanted]
        if below and above:
            a, b = max(below), min(above)
            if a < b:
                share = (wanted - self._known[a]) / (self._known[b] - self._known[a])
                return round(a + share * (b - a))
        near, slope = self._nearest(wanted), _SLOPE
        if len(self._known) > 1:
            other = min(self._known.keys() - {near}, key=lambda gain: abs(gain - near))
            slope = (self._known[near] - self._known[other]) / (near - other)
            slope = min(max(slope, _SLOPE / 4), 4 * _SLOPE)
        guess = near + (wanted - self._known[near]) / slope
        return round(min(max(guess, 0), FINEST))


def better(search: Search, sizes: Mapping[int, float], aim: float) -> int | None:
    """A gain that has not been tried and may take nearer to ``aim`` bytes; None if there is none.

    sizes: what the photo took at the gains tried.
    """
    below = max((gain for gain, size in sizes.items() if size <= aim), default=-1)
    above = min((gain for gain, size in sizes.items() if size > aim), default=FINEST + 1)
    if above - below < 2:
        return None
    if below >= 0 and above <= FINEST:
        share = math.log(aim / sizes[below]) / math.log(sizes[above] / sizes[below])
        guess = round(below + share * (above - below))
    else:
        last = above if below < 0 else below
        others = sorted(sizes.keys() - {last}, key=lambda gain: abs(gain - last))
        if others:  # the photo itself tells how fast it goes
            slope = math.log2(sizes[last] / sizes[others[0]]) / (last - others[0])
        else:
            slope = search.slope(last)
        slope = min(max(slope, _SLOPE / 4), 4 * _SLOPE)
        guess = round(last + math.log2(aim / sizes[last]) / slope)
    return min(max(guess, below + 1), above - 1)
