"""What the networks see of one plane, row of quads by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import BLOCK, HYPER_BLOCK, INPUTS, PICTURE_INPUTS, QUAD, TRUNK_MARGIN
from .inputs import blocks, means, other_inputs, picture_inputs
from .kernels import Weights, folded
from .view import PlaneView

MARGIN = TRUNK_MARGIN // QUAD
"""Quads around the picture, on every side, that are seen."""

_TOGETHER = 8
"""Rows of quads that are looked at at a time: few enough for the cache."""


@dataclass(frozen=True)
class Rows:
    """Some rows of quads, h of them, with ``MARGIN`` more at both ends: w columns.

    inputs: uint8 (1, 40, h, w), see :func:`.inputs.inputs`; where the plane has ``constant``
    inputs, (1, 23, h, w), without those. tone: int32 (1, 2h, 2w), the companded
    values. luma: int16 (1, h, w), the JPEG's brightness, 0..4080.
    """

    inputs: Tensor
    tone: Tensor
    luma: Tensor


def _repeats(colours: np.ndarray) -> bool:
    """Whether a pattern of colours is the same in every quad."""
    return all(QUAD % length == 0 for length in colours.shape)


class PlaneInputs:
    """A plane as the networks see it: reflected at its edges, and filled to whole blocks.

    rows, columns: of blocks of 4x4 sites, those of whole hyper-blocks. constant: uint8 (17,), the
    last of the inputs where they are the same at all quads, else None.
    """

    def __init__(self, plane: PlaneView, earlier: np.ndarray | None) -> None:
        """earlier: int32 (H, W), what the plane before was decoded to, less its tone values."""
        self.plane = plane
        self.height, self.width = plane.tone.shape
        self.rows, self.columns = (
            -(-n // HYPER_BLOCK) * (HYPER_BLOCK // BLOCK) for n in plane.tone.shape
        )
        self._earlier = earlier
        # reflection keeps sites on their colour
        self._down, self._across = (
            np.pad(np.arange(n), (TRUNK_MARGIN, BLOCK * whole - n + TRUNK_MARGIN), "reflect")
            for n, whole in ((self.height, self.rows), (self.width, self.columns))
        )
        self.mask = self._mask(plane.colours)
        self.constant: Tensor | None = None
        if earlier is None and plane.reached is None and _repeats(plane.colours):
            none = torch.zeros((1, 1, QUAD, QUAD), dtype=torch.uint8)
            same = other_inputs(self.mask(0, 1)[..., :1], none[..., :1, :1], none[0])
            self.constant = same.flatten()

    def __call__(self, first: int, last: int) -> Rows:
        """Rows of quads from ``first`` to ``last``; from -``MARGIN`` on, row 0 is the picture's."""
        height, width = last - first, len(self._across) // QUAD
        count = INPUTS if self.constant is None else PICTURE_INPUTS
        inputs = torch.empty((1, height, width, count), dtype=torch.uint8).permute(0, 3, 1, 2)
        tone = torch.empty((1, QUAD * height, QUAD * width), dtype=torch.int32)
        luma = torch.empty((1, height, width), dtype=torch.int16)
        for top in range(first, last, _TOGETHER):
            bottom = min(top + _TOGETHER, last)
            here, sites = (slice(n * (top - first), n * (bottom - first)) for n in (1, QUAD))
            self._look(top, bottom, inputs[:, :, here], tone[:, sites], luma[:, here])
        return Rows(inputs, tone, luma)

    def _look(self, first: int, last: int, inputs: Tensor, tone: Tensor, luma: Tensor) -> None:
        """What ``Rows`` has of some rows."""
        part = slice(QUAD * (first + MARGIN), QUAD * (last + MARGIN))
        guide = self._wider(self.plane.guide.take(self._down[part], 1))
        tone[:] = self._sites(self.plane.tone.view(np.int16), part)
        tone &= 0xFFFF
        colours = blocks(guide)
        mean = means(colours)
        luma[:] = (mean[:, 0] + 2 * mean[:, 1] + mean[:, 2]) >> 2
        inputs[:, :PICTURE_INPUTS] = picture_inputs(colours, mean, tone)
        if self.constant is not None:
            return
        missing = torch.zeros((1, 1, *luma.shape[1:]), dtype=torch.uint8)
        if self.plane.reached is not None:
            reached = blocks(self._sites(self.plane.reached, part))
            missing = (~reached).amax(1, keepdim=True).to(torch.uint8)
        earlier = torch.zeros_like(tone)
        if self._earlier is not None:
            earlier = self._sites(self._earlier, part)
        inputs[:, PICTURE_INPUTS:] = other_inputs(self.mask(first, last), missing, earlier)

    def layer(self, weights: Weights) -> Weights:
        """A layer of :func:`.inputs.inputs`, for those of them that rows have."""
        return weights if self.constant is None else folded(weights, self.constant)

    def _sites(self, values: np.ndarray, part: slice) -> Tensor:
        """Rows of values (H, W), with the margin around the picture."""
        return self._wider(values[self._down[part]])

    def _wider(self, rows: np.ndarray) -> Tensor:
        """Rows of the picture (..., h, W), with the margin at both sides."""
        result = np.empty((*rows.shape[:-1], len(self._across)), rows.dtype)
        # the picture itself lies there as it is
        inside = slice(TRUNK_MARGIN, TRUNK_MARGIN + self.width)
        result[..., inside] = rows
        for margin in (slice(inside.start), slice(inside.stop, None)):
            result[..., margin] = rows[..., self._across[margin]]
        return torch.from_numpy(result)[None]

    def _mask(self, colours: np.ndarray) -> Callable[[int, int], Tensor]:
        """Which colour each site of a quad has: uint8 (1, 12, h, w) of rows of quads.

        Only as many rows as the pattern has are stored.
        """
        period = math.lcm(QUAD, colours.shape[0])
        y = (np.arange(period) - TRUNK_MARGIN) % colours.shape[0]
        x = (np.arange(len(self._across)) - TRUNK_MARGIN) % colours.shape[1]
        sites = torch.from_numpy(np.eye(3, dtype=np.uint8)[colours[np.ix_(y, x)]])
        rows = blocks(sites.permute(2, 0, 1)).transpose(0, 1).flatten(0, 1)[None]
        return lambda first, last: rows[
            :, :, torch.arange(first + MARGIN, last + MARGIN) % rows.shape[2]
        ]
