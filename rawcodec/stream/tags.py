"""The payload of the chunk ``tags``: the raw's colour tags.

Tags are (TIFF tag, TIFF type, count, little-endian value bytes), as in
``Mosaic.tags``; docs/FORMAT.md specifies the bytes. Types are those of
TIFF 6.0, section 2.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterable
from typing import Any, Final

from ..errors import CorruptSidecarError

Tag = tuple[int, int, int, bytes]

SIZE_LIMIT: Final = 1 << 16
"""The most bytes that all records together may have, before compression."""

# Bytes of one value of each type: BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE,
# UNDEFINED, SSHORT, SLONG, SRATIONAL, FLOAT, DOUBLE.
TYPE_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}

_RECORD = struct.Struct("<HHI")

RECORD_SIZE: Final = _RECORD.size
"""Bytes of a record before its value."""

_STORED: Final = 0
_DEFLATED: Final = 1
_LZMA: Final = 2

# Long values are opcodes: tables of 32-bit numbers.
_FILTERS: Final = [
    {"id": lzma.FILTER_LZMA2, "dict_size": SIZE_LIMIT, "lc": 0, "lp": 2, "pb": 2, "preset": 9}
]


def pack_tags(tags: Iterable[Tag]) -> bytes:
    """The payload for these tags, compressed in the way that makes it smallest.

    Raises ValueError for tags that ``unpack_tags`` would refuse: not strictly
    increasing, of an unknown type, with a value of another length than its
    type and count say, or with more than ``SIZE_LIMIT`` bytes in all.
    """
    records = bytearray()
    previous = -1
    for tag, tiff_type, count, value in tags:
        fault = _fault(tag, tiff_type, previous)
        if fault:
            raise ValueError(fault)
        if len(value) != count * TYPE_SIZES[tiff_type]:
            raise ValueError(
                f"tag {tag} has {len(value)} bytes, not {count} values of type {tiff_type}"
            )
        records += _RECORD.pack(tag, tiff_type, count) + value
        previous = tag
    if len(records) > SIZE_LIMIT:
        raise ValueError(f"the tags take {len(records)} bytes; the limit is {SIZE_LIMIT}")
    stored = bytes(records)
    bodies = (
        (_STORED, stored),
        (_DEFLATED, zlib.compress(stored, 9)),
        (_LZMA, lzma.compress(stored, lzma.FORMAT_RAW, filters=_FILTERS)),
    )
    flag, body = min(bodies, key=lambda each: len(each[1]))
    return bytes([flag]) + body


def unpack_tags(data: bytes) -> tuple[Tag, ...]:
    """The tags in a payload of ``pack_tags``; CorruptSidecarError if it is none."""
    records = _records(data)
    tags: list[Tag] = []
    position = 0
    previous = -1
    while position < len(records):
        if len(records) - position < _RECORD.size:
            raise _corrupt("ends within a record")
        tag, tiff_type, count = _RECORD.unpack_from(records, position)
        position += _RECORD.size
        fault = _fault(tag, tiff_type, previous)
        if fault:
            raise _corrupt(fault)
        size = count * TYPE_SIZES[tiff_type]
        if size > len(records) - position:
            raise _corrupt(f"has {len(records) - position} of {size} bytes of tag {tag}")
        tags.append((tag, tiff_type, count, records[position : position + size]))
        position += size
        previous = tag
    return tuple(tags)


def _records(data: bytes) -> bytes:
    """The records of a payload, decompressed."""
    flag, body = data[:1], data[1:]
    if flag == bytes([_STORED]):
        if len(body) > SIZE_LIMIT:
            raise _corrupt(f"has more than {SIZE_LIMIT} bytes")
        return body
    inflater: Any  # zlib's class has no public name
    if flag == bytes([_DEFLATED]):
        inflater, kind = zlib.decompressobj(), "zlib"
    elif flag == bytes([_LZMA]):
        inflater, kind = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS), "LZMA"
    else:
        raise _corrupt("has no compression flag of this format")
    try:
        # One byte more than allowed tells too much from just enough.
        records: bytes = inflater.decompress(body, SIZE_LIMIT + 1)
    except (zlib.error, lzma.LZMAError) as error:
        raise _corrupt(f"is no {kind} stream") from error
    if len(records) > SIZE_LIMIT:
        raise _corrupt(f"has more than {SIZE_LIMIT} bytes")
    if not inflater.eof or inflater.unused_data:
        raise _corrupt(f"is not one whole {kind} stream")
    return records


def _fault(tag: int, tiff_type: int, previous: int) -> str | None:
    if not 0 <= tag <= 0xFFFF:
        return f"has the tag {tag}, which is not in 0..65535"
    if tag <= previous:
        return f"has tag {tag} after tag {previous}"
    if tiff_type not in TYPE_SIZES:
        return f"has the unknown TIFF type {tiff_type} in tag {tag}"
    return None


def _corrupt(fault: str) -> CorruptSidecarError:
    return CorruptSidecarError(f"damaged: the chunk tags {fault}; copy the sidecar again")
