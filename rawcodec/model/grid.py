"""Errors of large areas: a pyramid of coarse grids, coded before the network sees anything.

Where the JPEG is clipped, the tone layer's prediction is far off over many sites. Grids of nodes,
from 128 sites apart down to 8, one for each colour, correct it; each adds to the coarser one,
which is interpolated. All that the decoder computes is integers.
"""

from __future__ import annotations

import math

import numpy as np

from .config import MEAN_UNIT, SCALE_MIN, SCALE_OCTAVES, SCALES
from .tables import SILENT, TOTAL, EntropyCoder, Tables

SPACINGS = (64, 32, 16, 8, 4)
"""Quads from node to node, by level."""

FRACTION = 4
"""Bits behind the point of a node's value, which is of the residual's domain."""

NODE_LIMIT = 1 << 20
"""Largest magnitude of a node: all of the residual's domain, with the fraction."""

# half of it is scale 1, which is silent: no node of the kind is anything but zero
_SCALE_TABLE = np.array([TOTAL // 2, *[520] * (SCALES - 2), TOTAL // 2 - 520 * (SCALES - 2)])
_SCALE_MIDDLE = SCALES // 2
_LARGEST = 1 << 12
_BAND = 64
_DISTORTION_WEIGHT = 6 / math.log(2)


def code(
    coder: EntropyCoder, tables: Tables, step: int, size: tuple[int, int], fit: GridFit | None
) -> np.ndarray:
    """Code all levels: the finest nodes, int32 (3, rows, columns), by colour.

    step: of the latents. size: rows and columns of quads. fit: to encode; None to decode.
    ValueError for values out of range.
    """
    nodes = np.zeros((3, 1, 1), np.int32)
    near = np.zeros((3, 1, 1), bool)
    for level, spacing in enumerate(SPACINGS):
        height, width = (-(-n // spacing) + 1 for n in size)
        if level == 0:
            nodes, near = np.zeros((3, height, width), np.int32), np.zeros((3, height, width), bool)
        else:
            nodes, near = (part[:, :height, :width] for part in (_refined(nodes), near))
        unit = max((step << FRACTION) // spacing, 1)
        found = np.zeros(nodes.shape, np.int32)
        wanted, mass = (None, None) if fit is None else fit.wanted(level, nodes)
        for colour in range(3):
            for kind in (False, True):
                here = near[colour] == kind
                count = int(here.sum())
                if not count:
                    continue
                given = scale = None
                if wanted is not None and mass is not None:
                    weight = mass[colour][here] * (unit / (step << FRACTION)) ** 2
                    given, scale = _chosen(tables, wanted[colour][here] / unit, weight)
                scale = _code_scale(coder, scale)
                values = tables.code(
                    coder, given, np.zeros(count, np.int16), np.full(count, scale, np.uint8)
                )
                if np.abs(values).max() > _LARGEST:
                    raise ValueError("a node of the grid is out of range")
                found[colour][here] = values
        nodes = np.clip(nodes + found * unit, -NODE_LIMIT, NODE_LIMIT)
        near = _spread(found != 0)
    return nodes


def add(sites: np.ndarray, nodes: np.ndarray, colours: np.ndarray) -> None:
    """Add what the finest nodes make of every site: int32 (H, W), in place.

    colours: uint8, the repeating pattern of the sites' colours.
    """
    height, width = sites.shape
    quads = -(-width // 2)
    for top in range(0, -(-height // 2), _BAND):
        bottom = min(top + _BAND, -(-height // 2))
        added = _rows(nodes, top, bottom, quads)
        for site in range(4):
            y, x = (np.arange(2 * top + site // 2, min(2 * bottom, height), 2),
                    np.arange(site % 2, width, 2))  # fmt: skip
            if not len(y) or not len(x):
                continue
            colour = colours[np.ix_(y % colours.shape[0], x % colours.shape[1])].astype(np.intp)
            here = added[:, : len(y), : len(x)]
            sites[y[0] : y[-1] + 1 : 2, x[0] :: 2] += np.take_along_axis(here, colour[None], 0)[0]


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
    """What the encoder knows: the mean error around every node."""

    def __init__(self, residual: np.ndarray, colours: np.ndarray) -> None:
        """residual: float32 (H, W), in the residual's domain. colours: uint8, repeating pattern."""
        height, width = residual.shape
        reach = 2 * SPACINGS[-1]  # sites
        tall, wide = (-(-(n + 1) // reach) * reach for n in (height, width))
        pattern = np.tile(colours, (height // len(colours) + 1, width // colours.shape[1] + 1))
        pattern = pattern[:height, :width]
        self._sums, self._weights = [], []
        for colour in range(3):
            mask = np.zeros((tall, wide), np.float32)
            mask[:height, :width] = pattern == colour
            values = np.zeros_like(mask)
            values[:height, :width] = residual
            values *= mask
            self._sums.append(_around(values, reach))
            self._weights.append(_around(mask, reach))

    def wanted(self, level: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What to add to the nodes of a level, and the sites behind it: (3, rows, columns)."""
        fine = nodes
        for _ in range(len(SPACINGS) - 1 - level):
            fine = _refined(fine)
        results, masses = [], []
        for colour in range(3):
            weight = self._weights[colour]
            rows_, columns = weight.shape
            have = np.zeros(weight.shape, np.float32)
            have[:, :] = np.pad(fine[colour], ((0, rows_), (0, columns)), "edge")[:rows_, :columns]
            sums = self._sums[colour] - _smoothed(have) / (1 << FRACTION) * weight
            for _ in range(len(SPACINGS) - 1 - level):
                sums, weight = _coarser(sums), _coarser(weight)
            shape = nodes.shape[1:]
            sums, weight = (_fitted(part, shape) for part in (sums, weight))
            results.append(sums / np.maximum(weight, 1e-3) * (1 << FRACTION))
            masses.append(weight * (4 / 9))
        return np.stack(results), np.stack(masses)


def _around(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums around nodes ``reach`` sites apart, weighted by a hat that ends at the next ones."""
    hat = ((np.arange(reach) + 0.5) / reach).astype(np.float32)
    rows_, columns = (n // reach for n in values.shape)
    cells = values.reshape(rows_, reach, columns, reach)
    result = np.zeros((rows_ + 1, columns + 1), np.float32)
    for i, down in enumerate((hat[::-1], hat)):
        part = np.einsum("arbs,r->abs", cells, down)
        for j, across in enumerate((hat[::-1], hat)):
            result[i : i + rows_, j : j + columns] += part @ across
    return result


def _coarser(sums: np.ndarray) -> np.ndarray:
    """Sums around every other node, with hats twice as wide."""
    for axis in (0, 1):
        sums = np.moveaxis(sums, axis, 0)
        padded = np.concatenate([sums[:1] * 0, sums, sums[:2] * 0])
        sums = padded[1:-1:2] + 0.5 * (padded[:-2:2] + padded[2::2][: len(padded[1:-1:2])])
        sums = np.moveaxis(sums, 0, axis)
    return sums


def _fitted(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros(shape, np.float32)
    rows_, columns = (min(a, b) for a, b in zip(part.shape, shape, strict=True))
    result[:rows_, :columns] = part[:rows_, :columns]
    return result


def _smoothed(nodes: np.ndarray) -> np.ndarray:
    """Means of what is interpolated, weighted by hats."""
    for axis in (0, 1):
        nodes = np.moveaxis(nodes, axis, 0)
        padded = np.concatenate([nodes[:1], nodes, nodes[-1:]])
        nodes = np.moveaxis((padded[:-2] + 4 * nodes + padded[2:]) / 6, 0, axis)
    return nodes


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


def _code_scale(coder: EntropyCoder, scale: int | None) -> int:
    given = None if scale is None else np.array([scale - _SCALE_MIDDLE], np.int32)
    found = int(coder.code(given, [_SCALE_TABLE], np.zeros(1, np.uint8))[0]) + _SCALE_MIDDLE
    if not 0 < found < SCALES:
        raise ValueError("a scale of the grid is out of range")
    return found


def _chosen(tables: Tables, wanted: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Integers for nodes, and the scale that they are coded with."""
    costs = tables.cost()[:, MEAN_UNIT // 2]
    widest = costs.shape[1] // 2
    nearest = np.clip(np.rint(wanted), -_LARGEST, _LARGEST).astype(np.int32)
    values = np.where(np.abs(wanted) < 0.7, 0, nearest)
    scale = 1
    for _ in range(3):
        spread = math.sqrt(float((values.astype(np.float64) ** 2).mean()))
        if not values.any():
            return values, 1
        scale = round(math.log2(max(spread, 0.11) / SCALE_MIN) * (SCALES - 1) / SCALE_OCTAVES)
        scale = min(max(scale, 1), SCALES - 1)
        while tables.sizes[scale] == SILENT:
            scale += 1
        best = np.full(len(wanted), np.inf)
        for option in (nearest, nearest - np.sign(nearest), 0 * nearest):
            price = costs[scale, np.clip(option, -widest, widest) + widest]
            price = price + _DISTORTION_WEIGHT * weight * (wanted - option) ** 2
            values = np.where(price < best, option, values)
            best = np.minimum(best, price)
    return values.astype(np.int32), scale
