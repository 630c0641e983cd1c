"""The learned layer as the pipeline uses it; the only module besides it that joins packages.

Kept apart from the pipeline because it loads torch, which the tone layer does
without.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import CorruptSidecarError, DeviceError
from .model import fitted, kernels, target
from .model.allocation import Allocation
from .model.config import FINE
from .model.fitted import Coefficients
from .model.fitting import Filters
from .model.latents import Runner
from .model.layer import Choose, LayerHead, code_planes
from .model.probe import Probe
from .model.store import Model, load_model
from .model.target import CLOSE, LEAST
from .model.view import Refined, RowsFrom, SiteRows, Stripes
from .stream.entropy import Decoder, Encoder, RateMeter


def use_threads(count: int) -> None:
    """Let torch use so many threads; the result does not depend on it."""
    torch.set_num_threads(count)


def runner(path: Path, rate: int, device: str, fine: int = 0) -> Runner:
    """A model at a gain, ready to run.

    device: ``auto``, ``cpu`` or ``cuda``. Raises ModelError for a damaged
    weights file, and DeviceError where no kernel computes exactly.
    """
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    kernel = kernels.best_kernel(place)
    if not kernels.is_exact(kernel, place):
        if device == "auto" and place == "cuda":
            return runner(path, rate, "cpu", fine)
        raise DeviceError(
            f"device {place}: does not compute the same integers as other machines, "
            f"so a sidecar could not be decoded elsewhere; use --device cpu"
        )
    return Runner(_model(path), rate, kernel, place, fine)


@functools.lru_cache(maxsize=2)
def _model(path: Path) -> Model:
    return load_model(path)


_TRIES, _PASSES = 10, 3
"""How often stripes are coded, in all and at one gain, until the nearest of what was tried is
taken."""

_LIKE = 3 * FINE
"""How many gains apart encodings may be and have the same filters."""

_PROBES = 2
"""How often a sample tells where to begin: another time where the first was far off."""

_NEAR = 20
"""How many gains apart a sample tells enough."""

_AMPLE = 1.02
"""Of the wanted bytes, how many to begin with: lighter weights lead farther than heavier."""


class TooSmallError(Exception):
    """No gain makes so few bytes."""


class LatentEncoder:
    """Chooses and writes the latents of one photo."""

    def __init__(
        self,
        run: Runner,
        companded: Sequence[SiteRows],
        filters: Filters | None = None,
        choose: Choose | None = None,
        overwrite: bool = True,
    ) -> None:
        """companded: the raw's planes, in the order they are coded.

        filters: where they come from; fitted if None. choose, overwrite: see ``code_planes``.
        """
        self._run, self._raw, self._filters, self._choose = run, companded, filters, choose
        self._overwrite = overwrite
        self.coder = Encoder()
        self._head: LayerHead | None = None

    def refine(self, stripes: Stripes) -> Iterator[Refined]:
        """What the decoder will make of each stripe.

        The planes' tone values may be overwritten, here and in a decoder.
        """
        means = []
        for rows, planes in stripes:
            decoded, used = code_planes(
                self._run,
                self.coder,
                planes,
                raw=[RowsFrom(plane, rows) for plane in self._raw],
                filters=self._filters,
                choose=self._choose,
                overwrite=self._overwrite,
            )
            means.append(used)
            yield rows, decoded
        self._head = LayerHead(self._run.rate, np.concatenate(means), self._run.fine)

    def payload(self) -> bytes:
        """The chunk's payload, once all stripes are refined."""
        assert self._head is not None
        return self._head.pack() + self.coder.finish()


