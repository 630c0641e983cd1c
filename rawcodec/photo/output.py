"""Mosaics to TIFF.

Source of the tags: TIFF 6.0; TIFF/EP (ISO 12234-2) for the CFA; Digital
Negative Specification 1.7 for the levels and LinearRaw.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from ..mosaic import COLOURS, Mosaic
from ..sensor import Sensor
from . import dngtags
from .bomb import SITES_A_BYTE, is_bomb
from .ifd import ASCII, BYTE, SHORT

SOFTWARE = "rawcodec"

_MIN_IS_BLACK = 1
_NONE = 1  # Compression

# tifffile's form of an extra tag: tag, type, count, value, write it once
_ExtraTag = tuple[int, int, int, object, bool]


def write_tiff(file: BinaryIO, mosaic: Mosaic) -> None:
    """Writes a mosaic as a TIFF of one page of uncompressed uint16.

    A CFA is written as TIFF/EP has it (photometric 32803 with the pattern), a
    linear raw as LinearRaw (34892), a monochrome one as MinIsBlack; all with
    the DNG tags for black and white level. The same mosaic gives the same
    bytes.

    file: open for writing and seeking.
    """
    # Without metadata=None tifffile adds the shape, as JSON, in a description.
    with tifffile.TiffWriter(file, bigtiff=False, byteorder="<") as writer:
        writer.write(
            np.ascontiguousarray(mosaic.samples, dtype=np.uint16),
            photometric=_photometric(mosaic.sensor),
            planarconfig=1 if mosaic.sensor.linear else None,
            compression=_NONE,
            software=SOFTWARE,
            metadata=None,
            extratags=_extra_tags(mosaic),
        )


def read_samples(path: Path) -> np.ndarray | None:
    """The samples of a TIFF as ``write_tiff`` writes it: uint16 (H, W) or (H, W, 3).

    None for a file that is no such TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if [page.dtype for page in file.pages] != [np.uint16]:
                return None
            page = file.pages.first
            # another program may have compressed the samples
            if is_bomb(math.prod(page.shape), path.stat().st_size, SITES_A_BYTE):
                return None
            return page.asarray()
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, struct.error):
        return None


def _photometric(sensor: Sensor) -> int:
    if sensor.linear:
        return dngtags.PHOTOMETRIC_LINEAR_RAW
    return _MIN_IS_BLACK if sensor.cfa_name == "mono" else dngtags.PHOTOMETRIC_CFA


def _extra_tags(mosaic: Mosaic) -> list[_ExtraTag]:
    sensor = mosaic.sensor
    tags = [
        _text(dngtags.MAKE, mosaic.make),
        _text(dngtags.MODEL, mosaic.model),
        _shorts(dngtags.ORIENTATION, sensor.orientation),
        _shorts(dngtags.BLACK_LEVEL_REPEAT_DIM, *sensor.period),
        _shorts(dngtags.BLACK_LEVEL, *sensor.black),
        _shorts(dngtags.WHITE_LEVEL, *[sensor.white] * (3 if sensor.linear else 1)),
    ]
    if _photometric(sensor) == dngtags.PHOTOMETRIC_CFA:
        pattern = bytes(COLOURS.index(letter) for row in sensor.cfa for letter in row)
        tags += [
            _shorts(dngtags.CFA_REPEAT_PATTERN_DIM, *sensor.period),
            (dngtags.CFA_PATTERN, BYTE, len(pattern), pattern, True),
        ]
    return tags


def _shorts(tag: int, *values: int) -> _ExtraTag:
    return (tag, SHORT, len(values), values if len(values) > 1 else values[0], True)


def _text(tag: int, value: str) -> _ExtraTag:
    encoded = value.encode("ascii", "replace") + b"\0"
    return (tag, ASCII, len(encoded), encoded, True)
