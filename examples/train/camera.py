"""A random camera: colours, optics and sensor, and the mosaic that it takes of a scene.

Colour and noise follow Brooks et al. (CVPR 2019), sections 3.1 and 3.2; the
noise is that of a DNG's NoiseProfile: variance S x + O of a value x whose
black is 0 and white is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rawcodec.mosaic import COLOURS
from rawcodec.mosaic import planes as mosaic_planes
from rawcodec.sensor import Sensor

from . import planes

BAYER = (("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR"))
QUAD = ("RRGG", "RRGG", "GGBB", "GGBB")
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")

KINDS = {"bayer": 0.72, "xtrans": 0.08, "quad": 0.05, "mono": 0.05, "linear": 0.10}
"""Shares of the kinds of sensor."""

# XYZ to camera, times 10,000, as DNG files and dcraw hold them (D65).
_XYZ_TO_CAMERA = (
    (4716, 603, -830, -7798, 15474, 2480, -1496, 1937, 6651),  # Canon EOS 5D Mark II
    (6722, -635, -963, -4287, 12460, 2028, -908, 2162, 5668),  # Canon EOS 5D Mark III
    (7457, -671, -937, -4849, 12495, 2643, -1213, 2354, 5492),  # Canon EOS 80D
    (8139, -2171, -663, -8747, 16541, 2295, -1925, 2008, 8093),  # Nikon D700
    (7866, -2108, -555, -4869, 12483, 2681, -1176, 2069, 7501),  # Nikon D800
    (10405, -3755, -1270, -5461, 13787, 1793, -1040, 2015, 6785),  # Nikon D850
    (5271, -712, -347, -6153, 13653, 2763, -1601, 2366, 7242),  # Sony ILCE-7
    (6640, -1847, -503, -5238, 13010, 2474, -993, 1673, 6527),  # Sony ILCE-7RM3
    (8458, -2451, -855, -4597, 12447, 2407, -1475, 2482, 6526),  # Fujifilm X-T1
    (11434, -4948, -1210, -3746, 12042, 1903, -666, 1479, 5235),  # Fujifilm X-T2
    (8380, -2630, -639, -2887, 10725, 2496, -627, 1427, 5438),  # Olympus E-M5
    (7687, -1984, -606, -4327, 11928, 2721, -1381, 2339, 6452),  # Olympus E-M1
    (7122, -2108, -512, -3155, 11201, 2231, -541, 1423, 5045),  # Panasonic DMC-GH4
    (8713, -2833, -743, -4342, 11900, 2772, -722, 1543, 6247),  # Pentax K-5
)

SRGB_TO_XYZ = np.array(  # IEC 61966-2-1
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)

_BLACK_LEVELS = {
    10: (0, 42, 64),
    12: (0, 64, 128, 150, 200, 256),
    14: (0, 256, 512, 600, 1008, 1024, 2048),
}
"""Usual black levels in DN, by the bits of a sample."""


@dataclass(frozen=True)
class Camera:
    """One camera at one setting.

    kind: of ``KINDS``. cfa: as in Sensor; that of the Bayer sensor behind a
    linear raw, too. gains: white balance of R, G and B, green 1.
    to_camera: 3x3, linear sRGB to white-balanced camera colours, rows summing
    to 1. exposure: green level, white = 1, of the scene's white. blur: sigma
    in sites for R, G and B. vignetting: EV lost in the corners.
    shot, read: S and O of the noise, white = 1; read by cell of the pattern.
    black: DN by cell. white: DN. top: highest DN that the sensor gives.
    smoothing: share of a site's noise that goes to its neighbours of the same
    colour.
    """

    kind: str
    cfa: tuple[str, ...]
    gains: tuple[float, float, float]
    to_camera: tuple[tuple[float, ...], ...]
    exposure: float
    blur: tuple[float, float, float]
    vignetting: float
    iso: float
    shot: float
    read: tuple[float, ...]
    bits: int
    black: tuple[int, ...]
    white: int
    top: int
    smoothing: float

    def sensor(self, height: int, width: int) -> Sensor:
        """The product's description of a mosaic of this camera."""
        return Sensor(
            width, height, () if self.kind == "linear" else self.cfa, self.black, self.white
        )

    def vignette(self, height: int, width: int) -> torch.Tensor:
        """What share of the light arrives: (H, W)."""
        return torch.exp2(-self.vignetting * planes.radius_squared(height, width))


