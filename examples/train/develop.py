"""Demosaicing: from samples in DN to white-balanced camera colours.

Bayer and X-Trans are left to LibRaw, as the demosaicing of the JPEGs that
users have is; it reads a small DNG from memory.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import rawpy
import tifffile
import torch

from rawcodec.mosaic import planes as mosaic_planes

from . import planes
from .camera import Camera, colour_of_sites

_BYTE, _ASCII, _SHORT, _LONG, _SRATIONAL = 1, 2, 3, 4, 10
_PHOTOMETRIC_CFA = 32803

BAYER_ALGORITHMS = ("LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD")
BAYER_SHARES = (0.06, 0.08, 0.16, 0.3, 0.16, 0.12, 0.12)
XTRANS_ALGORITHMS = ("LINEAR", "VNG", "PPG", "AHD")  # PPG: one pass, AHD: three


_LEAST = 512
"""Rows and columns below which LibRaw does not demosaic X-Trans."""


@dataclass(frozen=True)
class Development:
    """LibRaw's settings: demosaicing, FBDD noise reduction, median passes, highlights.

    highlights: 0 clips at white, 1 leaves channels at their own clipping
    levels, 2 blends.
    """

    algorithm: str
    fbdd: int
    medians: int
    highlights: int


def random_development(camera: Camera, rng: np.random.Generator) -> Development:
    """Settings that suit the camera's kind and noise."""
    if camera.kind == "xtrans":
        algorithm = str(rng.choice(XTRANS_ALGORITHMS, p=(0.1, 0.2, 0.35, 0.35)))
    else:
        algorithm = str(rng.choice(BAYER_ALGORITHMS, p=BAYER_SHARES))
    noisy = camera.iso > 800
    return Development(
        algorithm=algorithm,
        fbdd=int(rng.choice(3, p=(0.6, 0.2, 0.2) if noisy else (0.9, 0.05, 0.05))),
        medians=int(rng.choice(3, p=(0.6, 0.25, 0.15) if noisy else (0.85, 0.1, 0.05))),
        highlights=int(rng.choice(3, p=(0.7, 0.15, 0.15))),
    )


def levels(samples: np.ndarray, camera: Camera) -> np.ndarray:
    """Samples in DN to float32 of the same shape, black = 0, white = 1."""
    result = np.empty(samples.shape, np.float32)
    sensor = camera.sensor(*samples.shape[:2])
    for _, black, index in mosaic_planes(sensor):
        result[index] = (samples[index].astype(np.float32) - black) / (camera.white - black)
    return result


def demosaic(samples: np.ndarray, camera: Camera, development: Development) -> torch.Tensor:
    """White-balanced camera colours (3, H, W); green's white is 1, no values below 0."""
    mosaic = levels(samples, camera)
    gains = torch.tensor(camera.gains, dtype=torch.float32)[:, None, None]
    if camera.kind == "linear":
        colours = torch.from_numpy(np.ascontiguousarray(mosaic.transpose(2, 0, 1)))
        return _balance(colours, gains, development)
    if camera.kind == "mono":
        return torch.from_numpy(mosaic).clamp(0, 1).expand(3, -1, -1)
    if camera.kind == "quad":
        return _balance(_quad(mosaic, camera), gains, development)
    return libraw(mosaic, camera.cfa, camera.gains, development)


def linear_raw(samples: np.ndarray, camera: Camera, development: Development) -> np.ndarray:
    """Samples in DN of a linear raw, from those of the Bayer sensor behind it: uint16 (H, W, 3).

    samples: uint16 (H, W) in DN, taken with the black level of the first cell.
    """
    mosaic = (samples.astype(np.float32) - camera.black[0]) / (camera.white - camera.black[0])
    clipping = Development(development.algorithm, development.fbdd, development.medians, 0)
    colours = libraw(mosaic, camera.cfa, (1.0, 1.0, 1.0), clipping).numpy()
    black = np.array(camera.black, np.float32)
    result = np.rint(colours.transpose(1, 2, 0) * (camera.white - black) + black)
    return np.clip(result, 0, camera.top).astype(np.uint16)


