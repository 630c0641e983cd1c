"""How far synthetic pairs are from real ones, to the codec: docs/results/gap.md.

The model has learned from frames that ``python -m examples.train pairs`` makes of photographs. The
frames that training holds out are coded here as photos are, beside the same yardstick: were they
like real pairs, the codec would be as far ahead of it on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

import rawcodec
from examples.train.data import take_mosaic
from rawcodec.photo.raw import RawPhoto
from rawcodec.stream.header import QUALITIES

from .classical import Kept
from .curves import Point, bd_rate, psnr_at
from .markdown import page, table, versions

COMMAND = "python -m examples.benchmark gap --frames FRAMES"


@dataclass(frozen=True)
class Measured:
    """A frame: what kind of sensor took it, our points by quality, and the yardstick's."""

    name: str
    kind: str
    iso: float
    points: dict[str, Point]
    yardstick: list[Point]

    @property
    def rate(self) -> float | None:
        """BD-rate of the qualities above ``tone`` against the yardstick."""
        return bd_rate([self.points[q] for q in self.points if q != "tone"], self.yardstick)


def run_all(frames: Sequence[Path], out: Path, scratch: Path) -> None:
    """Code all frames, and write ``gap.md``."""
    kept = Kept(scratch / "classical.json")
    found = [_measure(folder, kept) for folder in frames]
    rates = [m.rate for m in found if m.rate is not None]
    gains = {
        quality: [
            m.points[quality].psnr - beside
            for m in found
            if (beside := psnr_at(m.yardstick, m.points[quality].bpp)) is not None
        ]
        for quality in QUALITIES
        if quality != "tone"
    }
    text = page(
        "# Synthetic and real pairs",
        f"Frames that training held out, coded as photos are: BD-rate {np.mean(rates):+.0%} on "
        f"average against tone + JPEG 2000, from {min(rates):+.0%} to {max(rates):+.0%}. Real "
        "pairs, measured in the same way, are in [quality.md](quality.md). The difference between "
        "the two is how much more the model knows of the pairs that it was made for.",
        f"{versions()} Made by `{COMMAND} --out docs/results`, of the first {len(frames)} frames.",
        "Means of the gain over tone + JPEG 2000 at equal size: "
        + ", ".join(f"`{q}` {np.mean(g):+.2f} dB" for q, g in gains.items() if g)
        + ".",
        table(
            ["frame", "sensor", "ISO:", "tone, dB:", *(f"`{q}`, bpp / dB:" for q in gains),
             "BD-rate:"],
            [
                [
                    m.name,
                    m.kind,
                    f"{m.iso:.0f}",
                    f"{m.points['tone'].psnr:.2f}",
                    *(f"{m.points[q].bpp:.3f} / {m.points[q].psnr:.2f}" for q in gains),
                    "n/a" if m.rate is None else f"{m.rate:+.1%}",
                ]
                for m in found
            ],
        ),
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "gap.md").write_text(text, encoding="utf-8")


def _measure(folder: Path, kept: Kept) -> Measured:
    """All qualities of a frame, and the yardstick."""
    mosaic, meta = take_mosaic(folder)
    photo = RawPhoto(mosaic, mosaic.sensor.width, mosaic.sensor.height, 0, 0)
    jpeg = folder / "photo.jpg"
    points, prediction = {}, np.zeros(0)
    with patch("rawcodec.pipeline.read_raw", lambda _: photo):  # a frame has no raw file
        for quality in QUALITIES:
            sidecar = rawcodec.encode(folder, jpeg, quality=quality, verify=False)
            if quality == "tone":
                prediction = rawcodec.decode(jpeg, sidecar).samples
            info = rawcodec.inspect(sidecar)
            points[quality] = Point(info.bpp, info.psnr_db)
    _, _, yardstick = kept.measure(folder.name, mosaic, prediction, points["tone"].bpp)
    return Measured(folder.name, meta["kind"], meta["iso"], points, yardstick)
