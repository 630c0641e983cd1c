"""What each symbol takes, where ``RateMeter`` tells it of all of them together."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .entropy import PART, TOTAL, RateMeter, Tables

Bits = npt.NDArray[np.float32]


class SymbolMeter:
    """Bits of symbols by their tables; it codes nothing, and remembers the tables alone."""

    def __init__(self) -> None:
        self._of: Tables | None = None
        self._halves = self._starts = np.zeros(0, np.int32)
        self._bits = np.zeros(0, np.float32)

    def __call__(
        self,
        symbols: npt.NDArray[np.integer[Any]],
        frequencies: Tables,
        index: npt.NDArray[np.integer[Any]],
    ) -> Bits:
        """Bits of each symbol: float32 (n,).

        symbols, frequencies, index: as ``Coder.code`` takes them; symbols that a coder has coded.
        """
        if frequencies is not self._of:
            self._of = frequencies
            sizes = np.array([len(row) for row in frequencies], np.int32)
            self._halves = (sizes - 2) // 2
            self._starts = (np.cumsum(sizes) - sizes).astype(np.int32)
            self._bits = np.log2(TOTAL / np.concatenate(list(frequencies))).astype(np.float32)
        result = np.empty(len(index), np.float32)
        for start in range(0, len(index), PART):
            part = slice(start, start + PART)
            result[part] = self._bits_of(symbols[part], index[part])
        return result

    def _bits_of(
        self, symbols: npt.NDArray[np.integer[Any]], index: npt.NDArray[np.integer[Any]]
    ) -> Bits:
        half = self._halves[index]
        away = np.abs(symbols) - half
        escaped = away > 0
        entries = np.where(escaped, 2 * half + 1, symbols + half)
        bits: Bits = self._bits[self._starts[index] + entries]
        if escaped.any():
            lengths = np.frexp(away[escaped].astype(np.float64))[1] - 1
            bits[escaped] += _escape_bits()[lengths]
        return bits


@lru_cache(maxsize=1)
def _escape_bits() -> Bits:
    """Bits of what follows an escape, by the bits of its value below the leading one: (24,)."""
    result = np.empty(24, np.float32)
    even = np.array([[TOTAL // 2, TOTAL // 2]])  # a table of 0 and the escape, a bit each
    for length in range(len(result)):
        meter = RateMeter()
        meter.code(np.array([1 << length]), even, np.zeros(1, np.int64))
        result[length] = meter.bits - 1
    return result
