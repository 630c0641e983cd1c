"""rawcodec itself, through its public functions, on the paper's protocol.

The demosaiced raw goes in as a linear DNG: three planes, of which the later ones see the earlier.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tifffile

import rawcodec
from rawcodec.photo.jpeg import Jpeg, is_jpeg, pixels_digest
from rawcodec.pipeline import map_photo

from .interface import WHITE, pixels

_BYTE, _ASCII, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 4, 5, 10
_LINEAR_RAW = 34892


class Rawcodec:
    """rawcodec at a quality, or of a size; a ``System``.

    quality: None where bpp, bits per pixel, is given. device: as of ``rawcodec.encode``. weights: a
    folder of weights with its manifest, in the place of the installed one.
    """

    def __init__(
        self,
        quality: str | None = None,
        device: str = "auto",
        weights: Path | None = None,
        bpp: float | None = None,
    ) -> None:
        self.name = f"rawcodec {quality or f'{bpp:g} bpp'}"
        self._quality, self._bpp, self._device, self._weights = quality, bpp, device, weights

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``. Without verification: what is decoded is measured anyway."""
        with _files(picture) as (folder, shown), self._weighed():
            write_linear(folder / "photo.dng", raw)
            return rawcodec.encode(
                folder / "photo.dng", shown, quality=self._quality, bpp=self._bpp,
                device=self._device, verify=False,
            )  # fmt: skip

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``; raises errors of :mod:`rawcodec.errors` instead of ValueError."""
        with _files(picture) as (_, shown), self._weighed():
            return rawcodec.decode(shown, data, device=self._device).samples

    def bits(self, data: bytes, picture: bytes) -> np.ndarray:
        """Where the bits of the latents of ``encode``'s bytes lie: float32 (H, W), all colours'."""
        height, width = pixels(picture).shape[:2]
        with _files(picture) as (_, shown), self._weighed():
            mapped = map_photo(shown, data, device=self._device)
            return mapped.allocation.of_picture(height, width)

    @contextmanager
    def _weighed(self) -> Iterator[None]:
        """With its own weights for a while."""
        if self._weights is None:
            yield
            return
        with patch("rawcodec.weights.folder", lambda: self._weights):
            yield


def write_linear(path: Path, raw: np.ndarray) -> None:
    """Samples, uint16 (H, W, 3), as a linear DNG that LibRaw reads."""
    matrix = [n for value in np.eye(3).ravel() for n in (round(value * 10000), 10000)]
    tags = [
        (50706, _BYTE, 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, _ASCII, 0, "rawcodec baselines", True),  # UniqueCameraModel
        (50717, _LONG, 1, WHITE, True),  # WhiteLevel
        (50721, _SRATIONAL, 9, tuple(matrix), True),  # ColorMatrix1
        (50728, _RATIONAL, 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
    ]
    tifffile.imwrite(
        path, np.ascontiguousarray(raw), photometric=_LINEAR_RAW, planarconfig=1, metadata=None,
        software=False, extratags=tags,
    )  # fmt: skip


@contextmanager
def _files(picture: bytes) -> Iterator[tuple[Path, Path]]:
    """A folder for a while, and the picture in it.

    rawcodec takes JPEGs alone; of a PNG, for the protocol's pictures without loss, it is handed
    the pixels.
    """
    with tempfile.TemporaryDirectory(prefix="rawcodec-baselines-") as name:
        folder = Path(name)
        shown = folder / "photo.jpg"
        shown.write_bytes(picture)
        if is_jpeg(picture):
            yield folder, shown
            return
        values = pixels(picture)
        digest = pixels_digest(values)
        found = Jpeg(values, digest, digest[:8], 1, "", "")
        with patch("rawcodec.pipeline.read_jpeg", lambda *_: found):
            yield folder, shown
