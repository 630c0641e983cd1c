"""The page about the tone layer alone: docs/results/tone.md and its plots."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

import rawcodec
from rawcodec import SidecarInfo
from rawcodec.mosaic import Mosaic, mosaic_digest, planes
from rawcodec.photo.align import Alignment, Guide, orient
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.pipeline import mosaic_error

from . import alignment, plain, plots
from .alignment import Found, Study
from .markdown import page, table, yes
from .pairs import PROGRAMS, Pair
from .process import Run, run

COMMAND = "python -m examples.benchmark tone"

REPEATS = 3
"""Runs of each timed program; the median counts."""

SIZE_LIMIT = 4096
ENCODE_LIMIT, DECODE_LIMIT, MEMORY_LIMIT = 5.0, 3.0, 1200.0
CORNER_LIMIT = 0.5

_POSTPROCESS = """
import sys, time, rawpy
with rawpy.imread(sys.argv[1]) as raw:
    started = time.perf_counter()
    raw.postprocess()
    print(time.perf_counter() - started)
"""
_MAP_WIDTH = 900
_MAP_LIMIT = 0.05


@dataclass(frozen=True)
class Coded:
    """A pair, encoded and decoded as a user does it.

    tiffs: SHA-256 of what was decoded with 1 and with 2 threads.
    exact: both are the same, and their samples those that the encoder saw.
    """

    pair: Pair
    info: SidecarInfo
    encode: Run
    decode: Run
    tiffs: tuple[str, str]
    exact: bool
    tiff: Path


@dataclass(frozen=True)
class Compared:
    """PSNR in dB of the layer and of a plain table, over all sites and over covered ones."""

    layer: float
    plain: float
    layer_covered: float
    plain_covered: float

    @property
    def gain(self) -> float:
        """Over all visible sites, in dB."""
        return self.layer - self.plain

    @property
    def gain_covered(self) -> float:
        """Over the sites that the JPEG covers, in dB."""
        return self.layer_covered - self.plain_covered


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Measure everything, and write ``tone.md`` and its plots to ``out``."""
    coded, compared, studies = [], [], []
    mosaics: dict[str, Mosaic] = {}
    demosaicing: dict[str, float] = {}
    for pair in pairs:
        if pair.photo not in mosaics:
            _progress(f"{pair.photo}: demosaicing, for comparison")
            runs = [run(["-c", _POSTPROCESS, pair.raw]) for _ in range(REPEATS)]
            demosaicing[pair.photo] = float(np.median([float(r.output) for r in runs]))
            mosaics[pair.photo] = read_raw(pair.raw).mosaic
        mosaic = mosaics[pair.photo]
        _progress(f"{pair.name}: encoding and decoding")
        coded.append(_code(pair, scratch))
        _progress(f"{pair.name}: aligning")
        studies.append(alignment.study(pair, mosaic, scratch))
        _progress(f"{pair.name}: fitting a plain table")
        compared.append(_compare(mosaic, coded[-1], studies[-1].base.alignment))
    _progress("wrong pairs")
    refusals = [
        alignment.refusal(mosaic, read_jpeg(pair.jpeg))
        for photo, mosaic in mosaics.items()
        for pair in pairs
        if pair.photo != photo
    ]
    out.mkdir(parents=True, exist_ok=True)
    _draw(out, coded, compared, studies, mosaics)
    text = page(
        *_introduction(),
        *_quality(coded, compared),
        *_cost(coded, demosaicing),
        *_exactness(coded),
        *_alignment(studies),
        *_wrong(refusals, studies),
    )
    (out / "tone.md").write_text(text, encoding="utf-8")


