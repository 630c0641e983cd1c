"""The learned layer as the pipeline uses it; the only module besides it that joins packages.

Kept apart from the pipeline because it loads torch, which the tone layer does
without.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .errors import CorruptSidecarError, DeviceError
from .model import kernels
from .model.latents import Runner
from .model.layer import LayerHead, code_planes
from .model.store import Model, load_model
from .model.view import PlaneView
from .stream.entropy import Decoder, Encoder


def use_threads(count: int) -> None:
    """Let torch use so many threads; the result does not depend on it."""
    torch.set_num_threads(count)


def runner(path: Path, rate: int, device: str) -> Runner:
    """A model at a rate, ready to run.

    device: ``auto``, ``cpu`` or ``cuda``. Raises ModelError for a damaged
    weights file, and DeviceError where no kernel computes exactly.
    """
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    kernel = kernels.best_kernel(place)
    if not kernels.is_exact(kernel, place):
        if device == "auto" and place == "cuda":
            return runner(path, rate, "cpu")
        raise DeviceError(
            f"device {place}: does not compute the same integers as other machines, "
            f"so a sidecar could not be decoded elsewhere; use --device cpu"
        )
    return Runner(_model(path), rate, kernel, place)


@functools.lru_cache(maxsize=2)
def _model(path: Path) -> Model:
    return load_model(path)


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
        self._head = LayerHead(self._run.rate, means)
        return decoded

    def payload(self) -> bytes:
        """The chunk's payload, once the planes are refined."""
        assert self._head is not None
        return self._head.pack() + self._coder.finish()


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
