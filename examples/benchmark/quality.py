"""The page about all qualities on real pairs: docs/results/quality.md and its plots."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

import rawcodec
from examples.baselines.lineup import fingerprint, package_sources
from rawcodec import SidecarInfo
from rawcodec.mosaic import Mosaic, mosaic_digest
from rawcodec.photo.raw import read_raw
from rawcodec.pipeline import mosaic_error
from rawcodec.stream.header import QUALITIES

from . import classical, plots
from .classical import Variant
from .curves import Point, bd_rate, psnr_at
from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair
from .process import Run, run

COMMAND = "python -m examples.benchmark quality"

CLASSICAL = "classical.json"
"""Where the classical coding's points are kept: they take longer than all the rest."""

ENCODE_LIMIT, DECODE_LIMIT, MEMORY_LIMIT = 12.0, 5.0, 1500.0
CORES = 2
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Bits per site that the table of the classical coding shows."""

NAMES = {"learned": "rawcodec", "classical": "tone + JPEG 2000"}


@dataclass(frozen=True)
class Coded:
    """A pair at one quality, encoded and decoded as a user does it."""

    info: SidecarInfo
    psnr: float
    encode: Run
    decode: Run

    @property
    def point(self) -> Point:
        """Where it lies on rawcodec's curve."""
        return Point(self.info.bpp, self.psnr)


@dataclass(frozen=True)
class Measured:
    """Everything about a pair.

    coded: by quality, ``tone`` first. compared: what the variants of the
    classical coding reach on the middle of the photo; variant: the best of
    them. curve: what that one reaches on the photo.
    """

    pair: Pair
    coded: dict[str, Coded]
    compared: dict[Variant, list[float | None]]
    variant: Variant
    curve: list[Point]

    @property
    def learned(self) -> dict[str, Coded]:
        """Without the tone layer alone."""
        return {quality: coded for quality, coded in self.coded.items() if quality != "tone"}

    @property
    def gains(self) -> dict[str, float]:
        """PSNR less that of the classical coding at the same size, where it has that size."""
        theirs = {q: psnr_at(self.curve, coded.info.bpp) for q, coded in self.learned.items()}
        return {q: self.coded[q].psnr - psnr for q, psnr in theirs.items() if psnr is not None}

    @property
    def bd_rate_of_itself(self) -> float | None:
        """BD-rate of the classical coding, read at rawcodec's rates, against itself."""
        rates = [coded.info.bpp for coded in self.learned.values()]
        read = [(rate, psnr_at(self.curve, rate)) for rate in rates]
        return bd_rate([Point(rate, psnr) for rate, psnr in read if psnr], self.curve)

    @property
    def bd_rate(self) -> float | None:
        """BD-rate of rawcodec against the classical coding; None where they do not overlap."""
        return bd_rate([coded.point for coded in self.learned.values()], self.curve)


def run_all(
    pairs: Sequence[Pair], out: Path, work: Path, qualities: Sequence[str] = QUALITIES
) -> None:
    """Measure everything, and write ``quality.md`` and its plots to ``out``.

    work: a folder for what was measured.
    """
    measured = []
    for pair in pairs:
        mosaic = read_raw(pair.raw).mosaic
        coded = {}
        for quality in qualities:
            _progress(f"{pair.name}: {quality}")
            coded[quality], sidecar = _code(pair, mosaic, quality, work)
            if quality == "tone":
                prediction = rawcodec.decode(pair.jpeg, sidecar).samples
        _progress(f"{pair.name}: tone + JPEG 2000")
        kept = classical.Kept(out / CLASSICAL)
        compared, variant, curve = kept.measure(
            pair.name, mosaic, prediction, coded["tone"].info.bpp
        )
        measured.append(Measured(pair, coded, compared, variant, curve))
    write(measured, out)


def write(measured: Sequence[Measured], out: Path) -> None:
    """Write the page and its plots."""
    out.mkdir(parents=True, exist_ok=True)
    _draw(out, measured)
    text = page(
        *_introduction(),
        *_summary(measured),
        *_table(measured),
        *_bd_rates(measured),
        *_cost(measured),
        *_classical(measured),
    )
    (out / "quality.md").write_text(text, encoding="utf-8")


