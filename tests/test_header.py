"""Header and colour tags: round trips, limits, and one form for each content."""

from __future__ import annotations

import contextlib
import dataclasses
import lzma
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawcodec.errors import CorruptSidecarError
from rawcodec.sensor import Sensor
from rawcodec.stream.header import NAME_LIMIT, QUALITIES, SITE_LIMIT, SITES_A_PIXEL, Header
from rawcodec.stream.tags import SIZE_LIMIT, TYPE_SIZES, Tag, pack_tags, unpack_tags

BAYER = Sensor(6000, 4000, ("RG", "GB"), (512, 512, 512, 512), 16383, 1)
LARGE = Sensor(32768, 16384, ("RG", "GB"), (512, 512, 512, 512), 16383, 1)
HEADER = Header(
    sensor=BAYER,
    raw_width=6024,
    raw_height=4024,
    left=12,
    top=16,
    jpeg_width=6000,
    jpeg_height=4000,
    jpeg_digest=bytes(range(16)),
    jpeg_stream_digest=bytes(range(16, 24)),
    mosaic_digest=bytes(range(32, 48)),
    quality="tone",
    psnr_db=48.125,
    max_error=511,
    writer="rawcodec 0.1.0",
    camera_make="Canon",
    camera_model="Canon EOS R6",
)
CFA_OFFSET = 82
BLACK_OFFSET = CFA_OFFSET + 6
MODEL_OFFSET = BLACK_OFFSET + 3

u16 = st.integers(1, 0xFFFF)


