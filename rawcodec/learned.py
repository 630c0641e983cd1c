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
from .model import kernels, target
from .model.config import FINE
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


_CLOSE = 0.04
"""How far from the wanted size a payload may be before another gain is tried."""

_TRIES = 5

_LEAST = 32
"""Bytes that no payload is smaller than."""


class TooSmallError(Exception):
    """No gain makes so few bytes."""


class LatentEncoder:
    """Chooses and writes the latents of one photo."""

    def __init__(self, run: Runner, companded: Sequence[np.ndarray]) -> None:
        """companded: the raw's planes, uint16 (H, W), in the order they are coded."""
        self._run, self._raw = run, companded
        self._coder = Encoder()
        self._head: LayerHead | None = None

    def refine(self, planes: Sequence[PlaneView]) -> list[np.ndarray]:
        """What the decoder will make of each plane: companded, uint16 (H, W)."""
        decoded, means = code_planes(self._run, self._coder, planes, raw=self._raw)
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
        small, raws = target.sample(planes, self._raw)

        def bits(gain: int) -> float:
            meter = RateMeter()
            code_planes(self._run(gain), meter, small, raw=raws)
            return meter.bits

        search = target.Search(bits)
        aim = self._size * (1 - _CLOSE / 2 if self._at_most else 1)
        gain: int | None = search.find(8 * aim * raws[0].size / self._raw[0].size)
        best: tuple[float, bytes, list[np.ndarray]] | None = None
        sizes: dict[int, int] = {}
        while gain is not None and len(sizes) < _TRIES:
            encoder = LatentEncoder(self._run(gain), self._raw)
            decoded = encoder.refine(planes)
            payload = encoder.payload()
            sizes[gain] = len(payload)
            off = abs(math.log(len(payload) / aim))
            fits = len(payload) <= self._size or not self._at_most
            if fits and (best is None or off < best[0]):
                best = off, payload, decoded
            if fits and off < _CLOSE:
                break
            gain = target.better(search, sizes, aim)
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

    def __init__(self, run: Runner, head: LayerHead, coded: bytes) -> None:
        self._run, self._head = run, head
        self._coder = Decoder(coded)

    def refine(self, planes: Sequence[PlaneView]) -> list[np.ndarray]:
        """The better companded values of each plane: uint16 (H, W).

        Raises CorruptSidecarError for data that no encoder wrote.
        """
        try:
            decoded, _ = code_planes(self._run, self._coder, planes, means=self._head.means)
        except ValueError as error:
            raise CorruptSidecarError(f"damaged: {error}; copy the sidecar again") from error
        self._coder.finish()
        return decoded
