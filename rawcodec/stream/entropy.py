"""Entropy coding: integer tables, one walk over the symbols, three coders.

``Encoder`` writes symbols, ``Decoder`` reads them, ``RateMeter`` sums what
they would take. All three share the walk in ``Coder.code``, so that they
cannot drift apart. The bytes are specified in docs/FORMAT.md, section
"Entropy coding"; the arithmetic is constriction's range coder (64-bit state,
32-bit words, 24-bit probabilities).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import Any, Final

import constriction
import numpy as np
import numpy.typing as npt

from ..errors import CorruptSidecarError

Symbols = npt.NDArray[np.int32]
Given = npt.NDArray[np.integer[Any]]
Tables = npt.NDArray[np.integer[Any]] | Sequence[npt.NDArray[np.integer[Any]]]

TOTAL: Final = 1 << 16
"""The sum of the frequencies of one table."""

SYMBOL_LIMIT: Final = 1 << 24
"""Every symbol is smaller than this in magnitude."""

PART: Final = 1 << 19
"""Symbols that are sorted by table at a time: few enough for the processor's cache."""

# An escaped value v in 1..2^24 - 1 is its number of bits below the leading one,
# 0..23, by this table, and then these bits: an Exp-Golomb code of order 0 with
# its unary part as a table. 2^-(n+1) each, but at least one, and the sum exact.
_ESCAPE_LENGTHS: Final = np.array([32761] + [1 << max(15 - n, 0) for n in range(1, 24)], np.int64)

_SENTINEL: Final = 0x5AA5
_SENTINEL_BITS: Final = 16
_WORD: Final = np.dtype("<u4")

# A full set of tables of one layer fits; a table of 256 entries takes 3 KiB.
_CACHED_TABLES: Final = 4096


class _Table:
    """Frequencies, int64, of the symbols -half..half and of the escape; constriction's model."""

    def __init__(self, frequencies: npt.NDArray[np.int64]) -> None:
        self.frequencies = frequencies
        self.half = (len(frequencies) - 2) // 2

    @cached_property
    def model(self) -> Any:
        return _categorical(self.frequencies.tobytes())


class Coder(ABC):
    """What the three coders share: the walk over tables, groups and escapes."""

    _known: tuple[Tables | None, list[_Table]] = None, []
    """The tables that were checked last, and as they were found to be."""

    def code(
        self,
        symbols: npt.NDArray[np.integer[Any]] | None,
        frequencies: Tables,
        index: npt.NDArray[np.integer[Any]],
    ) -> Symbols:
        """Code one symbol for each entry of ``index`` and return the symbols.

        symbols: (n,) integers, smaller than ``SYMBOL_LIMIT`` in magnitude;
            None for a ``Decoder``.
        frequencies: T tables, as an array (T, K) or as rows of different
            lengths K: positive integers, K even, that sum to ``TOTAL``. The
            first K - 1 entries of a row belong to the symbols from
            -(K - 2) / 2 to (K - 2) / 2, the last to every other symbol. The same
            object call after call is checked once, and must not change.
        index: (n,) integers from 0 to T - 1: the table of each symbol.

        Returns the symbols, int32 of shape (n,). Encoding and decoding take
        the same sequence of calls with the same tables and indices.

        Raises ValueError for arguments that are not as described, and
        CorruptSidecarError (``Decoder`` only) for data that no encoder wrote.
        """
        if frequencies is not self._known[0]:
            self._known = frequencies, _checked_tables(frequencies)
        tables = self._known[1]
        _check_index(index, len(tables))
        given = self._accept(symbols, len(index))
        result = np.empty(len(index), np.int32)
        for part, order, groups in _sorted_parts(index, len(tables)):
            ours = None if given is None else given[part]
            with self._guard():
                self._code_part(ours, tables, order, groups, result[part])
        return result

    def _code_part(
        self,
        given: Given | None,
        tables: list[_Table],
        order: npt.NDArray[np.intp],
        groups: list[tuple[int, int, int]],
        result: Symbols,
    ) -> None:
        """Code up to ``PART`` symbols, table after table, into ``result``: see ``_groups``."""
        counts = [stop - start for _, start, stop in groups]
        half = np.repeat(np.array([tables[table].half for table, _, _ in groups], np.int32), counts)
        ours = entries = None
        if given is not None:
            ours = given[order].astype(np.int32, copy=False)
            entries = np.where(np.abs(ours) <= half, ours + half, 2 * half + 1)
        coded = np.empty(len(order), np.int32)
        for table, start, stop in groups:
            part = None if entries is None else entries[start:stop]
            coded[start:stop] = self._code_table(part, tables[table], stop - start)
        outside = np.flatnonzero(coded > 2 * half)
        coded -= half
        if len(outside):
            outside = outside[np.argsort(order[outside])]
            outliers = None if ours is None else ours[outside]
            coded[outside] = self._code_escaped(outliers, half[outside])
        result[order] = coded

    def _code_escaped(self, given: Symbols | None, halves: Symbols) -> Symbols:
        """Code symbols of magnitude above ``halves``: signs, lengths, then low bits."""
        n = len(halves)
        signs = lengths = rests = None
        if given is not None:
            excess = np.abs(given) - halves
            # frexp is exact for these integers: the bits below the leading one.
            lengths = np.asarray(np.frexp(excess.astype(np.float64))[1] - 1, np.int32)
            rests = excess - (np.int32(1) << lengths)
            signs = (given < 0).astype(np.int32)
        signs = self._code_bits(signs, 1, n)
        lengths = self._code_table(lengths, _Table(_ESCAPE_LENGTHS), n)
        excess = np.int32(1) << lengths
        for length in range(1, len(_ESCAPE_LENGTHS)):
            positions = np.flatnonzero(lengths == length)
            if len(positions):
                rest = None if rests is None else rests[positions]
                excess[positions] += self._code_bits(rest, length, len(positions))
        magnitude = excess + halves
        if np.any(magnitude >= SYMBOL_LIMIT):
            raise _corrupt("holds a symbol that is out of range")
        return np.where(signs == 1, -magnitude, magnitude).astype(np.int32)

    def _guard(self) -> AbstractContextManager[None]:
        """What to code within."""
        return nullcontext()

    @abstractmethod
    def _accept(self, symbols: Given | None, n: int) -> Given | None:
        """The n symbols given, checked; None for a coder that finds them itself."""

    @abstractmethod
    def _code_table(self, entries: Symbols | None, table: _Table, n: int) -> Symbols:
        """Code n entries of one table of frequencies, each from 0 to K - 1."""

    @abstractmethod
    def _code_bits(self, values: Symbols | None, bits: int, n: int) -> Symbols:
        """Code n equally likely integers of 1 to 23 bits."""