def _balance(colours: torch.Tensor, gains: torch.Tensor, development: Development) -> torch.Tensor:
    """White balance; channels keep their own clipping levels unless highlights are clipped."""
    balanced = colours.clamp(0, 1) * gains
    return balanced.clamp_(max=1) if development.highlights == 0 else balanced


def libraw(
    mosaic: np.ndarray,
    cfa: tuple[str, ...],
    gains: tuple[float, float, float],
    development: Development,
) -> torch.Tensor:
    """LibRaw's demosaicing of a Bayer or X-Trans mosaic: (3, H, W), green's white = 1.

    mosaic: float32 (H, W), black = 0, white = 1.
    """
    samples = np.rint(np.clip(mosaic, 0, 1) * 65535).astype(np.uint16)
    height, width = samples.shape
    samples = np.pad(
        samples, ((0, max(0, _LEAST - height)), (0, max(0, _LEAST - width))), mode="edge"
    )
    with rawpy.imread(io.BytesIO(dng(samples, cfa))) as raw:
        colours = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm[development.algorithm],
            fbdd_noise_reduction=rawpy.FBDDNoiseReductionMode(development.fbdd),
            median_filter_passes=development.medians,
            highlight_mode=rawpy.HighlightMode(development.highlights),
            user_wb=[gains[0], gains[1], gains[2], gains[1]],
            output_color=rawpy.ColorSpace.raw,
            output_bps=16,
            gamma=(1, 1),
            no_auto_bright=True,
            adjust_maximum_thr=0,
            user_flip=0,
        )
    if colours.shape != (*samples.shape, 3):
        raise RuntimeError(f"LibRaw made {colours.shape} of {samples.shape}")
    colours = colours[:height, :width]
    planar = torch.from_numpy(colours.transpose(2, 0, 1).astype(np.float32))
    # LibRaw's smallest gain is 1 where it clips, its largest where it does not
    unit = min(gains) if development.highlights == 0 else max(gains)
    return planar * (unit / 65535)


def dng(samples: np.ndarray, cfa: tuple[str, ...]) -> bytes:
    """An uncompressed DNG of one mosaic: uint16 (H, W), black 0, white 65535."""
    pattern = bytes("RGB".index(letter) for row in cfa for letter in row)
    identity = tuple(n for i in range(9) for n in (int(i % 4 == 0), 1))
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder="<") as writer:
        writer.write(
            samples,
            photometric=_PHOTOMETRIC_CFA,
            metadata=None,
            software=False,
            extratags=[
                (50706, _BYTE, 4, (1, 4, 0, 0), True),
                (50707, _BYTE, 4, (1, 1, 0, 0), True),
                (50708, _ASCII, 0, "Synthetic camera", True),
                (271, _ASCII, 0, "Synthetic", True),
                (272, _ASCII, 0, "camera", True),
                (274, _SHORT, 1, 1, True),
                (33421, _SHORT, 2, (len(cfa), len(cfa[0])), True),
                (33422, _BYTE, len(pattern), pattern, True),
                (50710, _BYTE, 3, bytes((0, 1, 2)), True),
                (50714, _LONG, 1, 0, True),
                (50717, _LONG, 1, 65535, True),
                (50721, _SRATIONAL, 9, identity, True),
                (50778, _SHORT, 1, 21, True),
            ],
        )
    return file.getvalue()


def _quad(mosaic: np.ndarray, camera: Camera) -> torch.Tensor:
    """Demosaicing by weighted means: green, then the other colours' differences from it."""
    height, width = mosaic.shape
    sites = torch.from_numpy(colour_of_sites(camera.cfa, height, width))
    values = torch.from_numpy(mosaic).clamp(0, 1)
    balanced = values * torch.tensor(camera.gains, dtype=torch.float32)[sites]

    def fill(known: torch.Tensor, colour: int, sigma: float) -> torch.Tensor:
        mask = (sites == colour).float()[None]
        both = planes.gaussian(torch.cat([known[None] * mask, mask]), sigma)
        filled = both[0] / both[1].clamp(min=1e-6)
        return torch.where(mask[0] > 0, known, filled)

    green = fill(balanced, 1, 0.9)
    result = [green + fill(balanced - green, c, 1.3) if c != 1 else green for c in range(3)]
    return torch.stack(result) / torch.tensor(camera.gains, dtype=torch.float32)[:, None, None]
