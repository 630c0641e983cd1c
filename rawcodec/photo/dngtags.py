"""What the tags of a raw that is a TIFF say about its samples and its colours.

Source: Digital Negative Specification 1.7, chapter "DNG Tags"; TIFF/EP
(ISO 12234-2) for raws that are no DNG.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from ..stream.tags import RECORD_SIZE, SIZE_LIMIT, Tag
from .ifd import LONG, RATIONAL, SHORT, SRATIONAL, Ifd, Tiff

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH = 254, 256, 257
PHOTOMETRIC = 262
MAKE, MODEL, ORIENTATION = 271, 272, 274
STRIP_OFFSETS, STRIP_BYTE_COUNTS = 273, 279
SAMPLES_PER_PIXEL = 277
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
SAMPLE_FORMAT = 339
CFA_REPEAT_PATTERN_DIM, CFA_PATTERN = 33421, 33422
DNG_VERSION, CFA_LAYOUT = 50706, 50711
LINEARIZATION_TABLE = 50712
BLACK_LEVEL_REPEAT_DIM, BLACK_LEVEL = 50713, 50714
BLACK_LEVEL_DELTA_H, BLACK_LEVEL_DELTA_V = 50715, 50716
WHITE_LEVEL = 50717
DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE = 50719, 50720
COLOR_MATRIX_1, AS_SHOT_NEUTRAL, CALIBRATION_ILLUMINANT_1 = 50721, 50728, 50778
ACTIVE_AREA = 50829
OPCODE_LIST_1, OPCODE_LIST_2, OPCODE_LIST_3 = 51008, 51009, 51022
DEFAULT_USER_CROP = 51125

PHOTOMETRIC_CFA, PHOTOMETRIC_LINEAR_RAW = 32803, 34892

_FLOATING_POINT = 3
_RECTANGULAR = 1
_CFA_LETTERS = "RGBCMYW"
_D65 = 21
_MAX_TAG_BYTES = 4096

# Maps of gains are long; each cell of a Bayer sensor may have its own.
_MAX_OPCODE_BYTES = 16384

OPCODE_LISTS = frozenset({OPCODE_LIST_1, OPCODE_LIST_2, OPCODE_LIST_3})

# Tags that a DNG of the same samples needs for the same picture.
COLOUR_TAGS = frozenset(
    {
        50708,  # UniqueCameraModel
        CFA_LAYOUT,
        50718,  # DefaultScale
        DEFAULT_CROP_ORIGIN,
        DEFAULT_CROP_SIZE,
        COLOR_MATRIX_1,
        50722,  # ColorMatrix2
        50723,  # CameraCalibration1
        50724,  # CameraCalibration2
        50727,  # AnalogBalance
        AS_SHOT_NEUTRAL,
        50729,  # AsShotWhiteXY
        50730,  # BaselineExposure
        50731,  # BaselineNoise
        50732,  # BaselineSharpness
        50733,  # BayerGreenSplit
        50734,  # LinearResponseLimit
        50738,  # AntiAliasStrength
        50739,  # ShadowScale
        CALIBRATION_ILLUMINANT_1,
        50779,  # CalibrationIlluminant2
        50931,  # CameraCalibrationSignature
        50932,  # ProfileCalibrationSignature
        50936,  # ProfileName
        50940,  # ProfileToneCurve
        50941,  # ProfileEmbedPolicy
        50942,  # ProfileCopyright
        50964,  # ForwardMatrix1
        50965,  # ForwardMatrix2
        *OPCODE_LISTS,
        51041,  # NoiseProfile
        51109,  # BaselineExposureOffset
        51110,  # DefaultBlackRender
        DEFAULT_USER_CROP,
        52529,  # CalibrationIlluminant3
        52530,  # CameraCalibration3
        52531,  # ColorMatrix3
        52532,  # ForwardMatrix3
        52533,  # IlluminantData1
        52534,  # IlluminantData2
        52535,  # IlluminantData3
    }
)

# They count from the active area, so they hold only where that is the visible area.
_OF_ACTIVE_AREA = frozenset(
    {DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, DEFAULT_USER_CROP, OPCODE_LIST_2, OPCODE_LIST_3}
)


def is_dng(tiff: Tiff) -> bool:
    """True where the TIFF says that it is a DNG."""
    return DNG_VERSION in tiff.first


def raw_ifd(tiff: Tiff, height: int, width: int) -> Ifd:
    """The directory of a DNG's raw of that full size; an empty one if there is none."""
    for ifd in tiff.ifds:
        if _is_raw(ifd) and (_number(ifd, IMAGE_LENGTH), _number(ifd, IMAGE_WIDTH)) == (
            height,
            width,
        ):
            return ifd
    return {}


def is_floating_point(tiff: Tiff) -> bool:
    """True where the raw samples are floating-point numbers."""
    return any(_is_raw(ifd) and _number(ifd, SAMPLE_FORMAT) == _FLOATING_POINT for ifd in tiff.ifds)


