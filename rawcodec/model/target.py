"""Foretells the gain at which a photo takes a wanted number of bytes.

How far the tone layer is off tells where to look; what a sample takes there (:mod:`.probe`) tells
where to begin, and what the photo takes there where to go on. Near a gain, other distortion weights
lead on: latents alone are chosen again for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .config import FINE, HYPER_BLOCK, RATES
from .view import RowsFrom, SiteRows, Stripes

FINEST = RATES * FINE - 1
"""The largest number of a gain: of sixteenths of a rate."""

LIGHTEST, HEAVIEST = math.log(0.5), math.log(1.35)
"""Logarithms of distortion weights that are as good as another gain: on NikonD1 and colorchart at
four gains, 0.65 gives the PSNR of the same bits to -0.01..0.09 dB, 1.5 to -0.09..-0.18 dB."""

CLOSE = 0.048
"""How far from the wanted size a payload may be before another is tried, as a share of it."""

_SURE = 0.75
"""Of that, what latents may be off: what filters take is not quite known by then."""

_LOOSE = 0.1
"""Of what the stripes below one are to take, how much these may have to make up for."""

_FIRM = 0.5
"""What a foretold size of all stripes counts for, beside stripes that took all of the bytes."""

LEAST = 32
"""Bytes that no payload is smaller than."""

_LEAN, _LEANEST = 0.11, 1.08
"""Bits that a gain is to take are those that this logarithm of a weight, made lighter, changes to
the wanted ones: lighter weights lead farther than heavier. And how many times as many, at most."""

_GAINS = 25
"""Gains that change the bits of latents as much as twice the distortion weight does."""

_FARTHER = 1.1
"""How far beyond those weights the right one may seem to be."""

_TRIMS = 4
"""Weights that are tried at a gain."""

_FLAT, _SHARP = 0.15, 3.0
"""Of the logarithm of weights, how much that of bits changes at least, and at most."""

_STRIDE = 8
"""Errors of the tone layer are those of one in so many rows of blocks."""

OF_TONE, OF_PREDICTION = (0.78, 0.2), (0.65, 0.2)
"""Of the root of a photo's bits a site, and of these, what theory has errors take: those of the
tone layer, and those that are left ahead of latents. Of four to six photos at four gains each."""

_SLOPE = 0.5 / FINE
"""Doublings of the bits from one gain to the next, of usual photos."""

_STEEP = 3
"""How much steeper, or flatter, that may be."""

_SLOWEST = 0.6
"""And flatter than theory has it: where there are many bits, weights tell little of gains."""


class Forecast:
    """Bits by gain, as errors foretell them, and what is found later."""

    def __init__(
        self, errors: np.ndarray, sites: int, steps: np.ndarray, share: tuple[float, float]
    ) -> None:
        """errors: (n,), of blocks. sites: how many all planes have. steps: (33,), of the latents at
        each rate, in the residual's domain. share: ``OF_TONE`` or ``OF_PREDICTION``.
        """
        found = [_worth(_theory(errors, step).mean(), share) for step in steps.astype(float)]
        by_rate = np.log2(np.array(found) + 1e-12) + math.log2(sites)
        self._log_bits = np.interp(np.arange(FINEST + 1), FINE * np.arange(RATES), by_rate)

    def gain(self, bits: float) -> int:
        """The gain that takes about so many bits, rather more, 0..``FINEST``."""
        return round(float(np.interp(math.log2(bits), self._log_bits, np.arange(FINEST + 1))))

    def bits(self, gain: int) -> float:
        """About what a gain takes."""
        return math.pow(2, self._log_bits[gain])

    def correct(self, gain: int, bits: float, steepness: float) -> None:
        """Foretell so many bits at a gain, and others as far as that tells of theirs.

        steepness: how their logarithm changes with that of the distortion weight.
        """
        theory = self._log_bits - self._log_bits[gain]
        faster = steepness / _GAINS / self.slope(gain)
        self._log_bits = math.log2(bits) + min(max(faster, _SLOWEST), _STEEP) * theory

    def slope(self, gain: int) -> float:
        """Doublings of the bits from one gain to the next, around one."""
        low, high = max(gain - FINE // 2, 0), min(gain + FINE // 2, FINEST)
        return _bounded(float(self._log_bits[high] - self._log_bits[low]) / (high - low))


def worth(errors: np.ndarray, step: float) -> float:
    """Bits a site that the errors of a prediction may take, block by block.

    errors: see ``block_errors``. step: of the latents.
    """
    return float(_worth(_theory(errors, step), OF_PREDICTION).mean())


def _theory(errors: np.ndarray, step: float) -> np.ndarray:
    """What errors would take by the rate-distortion function of a Gaussian, bits a site."""
    return np.log2(1 + 6 * errors / step**2) / 2


def _worth(theory: np.ndarray, share: tuple[float, float]) -> np.ndarray:
    """The bits a site of which theory has it that they are so many: see ``OF_TONE``."""
    root, whole = share  # theory is root * sqrt(bpp) + whole * bpp
    return np.square((np.sqrt(root**2 + 4 * whole * theory) - root) / (2 * whole))


def tone_errors(stripes: Stripes, raws: Sequence[SiteRows], forward: np.ndarray) -> np.ndarray:
    """The errors of the tone layer, as of ``block_errors``. raws: of each plane, companded."""
    height = raws[0].shape[0]
    bands = [
        slice(top, min(top + HYPER_BLOCK, height))
        for top in range(0, height, _STRIDE * HYPER_BLOCK)
    ]
    return np.concatenate(
        [
            block_errors(plane.tone, RowsFrom(raw, rows), forward)
            for rows in bands
            for plane, raw in zip(stripes.part(rows), raws, strict=True)
        ]
    )


def block_errors(
    tone: np.ndarray, raw: SiteRows, forward: np.ndarray, stride: int = 1
) -> np.ndarray:
    """Mean squared errors of blocks, in the residual's domain: float32 (n,).

    What is left of a block at an edge counts as one. tone, raw: uint16 (H, W), companded. forward:
    to that domain. stride: one in so many rows of blocks is looked at.
    """
    domain, columns = forward.astype(np.float32), np.arange(0, raw.shape[1], HYPER_BLOCK)
    across = np.diff(columns, append=raw.shape[1])
    rows = []
    for top in range(0, raw.shape[0], stride * HYPER_BLOCK):
        theirs, ours = (rows[top : top + HYPER_BLOCK] for rows in (raw, tone))
        squares = np.square(domain.take(theirs) - domain.take(ours)).mean(0)
        rows.append(np.add.reduceat(squares, columns) / across)
    return np.concatenate(rows)


def _bounded(slope: float) -> float:
    """What a slope may be: two gains that are near each other tell little of it."""
    return min(max(slope, _SLOPE / _STEEP), _STEEP * _SLOPE)


def better(
    forecast: Forecast, sizes: Mapping[int, float], aim: float, steepness: float
) -> int | None:
    """A gain that has not been tried and may be nearer; None if there is none.

    Nearer to somewhat more than ``aim`` bytes, from where a lighter weight leads to these.

    sizes: what the photo took at the gains tried. steepness: see ``weight``.
    """
    aim *= min(math.exp(_LEAN * steepness), _LEANEST)
    below = max((gain for gain, size in sizes.items() if size <= aim), default=-1)
    above = min((gain for gain, size in sizes.items() if size > aim), default=FINEST + 1)
    if above - below < 2:
        return None
    if below >= 0 and above <= FINEST:
        share = math.log(aim / sizes[below]) / math.log(sizes[above] / sizes[below])
        guess = round(below + share * (above - below))
    else:
        last = above if below < 0 else below
        others = sorted(sizes.keys() - {last}, key=lambda gain: abs(gain - last))
        if others:  # the photo itself tells how fast it goes
            slope = _bounded(math.log2(sizes[last] / sizes[others[0]]) / (last - others[0]))
        else:
            slope = forecast.slope(last)
        guess = round(last + math.log2(aim / sizes[last]) / slope)
    return min(max(guess, below + 1), above - 1)


def weight(
    sizes: Mapping[float, float], aim: float, steepness: float, *, bold: bool = False
) -> float | None:
    """The logarithm of a distortion weight that may take nearer to ``aim`` bytes.

    None if another gain is to be tried.

    sizes: what was taken at a gain, by the logarithms of the weights tried, of which there is one.
    steepness: how the logarithm of sizes may change with that of the weight. bold: try the last one
    where the right one seems to be beyond it, as long as a single one was tried, which does not
    tell how fast sizes change.
    """
    if len(sizes) == _TRIMS:
        return None
    last = _by_closeness(sizes, aim)[0]
    guess = last + math.log(aim / sizes[last]) / _steepness(sizes, aim, steepness)
    near = _FARTHER * LIGHTEST < guess < _FARTHER * HEAVIEST
    if not near and not (bold and len(sizes) == 1):
        return None
    guess = min(max(guess, LIGHTEST), HEAVIEST)
    return None if guess in sizes else guess


def _steepness(sizes: Mapping[float, float], aim: float, steepness: float) -> float:
    """How the logarithm of sizes changes with that of the weight: see ``weight``."""
    last, *others = _by_closeness(sizes, aim)
    # one on the other side if there is one: between them, no guess goes astray
    others.sort(key=lambda tried: (sizes[tried] > aim) == (sizes[last] > aim))
    if others:
        steepness = math.log(sizes[last] / sizes[others[0]]) / (last - others[0])
    return min(max(steepness, _FLAT), _SHARP)


def _by_closeness(sizes: Mapping[float, float], aim: float) -> list[float]:
    return sorted(sizes, key=lambda tried: abs(math.log(sizes[tried] / aim)))


class MissedError(Exception):
    """An encoding turns out to be too far from the wanted size for a distortion weight."""


class Course:
    """The distortion weights of a photo's stripes, from above, at one gain.

    Each is to take its share of what is wanted, as far as those above do not tell that it takes
    more or less beside the others; the last makes up for what they miss. Weights change latents
    alone.

    weight: the logarithm of the one to choose latents at. sizes: bytes of all stripes, without
    filters, by the weights tried, as far as is known. shares: of these, those of each stripe.
    """

    def __init__(
        self,
        shares: Sequence[float],
        steepness: Sequence[float],
        aim: float,
        weight: float,
        *,
        whole: float = 0.0,
        trims: bool = True,
    ) -> None:
        """shares: found at this or another gain, or foretold. steepness: of each stripe, how the
        logarithm of its latents' bytes may change with that of the weight. aim: bytes wanted, with
        filters. weight: to begin with. whole: what all stripes are foretold to take at the weight
        of 1, without filters; 0 if that is not foretold. trims: whether other weights are tried.
        """
        self.shares = list(shares)
        self.weight = weight
        self.sizes: dict[float, float] = {}
        self._steepness, self._aim, self._trims = steepness, aim, trims
        self._whole, self._firm = whole, _FIRM if whole else 0.0
        self._tried: dict[float, float] = {}  # of the latents of this stripe
        self._took: list[float] = []  # all of those above
        self._usual: list[float] = []  # and at the weight of 1
        self._above = 0.0  # of these, whatever the weights
        self._fixed = 0.0  # of all stripes, as far as is known

    def take(self, ahead: float, latents: float, filters: float) -> bool:
        """Whether a stripe's latents are to stay; else they are to be chosen at ``weight``.

        latents: bytes of them. ahead: of all that is coded before them, but filters. filters: what
        those of all stripes take. MissedError if no weight comes near.
        """
        fixed = ahead - sum(self._took)
        number, rest = len(self._took), self._aim - filters - sum(self._took)
        last = number == len(self.shares) - 1
        self._tried[self.weight] = max(latents, LEAST)
        usual = [*self._usual, self._ordinary(fixed, self._share * rest)]
        share = usual[-1] / (usual[-1] + self._below(usual))
        wanted = max(share * rest - fixed, LEAST)
        self._note(fixed, usual, last)
        near = _SURE * CLOSE * self._aim
        if not last:
            near = max(near / 3 + _LOOSE * max((1 - share) * rest, 0), near * 2 / 3)
        if self._trims and abs(latents - wanted) > near:
            following = weight(self._tried, wanted, self._steepness[number], bold=number > 0)
            if following is not None:
                self.weight = following
                return False
            if last or number == 0:
                raise MissedError
        self._took.append(fixed + latents)
        self._usual = usual
        self._above += fixed
        self._tried = {}
        if self._trims and not last:
            self.weight = self._expected(self._aim - filters)
        return True

    def again(self, filters: float) -> float | None:
        """The logarithm of the weight for another encoding at the gain; None if there is none."""
        if len(self.shares) > 1:
            return None  # each stripe had what there is
        fixed = min(self._fixed, *self.sizes.values()) - LEAST
        sizes = {tried: size - fixed for tried, size in self.sizes.items()}
        return weight(sizes, max(self._aim - filters - fixed, LEAST), self._steepness[0])

    @property
    def _share(self) -> float:
        """Of what is left for this stripe and those below it, that of this one."""
        number = len(self._took)
        return self.shares[number] / sum(self.shares[number:])

    def _below(self, usual: Sequence[float]) -> float:
        """What stripes take at the weight of 1, below those that take so much."""
        known = sum(self.shares[: len(usual)])
        whole = (sum(usual) + self._firm * self._whole) / (known + self._firm)
        return sum(self.shares[len(usual) :]) * whole

    def _expected(self, aim: float) -> float:
        """The logarithm of the weight at which the next stripe may take its share.

        aim: bytes wanted of all stripes.
        """
        wanted = self._share * max(aim - sum(self._took), LEAST)
        usual = self._share * self._below(self._usual)
        fixed = self._above / len(self._took)
        sizes = {0.0: max(usual - fixed, LEAST)}
        wanted = max(wanted - fixed, LEAST)
        steepness = _steepness(sizes, wanted, self._steepness[len(self._took)])
        return min(max(math.log(wanted / sizes[0]) / steepness, LIGHTEST), HEAVIEST)

    def _ordinary(self, fixed: float, wanted: float) -> float:
        """What a stripe takes at the weight of 1. wanted: bytes, ``fixed`` ones among them."""
        guess = self._steepness[len(self._took)]
        steepness = _steepness(self._tried, max(wanted - fixed, LEAST), guess)
        near = min(self._tried, key=abs)
        return fixed + self._tried[near] * math.exp(-steepness * near)

    def _note(self, fixed: float, usual: Sequence[float], last: bool) -> None:
        """What is known with a stripe's latents. usual: of it and those above."""
        known = sum(self.shares[: len(usual)])
        self.sizes[0.0] = sum(usual) + self._below(usual)
        self._fixed = (self._above + fixed) / known
        if last:
            self.shares = [each / sum(usual) for each in usual]
        if len(self.shares) == 1:
            self.sizes[self.weight] = fixed + self._tried[self.weight]
