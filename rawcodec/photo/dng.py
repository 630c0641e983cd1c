"""Mosaics to DNG, which raw editors open like the camera's own file.

Source: Digital Negative Specification 1.7; TIFF 6.0; ITU-T T.81, annex H, for lossless JPEG.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..mosaic import COLOURS, Mosaic
from ..sensor import Sensor
from ..stream.tags import Tag
from . import dngtags
from .ifd import (
    ASCII,
    BYTE,
    EXIF_IFD,
    GPS_IFD,
    LONG,
    SHORT,
    SUB_IFDS,
    Ifd,
    Tiff,
    pack_ifd,
)
from .output import SOFTWARE

_BITS_PER_SAMPLE, _COMPRESSION, _SOFTWARE, _PLANAR_CONFIGURATION = 258, 259, 305, 284
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_DNG_BACKWARD_VERSION, _UNIQUE_CAMERA_MODEL, _CFA_PLANE_COLOR = 50707, 50708, 50710

_YCBCR_SUBSAMPLING, _PREVIEW_COLOR_SPACE = 530, 50970

_UNCOMPRESSED = 1
_JPEG = _LOSSLESS_JPEG = 7
_REDUCED, _YCBCR, _SRGB = 1, 6, 2
_RECTANGULAR = 1

# What a reader has to know at least: opcodes came with 1.3, third illuminants with 1.6.
_VERSION, _VERSION_OF_ILLUMINANTS = (1, 4, 0, 0), (1, 6, 0, 0)
_READ_BY, _READ_BY_WITH_OPCODES = (1, 1, 0, 0), (1, 3, 0, 0)
_FIRST_OF_ILLUMINANTS = 52525

# Sites a side, at most, of the pieces that are coded each by itself.
_TILE = 512
_TILE_STEP = 16

_PREVIEW_QUALITY, _PREVIEW_SUBSAMPLING = 85, "4:2:0"

# Rows of the pieces of uncompressed samples.
_STRIP = 64

# What the first directory of the EXIF says of the photo, not of the JPEG.
_OF_THE_PHOTO = frozenset({270, 306, 315, 33432})  # description, date, artist, copyright

# What its EXIF directory says of the JPEG; and what holds only at its place in the file.
_OF_THE_JPEG = frozenset(
    {
        37121,  # ComponentsConfiguration
        37122,  # CompressedBitsPerPixel
        37500,  # MakerNote, whose offsets count from the start of the file
        40960,  # FlashpixVersion
        40961,  # ColorSpace
        40962,  # PixelXDimension
        40963,  # PixelYDimension
        40965,  # the interoperability directory
        42240,  # Gamma
        SUB_IFDS,
        EXIF_IFD,
        GPS_IFD,
    }
)


def write_dng(
    file: BinaryIO,
    mosaic: Mosaic,
    exif: Tiff | None = None,
    preview: np.ndarray | None = None,
    *,
    compressed: bool = True,
    threads: int = 1,
) -> None:
    """Writes a mosaic as a DNG.

    The visible area is all of the sensor that there is: black and white levels, CFA and the
    raw's colour tags are those of the mosaic. The same mosaic gives the same bytes.

    file: open for writing and seeking, empty.
    exif: of the JPEG of the shot. Its EXIF and GPS directories are copied, without maker notes
        and without what describes the JPEG itself.
    preview: sRGB, uint8 (h, w, 3), as the sensor lies, in a size for lists of files. Some
        editors also fit their curve to it, as they do to that of a camera's raw.
    compressed: in tiles of lossless JPEG of predictor 1, which all readers know, with two
        neighbouring sites of a row as one pixel, so that each is predicted from the site of
        its own colour on a Bayer sensor. Otherwise in strips of uint16.
    threads: that compress tiles.
    """
    file.write(struct.pack("<2sHI", b"II", 42, 0))
    sensor = mosaic.sensor
    if compressed:
        tile = _tile_side(sensor.height), _tile_side(sensor.width)
        parts = _tiles(mosaic, tile, threads)
    else:
        parts = _strips(mosaic.samples)
    offsets, sizes = [], []
    for data in parts:
        offsets.append(file.tell())
        sizes.append(len(data))
        _write_even(file, data)
    if compressed:
        tags = [
            _shorts(_COMPRESSION, _LOSSLESS_JPEG),
            _longs(_TILE_WIDTH, tile[1]),
            _longs(_TILE_LENGTH, tile[0]),
            _longs(dngtags.TILE_OFFSETS, *offsets),
            _longs(dngtags.TILE_BYTE_COUNTS, *sizes),
        ]
    else:
        tags = [
            _shorts(_COMPRESSION, _UNCOMPRESSED),
            _longs(_ROWS_PER_STRIP, _STRIP),
            _longs(dngtags.STRIP_OFFSETS, *offsets),
            _longs(dngtags.STRIP_BYTE_COUNTS, *sizes),
        ]
    tags += [*_picture_tags(mosaic), *_dng_tags(mosaic)]
    if preview is not None:
        tags.append(_longs(SUB_IFDS, _write_preview(file, preview)))
    if exif is not None:
        tags += _copied(exif.first, keep=_OF_THE_PHOTO)
        for pointer, ifd in ((EXIF_IFD, exif.exif), (GPS_IFD, exif.gps)):
            copied = _copied(ifd, leave_out=_OF_THE_JPEG)
            if copied:
                tags.append(_longs(pointer, file.tell()))
                _write_even(file, pack_ifd(copied, file.tell()))
    first = file.tell()
    _write_even(file, pack_ifd(tags, first))
    file.seek(4)
    file.write(struct.pack("<I", first))
    file.seek(0, 2)


def _write_preview(file: BinaryIO, preview: np.ndarray) -> int:
    """Writes a preview as JPEG, and its directory; returns where that is."""
    buffer = io.BytesIO()
    Image.fromarray(preview).save(
        buffer, "JPEG", quality=_PREVIEW_QUALITY, subsampling=_PREVIEW_SUBSAMPLING
    )
    data, start = buffer.getvalue(), file.tell()
    _write_even(file, data)
    tags = [
        _longs(dngtags.NEW_SUBFILE_TYPE, _REDUCED),
        _longs(dngtags.IMAGE_WIDTH, preview.shape[1]),
        _longs(dngtags.IMAGE_LENGTH, preview.shape[0]),
        _shorts(_BITS_PER_SAMPLE, 8, 8, 8),
        _shorts(_COMPRESSION, _JPEG),
        _shorts(dngtags.PHOTOMETRIC, _YCBCR),
        _longs(dngtags.STRIP_OFFSETS, start),
        _shorts(dngtags.SAMPLES_PER_PIXEL, 3),
        _longs(_ROWS_PER_STRIP, preview.shape[0]),
        _longs(dngtags.STRIP_BYTE_COUNTS, len(data)),
        _shorts(_PLANAR_CONFIGURATION, 1),
        _shorts(_YCBCR_SUBSAMPLING, 2, 2),
        _longs(_PREVIEW_COLOR_SPACE, _SRGB),
    ]
    offset = file.tell()
    _write_even(file, pack_ifd(tags, offset))
    return offset


def _tile_side(size: int) -> int:
    """Of tiles of one size that cover ``size`` sites with little beyond.

    Never one tile alone that is wider than the picture: dcraw and LibRaw end its rows where the
    picture's end.
    """
    count = max(math.ceil(size / _TILE), 2 if size % _TILE_STEP else 1)
    return math.ceil(size / count / _TILE_STEP) * _TILE_STEP


def _strips(samples: np.ndarray) -> Iterator[bytes]:
    for top in range(0, len(samples), _STRIP):
        yield samples[top : top + _STRIP].astype("<u2").tobytes()


def _tiles(mosaic: Mosaic, tile: tuple[int, int], threads: int) -> Iterator[bytes]:
    """The bytes of each tile, row by row."""
    sensor = mosaic.sensor
    code = partial(_lossless_jpeg, paired=_has_cfa(sensor))
    height, width = tile
    with ThreadPoolExecutor(threads) as pool:
        for top in range(0, sensor.height, height):
            band = mosaic.samples[top : top + height]
            yield from pool.map(
                code,
                [
                    _filled(band[:, left : left + width], tile)
                    for left in range(0, sensor.width, width)
                ],
            )


def _filled(part: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """A part of the samples in the size of a tile, its last sites repeated beyond its edge.

    In pairs, so that a Bayer sensor's colours go on and cost few bits.
    """
    rows, columns = (
        _repeating(size, side) for size, side in zip(part.shape[:2], tile, strict=True)
    )
    filled: np.ndarray = part[rows[:, None], columns]
    return filled


def _repeating(size: int, side: int) -> np.ndarray:
    """The places 0 to size - 1, then the last two by turns, up to ``side`` of them."""
    places = np.arange(side)
    beyond = size - 1 - (places - (size - 1)) % 2
    return np.where(places < size, places, np.maximum(beyond, 0))


def _lossless_jpeg(tile: np.ndarray, *, paired: bool) -> bytes:
    # imported where it is needed: it takes a while
    from imagecodecs import jpeg8_encode

    pixels = tile.reshape(len(tile), -1, 2) if paired else tile
    coded = jpeg8_encode(np.ascontiguousarray(pixels), lossless=True, predictor=1, bitspersample=16)
    return bytes(coded)


def _has_cfa(sensor: Sensor) -> bool:
    return not sensor.linear and sensor.cfa_name != "mono"


def _picture_tags(mosaic: Mosaic) -> list[Tag]:
    """What the samples are."""
    sensor = mosaic.sensor
    channels = 3 if sensor.linear else 1
    has_cfa = _has_cfa(sensor)
    black, period = sensor.black, sensor.period
    if has_cfa and len(set(black)) == 1:
        black, period = black[:1], (1, 1)
    tags = [
        _longs(dngtags.NEW_SUBFILE_TYPE, 0),
        _longs(dngtags.IMAGE_WIDTH, sensor.width),
        _longs(dngtags.IMAGE_LENGTH, sensor.height),
        _shorts(_BITS_PER_SAMPLE, *[16] * channels),
        _shorts(
            dngtags.PHOTOMETRIC,
            dngtags.PHOTOMETRIC_CFA if has_cfa else dngtags.PHOTOMETRIC_LINEAR_RAW,
        ),
        _shorts(dngtags.ORIENTATION, sensor.orientation),
        _shorts(dngtags.SAMPLES_PER_PIXEL, channels),
        _shorts(_PLANAR_CONFIGURATION, 1),
        _shorts(dngtags.BLACK_LEVEL_REPEAT_DIM, *period),
        _shorts(dngtags.BLACK_LEVEL, *black),
        _shorts(dngtags.WHITE_LEVEL, *[sensor.white] * channels),
        _longs(dngtags.ACTIVE_AREA, 0, 0, sensor.height, sensor.width),
    ]
    if has_cfa:
        pattern = bytes(COLOURS.index(letter) for row in sensor.cfa for letter in row)
        tags += [
            _shorts(dngtags.CFA_REPEAT_PATTERN_DIM, *sensor.period),
            (dngtags.CFA_PATTERN, BYTE, len(pattern), pattern),
            (_CFA_PLANE_COLOR, BYTE, 3, bytes([0, 1, 2])),
            _shorts(dngtags.CFA_LAYOUT, _RECTANGULAR),
        ]
    return tags


def _dng_tags(mosaic: Mosaic) -> list[Tag]:
    """What makes a TIFF a DNG, the camera and its colours."""
    # A sidecar's tags are whatever its bytes say; those that describe the samples are not theirs.
    colours = {tag[0]: tag for tag in mosaic.tags if tag[0] in dngtags.COLOUR_TAGS}
    colours.pop(dngtags.CFA_LAYOUT, None)
    camera = f"{mosaic.make} {mosaic.model}".strip()
    colours.setdefault(_UNIQUE_CAMERA_MODEL, _text(_UNIQUE_CAMERA_MODEL, camera or "unknown"))
    illuminants = max(colours) >= _FIRST_OF_ILLUMINANTS
    opcodes = not dngtags.OPCODE_LISTS.isdisjoint(colours)
    version = _VERSION_OF_ILLUMINANTS if illuminants else _VERSION
    tags = [
        _text(_SOFTWARE, SOFTWARE),
        (dngtags.DNG_VERSION, BYTE, 4, bytes(version)),
        (_DNG_BACKWARD_VERSION, BYTE, 4, bytes(_READ_BY_WITH_OPCODES if opcodes else _READ_BY)),
    ]
    names = ((dngtags.MAKE, mosaic.make), (dngtags.MODEL, mosaic.model))
    tags += [_text(tag, name) for tag, name in names if name]
    return [*tags, *colours.values()]


def _copied(
    ifd: Ifd, *, keep: frozenset[int] | None = None, leave_out: frozenset[int] = frozenset()
) -> list[Tag]:
    """The tags of a directory, little-endian; those of ``keep`` alone, if given."""
    return [
        (tag, entry.type, entry.count, entry.little_endian())
        for tag, entry in ifd.items()
        if tag not in leave_out and (keep is None or tag in keep) and entry.data
    ]


def _write_even(file: BinaryIO, data: bytes) -> None:
    file.write(data + b"\0" * (len(data) % 2))


def _shorts(tag: int, *values: int) -> Tag:
    return (tag, SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def _longs(tag: int, *values: int) -> Tag:
    return (tag, LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def _text(tag: int, value: str) -> Tag:
    encoded = value.encode("ascii", "replace") + b"\0"
    return (tag, ASCII, len(encoded), encoded)
