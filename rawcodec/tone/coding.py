"""The tone layer's parameters as symbols: one walk, for encoding and decoding.

``code`` is given a coder (:mod:`rawcodec.stream.entropy`: Encoder, Decoder or
RateMeter) and, when encoding, the parameters; both directions take the same
steps. Values are whole multiples of a step, predicted from coded neighbours;
the residuals' tables are chosen by the size of the residuals around them.
docs/FORMAT.md, section TONE, is the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from ..sensor import Sensor
from . import table as t
from .table import Border, Tone

_HEAD = struct.Struct("<5h3HB")

MIN_SHIFT, MAX_SHIFT = 3, 12
"""Spacings of the border grid, as powers of two."""

NODE_LIMIT = 1 << 14
"""Most coded nodes of a border grid, per colour."""

# Ratio of the frequencies of |k| + 1 and |k|, in 1/256, from the smallest
# residuals to the largest, and of the wide part that every table has a share of
# for the few large residuals among small ones.
_RATIOS = (2, 8, 24, 52, 72, 92, 104, 120, 152, 176, 196, 218, 231, 242)
_WIDE_RATIO = 244
_WIDE_SHARE = 20
_HALF = 24
_TOTAL = 1 << 16
# Twice the mean size of the residuals around, in sixteenths: where the next table begins.
_THRESHOLDS = np.array([1, 3, 6, 11, 18, 28, 42, 62, 90, 130, 190, 270, 400], np.int32)


class Coder(Protocol):
    """What ``code`` needs of an entropy coder."""

    def code(
        self, symbols: np.ndarray | None, frequencies: np.ndarray, index: np.ndarray
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Steps:
    """Quantisation steps: of the table and border in companded units, of gains in 2**-12."""

    table: int
    gain: int
    border: int


@lru_cache(maxsize=1)
def frequencies() -> np.ndarray:
    """Two-sided geometric tables: int32 (14, 50), rows summing to 2**16, the last the escape."""
    tables = np.empty((len(_RATIOS), 2 * _HALF + 2), np.int32)
    spare = _TOTAL - tables.shape[1]
    wide = _geometric(_WIDE_RATIO, spare // _WIDE_SHARE)
    for row, ratio in zip(tables, _RATIOS, strict=True):
        narrow = _geometric(ratio, spare - spare // _WIDE_SHARE)
        counts = [1 + a + b for a, b in zip(narrow, wide, strict=True)]
        row[:] = counts[_HALF:0:-1] + counts
        row[_HALF] += _TOTAL - int(row.sum())
    tables.setflags(write=False)
    return tables


def _geometric(ratio: int, total: int) -> list[int]:
    """Frequencies of 0, 1, ... 24 and the escape whose two-sided sum is at most total."""
    weights = [1 << 40]
    for _ in range(_HALF):
        weights.append(weights[-1] * ratio >> 8)
    # what lies beyond, on both sides
    weights.append(2 * (weights[-1] * ratio // (256 - ratio)))
    scale = weights[0] + 2 * sum(weights[1:-1]) + weights[-1]
    return [weight * total // scale for weight in weights]


@lru_cache(maxsize=1)
def costs() -> np.ndarray:
    """Bits of each entry of ``frequencies``: float64, same shape."""
    bits: np.ndarray = np.log2(_TOTAL / frequencies())
    return bits


def context(*neighbours: tuple[int, np.ndarray]) -> np.ndarray:
    """Table of each residual from weighted sizes of residuals around it.

    neighbours: (weight in sixteenths, residuals int32 (n,)).
    """
    total = np.zeros(len(neighbours[0][1]), np.int64)
    for weight, values in neighbours:
        total += weight * np.abs(values.astype(np.int64))
    return np.searchsorted(_THRESHOLDS, total, side="right").astype(np.int32)


@dataclass(frozen=True)
class Row:
    """One row of values: where it is, what predicts it, and its tables.

    at: index into the array of values. prediction: int32 (n,), whole steps; for
    ``chained`` rows, each value is predicted by the one before it instead.
    index: int32 (n,), the table of each residual.
    """

    at: tuple[Any, ...]
    prediction: np.ndarray
    index: np.ndarray
    chained: bool = False


def table_rows(
    colour: int, colours: tuple[int, ...], values: np.ndarray, residuals: np.ndarray
) -> Iterator[Row]:
    """Rows of one colour's table, in order; values and residuals fill up meanwhile.

    values, residuals: int32 (3, 9, 9, 9), by raw colour, the guide's own
    colour last: see ``own_last``.
    """
    first = colours[0]
    zero = np.zeros(t.NODES, np.int32)
    v, r = values[colour], residuals[colour]
    for i in range(t.NODES):
        for j in range(t.NODES):
            above = r[i - 1, j] if i else zero
            left = r[i, j - 1] if j else zero
            other = residuals[first][i, j] if colour != first else (above + left) >> 1
            index = context((10, above), (10, left), (12, other))
            if i and j:
                prediction = v[i - 1, j] + v[i, j - 1] - v[i - 1, j - 1]
            elif i:
                prediction = _line(v[:, 0], i)
            elif j:
                prediction = _line(v[0], j)
            else:
                index = np.full(t.NODES, len(_RATIOS) - 1, np.int32)
                yield Row((colour, i, j), zero, index, chained=True)
                continue
            yield Row((colour, i, j), prediction, index)


def _line(rows: np.ndarray, n: int) -> np.ndarray:
    """Row n of a straight line through the two before it."""
    line: np.ndarray = rows[n - 1] if n == 1 else 2 * rows[n - 1] - rows[n - 2]
    return line


def own_last(colour: int) -> tuple[int, int, int]:
    """Axes of a colour's table with the guide's own colour last."""
    others = [axis for axis in range(3) if axis != colour]
    return others[0], others[1], colour


def gain_rows(
    colour: int, colours: tuple[int, ...], values: np.ndarray, residuals: np.ndarray
) -> Iterator[Row]:
    """Rows of one colour's gain grid; values, residuals: int32 (3, 4, 9, 12)."""
    first = colours[0]
    zero = np.zeros(t.COLUMNS, np.int32)
    v, r = values[colour], residuals[colour]
    for level in range(t.LEVELS):
        for row in range(t.ROWS):
            below = r[level - 1, row] if level else zero
            above = r[level, row - 1] if row else zero
            other = residuals[first][level, row] if colour != first else (above + below) >> 1
            index = context((10, below), (10, above), (12, other))
            nearest = [v[level, row - 1]] if row else []
            nearest += [v[level - 1, row]] if level else []
            if colour != first:
                nearest.append(values[first][level, row])
            prediction = np.sum([zero, *nearest], axis=0) // max(len(nearest), 1)
            yield Row((colour, level, row), prediction, index)