def _code(pair: Pair, scratch: Path) -> Coded:
    sidecar = scratch / f"{pair.name}.rmeta"
    tiffs = [scratch / f"{pair.name}.{threads}.tiff" for threads in (1, 2)]
    encode = run(
        ["-m", "rawcodec", "encode", pair.raw, pair.jpeg, "-o", sidecar, "--force"], REPEATS
    )
    command = ["-m", "rawcodec", "decode", str(pair.jpeg), str(sidecar), "--force", "-o"]
    decode = run([*command, tiffs[0]], REPEATS)
    for threads, tiff in zip((1, 2), tiffs, strict=True):
        run([*command, tiff], environment={"OMP_NUM_THREADS": str(threads)})
    info = rawcodec.inspect(sidecar)
    one, two = (hashlib.sha256(tiff.read_bytes()).hexdigest() for tiff in tiffs)
    tiffs[1].unlink()
    digest = mosaic_digest(tifffile.imread(tiffs[0])).hex()
    exact = one == two and digest == info.mosaic_digest
    return Coded(pair, info, encode, decode, (one, two), exact, tiffs[0])


def _compare(mosaic: Mosaic, coded: Coded, found: Alignment) -> Compared:
    sensor = mosaic.sensor
    oriented = orient(read_jpeg(coded.pair.jpeg).pixels, found.orientation)
    height, width = oriented.shape[:2]
    covered = found.reached(sensor.width, sensor.height, width, height, 0)
    guide = Guide(oriented, found, sensor.width, sensor.height, 0)
    scores = []
    for samples in (tifffile.imread(coded.tiff), plain.predict(mosaic, guide, covered)):
        scores += [_psnr(mosaic, samples), _psnr(mosaic, samples, covered)]
    layer, layer_covered, plain_all, plain_covered = scores
    return Compared(layer, plain_all, layer_covered, plain_covered)


def _psnr(mosaic: Mosaic, samples: np.ndarray, part: np.ndarray | None = None) -> float:
    """PSNR in dB of DN, integer or not, over all sites or those of a mask."""
    psnr: float
    if part is None:
        psnr, _ = mosaic_error(mosaic, samples)
        return psnr
    inside = mosaic.samples.astype(samples.dtype)
    inside[part] = samples[part]
    psnr, _ = mosaic_error(mosaic, inside)
    return psnr + 10 * math.log10(float(part.mean()))


