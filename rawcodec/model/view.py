"""What the learned layer is given of a photo; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


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
