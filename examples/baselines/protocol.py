"""The paper's protocol on our photos: demosaiced raws of reduced size, rendered by software.

The paper takes photos of the NUS data set, demosaics them and renders them with a fixed program,
as 8-bit sRGB or as a JPEG. Here cells of the CFA become one pixel (a demosaicing that invents
nothing), pictures are reduced once more, and ``render`` is the program: white balance, colour
matrix, exposure, and the encoding of IEC 61966-2-1.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from examples.train.camera import SRGB_TO_XYZ
from rawcodec.mosaic import COLOURS, Mosaic, planes
from rawcodec.photo.raw import read_raw

from .interface import WHITE

PICTURES = ("png", "90", "70", "50", "30", "10")
"""What a picture is saved as: without loss, or as a JPEG of a quality, 4:2:0."""

_MATRIX_1, _MATRIX_2, _NEUTRAL = 50721, 50722, 50728
"""Tags of DNG: ColorMatrix1, ColorMatrix2, AsShotNeutral."""

_SRATIONAL = 10

_BRIGHT, _LEVEL = 0.99, 0.8
"""The exposure brings this share of all values below this level of linear light."""


@dataclass(frozen=True)
class Photo:
    """A demosaiced raw and how it is rendered.

    raw: uint16 (H, W, 3), linear, 0..``WHITE``. gains: white balance, float32 (3,). to_srgb: from
    balanced camera colours to linear sRGB, exposure included: float32 (3, 3).
    """

    name: str
    raw: np.ndarray
    gains: np.ndarray
    to_srgb: np.ndarray


def render(raw: np.ndarray, gains: np.ndarray, to_srgb: np.ndarray) -> np.ndarray:
    """The picture of a raw, uint16 (H, W, 3): uint8 (H, W, 3), sRGB."""
    result: np.ndarray = np.rint(255 * srgb(linear_srgb(raw, gains, to_srgb))).astype(np.uint8)
    return result


def linear_srgb(raw: np.ndarray, gains: np.ndarray, to_srgb: np.ndarray) -> np.ndarray:
    """Linear light of a raw, uint16 (H, W, 3), rendered: float32 (H, W, 3), 0..1."""
    balanced = np.minimum(raw.astype(np.float32) * (gains / np.float32(WHITE)), gains.min())
    result: np.ndarray = np.clip(balanced @ to_srgb.T, 0, 1)
    return result


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 encoded as IEC 61966-2-1 has it: 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def save(pixels: np.ndarray, picture: str) -> bytes:
    """The file of pixels, uint8 (H, W, 3). picture: of ``PICTURES``."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if picture == "png":
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=int(picture), subsampling="4:2:0")
    return file.getvalue()


def photo(name: str, mosaic: Mosaic, gains: np.ndarray, to_srgb: np.ndarray, reduced: int) -> Photo:
    """A photo of a mosaic, exposed.

    gains, to_srgb: as of ``Photo``, without exposure. reduced: pixels across that become one, of
    those that cells of the CFA made.
    """
    values = reduce(binned(mosaic), reduced)
    balanced = np.minimum(values * gains, gains.min())
    level = float(np.quantile((balanced @ to_srgb.T).max(2), _BRIGHT))
    exposed = (to_srgb * (_LEVEL / max(level, 1e-3))).astype(np.float32)
    raw = np.rint(np.clip(values, 0, 1) * WHITE).astype(np.uint16)
    return Photo(name, raw, gains.astype(np.float32), exposed)


def binned(mosaic: Mosaic) -> np.ndarray:
    """A pixel for each cell of a Bayer CFA, the greens' mean: float32 (h, w, 3), 0..1 and beyond.

    ValueError for other sensors.
    """
    sensor = mosaic.sensor
    if [len(row) for row in sensor.cfa] != [2, 2]:
        raise ValueError("is not a Bayer mosaic")
    height, width = (n // 2 for n in mosaic.samples.shape)
    total = np.zeros((height, width, 3), np.float32)
    letters = [letter for row in sensor.cfa for letter in row]
    for letter, (_, black, index) in zip(letters, planes(sensor), strict=True):
        values = mosaic.samples[index][:height, :width].astype(np.float32)
        total[:, :, COLOURS.index(letter)] += (values - black) / (sensor.white - black)
    return total / [letters.count(letter) for letter in COLOURS]


def reduce(values: np.ndarray, by: int) -> np.ndarray:
    """Means over squares of pixels: float32 (h, w, 3)."""
    height, width = (n // by for n in values.shape[:2])
    whole = values[: height * by, : width * by].reshape(height, by, width, by, 3)
    result: np.ndarray = whole.mean((1, 3), dtype=np.float32)
    return result


def camera_colours(xyz_to_camera: np.ndarray) -> np.ndarray:
    """From white-balanced camera colours to linear sRGB: (3, 3), white to white."""
    camera = xyz_to_camera @ SRGB_TO_XYZ
    inverse: np.ndarray = np.linalg.inv(camera / camera.sum(1, keepdims=True))
    return inverse


def read_photo(path: Path, name: str, reduced: int) -> Photo:
    """The photo of a raw file with a Bayer mosaic, balanced as the camera saw fit.

    Errors of ``rawcodec.errors`` for files that are no raw; ValueError for other sensors.
    """
    mosaic = read_raw(path).mosaic
    tags = {tag: (kind, value) for tag, kind, _, value in mosaic.tags}
    matrix = _numbers(*tags[_MATRIX_2 if _MATRIX_2 in tags else _MATRIX_1]).reshape(3, 3)
    gains = 1 / _numbers(*tags[_NEUTRAL])
    return photo(name, mosaic, gains / gains[1], camera_colours(matrix), reduced)


def _numbers(kind: int, value: bytes) -> np.ndarray:
    """The values of a tag of rationals, little-endian: float64 (n,)."""
    parts = np.frombuffer(value, "<i4" if kind == _SRATIONAL else "<u4").reshape(-1, 2)
    result: np.ndarray = parts[:, 0] / parts[:, 1]
    return result
