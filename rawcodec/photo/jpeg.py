"""JPEG files to pixels, and the digests that recognise them again.

Source of the stream's syntax: ITU-T T.81, annex B; of APP1: CIPA DC-008 (EXIF).
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from ..errors import JpegError
from . import dngtags
from .bomb import PIXELS_A_BYTE, is_bomb
from .ifd import Tiff, read_tiff

# libjpeg's own limit a side is 65500; this one bounds the memory to 3.8 GB, 7 bytes a pixel.
MAX_PIXELS = 1 << 29

_STRIP = 256
"""Rows of pixels that are taken from Pillow at a time."""

# Each scan of a progressive JPEG walks over the whole picture; encoders make about ten.
_MAX_SCANS = 200

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
# Frame headers: SOF0 to SOF15 without DHT, JPG and DAC, which share the range.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_EXIF = b"Exif\0\0"

# In entropy-coded data FF 00 stands for the byte FF, and FF D0-D7 are restarts;
# any number of FF may fill up before the next marker.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Jpeg:
    """The pixels of a JPEG, and what its metadata say of the photo.

    pixels: uint8, (H, W, 3), RGB, as stored: the orientation is not applied.
    digest: first 16 bytes of SHA-256 over width and height (uint32,
        little-endian) and the pixels. Two files with the same pixels share it.
    stream_digest: first 8 bytes of SHA-256 over the markers and the
        entropy-coded data, without metadata. Where ``digest`` differs and this
        does not, it is the same JPEG, decoded otherwise.
    orientation: EXIF orientation, 1 to 8; 1 where there is none.
    make, model: the camera as EXIF names it; may be empty.
    """

    pixels: np.ndarray
    digest: bytes
    stream_digest: bytes
    orientation: int = 1
    make: str = ""
    model: str = ""


@dataclass(frozen=True)
class _Segment:
    """A marker with what follows it: its parameters and entropy-coded data."""

    marker: int
    body: memoryview


class _MalformedError(Exception):
    """The marker structure is broken; str() is ``what is wrong; what to do``."""


# Pictures that are given in the place of the JPEG; they would have to be kept, and are large.
_OTHERS = {b"\x89PNG": "PNG", b"II*\0": "TIFF or a raw", b"MM\0*": "TIFF or a raw"}

_TRUNCATED = "is truncated; copy it again"
_DAMAGED = "is damaged; copy it again"


def is_jpeg(prefix: bytes) -> bool:
    """True where a file that starts with these bytes (3 suffice) is a JPEG."""
    return prefix[:3] == b"\xff\xd8\xff"


def read_jpeg(
    path: str | Path, accept: Callable[[int, int], None] = lambda width, height: None
) -> Jpeg:
    """Decodes a baseline or progressive JPEG; greyscale is expanded to RGB.

    accept: given width and height as the JPEG claims them, before memory is taken for them; may
    raise.

    Of a file with several pictures (MPO, or anything behind the end marker)
    the first one counts.

    Raises JpegError where the file is missing, no JPEG, truncated (it ends
    without an end marker), damaged, CMYK, or too large.
    """
    path = Path(path)
    data = _load(path)
    try:
        segments = list(_segments(data))
        width, height = _check_frame(segments)
        accept(width, height)
        pixels = _decode(segments)
    except _MalformedError as error:
        raise JpegError(f"{path}: {error}") from error
    if pixels.shape != (height, width, 3):
        raise JpegError(f"{path}: {_DAMAGED}")
    exif = _exif(segments)
    orientation, make, model = 1, "", ""
    if exif is not None:
        orientation = dngtags.orientation(exif) or 1
        make, model = dngtags.camera(exif)
    return Jpeg(pixels, pixels_digest(pixels), _stream_digest(segments), orientation, make, model)


def read_reduced(path: str | Path, side: int) -> np.ndarray:
    """The pixels of a JPEG in a smaller size: uint8 (H, W, 3), at most ``side`` each way.

    As stored: the orientation is not applied. Raises JpegError as ``read_jpeg`` does.
    """
    data = _load(Path(path))
    try:
        segments = list(_segments(data))
        _check_frame(segments)
        return _decode(segments, side)
    except _MalformedError as error:
        raise JpegError(f"{path}: {error}") from error


def read_stream_digest(path: str | Path) -> bytes:
    """``Jpeg.stream_digest`` of a file, without decoding it.

    Raises JpegError where the file is missing, no JPEG, truncated or damaged.
    """
    data = _load(Path(path))
    try:
        return _stream_digest(list(_segments(data)))
    except _MalformedError as error:
        raise JpegError(f"{path}: {error}") from error


def read_exif(path: str | Path) -> Tiff | None:
    """The directories of a JPEG's EXIF; None where there is none, or it is damaged.

    Raises JpegError where the file is missing, no JPEG, truncated or damaged.
    """
    data = _load(Path(path))
    try:
        return _exif(_segments(data))
    except _MalformedError as error:
        raise JpegError(f"{path}: {error}") from error


def pixels_digest(pixels: np.ndarray) -> bytes:
    """First 16 bytes of SHA-256 over width, height (uint32 LE) and uint8 RGB (H, W, 3)."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(struct.pack("<II", width, height))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()[:16]


