"""Writes small DNGs that LibRaw opens, for tests. Not a test itself."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")

# A daylight matrix of no camera in particular: close to the identity's rows.
COLOR_MATRIX = (0.9, -0.2, -0.1, -0.4, 1.3, 0.1, -0.1, 0.2, 0.6)

Levels = int | Fraction | Sequence[int | Fraction]
ExtraTag = tuple[int, int, int, object, bool]

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
MIN_IS_BLACK, CFA, LINEAR_RAW = 1, 32803, 34892


def write_dng(
    path: str | Path,
    samples: np.ndarray,
    cfa: tuple[str, ...] = ("RG", "GB"),
    black: Levels = 0,
    white: int = 65535,
    orientation: int | None = 1,
    make: str = "Test",
    model: str = "Camera",
    active_area: tuple[int, int, int, int] | None = None,
    byteorder: Literal["<", ">"] = "<",
    color_matrix: Sequence[float] | None = COLOR_MATRIX,
    black_repeat: tuple[int, int] | None = None,
    extratags: Sequence[ExtraTag] = (),
    frames: int = 1,
) -> Path:
    """Writes uint16 (or float32) samples as an uncompressed DNG; returns its path.

    samples: (H, W), or (H, W, 3) for a linear raw, borders included.
    cfa: as in ``rawcodec.sensor.Sensor``, from the active area's first site:
        ``("G",)`` for monochrome, ``()`` for linear.
    black: one level, or ``black_repeat`` x channels of them. Fractions are
        written as rationals.
    orientation: EXIF, 1 to 8; None leaves the tag out.
    active_area: (top, left, bottom, right); the whole by default.
    color_matrix: XYZ to camera, 9 numbers; None leaves the tag out.
    black_repeat: rows and columns of the black level's pattern; by default
        the CFA's if there are as many levels, else (1, 1).
    extratags: more tags, in tifffile's form.
    frames: how many times the samples are written, a page each.
    """
    path = Path(path)
    tags: list[ExtraTag] = [
        (50706, BYTE, 4, (1, 4, 0, 0), True),
        (50707, BYTE, 4, (1, 1, 0, 0), True),
        (50708, ASCII, 0, f"{make} {model}", True),
        (271, ASCII, 0, make, True),
        (272, ASCII, 0, model, True),
        (50717, LONG, 1, white, True),
        (50728, RATIONAL, 3, (1, 2, 1, 1, 2, 3), True),
        (50778, SHORT, 1, 21, True),
        *_black_tags(black, cfa, black_repeat),
        *extratags,
    ]
    if orientation is not None:
        tags.append((274, SHORT, 1, orientation, True))
    if active_area is not None:
        tags.append((50829, LONG, 4, active_area, True))
    if color_matrix is not None:
        numbers = [n for value in color_matrix for n in (round(value * 10000), 10000)]
        tags.append((50721, SRATIONAL, 9, tuple(numbers), True))
    mono = cfa == ("G",)
    photometric = LINEAR_RAW
    if mono:
        # tifffile insists on three samples for LinearRaw; overwritten below.
        photometric = MIN_IS_BLACK
    elif cfa:
        photometric = CFA
        pattern = bytes("RGBCMYW".index(letter) for row in cfa for letter in row)
        tags += [
            (33421, SHORT, 2, (len(cfa), len(cfa[0])), True),
            (33422, BYTE, len(pattern), pattern, True),
            (50710, BYTE, len(set(pattern)), bytes(sorted(set(pattern))), True),
        ]
    with tifffile.TiffWriter(path, byteorder=byteorder) as writer:
        for _ in range(frames):
            writer.write(
                np.ascontiguousarray(samples),
                photometric=photometric,
                planarconfig=1 if samples.ndim == 3 else None,
                metadata=None,
                software=False,
                extratags=tags,
            )
    if mono:
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages.first.tags[262].overwrite(LINEAR_RAW)
    return path


def _black_tags(
    black: Levels, cfa: tuple[str, ...], repeat: tuple[int, int] | None
) -> list[ExtraTag]:
    levels = list(black) if isinstance(black, Sequence) else [black]
    if repeat is None:
        period = (len(cfa), len(cfa[0])) if cfa else (1, 1)
        repeat = period if len(levels) == period[0] * period[1] else (1, 1)
    if all(isinstance(level, int) for level in levels):
        kind, value = LONG, [int(level) for level in levels]
    else:
        kind = RATIONAL
        fractions = [Fraction(level) for level in levels]
        value = [n for f in fractions for n in (f.numerator, f.denominator)]
    return [
        (50713, SHORT, 2, repeat, True),
        (50714, kind, len(levels), tuple(value) if len(value) > 1 else value[0], True),
    ]