class AimedEncoder:
    """Chooses the gain, too: that at which the payload takes a wanted number of bytes.

    An encoding that misses chooses latents again, at another distortion weight, or is given up for
    one at another gain: see :mod:`.model.target`. What filters take does not grow with these, so
    sizes are without it.
    """

    def __init__(
        self, path: Path, device: str, companded: Sequence[SiteRows], size: int, *, at_most: bool
    ) -> None:
        """size: of the payload. at_most: never more; else within ``CLOSE``, where gains allow."""
        self._path, self._device, self._raw = path, device, companded
        self._size, self._at_most = size, at_most
        self._aim = size * (1 - CLOSE if at_most else 1)
        # in bytes, without filters: by gain, then by the logarithm of the weight
        self._sizes: dict[int, dict[float, float]] = {}
        self._fitted: dict[int, Coefficients | None] = {}
        self._fitted_at = 0
        self._filters = 0.0  # bytes that they take, as far as is known
        self._payload = b""
        self._tries = 0
        self._shares: Sequence[float] = ()  # of the bytes, those of each stripe
        self._steepness: Sequence[float] = ()  # of each stripe, see target.Course

    def refine(self, stripes: Stripes) -> Iterator[Refined]:
        """What the decoder will make of each stripe.

        TooSmallError if the payload takes more at every gain.
        """
        if self._size < LEAST:
            raise TooSmallError
        stripes.keep()
        yield from self._aimed(stripes)

    def _aimed(self, stripes: Stripes) -> list[Refined]:
        forecast, first = self._probed(stripes)
        gain: int | None = first
        whole = forecast.bits(first) / 8
        while gain is not None and self._tries < _TRIES:
            found = self._at(stripes, gain, whole)
            if found is not None:
                return found
            usual = {tried: sizes[0] for tried, sizes in self._sizes.items()}
            gain, whole = target.better(forecast, usual, self._rest, self._steep), 0.0
        return self._nearest(stripes)

    def _probed(self, stripes: Stripes) -> tuple[target.Forecast, int]:
        """What gains are foretold to take, and that to begin with.

        Filters ahead of latents, and what is foretold of each stripe, are known then.
        """
        model, sites = _model(self._path), sum(math.prod(raw.shape) for raw in self._raw)
        errors, steps = target.tone_errors(stripes, self._raw, model.forward), model.steps[:, 0]
        forecast = target.Forecast(errors, sites, steps.numpy(), target.OF_TONE)
        self._fitted_at = forecast.gain(8 * self._aim)
        probe = Probe(self._runner(self._fitted_at), stripes, self._raw, RateMeter)
        planes = len(stripes.colours)
        self._fitted = {2 * planes * number: each for number, each in enumerate(probe.filters)}
        self._know_filters(stripes)
        forecast = target.Forecast(probe.errors, sites, steps.numpy(), target.OF_PREDICTION)
        gain = forecast.gain(8 * _AMPLE * self._rest)
        for _ in range(_PROBES):
            sizes, self._steepness = zip(*probe.look(self._runner(gain)), strict=True)
            self._shares = [size / sum(sizes) for size in sizes]
            forecast.correct(gain, 8 * sum(sizes), self._steep)
            looked, gain = gain, forecast.gain(8 * _AMPLE * self._rest)
            if abs(gain - looked) <= _NEAR:
                break
        return forecast, gain

    def payload(self) -> bytes:
        """The chunk's payload, once all stripes are refined."""
        return self._payload

    @property
    def _rest(self) -> float:
        """Bytes wanted of all but the filters."""
        return max(self._aim - self._filters, LEAST)

    @property
    def _steep(self) -> float:
        """The steepness of all stripes."""
        return float(np.dot(self._shares, self._steepness))

    @property
    def _fits(self) -> bool:
        return len(self._payload) <= self._size or not self._at_most

    @property
    def _is_right(self) -> bool:
        return abs(len(self._payload) / self._aim - 1) < CLOSE and self._fits

    def _at(self, stripes: Stripes, gain: int, whole: float) -> list[Refined] | None:
        """The planes at a gain, with weights that make what is wanted; None if there are none.

        whole: see ``target.Course``.
        """
        weight: float | None = 0.0
        for _ in range(_PASSES):
            if weight is None or self._tries >= _TRIES:
                break
            course = self._course(weight, whole=whole)
            with contextlib.suppress(target.MissedError):
                found = self._encoded(stripes, gain, course)
                if self._is_right:
                    return found
                del found  # as large as the photo
            weight = course.again(self._filters)
        return None

    def _encoded(self, stripes: Stripes, gain: int, course: target.Course) -> list[Refined]:
        """The planes of every stripe at a gain; the payload is kept.

        target.MissedError as of ``course``.
        """
        self._tries += 1
        run = self._runner(gain)
        if abs(gain - self._fitted_at) > _LIKE:
            self._fitted, self._fitted_at = {}, gain
        filters = Filters(self._fitted)

        def choose(code: Callable[[float], Tensor]) -> Tensor:
            made, before = self._bytes(stripes, filters.made), encoder.coder.copy()
            self._fitted |= filters.made
            self._know_filters(stripes)
            ahead = len(before.finish())
            while True:
                latents = code(math.exp(course.weight))
                took = len(encoder.coder.finish()) - ahead
                if course.take(ahead - made, took, self._filters):
                    return latents
                encoder.coder.become(before)

        # the next try needs the tone layer's values, unless they are made again
        encoder = LatentEncoder(run, self._raw, filters, choose, overwrite=len(stripes.rows) > 1)
        try:
            decoded = list(encoder.refine(stripes))
        finally:
            self._sizes.setdefault(gain, {}).update(course.sizes)
            self._shares = course.shares
        self._payload, self._fitted = encoder.payload(), filters.made
        self._know_filters(stripes)
        return decoded

    def _course(self, weight: float, *, whole: float = 0.0, trims: bool = True) -> target.Course:
        given = self._shares, self._steepness, self._aim, weight
        return target.Course(*given, whole=whole, trims=trims)

    def _runner(self, gain: int) -> Runner:
        return runner(self._path, gain // FINE, self._device, gain % FINE)

    def _know_filters(self, stripes: Stripes) -> None:
        """Tell what filters take from those that are fitted."""
        # those that are not take about as much as the others
        times = 2 * len(stripes.rows) * len(stripes.colours) / len(self._fitted)
        self._filters = times * self._bytes(stripes, self._fitted)

    def _bytes(self, stripes: Stripes, filters: Mapping[int, Coefficients | None]) -> float:
        """What filters take, by their numbers."""
        meter, tables = RateMeter(), _model(self._path).tables
        for number, filter_ in filters.items():
            colours = stripes.colours[number // 2 % len(stripes.colours)]
            fitted.code(meter, tables, colours, filter_, read=False)
        return meter.bits / 8

    def _nearest(self, stripes: Stripes) -> list[Refined]:
        """The planes as what was tried comes nearest, where it is not close; TooSmallError."""
        tried = [
            (size, gain, weight)
            for gain, sizes in self._sizes.items()
            for weight, size in sizes.items()
        ]
        if self._at_most:
            tried = [each for each in tried if each[0] <= self._rest] or tried
        _, gain, weight = min(tried, key=lambda each: abs(math.log(each[0] / self._rest)))
        while True:
            course = self._course(weight, trims=False)
            decoded = self._encoded(stripes, gain, course)
            if self._fits or gain == 0:
                break
            gain = max(gain - FINE, 0)
        limit = self._size * (1 if self._at_most else 1 + CLOSE)
        if gain == 0 and len(self._payload) > limit:
            raise TooSmallError
        return decoded


class LatentDecoder:
    """Reads the latents of one photo."""

    def __init__(
        self, run: Runner, head: LayerHead, coded: bytes, allocation: Allocation | None = None
    ) -> None:
        """allocation: told where the bits lie, if given."""
        self._run, self._head, self._allocation = run, head, allocation
        self._coder = Decoder(coded)

    def refine(self, stripes: Stripes) -> Iterator[Refined]:
        """The better values of each stripe.

        Raises CorruptSidecarError for data that no encoder wrote.
        """
        parts = np.split(self._head.means, len(stripes.rows))
        for means, (rows, planes) in zip(parts, stripes, strict=True):
            try:
                decoded, _ = code_planes(
                    self._run,
                    self._coder,
                    planes,
                    means=means,
                    allocation=self._allocation,
                    overwrite=True,
                )
            except ValueError as error:
                raise CorruptSidecarError(f"damaged: {error}; copy the sidecar again") from error
            yield rows, decoded
        self._coder.finish()
