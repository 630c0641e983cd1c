"""Memory and time of large photos: docs/results/memory.md.

No camera's photo of 150 megapixels may be handed out with this project, so photos are made of
pieces of the bundled one, laid side by side by chance: what is in them, and how much their JPEG
tells of them, is that of a photo, whatever the size.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rawcodec.mosaic import Mosaic
from rawcodec.photo.dng import write_dng
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.photo.register import register
from rawcodec.work.decode import DecodeTask
from rawcodec.work.encode import EncodeTask

from .markdown import page, table, versions, yes
from .process import CHECKOUT, run

_IDLE = 310
"""Megabytes that a process takes with all packages and the weights."""

COMMAND = "python -m examples.benchmark memory"

SIZES = {12: (3000, 4000), 24: (4000, 6000), 60: (6336, 9504), 150: (10652, 14204)}
"""Rows and columns, by megapixels."""

LIMITS = {60: 1500, 150: 2500}
"""Megabytes that encoding and decoding are to stay below."""

_PIECE = 256
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Measured:
    """What a photo took. supposed: megabytes that a batch reserves for it. seconds: of the wall
    clock; processor: of all cores together."""

    megapixels: float
    command: str
    megabytes: float
    supposed: float
    seconds: float
    processor: float


def run_all(out: Path, work: Path, sizes: list[int]) -> None:
    """Encode and decode a photo of each size, and write ``memory.md`` to ``out``."""
    work.mkdir(parents=True, exist_ok=True)
    measured = []
    for size in sizes:
        raw, jpeg = make(work, *SIZES[size])
        sidecar, decoded = work / "photo.rmeta", work / "photo.tiff"
        tasks = {
            "encode": (EncodeTask(raw, jpeg, sidecar), (raw, jpeg, "-o", sidecar)),
            "decode": (DecodeTask(jpeg, sidecar, decoded), (jpeg, sidecar, "-o", decoded)),
        }
        for command, (task, files) in tasks.items():
            done = run(("-m", "rawcodec", command, "--force", *files))
            height, width = SIZES[size]
            found = Measured(
                height * width / 1e6,
                command,
                done.megabytes,
                task.memory() / 1e6,
                done.seconds,
                done.processor,
            )
            print(found, file=sys.stderr, flush=True)
            measured.append(found)
        for path in (raw, jpeg, sidecar, decoded):
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / "memory.md").write_text(write(measured), encoding="utf-8")


def make(folder: Path, height: int, width: int) -> tuple[Path, Path]:
    """A raw of so many rows and columns, and its JPEG, in a folder."""
    source = read_raw(CHECKOUT / "examples" / "photo.dng").mosaic
    pixels = read_jpeg(CHECKOUT / "examples" / "photo.jpg").pixels
    alignment = register(source, pixels).alignment
    left, top = round(-alignment.position_x(0)), round(-alignment.position_y(0))
    samples = np.empty((height, width), np.uint16)
    picture = np.empty((height, width, 3), np.uint8)
    rng = np.random.default_rng(1)
    rows, columns = (n - _PIECE for n in pixels.shape[:2])
    for y in range(0, height, _PIECE):
        for x in range(0, width, _PIECE):
            # even, so that sites stay on their colours
            i, j = (2 * int(rng.integers(n // 2)) for n in (rows, columns))
            here = np.s_[y : y + _PIECE, x : x + _PIECE]
            tall, wide = samples[here].shape
            samples[here] = source.samples[top + i : top + i + tall, left + j : left + j + wide]
            picture[here] = pixels[i : i + tall, j : j + wide]
    sensor = type(source.sensor)(
        width, height, source.sensor.cfa, source.sensor.black, source.sensor.white
    )
    raw, jpeg = folder / "photo.dng", folder / "photo.jpg"
    with raw.open("wb") as file:
        write_dng(file, Mosaic(samples, sensor, source.make, source.model, source.tags), threads=2)
    Image.fromarray(picture).save(jpeg, quality=_JPEG_QUALITY)
    return raw, jpeg


def write(measured: list[Measured]) -> str:
    """The page."""
    first = {each.command: each for each in reversed(measured)}

    def ratio(each: Measured) -> str:
        base = first[each.command]
        return f"{each.processor / each.megapixels / (base.processor / base.megapixels):.2f}"

    def within(each: Measured) -> str:
        size = min(LIMITS, key=lambda size: abs(size - each.megapixels))
        if abs(size - each.megapixels) > 5:
            return "-"
        return f"{yes(each.megabytes < LIMITS[size])} ({LIMITS[size]:,} MB)"

    return page(
        "# Memory of large photos",
        "Photos of four sizes, made of pieces of the bundled photo, 256 sites across, laid side by "
        "side by chance, with JPEGs of quality 95 made likewise. `encode` includes its "
        "verification; memory is the highest resident size of the whole process, in 10^6 bytes, of "
        "which Python, PyTorch and the weights take 310. The ratio is that of the processors' time "
        "a megapixel to the first size's.",
        f"```\n{COMMAND} --work FOLDER\n```",
        versions(),
        table(
            [
                "megapixels:",
                "command",
                "memory, MB:",
                "within the bar",
                "supposed in a batch, MB:",
                "bytes a site beyond those:",
                "time, s:",
                "processors, s:",
                "ratio:",
            ],
            [
                [
                    f"{each.megapixels:.1f}",
                    f"`{each.command}`",
                    f"{each.megabytes:,.0f}",
                    within(each),
                    f"{each.supposed:,.0f}",
                    f"{(each.megabytes - _IDLE) / each.megapixels:.1f}",
                    f"{each.seconds:.1f}",
                    f"{each.processor:.1f}",
                    ratio(each),
                ]
                for each in measured
            ],
        ),
    )
