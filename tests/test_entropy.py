"""Entropy coding: what is written is read back, in the bytes that are specified."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawcodec.errors import CorruptSidecarError
from rawcodec.stream import entropy
from rawcodec.stream.entropy import SYMBOL_LIMIT, TOTAL, Decoder, Encoder, RateMeter, Tables

Ints = npt.NDArray[np.int64]


def table(*weights: float) -> Ints:
    """Frequencies near these weights."""
    w = np.asarray(weights, np.float64)
    row: Ints = 1 + np.floor(w / w.sum() * (TOTAL - len(w))).astype(np.int64)
    row[np.argmax(row)] += TOTAL - row.sum()
    return row


def bell(entries: int, width: float) -> Ints:
    half = (entries - 2) // 2
    x = np.arange(-half, half + 1)
    return table(*np.exp(-np.abs(x) / width), 1e-3)


# Written out, so that the pinned bytes do not depend on anyone's exponential.
TABLES = np.array(
    [
        [1, 3, 436, 64591, 436, 3, 1, 65],
        [1549, 4209, 11442, 31104, 11442, 4209, 1549, 32],
        [7084, 8653, 10568, 12913, 10568, 8653, 7084, 13],
        [1, 1, 1, 1, 1, 1, 1, 65529],
        [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
    ]
)
LAST = SYMBOL_LIMIT - 1


def encoded(symbols: Ints, tables: Tables, index: npt.NDArray[np.integer[Any]]) -> bytes:
    encoder = Encoder()
    assert np.array_equal(encoder.code(symbols, tables, index), symbols)
    return encoder.finish()


class SpecifiedDecoder:
    """A decoder written from docs/FORMAT.md alone, in integers of Python."""

    def __init__(self, data: bytes, part: int = 2**19) -> None:
        self.part = part
        self.words = list(struct.unpack(f"<{len(data) // 4}I", data))
        self.lower, self.range, self.point = 0, 2**64 - 1, 0
        for _ in range(2):
            self.point = self.point << 32 | self.next_word()

    def next_word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def entry(self, left: Sequence[int]) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        assert quantile < 2**24
        k = bisect.bisect_right(left, quantile) - 1
        self.lower = (self.lower + scale * left[k]) % 2**64
        self.range = scale * (left[k + 1] - left[k])
        if self.range < 2**32:
            self.lower = self.lower << 32 & 2**64 - 1
            self.range <<= 32
            self.point = (self.point << 32 & 2**64 - 1) | self.next_word()
        return k

    def from_table(self, row: Sequence[int]) -> int:
        before = [sum(row[:k]) for k in range(len(row))]
        left = [c * (2**24 - len(row)) // 2**16 + k for k, c in enumerate(before)]
        return self.entry([*left, 2**24])

    def bits(self, n: int) -> int:
        return self.entry([v << 24 - n for v in range(2**n)] + [2**24])

    def code(self, tables: Sequence[Sequence[int]], index: Sequence[int]) -> list[int]:
        symbols: list[int] = []
        for start in range(0, len(index), self.part):
            symbols += self.code_part(tables, index[start : start + self.part])
        return symbols

    def code_part(self, tables: Sequence[Sequence[int]], index: Sequence[int]) -> list[int]:
        halves = [(len(tables[t]) - 2) // 2 for t in index]
        symbols = [0] * len(index)
        for t, row in enumerate(tables):
            for i in [i for i, which in enumerate(index) if which == t]:
                symbols[i] = self.from_table(row) - halves[i]
        escaped = [i for i, symbol in enumerate(symbols) if symbol > halves[i]]
        signs = [self.bits(1) for _ in escaped]
        row = [32761] + [2 ** max(15 - n, 0) for n in range(1, 24)]
        lengths = [self.from_table(row) for _ in escaped]
        for n in range(24):
            for i, sign, length in zip(escaped, signs, lengths, strict=True):
                if length == n:
                    magnitude = halves[i] + 2**n + (self.bits(n) if n else 0)
                    symbols[i] = -magnitude if sign else magnitude
        return symbols


symbol = st.integers(-3, 3) | st.integers(-40, 40) | st.integers(-LAST, LAST)
coded = st.lists(st.tuples(symbol, st.integers(0, len(TABLES) - 1)), max_size=60)


@settings(deadline=None, max_examples=150)
@given(st.lists(coded, max_size=3))
def test_symbols_are_read_back_and_everything_is_consumed(
    calls: list[list[tuple[int, int]]],
) -> None:
    arrays = [np.array(call, np.int64).reshape(-1, 2) for call in calls]
    encoder, meter = Encoder(), RateMeter()
    for a in arrays:
        assert np.array_equal(encoder.code(a[:, 0], TABLES, a[:, 1]), a[:, 0])
        assert np.array_equal(meter.code(a[:, 0], TABLES, a[:, 1]), a[:, 0])
    decoder = Decoder(encoder.finish())
    for a in arrays:
        decoded = decoder.code(None, TABLES, a[:, 1])
        assert decoded.dtype == np.int32
        assert np.array_equal(decoded, a[:, 0])
    decoder.finish()
    assert meter.bits + 16 <= 8 * len(encoder.finish()) + 1 <= meter.bits + 16 + 97


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 4)), max_size=40))
def test_the_specification_alone_decodes(call: list[tuple[int, int]]) -> None:
    a = np.array(call, np.int64).reshape(-1, 2)
    decoder = SpecifiedDecoder(encoded(a[:, 0], TABLES, a[:, 1]))
    assert decoder.code(TABLES.tolist(), a[:, 1].tolist()) == a[:, 0].tolist()
    assert decoder.bits(16) == 0x5AA5


def test_the_specification_alone_decodes_skewed_and_wide_tables() -> None:
    rng = np.random.default_rng(7)
    tables = np.stack([table(*rng.dirichlet(np.full(300, 0.02))) for _ in range(20)])
    index = rng.integers(0, 20, 600)
    symbols = rng.integers(-200, 201, 600)
    decoder = SpecifiedDecoder(encoded(symbols, tables, index))
    assert decoder.code(tables.tolist(), index.tolist()) == symbols.tolist()


RAGGED = [
    np.array([1, TOTAL - 1]),
    bell(4, 0.4),
    np.array([7, 11, TOTAL - 30, 12]).astype(np.uint16),
    bell(16, 2.0),
    bell(512, 60.0),
]


@pytest.mark.parametrize("part", [1, 7, 64, 2**19])
def test_tables_of_different_lengths_are_read_back(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the specification too; in parts of any size, each with escapes of its own."""
    monkeypatch.setattr(entropy, "PART", part)
    rng = np.random.default_rng(8)
    for count in (1, 6, 7, 8, 200):
        index = rng.integers(0, len(RAGGED), count)
        symbols = np.rint(rng.standard_t(2, count) * 10.0 ** rng.integers(-1, 4, count)).astype(int)
        encoder, meter = Encoder(), RateMeter()
        assert np.array_equal(encoder.code(symbols, RAGGED, index), symbols)
        meter.code(symbols, RAGGED, index)
        data = encoder.finish()
        assert abs(8 * len(data) - meter.bits) < 16 + 97
        decoder = Decoder(data)
        assert np.array_equal(decoder.code(None, RAGGED, index), symbols)
        decoder.finish()
        specified = SpecifiedDecoder(data, part)
        rows = [row.tolist() for row in RAGGED]
        assert specified.code(rows, index.tolist()) == symbols.tolist()
        assert specified.bits(16) == 0x5AA5


