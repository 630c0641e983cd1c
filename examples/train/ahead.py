"""What the codec does to a frame's tone layer before any network, at a few rates.

The grids and the first filter of ``rawcodec.model.grid`` and ``rawcodec.model.fitted``, by the
product's own code, with the tables and steps that training begins with.
"""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from rawcodec.model import kernels, layer
from rawcodec.model.latents import PlaneCodec, Runner
from rawcodec.model.store import Model, load_model
from rawcodec.model.view import PlaneView
from rawcodec.sensor import Sensor
from rawcodec.stream.entropy import RateMeter

from .data import PLANES, RATES, colours, companded
from .export import export
from .model import COARSEST, COMPANDED_MAX, EXPONENT, TrainingCodec


def prepare(
    guide: np.ndarray,
    tone: np.ndarray,
    samples: np.ndarray,
    reached: np.ndarray | None,
    sensor: Sensor,
) -> dict[str, np.ndarray]:
    """The arrays tone, prediction and, if linear, earlier of each rate: see ``pairs.py``."""
    found = {}
    for rate in RATES:
        run = _runner(rate)
        planes = PLANES if sensor.linear else (None,)
        arrays = {"tone": np.empty_like(tone), "prediction": np.empty_like(tone)}
        earlier = None
        if sensor.linear:
            arrays["earlier"] = np.zeros(tone.shape, np.int32)
        for plane in planes:
            every = ... if plane is None else (..., plane)
            raw = companded(samples, sensor)[every]
            view = PlaneView(
                guide, np.ascontiguousarray(tone[every]), colours(sensor, plane), reached
            )
            whole = np.rint(raw).astype(np.uint16)
            seen, filter_ = layer.ahead(run, RateMeter(), view, earlier, whole)
            codec = PlaneCodec(run, seen, filter_)
            prediction = codec.prediction[: codec.height, : codec.width]
            arrays["tone"][every] = seen.plane.tone
            arrays["prediction"][every] = prediction
            if plane is not None:
                if earlier is not None:
                    arrays["earlier"][every] = earlier
                rest = _coarse(raw - prediction, COARSEST * 2 ** (-rate / 4))
                decoded = np.clip(prediction + np.rint(rest), 0, COMPANDED_MAX)
                earlier = decoded.astype(np.int32) - seen.plane.tone
        found |= {f"{name}-{rate}": array for name, array in arrays.items()}
    return found


@functools.cache
def _model() -> Model:
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.safetensors"
        export(TrainingCodec(EXPONENT), path)
        return load_model(path)


@functools.cache
def _runner(rate: int) -> Runner:
    return Runner(_model(), rate, kernels.best_kernel("cpu"), "cpu")


def _coarse(residual: np.ndarray, step: float) -> np.ndarray:
    """About what decoding leaves of a residual (H, W) at a step: means of blocks, rounded."""
    size = 1
    while size < 8 and step > 4 * residual.std() * size:
        size *= 2
    if size > 1:
        rows, columns = (n // size * size for n in residual.shape)
        small = residual[:rows, :columns].reshape(rows // size, size, columns // size, size)
        means = small.mean((1, 3))
        residual = np.pad(
            np.kron(means, np.ones((size, size))),
            [(0, residual.shape[0] - rows), (0, residual.shape[1] - columns)],
        )
    rounded: np.ndarray = np.floor(np.abs(residual) * size / step + 0.4) * step / size
    return np.sign(residual) * rounded
