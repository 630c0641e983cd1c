"""Fit the tone layer to one photo (encoder only, floating point).

Least squares of table and gains together and of the filter, in turn, on a
sample of the sites, each linearised around the last solution (Gauss-Newton).
The error is the squared error in DN plus a share of that of companded values:
the first is what PSNR counts, the second keeps the shadows. Quantisation walks the nodes in
coding order and lets the nodes still free make up for what rounding lost
(optimal brain quantisation, Frantar et al., "GPTQ", 2023, section 3), weighing
the error against the bits of each choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from threadpoolctl import threadpool_limits

from ..mosaic import Mosaic, planes
from . import coding
from . import table as t
from .coding import Steps
from .table import Border, Tone

SAMPLES = 300_000
"""Sites that the fit looks at, at most: fewer cost quality and bytes (docs/DESIGN.md)."""

PART = 4
"""The first rounds look at one site in so many."""

MAX_BANDS = 160
"""Rows of the pattern that the sample comes from, at most."""

ROUNDS = 4
"""Rounds of the filter, then table and gains."""

SHADOWS = 0.01
"""Linear level at which the companded error weighs as much as the linear one."""

SIZE_LIMIT = 4096
"""Bytes of the layer's payload."""

STEPS = Steps(table=64, gain=32, border=256)
"""The finest steps: of 2**-15, 2**-12 and 2**-15."""

PRICE = 1e-6
"""Share of the squared error that a bit may cost."""

BORDER_NODES = 600
"""Most nodes of the finest border grid, per colour."""

_BORDER_SAMPLES = 100_000
_BORDER_ROUNDS = 6
_ESCAPE_BITS = 12.0
_FLOOR = 0.01  # least companded value that a linearisation is made at

GuideBand = Callable[[int, int], np.ndarray]
"""Guide of rows top..bottom-1 with two more columns on both sides."""


@dataclass
class Sample:
    """Sites of one colour.

    y, x: float64 (n,), relative position, 0 to 1. centre: (n, 3), the guide,
    0 to 1; slopes: (n, 5, 3), each class of neighbours' mean minus the centre.
    level: (n,), black-subtracted raw, white = 1.
    """

    y: np.ndarray
    x: np.ndarray
    centre: np.ndarray
    slopes: np.ndarray
    level: np.ndarray

    def part(self, which: slice) -> Sample:
        """Some of the sites."""
        return Sample(*(getattr(self, name)[which] for name in _FIELDS))


