"""Decodes sidecars that a coverage-guided fuzzer makes: a program for :mod:`.fuzzing`.

::

    python -m examples.benchmark.fuzzed CORPUS FOUND SECONDS

Needs atheris. CORPUS: a folder with what to begin with, to which it adds what reaches new code.
FOUND: a folder for inputs that did what none should, and for ``told.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# nothing of rawcodec's is imported before main() has its code watched

LIMIT = 5.0
"""Seconds of the processor that no input may take."""

LONGEST = 1 << 16
"""Bytes of an input, at most."""

RENEWED = 100
"""Inputs after which the limit of memory is set anew: what the fuzzer itself keeps grows."""

Mutate = Callable[[bytes, int], bytes]


def changed(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """A sidecar with one thing changed in a payload, checksums right; seldom anywhere in the file.

    mutate: the fuzzer's own, which knows what led on before.
    """
    from rawcodec.errors import RawcodecError
    from rawcodec.stream import container
    from rawcodec.stream.container import Chunk

    from .corrupted import damaged, written

    rng = random.Random(seed)
    try:
        chunks = container.read(data)
    except RawcodecError:
        return mutate(data, longest)
    if rng.random() < 0.02:
        return mutate(data, longest)
    at = rng.randrange(len(chunks))
    payload = chunks[at].payload
    room = max(1, longest - len(data) + len(payload))
    if rng.random() < 0.3:
        payload = bytes(damaged(bytearray(payload), rng))[:room]
    else:
        payload = mutate(payload, room)
    chunks[at] = Chunk(chunks[at].type, payload)
    return written(chunks)


class Watch:
    """Decodes inputs, and keeps account."""

    def __init__(self, found: Path) -> None:
        self._found = found
        self._outcomes: Counter[str] = Counter()
        self._slowest = 0.0
        self._told = time.monotonic()

    def one(self, data: bytes) -> None:
        import rawcodec
        from rawcodec.errors import RawcodecError

        from .corrupted import PATIENCE

        def hung(number: int, frame: object) -> None:
            raise TimeoutError

        signal.signal(signal.SIGALRM, hung)
        signal.alarm(PATIENCE)
        started = time.process_time()  # of the processor, whatever else runs
        said, fine = "", True
        try:
            rawcodec.decode(_jpeg(data), data, device="cpu")
            outcome = "decoded"
        except RawcodecError as error:
            outcome, fine = type(error).__name__, "\n" not in str(error)
        except BaseException as error:  # a panic of Rust's is no Exception
            outcome, fine = f"ESCAPED: {type(error).__name__}", False
            said = traceback.format_exc()
        signal.alarm(0)
        seconds = time.process_time() - started
        if fine and seconds > LIMIT:
            outcome, fine = f"SLOW: {outcome}", False
        self._outcomes[outcome] += 1
        self._slowest = max(self._slowest, seconds)
        if not fine:
            name = hashlib.sha256(data).hexdigest()[:16]
            (self._found / f"{name}.rmeta").write_bytes(data)
            (self._found / f"{name}.txt").write_text(f"{outcome}, {seconds:.1f} s\n{said}")
        if not fine or time.monotonic() > self._told + 1:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        told = {"outcomes": self._outcomes, "slowest": self._slowest}
        part = self._found / "told.part"
        part.write_text(json.dumps(told))
        part.replace(self._found / "told.json")


def _jpeg(data: bytes) -> Path:
    """The golden JPEG that a sidecar was made with, as far as its header can be read."""
    from rawcodec.errors import RawcodecError
    from rawcodec.selftest.vectors import vectors
    from rawcodec.stream import container
    from rawcodec.stream.header import Header

    with contextlib.suppress(RawcodecError):
        header = Header.unpack(container.read(data)[0].payload)
        for vector in vectors():
            if _JPEGS[vector.jpeg].pixels.shape[:2] == (header.jpeg_height, header.jpeg_width):
                return vector.jpeg
    return next(iter(_JPEGS))


_JPEGS: dict[Path, object] = {}


def main() -> None:
    """Fuzzes until the time is over; does not return."""
    import atheris

    corpus, found, seconds = sys.argv[1:]
    with atheris.instrument_imports(include=["rawcodec"]):
        import rawcodec.learned
        import rawcodec.pipeline
        from rawcodec.selftest.vectors import vectors

        from .corrupted import PATIENCE, limit_memory
    import torch

    torch.set_num_threads(1)
    read_jpeg = rawcodec.pipeline.read_jpeg

    def cached(path: Path, accept: Callable[[int, int], None]) -> object:
        jpeg = _JPEGS[path]
        height, width = jpeg.pixels.shape[:2]
        accept(width, height)
        return jpeg

    for vector in vectors():
        _JPEGS[vector.jpeg] = read_jpeg(vector.jpeg)
    rawcodec.pipeline.read_jpeg = cached
    for vector in vectors():  # everything is loaded
        rawcodec.decode(vector.jpeg, vector.sidecar.read_bytes(), device="cpu")
    watch, numbers = Watch(Path(found)), itertools.count()

    def limited(data: bytes) -> None:
        if next(numbers) % RENEWED == 0:
            limit_memory()
        watch.one(data)

    def mutator(data: bytes, longest: int, seed: int) -> bytes:
        return changed(data, longest, seed, atheris.Mutate)

    arguments = [
        *(sys.argv[0], corpus),
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={3 * PATIENCE}",
        f"-artifact_prefix={found}/",
        *("-rss_limit_mb=0", "-print_final_stats=1", "-len_control=0"),
    ]
    atheris.Setup(arguments, limited, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