@st.composite
def sensors(draw: st.DrawFn) -> Sensor:
    rows, columns = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    row = st.text("RGB", min_size=columns, max_size=columns)
    cfa = tuple(draw(st.just([]) | st.lists(row, min_size=rows, max_size=rows)))
    white = draw(u16)
    cells = rows * columns if cfa else 3
    level = st.integers(0, white - 1)
    equal = level.map(lambda x: [x] * cells)
    black = tuple(draw(equal | st.lists(level, min_size=cells, max_size=cells)))
    width = draw(u16)
    height = draw(st.integers(1, min(SITE_LIMIT // width, 0xFFFF)))
    return Sensor(width, height, cfa, black, white, draw(st.integers(1, 8)))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    sensor = draw(sensors())
    raw_width = draw(st.integers(sensor.width, 0xFFFF))
    raw_height = draw(st.integers(sensor.height, 0xFFFF))
    pixels = -(-sensor.width * sensor.height // SITES_A_PIXEL)
    jpeg_width = draw(st.integers(-(-pixels // 0xFFFF), 0xFFFF))
    jpeg_height = draw(st.integers(-(-pixels // jpeg_width), 0xFFFF))
    model = draw(st.just("") | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True))
    return Header(
        sensor=sensor,
        raw_width=raw_width,
        raw_height=raw_height,
        left=draw(st.integers(0, raw_width - sensor.width)),
        top=draw(st.integers(0, raw_height - sensor.height)),
        jpeg_width=jpeg_width,
        jpeg_height=jpeg_height,
        jpeg_digest=draw(st.binary(min_size=16, max_size=16)),
        jpeg_stream_digest=draw(st.binary(min_size=8, max_size=8)),
        mosaic_digest=draw(st.binary(min_size=16, max_size=16)),
        quality=draw(st.sampled_from([*QUALITIES[1:], "custom"])) if model else "tone",
        psnr_db=draw(st.floats(0, 4294967.294) | st.just(math.inf)),
        max_error=draw(st.integers(0, 0xFFFF)),
        writer=draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=32)),
        model=model,
        model_hash=draw(st.binary(min_size=16, max_size=16)) if model else bytes(16),
        camera_make=draw(st.text(max_size=70)),
        camera_model=draw(st.text(max_size=70)),
    )


@settings(deadline=None, max_examples=200)
@given(headers())
def test_a_header_is_read_back(header: Header) -> None:
    data = header.pack()
    assert Header.unpack(data) == header
    assert Header.unpack(data).pack() == data


def test_the_bytes_of_a_header_are_fixed() -> None:
    assert HEADER.pack().hex() == (
        "7017a00f8817b80f0c0010007017a00fff3fff01fdbb00000100"
        "000102030405060708090a0b0c0d0e0f1011121314151617"
        "202122232425262728292a2b2c2d2e2f00000000000000000000000000000000"
        "020200010102010002"
        "000543616e6f6e0c43616e6f6e20454f532052360e726177636f64656320302e312e30"
    )


@pytest.mark.parametrize("db", [0.0, 48.1251, 0xFFFFFFFE / 1000, math.inf])
def test_psnr_is_kept_to_a_thousandth(db: float) -> None:
    kept = Header.unpack(dataclasses.replace(HEADER, psnr_db=db).pack()).psnr_db
    assert kept == db if math.isinf(db) else abs(kept - db) <= 0.0005


def test_camera_names_are_cut_at_a_character_and_lose_control_characters() -> None:
    header = dataclasses.replace(HEADER, camera_make="a\x00b\n\x85", camera_model="x" + "é" * 40)
    assert header.camera_make == "ab"
    assert header.camera_model == "x" + "é" * 31
    assert len(header.camera_model.encode()) == NAME_LIMIT - 1
    assert dataclasses.replace(HEADER, camera_make="\ud800").camera_make == "?"


def test_equal_black_levels_take_one_entry() -> None:
    uneven = dataclasses.replace(BAYER, black=(512, 511, 513, 512))
    assert len(dataclasses.replace(HEADER, sensor=uneven).pack()) == len(HEADER.pack()) + 6


def test_a_header_cut_at_any_byte_or_longer_is_refused() -> None:
    data = HEADER.pack()
    for altered in [*(data[:size] for size in range(len(data))), data + b"\x00"]:
        with pytest.raises(CorruptSidecarError, match="copy the sidecar again"):
            Header.unpack(altered)


def test_a_flipped_bit_is_refused_or_gives_another_header() -> None:
    data = HEADER.pack()
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            header = Header.unpack(bytes(altered))
        except CorruptSidecarError as error:
            assert "\n" not in str(error)
        else:
            assert header.pack() == bytes(altered)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120))
def test_garbage_is_refused_as_a_header(garbage: bytes) -> None:
    with contextlib.suppress(CorruptSidecarError):
        assert Header.unpack(garbage).pack() == garbage


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (0, struct.pack("<H", 0), "width 0 is not in"),
        (4, struct.pack("<H", 6011), "visible width 6000 at 12 is outside the raw's 6011"),
        (10, struct.pack("<H", 25), "visible height 4000 at 25 is outside the raw's 4024"),
        (12, struct.pack("<H", 0), "JPEG width 0"),
        (16, struct.pack("<H", 512), "black level 512 is not in 0..511"),
        (24, b"\x00", "orientation 0"),
        (24, b"\x09", "orientation 9"),
        (25, b"\x06", "quality 6 is unknown"),
        (25, b"\x02", "quality medium does not fit the model ''"),
        (66, b"\x01", "model hash without a model"),
        (CFA_OFFSET, b"\x00", "CFA of 0 x 2"),
        (CFA_OFFSET, b"\x09", "CFA of 9 x 2"),
        (CFA_OFFSET + 2, b"\x03", "colour 3 is unknown"),
        (BLACK_OFFSET, b"\x02", "2 black levels do not fit 4 cells"),
        (MODEL_OFFSET + 2, b"\x01", "canonical"),
        (MODEL_OFFSET + 2, b"\xff", "not UTF-8"),
    ],
)
def test_each_field_out_of_range_has_its_error(
    offset: int, replacement: bytes, message: str
) -> None:
    data = HEADER.pack()
    altered = data[:offset] + replacement + data[offset + len(replacement) :]
    with pytest.raises(CorruptSidecarError, match=message):
        Header.unpack(altered)


def test_a_quality_and_a_model_come_together() -> None:
    learned = dataclasses.replace(
        HEADER, quality="medium", model="latent-0", model_hash=bytes(range(16))
    )
    data = learned.pack()
    assert Header.unpack(data) == learned
    with pytest.raises(CorruptSidecarError, match="quality tone does not fit the model 'latent-0'"):
        Header.unpack(data[:25] + b"\0" + data[26:])


def test_as_many_sites_as_the_limit_are_read_and_one_row_more_is_refused() -> None:
    large = dataclasses.replace(
        HEADER, sensor=LARGE, raw_width=32768, raw_height=16385, left=0, top=0
    )
    data = large.pack()
    assert LARGE.width * LARGE.height == SITE_LIMIT
    assert Header.unpack(data).sensor == LARGE
    more = data[:2] + struct.pack("<H", 16385) + data[4:]
    with pytest.raises(CorruptSidecarError, match="32768x16385 are more than 536870912"):
        Header.unpack(more)


def test_equal_black_levels_written_out_are_refused() -> None:
    data = HEADER.pack()
    long = data[:BLACK_OFFSET] + struct.pack("<B4H", 4, *[512] * 4) + data[MODEL_OFFSET:]
    with pytest.raises(CorruptSidecarError, match="canonical"):
        Header.unpack(long)


@pytest.mark.parametrize(
    "change",
    [
        {"sensor": dataclasses.replace(BAYER, width=0)},
        {"sensor": dataclasses.replace(LARGE, height=SITE_LIMIT // LARGE.width + 1)},
        {"sensor": dataclasses.replace(BAYER, black=(512,))},
        {"sensor": dataclasses.replace(BAYER, black=(512, 512, 512, 16383))},
        {"sensor": dataclasses.replace(BAYER, white=65536)},
        {"sensor": dataclasses.replace(BAYER, cfa=("RG", "G"))},
        {"sensor": dataclasses.replace(BAYER, cfa=("RG", "GE"))},
        {"sensor": dataclasses.replace(BAYER, cfa=("RGGBRGGBR",))},
        {"left": 25},
        {"top": -1},
        {"jpeg_height": 65536},
        {"jpeg_width": 6, "jpeg_height": 4, "sensor": dataclasses.replace(BAYER, width=3841)},
        {"jpeg_digest": b""},
        {"quality": "best"},
        {"quality": "medium"},
        {"quality": "tone", "model": "latent-0"},
        {"psnr_db": math.nan},
        {"psnr_db": -1.0},
        {"psnr_db": 0xFFFFFFFF / 1000},
        {"max_error": 65536},
        {"quality": "medium", "model": "../weights"},
        {"quality": "medium", "model": "m" * 65},
        {"model_hash": bytes(15) + b"\x01"},
        {"writer": "rawcodec\n"},
        {"writer": "w" * 33},
    ],
)
def test_a_header_that_cannot_be_stored_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(HEADER, **change)  # type: ignore[arg-type]


@st.composite
def tag_tuples(draw: st.DrawFn) -> tuple[Tag, ...]:
    tags = []
    for number in sorted(draw(st.sets(st.integers(0, 0xFFFF), max_size=6))):
        tiff_type = draw(st.sampled_from(sorted(TYPE_SIZES)))
        count = draw(st.integers(0, 12))
        size = count * TYPE_SIZES[tiff_type]
        value = draw(st.binary(min_size=size, max_size=size) | st.just(bytes(size)))
        tags.append((number, tiff_type, count, value))
    return tuple(tags)


@settings(deadline=None, max_examples=100)
@given(tag_tuples())
def test_tags_are_read_back(tags: tuple[Tag, ...]) -> None:
    assert unpack_tags(pack_tags(tags)) == tags


def test_tags_are_compressed_only_where_that_is_smaller() -> None:
    matrix = (50721, 10, 9, bytes(72))
    assert pack_tags([matrix])[0] == 1
    assert len(pack_tags([matrix])) < 80
    short = (50778, 3, 1, b"\x15\x00")
    assert pack_tags([short]) == bytes.fromhex("00 5ac6 0300 01000000 1500")


def test_long_tables_are_compressed_well() -> None:
    """A map of gains, as opcodes have it: twice in two, and smooth."""
    gains = 2 * (np.rint(1024 * np.linspace(1, 2, 400) ** 2) / 1024).astype(">f4").tobytes()
    tags = ((51009, 7, len(gains), gains),)
    data = pack_tags(tags)
    assert data[0] == 2
    assert len(data) < 0.8 * len(zlib.compress(gains, 9))
    assert unpack_tags(data) == tags


def lzma_of(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": SIZE_LIMIT}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def test_cut_tags_are_refused() -> None:
    whole = (50721, 10, 9, bytes(72)), (50778, 3, 1, b"\x15\x00")
    table = (51009, 7, 1200, np.arange(300, dtype=">u4").tobytes())
    assert [pack_tags(each)[0] for each in (whole, [whole[1]], [table])] == [1, 0, 2]
    for data in (pack_tags(whole), pack_tags([whole[1]]), pack_tags([table])):
        for size in range(len(data)):
            if data[0] == 0 and size == 1:
                continue  # no tags at all
            with pytest.raises(CorruptSidecarError, match="copy the sidecar again"):
                unpack_tags(data[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "compression flag"),
        (b"\x03", "compression flag"),
        (b"\x02not compressed", "no LZMA stream"),
        (b"\x02" + lzma_of(b"") + b"\x00", "one whole LZMA stream"),
        (b"\x02" + lzma_of(bytes(SIZE_LIMIT + 1)), "more than 65536"),
        (b"\x02" + lzma_of(bytes(1 << 24)), "more than 65536"),
        (b"\x01not deflated", "no zlib stream"),
        (b"\x01" + zlib.compress(b"") + b"\x00", "one whole zlib stream"),
        (b"\x01" + zlib.compress(bytes(SIZE_LIMIT + 1)), "more than 65536"),
        (b"\x01" + zlib.compress(bytes(1 << 24)), "more than 65536"),
        (b"\x00" + bytes(SIZE_LIMIT + 1), "more than 65536"),
        (b"\x00" + struct.pack("<HHI", 1, 0, 0), "unknown TIFF type 0"),
        (b"\x00" + struct.pack("<HHI", 1, 13, 0), "unknown TIFF type 13"),
        (b"\x00" + struct.pack("<HHI", 1, 12, 0xFFFFFFFF), "has 0 of 34359738360 bytes"),
        (b"\x00" + struct.pack("<HHI", 1, 1, 0) * 2, "tag 1 after tag 1"),
        (b"\x00\x01", "ends within a record"),
    ],
)
def test_each_fault_of_tags_has_its_error(data: bytes, message: str) -> None:
    with pytest.raises(CorruptSidecarError, match=message):
        unpack_tags(data)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_garbage_is_refused_as_tags(garbage: bytes) -> None:
    try:
        unpack_tags(garbage)
    except CorruptSidecarError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "tags",
    [
        [(2, 1, 1, b"a"), (1, 1, 1, b"a")],
        [(1, 1, 1, b"a"), (1, 1, 1, b"a")],
        [(1, 3, 1, b"a")],
        [(1, 0, 0, b"")],
        [(65536, 1, 1, b"a")],
        [(-1, 1, 1, b"a")],
        [(1, 1, SIZE_LIMIT, bytes(SIZE_LIMIT))],
    ],
)
def test_tags_that_cannot_be_read_cannot_be_written(tags: list[Tag]) -> None:
    with pytest.raises(ValueError):
        pack_tags(tags)