def border_rows(
    colour: int,
    colours: tuple[int, ...],
    values: np.ndarray,
    residuals: np.ndarray,
    mask: np.ndarray,
) -> Iterator[Row]:
    """Rows of one colour's border grid, only nodes of ``mask``; arrays int32 (3, rows, columns)."""
    first = colours[0]
    v, r = values[colour], residuals[colour]
    for row in range(mask.shape[0]):
        columns = np.flatnonzero(mask[row])
        if not len(columns):
            continue
        known = mask[row - 1, columns] if row else np.zeros(len(columns), bool)
        above = np.where(known, v[row - 1, columns], 0)
        size = np.where(known, r[row - 1, columns], 64)
        if colour != first:
            step = np.where(known, values[first][row, columns] - values[first][row - 1, columns], 0)
            prediction = above + step
            index = context((10, size), (20, residuals[first][row, columns]))
        else:
            prediction, index = above, context((32, size))
        chained = not known.any()
        yield Row((colour, row, columns), prediction.astype(np.int32), index, chained)


def code_rows(
    coder: Coder, rows: Iterator[Row], values: np.ndarray, residuals: np.ndarray, given: bool
) -> None:
    """Code rows; ``values`` holds whole steps when given, and is filled when not."""
    for row in rows:
        symbols = None
        if given:
            actual = values[row.at]
            symbols = np.diff(actual, prepend=0) if row.chained else actual - row.prediction
        coded = coder.code(symbols, frequencies(), row.index)
        residuals[row.at] = coded
        if not given:
            # a damaged file may hold anything; wrapping keeps it harmless
            values[row.at] = (
                np.cumsum(coded, dtype=np.int32) if row.chained else (row.prediction + coded)
            )


