"""Entropy coding apart: in the paper it takes 6.72 of 8.32 seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import rawcodec
from rawcodec.cores import thread_count
from rawcodec.model.tables import Tables
from rawcodec.stream.entropy import Coder

from .markdown import table
from .pairs import Pair
from .stages import timed

QUALITIES = ("medium", "max")


@dataclass
class Coded:
    """Symbols that were coded, seconds of that, and of all of it."""

    symbols: int
    coding: float
    whole: float

    def row(self) -> list[str]:
        return [
            f"{self.coding:.2f}",
            f"{self.symbols / max(self.coding, 1e-9) / 1e6:.1f}",
            f"{self.coding / self.whole:.0%}",
        ]


def entropy_section(pairs: Sequence[Pair]) -> list[str]:
    """The part of the page about entropy coding, of the largest photo."""
    pair = max(pairs, key=lambda pair: pair.raw.stat().st_size)
    rows = []
    for quality in QUALITIES:
        for threads in dict.fromkeys((1, thread_count())):
            encoded, decoded = measure(pair, quality, threads)
            rows.append(
                [f"`{quality}`", threads, f"{encoded.symbols:,}", *encoded.row(), *decoded.row()]
            )
    return [
        "## Entropy coding apart",
        f"{pair.name} as a mosaic, encoded without verification and decoded. Seconds of coding "
        "contain the look-up of tables; *share* is of all, from reading the files to the samples. "
        "Most latents are zero where the JPEG tells enough, and cost no symbol at all. In the "
        "paper, coding takes 6.72 of 8.32 s, 81%, beside networks on a GPU.",
        table(
            ["quality", "threads:", "symbols:", "encode: coding, s:", "million/s:", "share:",
             "decode: coding, s:", "million/s:", "share:"],
            rows,
        ),
    ]  # fmt: skip


def measure(pair: Pair, quality: str, threads: int) -> tuple[Coded, Coded]:
    """Encode and decode with so many threads."""
    with patch.dict(os.environ, OMP_NUM_THREADS=str(threads)):
        with _coding() as encoded:
            sidecar = rawcodec.encode(pair.raw, pair.jpeg, quality=quality, verify=False)
        with _coding() as decoded:
            rawcodec.decode(pair.jpeg, sidecar)
    return encoded, decoded


@contextmanager
def _coding() -> Iterator[Coded]:
    """What is coded within it."""
    found, seconds = Coded(0, 0.0, 0.0), {"coding": 0.0}
    code = Coder.code

    def counted(self: Coder, symbols: Any, frequencies: Any, index: Any) -> Any:
        found.symbols += len(index)
        return code(self, symbols, frequencies, index)

    begun = time.perf_counter()
    with (
        patch.object(Coder, "code", counted),
        patch.object(Tables, "code", timed(Tables.code, "coding", seconds)),
    ):
        yield found
    found.whole, found.coding = time.perf_counter() - begun, seconds["coding"]
