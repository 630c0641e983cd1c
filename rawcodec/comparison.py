"""How far what came back of a raw is from it: as numbers, by brightness, and by place."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from .errors import RawcodecError
from .mosaic import Mosaic, planes
from .pipeline import mosaic_error

STOPS: Final = 12
"""How many halvings of the white level are told apart; what is darker is one range."""

_ROWS: Final = 64  # at a time: few enough for the cache
_SAMPLES: Final = 1 << 16


@dataclass(frozen=True)
class Level:
    """The sites of a range of brightness of the original.

    low, high: the range, black being 0 and white 1; the first has no upper end (infinity), the
        last no lower one (minus infinity).
    sites: how many samples are in it. rms, mean, largest: of the errors, in DN; ``mean`` with its
        sign, positive where the other is brighter. 0 where there is no sample.
    """

    low: float
    high: float
    sites: int
    rms: float
    mean: float
    largest: int


@dataclass(frozen=True)
class Comparison:
    """Two mosaics of one size.

    psnr_db: of linear, black-subtracted samples with the white level at 1; infinite if they are
        equal. max_error, rms: in DN. levels: from bright to dark.
    histogram: int64 (65536,), how many samples have each absolute error, in DN.
    """

    psnr_db: float
    max_error: int
    rms: float
    levels: tuple[Level, ...]
    histogram: np.ndarray

    @property
    def lossless(self) -> bool:
        return self.max_error == 0

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold: None in the place of infinite numbers."""
        return {
            "psnr_db": None if self.lossless else self.psnr_db,
            "lossless": self.lossless,
            "max_error": self.max_error,
            "rms": self.rms,
            "levels": [
                {
                    name: None if isinstance(value, float) and math.isinf(value) else value
                    for name, value in asdict(level).items()
                }
                for level in self.levels
            ],
        }


def compare(original: Mosaic, samples: np.ndarray, name: str = "the other one") -> Comparison:
    """The errors of samples against a mosaic: of its shape, uint16.

    Levels and white are those of the original. Raises RawcodecError, whose message begins with
    ``name``, for samples of another size.
    """
    sensor = original.sensor
    if samples.shape != sensor.shape:
        theirs, ours = ("x".join(map(str, shape)) for shape in (samples.shape, sensor.shape))
        raise RawcodecError(
            f"{name}: has {theirs} samples, and the raw {ours}; "
            f"compare a raw with what was made of it"
        )
    psnr, largest = mosaic_error(original, samples)
    edges = 0.5 ** np.arange(STOPS + 1)
    signed = np.zeros((STOPS + 2, 2 * _SAMPLES - 1), np.int64)  # by level and error
    for _, black, index in planes(sensor):
        linear = (np.arange(_SAMPLES) - black) / (sensor.white - black)
        level = np.searchsorted(-edges, -linear, "left").astype(np.int64)
        mine, others = original.samples[index], samples[index]
        for top in range(0, len(mine), _ROWS):
            part = slice(top, top + _ROWS)
            errors = others[part].astype(np.int64) - mine[part]
            place = level.take(mine[part]) * signed.shape[1] + errors + _SAMPLES - 1
            np.add.at(signed.reshape(-1), place.ravel(), 1)
    return Comparison(psnr, largest, *_summed(signed, edges))


def _summed(signed: np.ndarray, edges: np.ndarray) -> tuple[float, tuple[Level, ...], np.ndarray]:
    """RMS, levels and histogram of the numbers of errors by level."""
    errors = np.arange(1 - _SAMPLES, _SAMPLES, dtype=np.float64)
    levels = []
    for number, counts in enumerate(signed):
        sites = int(counts.sum())
        low = float(edges[number]) if number < len(edges) else -math.inf
        high = float(edges[number - 1]) if number else math.inf
        found = np.flatnonzero(counts)
        levels.append(
            Level(
                low,
                high,
                sites,
                math.sqrt(float(counts @ errors**2) / max(sites, 1)),
                float(counts @ errors) / max(sites, 1),
                int(np.abs(errors[found]).max(initial=0)),
            )
        )
    total = signed.sum(0)
    histogram = total[_SAMPLES - 1 :].copy()
    histogram[1:] += total[: _SAMPLES - 1][::-1]
    rms = math.sqrt(float(total @ errors**2) / max(int(total.sum()), 1))
    return rms, tuple(levels), histogram


def error_sites(original: Mosaic, samples: np.ndarray) -> np.ndarray:
    """Absolute errors in DN, int32 (H, W); of a linear raw, the largest of a site's three."""
    errors: np.ndarray = np.abs(samples.astype(np.int32) - original.samples)
    return np.amax(errors, axis=2) if original.sensor.linear else errors