def _code(pair: Pair, mosaic: Mosaic, quality: str, work: Path) -> tuple[Coded, Path]:
    """A pair through the command line, unless that is kept, and its sidecar."""
    of = fingerprint((pair.raw, pair.jpeg, *package_sources()))
    folder = work / f"{pair.name}.{quality}.{of}"
    sidecar, told = folder / "photo.rmeta", folder / "told.json"
    if not told.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        psnr, encode, decode = _measure(pair, mosaic, quality, sidecar)
        words = {"psnr": psnr, "encode": asdict(encode), "decode": asdict(decode)}
        told.write_text(json.dumps(words))
    words = json.loads(told.read_text())
    encode, decode = Run(**words["encode"]), Run(**words["decode"])
    return Coded(rawcodec.inspect(sidecar), words["psnr"], encode, decode), sidecar


def _measure(pair: Pair, mosaic: Mosaic, quality: str, sidecar: Path) -> tuple[float, Run, Run]:
    """PSNR of what the command line makes of a pair, and its runs."""
    tiff = sidecar.with_suffix(".tiff")
    common = ["--device", "cpu", "--force", "-o"]
    encode = run(
        ["-m", "rawcodec", "encode", pair.raw, pair.jpeg, "--quality", quality, *common, sidecar]
    )
    decode = run(["-m", "rawcodec", "decode", pair.jpeg, sidecar, *common, tiff])
    info = rawcodec.inspect(sidecar)
    samples = tifffile.imread(tiff)
    if mosaic_digest(samples).hex() != info.mosaic_digest:
        raise RuntimeError(f"{pair.name}: {quality}: the TIFF is not what the encoder saw")
    tiff.unlink()
    return mosaic_error(mosaic, samples)[0], encode, decode


def _draw(out: Path, measured: Sequence[Measured]) -> None:
    panels = [
        plots.Panel(
            f"{m.pair.photo}, JPEG by {PROGRAMS[m.pair.program]}",
            {
                NAMES["learned"]: _line([coded.point for coded in m.learned.values()]),
                NAMES["classical"]: _line(m.curve),
            },
            ("tone layer alone", m.coded["tone"].psnr),
        )
        for m in measured
    ]
    units = "bits per visible site (logarithmic)", "PSNR, dB"
    plots.curves(out / "quality-curves.png", panels, *units)
    means = _means(measured)
    panel = plots.Panel(
        "mean over the pairs",
        {
            NAMES["learned"]: _line([Point(mean.bpp, mean.psnr) for mean in means.values()]),
            NAMES["classical"]: _line(
                [Point(mean.bpp, mean.psnr - mean.gain) for mean in means.values()]
            ),
        },
        ("tone layer alone", float(np.mean([m.coded["tone"].psnr for m in measured]))),
    )
    gains = {q: [m.gains[q] for m in measured if q in m.gains] for q in _learned(measured)}
    plots.curve_and_gains(
        out / "quality-mean.png", panel, units, gains, f"dB over {NAMES['classical']}, same size"
    )


def _line(points: Sequence[Point]) -> tuple[list[float], list[float]] | None:
    ordered = sorted(points, key=lambda point: point.bpp)
    return ([p.bpp for p in ordered], [p.psnr for p in ordered]) if ordered else None


@dataclass(frozen=True)
class _Mean:
    """A quality over the pairs where the classical coding has the same size."""

    bpp: float
    psnr: float
    gain: float
    worst: float
    best: float
    won: int
    count: int


def _means(measured: Sequence[Measured]) -> dict[str, _Mean]:
    means = {}
    for quality in _learned(measured):
        there = [m for m in measured if quality in m.gains]
        if there:
            gains = [m.gains[quality] for m in there]
            means[quality] = _Mean(
                float(np.mean([m.coded[quality].info.bpp for m in there])),
                float(np.mean([m.coded[quality].psnr for m in there])),
                float(np.mean(gains)),
                min(gains),
                max(gains),
                sum(gain > 0 for gain in gains),
                len(gains),
            )
    return means