def raw_frames(tiff: Tiff) -> int:
    """How many raws of full size a DNG holds, as those of a sensor that was shifted between."""
    sizes = [
        (_number(ifd, IMAGE_LENGTH), _number(ifd, IMAGE_WIDTH)) for ifd in tiff.ifds if _is_raw(ifd)
    ]
    return max(map(sizes.count, sizes), default=0)


def is_truncated(tiff: Tiff, size: int) -> bool:
    """True where a file of ``size`` bytes ends before its raw samples do.

    LibRaw reads the missing end of a packed or compressed last strip as zeros
    and reports success, so the strips and tiles are held against the file's
    size. Only directories that declare raw samples count: cameras write wrong
    byte counts for previews.
    """
    if not tiff.ifds:
        return True
    for ifd in tiff.ifds:
        if not _is_raw(ifd):
            continue
        for offsets, counts in (
            (STRIP_OFFSETS, STRIP_BYTE_COUNTS),
            (TILE_OFFSETS, TILE_BYTE_COUNTS),
        ):
            if offsets in ifd and counts in ifd:
                ends = map(sum, zip(ifd[offsets].integers(), ifd[counts].integers(), strict=False))
                if max(ends, default=0) > size:
                    return True
    return False


def orientation(tiff: Tiff) -> int | None:
    """The EXIF orientation (1 to 8) of the first directory; None if it has none."""
    value = _number(tiff.first, ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else None


def camera(tiff: Tiff) -> tuple[str, str]:
    """Make and model as the first directory names them; empty where it does not."""
    make, model = (tiff.first[tag].text() if tag in tiff.first else "" for tag in (MAKE, MODEL))
    return make, model


def active_area(ifd: Ifd, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a DNG's active area; the whole raw by default."""
    area = ifd[ACTIVE_AREA].integers() if ACTIVE_AREA in ifd else ()
    if len(area) != 4:
        return 0, 0, height, width
    return area[0], area[1], area[2], area[3]


def cfa_pattern(ifd: Ifd, offset: tuple[int, int]) -> tuple[str, ...] | None:
    """The CFA of a DNG from its own tags, as in ``Sensor.cfa``.

    Taken from the tags because LibRaw reads every pattern but a 6x6 one as
    rows of two sites, and other colours as if they were red, green and blue.

    ifd: the raw's directory.
    offset: row and column of the visible area's first site in the active area,
        where the pattern starts.

    Returns the letters R, G, B, C, M, Y, W that the specification numbers 0 to
    6, and ``?`` for others. None where the tags are missing, do not fit one
    another, or the layout is not rectangular.
    """
    if not ifd.keys() >= {CFA_REPEAT_PATTERN_DIM, CFA_PATTERN}:
        return None
    if CFA_LAYOUT in ifd and ifd[CFA_LAYOUT].integers() != (_RECTANGULAR,):
        return None
    repeat = ifd[CFA_REPEAT_PATTERN_DIM].integers()
    values = ifd[CFA_PATTERN].integers()
    if len(repeat) != 2 or min(repeat) < 1 or len(values) != repeat[0] * repeat[1]:
        return None
    letters = np.array([_CFA_LETTERS[v] if v < len(_CFA_LETTERS) else "?" for v in values])
    table = np.roll(letters.reshape(repeat), (-offset[0], -offset[1]), axis=(0, 1))
    return tuple("".join(row) for row in table)


def black_levels(
    ifd: Ifd, period: tuple[int, int], offset: tuple[int, int], channels: int
) -> tuple[int, ...] | None:
    """The black level of each cell of the CFA, from the tags of a DNG.

    Taken from the tags because LibRaw cuts fractions off, keeps no pattern
    beyond one level a colour, and adds BlackLevelDeltaH and V as one mean.

    ifd: the raw's directory.
    period: rows and columns of the CFA's pattern.
    offset: row and column of the visible area's first site in the active area,
        where the black level's own pattern starts.
    channels: samples a site: 3 for a linear raw, else 1.

    Returns period rows x columns levels row by row (3 levels for a linear
    raw), rounded to the nearest DN, never negative; the mean where the black
    level varies among the sites of one cell. None where the tag is missing or
    does not fit its own dimensions.
    """
    if BLACK_LEVEL not in ifd:
        return None
    rows, columns = 1, 1
    if BLACK_LEVEL_REPEAT_DIM in ifd:
        repeat = ifd[BLACK_LEVEL_REPEAT_DIM].integers()
        if len(repeat) != 2 or min(repeat) < 1:
            return None
        rows, columns = repeat
    values = ifd[BLACK_LEVEL].numbers()
    if values.size != rows * columns * channels or not np.isfinite(values).all():
        return None
    pattern = values.reshape(rows, columns, channels)
    # Cell (i, j) of the CFA meets the rows i, i + period, ... of the black pattern.
    across = _residues(period[1], columns, offset[1])
    delta_h = _deltas(ifd, BLACK_LEVEL_DELTA_H, period[1], offset[1])
    delta_v = _deltas(ifd, BLACK_LEVEL_DELTA_V, period[0], offset[0])
    levels = []
    for i, down in enumerate(_residues(period[0], rows, offset[0])):
        for j in range(period[1]):
            cell = pattern[np.ix_(down, across[j])].mean(axis=(0, 1))
            levels += [math.floor(x + delta_v[i] + delta_h[j] + 0.5) for x in cell]
    return tuple(max(0, level) for level in levels)


def colour_tags(
    tiff: Tiff, ifd: Ifd, visible_is_active: bool, visible_is_whole: bool
) -> tuple[Tag, ...]:
    """The colour tags of a DNG as they are, sorted by tag, values little-endian.

    Opcodes are among them, except where they do not apply to the visible area's samples. A tag
    that is very long is left out, and the longest ones where all together are too long.

    ifd: the raw's directory, whose tags go before those of the first one.
    visible_is_active: whether the visible area is the DNG's active area; the tags that count
        from its corner, of the default crop and of opcodes, are left out where it is not.
    visible_is_whole: whether it is all of the raw samples, of which the first opcodes are.
    """
    found = {**tiff.first, **ifd}
    wanted = COLOUR_TAGS if visible_is_active else COLOUR_TAGS - _OF_ACTIVE_AREA
    if not visible_is_whole or LINEARIZATION_TABLE in ifd:  # the samples have been through it
        wanted -= {OPCODE_LIST_1}
    kept: list[Tag] = []
    room = SIZE_LIMIT
    for tag in sorted(wanted & found.keys(), key=lambda tag: len(found[tag].data)):
        entry = found[tag]
        room -= RECORD_SIZE + len(entry.data)
        longest = _MAX_OPCODE_BYTES if tag in OPCODE_LISTS else _MAX_TAG_BYTES
        if entry.data and len(entry.data) <= longest and room >= 0:
            kept.append((tag, entry.type, entry.count, entry.little_endian()))
    return tuple(sorted(kept))


def tags_from_matrix(xyz_to_camera: np.ndarray, multipliers: list[float]) -> tuple[Tag, ...]:
    """The colour tags that LibRaw's own tables stand for, for a raw that is no DNG.

    xyz_to_camera: (3, 3), from CIE XYZ under D65 to the camera's R, G, B.
    multipliers: as-shot white balance of R, G, B.

    A part that LibRaw does not know (zeros) is left out.
    """
    tags: list[Tag] = []
    matrix = np.rint(np.asarray(xyz_to_camera, dtype=np.float64) * 10000)
    if np.isfinite(matrix).all() and np.abs(matrix).max() < 2**31 and np.linalg.det(matrix):
        numbers = [n for value in matrix.ravel() for n in (int(value), 10000)]
        tags.append((COLOR_MATRIX_1, SRATIONAL, 9, struct.pack("<18i", *numbers)))
    red, green, blue = multipliers
    if all(math.isfinite(m) and m > 0 for m in (red, green, blue)):
        neutral = [green / red, 1.0, green / blue]
        numbers = [n for value in neutral for n in (round(value * 1_000_000), 1_000_000)]
        if min(numbers) > 0 and max(numbers) < 2**32:
            tags.append((AS_SHOT_NEUTRAL, RATIONAL, 3, struct.pack("<6I", *numbers)))
    if tags and tags[0][0] == COLOR_MATRIX_1:
        tags.append((CALIBRATION_ILLUMINANT_1, SHORT, 1, struct.pack("<H", _D65)))
    return tuple(tags)


def _is_raw(ifd: Ifd) -> bool:
    return _number(ifd, PHOTOMETRIC) in (PHOTOMETRIC_CFA, PHOTOMETRIC_LINEAR_RAW) and not _number(
        ifd, NEW_SUBFILE_TYPE
    )


def _number(ifd: Ifd, tag: int) -> int | None:
    """The first value of an integer tag."""
    if tag not in ifd or ifd[tag].type not in (SHORT, LONG):
        return None
    values = ifd[tag].integers()
    return values[0] if values else None


def _residues(period: int, repeat: int, offset: int) -> list[list[int]]:
    """For each of ``period`` phases, the places in a pattern of ``repeat`` it meets."""
    span = math.lcm(period, repeat)
    return [[(k + offset) % repeat for k in range(phase, span, period)] for phase in range(period)]


def _deltas(ifd: Ifd, tag: int, period: int, offset: int) -> list[float]:
    """Mean of a BlackLevelDelta over the rows or columns of each phase."""
    if tag not in ifd:
        return [0.0] * period
    values = ifd[tag].numbers()[max(0, offset) :]
    if values.size < period or not np.isfinite(values).all():
        return [0.0] * period
    return [float(values[phase::period].mean()) for phase in range(period)]
