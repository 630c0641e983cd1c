"""Errors of large areas: a pyramid of coarse grids, coded before the network sees anything.

Where the JPEG is clipped, the tone layer's prediction is far off over many sites. Grids of nodes,
from 128 sites apart down to 8, one for each colour, correct it; each adds to the coarser one,
which is interpolated. All that the decoder computes is integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .bands import over_bands
from .config import DISTORTION_WEIGHT, MEAN_UNIT, SCALE_MIN, SCALE_OCTAVES, SCALES
from .tables import SCALE_BITS, SILENT, EntropyCoder, Tables, code_scale

SPACINGS = (64, 32, 16, 8, 4)
"""Quads from node to node, by level."""

FRACTION = 4
"""Bits behind the point of a node's value, which is of the residual's domain."""

_CODED = 3
"""Latents are coded where the variance is larger than a squared step over this."""

_BAND = 24
"""Rows of the finest nodes that are looked at at a time; what comes of it does not depend on it."""

NODE_LIMIT = 1 << 20
"""Largest magnitude of a node: all of the residual's domain, with the fraction."""


def code(
    coder: EntropyCoder, tables: Tables, step: int, size: tuple[int, int], fit: GridFit | None
) -> np.ndarray:
    """Code all levels: the finest nodes, int32 (3, rows, columns), by colour.

    step: of the latents. size: rows and columns of quads. fit: to encode; None to decode.
    ValueError for values out of range.
    """
    choice = None
    if fit is not None:
        # the coarsest levels may cost more than they save; which, the finest does not tell
        trials = [_Choice(fit, tables, first) for first in range(len(SPACINGS) - 1)]
        for trial in trials:
            _walk(_Echo(), tables, step, size, trial, len(SPACINGS) - 1)
        best = min(trials, key=lambda trial: trial.bits + trial.left)
        choice = _Choice(fit, tables, best.first)
    return _walk(coder, tables, step, size, choice, len(SPACINGS))


def largest(unit: int) -> int:
    """Largest magnitude of what is coded for a node: enough to lead from any value to any."""
    return 2 * NODE_LIMIT // unit


