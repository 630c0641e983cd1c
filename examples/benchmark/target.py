"""How near ``--bpp`` and ``--max-bytes`` come, and what that costs: docs/results/target.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import rawcodec

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair
from .process import run

COMMAND = "python -m examples.benchmark target"

TARGETS = {0.05: "low", 0.15: "medium", 0.4: "high", 1.0: "max"}
"""Bits per site, and the quality whose plain encoding is near."""

CLOSE = 0.05
SLOW = 1.5


@dataclass(frozen=True)
class Aimed:
    """One encoding that was told its size.

    off: bits per site less those wanted, as a share of these; of ``--max-bytes``, bytes. ratio: of
    its seconds to those of a plain encoding. refused: what was said instead.
    """

    pair: Pair
    option: str
    off: float
    ratio: float
    refused: str = ""


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Encode every pair to every size, each in a process, and write ``target.md``."""
    found = [aimed for pair in pairs for aimed in _measure(pair, scratch)]
    by_bpp = [a for a in found if a.option.startswith("--bpp") and not a.refused]
    at_most = [a for a in found if a.option.startswith("--max-bytes") and not a.refused]
    close = sum(abs(a.off) <= CLOSE for a in by_bpp)
    ratios = [a.ratio for a in by_bpp + at_most]
    text = page(
        "# Encoding to a size",
        "How far sidecars of `--bpp` and `--max-bytes` are off, and how long encoding takes beside "
        "a plain encoding of the same photo in the same run, at the quality named: seconds of the "
        "processors, of whole processes, verification included. `--max-bytes` asks for the bytes "
        "of the bpp in the same row.",
        f"{versions()} Made by `{COMMAND} --data FOLDER --out docs/results`.",
        f"Of {len(by_bpp)} encodings with `--bpp`, {close} are within {CLOSE:.0%}; the farthest is "
        f"{max(abs(a.off) for a in by_bpp):.1%} off. Of {len(at_most)} with `--max-bytes`, "
        f"{sum(a.off <= 0 for a in at_most)} stay within. Time is {median(ratios):.2f} times that "
        f"of a plain encoding, {min(ratios):.2f} to {max(ratios):.2f}; "
        f"{sum(ratio <= SLOW for ratio in ratios)} of {len(ratios)} take at most {SLOW} times as "
        "long.",
        table(
            ["photo", "JPEG by", "option", "off:", "time, ratio:"],
            [
                [
                    a.pair.photo,
                    PROGRAMS[a.pair.program],
                    f"`{a.option}`",
                    a.refused or f"{100 * a.off:+.1f}%",
                    "" if a.refused else f"{a.ratio:.2f}",
                ]
                for a in found
            ],
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "target.md").write_text(text, encoding="utf-8")


def _measure(pair: Pair, scratch: Path) -> list[Aimed]:
    """All sizes of one pair."""
    sidecar = scratch / f"{pair.name}.rmeta"
    program = ["-m", "rawcodec", "encode", "--force", "--device", "cpu", "-o", sidecar]
    found = []
    for bpp, quality in TARGETS.items():
        plain = run([*program, "--quality", quality, pair.raw, pair.jpeg])
        info = rawcodec.inspect(sidecar.read_bytes())
        most = int(bpp * info.width * info.height / 8)
        for option, value, wanted in (("--bpp", bpp, bpp), ("--max-bytes", most, most)):
            name = f"{option} {value}"
            try:
                aimed = run([*program, option, str(value), pair.raw, pair.jpeg])
            except RuntimeError as error:
                reason = str(error).rpartition("failed: ")[2]
                found.append(Aimed(pair, name, 0.0, 0.0, f"refused: {reason}"))
                continue
            info = rawcodec.inspect(sidecar.read_bytes())
            got = info.bpp if option == "--bpp" else info.bytes
            found.append(Aimed(pair, name, got / wanted - 1, aimed.processor / plain.processor))
    return found