def test_rows_of_one_length_are_a_table_of_tables() -> None:
    rng = np.random.default_rng(9)
    index, symbols = rng.integers(0, len(TABLES), 300), rng.integers(-9, 10, 300)
    assert encoded(symbols, list(TABLES), index) == encoded(symbols, TABLES, index)


@pytest.mark.parametrize("beyond", [0, 1, 5000])
def test_a_long_call_is_calls_of_half_a_million_symbols(beyond: int) -> None:
    rng = np.random.default_rng(10)
    count = 2**19 + beyond
    index = rng.integers(0, len(RAGGED), count).astype(np.uint16)
    symbols = rng.integers(-3, 4, count)
    data = encoded(symbols, RAGGED, index)
    parts = Encoder()
    for start in range(0, count, 2**19):
        part = slice(start, start + 2**19)
        parts.code(symbols[part], RAGGED, index[part])
    assert parts.finish() == data
    decoder = Decoder(data)
    assert np.array_equal(decoder.code(None, RAGGED, index), symbols)
    decoder.finish()


@pytest.mark.parametrize("beyond", [0, 1])
def test_half_a_million_symbols_are_coded_table_by_table(beyond: int) -> None:
    """And not one more: then it matters in what order those of different tables come."""
    count = 2**19 + beyond
    index = np.arange(count)[::-1] * 7 % 3
    symbols = np.arange(count) * 5 % 11 % 7 - 3
    order = np.argsort(index, kind="stable")
    same = encoded(symbols, TABLES, index) == encoded(symbols[order], TABLES, index[order])
    assert same == (beyond == 0)


