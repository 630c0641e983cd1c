"""Make docs/picture.png: the bundled photo's JPEG, its raw, the raw that came back, the error.

python examples/picture.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import rawcodec
from rawcodec.mosaic import Mosaic, planes
from rawcodec.photo.raw import read_raw

EXAMPLES = Path(__file__).resolve().parent
OUT = EXAMPLES.parent / "docs" / "picture.png"

AMPLIFICATION = 100
"""How much brighter the error is shown than it is."""

WIDTH = 1600
GAP = 16
TITLE_SIZE, NOTE_SIZE = 25, 18
CAPTION = 76
WHITE_SHARE = 99.5
"""Percentile of the raw's sites that are shown white or darker."""


def main() -> None:
    """Encode and decode the bundled photo, and draw the four panels."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="default: docs/picture.png")
    out: Path = parser.parse_args().out

    raw, jpeg = EXAMPLES / "photo.dng", EXAMPLES / "photo.jpg"
    original = read_raw(raw).mosaic
    sidecar = rawcodec.encode(raw, jpeg)
    decoded = rawcodec.decode(jpeg, sidecar)
    info = rawcodec.inspect(sidecar)

    before, after = half_size(original), half_size(decoded)
    # both are shown with what was measured on the raw, so that they can be compared
    balance = grey_world(before)
    gain = balance / np.percentile(before * balance, WHITE_SHARE)
    height, width = original.samples.shape[:2]
    rendering = Image.open(jpeg).convert("RGB")
    crop = (width - rendering.width) // 2
    rendered = "half-size demosaic, grey-world balance, sRGB gamma"
    panels = [
        (
            framed(rendering, width, height),
            "The JPEG",
            f"{jpeg.stat().st_size:,} bytes, by RawTherapee, which crops {crop} pixels an edge",
        ),
        (
            picture(encode_srgb(before * gain)),
            "The raw",
            f"{raw.stat().st_size:,} bytes; {rendered}",
        ),
        (
            picture(encode_srgb(after * gain)),
            f"The raw that came back: JPEG + {len(sidecar):,} bytes",
            f"{info.psnr_db:.1f} dB, {info.bpp:.4f} bpp; shown like the raw",
        ),
        (
            picture(AMPLIFICATION * np.abs(after - before).mean(axis=2, keepdims=True)),
            f"The error, x {AMPLIFICATION}",
            "absolute difference of the two raws, mean of the colours, linear, white level at 1",
        ),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(panels, width / height).save(out, optimize=True)
    print(f"{out}: written")


def half_size(mosaic: Mosaic) -> np.ndarray:
    """Linear R, G, B of each 2x2 cell of a Bayer mosaic, black 0, white 1: (H/2, W/2, 3)."""
    rows, columns = (n // 2 for n in mosaic.samples.shape)
    total, count = np.zeros((rows, columns, 3)), np.zeros(3)
    for colour, black, index in planes(mosaic.sensor):
        plane = mosaic.samples[index][:rows, :columns].astype(np.float64)
        total[:, :, colour] += (plane - black) / (mosaic.sensor.white - black)
        count[colour] += 1
    cells: np.ndarray = total / count
    return cells


def grey_world(rgb: np.ndarray) -> np.ndarray:
    """Gains of R, G and B that make the picture's mean grey: (3,)."""
    means = rgb.mean(axis=(0, 1))
    gains: np.ndarray = means[1] / means
    return gains


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """The transfer function of sRGB (IEC 61966-2-1) of linear light, 0 to 1."""
    light = np.clip(linear, 0, 1)
    bent = 1.055 * light ** (1 / 2.4) - 0.055
    encoded: np.ndarray = np.where(light <= 0.0031308, 12.92 * light, bent)
    return encoded


def picture(values: np.ndarray) -> Image.Image:
    """A picture of values from 0 to 1: (H, W, 3), or (H, W, 1) for a grey one."""
    levels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(levels, (*levels.shape[:2], 3)).copy())


def framed(image: Image.Image, width: int, height: int) -> Image.Image:
    """The JPEG in the middle of the sensor's frame, so that all panels show the same."""
    frame = Image.new("RGB", (width, height), "#808080")
    frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return frame


def sheet(panels: list[tuple[Image.Image, str, str]], aspect: float) -> Image.Image:
    """Panels of one size in two columns, each above its title and note."""
    across = (WIDTH - 3 * GAP) // 2
    down = round(across / aspect)
    step = down + CAPTION + GAP
    rows = -(-len(panels) // 2)
    canvas = Image.new("RGB", (WIDTH, GAP + rows * step), "white")
    draw = ImageDraw.Draw(canvas)
    title, note = (ImageFont.load_default(size=size) for size in (TITLE_SIZE, NOTE_SIZE))
    for number, (image, heading, text) in enumerate(panels):
        left = GAP + number % 2 * (across + GAP)
        top = GAP + number // 2 * step
        canvas.paste(image.resize((across, down), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + down + 8), heading, fill="black", font=title)
        draw.text((left, top + down + 42), text, fill="#505050", font=note)
    return canvas


if __name__ == "__main__":
    main()
