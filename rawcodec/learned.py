"""The learned layer as the pipeline uses it; the only module besides it that joins packages.

Kept apart from the pipeline because it loads torch, which the tone layer does
without.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .errors import CorruptSidecarError, DeviceError
from .model import fitted, kernels, target
from .model.allocation import Allocation
from .model.config import FINE
from .model.fitted import Coefficients
from .model.fitting import Filters
from .model.latents import Runner
from .model.layer import LayerHead, code_planes
from .model.store import Model, load_model
from .model.view import PlaneView
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


_CLOSE = 0.045
"""How far from the wanted size a payload may be before another gain is tried."""

_TRIES = 6

_LEAST = 32
"""Bytes that no payload is smaller than."""


_LIKE = 3 * FINE
"""How many gains apart encodings may be and have the same filters."""


def _bits(
    run: Runner, planes: Sequence[PlaneView], filters: Sequence[Coefficients | None]
) -> float:
    """What filters take, two of each plane."""
    meter = RateMeter()
    for number, filter_ in enumerate(filters):
        colours = planes[number // 2].colours
        fitted.code(meter, run.model.tables, colours, filter_, read=False)
    return meter.bits


def _without(size: float, bits: float) -> float:
    """Bytes less those that filters take, but a little."""
    return max(size - bits / 8, _LEAST)


class TooSmallError(Exception):
    """No gain makes so few bytes."""


class LatentEncoder:
    """Chooses and writes the latents of one photo."""

    def __init__(
        self, run: Runner, companded: Sequence[np.ndarray], filters: Filters | None = None
    ) -> None:
        """companded: the raw's planes, uint16 (H, W), in the order they are coded.

        filters: where they come from; fitted if None.
        """
        self._run, self._raw, self._filters = run, companded, filters
        self._coder = Encoder()
        self._head: LayerHead | None = None

    def refine(self, planes: Sequence[PlaneView]) -> list[np.ndarray]:
        """What the decoder will make of each plane: companded, uint16 (H, W)."""
        decoded, means = code_planes(
            self._run, self._coder, planes, raw=self._raw, filters=self._filters
        )
        self._head = LayerHead(self._run.rate, means, self._run.fine)
        return decoded

    def payload(self) -> bytes:
        """The chunk's payload, once the planes are refined."""
        assert self._head is not None
        return self._head.pack() + self._coder.finish()


class AimedEncoder:
    """Chooses the gain, too: that at which the payload takes a wanted number of bytes."""

    def __init__(
        self, path: Path, device: str, companded: Sequence[np.ndarray], size: int, *, at_most: bool
    ) -> None:
        """size: of the payload. at_most: never more; else within ``_CLOSE``, where gains allow."""
        self._path, self._device, self._raw = path, device, companded
        self._size, self._at_most = size, at_most
        self._payload = b""

    def refine(self, planes: Sequence[PlaneView]) -> list[np.ndarray]:
        """What the decoder will make of each plane: companded, uint16 (H, W).

        TooSmallError if the payload takes more at every gain.
        """
        if self._size < _LEAST:
            raise TooSmallError
        aim = self._size * (1 - _CLOSE / 2 if self._at_most else 1)
        sites = self._raw[0].size
        small, raws = target.sample(planes, self._raw)
        sampled: list[Coefficients | None] | None = None

        def bits(gain: int) -> float:
            nonlocal sampled
            meter, filters, run = RateMeter(), Filters(sampled), self._run(gain)
            code_planes(run, meter, small, raw=raws, filters=filters)
            sampled = filters.made
            return meter.bits - _bits(run, small, sampled)

        start = target.usual(8 * aim / sites)
        search = target.Search(bits, start)
        search.log_bits(start)
        rest = _without(aim, _bits(self._run(start), small, sampled or ()))
        gain: int | None = search.find(8 * rest * raws[0].size / sites)
        best: tuple[float, bytes, list[np.ndarray]] | None = None
        fitted_at: tuple[int, Filters] | None = None
        sizes: dict[int, float] = {}
        while gain is not None and len(sizes) < _TRIES:
            run = self._run(gain)
            if fitted_at is None or abs(gain - fitted_at[0]) > _LIKE:
                fitted_at = gain, Filters()
            else:
                fitted_at = fitted_at[0], Filters(fitted_at[1].made)
            encoder = LatentEncoder(run, self._raw, fitted_at[1])
            decoded = encoder.refine(planes)
            payload = encoder.payload()
            theirs = _bits(run, planes, fitted_at[1].made)
            sizes[gain] = _without(len(payload), theirs)
            off = abs(math.log(len(payload) / aim))
            fits = len(payload) <= self._size or not self._at_most
            if fits and (best is None or off < best[0]):
                best = off, payload, decoded
            if fits and off < _CLOSE:
                break
            gain = target.better(search, sizes, _without(aim, theirs))
            if best is None and len(sizes) > _TRIES // 2 and min(sizes) > 0:
                # whatever was foretold: one of the last tries must fit
                gain = max(min(sizes) - FINE * len(sizes), 0)
        if best is None or (min(sizes) == 0 and len(best[1]) > (1 + _CLOSE) * self._size):
            raise TooSmallError
        _, self._payload, chosen = best
        return chosen

    def payload(self) -> bytes:
        """The chunk's payload, once the planes are refined."""
        return self._payload

    def _run(self, gain: int) -> Runner:
        return runner(self._path, gain // FINE, self._device, gain % FINE)


class LatentDecoder:
    """Reads the latents of one photo."""

    def __init__(
        self, run: Runner, head: LayerHead, coded: bytes, allocation: Allocation | None = None
    ) -> None:
        """allocation: told where the bits lie, if given."""
        self._run, self._head, self._allocation = run, head, allocation
        self._coder = Decoder(coded)

    def refine(self, planes: Sequence[PlaneView]) -> list[np.ndarray]:
        """The better companded values of each plane: uint16 (H, W).

        Raises CorruptSidecarError for data that no encoder wrote.
        """
        try:
            decoded, _ = code_planes(
                self._run,
                self._coder,
                planes,
                means=self._head.means,
                allocation=self._allocation,
            )
        except ValueError as error:
            raise CorruptSidecarError(f"damaged: {error}; copy the sidecar again") from error
        self._coder.finish()
        return decoded
