"""What the learned layer is given of a photo; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import config


class GuideRows(Protocol):
    """The JPEG at the sites, int16 (3, H, W), 0..4080: an array, or what gives its rows."""

    def take(self, indices: Any, axis: Any, /) -> Any:
        """Rows by their numbers (n,), axis being 1: int16 (3, n, W)."""
        ...


class SiteRows(Protocol):
    """Companded values of sites, uint16 (H, W): an array, or what gives its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """H and W."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Rows from one to before another: uint16 (h, W)."""
        ...


@dataclass(frozen=True)
class PlaneView:
    """What is known of one plane before its latents: a mosaic, or a colour of a linear raw.

    guide: the JPEG at the sites. tone: uint16 (H, W), the tone layer's
    companded values. colours: uint8 (rows, columns), the
    repeating pattern of colours 0..2. reached: bool (H, W), the sites that the
    JPEG reaches, or None for all.
    """

    guide: GuideRows
    tone: np.ndarray
    colours: np.ndarray
    reached: np.ndarray | None


def stripes(height: int, width: int) -> list[slice]:
    """Rows of each stripe of a mosaic, from above: whole hyper-blocks, but for the last one's."""
    count = -(-height * width // config.STRIPE)
    block = config.HYPER_BLOCK
    tall = block * -(-height // (block * count))
    return [slice(top, min(top + tall, height)) for top in range(0, height, tall)]


Refined = tuple[slice, list[np.ndarray]]
"""Rows of a stripe, and better companded values of each of its planes: uint16 (h, W)."""


class Stripes:
    """The planes of a photo, stripe by stripe; each is made when its turn comes, every time.

    Each stripe is coded as if it were a photo by itself.
    """

    def __init__(
        self,
        rows: Sequence[slice],
        colours: Sequence[np.ndarray],
        make: Callable[[slice], list[PlaneView]],
    ) -> None:
        """rows: of each stripe. colours: the patterns of its planes. make: the planes of rows."""
        self.rows, self.colours = rows, colours
        self._make = make
        self._first: list[PlaneView] | None = None
        self._kept = False

    def prepare(self) -> None:
        """Make the first stripe ahead of its turn."""
        self._first = self._make(self.rows[0])

    def keep(self) -> None:
        """Give the same planes every time, if there is one stripe.

        Their values must then stay as they are.
        """
        self._kept = len(self.rows) == 1

    def part(self, rows: slice) -> list[PlaneView]:
        """The planes of any rows."""
        return self._make(rows)

    def __iter__(self) -> Iterator[tuple[slice, list[PlaneView]]]:
        """Rows of a stripe, and its planes."""
        for number, rows in enumerate(self.rows):
            if number > 0:
                yield rows, self._make(rows)
                continue
            planes = self._first or self._make(rows)
            self._first = planes if self._kept else None
            yield rows, planes


class RowsFrom:
    """Some rows of sites, by themselves."""

    def __init__(self, sites: SiteRows, rows: slice) -> None:
        """sites: all of them. rows: which."""
        self._sites, self._top = sites, rows.start
        self.shape = rows.stop - rows.start, *sites.shape[1:]

    def __getitem__(self, rows: slice, /) -> Any:
        """Rows from one to before another: uint16 (h, W)."""
        first, last, _ = rows.indices(self.shape[0])
        return self._sites[self._top + first : self._top + last]


class GuideFrom:
    """The guide of the rows from one on."""

    def __init__(self, guide: GuideRows, top: int) -> None:
        self._guide, self._top = guide, top

    def take(self, indices: np.ndarray, axis: int, /) -> Any:
        """Rows by their numbers (n,), axis being 1: int16 (3, n, W)."""
        return self._guide.take(indices + self._top, axis)
