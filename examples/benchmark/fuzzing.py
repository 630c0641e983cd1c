"""What a coverage-guided fuzzer finds in the decoder: docs/results/fuzz.md."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .corrupted import MEMORY
from .fuzzed import LIMIT
from .markdown import page, table, versions
from .process import CHECKOUT

COMMAND = "python -m examples.benchmark fuzz"

LIFE = 120
"""Seconds of a process, at most: atheris keeps a part of each input that it changes."""

SEEDS = (CHECKOUT / "tests" / "golden", CHECKOUT / "tests" / "bad")


@dataclass
class Account:
    """What came of all inputs. edges: of rawcodec's code, reached by the seeds and in the end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    edges: list[int] = field(default_factory=list)
    corpus: int = 0
    ended: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())

    @property
    def faults(self) -> int:
        bad = sum(n for name, n in self.outcomes.items() if name.startswith(("ESCAPED", "SLOW")))
        return bad + len(self.ended)


def run_all(out: Path, scratch: Path, found: Path, minutes: float) -> None:
    """Fuzz for so long, and write ``fuzz.md`` to ``out``; inputs that made trouble to ``found``."""
    corpus = scratch / "corpus"
    corpus.mkdir()
    seeds = [path for folder in SEEDS for path in sorted(folder.glob("*.rmeta"))]
    for path in seeds:
        shutil.copy(path, corpus / path.name)
    found.mkdir(parents=True, exist_ok=True)
    account = Account()
    stop = time.monotonic() + 60 * minutes
    while time.monotonic() < stop - 1:
        _fuzz(corpus, found, min(LIFE, int(stop - time.monotonic())), account)
    account.corpus = len(list(corpus.iterdir()))
    out.mkdir(parents=True, exist_ok=True)
    (out / "fuzz.md").write_text(write(account, minutes, len(seeds)), encoding="utf-8")


def _fuzz(corpus: Path, found: Path, seconds: int, account: Account) -> None:
    """One process of the fuzzer, until it ends."""
    told = found / "told.json"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "examples.benchmark.fuzzed", corpus, found, seconds]
    done = subprocess.run(
        list(map(str, command)),
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    (found / "log.txt").write_text(done.stderr)
    account.edges += map(int, re.findall(r"(?:INITED|DONE|NEW|REDUCE) +cov: (\d+)", done.stderr))
    if told.exists():
        said = json.loads(told.read_text())
        account.outcomes.update(said["outcomes"])
        account.slowest = max(account.slowest, said["slowest"])
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        account.ended.append(f"code {done.returncode}: {last[0]}")
        if not told.exists():
            raise RuntimeError(f"the fuzzer does not start: {done.stderr[-2000:]}")


def write(account: Account, minutes: float, seeds: int) -> str:
    """The page."""
    verdict = (
        f"None of {account.inputs:,} inputs did anything but end in one of rawcodec's own errors, "
        "or decode."
        if not account.faults
        else f"**{account.faults} of {account.inputs:,} inputs did something else.**"
    )
    first, last = account.edges[0], max(account.edges)
    return page(
        "# Fuzzed sidecars",
        "A fuzzer (atheris, libFuzzer's engine) that sees which code of rawcodec an input reaches "
        "changes sidecars and keeps what reaches more. It begins with the sidecars in "
        "`tests/golden` and `tests/bad`; it changes a chunk's payload and makes all checksums "
        "right, so that the parsers behind them (header, alignment, tone layer, latents, filters, "
        "tags) see it, and sometimes the file as a whole. Each input is decoded with a golden JPEG "
        f"of the size that it names, in a process that may take {MEMORY >> 20} MB more than "
        f"between two photos, within {LIMIT:.0f} s of the processor.",
        f"```\n{COMMAND} --minutes {minutes:g}\n```",
        f"{versions()} atheris {importlib.metadata.version('atheris')}, one process "
        f"at a time, a new one each {LIFE} s.",
        verdict,
        table(
            ["", "number:"],
            [
                ["inputs", f"{account.inputs:,}"],
                ["inputs a second", f"{account.inputs / (60 * minutes):.1f}"],
                ["slowest, s", f"{account.slowest:.2f}"],
                ["sidecars to begin with", f"{seeds:,}"],
                ["sidecars that reach code of their own, in the end", f"{account.corpus:,}"],
                ["edges of code that the first ones reach", f"{first:,}"],
                ["edges in the end", f"{last:,}"],
            ],
        ),
        "## What came of them",
        table(
            ["outcome", "inputs:"],
            [[name, f"{count:,}"] for name, count in sorted(account.outcomes.items())],
        ),
        *(f"- the process ended by itself, {line}" for line in account.ended),
    )
