"""The whole codec while it is trained: the package's graph and walk over imitated integers.

Sizes: B patches of H x W sites, with margins of 16 sites around them that the
network's inputs cover; h = H / 4 and w = W / 4 are blocks. Rates, (B,), are
float32 from 0 to 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rawcodec.model import network, trellis
from rawcodec.model.analysis import HyperAnalysis, between_anchors
from rawcodec.model.config import (
    ACTIVATION_MAX,
    DISTORTION_WEIGHT,
    GROUPS,
    HYPER,
    HYPER_DEAD_ZONE,
    HYPER_GAIN,
    HYPER_LIMIT,
    LATENTS,
    MEAN_UNIT,
    PASSES,
    PATTERN,
    SCALE_MIN,
    SCALE_OCTAVES,
    SCALES,
    STEPS,
    TRELLIS_SCALE,
    TRUNK_MARGIN,
    ZERO,
)
from rawcodec.model.inputs import blocks, inputs

from .qat import ANCHORS, UNIT, QatLayers, ste_clamp, ste_round

COARSEST = 8192.0
"""Step of rate 0, in units of 2**-15 of the white level in the residual's domain."""

EXPONENT = 0.8125
"""The power of the linear value that residuals are taken of, unless a run says otherwise."""

COMPANDED_MAX = 46340
"""Largest companded value of the tone layer: see ``rawcodec.tone.table``."""

FIRST_TAIL = (-5.0, 1.5)
"""What training begins with for the wider Gaussian that is mixed into every table: log2 of its
weight, and log2 of how much wider it is."""

FLOOR = 2.0**-18
"""What is added to every probability, so that no latent costs more than 18 bits."""

_SCALE_UNIT = 8
"""Indices of scales to one unit of ``hyper_scale``."""

_ORDER_UNIT = 32
"""Scores to one unit of the order prediction, and of the Gumbel noise added to it."""

_HYPER_GRADIENT = 0.1
"""How much of the gradient of the hyper-latents reaches the latents they are made of."""


@dataclass(frozen=True)
class Batch:
    """B patches of one photo with their margins; G x G sites with them, G = H + 32.

    guide: int16 (B, 3, G, G). tone: int32 (B, G, G). mask: uint8 (B, 12, G/2,
    G/2). missing: uint8 (B, 1, G/2, G/2). earlier: int32 (B, G, G). For these
    see ``rawcodec.model.inputs.inputs``.
    prediction: int32 (B, G, G), the tone layer's values as the first filter corrects them.
    raw: float32 (B, G, G), the companded raw: 2**15 is the white level. rate: float32 (B,).
    """

    guide: Tensor
    tone: Tensor
    mask: Tensor
    missing: Tensor
    earlier: Tensor
    prediction: Tensor
    raw: Tensor
    rate: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(**{part.name: getattr(self, part.name).to(device) for part in fields(self)})


def base_step(rate: Tensor) -> Tensor:
    """Step of rates in the residual's domain, before gains: four rates to an octave."""
    return COARSEST * torch.exp2(-rate / 4)


def log_scale(index: Tensor) -> Tensor:
    """log2 of the standard deviation of a (fractional) scale index."""
    return math.log2(SCALE_MIN) + index * (SCALE_OCTAVES / (SCALES - 1))


def bits_of(z: Tensor, mean: Tensor, sigma: Tensor, tail: Tensor) -> Tensor:
    """-log2 of the probability of latents under the mixture that tables hold.

    Of the unit interval around each z, so that noise may take the place of
    rounding (Balle et al., "End-to-end Optimized Image Compression", ICLR
    2017). z, mean and sigma are of one shape, in steps. tail: (2,), as
    ``FIRST_TAIL``.
    """
    weight, wider = torch.exp2(tail)
    distance = (z - mean).abs()
    scaled = distance / (sigma * math.sqrt(2))
    half = 0.5 / (sigma * math.sqrt(2))

    def mass(s: Tensor, h: Tensor) -> Tensor:
        return 0.5 * (torch.erf(s + h) - torch.erf(s - h))

    p = (1 - weight) * mass(scaled, half) + weight * mass(scaled / wider, half / wider)
    return -torch.log2(p + FLOOR)