def _load(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise JpegError(f"{path}: no such file; check the name") from error
    except IsADirectoryError as error:
        raise JpegError(f"{path}: is a folder; name a JPEG file in it") from error
    except OSError as error:
        raise JpegError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not data:
        raise JpegError(f"{path}: is empty; copy it again")
    if not is_jpeg(data):
        kind = next((f" but a {k}" for start, k in _OTHERS.items() if data.startswith(start)), "")
        raise JpegError(f"{path}: is not a JPEG{kind}; name the JPEG of the same photo")
    return data


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yields the segments of the first picture, from the one after SOI to EOI.

    libjpeg only warns where a file ends early, and fills up with grey; so the
    end is looked for here. Fill bytes between segments are dropped.
    """
    view = memoryview(data)
    position = 2
    while True:
        if position + 2 > len(data):
            raise _MalformedError(_TRUNCATED)
        if data[position] != 0xFF:
            raise _MalformedError(_DAMAGED)
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker == _EOI:
            yield _Segment(marker, view[position:position])
            return
        if marker in _STANDALONE:
            yield _Segment(marker, view[position:position])
            continue
        if marker in (0x00, _SOI):
            raise _MalformedError(_DAMAGED)
        if position + 2 > len(data):
            raise _MalformedError(_TRUNCATED)
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end < position + 2:
            raise _MalformedError(_DAMAGED)
        if end > len(data):
            raise _MalformedError(_TRUNCATED)
        if marker == _SOS:
            found = _MARKER.search(data, end)
            if found is None:
                raise _MalformedError(_TRUNCATED)
            end = found.start()
        yield _Segment(marker, view[position:end])
        position = end


def _check_frame(segments: list[_Segment]) -> tuple[int, int]:
    """Width and height of the picture, before any memory is taken for it."""
    frames = [s.body for s in segments if s.marker in _FRAMES]
    if len(frames) != 1 or len(frames[0]) < 8:
        raise _MalformedError(_DAMAGED)
    if not any(s.marker == _SOS for s in segments):
        raise _MalformedError(_TRUNCATED)
    _, bits, height, width, components = struct.unpack_from(">HBHHB", frames[0])
    if bits != 8:
        raise _MalformedError(f"has {bits} bits a sample; save it as an 8-bit JPEG")
    if components == 4:
        raise _MalformedError("is a CMYK JPEG; save it as RGB")
    if components not in (1, 3):
        raise _MalformedError(f"has {components} colour channels; save it as RGB")
    if width * height > MAX_PIXELS:
        raise _MalformedError(
            f"has {width}x{height} pixels, more than the limit of {MAX_PIXELS}; make it smaller"
        )
    scans = [len(s.body) for s in segments if s.marker == _SOS]
    if len(scans) > _MAX_SCANS:
        raise _MalformedError(f"has {len(scans)} scans, not a photo's ten or so; save it anew")
    if is_bomb(width * height, sum(scans), PIXELS_A_BYTE):
        raise _MalformedError(
            f"claims {width}x{height} pixels, which {sum(scans)} bytes do not hold; copy it again"
        )
    return width, height


def _decode(segments: list[_Segment], side: int | None = None) -> np.ndarray:
    """Pixels of the picture, uint8 (H, W, 3); reduced to ``side`` each way, if given.

    The decoder gets no metadata but those that say which colours the
    components are, so damaged EXIF or a second picture cannot disturb it.
    """
    stripped = b"".join(_bytes(segments, keep=(_APP0, _APP14)))
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(stripped)) as image:
            # in one piece: between two, other threads of Python would take their turn
            image.decodermaxblock = len(stripped)
            if side is not None:
                image.thumbnail((side, side))
            return _pixels(image if image.mode == "RGB" else image.convert("RGB"))
    # Pillow's plugin lets SyntaxError and struct.error out for broken headers.
    except (OSError, SyntaxError, ValueError, IndexError, KeyError, struct.error) as error:
        raise _MalformedError(_DAMAGED) from error


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels of an RGB picture: uint8 (H, W, 3)."""
    image.load()
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIP):  # Pillow makes two copies of what it gives
        bottom = min(top + _STRIP, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _stream_digest(segments: list[_Segment]) -> bytes:
    """First 8 bytes of SHA-256 over the stream without metadata.

    Adobe's APP14 is kept: it says whether the components are RGB or YCbCr.
    """
    digest = hashlib.sha256()
    for part in _bytes(segments, keep=(_APP14,)):
        digest.update(part)
    return digest.digest()[:8]


def _bytes(segments: list[_Segment], keep: tuple[int, ...]) -> Iterator[bytes | memoryview]:
    """The stream's bytes from SOI on, without COM and the APPn not in ``keep``."""
    yield bytes((0xFF, _SOI))
    for segment in segments:
        metadata = _APP0 <= segment.marker <= _APP15 or segment.marker == _COM
        if not metadata or segment.marker in keep:
            yield bytes((0xFF, segment.marker))
            yield segment.body


def _exif(segments: Iterable[_Segment]) -> Tiff | None:
    """The directories of the EXIF; None where it is missing, or no TIFF."""
    for segment in segments:
        payload = segment.body[2:]
        if segment.marker == _APP1 and payload[: len(_EXIF)] == _EXIF:
            tiff = read_tiff(bytes(payload[len(_EXIF) :]))
            if tiff is not None:
                return tiff
    return None
