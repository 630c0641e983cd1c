"""How an encoder fits the filters of :mod:`.fitted` to a photo: weighted least squares.

Errors count as what they cost. Latents of a place with the mean squared error e take about
log2(1 + 6 e / step^2) / 2 bits a site, whose derivative is the weight of errors that latents will
correct. What they have left counts as distortion of linear values, in the bits that a finer step
would take to lower it as much.

Weights are rounded one by one, the rest making up for each (Frantar et al., "GPTQ", ICLR 2023), in
steps for which their own bits and those that they save balance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
from .seen import MARGIN, Rows
from .tables import Tables
from .view import SiteRows

SAMPLES = 400_000
"""Quads that are looked at, about, where there are more."""

_EVEN = 0.25
"""Of these, how many are looked at wherever they are; the others, by what they tell."""

_STRIP = 8
"""Rows of quads that are looked at together, of every so many where a photo has more samples."""

_SPREAD = 5
"""Strips have so many times as many quads, at least, so that samples are not all neighbours."""

_TOGETHER = 2048
"""Quads whose products are formed at once: far more than inputs, for the product's speed."""

_SHARES = 8
"""Sums are of so many parts of the strips, whatever the number of threads, so that it does not
change how they round."""

_GLANCE = 16
"""Strips that tell where classes begin, at least, where there are more."""

_TILE = 4
"""Quads across the place of which an error is the mean."""

_RIDGE = 2.5
"""Of the mean square of an input, added to the sum of them: how many quads speak for weight 0."""

_CONSTANT = float(ZERO)
_BITS = 0.5 / math.log(2)
"""Bits a site, of a relative change of the squared error."""

_WORTH = 0.65
"""Of what the choice of latents takes distortion for, what a finer step would take for it: on real
photos, from the sizes and PSNR of neighbouring qualities."""