class _LatentMeter:
    """The training's coder: noise or rounding, and the sum of -log2 p.

    It is a :class:`network.LatentCoder`. latents: float32 (B, 4, 2h, 2w), in
    steps. bits: float32 (B,), what all latents coded so far cost.
    """

    def __init__(self, latents: Tensor, noisy: bool, choosy: bool, tail: Tensor) -> None:
        self.latents, self.noisy, self.choosy, self.tail = latents, noisy, choosy, tail
        self.bits = latents.new_zeros(len(latents))

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        group = PASSES[number][0]
        y = self.latents[:, GROUPS[group][0] : GROUPS[group][-1] + 1]
        mu, sigma = mean / MEAN_UNIT, torch.exp2(log_scale(scale))
        if self.noisy:
            z = y + torch.rand_like(y) - 0.5
        else:
            nearest = y.detach().round()
            if self.choosy:
                nearest = _chosen(y, nearest, mu, sigma, self.tail)
                which = (here.detach() > 0) & (scale.detach() >= TRELLIS_SCALE)
                nearest[which] = _along(
                    *(part.detach()[which] for part in (y, mu, sigma)), self.tail
                )
            z = y + (nearest - y).detach()
        self.bits = self.bits + (bits_of(z, mu, sigma, self.tail) * here).sum((1, 2, 3))
        return z


@torch.no_grad()
def _chosen(y: Tensor, nearest: Tensor, mu: Tensor, sigma: Tensor, tail: Tensor) -> Tensor:
    """The nearest integers, or those nearer to the mean by one where bits saved outweigh error."""
    other = nearest - torch.sign(nearest - mu.round())
    saved = bits_of(nearest, mu, sigma, tail) - bits_of(other, mu, sigma, tail)
    worse = (y - other) ** 2 - (y - nearest) ** 2
    return torch.where(saved > DISTORTION_WEIGHT * worse, other, nearest)