def _draw(
    out: Path,
    coded: Sequence[Coded],
    compared: Sequence[Compared],
    studies: Sequence[Study],
    mosaics: dict[str, Mosaic],
) -> None:
    plots.bars(
        out / "tone-psnr.png",
        [f"{c.pair.photo}, {PROGRAMS[c.pair.program]}" for c in coded],
        {
            "tone layer": [c.layer for c in compared],
            "plain 9x9x9 table, float": [c.plain for c in compared],
        },
        "PSNR of the mosaic, dB (linear, white = 1, all visible sites)",
        "What the JPEG and the tone layer know of the raw",
    )
    order = np.argsort([c.layer for c in compared])
    rows = []
    for number in (order[-1], order[0]):
        one = coded[number]
        mosaic = mosaics[one.pair.photo]
        step = max(1, mosaic.sensor.width // _MAP_WIDTH)
        # whole cells of the CFA
        step = -(-step // mosaic.sensor.period[1]) * mosaic.sensor.period[1]
        rms = _error_map(mosaic, tifffile.imread(one.tiff), step)
        oriented = orient(read_jpeg(one.pair.jpeg).pixels, studies[number].truth.orientation)
        picture = Image.fromarray(np.ascontiguousarray(oriented))
        picture.thumbnail((_MAP_WIDTH, _MAP_WIDTH))
        caption = (
            f"{one.pair.photo}, JPEG by {PROGRAMS[one.pair.program]}: "
            f"{compared[number].layer:.2f} dB"
        )
        rows.append((caption, np.asarray(picture), rms))
    plots.error_maps(out / "tone-error.png", rows, _MAP_LIMIT)


def _error_map(mosaic: Mosaic, samples: np.ndarray, step: int) -> np.ndarray:
    """RMS error over step x step sites, white = 1: float64 (H // step, W // step)."""
    error = np.zeros(mosaic.samples.shape, np.float32)
    for _, black, index in planes(mosaic.sensor):
        difference = samples[index].astype(np.float32) - mosaic.samples[index]
        error[index] = difference / (mosaic.sensor.white - black)
    height, width = mosaic.sensor.height, mosaic.sensor.width
    power = (error**2).reshape(height, width, -1).mean(axis=2)
    rows, columns = height // step, width // step
    blocks = power[: rows * step, : columns * step].reshape(rows, step, columns, step)
    result: np.ndarray = np.sqrt(blocks.mean(axis=(1, 3)))
    return result


def _introduction() -> list[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        "# The tone layer on real pairs",
        "The photos are raws of five cameras, each with a JPEG by RawTherapee 5.9 and one by "
        "darktable 4.2, made with their defaults. Every table and plot here comes from one "
        "command, run in the checkout with the extra `benchmark` installed; FOLDER holds the "
        "photos:",
        f"```\n{COMMAND} --data FOLDER --out docs/results\n```",
        f"Measured with rawcodec {rawcodec.__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, on {platform.system()} {platform.machine()} with {cores} CPU "
        "cores.",
    ]


def _label(pair: Pair) -> list[str]:
    return [pair.photo, PROGRAMS[pair.program]]


def _reproduce() -> str:
    return f"Made by `{COMMAND}`."


def _quality(coded: Sequence[Coded], compared: Sequence[Compared]) -> list[str]:
    rows = [
        [
            *_label(c.pair),
            f"{c.info.width}x{c.info.height} {c.info.cfa}",
            f"{c.info.bytes:,}",
            f"{c.info.layers['tone']:,}",
            f"{c.info.bpp:.4f}",
            f"{k.layer:.2f}",
            f"{k.plain:.2f}",
            f"{k.gain:+.2f}",
            f"{k.gain_covered:+.2f}",
            f"{c.info.max_error:,}",
            f"{100 * c.info.max_error / (c.info.white - min(c.info.black)):.0f}%",
        ]
        for c, k in zip(coded, compared, strict=True)
    ]
    largest = max(c.info.layers["tone"] for c in coded)
    names = [c.pair.name for c in coded]
    everywhere = _gains("all visible sites", names, [k.gain for k in compared])
    covered = _gains("the covered sites alone", names, [k.gain_covered for k in compared])
    size = (
        f"Its largest payload has {largest:,} bytes, within the {SIZE_LIMIT:,} allowed"
        if largest <= SIZE_LIMIT
        else f"**Its largest payload has {largest:,} bytes, more than the {SIZE_LIMIT:,} allowed**"
    )
    return [
        "## Size and quality",
        "PSNR is of the whole visible mosaic, linear, black-subtracted, with the white level at "
        "1; bpp counts every byte of the sidecar. *Plain* is a table of 9x9x9 nodes for each raw "
        "colour over the same aligned JPEG, without gain grid and filter, fitted by least squares "
        "in the linear domain on all sites that the JPEG covers, kept in floating point, its "
        "bytes not counted; where the JPEG does not reach, it sees the JPEG's nearest pixel. "
        "*Gain* is the layer's PSNR less the plain table's: over all visible sites, and over the "
        "covered ones alone.",
        table(
            [
                "photo",
                "JPEG by",
                "mosaic",
                "bytes:",
                "tone bytes:",
                "bpp:",
                "PSNR, dB:",
                "plain, dB:",
                "gain, dB:",
                "gain, covered, dB:",
                "max error, DN:",
                "of range:",
            ],
            rows,
        ),
        f"{everywhere} {covered} {size}. {_reproduce()}",
        "![PSNR of the tone layer and of a plain table](tone-psnr.png)",
        "Where the error is, in the pair with the highest PSNR and in that with the lowest; "
        "the colours show the root of the mean squared error of small squares of sites:",
        "![Where the error is, in two pairs](tone-error.png)",
    ]


def _gains(where: str, names: Sequence[str], gains: Sequence[float]) -> str:
    """Sentence that says whether the layer is never worse than the plain table."""
    worse = [name for name, gain in zip(names, gains, strict=True) if gain < 0]
    verdict = (
        f"the tone layer is **worse than the plain table on {', '.join(worse)}**"
        if worse
        else "the tone layer is never worse than the plain table"
    )
    return (
        f"Over {where}, {verdict}: the gain is {min(gains):+.2f} to {max(gains):+.2f} dB, "
        f"{np.mean(gains):+.2f} dB on average."
    )


def _cost(coded: Sequence[Coded], demosaicing: dict[str, float]) -> list[str]:
    rows = []
    for c in coded:
        base = demosaicing[c.pair.photo]
        rows.append(
            [
                *_label(c.pair),
                f"{c.info.width * c.info.height / 1e6:.1f}",
                f"{base:.2f}",
                f"{c.encode.seconds:.2f}",
                f"{c.encode.seconds / base:.2f}",
                f"{c.encode.megabytes:.0f}",
                f"{c.decode.seconds:.2f}",
                f"{c.decode.seconds / base:.2f}",
                f"{c.decode.megabytes:.0f}",
            ]
        )
    encode = max(c.encode.seconds for c in coded)
    decode = max(c.decode.seconds for c in coded)
    memory = max(max(c.encode.megabytes, c.decode.megabytes) for c in coded)
    within = encode <= ENCODE_LIMIT and decode <= DECODE_LIMIT and memory <= MEMORY_LIMIT
    return [
        "## Time and memory",
        "`rawcodec encode` (which verifies: it decodes what it wrote) and `rawcodec decode`, each "
        f"a process of its own, from its start to its end: the median of {REPEATS} runs, and the "
        "highest resident memory of a process in MB (10^6 bytes). Machines differ, so the time is "
        "also given as a ratio to that of LibRaw's demosaicing of the same raw, the call "
        "`rawpy.postprocess()` with its defaults, measured in the same run.",
        table(
            [
                "photo",
                "JPEG by",
                "MP:",
                "demosaicing, s:",
                "encode, s:",
                "ratio:",
                "encode, MB:",
                "decode, s:",
                "ratio:",
                "decode, MB:",
            ],
            rows,
        ),
        f"The slowest encode takes {encode:.2f} s, the slowest decode {decode:.2f} s, the most "
        f"memory is {memory:.0f} MB; the budgets for 12 MP on 2 cores are {ENCODE_LIMIT:.0f} s, "
        f"{DECODE_LIMIT:.0f} s and {MEMORY_LIMIT:.0f} MB: "
        f"{'kept' if within else '**not kept**'}. {_reproduce()}",
    ]


def _exactness(coded: Sequence[Coded]) -> list[str]:
    rows = [[*_label(c.pair), f"`{c.tiffs[0][:16]}`", yes(c.exact)] for c in coded]
    good = sum(c.exact for c in coded)
    return [
        "## Exactness",
        "Every sidecar is decoded in two fresh processes, with OMP_NUM_THREADS at 1 and at 2. "
        "*Exact* says that both TIFFs are the same, byte for byte, and that the samples in them, "
        "read back with tifffile, have the digest that the encoder stored.",
        table(["photo", "JPEG by", "SHA-256 of the TIFF", "exact"], rows),
        f"{good} of {len(coded)} pairs come back exactly. {_reproduce()}",
    ]


def _alignment(studies: Sequence[Study]) -> list[str]:
    pairs = [
        [
            *_label(s.pair),
            s.base.alignment.orientation,
            f"{s.base.alignment.position_x(0):.3f}, {s.base.alignment.position_y(0):.3f}",
            f"{s.base.alignment.scale[0]:.5f}, {s.base.alignment.scale[1]:.5f}",
            s.base.blocks,
            f"{s.base.agreement:.0%}",
            f"{s.base.spread:.2f}",
        ]
        for s in studies
    ]
    errors = [
        [
            *_label(s.pair),
            _error(s.found),
            *(_error(found) for found in s.scaled),
            *(_error(found) for found in s.bent),
            _error(*s.turned),
            _error(*s.flagged),
        ]
        for s in studies
    ]
    checks = []
    for _, group in groupby(studies, key=lambda s: s.pair.photo):
        both = list(group)
        if len(both) == 2:
            across, down = alignment.disagreement(both)
            checks.append([both[0].pair.photo, f"{across:+.3f}", f"{down:+.3f}"])
    worst = max(found.error for s in studies for found in s.all)
    count = sum(len(s.all) for s in studies)
    verdict = (
        f"All {count} are within half a photosite; the worst is off by {worst:.3f}"
        if worst <= CORNER_LIMIT
        else f"**Not all of the {count} are within half a photosite**"
    )
    bent = max(found.error for s in studies for found in s.bent)
    scales = [f"{n}/{d}:" for n, d in alignment.SCALES]
    bends = [f"{radial:+.0%}, {degrees:g}\u00b0:" for radial, degrees in alignment.BENDS]
    return [
        "## Alignment",
        "What is found for each pair: the EXIF orientation that lays the JPEG over the sensor "
        "(1 is none, 2 a mirror image: darktable obeys the flag of the GoPro files and "
        "RawTherapee does not), the JPEG's pixel at which the mosaic's first site lies "
        "(RawTherapee crops 4 pixels on each side), its pixels per photosite across and down, "
        "and how many blocks were compared, agreed, and by how many photosites those that "
        "agree are off (the median).",
        table(
            [
                "photo",
                "JPEG by",
                "orientation:",
                "offset, px:",
                "scale:",
                "blocks:",
                "agree:",
                "spread:",
            ],
            pairs,
        ),
        "The error at the mosaic's worst corner, in photosites: of the JPEG as it is; scaled "
        f"(Pillow, Lanczos) and saved again at quality {alignment.SCALED_QUALITY}; bent as a lens "
        "correction or straightening does it, by so much of the distance at the corners and by so "
        "many degrees, and saved again (the worst of 63 points that it shows); its pixels "
        f"turned in all 8 ways and saved again at quality {alignment.TURNED_QUALITY}, the worst "
        "of the 8; and with its EXIF flag alone changed, the worst of 8. The truth is the plain "
        "crop at whole pixels, which scaling and turning change in a known way.",
        table(["photo", "JPEG by", "as it is:", *scales, *bends, "turned:", "flagged:"], errors),
        f"{verdict}; of those that were bent, by {bent:.3f}. {_reproduce()}",
        *(
            [
                "That truth is checked without the raw and without the codec's search: where the "
                "two JPEGs of a raw lie over each other, by phase correlation of 25 tiles, the "
                "median against the difference of the two crops, in pixels. RawTherapee's crop is "
                "known to be 4, so both are right where this is near 0.",
                table(["photo", "across:", "down:"], checks),
            ]
            if checks
            else []
        ),
    ]


def _error(*found: Found) -> str:
    worst = max(f.error for f in found)
    text = f"{worst:.3f}" if math.isfinite(worst) else "wrong"
    return text if worst <= CORNER_LIMIT else f"**{text}**"


def _wrong(refusals: Sequence[float | None], studies: Sequence[Study]) -> list[str]:
    refused = [seen for seen in refusals if seen is not None]
    right = [found for s in studies for found in s.all]
    accepted = sum(math.isfinite(found.error) for found in right)
    return [
        "## Wrong pairs",
        "Every raw with every other raw's JPEGs, beside the right pairs of the section above "
        "(as they are, scaled, turned and flagged). *Agreement* is the share of the compared "
        "blocks that agree on one place: the highest of the wrong pairs, the lowest of the "
        "right ones.",
        table(
            ["", "pairs:", "refused:", "agreement:"],
            [
                [
                    "wrong",
                    len(refusals),
                    len(refused),
                    f"at most {max(refused):.0%}" if refused else "",
                ],
                [
                    "right",
                    len(right),
                    len(right) - accepted,
                    f"at least {min(found.agreement for found in right):.0%}",
                ],
            ],
        ),
        (
            "All wrong pairs are refused, and no right one"
            if len(refused) == len(refusals) and accepted == len(right)
            else "**Not all wrong pairs are refused, or a right one is**"
        )
        + f". {_reproduce()}",
    ]


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
