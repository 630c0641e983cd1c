"""Raw files to mosaics, through LibRaw."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rawpy

from ..errors import RawError
from ..mosaic import COLOURS, Mosaic
from ..sensor import Sensor
from ..stream.header import SITE_LIMIT
from ..stream.tags import Tag
from . import dngtags
from .bomb import SITES_A_BYTE, is_bomb
from .ifd import Ifd, Tiff, read_tiff
from .jpeg import is_jpeg

# LibRaw's "flip" of each EXIF orientation is "50132467"[orientation & 7]
# (LibRaw, src/metadata/tiff.cpp, tag 274); this is its inverse.
_ORIENTATION_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}

# The longest pattern that LibRaw describes (Leaf's) repeats after 16 sites;
# 48 is a multiple of that and of X-Trans's 6.
_MAX_PERIOD = 16
_WINDOW = 48

# No camera writes a raw so short; LibRaw would take one for a truncated file.
_MIN_BYTES = 1024

_MONOCHROME = ("G",)

_TRUNCATED = "is truncated; copy it from the camera again"
_OTHER_JPEG = "develop it with a raw converter, and name that JPEG"

_RAW_ERRORS = (
    rawpy.LibRawError,
    rawpy.NotSupportedError,
    NotImplementedError,
    RuntimeError,
    OSError,
)


@dataclass(frozen=True)
class RawPhoto:
    """A raw file: its visible mosaic, and where that lies on the whole sensor.

    mosaic: the visible area's samples.
    raw_width, raw_height: size of the stored samples, borders included.
    left, top: first column and row of the visible area in them.
    """

    mosaic: Mosaic
    raw_width: int
    raw_height: int
    left: int
    top: int


@dataclass(frozen=True)
class _Source:
    """A raw file in memory: its name, its bytes, and its directories if it is a TIFF."""

    path: Path
    data: bytes
    tiff: Tiff | None

    def error(self, what: str) -> RawError:
        return RawError(f"{self.path}: {what}")


def read_raw(path: str | Path) -> RawPhoto:
    """Reads the visible samples of a raw and everything that describes them.

    Any raw that LibRaw reads with red, green and blue sites (Bayer, X-Trans and
    other patterns), without a CFA (monochrome), or demosaiced (linear DNG).
    Black levels and colour tags of a DNG come from its own tags, which say
    more than LibRaw passes on; those of other raws come from LibRaw. The
    samples are the file's own values (after the DNG's linearization table, if
    it has one), in an array of their own.

    Make and model are empty where the file is no TIFF (CRW, CR3, RAF, X3F).

    Raises RawError where the file is missing, no raw, truncated, or a raw that
    this codec does not cover.
    """
    source = _load(Path(path))
    with _libraw_errors(source), rawpy.RawPy() as raw:
        _open(raw, source)
        raw.unpack()
        return _photo(source, raw)


def read_size(path: str | Path) -> tuple[int, int, bool]:
    """Width and height of the stored samples of a raw, which are not read; True if it is linear.

    Raises RawError where the file is missing or no raw.
    """
    source = _load(Path(path))
    with _libraw_errors(source), rawpy.RawPy() as raw:
        _open(raw, source)
        linear = raw.raw_pattern is None and raw.num_colors == len(COLOURS)
        return raw.sizes.raw_width, raw.sizes.raw_height, linear


def read_embedded(path: str | Path) -> bytes:
    """The preview that a raw has in it, as the bytes of a JPEG.

    Raises RawError where the file is missing, no raw, or has no preview that is a JPEG.
    """
    source = _load(Path(path))
    with _libraw_errors(source), rawpy.RawPy() as raw:
        raw.open_buffer(io.BytesIO(source.data))
        try:
            preview = raw.extract_thumb()
        except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError) as error:
            raise source.error(f"has no preview in it; {_OTHER_JPEG}") from error
    if not isinstance(preview.data, bytes):  # a bitmap is an array
        raise source.error(f"the preview in it is no JPEG; {_OTHER_JPEG}")
    return preview.data


def _open(raw: rawpy.RawPy, source: _Source) -> None:
    """Reads all but the samples, and refuses a size that they cannot have."""
    raw.open_buffer(io.BytesIO(source.data))
    width, height = raw.sizes.raw_width, raw.sizes.raw_height
    size = len(source.data)
    if width * height > SITE_LIMIT:
        raise source.error(
            f"claims {width}x{height} photosites, more than the limit of {SITE_LIMIT}; "
            "save a part of it as a DNG"
        )
    if is_bomb(width * height, size, SITES_A_BYTE):
        raise source.error(
            f"claims {width}x{height} photosites, which {size} bytes do not hold; copy it from the "
            f"camera again"
        )


@contextmanager
def _libraw_errors(source: _Source) -> Iterator[None]:
    """Says as RawError what LibRaw found wrong with a file."""
    try:
        yield
    except rawpy.LibRawFileUnsupportedError as error:
        if source.tiff is not None and not source.tiff.complete:
            raise source.error(_TRUNCATED) from error
        version = ".".join(map(str, rawpy.libraw_version))
        raise source.error(
            f"is not a raw that LibRaw {version} reads; convert it to an uncompressed DNG first"
        ) from error
    except (rawpy.LibRawIOError, rawpy.LibRawDataError) as error:
        raise source.error("is truncated or damaged; copy it from the camera again") from error
    except _RAW_ERRORS as error:
        raise source.error(
            f"LibRaw cannot read it ({_one_line(error)}); convert it to an uncompressed DNG first"
        ) from error


def _load(path: Path) -> _Source:
    """Reads the file, and refuses what LibRaw would misread or misname."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise RawError(f"{path}: no such file; check the name") from error
    except IsADirectoryError as error:
        raise RawError(f"{path}: is a folder; name a raw file in it") from error
    except OSError as error:
        raise RawError(
            f"{path}: cannot be read ({_one_line(error)}); check its permissions"
        ) from error
    if not data:
        raise RawError(f"{path}: is empty; copy it from the camera again")
    if is_jpeg(data):
        raise RawError(f"{path}: is a JPEG, not a raw; name the raw file of the same photo")
    source = _Source(path, data, read_tiff(data))
    if source.tiff is None:
        if len(data) < _MIN_BYTES:
            raise source.error("is too short, and not a raw; name a raw file")
    else:
        if dngtags.is_truncated(source.tiff, len(data)):
            raise source.error(_TRUNCATED)
        if dngtags.is_floating_point(source.tiff):
            raise source.error("holds floating-point samples; save it as a DNG with integers")
        frames = dngtags.raw_frames(source.tiff)
        if frames > 1:
            raise source.error(
                f"holds {frames} raws, of which LibRaw reads one; save the one that the JPEG "
                "shows as a DNG of its own"
            )
    return source


