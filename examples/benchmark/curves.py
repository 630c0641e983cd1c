"""Rate-distortion curves: reading between measured points, and comparing two curves.

Between points a curve is a monotone piecewise cubic (Fritsch and Carlson,
"Monotone Piecewise Cubic Interpolation", 1980, with the end slopes of Moler,
"Numerical Computing with MATLAB", 3.6), over the logarithm of the rate. It is
never extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_STEPS = 2000  # of the trapezoidal rule; the error is far below what is printed


@dataclass(frozen=True)
class Point:
    """One size of a coded photo: bits per visible site, and PSNR in dB."""

    bpp: float
    psnr: float


def monotone(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The monotone piecewise cubic through (x, y), x rising, at places within x's range."""
    if len(x) == 1:
        return np.full(np.shape(at), y[0])
    width = np.diff(x)
    secant = np.diff(y) / width
    slope = _slopes(width, secant)
    cell = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
    h, t = width[cell], (at - x[cell]) / width[cell]
    value: np.ndarray = (
        y[cell] * (1 + 2 * t) * (1 - t) ** 2
        + y[cell + 1] * t**2 * (3 - 2 * t)
        + h * slope[cell] * t * (1 - t) ** 2
        - h * slope[cell + 1] * t**2 * (1 - t)
    )
    return value


def psnr_at(curve: Sequence[Point], bpp: float) -> float | None:
    """PSNR of a curve at a rate; None outside of it."""
    points = sorted(curve, key=lambda point: point.bpp)
    if not points or not points[0].bpp <= bpp <= points[-1].bpp:
        return None
    x = np.log([point.bpp for point in points])
    y = np.array([point.psnr for point in points])
    return float(monotone(x, y, np.array(math.log(bpp)).clip(x[0], x[-1])))


def bpp_at(curve: Sequence[Point], psnr: float) -> float | None:
    """The rate at which a curve has a PSNR; None outside of it, or where it does not rise."""
    points = sorted(curve, key=lambda point: point.bpp)
    x = np.array([point.psnr for point in points])
    if len(x) < 2 or np.any(np.diff(x) <= 0) or not x[0] <= psnr <= x[-1]:
        return None
    y = np.log([point.bpp for point in points])
    return math.exp(float(monotone(x, y, np.array(psnr))))


def bd_rate(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """How many more bits we need for the same PSNR, as a share of theirs; negative is fewer.

    The mean difference of the logarithms of the rates (Bjontegaard, VCEG-M33)
    over the PSNR that both curves reach. None where there is no such PSNR, or
    a curve has a PSNR twice or falls with the rate.
    """
    curves = []
    for curve in (ours, theirs):
        points = sorted(curve, key=lambda point: point.bpp)
        psnr = np.array([point.psnr for point in points])
        if len(points) < 2 or np.any(np.diff(psnr) <= 0):
            return None
        curves.append((psnr, np.log([point.bpp for point in points])))
    low = max(psnr[0] for psnr, _ in curves)
    high = min(psnr[-1] for psnr, _ in curves)
    if low >= high:
        return None
    at = np.linspace(low, high, _STEPS + 1)
    we, they = (monotone(psnr, rate, at) for psnr, rate in curves)
    difference = we - they
    mean = float((difference[1:] + difference[:-1]).mean() / 2)
    return math.exp(mean) - 1


def _slopes(width: np.ndarray, secant: np.ndarray) -> np.ndarray:
    """Slopes at the points that keep the cubics monotone."""
    if len(width) == 1:
        return np.repeat(secant, 2)
    slope = np.zeros(len(width) + 1)
    left, right = secant[:-1], secant[1:]
    inner = left * right > 0
    a, b = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    slope[1:-1][inner] = (a + b)[inner] / (a[inner] / left[inner] + b[inner] / right[inner])
    slope[0] = _end_slope(width[0], width[1], secant[0], secant[1])
    slope[-1] = _end_slope(width[-1], width[-2], secant[-1], secant[-2])
    return slope


def _end_slope(near: float, next_: float, first: float, second: float) -> float:
    slope = ((2 * near + next_) * first - near * second) / (near + next_)
    if slope * first <= 0:
        return 0.0
    if first * second <= 0 and abs(slope) > 3 * abs(first):
        return 3 * first
    return float(slope)
