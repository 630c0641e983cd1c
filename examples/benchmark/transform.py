"""Whether a transform pays for what the tone layer leaves: docs/results/transform.md.

The learned layer codes the residual of every site, without a transform before
its networks. Here is why: JPEG 2000 codes the same rest with and without its
wavelet, and with and without sums and differences of the four sites of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import rawcodec
from rawcodec.mosaic import Mosaic
from rawcodec.photo.raw import read_raw
from rawcodec.pipeline import mosaic_error

from .classical import BUDGETS, CROP, Rest, Variant, crop, decode
from .curves import Point, psnr_at
from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark transform"

RISES = (0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20)
"""dB over what zeros give at which a curve is measured."""


FORMS = {
    "none": Variant("planes", levels=0),
    "wavelet, 1 level": Variant("planes", levels=1),
    "wavelet, 5 levels": Variant("planes", levels=5),
    "Hadamard over a cell": Variant("Hadamard", levels=0),
    "Hadamard and wavelet, 1 level": Variant("Hadamard", levels=1),
}


def run_all(pairs: Sequence[Pair], out: Path) -> None:
    """Measure all forms on the middle of every photo, and write ``transform.md``."""
    rows, gains = [], []
    for pair in pairs:
        mosaic, prediction = _tone_layer(pair)
        part, samples = crop(mosaic, prediction, *CROP)
        scores = [_scores(part, samples, form) for form in FORMS.values()]
        rows.append([pair.photo, PROGRAMS[pair.program], *map(_joined, scores)])
        gains.append([_difference(score, scores[0]) for score in scores[1:]])
    means = [np.nanmean([gain[n] for gain in gains]) for n in range(len(FORMS) - 1)]
    width, height = CROP
    text = page(
        "# A transform before the networks?",
        "PSNR in dB (linear, black-subtracted, white = 1) of the mosaic from the tone layer and "
        "JPEG 2000 of the rest, at " + ", ".join(f"{bpp:g}" for bpp in BUDGETS) + " bits per "
        f"site, on the middle {width}x{height} sites of each photo; n/a where the curve does not "
        "reach that far. *None*: no wavelet at all, so that OpenJPEG's block coder codes the "
        "rest of every site, plane by plane. The wavelet is the 9/7 of the standard.",
        f"{versions()} Made by `{COMMAND} --data FOLDER --out docs/results`.",
        table(["photo", "JPEG by", *(f"{form}:" for form in FORMS)], rows),
        "On average over photos and rates, in dB against none: "
        + "; ".join(f"{form} {m:+.2f}" for form, m in zip(list(FORMS)[1:], means, strict=True))
        + ".",
        "What the tone layer leaves is as good as white over small distances, but far from equal "
        "in size: it is large at edges, in clipped highlights, where the JPEG is dark. A "
        "transform gains nothing from white noise, and mixes sites of large and small error, "
        "which then cannot be told apart when they are coded.",
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "transform.md").write_text(text, encoding="utf-8")


def _tone_layer(pair: Pair) -> tuple[Mosaic, np.ndarray]:
    """A photo's mosaic, and what the tone layer alone makes of its JPEG."""
    sidecar = rawcodec.encode(pair.raw, pair.jpeg, quality="tone", verify=False)
    return read_raw(pair.raw).mosaic, rawcodec.decode(pair.jpeg, sidecar).samples


def _scores(mosaic: Mosaic, prediction: np.ndarray, form: Variant) -> list[float | None]:
    rest = Rest(mosaic, prediction, form)
    sites = mosaic.sensor.width * mosaic.sensor.height
    points: list[Point] = []
    for rise in RISES:
        data = rest.encode(rise)
        psnr, _ = mosaic_error(mosaic, decode(mosaic.sensor, prediction, data))
        points.append(Point(8 * len(data) / sites, psnr))
        if points[-1].bpp > max(BUDGETS):
            break
    return [psnr_at(points, bpp) for bpp in BUDGETS]


def _joined(scores: Sequence[float | None]) -> str:
    return " / ".join("n/a" if score is None else f"{score:.2f}" for score in scores)


def _difference(scores: Sequence[float | None], base: Sequence[float | None]) -> float:
    both = [a - b for a, b in zip(scores, base, strict=True) if a is not None and b is not None]
    return float(np.mean(both)) if both else float("nan")