def _photo(source: _Source, raw: rawpy.RawPy) -> RawPhoto:
    sizes = raw.sizes
    ifd: Ifd = {}
    if source.tiff is not None and dngtags.is_dng(source.tiff):
        ifd = dngtags.raw_ifd(source.tiff, sizes.raw_height, sizes.raw_width)
    area = dngtags.active_area(ifd, sizes.raw_height, sizes.raw_width)
    # LibRaw moves an odd corner of a Bayer sensor's active area to the next
    # even site, but not the patterns that start in it.
    offset = (sizes.top_margin - area[0], sizes.left_margin - area[1])
    cfa = _cfa(source, raw, ifd, offset)
    samples = _samples(raw, linear=not cfa)
    sensor = Sensor(
        width=sizes.width,
        height=sizes.height,
        cfa=cfa,
        black=_black(raw, cfa, ifd, offset),
        white=raw.white_level,
        orientation=_orientation(source.tiff, sizes.flip),
    )
    if samples.shape != sensor.shape or not samples.size:
        raise source.error(
            f"its visible area of {sizes.width}x{sizes.height} is not inside its "
            f"{sizes.raw_width}x{sizes.raw_height} samples; convert it to DNG first"
        )
    if not max(sensor.black) < sensor.white <= 0xFFFF:
        raise source.error(
            f"its white level {sensor.white} is not between its black level "
            f"{max(sensor.black)} and 65535; correct its tags, or convert it to DNG first"
        )
    top, left = sizes.top_margin, sizes.left_margin
    visible = (top, left, top + sizes.height, left + sizes.width)
    make, model = dngtags.camera(source.tiff) if source.tiff is not None else ("", "")
    whole = (0, 0, sizes.raw_height, sizes.raw_width)
    tags = _tags(raw, source.tiff, ifd, visible == area, visible == whole)
    mosaic = Mosaic(samples, sensor, make, model, tags)
    return RawPhoto(mosaic, sizes.raw_width, sizes.raw_height, left, top)


def _samples(raw: rawpy.RawPy, linear: bool) -> np.ndarray:
    """A copy of the visible samples, which LibRaw frees when it closes the file."""
    visible = raw.raw_image_visible
    if visible.ndim == 3:
        # LibRaw's fourth channel is empty where there are fewer colours.
        visible = visible[:, :, :3] if linear else visible[:, :, 0]
    return np.array(visible, dtype=np.uint16, order="C")