def code(
    coder: Coder,
    sensor: Sensor,
    reached: np.ndarray | None,
    head: bytes,
    tone: Tone | None,
) -> Tone:
    """Code a tone layer; returns it as the decoder will have it.

    reached: bool (H, W), the sites that the JPEG reaches with ``MARGIN``
    (:meth:`rawcodec.photo.align.Alignment.reached`); None for all.
    head: what ``pack_head`` gave. tone: quantised (whole steps), or None to
    decode.

    Raises ValueError where ``head`` is not valid, or the border has too many nodes.
    """
    taps, steps, shift = unpack_head(head)
    colours = t.used_colours(sensor)
    table = np.zeros((3, t.NODES, t.NODES, t.NODES), np.int32)
    gains = np.zeros((3, t.LEVELS, t.ROWS, t.COLUMNS), np.int32)
    if tone is not None:
        for colour in colours:
            table[colour] = (tone.table[colour] // steps.table).transpose(own_last(colour))
            gains[colour] = (tone.gains[colour] - (1 << t.GAIN_BITS)) // steps.gain
    given = tone is not None
    for rows, values in ((table_rows, table), (gain_rows, gains)):
        residuals = np.zeros_like(values)
        for colour in colours:
            code_rows(coder, rows(colour, colours, values, residuals), values, residuals, given)
    border = None
    if reached is not None:
        border = _code_border(
            coder, sensor, reached, steps.border, shift, tone.border if tone else None
        )
    out = np.zeros_like(table)
    for colour in colours:
        order = np.argsort(own_last(colour))
        out[colour] = table[colour].transpose(order)
    return Tone(
        taps,
        np.clip(out * steps.table, 0, t.TABLE_MAX).astype(np.int32),
        np.clip(gains * steps.gain + (1 << t.GAIN_BITS), 0, t.GAIN_MAX).astype(np.int32),
        border,
    )


def _code_border(
    coder: Coder,
    sensor: Sensor,
    reached: np.ndarray,
    step: int,
    shift: int,
    given: Border | None,
) -> Border:
    mask = t.border_mask(sensor, reached, shift)
    if mask.sum() > NODE_LIMIT:
        raise ValueError(f"a border of {mask.sum()} nodes is more than {NODE_LIMIT}")
    colours = t.used_colours(sensor)
    values = np.zeros((3, *mask.shape), np.int32)
    if given is not None:
        values[:] = given.nodes // step
    residuals = np.zeros_like(values)
    for colour in colours:
        rows = border_rows(colour, colours, values, residuals, mask)
        code_rows(coder, rows, values, residuals, given is not None)
    return Border(shift, np.clip(values * step, 0, t.VALUE_MAX).astype(np.int32))


def pack_head(taps: tuple[int, ...], steps: Steps, shift: int) -> bytes:
    """The fixed part in front of the entropy-coded one."""
    return _HEAD.pack(*taps, steps.table, steps.gain, steps.border, shift)


HEAD_SIZE = _HEAD.size


def unpack_head(head: bytes) -> tuple[tuple[int, ...], Steps, int]:
    """Filter taps, steps and border shift; ValueError where out of range."""
    if len(head) != _HEAD.size:
        raise ValueError(f"the tone layer has {len(head)} bytes, {_HEAD.size} are its least")
    *taps, table, gain, border, shift = _HEAD.unpack(head)
    if any(abs(tap) > t.FILTER_LIMIT for tap in taps):
        raise ValueError("a filter weight is out of range")
    if not table or not gain or not border:
        raise ValueError("a step is 0")
    if not MIN_SHIFT <= shift <= MAX_SHIFT:
        raise ValueError(f"a border spacing of 2^{shift} is out of range")
    return tuple(taps), Steps(table, gain, border), shift
