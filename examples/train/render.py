"""The JPEG's look: from white-balanced camera colours to 8-bit pixels and a JPEG.

A random rendering in the order of a raw converter: vignetting, exposure,
colour matrix, noise reduction, tone curve, local contrast, saturation,
sharpening, geometry, JPEG.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from rawcodec.photo.align import Alignment

from . import planes
from .camera import Camera

_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

CURVES = ("contrast", "filmic", "gamma", "flat")
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class Rendering:
    """One rendering's choices.

    exposure: factor on linear light. correct_vignetting: takes the lens's
    vignetting back. balance: factors that the white balance is off by. hue: of
    a 3x3 matrix near the identity, rows summing to 1.
    curve: of ``CURVES``; gamma, contrast: its parameters; by_luma: applied to
    the largest channel, the others keeping their ratio. lift, ceiling: output
    of black and white. saturation: factor on colour differences.
    local_radius: sites; local_amount: of the large unsharp mask;
    local_tone: share of the log base that local tone mapping takes away.
    denoise: luma and chroma strength, in units of the noise's standard
    deviation; denoiser: "guided", "shrink" or "gaussian".
    sharpen_radius, sharpen_amount: of the unsharp mask.
    crop: left, top, right, bottom. scale: JPEG pixels per site; filter: how it
    is reduced. quality, subsampling: the JPEG's.
    """

    exposure: float
    correct_vignetting: bool
    balance: tuple[float, float, float]
    hue: tuple[tuple[float, ...], ...]
    curve: str
    gamma: float
    contrast: float
    by_luma: bool
    lift: float
    ceiling: float
    saturation: float
    local_radius: float
    local_amount: float
    local_tone: float
    denoiser: str
    denoise: tuple[float, float]
    sharpen_radius: float
    sharpen_amount: float
    crop: tuple[int, int, int, int]
    scale: float
    filter: str
    quality: int
    subsampling: str


def random_rendering(camera: Camera, rng: np.random.Generator) -> Rendering:
    """A rendering that fits the camera's exposure; everything else is drawn."""
    hue = np.eye(3) + rng.normal(0, 0.03, (3, 3))
    hue /= hue.sum(axis=1, keepdims=True)
    grey = camera.kind == "mono"
    geometry = rng.random()
    crop = (0, 0, 0, 0)
    scale = 1.0
    if geometry > 0.85:
        scale = float(rng.uniform(0.5, 0.9))
    elif geometry > 0.6:
        crop = tuple(int(n) for n in rng.integers(0, 9, size=4))
    local = rng.random() < 0.3
    off = rng.random() < 0.12
    quality = rng.random()
    if quality < 0.05:
        chosen = rng.integers(10, 51)
    elif quality < 0.25:
        chosen = rng.integers(60, 101)
    else:
        chosen = rng.integers(85, 98)
    return Rendering(
        exposure=float(max(0.6 / camera.exposure, 1) * 2 ** rng.uniform(-0.5, 0.25)),
        correct_vignetting=bool(rng.random() < 0.4),
        balance=(1.0, 1.0, 1.0)
        if grey
        else (float(2 ** rng.normal(0, 0.1)), 1.0, float(2 ** rng.normal(0, 0.1))),
        hue=tuple(tuple(float(v) for v in row) for row in (np.eye(3) if grey else hue)),
        curve=str(rng.choice(CURVES, p=(0.4, 0.3, 0.15, 0.15))),
        gamma=float(rng.uniform(1.8, 2.5)),
        contrast=float(rng.uniform(0, 0.7)),
        by_luma=bool(rng.random() < 0.3),
        lift=float(rng.uniform(0, 0.06)) if rng.random() < 0.25 else 0.0,
        ceiling=float(rng.uniform(0.94, 1)) if rng.random() < 0.15 else 1.0,
        saturation=0.0 if rng.random() < 0.015 else float(rng.uniform(0.8, 1.35)),
        local_radius=float(rng.uniform(15, 60)),
        local_amount=float(rng.uniform(0.05, 0.35)) if local else 0.0,
        local_tone=float(rng.uniform(0.05, 0.25)) if rng.random() < 0.12 else 0.0,
        denoiser=str(rng.choice(["guided", "shrink", "gaussian"], p=(0.45, 0.4, 0.15))),
        denoise=(0.0, 0.0)
        if off
        else (float(np.exp(rng.normal(0, 0.6))), float(1.8 * np.exp(rng.normal(0, 0.6)))),
        sharpen_radius=float(rng.uniform(0.5, 2)),
        sharpen_amount=float(rng.uniform(0.1, 1.1)) if rng.random() < 0.8 else 0.0,
        crop=crop,
        scale=scale,
        filter=str(rng.choice(["BOX", "BILINEAR", "BICUBIC", "LANCZOS"])),
        quality=int(chosen),
        subsampling=str(rng.choice(SUBSAMPLINGS, p=(0.3, 0.2, 0.5))),
    )


