"""Where in a photo the bits of its latents lie: heard beside the entropy coder.

An encoder and a decoder hear the same symbols, and so make the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .config import GROUPS, HYPER_BLOCK, PASSES, QUAD
from .latents import TableCoder, Wanted
from .tables import SILENT, EntropyCoder, Tables

Meter = Callable[
    [
        npt.NDArray[np.int32],
        Sequence[npt.NDArray[np.integer[Any]]],
        npt.NDArray[np.integer[Any]],
    ],
    npt.NDArray[np.float32],
]
"""Bits of symbols, float32 (n,): see ``rawcodec.stream.meter.SymbolMeter``."""


class Allocation:
    """Where the bits of a photo's latents lie; planes of a linear raw are added up.

    sites: float32 (H', W'), bits of the latent of each site, in whole blocks of
        16x16 sites. hyper: float64 (H' / 16, W' / 16), those of all eight
        hyper-latents of each block, which are as coarse as the blocks. Both are
        (0, 0) until a learned layer is coded.
    of_latents, of_hyper: bits counted for them.
    heard: bits of all that the layer codes, shifts of scales, filters and grids included.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.sites = np.zeros((0, 0), np.float32)
        self.hyper = np.zeros((0, 0))
        self._top = 0  # of the stripe, in blocks
        self.of_latents = self.of_hyper = self.heard = 0.0
        self.last = np.zeros(0, np.float32)
        """Bits of the symbols of the last call of a coder that is listened to: (n,)."""

    def listen(self, coder: EntropyCoder) -> EntropyCoder:
        """The same coder, whose symbols are heard."""
        return _Beside(coder, self)

    def hear(
        self,
        symbols: npt.NDArray[np.int32],
        frequencies: Sequence[npt.NDArray[np.integer[Any]]],
        index: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Symbols that were coded."""
        self.last = self._meter(symbols, frequencies, index)
        self.heard += _total(self.last)

    def enter_stripe(self) -> None:
        """What follows is of the stripe below what has been coded, or of the first."""
        self._top = len(self.hyper)

    def start(self, rows: int, columns: int) -> None:
        """Make room for a plane of so many blocks of 16x16 sites."""
        if len(self.hyper) == self._top:
            sites = np.zeros((HYPER_BLOCK * rows, HYPER_BLOCK * columns), np.float32)
            self.sites = np.concatenate([self.sites.reshape(-1, sites.shape[1]), sites])
            self.hyper = np.concatenate(
                [self.hyper.reshape(-1, columns), np.zeros((rows, columns))]
            )

    @property
    def here(self) -> tuple[np.ndarray, np.ndarray]:
        """``sites`` and ``hyper`` of the stripe that is being coded."""
        return self.sites[HYPER_BLOCK * self._top :], self.hyper[self._top :]

    def check(self) -> None:
        """RuntimeError where the maps do not hold what was counted."""
        for found, counted in ((self.sites, self.of_latents), (self.hyper, self.of_hyper)):
            total = _total(found)
            if not math.isclose(total, counted, rel_tol=1e-6, abs_tol=1e-3):
                raise RuntimeError(f"a map holds {total} bits, and {counted} were counted")

    @property
    def blocks(self) -> np.ndarray:
        """Bits of the latents of each 16x16 sites: float64 (H' / 16, W' / 16)."""
        return in_blocks(self.sites)

    def of_picture(self, height: int, width: int) -> np.ndarray:
        """All bits of latents and hyper-latents, by the site: float32 (height, width).

        Those of hyper-latents are spread evenly over the sites of their block, and so are those
        of latents beyond the picture's edge, so that the total is kept.
        """
        inside = np.zeros_like(self.sites)
        inside[:height, :width] = self.sites[:height, :width]
        spread = self.hyper + self.blocks - in_blocks(inside)
        rows, columns = (
            np.clip(n - HYPER_BLOCK * np.arange(count), 0, HYPER_BLOCK)
            for n, count in zip((height, width), spread.shape, strict=True)
        )
        share = (spread / np.outer(rows, columns)).astype(np.float32)
        for row, at in zip(share, range(0, height, HYPER_BLOCK), strict=True):
            inside[at : at + HYPER_BLOCK] += row.repeat(HYPER_BLOCK)
        return inside[:height, :width]


class _Beside:
    """An entropy coder whose symbols are heard."""

    def __init__(self, coder: EntropyCoder, allocation: Allocation) -> None:
        self._coder, self._allocation = coder, allocation

    def code(
        self,
        symbols: npt.NDArray[np.integer[Any]] | None,
        frequencies: Sequence[npt.NDArray[np.integer[Any]]],
        index: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.int32]:
        """See :class:`.tables.EntropyCoder`."""
        found = self._coder.code(symbols, frequencies, index)
        self._allocation.hear(found, frequencies, index)
        return found


class MappedCoder(TableCoder):
    """Codes latents as ``TableCoder`` does, and puts what each takes on a map."""

    def __init__(
        self, allocation: Allocation, tables: Tables, coder: EntropyCoder, latents: Wanted | None
    ) -> None:
        """coder: one that ``allocation`` listens to."""
        super().__init__(tables, coder, latents)
        self._map = allocation
        self._pieces: list[np.ndarray] = []
        self._large = np.zeros(0, bool)

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """See ``TableCoder.code``."""
        self._pieces = []
        result = super().code(number, here, mean, scale)
        bits, *others = self._pieces  # first those of small scales, then the others, in order
        bits[self._large] = np.concatenate([bits[:0], *others])
        self._map.of_latents += _total(bits)
        channels, where = GROUPS[PASSES[number][0]], here[0, 0].numpy() != 0
        sites, _ = self._map.here
        for channel, part in zip(channels, bits.reshape(-1, len(channels)).T, strict=True):
            sites[channel // QUAD :: QUAD, channel % QUAD :: QUAD][where] += part
        self._map.check()
        return result

    def code_hyper(
        self, hyper: np.ndarray | None, means: np.ndarray, shape: tuple[int, int], scale: Tensor
    ) -> Tensor:
        """See ``TableCoder.code_hyper``."""
        result = super().code_hyper(hyper, means, shape, scale)
        bits = self._last(np.repeat(scale.numpy(), shape[0] * shape[1]))
        self._map.start(*shape)
        _, hyper = self._map.here
        hyper += bits.reshape(-1, *shape).sum(0, dtype=np.float64)
        self._map.of_hyper += _total(bits)
        return result

    def _coded(
        self,
        given: np.ndarray | None,
        mean: np.ndarray,
        scale: np.ndarray,
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        values = super()._coded(given, mean, scale, where)
        if where is not None:
            self._large = ~where
        self._pieces.append(self._last(scale, where))
        return values

    def _last(self, scale: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Bits of the latents just coded, by their scales: float32 (n,); silent ones take none."""
        bits = np.zeros(len(scale), np.float32)
        coded = self._tables.sizes[scale] != SILENT
        bits[coded if where is None else coded & where] = self._map.last
        return bits


def in_blocks(sites: np.ndarray) -> np.ndarray:
    """Sums over 16x16 sites: (H', W') to float64 (H' / 16, W' / 16)."""
    rows, columns = (n // HYPER_BLOCK for n in sites.shape)
    parts = sites.reshape(rows, HYPER_BLOCK, columns, HYPER_BLOCK)
    sums: np.ndarray = parts.sum((1, 3), dtype=np.float64)
    return sums


def _total(bits: np.ndarray) -> float:
    return float(bits.sum(dtype=np.float64))
