"""The image file directories of a TIFF, read as they lie in the file, and written.

Most raws (DNG, NEF, CR2, ARW, ORF, RW2, PEF...) are TIFFs, and so is the EXIF
of a JPEG. What is read here is bytes and types, never an interpretation, so
that a tag can be copied into another file as it is. Damage never raises: a
directory or value that lies outside the file is left out, and
``Tiff.complete`` says that there was none.

Source: TIFF 6.0 Specification, section 2; TIFF/EP (ISO 12234-2) for SubIFDs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..stream.tags import Tag

SUB_IFDS, EXIF_IFD, GPS_IFD = 330, 34665, 34853

BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
UNDEFINED, SRATIONAL, FLOAT, DOUBLE = 7, 10, 11, 12

# TIFF type -> (numpy type of its unit, units a value)
_UNITS = {
    BYTE: ("u1", 1),
    ASCII: ("u1", 1),
    SHORT: ("u2", 1),
    LONG: ("u4", 1),
    RATIONAL: ("u4", 2),
    6: ("i1", 1),
    UNDEFINED: ("u1", 1),
    8: ("i2", 1),
    9: ("i4", 1),
    SRATIONAL: ("i4", 2),
    FLOAT: ("f4", 1),
    DOUBLE: ("f8", 1),
    13: ("u4", 1),
}

# TIFF, Panasonic RW2, and the two marks of Olympus ORF.
_MAGIC = {42, 0x55, 0x4F52, 0x5352}

# Far above any camera's file; they bound the work that a damaged file can ask for.
_MAX_IFDS = 64
_MAX_ENTRIES = 4096


@dataclass(frozen=True)
class Entry:
    """One tag of a directory.

    type: the TIFF type, 1 to 13.
    count: number of values.
    data: the values' bytes, in the byte order of the file.
    order: ``<`` or ``>``.
    """

    type: int
    count: int
    data: memoryview
    order: str

    def little_endian(self) -> bytes:
        """The values' bytes, in little-endian order."""
        unit, _ = _UNITS[self.type]
        return np.frombuffer(self.data, self.order + unit).astype("<" + unit).tobytes()

    def numbers(self) -> np.ndarray:
        """The values as float64, shape (count,); rationals are divided, n/0 is 0."""
        unit, per_value = _UNITS[self.type]
        values = np.frombuffer(self.data, self.order + unit).astype(np.float64)
        if per_value == 1:
            return values
        numerator, denominator = values[0::2], values[1::2]
        zero = denominator == 0
        return np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator))

    def integers(self) -> tuple[int, ...]:
        """The values as integers, cut towards zero."""
        values = self.numbers()
        return tuple(int(value) for value in values[np.isfinite(values)])

    def text(self) -> str:
        """An ASCII value up to its first NUL, printable characters only, stripped."""
        value = bytes(self.data).split(b"\0", 1)[0].decode("utf-8", "ignore")
        return "".join(c for c in value if c.isprintable()).strip()


Ifd = dict[int, Entry]


@dataclass(frozen=True)
class Tiff:
    """The directories of a TIFF.

    ifds: the first directory, then the others and their SubIFDs, in file order.
    complete: False where a directory or a value lies (partly) outside the file.
    exif, gps: the first directory's EXIF and GPS directories, which are not among ``ifds``;
        empty where there is none, or it cannot be read.
    """

    ifds: tuple[Ifd, ...]
    complete: bool
    exif: Ifd
    gps: Ifd

    @property
    def first(self) -> Ifd:
        """The first directory, IFD 0; empty where it could not be read."""
        return self.ifds[0] if self.ifds else {}


def pack_ifd(tags: Iterable[Tag], offset: int) -> bytes:
    """The bytes of a little-endian directory without a successor, its values behind it.

    tags: any order, each once. offset: where in the file the bytes are going to lie; even.
    """
    entries = sorted(tags)
    head = struct.pack("<H", len(entries))
    values = b""
    start = offset + len(head) + 12 * len(entries) + 4
    for tag, kind, count, data in entries:
        if len(data) <= 4:
            held = data.ljust(4, b"\0")
        else:
            held = struct.pack("<I", start + len(values))
            values += data + b"\0" * (len(data) % 2)  # values begin at even offsets
        head += struct.pack("<HHI", tag, kind, count) + held
    return head + bytes(4) + values


def read_tiff(data: bytes) -> Tiff | None:
    """The directories of a TIFF in memory; None where ``data`` is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    magic, offset = struct.unpack_from(order + "HI", data, 2)
    if magic not in _MAGIC:
        return None
    return _walk(memoryview(data), order, offset)


def _walk(data: memoryview, order: str, offset: int) -> Tiff:
    """Reads the directory at ``offset``, its SubIFDs, its successors and theirs."""
    ifds: list[Ifd] = []
    complete = True
    pending = [offset]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_IFDS:
        offset = pending.pop(0)
        if offset in seen:
            continue
        seen.add(offset)
        read = _read_ifd(data, order, offset)
        if read is None:
            complete = False
            continue
        ifd, successor, whole = read
        ifds.append(ifd)
        complete = complete and whole
        if SUB_IFDS in ifd:
            pending += [o for o in ifd[SUB_IFDS].integers()[:_MAX_IFDS] if o]
        if successor:
            pending.append(successor)
    first = ifds[0] if ifds else {}
    exif, gps = (_pointed_to(data, order, first, tag) for tag in (EXIF_IFD, GPS_IFD))
    return Tiff(tuple(ifds), complete, exif, gps)


def _pointed_to(data: memoryview, order: str, ifd: Ifd, tag: int) -> Ifd:
    """The directory whose offset a tag has."""
    offsets = ifd[tag].integers() if tag in ifd else ()
    read = _read_ifd(data, order, offsets[0]) if offsets else None
    return {} if read is None else read[0]


def _read_ifd(data: memoryview, order: str, offset: int) -> tuple[Ifd, int, bool] | None:
    """A directory, the offset of its successor, and whether all its values are there.

    None where the directory itself is not.
    """
    if offset < 8 or offset + 2 > len(data):
        return None
    (entries,) = struct.unpack_from(order + "H", data, offset)
    end = offset + 2 + 12 * entries
    if not 0 < entries <= _MAX_ENTRIES or end > len(data):
        return None
    ifd: Ifd = {}
    whole = True
    for position in range(offset + 2, end, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        if kind not in _UNITS:
            continue
        unit, per_value = _UNITS[kind]
        size = int(unit[1]) * per_value * count
        start = position + 8
        if size > 4:
            (start,) = struct.unpack_from(order + "I", data, start)
        if start + size <= len(data):
            ifd[tag] = Entry(kind, count, data[start : start + size], order)
        else:
            whole = False
    # Some writers end the file right after the last directory.
    successor = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return ifd, successor, whole
