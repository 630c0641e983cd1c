"""How an encoder fits the filters of :mod:`.fitted` to a photo: weighted least squares.

Errors count as what they cost. Latents of a place with the mean squared error e take about
log2(1 + 6 e / step^2) / 2 bits a site, whose derivative is the weight of errors that latents will
correct. What they have left counts as distortion, in the bits that a finer step would take to
lower it as much.

Weights are rounded one by one, the rest making up for each (Frantar et al., "GPTQ", ICLR 2023), in
steps for which their own bits and those that they save balance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from .bands import over_bands
from .config import ACTIVATION_MAX, DISTORTION_WEIGHT, FILTER_UNIT, LATENTS, QUAD, ZERO
from .fitted import (
    CHANNELS,
    CONSTANT_LIMIT,
    OCTAVES,
    SHIFT_LIMIT,
    TAPS,
    Coefficients,
    Sight,
    activity,
    outputs,
    phases,
    shapes,
)
from .seen import MARGIN
from .tables import Tables

SAMPLES = 500_000
"""Quads that are looked at, where there are more."""

_STRIP = 8
"""Rows of quads that are looked at together, of every so many where a photo has more samples."""

_TILE = 4
"""Quads across the place of which an error is the mean."""

_RIDGE = 1e-4
"""Of the mean square of an input, added to it."""

_CONSTANT = float(ZERO)
_PART = 1 << 14
_BITS = 0.5 / math.log(2)
"""Bits a site, of a relative change of the squared error."""

_WORTH = 0.65
"""Of what the choice of latents takes distortion for, what a finer step would take for it: on real
photos, from the sizes and PSNR of neighbouring qualities."""


Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of the errors of some sites in the residual's domain, float32 (2h, 2w), and its squared slope at
quads, float32 (h, w), the weights of squared companded errors: float32 (h, w)."""


@dataclass(frozen=True)
class _Samples:
    """Quads (n,): inputs uint8 (n, 9, c), tap by tap, of the first c channels, the others being
    the same everywhere, which the constant stands for; what to add to the sites, float32 (n, 4),
    companded; the weight, float32; activity and brightness, int16; and the phase of the pattern.

    share: how many quads of the photo each stands for."""

    inputs: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray
    activity: np.ndarray
    luma: np.ndarray
    phase: np.ndarray
    share: float


@dataclass
class _Normal:
    """Sums of products over some quads, of the inputs and of a constant, and the quads' number:
    (9 c + 1, 9 c + 1), (9 c + 1, 4) and (4,)."""

    squares: np.ndarray
    products: np.ndarray
    energy: np.ndarray
    count: float

    def __add__(self, other: _Normal) -> _Normal:
        return _Normal(
            self.squares + other.squares,
            self.products + other.products,
            self.energy + other.energy,
            self.count + other.count,
        )


def fit_ahead(
    sight: Sight,
    tone: np.ndarray,
    raw: np.ndarray,
    forward: np.ndarray,
    step: int,
    tables: Tables,
) -> Coefficients | None:
    """The filter that saves the most bits of latents, its own counted; None if none does.

    tone: uint16 (H, W), what it is to correct; raw: what that should be; companded. forward: to
    the residual's domain. step: of the latents, there.
    """

    def weigh(error: np.ndarray, steep: np.ndarray) -> np.ndarray:
        place = _means(_of_quads(np.square(error)).mean(2))
        weight: np.ndarray = steep / (place + step**2 / 6)
        return weight

    return _fit(sight, tone, raw, forward, tables, weigh)


def fit_after(
    sight: Sight,
    decoded: np.ndarray,
    raw: np.ndarray,
    forward: np.ndarray,
    step: int,
    tables: Tables,
) -> Coefficients | None:
    """The filter that corrects the most for its bits; None if none does.

    decoded: uint16 (H, W), what latents have made of the plane; see ``fit_ahead``.
    """
    worth = np.float32(_WORTH * DISTORTION_WEIGHT / _BITS / step**2)
    return _fit(sight, decoded, raw, forward, tables, lambda _, steep: worth * steep)


