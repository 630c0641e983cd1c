"""A model as it is shipped: the integers of a safetensors file, checked before use.

Nothing in a weights file can run code; sizes, ranges and the certificate are
checked when it is loaded, as they were when it was saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..errors import ModelError
from .analysis import HyperAnalysis
from .config import (
    ACTIVATION_MAX,
    HYPER,
    LATENTS,
    LAYERS,
    PATTERN,
    RATES,
    SCALES,
    STEPS,
    Layer,
)
from .kernels import Weights
from .tables import Tables

SUM_LIMIT = 1 << 24
"""Sums stay below this in magnitude, so that float32 holds every partial sum."""

COMPANDED = 46341
"""Companded values of the tone layer: 0..46340."""

DOMAIN = 1 << 16
"""Values in the residual's domain: 0..65535."""

FORMAT = "rawcodec model 1"


@dataclass(frozen=True)
class Model:
    """The weights of one model.

    layers: int8 weight, uint8 shift and int32 bias (1 or 33, outputs) by name.
    steps: int32 (33, 4), by rate and channel, in units of 2**-15 of white in
        the residual's domain. hyper_scale: uint8 (33, 8). pattern: int16 (2,
        64, 64). forward: uint16 (46341,), from companded values to the
        residual's domain; back: uint16 (65536,), the other way.
    """

    layers: dict[str, tuple[Tensor, Tensor, Tensor]]
    steps: Tensor
    hyper_scale: Tensor
    pattern: Tensor
    forward: np.ndarray
    back: np.ndarray
    tables: Tables
    hyper_analysis: HyperAnalysis

    def weights(self, name: str, rate: int) -> Weights:
        """One layer's integers at a rate."""
        weight, shift, bias = self.layers[name]
        return Weights(LAYERS[name], weight, shift.long(), bias[rate if len(bias) > 1 else 0])


def certify(name: str, layer: Layer, weight: Tensor, shift: Tensor, bias: Tensor) -> None:
    """Raise ValueError unless a layer's sums stay below ``SUM_LIMIT``, whatever its input.

    The bound is the sum of |w| times the largest activation plus |bias|, for
    every output channel and rate (design, section 4).
    """
    shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    rates = RATES if layer.conditioned else 1
    if (
        weight.dtype != torch.int8
        or tuple(weight.shape) != shape
        or shift.dtype != torch.uint8
        or tuple(shift.shape) != (layer.outputs,)
        or bias.dtype != torch.int32
        or tuple(bias.shape) != (rates, layer.outputs)
    ):
        raise ValueError(f"{name}: its arrays are not as they should be")
    if int(weight.min()) < -ACTIVATION_MAX or int(shift.max()) >= 24:
        raise ValueError(f"{name}: a weight or a shift is out of range")
    bound = weight.long().abs().sum((1, 2, 3)) * ACTIVATION_MAX + bias.long().abs().amax(0)
    worst = int(bound.max())
    if worst >= SUM_LIMIT:
        raise ValueError(f"{name}: sums may reach {worst}, and {SUM_LIMIT} is the limit")


def load_model(path: Path) -> Model:
    """Load and check a weights file; ModelError if it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read; install rawcodec again") from error
    try:
        return _model(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        fault = " ".join(str(error).split())  # PyTorch's messages have several lines
        raise ModelError(f"{path}: is no model ({fault}); install rawcodec again") from error


def _model(arrays: dict[str, Tensor]) -> Model:
    layers = {}
    for name, layer in LAYERS.items():
        parts = tuple(arrays[f"{name}.{part}"] for part in ("weight", "shift", "bias"))
        certify(name, layer, *parts)
        layers[name] = (parts[0], parts[1], parts[2])
    steps = _checked(arrays, "steps", torch.int32, (RATES, LATENTS), 1, 1 << 15)
    hyper_scale = _checked(arrays, "hyper_scale", torch.uint8, (RATES, HYPER), 0, SCALES - 1)
    pattern = _checked(arrays, "pattern", torch.int16, (STEPS, PATTERN, PATTERN), -4096, 4096)
    forward = _checked(arrays, "forward", torch.uint16, (COMPANDED,), 0, DOMAIN - 1)
    back = _checked(arrays, "back", torch.uint16, (DOMAIN,), 0, COMPANDED - 1)
    hyper_analysis, prefix = HyperAnalysis(), "hyper_analysis."
    hyper_analysis.load_state_dict(
        {n.removeprefix(prefix): a.float() for n, a in arrays.items() if n.startswith(prefix)}
    )
    hyper_analysis.eval().requires_grad_(False)
    tables = Tables(arrays["tables.sizes"].numpy(), arrays["tables.frequencies"].numpy())
    return Model(
        layers,
        steps,
        hyper_scale,
        pattern,
        forward.numpy(),
        back.numpy(),
        tables,
        hyper_analysis,
    )


def _checked(
    arrays: dict[str, Tensor],
    name: str,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    low: int,
    high: int,
) -> Tensor:
    array = arrays[name]
    wide = array.to(torch.int64) if array.dtype == dtype else None
    if wide is None or tuple(array.shape) != shape or wide.min() < low or wide.max() > high:
        raise ValueError(f"{name} is not as it should be")
    return array
