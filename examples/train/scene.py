"""Scenes in linear light: contact sheets of photographs.

Photographs are brought back to linear light as in Brooks et al.,
"Unprocessing Images for Learned Raw Denoising" (CVPR 2019), section 3. Several
of them share a frame, so that a tone layer fitted to the frame is as far from
overfitting as on a camera's much larger picture.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import planes

SHELVES = 6
"""Rows of photographs on a sheet."""

SCALES = (0.45, 1.3)
"""How much smaller photographs are made: below 1, larger, as the finest detail of a sensor is
much softer than that of a picture that was reduced before."""

_LUMA = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]


def find_photos(folder: Path) -> list[Path]:
    """The photographs of a folder, 8-bit sRGB (.webp, .png) and linear (.hdr), sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix in (".webp", ".png", ".hdr"))


def read_photo(path: Path) -> torch.Tensor:
    """A photograph: (3, H, W), encoded sRGB 0..1, or linear radiance for .hdr."""
    if path.suffix == ".hdr":
        pixels = read_radiance(path.read_bytes())
    else:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def read_radiance(data: bytes) -> np.ndarray:
    """Pixels of a Radiance RGBE file with run lengths: float32 (H, W, 3)."""
    head, _, rest = data.partition(b"\n\n")
    if not head.startswith(b"#?"):
        raise ValueError("is no Radiance picture")
    size, _, body = rest.partition(b"\n")
    sign_y, rows, sign_x, columns = size.split()
    if (sign_y, sign_x) != (b"-Y", b"+X"):
        raise ValueError("a Radiance picture that does not start at the top left")
    height, width = int(rows), int(columns)
    rgbe = np.empty((height, 4, width), np.uint8)
    place = 0
    for y in range(height):
        if body[place : place + 4] != bytes((2, 2, width >> 8, width & 255)):
            raise ValueError("a Radiance picture without run lengths")
        place += 4
        for channel in range(4):
            x = 0
            while x < width:
                count = body[place]
                if count > 128:
                    rgbe[y, channel, x : x + count - 128] = body[place + 1]
                    x, place = x + count - 128, place + 2
                else:
                    run = np.frombuffer(body, np.uint8, count, place + 1)
                    rgbe[y, channel, x : x + count] = run
                    x, place = x + count, place + 1 + count
    scale = np.ldexp(np.float32(1), rgbe[:, 3].astype(np.int32) - 136)
    scale[rgbe[:, 3] == 0] = 0
    return (rgbe[:, :3] * scale[:, None]).transpose(0, 2, 1).astype(np.float32)


def to_linear(encoded: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """sRGB to linear light with an S-curve taken back, and highlights above 1.

    The S-curve is Brooks' smoothstep, of a random share; what an 8-bit
    photograph holds at its white may be up to four times as bright.
    """
    threshold = 0.04045
    linear = torch.where(
        encoded <= threshold, encoded / 12.92, ((encoded + 0.055) / 1.055).clamp(min=0) ** 2.4
    )
    share = rng.uniform(0, 0.8)
    steep = 0.5 - torch.sin(torch.asin(1 - 2 * linear.clamp(0, 1)) / 3)
    linear = linear + share * (steep - linear)
    boost = float(rng.uniform(0, 3)) * (rng.random() < 0.5)
    if boost:
        bright = ((encoded * _LUMA).sum(0, keepdim=True) - 0.9).clamp(0, 0.1) * 10
        linear = linear * (1 + boost * bright * planes.gaussian(bright, rng.uniform(2, 12)))
    return linear


def contact_sheet(
    photos: list[Path], height: int, width: int, rng: np.random.Generator
) -> tuple[torch.Tensor, list[dict[str, object]]]:
    """Random photographs on shelves: linear Rec. 709 light (3, H, W), and what was put where.

    Each is turned, mirrored, scaled and exposed by -1.8 to 0.4 EV, some by up to 1.5;
    the white of an 8-bit photograph is 1 before that.
    """
    sheet = torch.zeros(3, height, width)
    edges = np.linspace(0, height, SHELVES + 1).astype(int)
    order = rng.permutation(len(photos))
    turn = 0
    tiles: list[dict[str, object]] = []
    for top, bottom in pairwise(edges):
        left = 0
        while left < width:
            path = photos[order[turn % len(order)]]
            turn += 1
            tile = _tile(path, int(bottom - top), width - left, rng)
            ev = float(rng.uniform(-1.8, 0.4) if rng.random() < 0.85 else rng.uniform(0, 1.5))
            right = left + tile.shape[2]
            sheet[:, top:bottom, left:right] = tile * 2**ev
            tiles.append({"photo": path.name, "left": left, "top": int(top), "ev": round(ev, 3)})
            left = right
    return sheet, tiles


def _tile(path: Path, height: int, most: int, rng: np.random.Generator) -> torch.Tensor:
    """A piece of a photograph: linear (3, height, at most ``most``)."""
    photo = read_photo(path)
    linear = path.suffix == ".hdr"
    photo = torch.rot90(photo, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        photo = photo.flip(2)
    if linear:
        luma = (photo * _LUMA).sum(0)
        photo = photo.clamp(min=0) / float(torch.quantile(luma[::4, ::4].flatten(), 0.9))
        photo = photo * float(2 ** rng.uniform(-1.5, 0.5))
    else:
        photo = to_linear(photo, rng)
    scale = min(float(np.exp(rng.uniform(*np.log(SCALES)))), photo.shape[1] / height)
    rows, columns = (max(1, round(n / scale)) for n in photo.shape[1:])
    rows = max(rows, height)
    if (rows, columns) != tuple(photo.shape[1:]):
        photo = planes.resize(photo, rows, columns)
    top = int(rng.integers(rows - height + 1))
    wide = min(columns, most, 2 * height)
    left = int(rng.integers(columns - wide + 1))
    return photo[:, top : top + height, left : left + wide].clamp(min=0)