def _cfa(source: _Source, raw: rawpy.RawPy, ifd: Ifd, offset: tuple[int, int]) -> tuple[str, ...]:
    """The CFA of the visible area, as in ``Sensor.cfa``."""
    letters = raw.color_desc.decode("ascii", "replace")
    if raw.raw_type != rawpy.RawType.Flat:
        if raw.num_colors == 1:
            return _MONOCHROME
        if raw.num_colors != 3 or letters[:3] != COLOURS:
            raise source.error(
                f"has {raw.num_colors} colours ({letters}) at every site, not red, green and "
                "blue; convert it to a linear RGB DNG first"
            )
        return ()
    channels = _channels(raw)
    if not (channels < len(letters)).all():
        # LibRaw numbers the sites of a sensor without a CFA 6.
        return _MONOCHROME
    cfa = dngtags.cfa_pattern(ifd, offset)
    if cfa is None:
        cfa = tuple("".join(letters[c] for c in row) for row in channels)
    table = np.array([list(row) for row in cfa])
    colours = set(table.ravel().tolist())
    if not colours <= set(COLOURS):
        raise source.error(
            f"its CFA has the colours {''.join(sorted(colours))}, not red, green and blue; "
            "convert it to a linear RGB DNG first"
        )
    pattern = _smallest_tile(table)
    if max(pattern.shape) > _MAX_PERIOD:
        raise source.error(
            f"its CFA does not repeat within {_MAX_PERIOD} sites; convert it to a linear RGB "
            "DNG first"
        )
    return tuple("".join(row) for row in pattern)


def _channels(raw: rawpy.RawPy) -> np.ndarray:
    """LibRaw's channel numbers (0 to 3) of the visible area's first sites.

    Shape (48, 48): every pattern that LibRaw describes repeats in it.
    ``raw_colors_visible`` would compute them for every site of the sensor.
    LibRaw derives a site's channel from its row and column modulo the period,
    so sites that lie beyond the edge of a small raw have one too.
    """
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    side = range(_WINDOW)
    return np.array([[raw.raw_color(top + i, left + j) for j in side] for i in side])


def _smallest_tile(table: np.ndarray) -> np.ndarray:
    """The smallest rectangle whose repetition gives ``table``; itself if none does."""
    rows, columns = _period(table), _period(table.T)
    return table[:rows, :columns]


def _period(table: np.ndarray) -> int:
    """The smallest divisor of the number of rows after which they repeat."""
    for period in range(1, len(table)):
        if len(table) % period == 0 and np.array_equal(table[period:], table[:-period]):
            return period
    return len(table)


def _black(
    raw: rawpy.RawPy, cfa: tuple[str, ...], ifd: Ifd, offset: tuple[int, int]
) -> tuple[int, ...]:
    """Black level of each cell of the CFA, or of R, G, B of a linear raw."""
    period = (len(cfa), len(cfa[0])) if cfa else (1, 1)
    levels = dngtags.black_levels(ifd, period, offset, channels=1 if cfa else 3)
    if levels is not None:
        return levels
    by_channel = [int(level) for level in raw.black_level_per_channel]
    if not cfa:
        return tuple(by_channel[:3])
    if cfa == _MONOCHROME:
        return (by_channel[0],)
    # LibRaw numbers the greens of the two kinds of rows 1 and 3, as they may
    # differ in black level.
    channels = _channels(raw)[: period[0], : period[1]]
    return tuple(by_channel[channel] for channel in channels.flat)


def _tags(
    raw: rawpy.RawPy, tiff: Tiff | None, ifd: Ifd, visible_is_active: bool, visible_is_whole: bool
) -> tuple[Tag, ...]:
    if tiff is not None and dngtags.is_dng(tiff):
        return dngtags.colour_tags(tiff, ifd, visible_is_active, visible_is_whole)
    return dngtags.tags_from_matrix(raw.rgb_xyz_matrix[:3], raw.camera_whitebalance[:3])


def _orientation(tiff: Tiff | None, flip: int) -> int:
    """The raw's own EXIF orientation; LibRaw's where the file has no such tag."""
    own = dngtags.orientation(tiff) if tiff is not None else None
    return own if own is not None else _ORIENTATION_OF_FLIP.get(flip, 1)


def _one_line(error: Exception) -> str:
    """An error's message in one line; LibRaw's come as bytes."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error.args[0] if error.args else type(error).__name__
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return " ".join(text.split())
