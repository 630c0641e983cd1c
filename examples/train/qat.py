"""The decoder's layers while they are trained: floats that imitate the integers.

An activation a stands for the integer 32 a. Weights and biases are rounded as
the export rounds them, so that in float32 a layer computes exactly what the
integer layer will (``tests/test_train.py``); under autocast to bfloat16 its
sums are rounded to 8 bits besides. Gradients go straight through the rounding
(Bengio et al., "Estimating or Propagating Gradients Through Stochastic
Neurons", 2013; Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rawcodec.model.analysis import between_anchors
from rawcodec.model.config import (
    ACTIVATION_MAX,
    LAYERS,
    RATES,
    SCALE_OCTAVES,
    SCALES,
    ZERO,
    Layer,
    signed_inputs,
)

UNIT = 32
"""Integers to one unit of an activation."""

ANCHORS = 9
"""Rates at which a conditioned bias is learned; in between it is interpolated."""

MAX_SHIFT = 18
"""Largest power of two that weights are scaled with; a certificate allows less than 24."""

_VALUE_UNITS = {"mean": 8, "scale": 8, "order": 32}
"""Integers to one unit of what is no activation, chosen so that weights of usual size fit."""

_FIRST_SCALE = 25
"""Index of the scale that latents begin training with, at the middle rate: about 0.5."""

_SMALL = 0.1
"""What the first weights of layers that give values are multiplied with."""


def ste_round(x: Tensor) -> Tensor:
    """Rounds, halves to even; the gradient passes as if it did not."""
    return x + (x.round() - x).detach()


def ste_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamps; gradients that lead back into the range pass."""
    clamped: Tensor = _Clamp.apply(x, low, high)
    return clamped


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.range
        keep = ((x >= low) | (gradient < 0)) & ((x <= high) | (gradient > 0))
        return gradient * keep, None, None


def output_unit(name: str) -> int:
    """Integers to one unit of a layer's output."""
    if name.endswith(".mean"):
        return _VALUE_UNITS["mean"]
    if name.endswith(".scale"):
        return _VALUE_UNITS["scale"]
    return _VALUE_UNITS.get(name, UNIT)


class QatConv(nn.Module):
    """One layer of ``rawcodec.model.config.LAYERS``.

    weight: (outputs, inputs, k, k), from activations to units of the output.
    bias: (outputs,), in units of the output. rate: (9, outputs), what is added
    to the bias at the anchors, if the layer is conditioned. zero: (inputs, 1,
    1), the activation that stands for zero. All float32.
    """

    zero: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layer: Layer = LAYERS[name]
        self.unit = output_unit(name)
        layer = self.layer
        fan = layer.inputs * layer.kernel**2
        self.weight = nn.Parameter(
            torch.randn(layer.outputs, layer.inputs, layer.kernel, layer.kernel)
            * math.sqrt(2 / fan)
        )
        self.bias = nn.Parameter(torch.zeros(layer.outputs))
        if layer.conditioned:
            self.rate = nn.Parameter(torch.zeros(ANCHORS, layer.outputs))
        signed = signed_inputs(name)
        self._signed = any(signed)
        zero = torch.where(torch.tensor(signed), float(ZERO) / UNIT, 0.0)
        self.register_buffer("zero", zero[:, None, None])
        if layer.out == "value" or name.endswith(".scale"):
            with torch.no_grad():
                self.weight.mul_(_SMALL)

    def biases(self, rate: Tensor) -> Tensor:
        """The bias at rates (B,), in units of the output: (B or 1, outputs)."""
        if not self.layer.conditioned:
            return self.bias[None]
        return self.bias + between_anchors(self.rate, rate)

    def shifts(self) -> Tensor:
        """For each output channel, the power of two that weights are scaled with: (outputs,)."""
        scaled = self.weight.detach() * (self.unit / UNIT)
        largest = scaled.abs().amax((1, 2, 3)).clamp(min=1e-9)
        return torch.floor(torch.log2(ACTIVATION_MAX / largest)).clamp(0, MAX_SHIFT)

    def rounded(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and biases as the export will have them, in output integers.

        Both are multiples of 2^-shift: weights (outputs, inputs, k, k), of
        magnitude up to 127 x 2^-shift; biases (B or 1, outputs).
        """
        grid = torch.exp2(self.shifts())
        weight = self.weight * (self.unit / UNIT) * grid[:, None, None, None]
        weight = ste_round(weight.clamp(-ACTIVATION_MAX, ACTIVATION_MAX))
        bias = ste_round(self.biases(rate) * self.unit * grid)
        return weight / grid[:, None, None, None], bias / grid

    def forward(self, x: Tensor, rate: Tensor, exact: bool) -> Tensor:
        """The layer's outputs, float32 (B, outputs, h, w).

        x: activations (B, inputs, H, W). rate: (B,). exact: imitate the
        integers; else nothing is rounded. Returns activations; or integers,
        not divided by their unit, where the layer gives values or scales.
        """
        layer = self.layer
        if exact:
            weight, bias = self.rounded(rate)
            weight = weight * UNIT
        else:
            weight, bias = self.weight * self.unit, self.biases(rate) * self.unit
        if self._signed:
            x = x - self.zero
        y = F.conv2d(x, weight, stride=layer.stride).float() + bias[:, :, None, None]
        low = 0 if layer.out == "activation" else -layer.limit
        y = ste_clamp(y, low, layer.limit)
        if exact:
            y = ste_round(y)
        if layer.out == "value" or layer.limit == SCALES - 1:
            return y
        return y / UNIT


class QatLayers(nn.Module):
    """All layers of the decoder, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name.replace(".", "_"): QatConv(name) for name in LAYERS})
        octaves = (RATES - 1) / 4 / (ANCHORS - 1)  # of the step, from anchor to anchor
        slope = (SCALES - 1) / SCALE_OCTAVES * octaves / _VALUE_UNITS["scale"]
        for name in LAYERS:
            if name.endswith(".scale"):
                # a finer step makes all latents larger alike
                middle = torch.arange(ANCHORS)[:, None] - ANCHORS // 2
                with torch.no_grad():
                    self[name].rate.add_(slope * middle)
                    self[name].bias.add_(_FIRST_SCALE / _VALUE_UNITS["scale"])

    def __getitem__(self, name: str) -> QatConv:
        module = self.layers[name.replace(".", "_")]
        assert isinstance(module, QatConv)
        return module
