"""The payload of the chunk ``HEAD``: what a sidecar is of, and which files it belongs to.

docs/FORMAT.md specifies the bytes. Imports no numpy, so that reading a header
is quick.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptSidecarError
from ..sensor import Sensor

QUALITIES: Final = ("tone", "low", "medium", "high", "max")

CUSTOM: Final = "custom"
"""What stands for a quality where a size was asked for."""

_ASKED: Final = (*QUALITIES, CUSTOM)

NAME_LIMIT: Final = 64
"""The most bytes of a camera's make or model, and of a model id."""

WRITER_LIMIT: Final = 32
"""The most bytes of the writer's name."""

SITE_LIMIT: Final = 1 << 29
"""The most photosites of the visible mosaic."""

SITES_A_PIXEL: Final = 160
"""The most photosites a pixel of the JPEG: an eighth of the sensor's size, and two fifths of it."""

PERIOD_LIMIT: Final = 8
"""The most rows and columns of a CFA's pattern."""

_COLOURS: Final = "RGB"
_PSNR_INFINITE: Final = 0xFFFFFFFF
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_FIXED = struct.Struct("<10HI2B16s8s16s16s")


@dataclass(frozen=True)
class Header:
    """What the chunk ``HEAD`` says.

    sensor: size, CFA, levels and orientation of the visible mosaic.
    raw_width, raw_height: the whole sensor area, masked borders included.
    left, top: the visible area's first site within it.
    jpeg_width, jpeg_height: the JPEG's size in pixels, as stored.
    jpeg_digest: 16 bytes, the digest of the decoded JPEG's pixels.
    jpeg_stream_digest: 8 bytes, the digest of the JPEG's compressed data
        without its metadata segments. It decides nothing: when the pixels
        differ, it tells another file from another JPEG decoder.
    mosaic_digest: 16 bytes, ``Mosaic.digest`` of the decoded mosaic.
    quality: one of ``QUALITIES``, or ``CUSTOM``; ``tone`` if and only if there is no model.
    psnr_db: of the decoded mosaic against the raw, at least 0; infinite if
        lossless. Kept to 1/1000 dB.
    max_error: largest absolute error in DN.
    writer: the program that wrote the file, such as ``rawcodec 0.1.0``.
    model: id of the weights, letters, digits and ``. _ + -``; empty for none.
    model_hash: 16 bytes, the hash of the weights; zeros if there is no model.
    camera_make, camera_model: as the raw names them; control characters are
        dropped, and what exceeds ``NAME_LIMIT`` bytes of UTF-8 is cut off.

    A value that the format cannot hold raises ValueError.
    """

    sensor: Sensor
    raw_width: int
    raw_height: int
    left: int
    top: int
    jpeg_width: int
    jpeg_height: int
    jpeg_digest: bytes
    jpeg_stream_digest: bytes
    mosaic_digest: bytes
    quality: str
    psnr_db: float
    max_error: int
    writer: str
    model: str = ""
    model_hash: bytes = bytes(16)
    camera_make: str = ""
    camera_model: str = ""

    def __post_init__(self) -> None:
        # Stored values replace given ones, so that a header equals the one
        # that is read back.
        object.__setattr__(self, "camera_make", _storable_name(self.camera_make))
        object.__setattr__(self, "camera_model", _storable_name(self.camera_model))
        object.__setattr__(self, "psnr_db", _psnr_from_code(_psnr_code(self.psnr_db)))
        _check_sensor(self.sensor)
        _check_geometry(self)
        _check_rest(self)

    def pack(self) -> bytes:
        """The payload of the chunk ``HEAD``."""
        sensor = self.sensor
        fixed = _FIXED.pack(
            sensor.width,
            sensor.height,
            self.raw_width,
            self.raw_height,
            self.left,
            self.top,
            self.jpeg_width,
            self.jpeg_height,
            sensor.white,
            self.max_error,
            _psnr_code(self.psnr_db),
            sensor.orientation,
            _ASKED.index(self.quality),
            self.jpeg_digest,
            self.jpeg_stream_digest,
            self.mosaic_digest,
            self.model_hash,
        )
        strings = (self.model, self.camera_make, self.camera_model, self.writer)
        return b"".join(
            [
                fixed,
                _pack_cfa(sensor.cfa),
                _pack_black(sensor.black),
                *(_pack_string(text) for text in strings),
            ]
        )

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """The header in a payload of ``pack``.

        Raises CorruptSidecarError if any field is out of its range, something
        is left over, or ``pack`` would have written other bytes.
        """
        try:
            header = cls._parse(data)
            if header.pack() != data:
                raise ValueError("a field is not in its canonical form")
        except ValueError as error:
            raise CorruptSidecarError(
                f"damaged: in the chunk HEAD, {error}; copy the sidecar again"
            ) from error
        return header

    @classmethod
    def _parse(cls, data: bytes) -> Header:
        reader = _Reader(data)
        (
            width,
            height,
            raw_width,
            raw_height,
            left,
            top,
            jpeg_width,
            jpeg_height,
            white,
            max_error,
            psnr_code,
            orientation,
            quality,
            jpeg_digest,
            jpeg_stream_digest,
            mosaic_digest,
            model_hash,
        ) = _FIXED.unpack(reader.take(_FIXED.size))
        if quality >= len(_ASKED):
            raise ValueError(f"the quality {quality} is unknown")
        cfa = _unpack_cfa(reader)
        black = _unpack_black(reader, _black_count(cfa))
        model, camera_make, camera_model, writer = (reader.string() for _ in range(4))
        reader.finish()
        return cls(
            sensor=Sensor(width, height, cfa, black, white, orientation),
            raw_width=raw_width,
            raw_height=raw_height,
            left=left,
            top=top,
            jpeg_width=jpeg_width,
            jpeg_height=jpeg_height,
            jpeg_digest=jpeg_digest,
            jpeg_stream_digest=jpeg_stream_digest,
            mosaic_digest=mosaic_digest,
            quality=_ASKED[quality],
            psnr_db=_psnr_from_code(psnr_code),
            max_error=max_error,
            writer=writer,
            model=model,
            model_hash=model_hash,
            camera_make=camera_make,
            camera_model=camera_model,
        )


