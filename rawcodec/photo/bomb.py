"""Tells files that claim far more samples than their bytes can hold: decompression bombs.

Decoders allocate what a header claims before they see that nothing is behind it.
"""

from __future__ import annotations

from typing import Final

_HARMLESS: Final = 1 << 25
"""Samples that fit into 200 MB whatever is done to them; even a picture of one colour may be so
large."""

_PER_BYTE: Final = 341
"""Samples a byte may stand for at most: a bit for each of the six blocks in 16x16 pixels of a 4:2:0
JPEG (T.81, annex F), where even one colour has that many. Photos of quality 1 have half as many,
and raws as lossless JPEG, which takes a bit a site at least, 8."""


def is_bomb(samples: int, size: int) -> bool:
    """Whether no photo of so many samples (pixels, or sites) is in a file of ``size`` bytes."""
    return samples > max(_HARMLESS, _PER_BYTE * size)