def _walk(
    coder: EntropyCoder,
    tables: Tables,
    step: int,
    size: tuple[int, int],
    choice: _Choice | None,
    levels: int,
) -> np.ndarray:
    """Code the first levels: the nodes of the last of them."""
    nodes = np.zeros((3, 1, 1), np.int32)
    near = np.zeros((3, 1, 1), bool)
    for level, spacing in enumerate(SPACINGS[:levels]):
        height, width = (-(-n // spacing) + 1 for n in size)
        if level == 0:
            nodes, near = np.zeros((3, height, width), np.int32), np.zeros((3, height, width), bool)
        else:
            nodes, near = (part[:, :height, :width] for part in (_refined(nodes), near))
        unit = max((step << FRACTION) // spacing, 1)
        limit = largest(unit)
        if choice is not None:
            choice.look(level, nodes, unit, step)
        found = np.zeros(nodes.shape, np.int32)
        for colour in range(3):
            for kind in (False, True):
                here = near[colour] == kind
                count = int(here.sum())
                if not count:
                    continue
                given = scale = None
                if choice is not None:
                    given, scale = choice.values(level, colour, here, limit)
                frequencies = tables.centred(code_scale(coder, scale))
                if frequencies is None:
                    continue
                values = coder.code(given, [frequencies], np.zeros(count, np.uint8))
                if max(-int(values.min()), int(values.max())) > limit:
                    raise ValueError("a node of the grid is out of range")
                found[colour][here] = values
        nodes = np.clip(nodes + found * unit, -NODE_LIMIT, NODE_LIMIT)
        near = _spread(found != 0)
    return nodes


class _Echo:
    """Codes nothing."""

    def code(self, symbols, frequencies, index):  # type: ignore[no-untyped-def]
        return symbols


def add(sites: np.ndarray, nodes: np.ndarray, colours: np.ndarray, top: int = 0) -> None:
    """Add what the finest nodes make of rows of sites: int32 (h, W), in place.

    colours: uint8, the repeating pattern of the sites' colours. top: the first of the rows, even.
    """
    height, width = sites.shape
    added = _rows(nodes, top // 2, (top + height + 1) // 2, -(-width // 2))
    for site in range(4):
        part = sites[site // 2 :: 2, site % 2 :: 2]
        here = np.s_[: part.shape[0], : part.shape[1]]
        for colour, mask in _masks(np.roll(colours, -top, 0), site, part.shape):
            part += added[colour][here] if mask is None else added[colour][here] * mask


def _masks(
    colours: np.ndarray, site: int, size: tuple[int, ...]
) -> list[tuple[int, np.ndarray | None]]:
    """The colours that a site of quads has, and in which: bool of ``size``, or None for all."""
    period = [math.lcm(2, n) // 2 for n in colours.shape]
    rows, columns = (
        (2 * np.arange(n) + start) % m
        for n, start, m in zip(period, divmod(site, 2), colours.shape, strict=True)
    )
    cell = colours[np.ix_(rows, columns)]
    found = np.unique(cell).tolist()
    if len(found) == 1:
        return [(found[0], None)]
    repeats = [-(-n // m) for n, m in zip(size, period, strict=True)]
    every = np.tile(cell, repeats)[: size[0], : size[1]]
    return [(colour, every == colour) for colour in found]


def _rows(nodes: np.ndarray, top: int, bottom: int, columns: int) -> np.ndarray:
    """What the finest nodes make of rows of quads: int32 (3, bottom - top, columns)."""
    spacing = SPACINGS[-1]
    first = top // spacing
    part = nodes[:, first : -(-bottom // spacing) + 1]
    while spacing > 1:
        part = _refined(part)
        spacing //= 2
    start = top - first * SPACINGS[-1]
    half = 1 << (FRACTION - 1)
    return (part[:, start : start + bottom - top, :columns] + half) >> FRACTION


class GridFit:
    """What the encoder knows: the mean error around the nodes of every level, and its weight."""

    def __init__(
        self,
        residual: Callable[[int, int], np.ndarray],
        size: tuple[int, ...],
        colours: np.ndarray,
        step: int,
    ) -> None:
        """residual: gives rows of sites from one to before another, in the residual's domain:
        float32 (rows, W). size: H and W. colours: uint8, repeating pattern. step: of the latents,
        there.

        What is smooth of the errors counts in full where they vary little around it: there latents
        are zero, and leave it. Where they vary by v, latents code both, and take log2(v + smooth^2)
        / 2 bits a site: it counts for less, the more v is.
        """
        height, width = size
        reach = SPACINGS[-1]  # quads
        cells, wide = (-(-(-(-n // 2) + 1) // reach) for n in size)
        shape = (3, cells + 1, wide + 1)
        sums, weights = np.empty(shape, np.float32), np.empty(shape, np.float32)

        def add_up(first: int, last: int) -> None:
            # cells around these rows of nodes, and around the nodes at which those end
            near = max(first - 1, 0), min(last, cells)
            start, stop = max(first - 2, 0), min(last + 1, cells)
            top = 2 * reach * start
            rows = residual(top, min(2 * reach * stop, height))
            pattern = np.roll(colours, -top, 0)
            inner = slice((near[0] - start) * reach, (near[1] - start) * reach)
            for colour in range(3):
                values, squares, count = np.zeros(
                    (3, (stop - start) * reach, wide * reach), np.float32
                )
                parts = []
                for site in range(4):
                    part = rows[site // 2 :: 2, site % 2 :: 2]
                    here = np.s_[: part.shape[0], : part.shape[1]]
                    for found, mask in _masks(pattern, site, part.shape):
                        if found == colour:
                            values[here] += part if mask is None else part * mask
                            count[here] += 1 if mask is None else mask
                            parts.append((part, here, mask))
                total, sites = _around(values, reach), _around(count, reach)
                behind = np.maximum(sites, np.float32(1e-3))
                smooth = np.zeros_like(values)
                smooth[inner] = _between(
                    (total / behind)[near[0] - start : near[1] - start + 1], reach
                )
                for part, here, mask in parts:
                    apart = np.square(part - smooth[here])
                    squares[here] += apart if mask is None else apart * mask
                nodes = slice(first - start, last - start)
                variance = _around(squares, reach)[nodes] / behind[nodes]
                share = step**2 / np.maximum(step**2, _CODED * variance)
                sums[colour, first:last] = total[nodes] * share
                weights[colour, first:last] = sites[nodes] * share

        over_bands(0, cells + 1, _BAND, add_up)
        self._levels: list[tuple[np.ndarray, np.ndarray]] = []
        self._shares = [
            [_shares(-(-n // 2), spacing) for n in (height, width)] for spacing in SPACINGS
        ]
        for spacing in SPACINGS[::-1]:
            if self._levels:
                sums, weights = _coarser(sums), _coarser(weights)
            nodes = tuple(-(-n // (2 * spacing)) + 1 for n in (height, width))
            sums, weights = _fitted(sums, nodes), _fitted(weights, nodes)
            self._levels.insert(0, (sums, weights))

    def wanted(self, level: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What to add to the nodes of a level, and how much it counts: (3, rows, columns)."""
        sums, weights = self._levels[level]
        mean = sums / np.maximum(weights, 1e-3) * (1 << FRACTION)
        down, across = self._shares[level]
        return np.where(weights > 0, mean - down @ nodes @ across.T, 0), weights * (4 / 9)


class _Choice:
    """An encoder's choice of what to code, and what it comes to.

    bits: so far. left: squared error of the last level, in bits that it is worth.
    """

    def __init__(self, fit: GridFit, tables: Tables, first: int) -> None:
        """first: the level before which nothing is coded."""
        self.first = first
        self.bits = self.left = 0.0
        self._fit = fit
        self._costs = tables.cost[:, MEAN_UNIT // 2]
        self._spoken = np.flatnonzero(tables.sizes != SILENT)

    def look(self, level: int, nodes: np.ndarray, unit: int, step: int) -> None:
        """See what is wanted at a level, whose nodes are as the coarser ones make them."""
        wanted, mass = self._fit.wanted(level, nodes)
        self._wanted = wanted / unit
        self._weight = DISTORTION_WEIGHT * mass * (unit / (step << FRACTION)) ** 2
        self.left = 0.0

    def values(
        self, level: int, colour: int, here: np.ndarray, limit: int
    ) -> tuple[np.ndarray, int]:
        """Integers for nodes, int32, and the scale that they are coded with."""
        wanted, weight = self._wanted[colour][here], self._weight[colour][here]
        found = self._none(wanted, weight)
        if level >= self.first and len(self._spoken):
            found = min(found, self._some(wanted, weight, limit), key=lambda f: f.bits + f.left)
        self.bits += found.bits
        self.left += found.left
        return found.values, found.scale

    @staticmethod
    def _none(wanted: np.ndarray, weight: np.ndarray) -> _Found:
        left = float((weight * wanted**2).sum())
        return _Found(np.zeros(len(wanted), np.int32), 1, float(SCALE_BITS[0]), left)

    def _some(self, wanted: np.ndarray, weight: np.ndarray, limit: int) -> _Found:
        widest = self._costs.shape[1] // 2
        nearest = np.clip(np.rint(wanted), -limit, limit).astype(np.int32)
        values = np.where(np.abs(wanted) < 0.7, 0, nearest)
        found = self._none(wanted, weight)
        for _ in range(3):
            if not values.any():
                break
            spread = math.sqrt(float((values.astype(np.float64) ** 2).mean()))
            scale = round(math.log2(max(spread, 0.11) / SCALE_MIN) * (SCALES - 1) / SCALE_OCTAVES)
            at = int(np.searchsorted(self._spoken, max(scale, 1)))
            scale = int(self._spoken[min(at, len(self._spoken) - 1)])
            best = np.full(len(wanted), np.inf)
            bits = np.zeros(len(wanted))
            for option in (nearest, nearest - np.sign(nearest), 0 * nearest):
                price = self._costs[scale, np.clip(option, -widest, widest) + widest]
                total = price + weight * (wanted - option) ** 2
                values = np.where(total < best, option, values)
                bits = np.where(total < best, price, bits)
                best = np.minimum(best, total)
            spent = float(bits.sum())
            left = float(best.sum()) - spent
            found = _Found(values.astype(np.int32), scale, spent + float(SCALE_BITS[1]), left)
        return found


@dataclass(frozen=True)
class _Found:
    """What to code for nodes, and what it comes to, as in :class:`_Choice`."""

    values: np.ndarray
    scale: int
    bits: float
    left: float


def _around(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums around nodes ``reach`` quads apart, weighted by a hat that ends at the next ones.

    values: (h, w), multiples of the reach.
    """
    for _ in range(2):
        result = np.zeros((len(values) // reach + 1, values.shape[1]), np.float32)
        for quad in range(reach):
            share = np.float32(quad / reach)
            result[:-1] += (1 - share) * values[quad::reach]
            result[1:] += share * values[quad::reach]
        values = result.T
    return values


def _between(nodes: np.ndarray, reach: int) -> np.ndarray:
    """Nodes interpolated at quads, ``reach`` to each: (h, w), multiples of the reach."""
    for _ in range(2):
        result = np.empty((reach * (len(nodes) - 1), nodes.shape[1]), np.float32)
        for quad in range(reach):
            share = np.float32(quad / reach)
            result[quad::reach] = (1 - share) * nodes[:-1] + share * nodes[1:]
        nodes = result.T
    return nodes


def _coarser(sums: np.ndarray) -> np.ndarray:
    """Sums around every other node, with hats twice as wide."""
    for axis in (1, 2):
        sums = np.moveaxis(sums, axis, 0)
        padded = np.concatenate([sums[:1] * 0, sums, sums[:2] * 0])
        sums = padded[1:-1:2] + 0.5 * (padded[:-2:2] + padded[2::2][: len(padded[1:-1:2])])
        sums = np.moveaxis(sums, 0, axis)
    return sums


def _fitted(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros((len(part), *shape), np.float32)
    rows_, columns = (min(a, b) for a, b in zip(part.shape[1:], shape, strict=True))
    result[:, :rows_, :columns] = part[:, :rows_, :columns]
    return result


def _shares(quads: int, spacing: int) -> np.ndarray:
    """What each node has in the mean of what is interpolated around every node: (nodes, nodes)."""
    nodes = np.arange(-(-quads // spacing) + 1)
    hats = np.maximum(1 - np.abs(np.arange(quads)[:, None] / spacing - nodes), 0).astype(np.float32)
    shares: np.ndarray = hats.T @ hats / np.maximum(hats.sum(0)[:, None], 1e-3)
    return shares


def _refined(nodes: np.ndarray) -> np.ndarray:
    """Nodes of half the spacing: (..., h, w) to (..., 2h - 1, 2w - 1)."""
    *lead, height, width = nodes.shape
    wide = np.empty((*lead, height, 2 * width - 1), np.int32)
    wide[..., ::2] = nodes
    wide[..., 1::2] = (nodes[..., :-1] + nodes[..., 1:] + 1) >> 1
    result = np.empty((*lead, 2 * height - 1, 2 * width - 1), np.int32)
    result[..., ::2, :] = wide
    result[..., 1::2, :] = (wide[..., :-1, :] + wide[..., 1:, :] + 1) >> 1
    return result


def _spread(marks: np.ndarray) -> np.ndarray:
    """Nodes of half the spacing that are near marked ones."""
    padded = np.pad(marks, ((0, 0), (1, 1), (1, 1)))
    wide = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
    wide = wide[:, :, :-2] | wide[:, :, 1:-1] | wide[:, :, 2:]
    near: np.ndarray = wide.repeat(2, 1).repeat(2, 2)
    return near
