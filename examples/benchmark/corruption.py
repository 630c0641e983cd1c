"""What damaged sidecars do to the decoder: docs/results/corruption.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawcodec.selftest.vectors import vectors

from .corrupted import MEMORY
from .markdown import page, table, versions, yes
from .process import CHECKOUT

COMMAND = "python -m examples.benchmark corruption"

SMALL = "xtrans"
"""The sidecar of which every byte is damaged."""

LIMIT = 5.0
"""Seconds that no case may take."""

_AT_ONCE = 500  # cases of a process


@dataclass(frozen=True)
class Damage:
    """Cases of one kind, of one sidecar: what came of each, in order."""

    vector: str
    kind: str
    cases: list[dict[str, Any]]

    @property
    def faults(self) -> list[dict[str, Any]]:
        """Cases in which anything but the project's own errors came out, or that took too long."""
        return [each for each in self.cases if not each["fine"] or each["seconds"] > LIMIT]

    @property
    def slowest(self) -> float:
        return max((float(each["seconds"]) for each in self.cases), default=0.0)


def run_all(out: Path, mutations: int) -> None:
    """Damage the golden sidecars in every way, and write ``corruption.md`` to ``out``."""
    size = next(v.sidecar.stat().st_size for v in vectors() if v.name == SMALL)
    each = -(-mutations // len(vectors()))
    plan = [(SMALL, "flips", size), (SMALL, "truncations", size)]
    plan += [(vector.name, "mutations", each) for vector in vectors()]
    damages = []
    for vector, kind, count in plan:
        print(f"{vector}: {count} {kind}", file=sys.stderr, flush=True)
        damages.append(Damage(vector, kind, list(_cases(vector, kind, count))))
    out.mkdir(parents=True, exist_ok=True)
    (out / "corruption.md").write_text(write(damages), encoding="utf-8")


def _cases(vector: str, kind: str, count: int) -> Iterator[dict[str, Any]]:
    start = 0
    while start < count:
        stop = min(start + _AT_ONCE, count)
        command = [sys.executable, "-m", "examples.benchmark.corrupted", vector, kind]
        done = subprocess.run(
            [*command, str(start), str(stop)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        found = [json.loads(line) for line in done.stdout.splitlines()]
        yield from (each for each in found if "number" in each)
        told = sum("number" in each for each in found)
        start += told
        if start < stop:  # the process ended, or was ended, in a case
            said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
            outcome = f"ENDED THE PROCESS ({done.returncode}): {said[0]}"
            yield {"number": start, "outcome": outcome, "fine": False, "seconds": 0.0}
            start += 1


def write(damages: list[Damage]) -> str:
    """The page."""
    mutations = sum(len(damage.cases) for damage in damages if damage.kind == "mutations")
    faults = [(damage, case) for damage in damages for case in damage.faults]
    total = sum(len(damage.cases) for damage in damages)
    verdict = (
        f"None of {total:,} damaged sidecars did anything but end in one of rawcodec's own errors, "
        "or, where what was damaged does not matter, in the right samples."
        if not faults
        else f"**{len(faults)} of {total:,} damaged sidecars did something else.**"
    )
    outcomes = Counter((d.vector, d.kind, case["outcome"]) for d in damages for case in d.cases)
    return page(
        "# Damaged sidecars",
        "Golden sidecars are damaged and decoded with their JPEGs. *flips*: each byte of the file, "
        "all of its bits; *truncations*: the file cut off at each byte; *mutations*: one to three "
        "changes in the chunks (bits, bytes, extreme numbers, parts left out, doubled, added or "
        "exchanged), whose checksums are then made right, so that the parsers behind them see "
        f"them. A process may take {MEMORY >> 20} MB more than between two photos, and a case "
        f"{LIMIT:.0f} s.",
        f"```\n{COMMAND} --mutations {mutations}\n```",
        versions(),
        verdict,
        table(
            ["sidecar", "damage", "cases:", "slowest, s:", "all fine"],
            [
                [d.vector, d.kind, f"{len(d.cases):,}", f"{d.slowest:.2f}", yes(not d.faults)]
                for d in damages
            ],
        ),
        "## What came of them",
        table(
            ["sidecar", "damage", "outcome", "cases:"],
            [[*key, f"{count:,}"] for key, count in sorted(outcomes.items())],
        ),
        *_listed(faults),
    )


def _listed(faults: list[tuple[Damage, dict[str, Any]]]) -> list[str]:
    if not faults:
        return []
    lines = [
        f"- {damage.vector}, {damage.kind} {case['number']}: {case['outcome']}, "
        f"{case['seconds']:.1f} s"
        for damage, case in faults[:100]
    ]
    return ["## What should not have been", "\n".join(lines)]
