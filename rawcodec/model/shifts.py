"""How far a photo's latents are off the network's scales, by the class of their quad.

A *cell* is a class and a scale: ``SCALES`` times the class, and the scale.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .bands import over_bands
from .config import MEAN_UNIT, SCALES
from .nearby import CLASSES
from .tables import HALVES, SILENT, TOGETHER, TOTAL, EntropyCoder, Tables

SHIFTED_TOGETHER: Final = 4
"""Neighbouring scales that one shift moves."""

SHIFTED: Final = SCALES // SHIFTED_TOGETHER
"""Shifts of a class."""

SHIFT_LIMIT = 7
"""Largest magnitude of a shift, in scales."""

FEWEST: Final = 64
"""Latents that a shift of their own is coded for, at least."""

_STEPS = (350, 350, 500, 1000, 2300, 5700, 9900)
_ESCAPE = 36
_STEP_TABLE = np.array([*_STEPS, TOTAL - 2 * sum(_STEPS) - _ESCAPE, *_STEPS[::-1], _ESCAPE])

_WIDEST = HALVES[-1]
_RESIDUES = MEAN_UNIT * (2 * _WIDEST + 1)
"""Entries of ``Tables.cost`` for a scale."""


def _bits_of_steps() -> np.ndarray:
    """What a step from one class's shift to the next one's takes: float64 (29,), from -14."""
    steps = np.abs(np.arange(-2 * SHIFT_LIMIT, 2 * SHIFT_LIMIT + 1))
    half = len(_STEPS)
    bits = 16 - np.log2(_STEP_TABLE[np.minimum(steps, half + 1) + half])
    beyond = 2 * np.floor(np.log2(np.maximum(steps - half, 1))) + 2
    result: np.ndarray = bits + np.where(steps > half, beyond, 0)
    return result


STEP_BITS = _bits_of_steps()


class Cells:
    """Latents of a pass by their cells; those of silent scales have no shifts."""

    def __init__(self, tables: Tables, classes: np.ndarray, scale: np.ndarray) -> None:
        """classes: uint8 (n,), of the latents' quads. scale: uint8 (n,), of the latents."""
        self._silent = tables.sizes == SILENT
        self._of = np.empty(len(scale), np.uint16)

        def put(start: int, stop: int) -> None:
            part = slice(start, stop)
            np.multiply(classes[part], SCALES, out=self._of[part], dtype=np.uint16)
            self._of[part] += scale[part]

        over_bands(0, len(scale), TOGETHER, put)
        counts = np.bincount(self._of, minlength=CLASSES * SCALES).reshape(CLASSES, SCALES)
        counts[:, self._silent] = 0
        self._counts = counts.reshape(CLASSES, SHIFTED, SHIFTED_TOGETHER).sum(2)

    @property
    def shifted(self) -> np.ndarray:
        """Which shifts are coded: bool (10, 16). Others are those of the class before, or 0."""
        result: np.ndarray = self._counts >= FEWEST
        return result

    def code(self, coder: EntropyCoder, shifts: np.ndarray | None) -> np.ndarray:
        """Code shifts, -7..7: int32 (10, 16), for every ``SHIFTED_TOGETHER`` scales of a class.

        shifts: see ``best``; None for a decoder. ValueError for shifts beyond.
        """
        coded = self.shifted
        given = None if shifts is None else np.diff(shifts, axis=0, prepend=0)[coded]
        steps = np.zeros((CLASSES, SHIFTED), np.int32)
        index = np.zeros(np.count_nonzero(coded), np.uint8)
        steps[coded] = coder.code(given, [_STEP_TABLE], index)
        result: np.ndarray = steps.cumsum(0, dtype=np.int32)
        if np.abs(result).max() > SHIFT_LIMIT:
            raise ValueError("a shift of scales is out of range")
        return result

    def moved(self, shifts: np.ndarray) -> np.ndarray:
        """The scales, uint8 (n,), moved by the shifts of their cells; silent ones stay."""
        every = np.arange(SCALES)
        further = np.clip(every + np.repeat(shifts, SHIFTED_TOGETHER, axis=1), 0, SCALES - 1)
        table = np.where(self._silent, every, further).astype(np.uint8).ravel()
        result = np.empty(len(self._of), np.uint8)

        def move(start: int, stop: int) -> None:
            result[start:stop] = table.take(self._of[start:stop])

        over_bands(0, len(result), TOGETHER, move)
        return result

    def best(self, tables: Tables, places: np.ndarray, stride: int) -> np.ndarray:
        """The shifts with which latents take the fewest bits: int32 (10, 16).

        places: of every ``stride``-th latent, where ``Tables.cost`` has it without shifts.
        """
        cells = self._of[::stride].astype(np.int32)
        cells *= _RESIDUES
        cells += places % _RESIDUES
        counts = np.bincount(cells, minlength=CLASSES * SCALES * _RESIDUES)
        # what is not coded stays so, and nothing else becomes so: a rare latent would be lost
        counts.reshape(CLASSES, SCALES, -1)[:, self._silent] = 0
        price = tables.cost.reshape(SCALES, -1).astype(np.float64)
        price[self._silent] = np.inf
        found = np.flatnonzero(counts)
        cell, residue = np.divmod(found, _RESIDUES)
        scale, group, weights = cell % SCALES, cell // SHIFTED_TOGETHER, stride * counts[found]
        bits = np.empty((2 * SHIFT_LIMIT + 1, CLASSES, SHIFTED))
        for row, shift in zip(bits, range(-SHIFT_LIMIT, SHIFT_LIMIT + 1), strict=True):
            moved = np.clip(scale + shift, 0, SCALES - 1)
            paid = np.bincount(group, weights * price[moved, residue], CLASSES * SHIFTED)
            row[:] = paid.reshape(CLASSES, SHIFTED)
        return _cheapest(bits, self.shifted)


def _cheapest(bits: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """The shifts for which latents and shifts together take the fewest bits, class after class.

    bits: of latents, float64 (15, 10, 16), by the shift. shifted: see ``Cells``.
    """
    every = np.arange(len(bits))
    result = np.zeros((CLASSES, SHIFTED), np.int32)
    before = np.full(SHIFTED, SHIFT_LIMIT)
    for number, coded in enumerate(shifted):
        paid = bits[:, number] + STEP_BITS[every[:, None] - before + 2 * SHIFT_LIMIT]
        before = np.where(coded, paid.argmin(0), before)
        result[number] = before - SHIFT_LIMIT
    return result
