"""The sidecar file as a sequence of chunks, each guarded by a CRC-32.

The layout is specified in docs/FORMAT.md: a signature and a format version,
chunks of type, length, payload and CRC-32, and a last chunk ``TAIL`` with a
digest of everything before it. This module knows which chunks exist and in
which order they stand, not what is in them. It imports the standard library
only, so that reading a header is quick.

Errors have no file name: whoever opened the file puts it in front.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptSidecarError, VersionError

# A high bit, both line ends and the end-of-file mark of DOS, as in PNG's
# signature: a transfer that treats the file as text changes one of them.
MAGIC: Final = b"\x89RMT\r\n\x1a\n"
FORMAT_VERSION: Final = 1

PREFIX_SIZE: Final = 12
"""Bytes before the first chunk: signature, format version, reserved."""

FRAMING_SIZE: Final = 12
"""Bytes of a chunk besides its payload: type, length, CRC-32."""

TAIL_SIZE: Final = 20
"""Bytes of the chunk ``TAIL``, framing included."""

SIZE_LIMIT: Final = 1 << 30
"""The largest file in bytes."""

COUNT_LIMIT: Final = 256
"""The largest number of chunks in a file, ``TAIL`` included."""

KNOWN: Final = ("HEAD", "ALGN", "TONE", "LATN", "tags")
"""The chunks of this format version in their order, without ``TAIL``."""

REQUIRED: Final = ("HEAD", "ALGN", "TONE")

_TAIL: Final = "TAIL"
PREFIX = struct.Struct("<8sHH")
_LENGTH = struct.Struct("<4sI")
_CRC = struct.Struct("<I")
_DIGEST_SIZE: Final = TAIL_SIZE - FRAMING_SIZE
_COPY_AGAIN: Final = "copy the sidecar again"


@dataclass(frozen=True)
class Chunk:
    """One chunk: a type of four ASCII letters, and its payload.

    A type whose first letter is upper-case is critical: a reader that does not
    know it cannot decode the file. Others are ancillary and may be skipped.
    A type of another form raises ValueError.
    """

    type: str
    payload: bytes

    def __post_init__(self) -> None:
        if not _is_type(self.type):
            raise ValueError(f"a chunk's type is four ASCII letters, not {self.type!r}")

    @property
    def critical(self) -> bool:
        """True if a reader must know this type to decode the file."""
        return self.type[0].isupper()

    @property
    def size(self) -> int:
        """Bytes that the chunk takes in the file, framing included."""
        return FRAMING_SIZE + len(self.payload)


def write(chunks: Iterable[Chunk]) -> bytes:
    """The file with these chunks, in the order given; ``TAIL`` is added.

    ``PREFIX_SIZE`` + the chunks' sizes + ``TAIL_SIZE`` is its length. Raises
    ValueError for chunks that ``read`` would refuse.
    """
    listed = list(chunks)
    types = [chunk.type for chunk in listed]
    unknown = _unknown_critical(types)
    if unknown:
        raise ValueError(f"the chunk {unknown} is not part of format version {FORMAT_VERSION}")
    fault = _order_fault(types)
    if fault:
        raise ValueError(fault)
    size = PREFIX_SIZE + sum(chunk.size for chunk in listed) + TAIL_SIZE
    if size > SIZE_LIMIT:
        raise ValueError(f"the file would have {size} bytes; the limit is {SIZE_LIMIT}")

    body = b"".join([PREFIX.pack(MAGIC, FORMAT_VERSION, 0), *(framed(chunk) for chunk in listed)])
    return body + framed(tail(body))


def tail(body: bytes) -> Chunk:
    """The last chunk of a file, behind all others."""
    return Chunk(_TAIL, _digest(body))


def read(data: bytes) -> list[Chunk]:
    """The chunks of a file in their order, unknown ancillary ones too, without ``TAIL``.

    Every byte has been checked when this returns: the chunks of ``REQUIRED``
    are there, each chunk of ``KNOWN`` at most once and in order.

    Raises CorruptSidecarError if the file is not a sidecar, is truncated or
    altered, and VersionError if it was written by a newer format.
    """
    _check_prefix(data)
    chunks: list[Chunk] = []
    position = PREFIX_SIZE
    while True:
        chunk = _chunk_at(data, position)
        if chunk.type == _TAIL:
            break
        chunks.append(chunk)
        if len(chunks) >= COUNT_LIMIT:
            raise CorruptSidecarError(f"more than {COUNT_LIMIT} chunks; {_COPY_AGAIN}")
        position += chunk.size

    if chunk.payload != _digest(memoryview(data)[:position]):
        raise CorruptSidecarError(
            f"damaged: the digest in the chunk TAIL does not match; {_COPY_AGAIN}"
        )
    left_over = len(data) - position - chunk.size
    if left_over:
        raise CorruptSidecarError(
            f"not a clean sidecar: {left_over} bytes follow its end; {_COPY_AGAIN}"
        )

    types = [chunk.type for chunk in chunks]
    unknown = _unknown_critical(types)
    if unknown:
        raise VersionError(f"needs the unknown layer {unknown}; install a newer rawcodec")
    fault = _order_fault(types)
    if fault:
        raise CorruptSidecarError(f"damaged: {fault}; {_COPY_AGAIN}")
    return chunks


def _is_type(text: str) -> bool:
    return len(text) == 4 and text.isascii() and text.isalpha()


def _digest(data: bytes | memoryview) -> bytes:
    # Not a CRC: the CRC-32 of bytes that end with their own CRC-32 depends on
    # their length only, so a CRC over whole chunks would not notice a chunk
    # that was replaced by another valid one.
    return hashlib.sha256(data).digest()[:_DIGEST_SIZE]


def framed(chunk: Chunk) -> bytes:
    """A chunk as it stands in a file."""
    body = _LENGTH.pack(chunk.type.encode("ascii"), len(chunk.payload)) + chunk.payload
    return body + _CRC.pack(zlib.crc32(body))


def _check_prefix(data: bytes) -> None:
    if len(data) > SIZE_LIMIT:
        raise CorruptSidecarError(
            f"{len(data)} bytes are more than a sidecar may have; check the file's name"
        )
    if not data:
        raise CorruptSidecarError(f"the file is empty; {_COPY_AGAIN}")
    signature = data[: len(MAGIC)]
    if signature != MAGIC[: len(signature)]:
        # What is left of the signature after a text-mode or seven-bit transfer.
        if data[1:4] == MAGIC[1:4]:
            raise CorruptSidecarError(
                f"altered: the signature is damaged, as by a text-mode transfer; {_COPY_AGAIN}"
            )
        raise CorruptSidecarError("not a rawcodec sidecar; check the file's name")
    if len(data) < PREFIX_SIZE:
        raise CorruptSidecarError(
            f"truncated: {len(data)} of the first {PREFIX_SIZE} bytes are there; {_COPY_AGAIN}"
        )
    _, version, reserved = PREFIX.unpack_from(data)
    if version > FORMAT_VERSION:
        raise VersionError(
            f"format version {version} is newer than {FORMAT_VERSION}; install a newer rawcodec"
        )
    if version < 1:
        raise CorruptSidecarError(f"damaged: no format has version {version}; {_COPY_AGAIN}")
    if reserved:
        raise CorruptSidecarError(f"damaged: reserved bytes are not zero; {_COPY_AGAIN}")


def _chunk_at(data: bytes, position: int) -> Chunk:
    """The chunk that starts at this byte, its extent and CRC-32 checked."""
    there = len(data) - position
    if there == 0:
        raise CorruptSidecarError(f"truncated: the chunk TAIL is missing; {_COPY_AGAIN}")
    if there < _LENGTH.size:
        raise CorruptSidecarError(
            f"truncated: {there} of {_LENGTH.size} bytes of a chunk's type and length are "
            f"there; {_COPY_AGAIN}"
        )
    type_bytes, length = _LENGTH.unpack_from(data, position)
    chunk_type = type_bytes.decode("latin-1")
    if not _is_type(chunk_type):
        raise CorruptSidecarError(f"damaged: no chunk starts at byte {position}; {_COPY_AGAIN}")
    size = FRAMING_SIZE + length
    if there < size:
        raise CorruptSidecarError(
            f"truncated: {there} of {size} bytes of the chunk {chunk_type} are there; {_COPY_AGAIN}"
        )
    end = position + size - _CRC.size
    (crc,) = _CRC.unpack_from(data, end)
    if zlib.crc32(memoryview(data)[position:end]) != crc:
        raise CorruptSidecarError(
            f"damaged: the CRC-32 of the chunk {chunk_type} does not match; {_COPY_AGAIN}"
        )
    return Chunk(chunk_type, bytes(data[position + _LENGTH.size : end]))


def _unknown_critical(types: Sequence[str]) -> str | None:
    """The first critical type that this format version does not have."""
    return next((t for t in types if t[0].isupper() and t not in KNOWN), None)


def _order_fault(types: Sequence[str]) -> str | None:
    """What is wrong with the presence, number or order of known chunks, if anything."""
    if len(types) >= COUNT_LIMIT:
        return f"there are more than {COUNT_LIMIT} chunks"
    if not types or types[0] != KNOWN[0]:
        return f"the chunk {KNOWN[0]} is not the first"
    known = [t for t in types if t in KNOWN]
    for chunk_type in KNOWN:
        if known.count(chunk_type) > 1:
            return f"the chunk {chunk_type} occurs more than once"
    for chunk_type in REQUIRED:
        if chunk_type not in known:
            return f"the chunk {chunk_type} is missing"
    if known != sorted(known, key=KNOWN.index):
        return f"the chunks {' '.join(known)} are out of order"
    return None
