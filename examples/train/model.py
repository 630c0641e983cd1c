"""The whole codec while it is trained: the package's graph and walk over imitated integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rawcodec.model import network
from rawcodec.model.analysis import Analysis, HyperAnalysis, between_anchors
from rawcodec.model.config import (
    CORRECTION_UNIT,
    GROUPS,
    HYPER,
    HYPER_GAIN,
    HYPER_LIMIT,
    LATENTS,
    MEAN_UNIT,
    PASSES,
    PATTERN,
    PREDICTION_UNIT,
    RATES,
    SCALE_MIN,
    SCALE_OCTAVES,
    SCALES,
    STEPS,
    ZERO,
)
from rawcodec.model.inputs import inputs, transform, unblocks
from torch import Tensor, nn

from .qat import ANCHORS, UNIT, QatLayers, ste_clamp, ste_round

COARSEST = 8192.0
"""Step of rate 0, in units of 2**-15 of the white level in the residual's domain."""

TAIL = 2.0**-9
"""Weight of the wider Gaussian that is mixed into every table."""

DISTORTION_WEIGHT = 6 / math.log(2)
"""Bits per squared step at which a step is best spent, from high-rate theory: 6 / ln 2."""


@dataclass(frozen=True)
class Batch:
    """Patches with margins of TRUNK_MARGIN sites: see ``data.py``."""

    guide: Tensor
    tone: Tensor
    mask: Tensor
    missing: Tensor
    earlier: Tensor
    raw: Tensor
    """float32 (B, H, W), companded raw: 2**15 is white; margins included."""


def base_step(rate: Tensor) -> Tensor:
    return COARSEST * torch.exp2(-rate / 4)


def log_scale(index: Tensor) -> Tensor:
    """log2 of the standard deviation of a (fractional) scale index."""
    return math.log2(SCALE_MIN) + index * (SCALE_OCTAVES / (SCALES - 1))


