"""The plain layer that the tone layer is compared with: one colour table, no gain grid.

A table of 9x9x9 nodes over the JPEG's R, G and B for each raw colour, linear
in between, by least squares in the linear domain, which is what PSNR counts.
It is the strongest of its kind: every covered site takes part in the fit,
nothing is quantised, and its bytes are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rawcodec.mosaic import Mosaic, planes
from rawcodec.photo.align import GUIDE_MAX, Guide

NODES = 9
"""Nodes along each of R, G and B."""

SMOOTHING = 1e-6
"""Weight of second differences, relative to a node's mean number of sites.

It only fills the nodes that the photo does not reach.
"""

_BAND = 96  # rows at a time: whole periods of every CFA
_CELLS = (NODES - 1) ** 3
_CORNERS = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def predict(mosaic: Mosaic, guide: Guide, reached: np.ndarray | None) -> np.ndarray:
    """What a plain table, fitted to this very photo, makes of it.

    guide: the JPEG over the mosaic's columns. reached: bool (H, W), the sites
        that the JPEG reaches, which it is fitted on; None for all.

    Returns DN, float32, of the mosaic's shape. Sites that the JPEG does not
    reach see its nearest edge pixel.
    """
    inside = np.ones(mosaic.samples.shape[:2], bool) if reached is None else reached
    grams = np.zeros((3, _CELLS, 8, 8))
    vectors = np.zeros((3, _CELLS, 8))
    for colour, black, index, rgb in _parts(mosaic, guide):
        use = inside[index[:2]].ravel()
        cells, weights = _interpolation(rgb[:, use])
        level = (mosaic.samples[index].ravel()[use].astype(np.float32) - black) / (
            mosaic.sensor.white - black
        )
        for a in range(8):
            vectors[colour, :, a] += np.bincount(cells, weights[a] * level, _CELLS)
            for b in range(a, 8):
                sums = np.bincount(cells, weights[a] * weights[b], _CELLS)
                grams[colour, :, a, b] += sums
                if a != b:
                    grams[colour, :, b, a] += sums
    tables = [_solve(gram, vector) for gram, vector in zip(grams, vectors, strict=True)]
    nodes = _corner_nodes()
    predicted = np.empty(mosaic.samples.shape, np.float32)
    for colour, black, index, rgb in _parts(mosaic, guide):
        cells, weights = _interpolation(rgb)
        values = tables[colour][nodes].T[:, cells]
        level = np.einsum("kn,kn->n", values, weights)
        shape = predicted[index].shape
        predicted[index] = (level * (mosaic.sensor.white - black) + black).reshape(shape)
    return predicted


def _parts(
    mosaic: Mosaic, guide: Guide
) -> Iterator[tuple[int, int, tuple[slice | int, ...], np.ndarray]]:
    """Bands of planes: colour, black level, index, and the guide there, (3, n), 0 to 1."""
    height = mosaic.samples.shape[0]
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        band = guide.band(top, bottom).astype(np.float32) / GUIDE_MAX
        for colour, black, (rows, columns, *channel) in planes(mosaic.sensor):
            assert isinstance(rows, slice)
            part = band[:, rows, columns].reshape(3, -1)
            here = slice(top + (rows.start or 0), bottom, rows.step)
            yield colour, black, (here, columns, *channel), part


def _interpolation(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell (n,) and the weights of its 8 corners (8, n)."""
    position = rgb * (NODES - 1)
    cell = np.minimum(position.astype(np.int32), NODES - 2)
    high = position - cell.astype(np.float32)
    sides = np.stack([1 - high, high])
    weights = np.stack([sides[i, 0] * sides[j, 1] * sides[k, 2] for i, j, k in _CORNERS])
    return (cell[0] * (NODES - 1) + cell[1]) * (NODES - 1) + cell[2], weights


def _corner_nodes() -> np.ndarray:
    """Numbers of the 8 nodes at the corners of every cell: (cells, 8)."""
    number = np.arange(NODES**3).reshape(NODES, NODES, NODES)
    last = NODES - 1
    corners = [number[i : i + last, j : j + last, k : k + last] for i, j, k in _CORNERS]
    return np.stack([corner.ravel() for corner in corners], axis=1)


def _solve(gram: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The table of one colour, (729,), from the sums of every cell."""
    nodes = _corner_nodes()
    matrix = np.zeros((NODES**3, NODES**3))
    target = np.zeros(NODES**3)
    np.add.at(matrix, (nodes[:, :, None], nodes[:, None, :]), gram)
    np.add.at(target, nodes, vector)
    if not target.any():
        return target
    one = np.eye(NODES)
    bend = np.diff(one, 2, axis=0)
    bend = bend.T @ bend
    smooth = (
        np.kron(np.kron(bend, one), one)
        + np.kron(np.kron(one, bend), one)
        + np.kron(np.kron(one, one), bend)
    )
    unit = SMOOTHING * np.trace(matrix) / NODES**3
    solved: np.ndarray = np.linalg.solve(
        matrix + unit * smooth + 1e-3 * unit * np.eye(NODES**3), target
    )
    return solved