def _learned(measured: Sequence[Measured]) -> list[str]:
    return list(measured[0].learned) if measured else []


def _introduction() -> list[str]:
    return [
        "# All qualities on real pairs",
        "The photos are raws of five cameras, each with a JPEG by RawTherapee 5.9 and one by "
        "darktable 4.2, made with their defaults. Every table and plot here comes from one "
        "command, run in the checkout with the extra `benchmark` installed; FOLDER holds the "
        "photos:",
        f"```\n{COMMAND} --data FOLDER --out docs/results\n```",
        versions(),
        f"The yardstick is *{NAMES['classical']}*: the mosaic that the tone layer alone predicts, "
        "and the rest, raw less prediction, by OpenJPEG, rate-distortion optimised over all "
        "components, in the form that suits the photo best (last section), with the 9/7 wavelet "
        "or without. "
        "All its bytes count, the tone layer's too, and its PSNR is of what comes back from "
        "them. It is read at rawcodec's size by monotone cubics over the logarithm of the rate.",
    ]


def _summary(measured: Sequence[Measured]) -> list[str]:
    means = _means(measured)
    rows = [
        [
            quality,
            f"{mean.bpp:.3f}",
            f"{mean.psnr:.2f}",
            f"{mean.psnr - mean.gain:.2f}",
            f"{mean.gain:+.2f}",
            f"{mean.worst:+.2f} to {mean.best:+.2f}",
            f"{mean.won} of {mean.count}",
        ]
        for quality, mean in means.items()
    ]
    heads = [
        "quality",
        "bpp:",
        "PSNR, dB:",
        f"{NAMES['classical']}, dB:",
        "gain, dB:",
        "from, to, dB:",
        "pairs ahead:",
    ]
    return [
        "## Where it stands",
        f"{_standing(measured)} {_rising(measured)} {_reproduce()}",
        *(
            [
                f"Means over the pairs, of rawcodec and of {NAMES['classical']} at the same size "
                "photo by photo:",
                table(heads, rows),
                "![Mean over the pairs, and gain of every pair](quality-mean.png)",
            ]
            if means
            else []
        ),
    ]


def _standing(measured: Sequence[Measured]) -> str:
    """Sentences on rawcodec against the classical coding."""
    gains = [gain for m in measured for gain in m.gains.values()]
    if not gains:
        return f"No size is shared with {NAMES['classical']}, so nothing is compared."
    won, count = sum(gain > 0 for gain in gains), len(gains)
    if won == count:
        text = (
            f"rawcodec is better than {NAMES['classical']} of the same size at all {count} points"
        )
    elif won:
        text = (
            f"rawcodec is better than {NAMES['classical']} of the same size at {won} of {count} "
            f"points, and **not better at {count - won}**"
        )
    else:
        text = (
            f"**rawcodec is nowhere better than {NAMES['classical']}** of the same size "
            f"({count} points)"
        )
    text += f": {np.mean(gains):+.2f} dB on average, {min(gains):+.2f} to {max(gains):+.2f}."
    rates = [m.bd_rate for m in measured]
    known = [rate for rate in rates if rate is not None]
    if known:
        mean = float(np.mean(known))
        text += (
            f" For the same PSNR it needs {abs(mean):.0%} {_fewer(mean)} bits on average "
            f"(BD-rate; {_range(known)} on {len(known)} of {len(rates)} pairs)."
        )
    return text


def _fewer(rate: float) -> str:
    return "fewer" if rate < 0 else "**more**"


def _range(rates: Sequence[float]) -> str:
    return f"{min(rates):+.0%} to {max(rates):+.0%}"


