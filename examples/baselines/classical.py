"""Coding without a network: of what the tone layer leaves, of the raw alone, and without loss."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from examples.benchmark import classical as benchmark
from rawcodec.mosaic import Mosaic
from rawcodec.sensor import Sensor

from .interface import WHITE
from .ours import Rawcodec

_HEAD = struct.Struct("<I")


def _mosaic(raw: np.ndarray) -> Mosaic:
    height, width = raw.shape[:2]
    return Mosaic(raw, Sensor(width, height, (), (0, 0, 0), WHITE))


class ToneJpeg2000:
    """rawcodec's tone layer, and the rest by JPEG 2000 under one slope; a ``System``.

    rise: PSNR of the rest in dB over that of zeros. The form is that of
    ``examples.benchmark.classical`` which suits three colours: their principal axes, linear.
    """

    def __init__(self, rise: float, levels: int = 5) -> None:
        self.name = "tone + JPEG 2000"
        self._rise, self._tone = rise, Rawcodec("tone")
        self._variant = benchmark.Variant("principal axes", "linear", levels)

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``."""
        head = self._tone.encode(raw, picture)
        rest = benchmark.Rest(_mosaic(raw), self._tone.decode(head, picture), self._variant)
        return _HEAD.pack(len(head)) + head + rest.encode(self._rise)

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``."""
        if len(data) < _HEAD.size:
            raise ValueError("is too short")
        end = _HEAD.size + _HEAD.unpack_from(data)[0]
        prediction = self._tone.decode(data[_HEAD.size : end], picture)
        return benchmark.decode(_mosaic(prediction).sensor, prediction, data[end:])


class JpegXL:
    """The raw by JPEG XL, the picture not looked at; a ``System``.

    distance: of JPEG XL, 0 without loss. With loss, square roots of samples are coded, as their
    errors are then about equally visible in dark and light, which JPEG XL goes by.
    """

    def __init__(self, distance: float) -> None:
        self.name = "JPEG XL" if distance else "JPEG XL, lossless"
        self._distance = distance

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``."""
        del picture
        if not self._distance:
            exact: bytes = imagecodecs.jpegxl_encode(np.ascontiguousarray(raw), lossless=True)
            return exact
        roots = np.rint(np.sqrt(raw.astype(np.float64) * WHITE)).astype(np.uint16)
        coded: bytes = imagecodecs.jpegxl_encode(roots, distance=self._distance, lossless=False)
        return coded

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``."""
        del picture
        found = imagecodecs.jpegxl_decode(data)
        if not self._distance:
            return np.asarray(found)
        squares = np.rint(np.square(found.astype(np.float64)) / WHITE)
        result: np.ndarray = squares.astype(np.uint16)
        return result


class LosslessDng:
    """The samples as DNG files hold them, by lossless JPEG (ITU-T T.81, process 14); a ``System``.

    The file around them, a few hundred bytes, is left out.
    """

    name = "DNG, lossless JPEG"

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System``."""
        del picture
        height, width = raw.shape[:2]
        data: bytes = imagecodecs.ljpeg_encode(np.ascontiguousarray(raw.reshape(height, 3 * width)))
        return struct.pack("<II", height, width) + data

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System``."""
        del picture
        height, width = struct.unpack_from("<II", data)
        return np.asarray(imagecodecs.ljpeg_decode(data[8:])).reshape(height, width, 3)
