"""What the learned layer is given of a photo; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlaneView:
    """What is known of one plane before its latents: a mosaic, or a colour of a linear raw.

    guide: int16 (3, H, W), the JPEG at the sites, 0..4080. tone: uint16 (H, W),
    the tone layer's companded values. colours: uint8 (rows, columns), the
    repeating pattern of colours 0..2. reached: bool (H, W), the sites that the
    JPEG reaches, or None for all.
    """

    guide: np.ndarray
    tone: np.ndarray
    colours: np.ndarray
    reached: np.ndarray | None
