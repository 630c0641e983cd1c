"""What each part of the tone layer gives: docs/results/ablation.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from rawcodec.mosaic import Mosaic
from rawcodec.photo.align import Guide, orient
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.photo.register import register
from rawcodec.pipeline import mosaic_error
from rawcodec.tone import fit
from rawcodec.tone import table as t

from .markdown import page, table
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark ablation"

VARIANTS = ("table alone", "with the filter", "with the gain grid", "with both")

_BAND = 96


def run_all(pairs: Sequence[Pair], out: Path) -> None:
    """Measure all variants of all pairs, and write ``ablation.md`` to ``out``."""
    rows = []
    for pair in pairs:
        mosaic = read_raw(pair.raw).mosaic
        # as in the fit itself: threads of BLAS inside its own would only wait
        with threadpool_limits(1, "blas"):
            scores = [f"{score:.2f}" for score in _scores(mosaic, read_jpeg(pair.jpeg).pixels)]
        rows.append([pair.photo, PROGRAMS[pair.program], *scores])
    text = page(
        "# The parts of the tone layer",
        "PSNR in dB of the mosaic at the sites that the JPEG reaches (linear, black-subtracted, "
        "white = 1), with the parameters as they were fitted, before quantisation: the colour "
        "table alone, with the 5x5 filter, with the gain grid, and with both, which is the "
        "tone layer.",
        f"```\n{COMMAND} --data FOLDER --out docs/results\n```",
        table(["photo", "JPEG by", *(f"{name}:" for name in VARIANTS)], rows),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "ablation.md").write_text(text, encoding="utf-8")


def _scores(mosaic: Mosaic, pixels: np.ndarray) -> list[float]:
    sensor = mosaic.sensor
    alignment = register(mosaic, pixels).alignment
    oriented = orient(pixels, alignment.orientation)
    height, width = oriented.shape[:2]
    guide = Guide(oriented, alignment, sensor.width, sensor.height, t.REACH)
    reached = alignment.reached(sensor.width, sensor.height, width, height, 0)
    sample = fit.sample_sites(mosaic, guide.band, reached)
    scores = []
    for gains, taps in ((False, False), (False, True), (True, False), (True, True)):
        problem = fit.Problem(sample)
        problem.fit_table()
        for _ in range(fit.ROUNDS):
            if taps:
                problem.fit_taps()
            if gains:
                problem.fit_both()
            else:
                problem.fit_table()
        scores.append(_psnr(mosaic, guide, reached, _layer(problem)))
    return scores


def _layer(problem: fit.Problem) -> t.Tone:
    """A fit in the finest steps that the integers have."""
    table_shape, gain_shape = (t.NODES,) * 3, (t.LEVELS, t.ROWS, t.COLUMNS)
    tables = np.zeros((3, *table_shape), np.int32)
    gains = np.zeros((3, *gain_shape), np.int32)
    for colour in problem.samples:
        nodes = problem.table[colour].reshape(table_shape) * (1 << t.UNIT_BITS)
        tables[colour] = np.clip(np.round(nodes), 0, t.TABLE_MAX)
        nodes = problem.gains[colour].reshape(gain_shape) * (1 << t.GAIN_BITS)
        gains[colour] = np.clip(np.round(nodes), 0, t.GAIN_MAX)
    taps = np.round(problem.taps / np.array(t.TAPS) * (1 << t.FILTER_BITS))
    return t.Tone(tuple(int(tap) for tap in taps), tables, gains, None)


def _psnr(mosaic: Mosaic, guide: Guide, reached: np.ndarray | None, tone: t.Tone) -> float:
    samples = np.empty_like(mosaic.samples)
    for top in range(0, mosaic.sensor.height, _BAND):
        bottom = min(top + _BAND, mosaic.sensor.height)
        band = guide.band(top - t.REACH, bottom + t.REACH)
        values = np.empty_like(samples[top:bottom])
        t.predict_band(tone, mosaic.sensor, band, top, None, values)
        t.expand_band(mosaic.sensor, values, top, samples[top:bottom])
    share = 1.0
    if reached is not None:
        samples[~reached] = mosaic.samples[~reached]
        share = float(reached.mean())
    psnr: float = mosaic_error(mosaic, samples)[0] + 10 * np.log10(share)
    return psnr
