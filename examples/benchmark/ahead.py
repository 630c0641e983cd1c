"""What the grids and the fitted filters save: docs/results/ahead.md.

The grids and the first filter correct the tone layer before any network, the second filter what
the latents made of it. Here whole photos are coded without them, and with one after the other
added, with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

import rawcodec
from rawcodec.model import fitting, layer

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark ahead"

QUALITIES = "low", "high"
WAYS = "none", "grids", "grids and filter", "and the filter after"
"""Each with one more of them; the last is the codec as it is."""


def _none(rows: Callable[[int, int], np.ndarray]) -> Callable[[int, int], np.ndarray]:
    return lambda top, bottom: 0 * rows(top, bottom)


@contextmanager
def _only(way: str) -> Iterator[None]:
    """An encoder that finds nothing worth coding in what a way is without; no decoder differs."""
    used = WAYS.index(way)
    with ExitStack() as stack:
        for number, name in enumerate(("fit_ahead", "fit_after"), 2):
            if used < number:
                stack.enter_context(patch.object(fitting, name, lambda *_: None))
        if used < 1:
            found = layer.grid.GridFit
            stack.enter_context(
                patch.object(layer.grid, "GridFit", lambda wrong, *of: found(_none(wrong), *of))
            )
        yield


def run_all(pairs: Sequence[Pair], out: Path) -> None:
    """Code all photos in all ways, and write ``ahead.md``."""
    rows, bits = [], []
    for pair in pairs:
        for quality in QUALITIES:
            bpp, psnr = [], []
            for way in WAYS:
                with _only(way):
                    sidecar = rawcodec.encode(pair.raw, pair.jpeg, quality=quality, verify=False)
                info = rawcodec.inspect(sidecar)
                bpp.append(info.bpp)
                psnr.append(info.psnr_db)
            bits.append((quality, bpp, psnr))
            found = [f"{b:.4f} / {p:.2f}" for b, p in zip(bpp, psnr, strict=True)]
            rows.append([pair.photo, PROGRAMS[pair.program], f"`{quality}`", *found])
    text = page(
        "# Grids and the fitted filters",
        "Bits per site of whole sidecars / PSNR in dB (linear, black-subtracted, white = 1) of the "
        "mosaic: with none of them, with the grids of large areas, with the filter too that is "
        "fitted to the photo before any latent, and with the one after the latents besides, all "
        "with the same weights.",
        f"{versions()} Made by `{COMMAND} --data FOLDER --out docs/results`.",
        table(["photo", "JPEG by", "quality", *(f"{way}:" for way in WAYS)], rows),
        *(_summary(quality, [b for b in bits if b[0] == quality]) for quality in QUALITIES),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "ahead.md").write_text(text, encoding="utf-8")


def _summary(quality: str, bits: Sequence[tuple[str, list[float], list[float]]]) -> str:
    ratios = np.array([[b[n] / b[0] for n in range(1, len(WAYS))] for _, b, _ in bits])
    gains = np.array([[p[n] - p[0] for n in range(1, len(WAYS))] for _, _, p in bits])
    parts = [
        f"{way} {100 * (ratio - 1):+.0f}% bits at {gain:+.2f} dB"
        for way, ratio, gain in zip(
            WAYS[1:], np.exp(np.log(ratios).mean(0)), gains.mean(0), strict=True
        )
    ]
    return f"On average over photos, `{quality}`, against none: " + "; ".join(parts) + "."
