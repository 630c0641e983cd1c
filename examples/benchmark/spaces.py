"""What the colour space of a JPEG costs: docs/results/spaces.md.

LibRaw renders each raw in several spaces; the tone layer learns how the JPEG was rendered, and
with it the space, of whose profile the codec reads nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rawpy
from PIL import Image

import rawcodec

from .markdown import page, table, versions
from .pairs import Pair

COMMAND = "python -m examples.benchmark spaces"
QUALITIES = "tone", "medium"

SPACES = {
    "sRGB": rawpy.ColorSpace.sRGB,
    "Adobe RGB": rawpy.ColorSpace.Adobe,
    "Display P3": rawpy.ColorSpace.P3D65,
    "ProPhoto": rawpy.ColorSpace.ProPhoto,
}
"""Each with the curve of LibRaw's default, that of BT.709."""

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Coded:
    """A photo with its JPEG in one space: (bits per site, PSNR in dB) of each quality."""

    photo: str
    space: str
    points: tuple[tuple[float, float], ...]


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Encode each photo against its renderings, and write ``spaces.md`` to ``out``."""
    coded = []
    for photo, raw in {pair.photo: pair.raw for pair in pairs}.items():
        for space in SPACES:
            print(f"{photo}: {space}", file=sys.stderr, flush=True)
            coded.append(code(photo, raw, space, scratch / "rendered.jpg"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "spaces.md").write_text(write(coded), encoding="utf-8")


def code(photo: str, raw: Path, space: str, jpeg: Path) -> Coded:
    """Render a raw to ``jpeg``, and encode it with each quality."""
    with rawpy.imread(str(raw)) as opened:
        pixels = opened.postprocess(use_camera_wb=True, output_color=SPACES[space])
    Image.fromarray(pixels).save(jpeg, quality=JPEG_QUALITY)
    infos = [
        rawcodec.inspect(rawcodec.encode(raw, jpeg, quality=quality, verify=False))
        for quality in QUALITIES
    ]
    return Coded(photo, space, tuple((info.bpp, info.psnr_db) for info in infos))


def write(coded: Sequence[Coded]) -> str:
    """The page."""
    rows = [
        (each.photo, each.space, *(f"{bpp:.4f} / {psnr:.2f}" for bpp, psnr in each.points))
        for each in coded
    ]
    return page(
        "# JPEGs in other colour spaces",
        f"`{COMMAND}` makes this page. {versions()}",
        f"Each raw was rendered by LibRaw with the camera's white balance, saved as a JPEG of "
        f"quality {JPEG_QUALITY}, and encoded against it: bits per site / PSNR of the mosaic, dB. "
        "The codec reads no profile; the tone layer learns the space with the rest of the "
        "rendering. The wider a space, the coarser are its 8 bits.",
        table(("photo", "JPEG in", *(f"`{quality}`:" for quality in QUALITIES)), rows),
    )
