"""Small pairs of a raw and a JPEG, and their sidecars altered, for tests. Not a test itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from dng import write_dng
from PIL import Image

import rawcodec
from rawcodec.errors import DigestError, SidecarError
from rawcodec.mosaic import planes
from rawcodec.photo.align import orient
from rawcodec.sensor import Sensor
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.header import Header
from rawcodec.tone.table import companded


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Light, float (H, W, 3) from 0 to 1: smoothed noise of several sizes, in colour."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, weight in ((5, 1.0), (20, 1.0), (60, 0.7)):
        rows, columns = (max(2, cells * n // max(height, width)) for n in (height, width))
        grey = rng.random((rows, columns, 1))
        mixed = (0.7 * grey + 0.3 * rng.random((rows, columns, 3))).astype(np.float32)
        for channel in range(3):
            image = Image.fromarray(np.ascontiguousarray(mixed[:, :, channel]))
            large = image.resize((width, height), Image.Resampling.BICUBIC)
            total[:, :, channel] += weight * np.asarray(large)
    low, high = np.percentile(total, (0.5, 99.5))
    return np.clip((total - low) / (high - low), 0, 1) ** 2


def compand(sensor: Sensor, samples: np.ndarray) -> np.ndarray:
    """The nearest companded values of a mosaic's samples, of their shape."""
    values = np.empty(samples.shape, np.uint16)
    for _, black, index in planes(sensor):
        values[index] = companded(black, sensor.white).take(samples[index])
    return values


def write_raw(
    path: Path,
    light: np.ndarray,
    cfa: tuple[str, ...],
    orientation: int = 1,
    margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    noise: float = 6,
) -> Path:
    """A DNG of what a sensor sees: noise, and a black level of its own for each cell.

    margins: masked sites at the top, left, bottom and right, not in ``light``.
    noise: its standard deviation in DN.
    """
    height, width = light.shape[:2]
    cells = sum(map(len, cfa)) if cfa else 3
    per_cell = cells in (3, 4)
    black = tuple(500 + 8 * n if per_cell else 512 for n in range(cells))
    sensor = Sensor(width, height, cfa, black, 16000)
    samples = np.empty(sensor.shape)
    for colour, level, index in planes(sensor):
        samples[index] = level + light[(*index[:2], colour)] * (16000 - level)
    samples += np.random.default_rng(1).normal(0, noise, sensor.shape)
    samples = np.clip(np.round(samples), 0, 16383).astype(np.uint16)
    top, left, bottom, right = margins
    pad = [(top, bottom), (left, right), (0, 0)][: samples.ndim]
    # the pattern is given from the visible area's first site
    return write_dng(
        path,
        np.pad(samples, pad, constant_values=512),
        cfa,
        black if per_cell else 512,
        16000,
        orientation,
        active_area=(top, left, top + height, left + width) if any(margins) else None,
    )


def write_jpeg(
    path: Path,
    light: np.ndarray,
    crop: int = 4,
    turn: int = 1,
    mono: bool = False,
    exif: int | None = None,
    quality: int = 92,
) -> Path:
    """A camera's rendering: a border cropped off, a tone curve, turned, compressed."""
    height, width = light.shape[:2]
    part = light[crop : height - crop, crop : width - crop]
    if mono:
        part = np.repeat(part[:, :, 1:2], 3, axis=2)
    curve = 1.1 * part ** (1 / 2.2) - 0.1 * part
    pixels = orient(np.clip(np.round(255 * curve), 0, 255).astype(np.uint8), turn)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    tags = Image.Exif()
    if exif is not None:
        tags[0x0112] = exif
    image.save(path, "JPEG", quality=quality, exif=tags.tobytes())
    return path


@dataclass(frozen=True)
class Pair:
    """A raw, its JPEG, and the sidecar made of them."""

    raw: Path
    jpeg: Path
    sidecar: bytes

    def decode(self) -> np.ndarray:
        return rawcodec.decode(self.jpeg, self.sidecar).samples


def check_message(error: BaseException, start: object) -> None:
    """One line that starts with the file and says what to do."""
    message = str(error)
    assert message.startswith(f"{start}: ")
    assert "; " in message
    assert "\n" not in message


def rebuilt(sidecar: bytes, kind: str, payload: bytes) -> bytes:
    """The sidecar with one chunk's payload replaced, its checksums right."""
    return container.write(
        Chunk(kind, payload) if chunk.type == kind else chunk for chunk in container.read(sidecar)
    )


def payload_of(sidecar: bytes, kind: str) -> bytes:
    return next(chunk.payload for chunk in container.read(sidecar) if chunk.type == kind)


def with_latents(sidecar: bytes, payload: bytes) -> bytes:
    """The sidecar with one chunk more: a learned layer, where it has none."""
    chunks = container.read(sidecar)
    after = 1 + [chunk.type for chunk in chunks].index("TONE")
    return container.write([*chunks[:after], Chunk("LATN", payload), *chunks[after:]])


def with_model(sidecar: bytes, model: str, model_hash: bytes, quality: str = "medium") -> bytes:
    """The sidecar with another model in its description."""
    header = Header.unpack(payload_of(sidecar, "HEAD"))
    header = replace(header, quality=quality, model=model, model_hash=model_hash)
    return rebuilt(sidecar, "HEAD", header.pack())


def check_damaged(pair: Pair, sidecar: bytes, expected: np.ndarray) -> None:
    """Refused with one line, or what changed did not matter."""
    try:
        samples = rawcodec.decode(pair.jpeg, sidecar).samples
    except (DigestError, SidecarError) as error:
        check_message(error, "sidecar")
    else:
        assert np.array_equal(samples, expected)