def sample_sites(mosaic: Mosaic, guide: GuideBand, reached: np.ndarray | None) -> dict[int, Sample]:
    """A random sample of the sites reached, by colour, the same for the same photo."""
    sensor = mosaic.sensor
    rng = np.random.default_rng(0)
    period = sensor.period[0]
    lines = np.arange(sensor.height) if reached is None else np.flatnonzero(reached.any(axis=1))
    top, bottom = int(lines[0]), int(lines[-1]) + 1
    share = SAMPLES / ((bottom - top) * sensor.width)
    # whole periods of rows, evenly down the picture, and random sites in each
    count = int(np.clip((bottom - top) // period * np.sqrt(share) * 2, 1, MAX_BANDS))
    starts = np.unique(np.linspace(top, max(top, bottom - period), count).astype(int))
    starts = np.unique(starts // period * period)
    parts: dict[int, list[Sample]] = {c: [] for c in t.used_colours(sensor)}
    per_row = SAMPLES / (len(starts) * period)
    for start in starts:
        rows = min(period, sensor.height - start)
        band = guide(int(start) - t.REACH, int(start) + rows + t.REACH)
        centre = band[:, 2:-2, 2:-2]
        sums = t.neighbour_sums(band)
        for colour, black, index in planes(sensor):
            row, column = (s.start or 0 for s in index[:2] if isinstance(s, slice))
            columns_step = index[1].step or 1 if isinstance(index[1], slice) else 1
            y = start + row
            if row >= rows:
                continue
            x = np.arange(column, sensor.width, columns_step)
            if reached is not None:
                x = x[reached[y, x]]
            wanted = max(1, int(per_row / (columns_step if not sensor.linear else 3)))
            if len(x) > wanted:
                x = rng.choice(x, wanted, replace=False)
            values = mosaic.samples[(y, x, *index[2:])]
            middle = centre[:, row, x].T / 4080.0
            slopes = np.stack(
                [s[:, row, x].T / (4080.0 * n) for s, n in zip(sums, t.TAPS, strict=True)], axis=1
            )
            parts[colour].append(
                Sample(
                    np.full(len(x), y / max(sensor.height - 1, 1)),
                    x / max(sensor.width - 1, 1),
                    middle,
                    slopes - middle[:, None],
                    (values.astype(np.float64) - black) / (sensor.white - black),
                )
            )
    return {
        colour: Sample(*(np.concatenate([getattr(s, f) for s in samples]) for f in _FIELDS))
        for colour, samples in parts.items()
    }


_FIELDS = ("y", "x", "centre", "slopes", "level")


def _interpolation(
    coordinates: list[np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of multilinear interpolation: (n, 2^d) each.

    coordinates: one (n,) array an axis, 0 to 1.
    """
    index = np.zeros((len(coordinates[0]), 1), np.int64)
    weight = np.ones((len(coordinates[0]), 1))
    for coordinate, nodes in zip(coordinates, shape, strict=True):
        position = np.clip(coordinate, 0, 1) * (nodes - 1)
        cell = np.minimum(position.astype(np.int64), nodes - 2)
        fraction = (position - cell)[:, None]
        low = index * nodes + cell[:, None]
        index = np.concatenate([low, low + 1], axis=1)
        weight = np.concatenate([weight * (1 - fraction), weight * fraction], axis=1)
    return index, weight


def _cells(index: np.ndarray) -> Iterator[np.ndarray]:
    """Points by cell: all points of a cell share their nodes, so that one small product does.

    index: (n, 2^d), the nodes of each point, the cell's first one first.
    """
    order = np.argsort(index[:, 0].astype(np.uint16), kind="stable")
    ends = np.flatnonzero(np.diff(index[order, 0])) + 1
    yield from np.split(order, ends)


def _normal(
    index: np.ndarray, weight: np.ndarray, target: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of sum(weight * value[index]) = target: (N, N), (N,)."""
    matrix = np.zeros((nodes, nodes))
    vector = np.zeros(nodes)
    for points in _cells(index):
        corner = index[points[0]]
        part = weight[points]
        matrix[np.ix_(corner, corner)] += part.T @ part
        vector[corner] += part.T @ target[points]
    return matrix, vector


def _mixed(
    first: np.ndarray,
    first_weight: np.ndarray,
    second: np.ndarray,
    second_weight: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """The part of normal equations that two sets of unknowns share: float64 of ``shape``."""
    matrix = np.zeros(shape)
    for points in _cells(first):
        dense = np.zeros((len(points), shape[1]))
        np.put_along_axis(dense, second[points], second_weight[points], axis=1)
        matrix[first[points[0]]] += first_weight[points].T @ dense
    return matrix


@lru_cache(maxsize=2)
def _smoothness(shape: tuple[int, ...]) -> np.ndarray:
    """Sum of squared second differences along each axis, as a matrix."""
    nodes = int(np.prod(shape))
    number = np.arange(nodes).reshape(shape)
    matrix = np.zeros((nodes, nodes))
    for axis in range(len(shape)):
        moved = np.moveaxis(number, axis, 0)
        triples = [moved[k : len(moved) - 2 + k].ravel() for k in range(3)]
        for a, p in zip(triples, (1, -2, 1), strict=True):
            for b, q in zip(triples, (1, -2, 1), strict=True):
                np.add.at(matrix, (a, b), p * q)
    return matrix


_TABLE_SHAPE = (t.NODES,) * 3
_GAIN_SHAPE = (t.LEVELS, t.ROWS, t.COLUMNS)


class Problem:
    """The state of a fit: float parameters, in units of 1, per colour."""

    def __init__(
        self,
        samples: dict[int, Sample],
        taps: np.ndarray | None = None,
        start: Problem | None = None,
    ) -> None:
        """taps: weights of the filter's classes, none by default. start: where the table
        and the gains begin; without it, the first ``fit_table`` goes by the levels alone."""
        self.samples = samples
        if start is None:
            self.table = {c: np.zeros(t.NODES**3) for c in samples}
            self.gains = {c: np.ones(int(np.prod(_GAIN_SHAPE))) for c in samples}
        else:
            self.table, self.gains = dict(start.table), dict(start.gains)
        self._rgb: dict[int, np.ndarray] = {}
        self._at_table: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._at_gains: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.set_taps(np.zeros(5) if taps is None else taps)
        weight = sum(len(s.level) for s in samples.values()) / 60_000
        self.table_smooth = 1e-3 * weight * _smoothness(_TABLE_SHAPE)
        self.table_smooth += 1e-9 * weight * np.eye(len(self.table_smooth))
        self.gain_smooth = 3e-3 * weight * _smoothness(_GAIN_SHAPE)
        self.gain_smooth += 1e-2 * weight * np.eye(len(self.gain_smooth))
        self._first = start is None

    def set_taps(self, taps: np.ndarray) -> None:
        self.taps = taps

        def place(colour: int) -> None:
            sample = self.samples[colour]
            filtered = sample.centre + np.einsum("nck,c->nk", sample.slopes, taps)
            rgb = np.clip(filtered, 0, 1)
            brightness = (rgb[:, 0] + 2 * rgb[:, 1] + rgb[:, 2]) / 4
            self._rgb[colour] = rgb
            self._at_table[colour] = _interpolation(list(rgb.T), _TABLE_SHAPE)
            self._at_gains[colour] = _interpolation([brightness, sample.y, sample.x], _GAIN_SHAPE)

        self._each(place)

    def _each(self, task: Callable[[int], None]) -> None:
        """Do a task for every colour, side by side."""
        with ThreadPoolExecutor(len(self.samples)) as threads:
            for _ in threads.map(task, self.samples):
                pass  # draws the exceptions out

    def base(self, colour: int) -> np.ndarray:
        """Companded values before the gain."""
        index, weight = self._at_table[colour]
        base: np.ndarray = np.einsum("nk,nk->n", self.table[colour][index], weight)
        return base

    def gain(self, colour: int) -> np.ndarray:
        index, weight = self._at_gains[colour]
        gain: np.ndarray = np.einsum("nk,nk->n", self.gains[colour][index], weight)
        return gain

    def linearised(self, sample: Sample, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets of companded values, and the weights of their errors.

        Far below a site's level, the slope of the square is too small, and the step
        would be far too long: there it is taken halfway up.
        """
        halfway = 0.5 * np.sqrt(np.maximum(sample.level, 0))
        around = np.maximum(np.maximum(value, halfway), _FLOOR)
        target = around + (sample.level - around * around) / (2 * around)
        return target, 2 * np.sqrt(around * around + SHADOWS)

    def table_equations(self, colour: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[colour]
        gain = self.gain(colour)
        if self._first:
            value = np.sqrt(np.maximum(sample.level, _FLOOR**2))
        else:
            value = self.base(colour) * gain
        target, error = self.linearised(sample, value)
        index, weight = self._at_table[colour]
        weight = weight * (gain * error)[:, None]
        matrix, vector = _normal(index, weight, target * error, len(self.table_smooth))
        return matrix + self.table_smooth, vector

    def gain_equations(self, colour: int) -> tuple[np.ndarray, np.ndarray]:
        """For gains minus 1."""
        base = self.base(colour)
        target, error = self.linearised(self.samples[colour], base * self.gain(colour))
        index, weight = self._at_gains[colour]
        weight = weight * (base * error)[:, None]
        matrix, vector = _normal(index, weight, (target - base) * error, len(self.gain_smooth))
        return matrix + self.gain_smooth, vector

    def fit_table(self) -> None:
        def fit(colour: int) -> None:
            self.table[colour] = np.linalg.solve(*self.table_equations(colour))

        self._each(fit)
        self._first = False

    def fit_gains(self) -> None:
        def fit(colour: int) -> None:
            self.gains[colour] = 1 + np.linalg.solve(*self.gain_equations(colour))

        self._each(fit)

    def fit_both(self) -> None:
        """Table and gains in one step: in turn, they converge slowly where brightness
        follows the place, since each can explain a part of the other."""

        def fit(colour: int) -> None:
            base, gain = self.base(colour), self.gain(colour)
            target, error = self.linearised(self.samples[colour], base * gain)
            table_index, table_weight = self._at_table[colour]
            gain_index, gain_weight = self._at_gains[colour]
            table_weight = table_weight * (gain * error)[:, None]
            gain_weight = gain_weight * (base * error)[:, None]
            # the product of both, around both: gains are counted from 1
            wanted = (target + base * gain - base) * error
            sides = (len(self.table_smooth), len(self.gain_smooth))
            tables, table_vector = _normal(table_index, table_weight, wanted, sides[0])
            gains, gain_vector = _normal(gain_index, gain_weight, wanted, sides[1])
            mixed = _mixed(table_index, table_weight, gain_index, gain_weight, sides)
            matrix = np.block(
                [[tables + self.table_smooth, mixed], [mixed.T, gains + self.gain_smooth]]
            )
            solved = np.linalg.solve(matrix, np.concatenate([table_vector, gain_vector]))
            self.table[colour] = solved[: sides[0]]
            self.gains[colour] = 1 + solved[sides[0] :]

        self._each(fit)

    def fit_taps(self) -> None:
        matrix, vector = 1e-3 * np.eye(5), np.zeros(5)
        for colour, sample in self.samples.items():
            rgb = self._rgb[colour]
            gain = self.gain(colour)
            value = self.base(colour) * gain
            slope = _gradient(self.table[colour], rgb) * gain[:, None] * ((rgb > 0) & (rgb < 1))
            target, error = self.linearised(sample, value)
            design = np.einsum("nk,nck->nc", slope, sample.slopes) * error[:, None]
            matrix += design.T @ design
            vector += design.T @ ((target - value) * error)
        limit = 0.9 * t.FILTER_LIMIT / (1 << t.FILTER_BITS) * np.array(t.TAPS)
        self.set_taps(np.clip(self.taps + np.linalg.solve(matrix, vector), -limit, limit))

    def error(self) -> float:
        """Sum of squared weighted errors, as the equations count them."""
        total = 0.0
        for colour, sample in self.samples.items():
            value = self.base(colour) * self.gain(colour)
            target, error = self.linearised(sample, value)
            total += float((((target - value) * error) ** 2).sum())
        return total


def _gradient(table: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Derivative of the table's value by the guide's R, G, B: (n, 3)."""
    index, _ = _interpolation(list(rgb.T), _TABLE_SHAPE)
    position = rgb * (t.NODES - 1)
    fraction = position - np.minimum(position.astype(np.int64), t.NODES - 2)
    # bit k of a corner's number says on which side of axis k it is
    corners = table[index].reshape(-1, 2, 2, 2).transpose(0, 3, 2, 1)
    columns = []
    for axis in range(3):
        slope = np.diff(corners, axis=axis + 1).squeeze(axis + 1)
        for other in (n for n in (2, 1, 0) if n != axis):
            # the last axis that is left is the one of the greatest number
            share = fraction[:, other].reshape(-1, *[1] * (slope.ndim - 2))
            slope = slope[..., 0] * (1 - share) + slope[..., 1] * share
        columns.append(slope * (t.NODES - 1))
    return np.stack(columns, axis=1)


def fit_tone(
    mosaic: Mosaic,
    guide: GuideBand,
    reached: np.ndarray | None,
    pack: Callable[[Tone, bytes], bytes],
) -> tuple[Tone, bytes]:
    """Fit, quantise and pack the tone layer of one photo.

    reached: bool (H, W), the sites that the JPEG reaches, with ``MARGIN``; None
    for all. pack: entropy-codes a quantised layer behind its head.

    Returns the layer as the decoder will have it, and its payload of at most
    ``SIZE_LIMIT`` bytes.
    """
    # The matrices are small, and colours are fitted side by side: a second level of
    # threads gains nothing, and waits for long where the processors are busy.
    with threadpool_limits(1, "blas"):
        return _fit(mosaic, guide, reached, pack)


def _fit(
    mosaic: Mosaic,
    guide: GuideBand,
    reached: np.ndarray | None,
    pack: Callable[[Tone, bytes], bytes],
) -> tuple[Tone, bytes]:
    sample = sample_sites(mosaic, guide, reached)
    # a part of the sample fixes the filter and brings the rest near its solution
    part = slice(None, None, PART)
    draft = Problem({c: s.part(part) for c, s in sample.items()})
    draft.fit_table()
    draft.fit_gains()
    for _ in range(ROUNDS):
        draft.fit_taps()
        draft.fit_both()
    taps = tuple(
        round(float(tap) / n * (1 << t.FILTER_BITS))
        for tap, n in zip(draft.taps, t.TAPS, strict=True)
    )
    problem = Problem(sample, np.array(taps) * t.TAPS / (1 << t.FILTER_BITS), draft)
    problem.fit_table()
    problem.fit_gains()
    shift = coding.MIN_SHIFT
    if reached is not None:
        while int(t.border_mask(mosaic.sensor, reached, shift).sum()) > BORDER_NODES:
            shift += 1
    price, steps = PRICE * problem.error(), STEPS
    while True:
        tone = _quantise(problem, taps, steps, price)
        if reached is not None:
            border = fit_border(mosaic, reached, shift)
            nodes = np.round(border.nodes / steps.border).astype(np.int32) * steps.border
            tone = replace(tone, border=Border(shift, nodes))
        payload = pack(tone, coding.pack_head(taps, steps, shift))
        if len(payload) <= SIZE_LIMIT:
            return tone, payload
        price *= 2
        steps = Steps(*(min(2 * step, 1 << 12) for step in (steps.table, steps.gain, steps.border)))
        if reached is not None:
            shift = min(shift + 1, coding.MAX_SHIFT)


def _quantise(problem: Problem, taps: tuple[int, ...], steps: Steps, price: float) -> Tone:
    """Whole steps for the table, then for the gains given that table."""
    colours = tuple(problem.samples)
    floats = problem.table, problem.gains
    table = np.zeros((3, *_TABLE_SHAPE), np.int32)
    residuals = np.zeros_like(table)
    unit = steps.table / (1 << t.UNIT_BITS)
    exact = np.zeros_like(table)
    for colour in colours:
        axes = coding.own_last(colour)
        number = np.arange(t.NODES**3).reshape(_TABLE_SHAPE).transpose(axes)
        matrix, vector = problem.table_equations(colour)
        rows = coding.table_rows(colour, colours, table, residuals)
        highest = t.TABLE_MAX // steps.table
        _round(matrix, vector, rows, number, unit, price, table, residuals, (0, highest))
        exact[colour] = table[colour].transpose(np.argsort(axes)) * steps.table
    problem.table = {c: exact[c].ravel() / (1 << t.UNIT_BITS) for c in colours}

    gains = np.zeros((3, *_GAIN_SHAPE), np.int32)
    residuals = np.zeros_like(gains)
    unit = steps.gain / (1 << t.GAIN_BITS)
    bounds = (-(1 << t.GAIN_BITS) // steps.gain + 1, (t.GAIN_MAX >> 1) // steps.gain)
    for colour in colours:
        number = np.arange(int(np.prod(_GAIN_SHAPE))).reshape(_GAIN_SHAPE)
        matrix, vector = problem.gain_equations(colour)
        rows = coding.gain_rows(colour, colours, gains, residuals)
        _round(matrix, vector, rows, number, unit, price, gains, residuals, bounds)
    problem.table, problem.gains = floats
    return Tone(taps, exact, gains * steps.gain + (1 << t.GAIN_BITS), None)


def _round(
    matrix: np.ndarray,
    vector: np.ndarray,
    rows: Iterator[coding.Row],
    number: np.ndarray,
    unit: float,
    price: float,
    values: np.ndarray,
    residuals: np.ndarray,
    bounds: tuple[int, int],
) -> None:
    """Fill values and residuals with whole multiples of unit, in coding order.

    matrix, vector: the normal equations of the nodes. number: the node's
    number in them, by position in ``values[colour]``. price: squared error that
    a bit is worth.
    """
    order = number.ravel()
    matrix = matrix[np.ix_(order, order)]
    # nodes that no site holds are held by the smoothness alone, to within rounding
    matrix += 1e-9 * float(np.diag(matrix).mean()) * np.eye(len(matrix))
    inverse = np.linalg.inv(matrix)
    free = inverse @ vector[order]
    # row i: how the nodes after i answer to an error made at node i
    answer = np.linalg.cholesky((inverse + inverse.T) / 2, upper=True)
    bits = coding.costs()
    half = (bits.shape[1] - 2) // 2
    place = 0
    for row in rows:
        before = 0
        for column, table in enumerate(row.index):
            predicted = before if row.chained else int(row.prediction[column])
            wanted = free[place] / unit
            spread = answer[place, place]
            best = (np.inf, 0)
            floor = int(np.floor(wanted))
            for value in {floor, floor + 1, predicted, (floor + predicted) // 2}:
                value = min(max(value, bounds[0]), bounds[1])
                entry = value - predicted + half
                inside = 0 <= entry <= 2 * half
                cost = bits[table, entry] if inside else bits[table, -1] + _ESCAPE_BITS
                loss = (((wanted - value) * unit) / spread) ** 2 + price * cost
                best = min(best, (loss, value))
            before = best[1]
            values[(*row.at, column)] = before
            residuals[(*row.at, column)] = before - predicted
            error = (free[place] - before * unit) / spread
            free[place:] -= error * answer[place, place:]
            place += 1


def fit_border(mosaic: Mosaic, reached: np.ndarray, shift: int) -> Border:
    """Companded values over the uncovered sites, by repeated weighted averages."""
    sensor = mosaic.sensor
    mask = t.border_mask(sensor, reached, shift)
    nodes = np.zeros((3, *mask.shape))
    rng = np.random.default_rng(0)
    scale = 1 << t.UNIT_BITS
    points: dict[int, list[np.ndarray]] = {c: [] for c in t.used_colours(sensor)}
    for colour, black, index in planes(sensor):
        ys, xs = (
            np.arange(length)[s]
            for length, s in zip((sensor.height, sensor.width), index[:2], strict=True)
        )
        outside = ~reached[index[:2]]
        y, x = (n.astype(np.int64) for n in np.nonzero(outside))
        if len(y) > _BORDER_SAMPLES:
            chosen = rng.choice(len(y), _BORDER_SAMPLES, replace=False)
            y, x = y[chosen], x[chosen]
        y, x = ys[y], xs[x]
        levels = mosaic.samples[(y, x, *index[2:])].astype(np.float64) - black
        values = np.sqrt(np.maximum(levels / (sensor.white - black), 0)) * scale
        points[colour].append(np.stack([y, x, values]))
    for colour, parts in points.items():
        y, x, values = np.concatenate(parts, axis=1)
        size = 1 << shift
        shape = tuple(n for n in mask.shape)
        where = [y / ((shape[0] - 1) * size), x / ((shape[1] - 1) * size)]
        corner, weight = _interpolation(where, shape)
        total = np.bincount(corner.ravel(), weight.ravel(), mask.size)
        flat = np.zeros(mask.size)
        for _ in range(_BORDER_ROUNDS):
            left_over = values - (flat[corner] * weight).sum(1)
            pull = np.bincount(corner.ravel(), (weight * left_over[:, None]).ravel(), mask.size)
            flat += pull / np.maximum(total, 0.05)
        nodes[colour] = np.where(mask, np.clip(flat.reshape(shape), 0, t.VALUE_MAX), 0)
    return Border(shift, nodes)