class Encoder(Coder):
    """Writes symbols; ``code`` returns the symbols that it is given."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def finish(self) -> bytes:
        """Everything written so far and a closing mark, in little-endian words.

        More symbols may follow; they continue as if this had not been called.
        """
        coder = self._coder.clone()
        coder.encode(np.array([_SENTINEL], np.int32), _uniform(_SENTINEL_BITS))
        words: npt.NDArray[np.uint32] = coder.get_compressed()
        return words.astype(_WORD).tobytes()

    def copy(self) -> Encoder:
        """Another encoder that has written the same."""
        other = Encoder()
        other._coder = self._coder.clone()
        return other

    def become(self, other: Encoder) -> None:
        """Have written what the other has, in the place of what was written here."""
        self._coder = other._coder.clone()

    def _accept(self, symbols: Given | None, n: int) -> Given | None:
        return _checked_symbols(symbols, n)

    def _code_table(self, entries: Symbols | None, table: _Table, n: int) -> Symbols:
        assert entries is not None
        self._coder.encode(entries, table.model)
        return entries

    def _code_bits(self, values: Symbols | None, bits: int, n: int) -> Symbols:
        assert values is not None
        self._coder.encode(values, _uniform(bits))
        return values


class Decoder(Coder):
    """Reads the symbols that an ``Encoder`` wrote; ``code`` takes None for them.

    Bad data gives CorruptSidecarError or wrong symbols, never an endless loop
    or more symbols than asked for. ``finish`` notices wrong symbols with a
    probability of all but 2^-16 at least; a CRC must guard the data itself.
    """

    def __init__(self, data: bytes) -> None:
        if not data or len(data) % _WORD.itemsize:
            raise _corrupt(f"has {len(data)} bytes, which are not whole words")
        words = np.frombuffer(data, _WORD).astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def finish(self) -> None:
        """Check that everything was read and the closing mark follows; call it once, last.

        Raises CorruptSidecarError otherwise.
        """
        with self._guard():
            mark = self._code_bits(None, _SENTINEL_BITS, 1)
        if mark[0] != _SENTINEL or not self._coder.maybe_exhausted():
            raise _corrupt("does not end where it should")

    def _accept(self, symbols: Given | None, n: int) -> Given | None:
        if symbols is not None:
            raise ValueError("a Decoder finds the symbols itself: pass None")
        return None

    def _code_table(self, entries: Symbols | None, table: _Table, n: int) -> Symbols:
        decoded: Symbols = self._coder.decode(table.model, n)
        return decoded

    def _code_bits(self, values: Symbols | None, bits: int, n: int) -> Symbols:
        decoded: Symbols = self._coder.decode(_uniform(bits), n)
        return decoded

    def _guard(self) -> AbstractContextManager[None]:
        return _corrupt_on_failure()


class RateMeter(Coder):
    """Sums what the symbols would take; ``code`` returns the symbols that it is given.

    bits: the ideal size so far, -log2 of each symbol's frequency / ``TOTAL``
        plus the uniform bits of escaped symbols. What ``Encoder.finish``
        returns is longer by its closing mark (16 bits) and less than three
        words of termination and rounding, and by about K / 2^24 of a bit a
        symbol for the conversion to 24-bit probabilities.
    """

    def __init__(self) -> None:
        self.bits = 0.0

    def _accept(self, symbols: Given | None, n: int) -> Given | None:
        return _checked_symbols(symbols, n)

    def _code_table(self, entries: Symbols | None, table: _Table, n: int) -> Symbols:
        assert entries is not None
        counts = np.bincount(entries, minlength=len(table.frequencies))
        self.bits += float(counts @ np.log2(TOTAL / table.frequencies))
        return entries

    def _code_bits(self, values: Symbols | None, bits: int, n: int) -> Symbols:
        assert values is not None
        self.bits += float(bits * n)
        return values


def _checked_symbols(symbols: Given | None, n: int) -> Given:
    """The symbols, (n,) integers; ValueError if they are anything else."""
    if symbols is None:
        raise ValueError("symbols are needed: only a Decoder finds them itself")
    if symbols.shape != (n,) or symbols.dtype.kind not in "iu":
        raise ValueError(f"symbols are not {n} integers")
    if n and (symbols.min() <= -SYMBOL_LIMIT or symbols.max() >= SYMBOL_LIMIT):
        raise ValueError(f"a symbol is not smaller than {SYMBOL_LIMIT} in magnitude")
    return symbols


def _checked_tables(frequencies: Tables) -> list[_Table]:
    """The tables; ValueError if they are no such tables."""
    tables = []
    for row in frequencies:
        if row.ndim != 1 or row.dtype.kind not in "iu":
            raise ValueError("frequencies are not rows of integers")
        if len(row) < 2 or len(row) % 2:
            raise ValueError(f"a table cannot have {len(row)} entries")
        table = np.ascontiguousarray(row, np.int64)
        # The first condition bounds the sum, so that it cannot wrap.
        if np.any((table < 1) | (table > TOTAL)) or table.sum() != TOTAL:
            raise ValueError(f"a table is not positive frequencies that sum to {TOTAL}")
        tables.append(_Table(table))
    return tables


def _check_index(index: npt.NDArray[np.integer[Any]], tables: int) -> None:
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ValueError("index is not a row of integers")
    if len(index) and (index.min() < 0 or index.max() >= tables):
        raise ValueError(f"index is not within {tables} tables")


def _sorted_parts(
    index: npt.NDArray[np.integer[Any]], tables: int
) -> Iterator[tuple[slice, npt.NDArray[np.intp], list[tuple[int, int, int]]]]:
    """Where each part lies, and its ``_groups``; the next are found while one is coded."""
    parts = [slice(start, start + PART) for start in range(0, len(index), PART)]
    if len(parts) < 2:
        for part in parts:
            yield part, *_groups(index, tables)
        return
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(_groups, index[parts[0]], tables)
        for part, following in zip_longest(parts, parts[1:]):
            order, groups = found.result()
            if following is not None:
                found = beside.submit(_groups, index[following], tables)
            yield part, order, groups


def _groups(
    index: npt.NDArray[np.integer[Any]], tables: int
) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]]]:
    """The stable order that sorts ``index``, and the tables in it: (table, start, stop)."""
    # numpy sorts 16-bit integers by radix, several times faster than wider ones.
    narrow = index.astype(np.uint16, copy=False) if tables <= 1 << 16 else index
    order = np.argsort(narrow, kind="stable")
    counts = np.bincount(narrow, minlength=tables)
    used = np.flatnonzero(counts)
    ends = np.cumsum(counts[used]).tolist()
    return order, list(zip(used.tolist(), [0, *ends], ends, strict=False))


@lru_cache(maxsize=_CACHED_TABLES)
def _categorical(table: bytes) -> Any:
    """constriction's model of one table of int64 frequencies.

    With perfect=False it gives entry k of K the cumulative 24-bit probability
    floor(C_k * (2^24 - K) / 2^16) + k, where C_k is the sum of the frequencies
    before k. It computes this in the type of the array. In float64 every step
    is exact (dyadic numbers of at most 41 bits), hence the same everywhere; in
    float32 it would round.
    """
    frequencies = np.frombuffer(table, np.int64)
    return constriction.stream.model.Categorical(
        frequencies.astype(np.float64) / TOTAL, lazy=False, perfect=False
    )


@lru_cache(maxsize=_SENTINEL_BITS + 8)
def _uniform(bits: int) -> Any:
    """constriction's model of 2^bits equal probabilities, exact for 1 to 23 bits."""
    return constriction.stream.model.Uniform(1 << bits)


@contextmanager
def _corrupt_on_failure() -> Iterator[None]:
    """Turn what constriction raises on bad data into CorruptSidecarError."""
    try:
        yield
    except (AssertionError, KeyError, ValueError) as error:
        raise _corrupt("cannot be decoded") from error
    except BaseException as error:
        # A panic of the Rust code arrives as pyo3's PanicException, which is no
        # Exception and cannot be imported; KeyboardInterrupt and the like pass.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise _corrupt("cannot be decoded") from error


def _corrupt(fault: str) -> CorruptSidecarError:
    return CorruptSidecarError(f"damaged: entropy-coded data {fault}; copy the sidecar again")