def bits_of(z: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """-log2 of the probability of integers under the discretised mixture."""
    distance = (z - mean).abs()
    # both at once: erfc keeps the tail's precision
    scaled = distance / (sigma * math.sqrt(2))
    half = 0.5 / (sigma * math.sqrt(2))

    def mass(s: Tensor, h: Tensor) -> Tensor:
        return 0.5 * (torch.erf(s + h) - torch.erf(s - h))

    p = (1 - TAIL) * mass(scaled, half) + TAIL * mass(scaled / 4, half / 4)
    return -torch.log2(p + 2.0**-18)


class _LatentMeter:
    """The training's coder: noise or rounding, and the sum of -log2 p."""

    def __init__(self, latents: Tensor, noisy: bool, choosy: bool) -> None:
        self.latents, self.noisy, self.choosy = latents, noisy, choosy
        self.bits: Tensor = torch.zeros(len(latents))

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        group = PASSES[number][0]
        y = self.latents[:, GROUPS[group][0] : GROUPS[group][-1] + 1]
        mu, sigma = mean / MEAN_UNIT, torch.exp2(log_scale(scale))
        if self.noisy:
            z = y + torch.rand_like(y) - 0.5
        else:
            nearest = y.detach().round()
            if self.choosy:
                with torch.no_grad():
                    other = nearest - torch.sign(nearest - mu.round())
                    saved = bits_of(nearest, mu, sigma) - bits_of(other, mu, sigma)
                    worse = (y - other) ** 2 - (y - nearest) ** 2
                    nearest = torch.where(saved > DISTORTION_WEIGHT * worse, other, nearest)
            z = y + (nearest - y).detach()
        self.bits = self.bits + (bits_of(z, mu, sigma) * here).sum((1, 2, 3))
        return z


class TrainingCodec(nn.Module):
    """Everything that is learned."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent
        self.layers = QatLayers()
        self.analysis = Analysis()
        self.hyper_analysis = HyperAnalysis()
        self.gains = nn.Parameter(torch.zeros(ANCHORS, LATENTS))
        self.hyper_scale = nn.Parameter(torch.full((ANCHORS, HYPER), 30.0 / 8))
        gumbel = -torch.log(-torch.log(torch.rand(STEPS, PATTERN, PATTERN).clamp(1e-6, 1 - 1e-6)))
        self.register_buffer("pattern", (gumbel * 32).round())

    def domain(self, companded: Tensor) -> Tensor:
        """From the companded domain (square root) to that of the residual."""
        unit = 2.0**15
        return unit * (companded.clamp(min=0) / unit + 1e-8) ** (2 * self.exponent)

    def forward(
        self,
        batch: Batch,
        rate: Tensor,
        *,
        exact: bool,
        noisy: bool,
        choosy: bool = False,
        ordered: bool = True,
    ) -> dict[str, Tensor]:
        """Rate and distortion of patches: each (B,), in bits per site and squared base steps.

        exact: imitate the integers. noisy: uniform noise in the place of rounding.
        choosy: choose latents as the encoder does. ordered: let the network
        decide on the order; else the stored noise alone does.
        """

        def layer(name: str, x: Tensor) -> Tensor:
            return self.layers[name](x, rate, exact)

        x = inputs(batch.guide, batch.tone, batch.mask, batch.missing, batch.earlier)
        x = x.to(torch.float32) / UNIT
        half = network.half_features(layer, x)  # margin 6 of its positions
        guide = network.guide_features(layer, half)  # margin 1
        predicted = layer("prediction", half)  # margin 5
        predicted = predicted[:, :, 5:-5, 5:-5]
        mask = batch.mask[:, :, 8:-8, 8:-8].unflatten(1, (4, 3))
        correction = (predicted.unflatten(1, (4, 3)) * mask).sum(2) * PREDICTION_UNIT
        tone = batch.tone[:, 16:-16, 16:-16].float()
        prediction = ste_clamp(tone + unblocks(correction), 0, 46340)
        residual = self.domain(batch.raw[:, 16:-16, 16:-16]) - self.domain(prediction)

        step = base_step(rate)[:, None, None, None]
        gain = torch.exp2(between_anchors(self.gains, rate))[:, :, None, None]
        linear = transform(residual) / 4 / step  # in base steps
        inner = guide[:, :, 1:-1, 1:-1]
        y = linear / gain
        y = y + self.analysis(y, inner, rate).float()

        v = self.hyper_analysis(y.detach() + (y - y.detach()) * 0.1, rate).float()
        with torch.no_grad():
            middle = (v.mean((2, 3), keepdim=True) * MEAN_UNIT).round() / MEAN_UNIT
        v = v + torch.rand_like(v) - 0.5 if noisy else ste_round(v)
        v = ste_clamp(v, -HYPER_LIMIT, HYPER_LIMIT)
        spread = torch.exp2(log_scale((between_anchors(self.hyper_scale, rate) * 8).clamp(0, 63)))
        hyper_bits = bits_of(v, middle, spread[:, :, None, None].expand_as(v)).sum((1, 2, 3))
        activation = F.pad((ZERO + HYPER_GAIN * v) / UNIT, [1] * 4, value=ZERO / UNIT)
        hyper = F.pad(network.hyper_features(layer, activation), [1] * 4)
        base = network.base_features(layer, guide, hyper)

        scores = layer("order", base) * float(ordered) + self._tile(base.shape[-2:])
        hard = F.one_hot(scores.argmax(1), STEPS).movedim(-1, 1).to(scores.dtype)
        soft = torch.softmax(scores / 32, 1)
        chosen = soft + (hard - soft).detach()
        steps = list(chosen.split(1, 1))

        def parameters_of(number: int, known: Tensor) -> tuple[Tensor, Tensor]:
            return network.parameters(layer, number, base, _padded(levels(known), 2))

        meter = _LatentMeter(y, noisy, choosy)
        z = network.walk(meter, steps, torch.zeros_like(y), parameters_of)
        added = network.synthesis(layer, F.pad(inner, [3] * 4), _padded(levels(z), 3))
        error = linear - (z + added / CORRECTION_UNIT) * gain
        sites = y[0].numel()
        return {
            "latent_bits": meter.bits / sites,
            "hyper_bits": hyper_bits / sites,
            "distortion": (error**2).mean((1, 2, 3)),
            "prior": (linear.detach() ** 2).mean((1, 2, 3)),
            "first": chosen[:, 0].mean((1, 2)),
        }

    def _tile(self, size: torch.Size) -> Tensor:
        down, across = (-(-n // PATTERN) for n in size)
        tiled: Tensor = self.pattern.repeat(1, down, across)[:, : size[0], : size[1]]
        if self.training:
            tiled = tiled.roll(tuple(torch.randint(PATTERN, (2,)).tolist()), (1, 2))
        return tiled


def levels(z: Tensor) -> Tensor:
    """Latents as activations: companded to 7 bits around ``ZERO``."""
    size = ste_clamp(ste_round(10 * torch.log2(1 + z.abs())), 0, 63)
    return (ZERO + torch.sign(z.detach()) * size) / UNIT


def _padded(activations: Tensor, margin: int) -> Tensor:
    return F.pad(activations, [margin] * 4, value=ZERO / UNIT)


def rates_like(batch: Batch) -> Tensor:
    return torch.randint(0, RATES, (len(batch.raw),)).float()
