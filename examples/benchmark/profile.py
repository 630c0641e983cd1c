"""The page about where the time goes: docs/results/profile.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rawcodec
from rawcodec.model.config import LAYERS, operations_per_site

from .markdown import page, table, versions
from .pairs import Pair
from .process import Run, run
from .stages import STAGES

COMMAND = "python -m examples.benchmark profile"

QUALITY = "medium"
TIMES = 1
"""Runs of each measurement, of which the median is shown."""

LEARNED = (
    "grids",
    "fit the first filter",
    "analysis",
    "entropy model",
    "context model",
    "choose latents",
    "entropy coding",
    "add the latents",
    "fit the second filter",
    "second filter",
)
"""Stages of the learned layer; the others are the tool around it."""

PAPER = 165.0, 218.0
"""Seconds per megapixel of the paper's released code to compress and to decompress, on a
2-core machine of this kind, from the measurements that this project began with."""


@dataclass(frozen=True)
class Profile:
    """A pair at one quality: seconds of each stage, and whole programs as a user runs them."""

    quality: str
    encode: dict[str, float]
    decode: dict[str, float]
    encode_run: Run
    decode_run: Run


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Measure the largest photo at all qualities and write the page."""
    pair = max(pairs, key=lambda pair: pair.raw.stat().st_size)
    profiles = [_measure(pair, quality, scratch) for quality in ("low", "medium", "high", "max")]
    info = rawcodec.inspect((scratch / "profile.rmeta").read_bytes())
    megapixels = info.width * info.height / 1e6
    out.mkdir(parents=True, exist_ok=True)
    (out / "profile.md").write_text(_page(pair, profiles, megapixels), encoding="utf-8")


def _measure(pair: Pair, quality: str, scratch: Path) -> Profile:
    sidecar, tiff = scratch / "profile.rmeta", scratch / "profile.tiff"
    stages = ["-m", "examples.benchmark.stages"]
    encodes = [
        json.loads(run([*stages, "encode", pair.raw, pair.jpeg, quality, sidecar]).output)
        for _ in range(TIMES)
    ]
    decodes = [
        json.loads(run([*stages, "decode", pair.jpeg, sidecar]).output) for _ in range(TIMES)
    ]
    command = ["-m", "rawcodec"]
    quietly = ["--force", "-o"]
    encode_run = run(
        [*command, "encode", pair.raw, pair.jpeg, "--quality", quality, *quietly, sidecar], TIMES
    )
    decode_run = run([*command, "decode", pair.jpeg, sidecar, *quietly, tiff], TIMES)
    return Profile(quality, _middle(encodes), _middle(decodes), encode_run, decode_run)


def _middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """The run whose total is the median."""
    return sorted(runs, key=lambda seconds: seconds["total"])[len(runs) // 2]


def _page(pair: Pair, profiles: list[Profile], megapixels: float) -> str:
    rows = []
    for stage in [*STAGES, "total"]:
        if not any(stage in p.encode or stage in p.decode for p in profiles):
            continue
        cells = [
            f"{side[stage]:.2f}" if stage in side else ""
            for p in profiles
            for side in (p.encode, p.decode)
        ]
        rows.append([stage, *cells])
    heads = ["stage", *(f"{p.quality}, {what}:" for p in profiles for what in ("enc.", "dec."))]
    whole = table(
        [
            "quality",
            *("encode, s:", "MB:", "decode, s:", "MB:"),
            "entropy coding / decode:",
            "entropy coding / its stages:",
        ],
        [
            [
                p.quality,
                f"{p.encode_run.seconds:.1f}",
                f"{p.encode_run.megabytes:.0f}",
                f"{p.decode_run.seconds:.1f}",
                f"{p.decode_run.megabytes:.0f}",
                f"{100 * p.decode['entropy coding'] / p.decode_run.seconds:.0f}%",
                f"{100 * p.decode['entropy coding'] / p.decode['total']:.0f}%",
            ]
            for p in profiles
        ],
    )
    chosen = next(p for p in profiles if p.quality == QUALITY)
    learned = sum(side.get(s, 0.0) for side in (chosen.encode, chosen.decode) for s in LEARNED)
    both = chosen.encode["total"] + chosen.decode["total"]
    parameters = sum(n.inputs * n.outputs * n.kernel**2 + n.outputs for n in LAYERS.values())
    return page(
        "# Where the time goes",
        f"{pair.name}, {megapixels:.1f} MP. {versions()} Each number is the median of {TIMES} "
        f"runs. Reproduce with `{COMMAND}` on a machine that does nothing else.",
        "## Whole programs",
        "As a user runs them, start of Python and loading of PyTorch included; `encode` decodes "
        "what it wrote before it ends.",
        whole,
        "## Stages",
        "Seconds inside a process that has loaded its packages; `encode` without verification.",
        table(heads, rows),
        "## Cost of the networks",
        f"The decoder's networks take {operations_per_site() / 1000:.1f} thousand "
        f"multiply-accumulates per photosite, overlaps of bands not counted, and have "
        f"{parameters / 1000:.0f} thousand weights "
        f"(`rawcodec.model.config.operations_per_site`).",
        f"At {QUALITY}, the learned layer's own stages (without reading, aligning and the tone "
        f"layer, which the paper has no counterpart of) take {learned / megapixels:.2f} s per "
        f"megapixel to encode and decode; everything together takes {both / megapixels:.2f}. "
        f"The paper's released code takes {PAPER[0]:.0f} to {PAPER[1]:.0f} s per megapixel for "
        f"both on a 2-core machine of this kind: {PAPER[0] * megapixels / learned:.0f} to "
        f"{PAPER[1] * megapixels / learned:.0f} times the learned layer's stages, "
        f"{PAPER[0] * megapixels / both:.0f} to {PAPER[1] * megapixels / both:.0f} times "
        f"everything. (Those seconds were not measured in this run.)",
    )