def random_camera(rng: np.random.Generator, kind: str | None = None) -> Camera:
    """A camera, of a given kind or with the shares of ``KINDS``."""
    drawn = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or drawn
    cfa = BAYER[int(rng.integers(4))]
    if kind == "xtrans":
        dy, dx = (int(n) for n in rng.integers(6, size=2))
        cfa = tuple((row * 2)[dx : dx + 6] for row in (XTRANS * 2)[dy : dy + 6])
    elif kind == "quad":
        cfa = QUAD
    elif kind == "mono":
        cfa = ("G",)
    cells = 3 if kind == "linear" else len(cfa) * len(cfa[0])

    base = 100.0 * 2 ** rng.uniform(-1, 1)
    iso = max(base, _log_uniform(rng, *((50, 1600) if rng.random() < 0.75 else (1600, 12800))))
    # electrons at white: of a phone's to a full frame's pixel
    electrons = _log_uniform(rng, *((4e3, 1e4) if rng.random() < 0.2 else (1e4, 8e4)))
    electrons *= base / iso
    bits = int(rng.choice([10, 12, 14], p=[0.12, 0.38, 0.5]))
    shot = float(np.clip(1 / electrons, 1e-5, 1e-2))
    span = 2**bits - 1
    read_electrons, converter = rng.uniform(1, 6), rng.uniform(0.2, 1.5) * 2 ** max(bits - 13, 0)
    read = (read_electrons / electrons) ** 2 + (converter / span) ** 2
    black = int(rng.choice(_BLACK_LEVELS[bits]))
    uneven = black and rng.random() < 0.2
    blacks = [black + (int(rng.integers(-3, 4)) if uneven else 0) for _ in range(cells)]
    if kind == "xtrans":
        blacks = [black] * cells
    white = span if rng.random() < 0.4 else int(span * rng.uniform(0.85, 1))
    top = white if rng.random() < 0.75 else min(span, int(white * rng.uniform(1, 1.02)))

    weights = rng.dirichlet(np.full(len(_XYZ_TO_CAMERA), 0.3))
    xyz_to_camera = np.tensordot(weights, np.array(_XYZ_TO_CAMERA) / 1e4, 1).reshape(3, 3)
    to_camera = xyz_to_camera @ SRGB_TO_XYZ
    to_camera /= to_camera.sum(axis=1, keepdims=True)
    blur = rng.uniform(0.3, 0.9)
    gains = (float(rng.uniform(1.4, 2.6)), 1.0, float(rng.uniform(1.3, 2.4)))
    return Camera(
        kind=kind,
        cfa=cfa,
        gains=(1.0, 1.0, 1.0) if kind == "mono" else gains,
        to_camera=tuple(tuple(float(v) for v in row) for row in to_camera),
        exposure=_log_uniform(rng, 0.3, 0.8),
        blur=tuple(float(blur * rng.uniform(0.9, 1.1)) for _ in range(3)),
        vignetting=float(rng.uniform(0, 1.2)) if rng.random() < 0.75 else 0.0,
        iso=iso,
        shot=shot,
        read=tuple(float(read * rng.uniform(0.8, 1.25)) for _ in range(cells)),
        bits=bits,
        black=tuple(blacks),
        white=white,
        top=top,
        smoothing=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.04 else 0.0,
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two, its logarithm uniform."""
    return float(np.exp(rng.uniform(*np.log((low, high)))))


def irradiance(scene: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Light on the sensor, without noise: (3, H, W), white = 1, not yet clipped.

    scene: linear sRGB (3, H, W). A monochrome sensor sees one grey in all three.
    """
    matrix = torch.tensor(camera.to_camera, dtype=torch.float32)
    light = torch.einsum("ij,jyx->iyx", matrix, scene).clamp_(min=0)
    if camera.kind == "mono":
        light = light.mean(0, keepdim=True).expand(3, -1, -1)
    gains = torch.tensor(camera.gains, dtype=torch.float32)[:, None, None]
    light = light * (camera.exposure / gains)
    light = torch.cat([planes.gaussian(light[c : c + 1], camera.blur[c]) for c in range(3)])
    return light * camera.vignette(*scene.shape[1:])


def colour_of_sites(cfa: tuple[str, ...], height: int, width: int) -> np.ndarray:
    """0, 1, 2 for R, G, B at every site of a CFA: int64 (H, W)."""
    cell = np.array([[COLOURS.index(letter) for letter in row] for row in cfa])
    rows, columns = -(-height // cell.shape[0]), -(-width // cell.shape[1])
    return np.tile(cell, (rows, columns))[:height, :width]


def expose(light: torch.Tensor, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The samples in DN, with noise, clipped: uint16 (H, W).

    light: of :func:`irradiance`. Not for linear raws: see ``develop.linear_raw``.
    """
    height, width = light.shape[1:]
    sites = torch.from_numpy(colour_of_sites(camera.cfa, height, width))
    mosaic = light.gather(0, sites[None])[0].numpy()
    noise = rng.standard_normal((height, width), dtype=np.float32)
    if camera.smoothing:
        noise = _smooth_noise(noise, camera)
    samples = np.empty((height, width), np.uint16)
    blacks, read = camera.black, camera.read
    if camera.kind == "linear":  # the Bayer sensor behind it
        blacks, read = (blacks[0],) * 4, (read[0],) * 4
    sensor = Sensor(width, height, camera.cfa, blacks, camera.white)
    for variance, (_, black, index) in zip(read, mosaic_planes(sensor), strict=True):
        plane = mosaic[index]
        sigma = np.sqrt(camera.shot * plane + variance)
        level = (plane + sigma * noise[index]) * (camera.white - black) + black
        samples[index] = np.clip(np.rint(level), 0, camera.top)
    return samples


def _smooth_noise(noise: np.ndarray, camera: Camera) -> np.ndarray:
    """Noise that a near-lossless codec in the camera has smoothed within each colour."""
    smooth = np.empty_like(noise)
    rows, columns = len(camera.cfa), len(camera.cfa[0])
    share = camera.smoothing / 2
    kernel = torch.tensor([share / 2, 1 - share, share / 2], dtype=torch.float32)
    for i in range(rows):
        for j in range(columns):
            plane = torch.from_numpy(np.ascontiguousarray(noise[i::rows, j::columns]))[None]
            smooth[i::rows, j::columns] = planes.separable(plane, kernel)[0].numpy()
    return smooth
