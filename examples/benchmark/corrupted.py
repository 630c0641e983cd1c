"""Decodes damaged sidecars under limits: a small program for :mod:`examples.benchmark.corruption`.

::

    python -m examples.benchmark.corrupted xtrans mutations 0 500

Prints a JSON object a case. Each case follows from its number alone.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rawcodec.errors import RawcodecError
from rawcodec.selftest.vectors import vectors
from rawcodec.stream import container
from rawcodec.stream.container import Chunk

MEMORY = 1 << 30
"""Bytes that a case may take beyond what the process has when it begins."""

PATIENCE = 20
"""Seconds until a case is taken for one that never ends."""

EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flipped(data: bytes, number: int) -> bytes:
    """One byte of the file, all of its bits."""
    return data[:number] + bytes([data[number] ^ 0xFF]) + data[number + 1 :]


def truncated(data: bytes, number: int) -> bytes:
    """The file's first bytes."""
    return data[:number]


def mutated(data: bytes, number: int) -> bytes:
    """Payloads damaged in one to three places, their checksums made right."""
    rng = random.Random(number)
    chunks = container.read(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(chunks))
        kind = rng.random()
        if kind < 0.03:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
        elif kind < 0.06 and len(chunks) > 1:
            del chunks[at]
        elif kind < 0.09:
            other = rng.randrange(len(chunks))
            one, two = chunks[at], chunks[other]
            chunks[at] = Chunk(one.type, two.payload)
            chunks[other] = Chunk(two.type, one.payload)
        else:
            payload = damaged(bytearray(chunks[at].payload), rng)
            chunks[at] = Chunk(chunks[at].type, bytes(payload))
    return written(chunks)


def written(chunks: list[Chunk]) -> bytes:
    """What ``container.write`` makes, which refuses chunks in a wrong order."""
    body = container.PREFIX.pack(container.MAGIC, container.FORMAT_VERSION, 0)
    body += b"".join(map(container.framed, chunks))
    return body + container.framed(container.tail(body))


def damaged(payload: bytearray, rng: random.Random) -> bytearray:
    """A payload with one thing wrong."""
    place = rng.randrange(len(payload) + 1)
    # what a payload begins with says the most
    if rng.random() < 0.5:
        place = min(place, rng.randrange(64))
    kind = rng.randrange(7)
    if kind == 0 and place < len(payload):
        payload[place] ^= 1 << rng.randrange(8)
    elif kind == 1 and place < len(payload):
        payload[place] = rng.choice((0, 255, rng.randrange(256)))
    elif kind == 2:
        payload[place : place + 4] = rng.choice(EXTREMES).to_bytes(4, "little")
    elif kind == 3:
        del payload[place : place + rng.choice((1, 2, 4, 16, 1000))]
    elif kind == 4:
        payload[place:place] = payload[place : place + rng.choice((1, 4, 64))]
    elif kind == 5:
        del payload[place:]
    else:
        payload += rng.randbytes(rng.choice((1, 4, 400)))
    return payload


KINDS: dict[str, Callable[[bytes, int], bytes]] = {
    "flips": flipped,
    "truncations": truncated,
    "mutations": mutated,
}


def main() -> None:
    """Decodes the cases, and prints what came of each."""
    parser = argparse.ArgumentParser(prog="python -m examples.benchmark.corrupted")
    parser.add_argument("vector")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("start", type=int)
    parser.add_argument("stop", type=int)
    chosen = parser.parse_args()
    (vector,) = (each for each in vectors() if each.name == chosen.vector)
    good = vector.sidecar.read_bytes()

    import rawcodec

    # everything is loaded, and memory is what it is between two photos
    assert rawcodec.decode(vector.jpeg, good, device="cpu").digest().hex() == vector.digest
    limit_memory()
    for number in range(chosen.start, chosen.stop):
        data = KINDS[chosen.kind](good, number)
        print(json.dumps({"number": number, **_case(vector.jpeg, data, vector.digest)}), flush=True)


def limit_memory() -> None:
    """From here on the process may take ``MEMORY`` more than it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))


def _case(jpeg: Path, data: bytes, digest: str) -> dict[str, Any]:
    import rawcodec

    def hung(number: int, frame: object) -> None:
        print(json.dumps({"outcome": "hung", "fine": False}), flush=True)
        sys.exit(1)

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(PATIENCE)
    started = time.perf_counter()
    try:
        mosaic = rawcodec.decode(jpeg, data, device="cpu")
        fine = mosaic.digest().hex() == digest
        outcome = "decoded to the same samples" if fine else "DECODED TO OTHER SAMPLES"
    except RawcodecError as error:
        outcome, fine = type(error).__name__, "\n" not in str(error)
    except BaseException as error:  # a panic of Rust's is no Exception
        outcome, fine = f"ESCAPED: {type(error).__name__}: {error}", False
    seconds = time.perf_counter() - started
    signal.alarm(0)
    return {"outcome": outcome, "fine": fine, "seconds": seconds}


if __name__ == "__main__":
    main()
