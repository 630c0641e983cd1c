"""Container: what is written is read back, and no altered file is accepted."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawcodec.errors import CorruptSidecarError, RawcodecError, VersionError
from rawcodec.stream import container
from rawcodec.stream.container import Chunk

SMALL = [Chunk("HEAD", b"header"), Chunk("ALGN", b""), Chunk("TONE", b"tone\r\n\x00")]

payloads = st.binary(max_size=40)
ancillary = st.builds(
    Chunk,
    st.from_regex(r"[a-z][A-Za-z]{3}", fullmatch=True).filter(lambda t: t != "tags"),
    payloads,
)


@st.composite
def files(draw: st.DrawFn) -> list[Chunk]:
    """Valid chunks: the known ones in order, ancillary ones anywhere after HEAD."""
    known = [t for t in container.KNOWN if t in container.REQUIRED or draw(st.booleans())]
    chunks = [Chunk(t, draw(payloads)) for t in known]
    for chunk in draw(st.lists(ancillary, max_size=4)):
        chunks.insert(draw(st.integers(1, len(chunks))), chunk)
    return chunks


def framed(chunk_type: bytes, payload: bytes) -> bytes:
    body = chunk_type + struct.pack("<I", len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def file_of(*chunks: tuple[str, bytes], version: int = 1, reserved: int = 0) -> bytes:
    """A file with valid checks whatever its chunks are, as no writer would make."""
    body = container.MAGIC + struct.pack("<HH", version, reserved)
    body += b"".join(framed(t.encode("latin-1"), p) for t, p in chunks)
    return body + framed(b"TAIL", container._digest(body))


@settings(deadline=None, max_examples=100)
@given(files())
def test_chunks_are_read_back_with_unknown_ancillary_ones(chunks: list[Chunk]) -> None:
    data = container.write(chunks)
    assert container.read(data) == chunks
    assert len(data) == (
        container.PREFIX_SIZE + sum(chunk.size for chunk in chunks) + container.TAIL_SIZE
    )


def test_the_bytes_of_the_smallest_file_are_fixed() -> None:
    data = container.write([Chunk("HEAD", b""), Chunk("ALGN", b""), Chunk("TONE", b"")])
    assert data.hex(" ", 4) == (
        "89524d54 0d0a1a0a 01000000 "
        "48454144 00000000 af7b1ee0 "
        "414c474e 00000000 ebde20f6 "
        "544f4e45 00000000 e09b4ca3 "
        "5441494c 08000000 4bd1a241 9d489c14 00da8ef3"
    )


def test_a_file_cut_at_any_byte_is_refused() -> None:
    data = container.write(SMALL)
    for size in range(len(data)):
        with pytest.raises(CorruptSidecarError):
            container.read(data[:size])


def test_any_flipped_bit_is_noticed() -> None:
    data = container.write([*SMALL, Chunk("note", b"kept")])
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptSidecarError, VersionError)):
            container.read(bytes(altered))


def test_a_valid_chunk_of_another_file_is_noticed() -> None:
    data = container.write(SMALL)
    other = container.write([*SMALL[:2], Chunk("TONE", b"TONE\r\n\x01")])
    tail = container.TAIL_SIZE
    with pytest.raises(CorruptSidecarError, match="digest"):
        container.read(other[:-tail] + data[-tail:])


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.booleans())
def test_garbage_is_refused(garbage: bytes, signed: bool) -> None:
    prefix = container.MAGIC + b"\x01\x00\x00\x00" if signed else b""
    with pytest.raises(RawcodecError) as caught:
        container.read(prefix + garbage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", CorruptSidecarError, "empty"),
        (b"\xff\xd8\xff\xe0 a JPEG", CorruptSidecarError, "not a rawcodec sidecar"),
        (b"\x89RMT\n\x1a\n", CorruptSidecarError, "text-mode"),
        (b"\x09RMT\r\n\x1a\n", CorruptSidecarError, "text-mode"),
        (container.MAGIC, CorruptSidecarError, "truncated: 8 of the first 12 bytes"),
        (file_of(("HEAD", b""), version=2), VersionError, "version 2 is newer than 1"),
        (file_of(("HEAD", b""), version=0), CorruptSidecarError, "version 0"),
        (file_of(("HEAD", b""), reserved=256), CorruptSidecarError, "reserved"),
        (file_of(("HEAD", b""), ("RESD", b"")), VersionError, "unknown layer RESD"),
        (file_of(("HE4D", b"")), CorruptSidecarError, "no chunk starts at byte 12"),
        (file_of(), CorruptSidecarError, "HEAD is not the first"),
        (file_of(("note", b""), ("HEAD", b"")), CorruptSidecarError, "HEAD is not the first"),
        (file_of(("HEAD", b""), ("ALGN", b"")), CorruptSidecarError, "TONE is missing"),
        (
            file_of(("HEAD", b""), ("TONE", b""), ("ALGN", b"")),
            CorruptSidecarError,
            "HEAD TONE ALGN are out of order",
        ),
        (
            file_of(("HEAD", b""), ("ALGN", b""), ("ALGN", b""), ("TONE", b"")),
            CorruptSidecarError,
            "ALGN occurs more than once",
        ),
        (container.write(SMALL) + b"\x00", CorruptSidecarError, "1 bytes follow its end"),
        (
            file_of(("HEAD", b""), *[("note", b"")] * 255),
            CorruptSidecarError,
            "more than 256 chunks",
        ),
        (
            container.write(SMALL)[: 12 + 18 + 12 + 8],
            CorruptSidecarError,
            "truncated: 8 of 19 bytes of the chunk TONE are there; copy the sidecar again",
        ),
    ],
)
def test_each_fault_has_its_error(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        container.read(data)


def test_a_length_beyond_the_file_is_refused_before_it_is_used() -> None:
    data = container.MAGIC + struct.pack("<HH", 1, 0) + b"HEAD" + struct.pack("<I", 0xFFFFFFFF)
    with pytest.raises(CorruptSidecarError, match="truncated: 8 of 4294967307 bytes"):
        container.read(data)


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["ALGN", "HEAD", "TONE"],
        ["HEAD", "ALGN"],
        ["HEAD", "ALGN", "TONE", "TONE"],
        ["HEAD", "ALGN", "TONE", "ABCD"],
        ["HEAD", "ALGN", "TONE", "TAIL"],
        ["HEAD", "ALGN", "tags", "TONE"],
        ["HEAD", "ALGN", "TONE", "tags", "LATN"],
        ["HEAD", "ALGN", "LATN", "TONE"],
        ["HEAD", "ALGN", "TONE", "LATN", "LATN"],
    ],
)
def test_the_writer_refuses_what_the_reader_would(types: list[str]) -> None:
    with pytest.raises(ValueError):
        container.write([Chunk(t, b"") for t in types])


@pytest.mark.parametrize("chunk_type", ["", "ABC", "ABCDE", "AB1D", "ÄBCD"])
def test_a_chunk_type_is_four_letters(chunk_type: str) -> None:
    with pytest.raises(ValueError):
        Chunk(chunk_type, b"")


def test_reading_a_header_loads_no_numpy() -> None:
    code = (
        "import sys, rawcodec.stream.container, rawcodec.stream.header, rawcodec.stream.tags;"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