@torch.no_grad()
def _along(y: Tensor, mu: Tensor, sigma: Tensor, tail: Tensor) -> Tensor:
    """What the trellis makes of latents (n,) in steps: see :mod:`rawcodec.model.trellis`."""
    half = y.new_tensor([[0.0], [0.5]])
    below = (y + half).floor()
    costs = []
    for integer in (below, below + 1):
        z = integer - half
        bits = bits_of(z, mu.expand_as(z), sigma.expand_as(z), tail)
        costs.append((bits + DISTORTION_WEIGHT * (y - z) ** 2).float().cpu().numpy())
    low, high = costs
    whole = below.to(torch.int32).cpu().numpy()

    def prices(part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return whole[:, part], low[:, part], high[:, part]

    chosen = trellis.best(len(y), prices)
    halves = trellis.walk(len(y), lambda part, _: chosen[part])
    return torch.from_numpy(halves / 2).to(y)


class TrainingCodec(nn.Module):
    """Everything that is learned, and the stored noise of the order prediction.

    exponent: the power of the linear value that residuals are taken of; 1/2 is
    the companded domain itself.
    tail: (2,), as ``FIRST_TAIL``.
    gains: (9, 4), log2 of a channel's step over the base step, at the anchors.
    hyper_scale: (9, 8), scales of the hyper-latents at the anchors, in units of
    8 indices. pattern: (2, 64, 64), Gumbel noise in scores.
    """

    pattern: Tensor

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent
        self.layers = QatLayers()
        self.hyper_analysis = HyperAnalysis()
        self.tail = nn.Parameter(torch.tensor(FIRST_TAIL))
        self.gains = nn.Parameter(torch.zeros(ANCHORS, LATENTS))
        self.hyper_scale = nn.Parameter(torch.full((ANCHORS, HYPER), 16.0 / _SCALE_UNIT))
        gumbel = -torch.log(-torch.log(torch.rand(STEPS, PATTERN, PATTERN).clamp(1e-6, 1 - 1e-6)))
        self.register_buffer("pattern", (gumbel * _ORDER_UNIT).round())

    def domain(self, companded: Tensor) -> Tensor:
        """From the companded domain (square root) to that of the residual."""
        unit = 2.0**15
        return unit * (companded.clamp(min=0) / unit + 1e-8) ** (2 * self.exponent)

    def gains_at(self, rate: Tensor) -> Tensor:
        """Steps of the latents in base steps: (B, 4)."""
        return torch.exp2(between_anchors(self.gains, rate))

    def hyper_scales_at(self, rate: Tensor) -> Tensor:
        """Indices of the scales of the hyper-latents, fractional: (B, 8)."""
        return (between_anchors(self.hyper_scale, rate) * _SCALE_UNIT).clamp(0, SCALES - 1)

    def forward(
        self,
        batch: Batch,
        *,
        exact: bool,
        noisy: bool,
        choosy: bool = False,
        ordered: bool = True,
    ) -> dict[str, Tensor]:
        """Rate and distortion of patches: each (B,).

        exact: imitate the integers. noisy: uniform noise in the place of
        rounding; without it, gains get no gradients. choosy:
        choose latents as the encoder does. ordered: let the network decide on
        the order; else the stored noise alone does.

        latent_bits, hyper_bits: bits per site. distortion: mean squared error
        that the latents leave, in base steps. prior: what it would be without
        any latent. first: the share of positions that belong to the first step.
        """

        rate = batch.rate

        def layer(name: str, x: Tensor) -> Tensor:
            return self.layers[name](x, rate, exact)

        guide, half = self.look(layer, batch)
        margin = TRUNK_MARGIN
        raw, prediction = (
            part[:, margin:-margin, margin:-margin] for part in (batch.raw, batch.prediction)
        )
        residual = self.domain(raw) - self.domain(prediction.float())
        linear = blocks(residual) / base_step(rate)[:, None, None, None]
        gain = self.gains_at(rate)[:, :, None, None]
        if not noisy:
            # gradients straight through the rounding would drive values to the thresholds
            # between integers
            gain = gain.detach()
        y = linear / gain

        v, hyper_bits = self._hyper(y, rate, noisy)
        base = self._know(layer, guide, v)
        detail = network.detail_features(layer, half, base)
        chosen = self._order(layer, detail, ordered)

        def parameters_of(number: int, known: Tensor) -> tuple[Tensor, Tensor]:
            seen = known_activations(known, chosen[:, :1])
            return network.parameters(layer, number, detail, seen)

        meter = _LatentMeter(y, noisy, choosy, self.tail)
        steps = list(torch.split(chosen, 1, 1))
        z = network.walk(meter, steps, torch.zeros_like(y), parameters_of)
        error = linear - z * gain
        sites = y[0].numel()
        return {
            "latent_bits": meter.bits / sites,
            "hyper_bits": hyper_bits / sites,
            "distortion": (error**2).mean((1, 2, 3)),
            "prior": (linear.detach() ** 2).mean((1, 2, 3)),
            "first": chosen[:, 0].mean((1, 2)),
        }

    def look(self, layer: network.LayerFunction, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the JPEG gives, features of blocks and of quads: (B, 64, h + 2, w + 2), (B, 32, 2h,
        2w)."""
        x = inputs(batch.guide, batch.tone, batch.mask, batch.missing, batch.earlier)
        x = x.to(torch.float32) / UNIT
        half = network.half_features(layer, x)  # a margin of 6 of its positions
        guide = network.guide_features(layer, half)  # a margin of 1
        return guide, half[:, :, 6:-6, 6:-6]

    def _hyper(self, y: Tensor, rate: Tensor, noisy: bool) -> tuple[Tensor, Tensor]:
        """The hyper-latents of latents (B, 4, 2h, 2w): (B, 8, h/4, w/4), and their bits: (B,).

        Their means are of the whole batch, as those of a file are of a photo.
        """
        v = self.hyper_analysis(y.detach() + (y - y.detach()) * _HYPER_GRADIENT, rate).float()
        centre = v.detach().mean((0, 2, 3), keepdim=True).round()
        if noisy:
            middle = centre
            v = v + torch.rand_like(v) - 0.5
        else:
            # as the encoder does; a mean that lies between integers would make both free
            away = v.detach() - centre
            reached = (away.abs() + (0.5 - HYPER_DEAD_ZONE)).floor()
            whole = (centre + torch.sign(away) * reached).clamp(-HYPER_LIMIT, HYPER_LIMIT)
            middle = (whole.mean((0, 2, 3), keepdim=True) * MEAN_UNIT).round() / MEAN_UNIT
            v = v + (whole - v).detach()
        v = ste_clamp(v, -HYPER_LIMIT, HYPER_LIMIT)
        sigma = torch.exp2(log_scale(self.hyper_scales_at(rate)))[:, :, None, None]
        return v, bits_of(v, middle, sigma.expand_as(v), self.tail).sum((1, 2, 3))

    @staticmethod
    def _know(layer: network.LayerFunction, guide: Tensor, v: Tensor) -> Tensor:
        """What the entropy model knows before any latent: (B, 64, h, w)."""
        activation = F.pad((ZERO + HYPER_GAIN * v) / UNIT, [1] * 4, value=ZERO / UNIT)
        hyper = F.pad(network.hyper_features(layer, activation), [1] * 4)
        return network.base_features(layer, guide, hyper)

    def _order(self, layer: network.LayerFunction, detail: Tensor, ordered: bool) -> Tensor:
        """Which step each position belongs to, one-hot: (B, 2, 2h, 2w).

        Gradients are those of the softmax of the scores (Jang et al.,
        "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017).
        """
        scores = layer("order", detail) * float(ordered) + self._tile(detail.shape[-2:])
        hard = F.one_hot(scores.argmax(1), STEPS).movedim(-1, 1).to(scores.dtype)
        soft = torch.softmax(scores / _ORDER_UNIT, 1)
        return soft + (hard - soft).detach()

    def _tile(self, size: torch.Size) -> Tensor:
        """The pattern repeated over positions, (2, h, w); shifted at random while training."""
        down, across = (-(-n // PATTERN) for n in size)
        tiled = self.pattern.repeat(1, down, across)[:, : size[0], : size[1]]
        if self.training:
            tiled = tiled.roll(tuple(torch.randint(PATTERN, (2,)).tolist()), (1, 2))
        return tiled


def levels(z: Tensor) -> Tensor:
    """Latents as activations: companded to 7 bits around ``ZERO``."""
    return (ZERO + torch.sign(z.detach()) * _sizes(z)) / UNIT


def _sizes(z: Tensor) -> Tensor:
    return ste_clamp(ste_round(10 * torch.log2(1 + z.abs())), 0, 63)


def known_activations(halves: Tensor, first: Tensor) -> Tensor:
    """What a context sees of latents (B, 4, h, w): (B, 9, h + 4, w + 4).

    first: (B, 1, h, w), 1 where the position belongs to the first step.
    """
    rest = torch.cat([2 * _sizes(halves), first * ACTIVATION_MAX], 1) / UNIT
    return torch.cat([_padded(levels(halves), 2), F.pad(rest, [2] * 4)], 1)


def _padded(activations: Tensor, margin: int) -> Tensor:
    return F.pad(activations, [margin] * 4, value=ZERO / UNIT)