def _fit(
    sight: Sight,
    ours: np.ndarray,
    raw: np.ndarray,
    forward: np.ndarray,
    tables: Tables,
    weigh: Weigh,
) -> Coefficients | None:
    """The filter that takes the fewest bits, its own and those of the errors that it leaves."""
    if min(raw.shape) < 2 * _STRIP:
        return None
    samples = _look(sight, ours, raw, forward.astype(np.int32), weigh)
    colours = sight.seen.plane.colours
    every, quads, possible = outputs(colours), phases(colours), shapes(colours)
    finest = possible[-1]
    levels = [(samples.activity, finest[0]), (samples.luma, finest[1])]
    thresholds = [_thresholds(values, count) for values, count in levels]
    group = np.zeros(len(samples.weight), int)  # by finest class, then by phase
    for (values, count), limits in zip(levels, thresholds, strict=True):
        group = group * count + np.searchsorted(limits, values, "right")
    group = group * len(quads) + samples.phase
    sums = _normals(samples, group, finest[0] * finest[1] * len(quads))
    # without a filter, all of the error is left
    best, least = None, _BITS * float(sum(part.energy.sum() for part in sums))
    for shape in possible:
        fewer = finest[0] // shape[0], finest[1] // shape[1]
        parts = [
            (functools.reduce(_Normal.__add__, (sums[i] for i in groups)), where)
            for groups, where in _partition(shape, fewer, finest, quads, every).items()
        ]
        found, cost = _rounded(parts, [site for site, _ in every], samples.share, tables)
        kept = [
            int(threshold)
            for limits, skip in zip(thresholds, fewer, strict=True)
            for threshold in limits[skip - 1 :: skip]
        ]
        cost += 8 * (2 + 2 * len(kept))
        if cost < least:
            best, least = Coefficients(shape, tuple(kept), *found), cost
    return best


def _partition(
    shape: tuple[int, int],
    fewer: tuple[int, int],
    finest: tuple[int, int],
    quads: list[tuple[int, ...]],
    every: list[tuple[int, int]],
) -> dict[tuple[int, ...], list[int]]:
    """By the groups of samples that they are fitted to, the outputs of the filter.

    Classes of a coarser shape are several of the finest, and outputs of a site's colour are of the
    phases where it has that colour. fewer: finest classes in one, by activity and by brightness.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for number in range(shape[0] * shape[1]):
        split, shade = divmod(number, shape[1])
        inside = [
            i * finest[1] + j
            for i in range(split * fewer[0], (split + 1) * fewer[0])
            for j in range(shade * fewer[1], (shade + 1) * fewer[1])
        ]
        for at, (site, colour) in enumerate(every):
            of = [n for n, quad in enumerate(quads) if quad[site] == colour]
            groups = tuple(i * len(quads) + n for i in inside for n in of)
            found.setdefault(groups, []).append(number * len(every) + at)
    return found


def _thresholds(values: np.ndarray, count: int) -> np.ndarray:
    limits: np.ndarray = np.quantile(values, np.arange(1, count) / count, method="higher")
    return limits.astype(int)


def _look(
    sight: Sight, ours: np.ndarray, raw: np.ndarray, forward: np.ndarray, weigh: Weigh
) -> _Samples:
    """Quads by chance, of some strips, or all.

    ours: what is to be corrected.
    """
    colours = sight.seen.plane.colours
    height, width = (n // QUAD for n in raw.shape)
    strips = np.arange(0, height - _STRIP + 1, _STRIP)
    if height % _STRIP:
        strips = np.append(strips, height - _STRIP)
    stride = max(1, len(strips) * _STRIP * width // (3 * SAMPLES))
    strips = strips[stride // 2 :: stride]
    each = min(_STRIP * width, SAMPLES // len(strips))
    period = [int(np.lcm(QUAD, n)) // QUAD for n in colours.shape]
    near = np.arange(-1, 2)
    slope = _slope(forward)
    parts: list[tuple[np.ndarray, ...]] = [()] * len(strips)

    def look(number: int, _: int) -> None:
        top, rng = strips[number], np.random.default_rng([1, number])
        here = slice(QUAD * top, QUAD * (top + _STRIP)), slice(QUAD * width)
        rows = sight(top - 1, top + _STRIP + 1)
        mine, theirs = ours[here], raw[here]
        error = (forward.take(theirs) - forward.take(mine)).astype(np.float32)
        weight = weigh(error, _of_quads(slope.take(mine)).mean(2))
        wanted = _of_quads(theirs.astype(np.float32) - mine.astype(np.float32))
        picked = np.sort(rng.choice(_STRIP * width, each, replace=False))
        y, x = np.divmod(picked, width)
        planes = np.ascontiguousarray(rows.inputs[0].permute(1, 2, 0).numpy())
        channels = planes.shape[2]
        across = planes.shape[1]
        at = (y[:, None, None] + 1 + near[:, None]) * across + x[:, None, None] + MARGIN + near
        strip = slice(MARGIN - 1, MARGIN + width + 1)
        varies = activity(rows.luma[:, :, strip])[0].numpy()
        luma = rows.luma[0, 1:-1, MARGIN : MARGIN + width].numpy()
        parts[number] = (
            planes.reshape(-1, channels).take(at.reshape(each, TAPS), axis=0),
            wanted[y, x],
            weight[y, x],
            varies[y, x],
            luma[y, x],
            (y + top) % period[0] * period[1] + x % period[1],
        )

    over_bands(0, len(strips), 1, look)
    inputs, wanted, weight, varies, luma, phase = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    share = height * width / len(weight)
    return _Samples(inputs, wanted, weight, varies, luma, phase, share)


def _slope(forward: np.ndarray) -> np.ndarray:
    """Squares of the slope of the residual's domain over companded values: float32 (46341,)."""
    reach = 64
    padded = np.pad(forward, reach, mode="edge").astype(np.float32)
    squares = np.square((padded[2 * reach :] - padded[: -2 * reach]) / (2 * reach))
    result: np.ndarray = np.maximum(squares, np.float32(1e-4))
    return result


