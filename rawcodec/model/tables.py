"""The tables that latents are coded with: from a mean and a scale to frequencies.

A table per scale and fraction of the mean, kept with the weights as integers,
so that no machine has to compute a Gaussian. A latent is coded as its distance
from the whole part of its mean.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .bands import over_bands
from .config import MEAN_UNIT, SCALES

TOTAL = 1 << 16
"""The sum of the frequencies of a table, as the entropy coder has it."""

HALVES = (1, 3, 7, 15, 31, 63, 127, 255)
"""Sizes of tables: the largest symbol of each, before the escape."""

_NO_ROW = (1 << 16) - 1

TOGETHER = 1 << 17
"""Latents that are looked at at a time: few enough for the cache."""

_FARTHEST = (1 << 15) - 256
"""The largest residue from a rounded mean, which is below 256, that 16 bits are sure to hold."""

SILENT = 255
"""The size of a scale at which nothing is coded."""

# half of it is scale 1, which is silent: what it would be the scale of is all zero
_SCALE_TABLE = np.array([TOTAL // 2, *[520] * (SCALES - 2), TOTAL // 2 - 520 * (SCALES - 2)])
_SCALE_MIDDLE = SCALES // 2

SCALE_BITS = 16 - np.log2(_SCALE_TABLE[[0, 1]])
"""What the scale 1 takes, and what any other: float64 (2,)."""


class EntropyCoder(Protocol):
    """What the tables need of a coder: see ``rawcodec.stream.entropy.Coder``."""

    def code(
        self,
        symbols: npt.NDArray[np.integer[Any]] | None,
        frequencies: Sequence[npt.NDArray[np.integer[Any]]],
        index: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.int32]: ...


def code_scale(coder: EntropyCoder, scale: int | None) -> int:
    """Code a scale, 1..63, that values have in common; ValueError for others."""
    given = None if scale is None else np.array([scale - _SCALE_MIDDLE], np.int32)
    found = int(coder.code(given, [_SCALE_TABLE], np.zeros(1, np.uint8))[0]) + _SCALE_MIDDLE
    if not 0 < found < SCALES:
        raise ValueError("a scale is out of range")
    return found


def split(mean: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]:
    """Means in eighths: the nearest integers, and what is left in eighths, from -4, plus 4."""
    wide = mean + np.int16(MEAN_UNIT // 2)
    return wide >> 3, (wide & (MEAN_UNIT - 1)).view(np.uint16)


class Tables:
    """Frequencies of the residues of latents from their rounded means.

    sizes: uint8 (64,), for each scale the number of its size in ``HALVES``, or
        ``SILENT`` where latents equal their rounded mean and nothing is coded.
    rows: the tables, 8 for each other scale, by what is left of the mean; see
        ``Coder.code``.
    """

    def __init__(self, sizes: npt.NDArray[np.uint8], flat: npt.NDArray[np.uint16]) -> None:
        """From the arrays of a weights file; ValueError if they do not fit.

        flat: the rows one after the other, each without its last entry, the
            escape's, which is what is left of ``TOTAL``.
        """
        if sizes.shape != (SCALES,) or np.any((sizes >= len(HALVES)) & (sizes != SILENT)):
            raise ValueError("the sizes of tables are not as they should be")
        if sizes.dtype != np.uint8 or flat.dtype != np.uint16 or flat.ndim != 1:
            raise ValueError("the tables are not as they should be")
        self.sizes = sizes
        self.rows: list[npt.NDArray[np.int64]] = []
        self._row = np.full((SCALES, MEAN_UNIT), _NO_ROW, np.uint16)
        at = 0
        for scale, size in enumerate(sizes):
            if size == SILENT:
                continue
            for fraction in range(MEAN_UNIT):
                part = flat[at : at + 2 * HALVES[size] + 1].astype(np.int64)
                at += 2 * HALVES[size] + 1
                row = np.append(part, TOTAL - part.sum())
                if at > len(flat) or row.min() < 1:
                    raise ValueError("the frequencies are not as they should be")
                self._row[scale, fraction] = len(self.rows)
                self.rows.append(row)
        if at != len(flat):
            raise ValueError("the frequencies do not fit the scales")

    def code(
        self,
        coder: EntropyCoder,
        latents: npt.NDArray[np.integer[Any]] | None,
        mean: npt.NDArray[np.int16],
        scale: npt.NDArray[np.uint8],
        where: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.integer[Any]]:
        """Code latents (n,) with means, in eighths, and scales; None for a decoder.

        where: which of them, if not all. Returns the latents, int16, or int32 where some need
        that. Those of a silent scale are not coded, and are their rounded mean; as are those that
        ``where`` leaves out.
        """
        count = len(mean)
        rows = self._row.reshape(-1)
        tops = range(0, count, TOGETHER)
        spoken: list[npt.NDArray[np.intp] | slice] = [slice(None)] * len(tops)
        coded: list[npt.NDArray[np.uint16]] = [rows[:0]] * len(tops)
        nothing = np.zeros(0, np.int16)
        given = [nothing] * len(tops)

        def look_up(start: int, stop: int) -> None:
            part, number = slice(start, stop), start // TOGETHER
            whole, fraction = split(mean[part])
            row = rows.take(scale[part].astype(np.uint16) * np.uint16(MEAN_UNIT) + fraction)
            known = row != _NO_ROW
            if where is not None:
                known &= where[part]
            here = np.flatnonzero(known)
            if len(here) < len(row):
                spoken[number] = here
                row, whole = row[here], whole[here]
            coded[number] = row
            if latents is not None:
                given[number] = latents[part][spoken[number]] - whole

        over_bands(0, count, TOGETHER, look_up)
        ends = np.cumsum([0, *map(len, coded)])
        symbols = None if latents is None else np.concatenate([nothing, *given])
        index = np.concatenate([rows[:0], *coded])
        given.clear()
        coded.clear()
        found = coder.code(symbols, self.rows, index)
        farthest = max(-int(found.min()), int(found.max())) if len(found) else 0
        kind = np.dtype(np.int16 if farthest <= _FARTHEST else np.int32)
        result: npt.NDArray[np.integer[Any]] = np.empty(count, kind)

        def put(start: int, stop: int) -> None:
            part, number = slice(start, stop), start // TOGETHER
            result[part] = split(mean[part])[0]
            result[part][spoken[number]] += found[ends[number] : ends[number + 1]].astype(kind)

        over_bands(0, count, TOGETHER, put)
        return result

    def best_scale(self, values: npt.NDArray[np.int32]) -> tuple[int, float]:
        """The scale with which values of mean 0 take the fewest bits, and these bits."""
        costs = self.cost[:, MEAN_UNIT // 2]
        widest = costs.shape[1] // 2
        counts = np.bincount(np.clip(values, -widest, widest) + widest, minlength=costs.shape[1])
        bits = costs @ counts + np.where(np.arange(SCALES) == 1, *SCALE_BITS)
        bits[0] = np.inf
        if values.any():
            bits[self.sizes == SILENT] = np.inf
        best = int(bits.argmin())
        return best, float(bits[best])

    def centred(self, scale: int) -> npt.NDArray[np.int64] | None:
        """The table of a scale for the mean 0; None where nothing is coded."""
        row = self._row[scale, MEAN_UNIT // 2]
        return None if row == _NO_ROW else self.rows[row]

    @functools.cached_property
    def cost(self) -> npt.NDArray[np.float32]:
        """Bits of the residues -255..255, for the encoder's choice: float32 (64, 8, 511).

        Residues beyond a table cost what its escape does, and a bit for each
        doubling beyond; those of silent scales, nothing: they are not coded.
        """
        widest = HALVES[-1]
        result = np.zeros((SCALES, MEAN_UNIT, 2 * widest + 1), np.float32)
        residues = np.arange(-widest, widest + 1)
        for scale, size in enumerate(self.sizes):
            if size == SILENT:
                continue
            half = HALVES[size]
            rows = np.array([self.rows[row] for row in self._row[scale]])
            bits = 16 - np.log2(rows)
            result[scale, :, widest - half : widest + half + 1] = bits[:, :-1]
            outside = np.abs(residues) > half
            beyond = 2 * np.floor(np.log2(np.maximum(np.abs(residues) - half, 1))) + 2
            result[scale][:, outside] = bits[:, -1:] + beyond[outside]
        return result
