"""The decoder's layers while they are trained: floats that imitate the integers.

An activation a stands for the integer 32 a. Weights and biases are rounded as
the export rounds them, with straight-through gradients, so that in float32 the
layer computes exactly what the integer layer will.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from rawcodec.model.analysis import between_anchors
from rawcodec.model.config import ACTIVATION_MAX, LAYERS, RATES, SCALES, ZERO, Layer, signed_inputs
from torch import Tensor, nn

UNIT = 32
"""Integers to one unit of an activation."""

ANCHORS = 9
"""Rates at which a conditioned bias is learned; in between it is interpolated."""

MAX_SHIFT = 18

VALUE_UNITS = {"mean": 8, "correction": 32, "prediction": 64, "order": 32, "scale": 8}


def ste_round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def ste_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamps; gradients that lead back into the range pass."""
    return _Clamp.apply(x, low, high)


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        low, high = ctx.range
        keep = ((x >= low) | (gradient < 0)) & ((x <= high) | (gradient > 0))
        return gradient * keep, None, None


def output_unit(name: str) -> int:
    """Integers to one unit of a layer's output."""
    if name.endswith(".mean"):
        return VALUE_UNITS["mean"]
    if name.endswith(".scale"):
        return VALUE_UNITS["scale"]
    if name == "synthesis.2":
        return VALUE_UNITS["correction"]
    return VALUE_UNITS.get(name, UNIT)


class QatConv(nn.Module):
    """One layer of ``rawcodec.model.config.LAYERS``."""

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
        signed = torch.tensor(signed_inputs(name))
        self.register_buffer("zero", torch.where(signed, float(ZERO) / UNIT, 0.0)[:, None, None])
        if layer.out == "value" or name.endswith(".scale"):
            with torch.no_grad():
                self.weight *= 0.1

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
        """Weights and biases as the export will have them, in output integers."""
        grid = torch.exp2(self.shifts())
        weight = self.weight * (self.unit / UNIT) * grid[:, None, None, None]
        weight = ste_round(weight.clamp(-ACTIVATION_MAX, ACTIVATION_MAX))
        bias = ste_round(self.biases(rate) * self.unit * grid)
        return weight / grid[:, None, None, None], bias / grid

    def forward(self, x: Tensor, rate: Tensor, exact: bool) -> Tensor:
        """x: activations in units of 1/32 (real). Returns activations, or integer values."""
        layer = self.layer
        if exact:
            weight, bias = self.rounded(rate)
            weight = weight * UNIT
        else:
            weight, bias = self.weight * self.unit, self.biases(rate) * self.unit
        x = x - self.zero if bool(self.zero.any()) else x
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
        slope = (SCALES - 1) / 13 * (RATES - 1) / 4 / (ANCHORS - 1) / VALUE_UNITS["scale"]
        for name in LAYERS:
            if name.endswith(".scale"):
                # a finer step makes all latents larger alike
                anchors = self[name].rate
                with torch.no_grad():
                    anchors += slope * (torch.arange(ANCHORS)[:, None] - ANCHORS // 2)
                    self[name].bias += 25 / VALUE_UNITS["scale"]

    def __getitem__(self, name: str) -> QatConv:
        module = self.layers[name.replace(".", "_")]
        assert isinstance(module, QatConv)
        return module