def _of_quads(sites: np.ndarray) -> np.ndarray:
    """(2h, 2w) as (h, w, 4)."""
    height, width = (n // QUAD for n in sites.shape)
    return sites.reshape(height, QUAD, width, QUAD).swapaxes(1, 2).reshape(height, width, LATENTS)


def _means(quads: np.ndarray) -> np.ndarray:
    """Means over tiles, for each of their quads: (h, w)."""
    height, width = quads.shape
    wide = -(-width // _TILE) * _TILE
    padded = np.pad(quads, ((0, 0), (0, wide - width)), mode="edge")
    means = padded.reshape(height // _TILE, _TILE, wide // _TILE, _TILE).mean((1, 3))
    result: np.ndarray = means.repeat(_TILE, 0).repeat(_TILE, 1)[:, :width]
    return result


def _normals(samples: _Samples, group: np.ndarray, groups: int) -> list[_Normal]:
    """Sums by group, as if of all quads of the photo."""
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=groups))
    starts = np.concatenate([[0], ends[:-1]])
    results = [_Normal(np.empty(0), np.empty(0), np.empty(0), 0.0)] * groups
    channels = samples.inputs.shape[2]
    count = TAPS * channels + 1
    # by channel, then by tap, as weights are
    turn = np.append(np.arange(count - 1).reshape(TAPS, channels).T.ravel(), count - 1)

    def add_up(number: int, _: int) -> None:
        start, end = int(starts[number]), int(ends[number])
        sums = _Normal(np.zeros((count, count)), np.zeros((count, LATENTS)),
                       np.zeros(LATENTS), samples.share * (end - start))  # fmt: skip
        inputs = np.empty((_PART, count), np.float32)
        for first in range(start, end, _PART):
            part = order[first : min(first + _PART, end)]
            here = inputs[: len(part)]
            here[:, -1] = _CONSTANT
            there = samples.inputs.take(part, axis=0).reshape(len(part), -1)
            np.subtract(there, np.float32(ZERO), out=here[:, :-1])
            root = np.sqrt(samples.share * samples.weight[part, None])
            here *= root
            wanted = samples.wanted[part] * root
            sums.squares += here.T @ here  # one array: half the work, by symmetry
            sums.products += here.T @ wanted
            sums.energy += np.square(wanted).sum(0)
        sums.squares = sums.squares[np.ix_(turn, turn)]
        sums.products = sums.products[turn]
        results[number] = sums

    with threadpool_limits(1, "blas"):  # groups are added up side by side
        over_bands(0, groups, 1, add_up)
    return results


def _inverse(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse, with as much of a ridge as it takes, and its upper factor of Cholesky.

    squares: its diagonal is 1.
    """
    ridge = _RIDGE
    while True:
        inverse = np.linalg.inv(squares + ridge * np.eye(len(squares)))
        try:
            return inverse, np.linalg.cholesky((inverse + inverse.T) / 2).T
        except np.linalg.LinAlgError:  # sums in float32 may miss a definite matrix by more
            ridge *= 4


def _rounded(
    parts: list[tuple[_Normal, list[int]]], sites: list[int], share: float, tables: Tables
) -> tuple[tuple[int, np.ndarray, np.ndarray, list[np.ndarray]], float]:
    """Integers for all outputs: shift, octaves, scales and numbers; and what they cost, in bits.

    parts: sums, and the outputs that they are of. sites: of the outputs of a class.
    """
    count = sum(len(where) for _, where in parts)
    inputs = len(parts[0][0].squares)
    channels = inputs // TAPS
    solved, steps, largest = [], [], 0.0
    for sums, where in parts:
        size = np.sqrt(np.maximum(np.diag(sums.squares), 1e-9))
        inverse, upper = _inverse(sums.squares / np.outer(size, size))
        upper = upper / size
        products = sums.products[:, [sites[o % len(sites)] for o in where]]
        weights = (inverse @ (products / size[:, None])) / size[:, None]
        solved.append((upper, weights))
        steps.append(np.log2(math.sqrt(12) * np.diag(upper)))
        largest = max(largest, float(np.abs(weights[:-1]).max()))
    # the constant is not an input of the layer: its unit is that of the sums
    by_channel = np.mean(steps, 0)
    wide = np.append(by_channel[:-1].reshape(channels, TAPS).mean(1), by_channel[-1])
    wide[-1] += math.log2(_CONSTANT)
    unit = math.log2(FILTER_UNIT)
    shift = math.ceil(unit - wide.min())
    shift = min(shift, math.floor(unit - math.log2(max(largest, 1e-9) / ACTIVATION_MAX)))
    shift = min(max(shift, 0), SHIFT_LIMIT)
    octaves = np.clip(np.rint(wide - unit + shift), 0, OCTAVES - 1).astype(int)
    step = np.exp2(octaves + unit - shift)
    limit = np.append(np.full(channels, ACTIVATION_MAX), CONSTANT_LIMIT) >> octaves
    each = np.append(np.repeat(step[:-1], TAPS), step[-1] / _CONSTANT)
    limits = np.append(np.repeat(limit[:-1], TAPS), limit[-1])
    numbers = np.zeros((inputs, count))
    cost = 0.0
    for (sums, where), (upper, weights) in zip(parts, solved, strict=True):
        for i in range(inputs):
            number = np.clip(np.rint(weights[i] / each[i]), -limits[i], limits[i])
            numbers[i, where] = number
            missed = (weights[i] - number * each[i]) / upper[i, i]
            weights[i:] -= upper[i, i:, None] * missed
        final = numbers[:, where] * each[:, None]
        chosen = [sites[o % len(sites)] for o in where]
        left = np.einsum("io,ij,jo->o", final, sums.squares, final)
        left += sums.energy[chosen] - 2 * (final * sums.products[:, chosen]).sum(0)
        # what was fitted to the samples does not hold as well for the other quads
        left *= 1 + 2 * max(share - 1, 0) * inputs / max(sums.count, 1)
        cost += _BITS * float(left.sum())
    whole = numbers.astype(np.int32)
    coded = [part.reshape(TAPS, count).T.ravel() for part in np.split(whole[:-1], channels)]
    others = CHANNELS - channels
    coded += [np.zeros(TAPS * count, np.int32)] * others + [whole[-1]]
    octaves = np.insert(octaves, channels, [0] * others)
    scales = []
    for part in coded:
        scale, bits = tables.best_scale(part)
        scales.append(scale)
        cost += bits + 3
    return (shift, octaves, np.array(scales), coded), cost