def test_the_words_are_fixed() -> None:
    symbols = np.array([0, 1, -1, 2, 3, -3, 4, -4, 5, 900, -900, LAST, -LAST, 0, 0])
    data = encoded(symbols, TABLES, np.arange(15) % len(TABLES))
    assert (
        data.hex(" ", 4)
        == "49feb801 19d57b4f f6ffbcf3 2d25282c e34de206 f0b6bda6 fc5a5008 3af7ff63 0000081d"
    )
    assert Encoder().finish().hex() == "0000a55a"


def test_the_smallest_and_largest_frequencies_are_exact() -> None:
    tables = np.array([[TOTAL // 2] * 2, [1, TOTAL - 1], [TOTAL - 1, 1]])
    symbols = np.array([0, 1, -1, 0, 0, 0, 77, 0, 0, 0, 0, -LAST])
    index = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    data = encoded(symbols, tables, index)
    assert data.hex(" ", 4) == "ffffff5f ff1f00ff bcdb6965 ca1a9389 0028fdcf"
    decoder = Decoder(data)
    assert np.array_equal(decoder.code(None, tables, index), symbols)
    decoder.finish()


def test_the_size_is_the_theoretical_one() -> None:
    rng = np.random.default_rng(1)
    tables = np.stack([bell(64, w) for w in (0.1, 0.5, 2.0, 8.0)])
    index = rng.integers(0, 4, 50_000)
    entries = np.empty(50_000, np.int64)
    for t in range(4):
        chosen = index == t
        entries[chosen] = rng.choice(64, chosen.sum(), p=tables[t] / TOTAL)
    symbols = entries - 31
    meter = RateMeter()
    meter.code(symbols, tables, index)
    size = len(encoded(symbols, tables, index))
    assert abs(size - meter.bits / 8) < 0.001 * meter.bits / 8 + 14


def test_the_meter_adds_minus_log2_of_the_frequencies() -> None:
    meter = RateMeter()
    meter.code(np.array([0, 0]), np.array([[TOTAL // 4, TOTAL * 3 // 4]]), np.array([0, 0]))
    assert meter.bits == 4.0


def test_no_symbols_take_the_closing_mark_only() -> None:
    nothing = np.zeros(0, np.int64)
    data = encoded(nothing, TABLES, nothing)
    assert len(data) == 4
    decoder = Decoder(data)
    assert decoder.code(None, TABLES, nothing).shape == (0,)
    decoder.finish()


def test_finishing_twice_gives_the_same_bytes() -> None:
    encoder = Encoder()
    encoder.code(np.arange(5), TABLES, np.arange(5))
    assert encoder.finish() == encoder.finish()


def test_an_encoder_goes_back_to_what_was_written() -> None:
    rng = np.random.default_rng(4)
    first, wrong, right = (rng.integers(-3, 4, n) for n in (300, 700, 400))

    def code(encoder: Encoder, symbols: np.ndarray) -> None:
        encoder.code(symbols, TABLES, np.zeros(len(symbols), int))

    encoder, plain = Encoder(), Encoder()
    code(encoder, first)
    before = encoder.copy()
    for _ in range(2):
        code(encoder, wrong)
        encoder.become(before)
    code(encoder, right)
    for symbols in (first, right):
        code(plain, symbols)
    assert encoder.finish() == plain.finish()
    assert len(before.finish()) < len(plain.finish())


def test_other_tables_and_a_wrong_number_of_symbols_are_noticed() -> None:
    rng = np.random.default_rng(3)
    index = rng.integers(0, 3, 500)
    symbols = rng.integers(-3, 4, 500)
    data = encoded(symbols, TABLES, index)
    altered = TABLES.copy()
    altered[1, :2] += (1, -1)
    for tables, which in ((altered, index), (TABLES, index[:-1]), (TABLES, np.append(index, 0))):
        decoder = Decoder(data)
        with pytest.raises(CorruptSidecarError, match="copy the sidecar again"):
            decoder.code(None, tables, which)
            decoder.finish()


def test_more_data_than_was_read_is_noticed() -> None:
    index = np.zeros(10, np.int64)
    decoder = Decoder(encoded(index, TABLES, index) + bytes(8))
    decoder.code(None, TABLES, index)
    with pytest.raises(CorruptSidecarError, match="does not end"):
        decoder.finish()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.integers(0, 300))
def test_garbage_gives_symbols_or_an_error(garbage: bytes, n: int) -> None:
    index = np.arange(n) % len(TABLES)
    try:
        decoder = Decoder(garbage)
        symbols = decoder.code(None, TABLES, index)
        assert symbols.shape == (n,)
        assert n == 0 or np.abs(symbols).max() < SYMBOL_LIMIT
        decoder.finish()
    except CorruptSidecarError as error:
        assert "\n" not in str(error)


def test_the_highest_words_are_refused() -> None:
    with pytest.raises(CorruptSidecarError):
        Decoder(b"\xff" * 400).code(None, TABLES, np.full(1000, 4))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5])
def test_data_that_is_not_whole_words_is_refused(size: int) -> None:
    with pytest.raises(CorruptSidecarError, match=f"{size} bytes"):
        Decoder(bytes(size))


def test_an_escaped_symbol_out_of_range_is_refused() -> None:
    # 2^24 - 1 beyond a range of three is more than a symbol may be.
    index = np.zeros(1, np.int64)
    writer = Encoder()
    writer._code_table(np.array([7], np.int32), entropy._Table(TABLES[0]), 1)
    writer._code_bits(np.array([0], np.int32), 1, 1)
    writer._code_table(np.array([23], np.int32), entropy._Table(entropy._ESCAPE_LENGTHS), 1)
    writer._code_bits(np.array([2**23 - 1], np.int32), 23, 1)
    with pytest.raises(CorruptSidecarError, match="out of range"):
        Decoder(writer.finish()).code(None, TABLES, index)


def test_a_panic_is_an_error_and_an_interrupt_passes() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    for raised in (panic("p"), AssertionError(), KeyError("k"), ValueError("v")):
        with pytest.raises(CorruptSidecarError), entropy._corrupt_on_failure():
            raise raised
    with pytest.raises(KeyboardInterrupt), entropy._corrupt_on_failure():
        raise KeyboardInterrupt


ONE = np.zeros(1, np.int64)


@pytest.mark.parametrize(
    ("symbols", "tables", "index"),
    [
        (None, TABLES, ONE),
        (np.array([SYMBOL_LIMIT]), TABLES, ONE),
        (np.array([-SYMBOL_LIMIT]), TABLES, ONE),
        (np.zeros(2, np.int64), TABLES, ONE),
        (np.zeros(1), TABLES, ONE),
        (ONE, TABLES, np.array([len(TABLES)])),
        (ONE, TABLES, np.array([-1])),
        (ONE, TABLES, np.zeros(1)),
        (ONE, TABLES, np.zeros((1, 1), np.int64)),
        (ONE, TABLES + 1, ONE),
        (ONE, TABLES[0], ONE),
        (ONE, TABLES / TOTAL, ONE),
        (ONE, np.array([[TOTAL, 0]]), ONE),
        (ONE, np.array([[1, 1, TOTAL - 2]]), ONE),
        (ONE, np.zeros((1, 0), np.int64), ONE),
        (ONE, np.array([[-1, TOTAL + 1]]), ONE),
        (ONE, [TABLES[0], TABLES[1] / TOTAL], ONE),
        (ONE, [TABLES[0], TABLES[1, :3]], ONE),
        (ONE, [TABLES[0], TABLES[:2]], ONE),
        (ONE, [], ONE),
    ],
)
@pytest.mark.parametrize("coder", [Encoder, RateMeter])
def test_wrong_arguments_are_refused(
    coder: type[Encoder | RateMeter],
    symbols: Ints | None,
    tables: Tables,
    index: Ints,
) -> None:
    with pytest.raises(ValueError):
        coder().code(symbols, tables, index)


@pytest.mark.parametrize("tables", [TABLES, list(TABLES), RAGGED], ids=["array", "rows", "ragged"])
def test_tables_that_come_again_are_those_they_were(tables: Tables) -> None:
    """Whether an object is the same or another that equals it, and whatever came between."""
    rng = np.random.default_rng(11)
    index, symbols = rng.integers(0, len(tables), (12, 50)), rng.integers(-40, 41, (12, 50))
    again, others = ([np.array(row) for row in tables] for _ in range(2))
    beside = [bell(8, 1.0)] * len(tables)
    turns = [tables, tables, tables, beside, tables, again, others, tables, beside, beside, again]
    turns.append(tables)
    encoder, anew = Encoder(), Encoder()
    meter, bits = RateMeter(), 0.0
    for turn, ours, which in zip(turns, symbols, index, strict=True):
        assert np.array_equal(encoder.code(ours, turn, which), ours)
        meter.code(ours, turn, which)
        fresh = RateMeter()
        fresh.code(ours, turn, which)
        bits += fresh.bits
        anew.code(ours, [np.array(row) for row in turn], which)  # never the same object
    assert meter.bits == pytest.approx(bits, rel=1e-12)
    assert encoder.finish() == anew.finish()
    decoder = Decoder(encoder.finish())
    for turn, ours, which in zip(turns, symbols, index, strict=True):
        assert np.array_equal(decoder.code(None, turn, which), ours)
    decoder.finish()


@pytest.mark.parametrize("bad", [TABLES + 1, [TABLES[0], TABLES[1] / TOTAL], [TABLES[0, :3]]])
def test_wrong_tables_are_refused_after_good_ones(bad: Tables) -> None:
    """Every time; and those that were good are so still, with what is given beside them checked."""
    symbols = np.zeros(3, np.int64)
    data = encoded(symbols, TABLES, symbols)
    for coder, ours in ((Encoder(), symbols), (RateMeter(), symbols), (Decoder(data), None)):
        first, rest = (None, None) if ours is None else (ours[:1], ours[1:])
        coder.code(first, TABLES, symbols[:1])
        for _ in range(2):
            with pytest.raises(ValueError, match=r"table|frequencies"):
                coder.code(first, bad, symbols[:1])
        with pytest.raises(ValueError, match="index is not within 5 tables"):
            coder.code(first, TABLES, np.array([len(TABLES)]))
        coder.code(rest, TABLES, symbols[1:])
        if isinstance(coder, Encoder):
            assert coder.finish() == data
        if isinstance(coder, Decoder):
            coder.finish()


def test_a_decoder_takes_no_symbols() -> None:
    with pytest.raises(ValueError, match="pass None"):
        Decoder(bytes(8)).code(ONE, TABLES, ONE)