def render(colours: torch.Tensor, camera: Camera, rendering: Rendering) -> torch.Tensor:
    """White-balanced camera colours (3, H, W) to encoded sRGB, 0..1, of the same shape."""
    r = rendering
    height, width = colours.shape[1:]
    if r.correct_vignetting:
        colours = colours / camera.vignette(height, width)
    matrix = np.eye(3)
    if camera.kind != "mono":
        matrix = np.array(r.hue) @ np.linalg.inv(np.array(camera.to_camera))
        matrix = matrix @ np.diag(r.balance)
    linear = torch.einsum(
        "ij,jyx->iyx", torch.tensor(matrix * r.exposure, dtype=torch.float32), colours
    )
    linear.clamp_(min=0)
    if r.local_tone:
        luma = (linear * _LUMA).sum(0, keepdim=True).clamp_(min=1e-4)
        base = planes.gaussian(torch.log(luma), r.local_radius)
        linear = linear * torch.exp((math.log(0.18) - base) * r.local_tone)
    pixels = _curve(linear, r)
    pixels = _denoise(pixels, camera, r)
    if r.saturation != 1:
        luma = (pixels * _LUMA).sum(0, keepdim=True)
        pixels = luma + (pixels - luma) * r.saturation
    if r.local_amount:
        luma = (pixels * _LUMA).sum(0, keepdim=True)
        pixels = pixels + r.local_amount * (luma - planes.gaussian(luma, r.local_radius))
    if r.sharpen_amount:
        luma = (pixels * _LUMA).sum(0, keepdim=True)
        pixels = pixels + r.sharpen_amount * (luma - planes.gaussian(luma, r.sharpen_radius))
    return pixels.clamp_(0, 1)


def _curve(linear: torch.Tensor, r: Rendering) -> torch.Tensor:
    """Tone curve: linear light, any positive, to encoded values 0..1."""

    def encode(x: torch.Tensor) -> torch.Tensor:
        if r.curve == "filmic":  # Narkowicz's fit of the ACES curve
            x = 1.25 * x
            x = (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).clamp_(max=1)
        elif r.curve == "flat":
            return torch.log1p(30 * x.clamp(max=2)) / math.log1p(60)
        x = x.clamp(max=1) ** (1 / r.gamma)
        if r.curve == "contrast":
            x = x + r.contrast * (x * x * (3 - 2 * x) - x)
        return x

    if r.by_luma:
        top = linear.amax(0, keepdim=True).clamp_(min=1e-4)
        # the ratio of encoded values: keeps the hue, as in-camera curves on HSV's V do
        encoded = encode(top) * (linear / top) ** (1 / r.gamma)
    else:
        encoded = encode(linear)
    return r.lift + (r.ceiling - r.lift) * encoded


def _noise_level(camera: Camera, r: Rendering) -> float:
    """About the standard deviation of the noise at mid grey, in encoded values."""
    level = 0.18 / r.exposure
    sigma = math.sqrt(camera.shot * level + camera.read[0])
    return min(0.1, 0.46 / 2.2 * sigma / level * 0.7)


def _denoise(pixels: torch.Tensor, camera: Camera, r: Rendering) -> torch.Tensor:
    """Noise reduction of luma and colour differences, each with its strength."""
    if not any(r.denoise):
        return pixels
    noise = _noise_level(camera, r)
    luma = (pixels * _LUMA).sum(0, keepdim=True)
    differences = pixels - luma
    strength, colour_strength = (noise * s for s in r.denoise)
    # an absolute floor: cameras smooth the finest texture at base ISO, too
    strength, colour_strength = max(strength, 0.002), max(colour_strength, 0.004)
    if r.denoiser == "guided":
        luma = planes.guided(luma, 2 if strength < 0.03 else 3, strength)
    elif r.denoiser == "shrink":
        for sigma in (2.0, 0.8):
            base = planes.gaussian(luma, sigma)
            detail = luma - base
            luma = base + torch.nn.functional.softshrink(detail, strength * 0.7)
    else:
        luma = planes.gaussian(luma, min(1.5, 25 * strength))
    if colour_strength > 0.02:
        radius = min(8, 2 + int(60 * colour_strength))
        differences = planes.guided(differences, radius, 1.5 * colour_strength)
    elif r.denoise[1] > 1:
        differences = planes.gaussian(differences, min(2.0, 60 * colour_strength))
    return luma + differences


def write_jpeg(pixels: torch.Tensor, r: Rendering) -> tuple[bytes, Alignment]:
    """The JPEG of encoded pixels (3, H, W), cropped or reduced, and where the sites lie in it."""
    image = Image.fromarray(
        torch.round(pixels * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    )
    width, height = image.size
    left, top, right, bottom = r.crop
    scales, origins = (1.0, 1.0), (-float(left), -float(top))
    if r.scale != 1:
        small = max(1, round(width * r.scale)), max(1, round(height * r.scale))
        image = image.resize(small, Image.Resampling[r.filter])
        scales = small[0] / width, small[1] / height
        # pixel centres: site x covers x to x + 1, centre at x + 1/2
        origins = scales[0] / 2 - 0.5, scales[1] / 2 - 0.5
    elif any(r.crop):
        image = image.crop((left, top, width - right, height - bottom))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=r.quality, subsampling=r.subsampling)
    alignment = Alignment.from_floats(1, scales[0], origins[0], scales[1], origins[1])
    return file.getvalue(), alignment
