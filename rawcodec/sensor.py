"""The description of a mosaic without its samples; imports no numpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sensor:
    """What a visible mosaic is: its size, CFA and levels.

    cfa: the CFA's repeating pattern, one string of ``R``, ``G``, ``B`` a row,
        starting at the visible area's first site: ``("RG", "GB")`` for a
        Bayer sensor, six strings of six letters for X-Trans, ``("G",)`` for a
        monochrome sensor, and ``()`` for a linear (demosaiced) raw that has
        all three colours at every site.
    black: black level in DN of each cell of the pattern, row by row (of R, G
        and B for a linear raw).
    white: white level (saturation) in DN, above every black level.
    orientation: the raw's own flag, as in EXIF (1 to 8).
    """

    width: int
    height: int
    cfa: tuple[str, ...]
    black: tuple[int, ...]
    white: int
    orientation: int = 1

    @property
    def linear(self) -> bool:
        """True for a demosaiced raw: (H, W, 3) instead of (H, W)."""
        return not self.cfa

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the samples: (H, W), or (H, W, 3) for a linear raw."""
        return (self.height, self.width, 3) if self.linear else (self.height, self.width)

    @property
    def period(self) -> tuple[int, int]:
        """Rows and columns after which the pattern repeats; (1, 1) if linear."""
        return (len(self.cfa), len(self.cfa[0])) if self.cfa else (1, 1)

    @property
    def cfa_name(self) -> str:
        """``RGGB`` and the like; ``mono``; ``linear``; all letters for X-Trans."""
        if self.linear:
            return "linear"
        return "mono" if self.cfa == ("G",) else "".join(self.cfa)