_SPARSE = 7
"""Of every so many rows and columns of a plane the mean is taken; odd, for all colours."""

Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of rows of sites, companded, uint16 (16, W), and what they should be, the weights of squared
companded errors: float32 (8, W / 2), by quad."""


@dataclass
class _Normal:
    """Sums of products over some quads, of the inputs and of a constant: (9 c + 1, 9 c + 1),
    (9 c + 1, 4) and (4,).

    looked, count: how many quads were looked at, and for how many they stand.
    """

    squares: np.ndarray
    products: np.ndarray
    energy: np.ndarray
    looked: float
    count: float

    @classmethod
    def zero(cls, inputs: int) -> _Normal:
        """Of no quads. inputs: their number, 9 c + 1."""
        squares, products = np.zeros((inputs, inputs)), np.zeros((inputs, LATENTS))
        return cls(squares, products, np.zeros(LATENTS), 0.0, 0.0)

    def __add__(self, other: _Normal) -> _Normal:
        return _Normal(
            self.squares + other.squares,
            self.products + other.products,
            self.energy + other.energy,
            self.looked + other.looked,
            self.count + other.count,
        )


class Filters:
    """Where an encoder has its filters from: it takes those of a like encoding, or fits them.

    made: those that it came by, by their numbers: of each plane the one ahead and the one after.
    """

    def __init__(self, given: Mapping[int, Coefficients | None] | None = None) -> None:
        """given: what to take in the place of fitting, by number."""
        self._given = dict(given or {})
        self.made: dict[int, Coefficients | None] = {}

    def __call__(self, fit: Callable[[], Coefficients | None]) -> Coefficients | None:
        """The next one, which ``fit`` makes if it is not given."""
        number = len(self.made)
        self.made[number] = self._given[number] if number in self._given else fit()
        return self.made[number]


def fit_ahead(
    sight: Sight,
    tone: np.ndarray,
    raw: SiteRows,
    forward: np.ndarray,
    step: int,
    tables: Tables,
) -> Coefficients | None:
    """The filter that saves the most bits of latents, its own counted; None if none does.

    tone: uint16 (H, W), what it is to correct; raw: what that should be; companded. forward: to
    the residual's domain. step: of the latents, there.
    """
    slope, domain = _slope(forward), forward.astype(np.float32)

    def weigh(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        place = _places(np.square(domain.take(theirs) - domain.take(mine)))
        weight: np.ndarray = _quads(slope.take(mine)) / (place + np.float32(step**2 / 6))
        return weight

    return _fit(sight, tone, raw, tables, weigh)


def fit_after(
    sight: Sight,
    decoded: np.ndarray,
    raw: SiteRows,
    forward: np.ndarray,
    step: int,
    tables: Tables,
) -> Coefficients | None:
    """The filter that corrects the most for its bits; None if none does.

    decoded: uint16 (H, W), what latents have made of the plane; see ``fit_ahead``.
    """
    # errors of linear values, the squares of companded ones; a finer step makes all errors in the
    # residual's domain smaller, whatever they are of linear ones
    linear = np.square(2 * np.arange(len(forward), dtype=np.float32))
    made = decoded[::_SPARSE, ::_SPARSE]
    usual = float((linear / _slope(forward)).take(made).mean(dtype=np.float64))
    linear *= np.float32(_WORTH * DISTORTION_WEIGHT / _BITS / step**2 / max(usual, 1))

    def weigh(mine: np.ndarray, _: np.ndarray) -> np.ndarray:
        return _quads(linear.take(mine))

    return _fit(sight, decoded, raw, tables, weigh)


def _fit(
    sight: Sight,
    ours: np.ndarray,
    raw: SiteRows,
    tables: Tables,
    weigh: Weigh,
) -> Coefficients | None:
    """The filter that takes the fewest bits, its own and those of the errors that it leaves."""
    if min(raw.shape) < 2 * _STRIP:
        return None
    colours = sight.seen.plane.colours
    every, quads, possible = outputs(colours), phases(colours), shapes(colours)
    finest = possible[-1]
    strips = _Strips.of(*(n // QUAD for n in raw.shape))
    groups = _Groups(sight, strips, finest)
    sums = _normals(sight, strips, groups, ours, raw, weigh)
    # without a filter, all of the error is left
    best, least = None, _BITS * float(sum(part.energy.sum() for part in sums))
    for shape in possible:
        fewer = finest[0] // shape[0], finest[1] // shape[1]
        parts = [
            (functools.reduce(_Normal.__add__, (sums[i] for i in groups)), where)
            for groups, where in _partition(shape, fewer, finest, quads, every).items()
        ]
        found, cost = _rounded(parts, [site for site, _ in every], tables)
        kept = [
            int(threshold)
            for limits, skip in zip(groups.thresholds, fewer, strict=True)
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


@dataclass(frozen=True)
class _Strips:
    """Where a plane is looked at.

    tops: the first rows of strips, in quads. width: quads across. share: how many quads of the
    plane each of theirs stands for.
    """

    tops: np.ndarray
    width: int
    share: float

    @classmethod
    def of(cls, height: int, width: int) -> _Strips:
        """Of a plane of so many quads."""
        tops = np.arange(0, height - _STRIP + 1, _STRIP)
        if height % _STRIP:
            tops = np.append(tops, height - _STRIP)
        stride = max(1, len(tops) * _STRIP * width // (_SPREAD * SAMPLES))
        tops = tops[stride // 2 :: stride]
        return cls(tops, width, height * width / (len(tops) * _STRIP * width))

    def glances(self) -> list[int]:
        """Some of the tops, which tell how the others are to be looked at."""
        some: list[int] = self.tops[:: max(1, len(self.tops) // _GLANCE)].tolist()
        return some


class _Draw:
    """Which quads of a strip are looked at: by chance, and the more often the more they tell.

    What a quad tells is how hard it pulls at the weights: its own weight times its error. Where a
    quad is drawn more often, it counts for less, so that the sums are right on average (importance
    sampling).
    """

    def __init__(self, strips: _Strips, ours: np.ndarray, raw: SiteRows, weigh: Weigh) -> None:
        """ours, raw: see ``_fit``."""
        self._ours, self._raw, self._weigh = ours, raw, weigh
        self._scale = self._usual = 0.0
        self._share = min(1.0, SAMPLES / (len(strips.tops) * _STRIP * strips.width))
        if self._share < 1:
            pulls = np.concatenate([self._look(top)[1] for top in strips.glances()])
            self._usual = max(float(pulls.mean(dtype=np.float64)), 1e-30)
            self._scale = self._share
            for _ in range(8):  # some chances are 1, and cannot be more
                self._scale *= self._share / float(self._chances(pulls).mean())

    def __call__(self, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of a strip's quads, their weights, and for how many quads each stands."""
        weight, pull = self._look(top)
        if self._share == 1:
            return np.arange(len(weight)), weight, np.ones_like(weight)
        chance = self._chances(pull)
        number = np.random.default_rng([1, top]).random(len(chance), np.float32)
        picked = np.flatnonzero(number < chance)
        stands = 1 / chance[picked]
        return picked, weight[picked] * stands, stands

    def _look(self, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights of a strip's quads, and how hard they pull: float32 (n,)."""
        here = slice(QUAD * top, QUAD * (top + _STRIP))
        mine, theirs = self._ours[here], self._raw[here]
        weight = self._weigh(mine, theirs)
        errors = np.square(theirs.astype(np.float32) - mine)
        return weight.ravel(), (weight * np.sqrt(_places(errors))).ravel()

    def _chances(self, pull: np.ndarray) -> np.ndarray:
        even, other = self._scale * _EVEN, self._scale * (1 - _EVEN) / self._usual
        result: np.ndarray = np.minimum(np.float32(even) + np.float32(other) * pull, 1)
        return result


class _Groups:
    """Which quads are added up together: those of a finest class and a phase of the pattern.

    thresholds: of activity and of brightness, between the classes.
    """

    def __init__(self, sight: Sight, strips: _Strips, finest: tuple[int, int]) -> None:
        colours = sight.seen.plane.colours
        self._finest, self._width = finest, strips.width
        self._period = [int(np.lcm(QUAD, n)) // QUAD for n in colours.shape]
        self.count = finest[0] * finest[1] * len(phases(colours))
        glances = [self._levels(sight.seen(top - 1, top + _STRIP + 1)) for top in strips.glances()]
        self.thresholds = [
            np.quantile(np.concatenate(values), np.arange(1, n) / n, method="higher").astype(int)
            for values, n in zip(zip(*glances, strict=True), finest, strict=True)
        ]

    def __call__(self, near: Rows, top: int) -> np.ndarray:
        """The groups of a strip's quads: int (8 w,). near: has a row more at both ends."""
        group = np.zeros(_STRIP * self._width, int)
        for values, count, limits in zip(
            self._levels(near), self._finest, self.thresholds, strict=True
        ):
            group = group * count + np.searchsorted(limits, values.ravel(), "right")
        y, x = np.divmod(np.arange(len(group)), self._width)
        rows, columns = self._period
        phase = (y + top) % rows * columns + x % columns
        result: np.ndarray = phase + rows * columns * group
        return result

    def _levels(self, near: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Activity and brightness of a strip: int16 (8, w)."""
        luma = near.luma[:, :, MARGIN - 1 : MARGIN + self._width + 1]
        return activity(luma)[0].numpy(), luma[0, 1:-1, 1:-1].numpy()


def _slope(forward: np.ndarray) -> np.ndarray:
    """Squares of the slope of the residual's domain over companded values: float32 (46341,)."""
    reach = 64
    padded = np.pad(forward, reach, mode="edge").astype(np.float32)
    squares = np.square((padded[2 * reach :] - padded[: -2 * reach]) / (2 * reach))
    result: np.ndarray = np.maximum(squares, np.float32(1e-4))
    return result


def _quads(values: np.ndarray) -> np.ndarray:
    """Means over the quads of rows of sites: (16, W) to (8, W / 2)."""
    whole = values[:, : values.shape[1] // QUAD * QUAD]
    rows = whole[::QUAD] + whole[1::QUAD]
    result: np.ndarray = (rows[:, ::QUAD] + rows[:, 1::QUAD]) * np.float32(1 / QUAD**2)
    return result


def _places(values: np.ndarray) -> np.ndarray:
    """Means over the tiles that quads lie in, of rows of sites: (16, W) to (8, W / 2).

    What is left of a tile at the end belongs to the one before.
    """
    tile = QUAD * _TILE
    height, width = (n // tile for n in values.shape)
    means = values[:, : width * tile].reshape(height, tile, width, tile).mean(3).mean(1)
    places = means.repeat(_TILE, 0).repeat(_TILE, 1)
    missing = values.shape[1] // QUAD - places.shape[1]
    result: np.ndarray = np.pad(places, ((0, 0), (0, missing)), "edge")
    return result


class _Sums:
    """Adds up what is seen of quads, of each group enough of them together."""

    def __init__(self, groups: int, inputs: int) -> None:
        """inputs: of a quad, 9 c + 1."""
        self.totals = [_Normal.zero(inputs) for _ in range(groups)]
        self._rows = np.empty((groups, _TOGETHER, inputs), np.float32)
        self._errors = np.empty((groups, _TOGETHER, LATENTS), np.float32)
        self._filled = [0] * groups

    def add(self, group: int, seen: np.ndarray, root: np.ndarray, wanted: np.ndarray) -> None:
        """Quads of a group: inputs uint8 (n, 9 c), roots of weights (n, 1), errors (n, 4)."""
        start = 0
        while start < len(seen):
            filled = self._filled[group]
            part = slice(start, start + _TOGETHER - filled)
            count = len(seen[part])
            here = slice(filled, filled + count)
            rows = self._rows[group, here]
            rows[:, -1] = _CONSTANT
            np.subtract(seen[part], np.float32(ZERO), out=rows[:, :-1])
            rows *= root[part]
            np.multiply(wanted[part], root[part], out=self._errors[group, here])
            self._filled[group] += count
            start += count
            if self._filled[group] == _TOGETHER:
                self._sum(group)

    def finish(self) -> list[_Normal]:
        """The sums of all groups."""
        for group in range(len(self.totals)):
            self._sum(group)
        return self.totals

    def _sum(self, group: int) -> None:
        total, here = self.totals[group], slice(self._filled[group])
        rows, errors = self._rows[group, here], self._errors[group, here]
        total.squares += rows.T @ rows  # one array: half the work, by symmetry
        total.products += rows.T @ errors
        total.energy += np.square(errors).sum(0)
        self._filled[group] = 0


def _normals(
    sight: Sight,
    strips: _Strips,
    groups: _Groups,
    ours: np.ndarray,
    raw: SiteRows,
    weigh: Weigh,
) -> list[_Normal]:
    """Sums by group, as if of all quads of the photo: of some of each strip, by chance.

    ours: what is to be corrected.
    """
    width, share = strips.width, strips.share
    inputs = TAPS * sight.channels + 1
    draw = _Draw(strips, ours, raw, weigh)
    parts: list[list[_Normal]] = [[]] * _SHARES
    across = raw.shape[1]
    beside = np.array([y * across + x for y in range(QUAD) for x in range(QUAD)])

    def look(top: int, sums: _Sums) -> None:
        picked, weight, stands = draw(top)
        y, x = np.divmod(picked, width)
        here = slice(QUAD * top, QUAD * (top + _STRIP))
        at = (QUAD * (y * across + x))[:, None] + beside
        wanted = raw[here].take(at).astype(np.float32) - ours[here].take(at)
        root = np.sqrt(np.float32(share) * weight)[:, None]
        near = sight(top - 1, top + _STRIP + 1)
        # the first quad of a strip has the rows 0 to 2 around it
        seen = _runs(near, width).take(picked[:, None] + width * np.arange(3), axis=0)
        seen = seen.reshape(len(picked), -1)
        group = groups(near, top)[picked]
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=groups.count))
        for number, part in enumerate(np.split(order, ends[:-1])):
            sums.add(number, seen.take(part, axis=0), root[part], wanted[part])
            sums.totals[number].looked += len(part)
            sums.totals[number].count += share * float(stands[part].sum(dtype=np.float64))

    def add_up(number: int, _: int) -> None:
        sums = _Sums(groups.count, inputs)
        for top in strips.tops[number::_SHARES].tolist():
            look(top, sums)
        parts[number] = sums.finish()

    with threadpool_limits(1, "blas"):  # parts are added up side by side
        over_bands(0, _SHARES, 1, add_up)
    # by channel, then by tap, as weights are
    turn = np.arange(inputs - 1).reshape(TAPS, sight.channels).T.ravel()
    turn = np.append(turn, inputs - 1)
    sums = [functools.reduce(_Normal.__add__, each) for each in zip(*parts, strict=True)]
    return [
        replace(total, squares=total.squares[np.ix_(turn, turn)], products=total.products[turn])
        for total in sums
    ]


def _runs(near: Rows, width: int) -> np.ndarray:
    """A strip's inputs at three neighbouring quads: uint8 (10 w, 3 c), for the one between."""
    planes = near.inputs[0, :, :, MARGIN - 1 : MARGIN + width + 1].permute(1, 2, 0).numpy()
    parts = [planes[:, x : x + width] for x in range(3)]
    return np.concatenate(parts, 2).reshape(len(planes) * width, -1)


def _inverse(squares: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """The inverse, with as much of a ridge as it takes, and its upper factor of Cholesky.

    squares: its diagonal is 1.
    """
    while True:
        inverse = np.linalg.inv(squares + ridge * np.eye(len(squares)))
        try:
            return inverse, np.linalg.cholesky((inverse + inverse.T) / 2).T
        except np.linalg.LinAlgError:  # sums in float32 may miss a definite matrix by more
            ridge *= 4


def _resolution(
    curvatures: list[np.ndarray], weights: list[np.ndarray], channels: int
) -> tuple[int, np.ndarray]:
    """The shift and the octaves, int (channels + 1,), at which weights cost the least bits.

    Their own bits fall by one as a step doubles; the errors of rounding grow, and with the shift
    those of weights that are too large for it, as those of inputs are that are nearly always zero.

    curvatures: of the squared error over a weight, by part: (9 channels + 1,). weights: the same,
    (9 channels + 1, outputs).
    """
    # the constant is not an input of the layer: its unit is that of the sums
    mean = np.mean(curvatures, 0)
    by_channel = np.append(mean[:-1].reshape(channels, TAPS).mean(1), mean[-1] / _CONSTANT**2)
    each = np.append(np.full(channels, TAPS), 1)
    outputs = sum(part.shape[1] for part in weights)
    unit = math.log2(FILTER_UNIT)
    best = None
    for shift in range(SHIFT_LIMIT + 1):
        octaves = np.rint(np.log2(12 / by_channel) / 2 - unit + shift)
        octaves = np.clip(octaves, 0, OCTAVES - 1).astype(int)
        power = octaves + unit - shift
        bits = _BITS * by_channel * np.exp2(2 * power) / 12 - power
        cost = outputs * float((each * bits).sum())
        most = (ACTIVATION_MAX >> octaves[:-1]) * np.exp2(power[:-1])
        for curvature, part in zip(curvatures, weights, strict=True):
            beyond = np.maximum(np.abs(part[:-1]) - np.repeat(most, TAPS)[:, None], 0)
            cost += _BITS * float((curvature[:-1] * np.square(beyond).sum(1)).sum())
        if best is None or cost < best[0]:
            best = cost, shift, octaves
    assert best is not None
    return best[1:]


def _rounded(
    parts: list[tuple[_Normal, list[int]]], sites: list[int], tables: Tables
) -> tuple[tuple[int, np.ndarray, np.ndarray, list[np.ndarray]], float]:
    """Integers for all outputs: shift, octaves, scales and numbers; and what they cost, in bits.

    parts: sums, and the outputs that they are of. sites: of the outputs of a class.
    """
    count = sum(len(where) for _, where in parts)
    inputs = len(parts[0][0].squares)
    channels = inputs // TAPS
    solved, curvatures = [], []
    for sums, where in parts:
        size = np.sqrt(np.maximum(np.diag(sums.squares), 1e-9))
        ridge = _RIDGE / max(sums.looked, 1)
        inverse, upper = _inverse(sums.squares / np.outer(size, size), ridge)
        upper = upper / size
        products = sums.products[:, [sites[o % len(sites)] for o in where]]
        weights = (inverse @ (products / size[:, None])) / size[:, None]
        solved.append((upper, weights))
        # what a squared error of a weight costs while those after it still make up for it
        curvatures.append(1 / np.square(np.diag(upper)))
    unit = math.log2(FILTER_UNIT)
    shift, octaves = _resolution(curvatures, [weights for _, weights in solved], channels)
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
        unseen = 1 - sums.looked / max(sums.count, 1)
        left *= 1 + 2 * max(unseen, 0) * inputs / max(sums.looked, 1)
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