class _Reader:
    """Takes fields off the front of a payload; ValueError when there is too little."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        there = len(self._data) - self._position
        if there < size:
            raise ValueError(f"{there} bytes are left of a field of {size}")
        self._position += size
        return self._data[self._position - size : self._position]

    def byte(self) -> int:
        return self.take(1)[0]

    def string(self) -> str:
        # UnicodeDecodeError is a ValueError with a message of many lines.
        try:
            return self.take(self.byte()).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("a text is not UTF-8") from None

    def finish(self) -> None:
        left_over = len(self._data) - self._position
        if left_over:
            raise ValueError(f"{left_over} bytes are left over")


def _pack_cfa(cfa: tuple[str, ...]) -> bytes:
    columns = len(cfa[0]) if cfa else 0
    return bytes([len(cfa), columns, *(_COLOURS.index(c) for row in cfa for c in row)])


def _unpack_cfa(reader: _Reader) -> tuple[str, ...]:
    rows, columns = reader.byte(), reader.byte()
    if (rows, columns) == (0, 0):
        return ()
    if not (1 <= rows <= PERIOD_LIMIT and 1 <= columns <= PERIOD_LIMIT):
        raise ValueError(f"a CFA of {rows} x {columns} cells is not possible")
    cells = reader.take(rows * columns)
    if max(cells) >= len(_COLOURS):
        raise ValueError(f"the colour {max(cells)} is unknown")
    letters = "".join(_COLOURS[cell] for cell in cells)
    return tuple(letters[i : i + columns] for i in range(0, len(letters), columns))


def _black_count(cfa: tuple[str, ...]) -> int:
    return sum(len(row) for row in cfa) if cfa else len(_COLOURS)


def _pack_black(black: tuple[int, ...]) -> bytes:
    levels = black[:1] if len(set(black)) == 1 else black
    return struct.pack(f"<B{len(levels)}H", len(levels), *levels)


def _unpack_black(reader: _Reader, cells: int) -> tuple[int, ...]:
    count = reader.byte()
    if count not in (1, cells):
        raise ValueError(f"{count} black levels do not fit {cells} cells")
    levels: tuple[int, ...] = struct.unpack(f"<{count}H", reader.take(2 * count))
    return levels * cells if count == 1 else levels


def _pack_string(text: str) -> bytes:
    data = text.encode("utf-8")
    return bytes([len(data)]) + data


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0


def _storable_name(text: str) -> str:
    """The text without control characters, cut to whole characters in NAME_LIMIT bytes."""
    printable = "".join(c for c in text if not _is_control(c))
    # A lone surrogate, which a damaged raw may yield, has no UTF-8.
    return printable.encode("utf-8", "replace")[:NAME_LIMIT].decode("utf-8", "ignore")


def _psnr_code(psnr_db: float) -> int:
    """1/1000 dB, and all ones for infinite."""
    if psnr_db == math.inf:
        return _PSNR_INFINITE
    if not 0 <= psnr_db * 1000 < _PSNR_INFINITE - 0.5:
        raise ValueError(f"a PSNR of {psnr_db} dB is not possible")
    return round(psnr_db * 1000)


def _psnr_from_code(code: int) -> float:
    return math.inf if code == _PSNR_INFINITE else code / 1000


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"the {name} {value} is not in {low}..{high}")


def _check_sensor(sensor: Sensor) -> None:
    _check_range("width", sensor.width, 1, 0xFFFF)
    _check_range("height", sensor.height, 1, 0xFFFF)
    if sensor.width * sensor.height > SITE_LIMIT:
        raise ValueError(f"{sensor.width}x{sensor.height} are more than {SITE_LIMIT} photosites")
    _check_range("white level", sensor.white, 1, 0xFFFF)
    _check_range("orientation", sensor.orientation, 1, 8)
    if sensor.cfa:
        rows, columns = sensor.period
        _check_range("number of CFA rows", rows, 1, PERIOD_LIMIT)
        _check_range("number of CFA columns", columns, 1, PERIOD_LIMIT)
        if any(len(row) != columns or set(row) - set(_COLOURS) for row in sensor.cfa):
            raise ValueError("the CFA is not a rectangle of R, G and B")
    cells = _black_count(sensor.cfa)
    if len(sensor.black) != cells:
        raise ValueError(f"{len(sensor.black)} black levels do not fit {cells} cells")
    for level in sensor.black:
        _check_range("black level", level, 0, sensor.white - 1)


def _check_geometry(header: Header) -> None:
    sensor = header.sensor
    for name, size, whole, start in (
        ("width", sensor.width, header.raw_width, header.left),
        ("height", sensor.height, header.raw_height, header.top),
    ):
        _check_range(f"raw {name}", whole, 1, 0xFFFF)
        if not 0 <= start <= whole - size:
            raise ValueError(f"the visible {name} {size} at {start} is outside the raw's {whole}")
    _check_range("JPEG width", header.jpeg_width, 1, 0xFFFF)
    _check_range("JPEG height", header.jpeg_height, 1, 0xFFFF)
    if sensor.width * sensor.height > SITES_A_PIXEL * header.jpeg_width * header.jpeg_height:
        raise ValueError(
            f"{sensor.width}x{sensor.height} photosites are more than {SITES_A_PIXEL} a pixel of "
            f"the JPEG"
        )


def _check_rest(header: Header) -> None:
    for name, value, size in (
        ("JPEG digest", header.jpeg_digest, 16),
        ("JPEG stream digest", header.jpeg_stream_digest, 8),
        ("mosaic digest", header.mosaic_digest, 16),
        ("model hash", header.model_hash, 16),
    ):
        if len(value) != size:
            raise ValueError(f"the {name} has {len(value)} bytes instead of {size}")
    if header.quality not in _ASKED:
        raise ValueError(f"the quality {header.quality!r} is not one of {', '.join(_ASKED)}")
    if (header.quality == "tone") != (not header.model):
        raise ValueError(f"the quality {header.quality} does not fit the model {header.model!r}")
    _check_range("largest error", header.max_error, 0, 0xFFFF)
    if header.model:
        # The id selects a file of weights: nothing in it may lead elsewhere.
        if len(header.model) > NAME_LIMIT or not _MODEL_ID.fullmatch(header.model):
            raise ValueError(f"the model id {header.model!r} is not possible")
    elif any(header.model_hash):
        raise ValueError("there is a model hash without a model")
    if not (header.writer.isascii() and header.writer.isprintable()):
        raise ValueError(f"the writer {header.writer!r} is not printable ASCII")
    if len(header.writer) > WRITER_LIMIT:
        raise ValueError(f"the writer's name is longer than {WRITER_LIMIT} bytes")
