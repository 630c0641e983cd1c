"""Tells files that claim far more samples than their bytes can hold: decompression bombs.

Decoders allocate what a header claims before they see that nothing is behind it.
"""

from __future__ import annotations

from typing import Final

PIXELS_A_BYTE: Final = 8 * 64
"""Of a JPEG at most: each block of 8x8 pixels takes a bit at least, in every way of coding but the
arithmetic one, with which photos take more. What has fewer is no photo."""

SITES_A_BYTE: Final = 64
"""Of a raw at most: the least that any camera's compression comes down to is about a bit a site;
black frames of a lossy one may take a quarter of that."""

_HARMLESS: Final = 1 << 25
"""Samples that fit into 200 MB whatever is done to them: of one colour, or black, a file may claim
so many whatever its size."""


def is_bomb(samples: int, size: int, a_byte: int) -> bool:
    """Whether no photo of so many samples (pixels, or sites) is in ``size`` bytes.

    a_byte: the most that one holds, of those above.
    """
    return samples > max(_HARMLESS, a_byte * size)