def _rising(measured: Sequence[Measured]) -> str:
    """Sentences that say whether PSNR rises with quality, from the tone layer on."""
    falls, steps = [], []
    for m in measured:
        for lower, higher in pairwise(m.coded):
            step = m.coded[higher].psnr - m.coded[lower].psnr
            steps.append(step)
            if step <= 0:
                falls.append(f"{m.pair.name} from {lower} to {higher} ({step:+.2f} dB)")
    first = [m.coded[q].psnr - m.coded["tone"].psnr for m in measured for q in m.learned]
    if not steps:
        return "Only the tone layer was measured."
    if falls:
        text = f"**PSNR does not rise with quality everywhere: not on {'; '.join(falls)}.**"
    else:
        text = (
            f"PSNR rises from each quality to the next on all pairs ({len(measured)}), by "
            f"{min(steps):.2f} to {max(steps):.2f} dB."
        )
    if min(first) > 0:
        above = f"by {min(first):.2f} to {max(first):.2f} dB"
        return f"{text} All qualities beat the tone layer alone, {above}."
    return f"{text} **Not all beat the tone layer alone: {min(first):+.2f} dB at the least.**"


def _table(measured: Sequence[Measured]) -> list[str]:
    rows = []
    for m in measured:
        for quality, coded in m.coded.items():
            gain = m.gains.get(quality)
            rows.append(
                [
                    *_label(m.pair),
                    quality,
                    f"{coded.info.bytes:,}",
                    f"{coded.info.bpp:.4f}",
                    f"{coded.psnr:.2f}",
                    _classical_cell(quality, coded, gain),
                    "" if gain is None else _signed(gain),
                    f"{coded.encode.processor:.1f}",
                    f"{coded.encode.megabytes:.0f}",
                    f"{coded.decode.processor:.1f}",
                    f"{coded.decode.megabytes:.0f}",
                ]
            )
    return [
        "## Every pair",
        "PSNR is of the whole visible mosaic, linear, black-subtracted, with the white level at "
        "1, and computed from the TIFF that `rawcodec decode` writes; bpp counts every byte of "
        f"the sidecar. *{NAMES['classical']}* is its PSNR at the same bpp, n/a where its curve "
        "does not reach that far. Seconds are those of the processors together, for one process "
        "from its start to its end, `rawcodec encode` (which verifies: it decodes what it wrote) "
        "and `rawcodec decode`, with `--device cpu`, one run each; MB (10^6 bytes) its highest "
        "resident memory.",
        table(
            [
                "photo",
                "JPEG by",
                "quality",
                "bytes:",
                "bpp:",
                "PSNR, dB:",
                f"{NAMES['classical']}, dB:",
                "gain, dB:",
                "encode, s:",
                "MB:",
                "decode, s:",
                "MB:",
            ],
            rows,
        ),
        _reproduce(),
        f"![PSNR over the rate of every pair, rawcodec and {NAMES['classical']}]"
        "(quality-curves.png)",
    ]


def _classical_cell(quality: str, coded: Coded, gain: float | None) -> str:
    if quality == "tone":
        return ""
    return "n/a" if gain is None else f"{coded.psnr - gain:.2f}"


def _signed(gain: float) -> str:
    return f"{gain:+.2f}" if gain > 0 else f"**{gain:+.2f}**"


def _bd_rates(measured: Sequence[Measured]) -> list[str]:
    rows = []
    for m in measured:
        rate = m.bd_rate
        both = [coded.psnr for coded in m.learned.values()], [point.psnr for point in m.curve]
        low = max(min(psnr, default=0.0) for psnr in both)
        high = min(max(psnr, default=0.0) for psnr in both)
        overlap = f"{low:.1f} to {high:.1f}" if low < high else "none"
        rows.append([*_label(m.pair), "n/a" if rate is None else f"{100 * rate:+.1f}%", overlap])
    return [
        "## Bits for the same PSNR",
        f"BD-rate of rawcodec's qualities above `tone` against {NAMES['classical']}: the mean "
        "difference of the logarithms of the rates over the PSNR that both reach, along monotone "
        "piecewise cubics (Fritsch and Carlson), as a share; negative is fewer bits. n/a where "
        "they share no PSNR.",
        table(["photo", "JPEG by", "BD-rate:", "over, dB:"], rows),
        f"{_sampling(measured)}{_reproduce()}",
    ]


