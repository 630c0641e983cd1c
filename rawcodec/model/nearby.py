"""How far latents were off around a quad, beside how far their scales had them to be.

The network foretells scales without hearing how right those next door turned out. Where they were
too small or too large, those of the next passes are so too: hence classes of quads, whose scales
are shifted apart (see :mod:`.shifts`). Wu and Memon ("Context-based, adaptive, lossless image
coding", IEEE Trans. Communications, 1997) put pixels in classes by the errors around them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .bands import over_bands
from .config import SCALES

RATIOS: Final = (6, 8, 11, 13, 16, 20, 24, 32, 45)
"""In sixteenths, of what latents were off to what was expected: where the next class begins."""

CLASSES: Final = len(RATIOS) + 1

EXPECTED: Final = np.array(
    [
        *(2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 9, 10, 11, 13),
        *(15, 17, 20, 23, 27, 31, 36, 41, 48, 55, 63, 73, 84, 97, 112, 129),
        *(149, 172, 199, 229, 265, 305, 352, 406, 469, 541, 624, 720, 831, 959, 1106, 1276),
        *(1472, 1699, 1960, 2261, 2609, 3010, 3473, 4007, 4623, 5334, 6155, 7101, 8193, 9452),
        *(10906, 12583),
    ],
    np.int32,
)
"""0.8 standard deviations of each scale, in 1/128 steps: int32 (64,). Of numbers here, so that no
machine has to compute a power."""

assert len(EXPECTED) == SCALES

FARTHEST: Final = 4095
"""The most that a latent counts as off, in eighths: sums fit 32 bits."""

_UNIT = 16
"""Of an eighth, in the units of ``EXPECTED``."""

_ALWAYS = 128
"""What is added to both sums: where little is known, little follows."""

_REACH = 3
"""Quads from one that its class looks at, in rows and columns."""

_ROWS = 64
"""Rows of quads that are looked at at a time."""


class Nearby:
    """Sums over the latents known of each quad of a plane."""

    def __init__(self, rows: int, columns: int) -> None:
        size = rows + 2 * _REACH, columns + 2 * _REACH
        # both with what lies beyond the plane, which is 0
        self._off, self._expected = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._shape = rows, columns

    def add(
        self, here: np.ndarray, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> None:
        """Take in latents, int16 (n, c), in half steps, of the n quads that ``here``, bool (h, w),
        has; with their means, int16, in eighths, and scales, uint8, both (n, c).
        """
        off = np.empty(len(latents), np.int32)
        expected = np.empty(len(latents), np.int32)

        def add_up(start: int, stop: int) -> None:
            part = slice(start, stop)
            far = np.abs(4 * latents[part].astype(np.int32) - mean[part])
            np.minimum(far, FARTHEST, out=far).sum(1, out=off[part])
            EXPECTED.take(scale[part]).sum(1, out=expected[part])

        over_bands(0, len(latents), _ROWS * self._shape[1], add_up)
        off *= _UNIT
        inside = np.s_[_REACH:-_REACH, _REACH:-_REACH]
        self._off[inside][here] += off
        self._expected[inside][here] += expected

    def classes(self) -> np.ndarray:
        """The class of each quad, 0 where latents near it were the least off: uint8 (h, w)."""
        result = np.empty(self._shape, np.uint8)

        def find(top: int, bottom: int) -> None:
            rows = slice(top, bottom + 2 * _REACH)
            off, expected = (_around(sums[rows]) for sums in (self._off, self._expected))
            off *= 16
            part = result[top:bottom]
            part[:] = 0
            for ratio in RATIOS:
                part += off >= ratio * expected

        over_bands(0, self._shape[0], _ROWS, find)
        return result


def _around(sums: np.ndarray) -> np.ndarray:
    """Of sums (h + 6, w + 6), those around each quad, weighted 4 - the distance both ways."""
    for _ in range(2):  # four in a row, and four of these
        pairs = sums[1:] + sums[:-1]
        fours = pairs[2:] + pairs[:-2]
        pairs = fours[:, 1:] + fours[:, :-1]
        sums = pairs[:, 2:] + pairs[:, :-2]
    sums += _ALWAYS
    return sums