def _sampling(measured: Sequence[Measured]) -> str:
    """A sentence on how far a few points can tell."""
    known = [rate for m in measured if (rate := m.bd_rate_of_itself) is not None]
    if not known:
        return ""
    return (
        f"How far so few points can tell: {NAMES['classical']}, read at rawcodec's rates alone and "
        f"compared with its own whole curve in the same way, comes to {min(known):+.1%} to "
        f"{max(known):+.1%} (on average {np.mean(known):+.1%}) where the truth is 0. "
    )


def _cost(measured: Sequence[Measured]) -> list[str]:
    largest = max(measured, key=lambda m: m.coded["tone"].info.width * m.coded["tone"].info.height)
    info = largest.coded["tone"].info
    all_coded = [coded for m in measured for coded in m.coded.values()]
    encode = max(coded.encode.processor for coded in all_coded)
    decode = max(coded.decode.processor for coded in all_coded)
    memory = max(max(c.encode.megabytes, c.decode.megabytes) for c in all_coded)
    most = [
        f"{name} {value:.{digits}f} {unit} of {limit:.0f}"
        for name, value, limit, unit, digits in (
            ("encoding", encode, CORES * ENCODE_LIMIT, "s", 1),
            ("decoding", decode, CORES * DECODE_LIMIT, "s", 1),
            ("memory", memory, MEMORY_LIMIT, "MB", 0),
        )
    ]
    within = (
        encode <= CORES * ENCODE_LIMIT and decode <= CORES * DECODE_LIMIT and memory <= MEMORY_LIMIT
    )
    return [
        "## Time and memory",
        f"The largest photos have {info.width * info.height / 1e6:.1f} MP. The most that any pair "
        f"takes at any quality, in seconds of the processors, beside the budget for 12 MP, which "
        f"is {ENCODE_LIMIT:.0f} and {DECODE_LIMIT:.0f} s of {CORES} cores: {', '.join(most)}. The "
        f"budgets are {'kept' if within else '**not kept**'}. {_reproduce()}",
    ]


def _classical(measured: Sequence[Measured]) -> list[str]:
    curves = [
        [
            *_label(m.pair),
            m.variant.name,
            f"{m.coded['tone'].psnr:.2f}",
            *(_cell(psnr_at(m.curve, rate)) for rate in RATES),
        ]
        for m in measured
    ]
    budgets = range(len(classical.BUDGETS))
    variants = []
    for variant in classical.VARIANTS:
        scores = [m.compared[variant] for m in measured]
        known = [[s[n] for s in scores if s[n] is not None] for n in budgets]
        variants.append(
            [
                variant.layout,
                variant.domain,
                variant.levels,
                *(f"{np.mean(k):.2f}" if len(k) == len(measured) else "n/a" for k in known),
                sum(m.variant == variant for m in measured),
            ]
        )
    width, height = classical.CROP
    return [
        f"## {NAMES['classical'][0].upper()}{NAMES['classical'][1:]}",
        "Its PSNR in dB at so many bits per site, all bytes counted, and the form that the rest "
        "was coded in:",
        table(
            ["photo", "JPEG by", "form", "tone alone:", *(f"{rate:g} bpp:" for rate in RATES)],
            curves,
        ),
        f"The form is the best of {len(classical.VARIANTS)} for each photo. The four planes of "
        "the CFA go in as they are, after a Hadamard transform of 2x2 sites, or turned to their "
        "principal axes; or the mosaic goes in as one picture. The rest is that of linear values, "
        "which is what PSNR counts, or of their square roots. The wavelet has five levels or none "
        f"(more of that: [transform.md](transform.md)). The mean PSNR of the middle {width}x"
        f"{height} sites of all pairs, and how many pairs each form is the best of:",
        table(
            [
                "components",
                "values",
                "wavelet levels:",
                *(f"{bpp:g} bpp:" for bpp in classical.BUDGETS),
                "best of pairs:",
            ],
            variants,
        ),
        _reproduce(),
    ]


def _cell(psnr: float | None) -> str:
    return "n/a" if psnr is None else f"{psnr:.2f}"


def _label(pair: Pair) -> list[str]:
    return [pair.photo, PROGRAMS[pair.program]]


def _reproduce() -> str:
    return f"Made by `{COMMAND}`."


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
