"""The paper's own system: "Raw Image Reconstruction with Learned Compact Metadata".

Wang et al., CVPR 2023, written anew from its supplement, and from what the authors' repository
(wyf0912/R2LCM, which has their next model and one of the same family) and CompressAI tell of
layers. In their symbols: g_a makes latents z of the raw x and the picture y; h_a makes
hyper-latents v of z; a factorised model codes v, less its channels' means, which are stored; h_s
makes features of v and y; the order network makes scores of these for every position and step, a
stored matrix of Gumbel noise is added, and the highest gives each position its step; the iterative
Gaussian entropy model tells mean and scale of each latent from the features and what is decoded so
far; g_s makes the raw of z and y. The loss is R + weight * 255^2 * MSE: the weights that the
supplement names (1 for uncompressed pictures, 0.05 and 0.5 for JPEG) are taken to belong to this
unit, the default of the authors' training program (whose option for absolute errors their next
model is trained with).

Resolutions. ``scale`` is how many pixels a latent stands for, across and down. The paper's is 1, by
what its supplement counts (table 1): 32 channels and 4 latents make 0.54 M parameters, where it has
0.55 M; without a stride before z they take 444 thousand multiply-accumulates a pixel, where its
5.82 T for 2920 x 4386 pixels make 454 thousand; and ten hours one by one are 3 ms for every pixel.
With 4, g_a has the strides of the authors' next paper ("Beyond Learned Metadata-based Raw Image
Reconstruction", IJCV 2024), and g_s sees z enlarged to the picture's size as there: as many
parameters, and 208 thousand multiply-accumulates. v has a quarter of z's resolution in both.

Chosen here, since the supplement does not tell: the number of steps; the context of what is
decoded, a convolution of 5 x 5 divided by the number of known positions, as the authors' later
programs have it; means over squares where a layer sees a smaller picture; zeros around all edges.

What comes of floating point: data decodes on the machine that wrote it, with the same number of
threads and the same libraries, since both directions walk through the same code. Elsewhere a mean
may differ in its last bit, and what follows is noise; a check of the latents then makes it a
ValueError.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import constriction
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from .interface import decibels, pixels, to_planes, to_samples

Order = Literal["learned", "random", "deterministic"]
ORDERS: tuple[Order, ...] = ("learned", "random", "deterministic")
"""Scores and stored noise; stored noise alone; scores alone (the supplement's table 2)."""

WIDTH = 32
LATENTS = 4
"""Channels of z, and of v."""

HYPER = 4
"""Latents to a hyper-latent, across and down."""

STEPS = 4
"""Of the order. The supplement has no number; the authors' next model has 4, and with 4 the
operations come near those that it counts."""

PATTERN = 64
"""Rows and columns of the stored noise, which is repeated over the positions."""

SCALE_MIN = 0.11
LEAST = 2.0**-24
"""Probability of the least likely symbol: what the coder gives it."""

LIMIT = 1 << 14
"""Symbols are at most this large."""

BAND = 400_000
"""Pixels that are computed at once, about; more would take more memory."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def _up(inputs: int, outputs: int, factor: int) -> nn.Module:
    """Sub-pixel convolution (Shi et al., CVPR 2016)."""
    return nn.Sequential(_conv(inputs, outputs * factor**2), nn.PixelShuffle(factor))


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(inplace=True)


class Normalisation(nn.Module):
    """Generalised divisive normalisation, or its inverse (Balle et al., PCS 2016)."""

    def __init__(self, channels: int, inverse: bool) -> None:
        super().__init__()
        self.inverse = inverse
        # Squares of these are the weights, which must not be negative.
        self.offset = nn.Parameter(torch.ones(channels))
        self.mix = nn.Parameter((0.1 * torch.eye(channels) + 1e-4).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        power = F.conv2d(x * x, self.mix.square()[:, :, None, None], self.offset.square() + 1e-6)
        return x * (power.sqrt() if self.inverse else power.rsqrt())


class Residual(nn.Module):
    """``body`` of x plus ``skip`` of x."""

    def __init__(self, body: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x) + self.skip(x)
        return result


def _plain_block(inputs: int, outputs: int) -> Residual:
    """A residual block; a 1x1 convolution beside it, since the widths differ."""
    body = nn.Sequential(_conv(inputs, outputs), _leaky(), _conv(outputs, outputs), _leaky())
    return Residual(body, nn.Conv2d(inputs, outputs, 1))


def _down_block(inputs: int, outputs: int, stride: int) -> Residual:
    """The same with a stride and a normalisation, as analyses have it (Cheng et al. 2020)."""
    body = (_conv(inputs, outputs, stride), _leaky(), _conv(outputs, outputs))
    norm = Normalisation(outputs, inverse=False)
    return Residual(nn.Sequential(*body, norm), nn.Conv2d(inputs, outputs, 1, stride))


def _up_block(inputs: int, outputs: int) -> Residual:
    """The same for syntheses; at factor 1 its sub-pixel convolutions are plain ones."""
    body = (_conv(inputs, outputs), _leaky(), _conv(outputs, outputs))
    norm = Normalisation(outputs, inverse=True)
    return Residual(nn.Sequential(*body, norm), _conv(inputs, outputs))


class Attention(nn.Module):
    """The simplified attention block of Cheng et al. (CVPR 2020): a branch gates another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*(self._unit(channels) for _ in range(3)))
        gate = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Sequential(*(self._unit(channels) for _ in range(3)), gate)

    @staticmethod
    def _unit(channels: int) -> nn.Module:
        half = channels // 2
        body = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(inplace=True),
            _conv(half, half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, channels, 1),
        )
        return nn.Sequential(Residual(body, nn.Identity()), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.branch(x) * torch.sigmoid(self.gate(x))
        return result


class Guided(nn.Sequential):
    """Layers in a row. Each but activations and attention sees the picture beside its input.

    Called with x, (B, C, h, w), and the picture, (B, 3, H, W), whose squares of
    H / h pixels are averaged where x is smaller.
    """

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            if not isinstance(layer, nn.LeakyReLU | Attention):
                ratio = picture.shape[-1] // x.shape[-1]
                seen = picture if ratio == 1 else F.avg_pool2d(picture, ratio)
                x = torch.cat([x, seen.to(x.dtype)], 1)
            x = layer(x)
        return x


class _AtLeast(torch.autograd.Function):
    """max(x, bound) whose gradient passes where it would raise x, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return torch.where(above | (gradient < 0), gradient, 0), None


def _at_least(x: Tensor, bound: float) -> Tensor:
    result: Tensor = _AtLeast.apply(x, bound)
    return result


def gaussian_bits(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """-log2 of the probability of the unit interval around each value."""
    distance = (values - mean).abs()
    upper = torch.special.ndtr((0.5 - distance) / scale)
    lower = torch.special.ndtr((-0.5 - distance) / scale)
    return -torch.log2(_at_least(upper - lower, LEAST))


class Factorised(nn.Module):
    """A density for each channel (Balle et al., ICLR 2018, appendix 6.1)."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (1, 3, 3, 3, 3, 1)) -> None:
        super().__init__()
        spread = 10 ** (1 / (len(widths) - 1))  # the densities begin about 10 wide
        pairs = list(itertools.pairwise(widths))
        start = [math.log(math.expm1(1 / spread / outputs)) for _, outputs in pairs]
        self.matrices = nn.ParameterList(
            torch.full((channels, outputs, inputs), value)
            for (inputs, outputs), value in zip(pairs, start, strict=True)
        )
        self.offsets = nn.ParameterList(
            torch.rand(channels, outputs, 1) - 0.5 for _, outputs in pairs
        )
        self.bends = nn.ParameterList(
            torch.zeros(channels, outputs, 1) for _, outputs in pairs[:-1]
        )

    def _logits(self, x: Tensor) -> Tensor:
        """Of the distribution function at x, (C, 1, n)."""
        bends = [*self.bends, None]
        for matrix, offset, bend in zip(self.matrices, self.offsets, bends, strict=True):
            x = F.softplus(matrix.to(x.dtype)) @ x + offset.to(x.dtype)
            if bend is not None:
                x = x + torch.tanh(bend.to(x.dtype)) * torch.tanh(x)
        return x

    def probabilities(self, values: Tensor) -> Tensor:
        """Of the unit intervals around values, (C, n)."""
        lower, upper = self._logits(values[:, None] - 0.5), self._logits(values[:, None] + 0.5)
        # Near 1 the difference of two sigmoids would be lost in rounding.
        sign = -torch.sign(lower + upper).detach()
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()[:, 0]

    def bits(self, values: Tensor) -> Tensor:
        """-log2 of the probabilities of values, (B, C, h, w)."""
        rows = values.transpose(0, 1)
        found = self.probabilities(rows.reshape(len(rows), -1)).reshape(rows.shape)
        return -torch.log2(_at_least(found, LEAST)).transpose(0, 1)


class Transforms(nn.Module):
    """What the paper's system and its serial variant share: all but the context model.

    scale: pixels to a latent, 1 or 4. Sizes below: B pictures of H x W pixels,
    multiples of ``HYPER * scale``; h = H / scale and w = W / scale.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        if scale not in (1, 4):
            raise ValueError(f"scale {scale} is neither 1 nor 4")
        self.scale = scale
        # Weights alone do not tell their scale: it goes with them into their file.
        self.register_buffer("pixels_per_latent", torch.tensor(scale))
        stride = 2 if scale == 4 else 1
        seen = WIDTH + 3
        self.analysis = Guided(
            _down_block(3 + 3, WIDTH, stride),
            _plain_block(seen, WIDTH),
            _down_block(seen, WIDTH, stride),
            Attention(WIDTH),
            _plain_block(seen, WIDTH),
            _down_block(seen, WIDTH, 1),
            _plain_block(seen, WIDTH),
            _conv(seen, LATENTS),
            Attention(LATENTS),
        )
        self.synthesis = Guided(
            Attention(LATENTS),
            _plain_block(LATENTS + 3, WIDTH),
            _up_block(seen, WIDTH),
            _plain_block(seen, WIDTH),
            _up_block(seen, WIDTH),
            Attention(WIDTH),
            _plain_block(seen, WIDTH),
            _up_block(seen, WIDTH),
            _plain_block(seen, WIDTH),
            _conv(seen, 3),
        )
        self.hyper_analysis = Guided(
            _conv(LATENTS + 3, WIDTH),
            _leaky(),
            _conv(seen, WIDTH),
            _leaky(),
            _conv(seen, WIDTH, 2),
            _leaky(),
            _conv(seen, WIDTH),
            _leaky(),
            _conv(seen, LATENTS, 2),
        )
        wide = WIDTH * 3 // 2
        self.hyper_synthesis = Guided(
            _conv(LATENTS + 3, WIDTH),
            _leaky(),
            _up(seen, WIDTH, 2),
            _leaky(),
            _conv(seen, wide),
            _leaky(),
            _up(wide + 3, wide, 2),
            _leaky(),
            _conv(wide + 3, 2 * LATENTS),
        )
        self.prior = Factorised(LATENTS)

    def latents(self, raw: Tensor, picture: Tensor) -> Tensor:
        """g_a: z, (B, LATENTS, h, w), unrounded, of (B, 3, H, W) both."""
        return in_bands(self.analysis, (raw, picture), 20 if self.scale == 1 else 80)

    def hyper_latents(self, latents: Tensor, picture: Tensor) -> Tensor:
        """h_a: v, (B, LATENTS, h / 4, w / 4), unrounded."""
        return in_bands(self.hyper_analysis, (latents, picture), 8 * self.scale)

    def features(self, hyper: Tensor, picture: Tensor) -> Tensor:
        """h_s: (B, 2 * LATENTS, h, w)."""
        return in_bands(self.hyper_synthesis, (hyper, picture), 16 * self.scale)

    def reconstruct(self, latents: Tensor, picture: Tensor) -> Tensor:
        """g_s: the raw, (B, 3, H, W)."""
        return in_bands(self._reconstruct, (latents, picture), 24 if self.scale == 1 else 48)

    def _reconstruct(self, latents: Tensor, picture: Tensor) -> Tensor:
        if self.scale > 1:
            latents = F.interpolate(latents, scale_factor=self.scale, mode="bicubic")
        result: Tensor = self.synthesis(latents, picture)
        return result

    def code(self, features: Tensor, picture: Tensor, coder: Coder) -> Tensor:
        """Code all latents, each with its mean and scale; they come back as decoded."""
        raise NotImplementedError


class Network(Transforms):
    """All weights: the transforms and the sRGB-guided context model."""

    def __init__(self, order: Order = "learned", scale: int = 1) -> None:
        super().__init__(scale)
        if order not in ORDERS:
            raise ValueError(f"order {order!r} is none of {', '.join(ORDERS)}")
        self.order = order
        wide = WIDTH * 3 // 2
        self.scores = Guided(
            _conv(2 * LATENTS + 3, WIDTH),
            _leaky(),
            _conv(WIDTH + 3, wide),
            _leaky(),
            _conv(wide + 3, STEPS),
        )
        self.context = nn.Conv2d(LATENTS, 2 * LATENTS, 5, padding=2)
        self.entropy = entropy_network(4 * LATENTS + 1)
        noise = torch.rand(1, STEPS, PATTERN, PATTERN, generator=torch.Generator().manual_seed(1))
        self.register_buffer("pattern", _gumbel(noise))
        self.pattern: Tensor

    def masks(self, features: Tensor, picture: Tensor, noise: Tensor) -> Tensor:
        """Which step each position has: (B, STEPS, h, w), a single 1 at each, the others 0.

        noise: of the same shape. The gradient is that of the softmax
        (straight-through Gumbel-softmax: Jang et al., ICLR 2017).
        """
        if self.order == "random":
            scores = noise
        else:
            scores = in_bands(self.scores, (features, picture), 4 * self.scale).float()
            if self.order == "learned":
                scores = scores + noise
        hard = F.one_hot(scores.argmax(1), STEPS).movedim(-1, 1).to(scores.dtype)
        if not scores.requires_grad:
            return hard
        soft = scores.softmax(1)
        # The bracket is exactly 0, so that masks are exactly 0 and 1.
        return hard + (soft - soft.detach())

    def noise(self, features: Tensor, fresh: bool) -> Tensor:
        """Gumbel noise for the order: the stored one, repeated, or fresh for training."""
        batch, _, height, width = features.shape
        if fresh:
            return _gumbel(torch.rand(batch, STEPS, height, width, device=features.device))
        down, across = -(-height // PATTERN), -(-width // PATTERN)
        return self.pattern.repeat(batch, 1, down, across)[:, :, :height, :width]

    def parameters_of(
        self, features: Tensor, decoded: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and scale of every latent, (B, LATENTS, h, w) both, from what is decoded so far.

        decoded: (B, LATENTS, h, w), 0 where ``known``, (B, 1, h, w), is 0.
        """
        return mean_and_scale(in_bands(self._entropy_of, (features, decoded, known), 4))

    def _entropy_of(self, features: Tensor, decoded: Tensor, known: Tensor) -> Tensor:
        # Few known neighbours must not mean a small context: it is divided by their number.
        ones = torch.ones(1, 1, 5, 5, dtype=known.dtype, device=known.device)
        count = F.conv2d(known.detach(), ones, padding=2).clamp(min=1)
        context = F.conv2d(decoded, self.context.weight, padding=2) / count
        context = context + self.context.bias[:, None, None]
        result: Tensor = self.entropy(torch.cat([features, context, known], 1))
        return result

    def code(self, features: Tensor, picture: Tensor, coder: Coder) -> Tensor:
        """Code all latents, step by step."""
        masks = self.masks(features, picture, self.noise(features, coder.fresh))
        decoded = features.new_zeros(features.shape[0], LATENTS, *features.shape[2:])
        known = decoded[:, :1]
        for mask in masks.split(1, 1):
            mean, scale = self.parameters_of(features, decoded, known)
            decoded = decoded + coder.latents(mask, mean, scale)
            known = known + mask
        return decoded


def entropy_network(inputs: int) -> nn.Sequential:
    """The 1x1 convolutions that tell means and scales (Minnen et al., NeurIPS 2018)."""
    first, second = WIDTH * 10 // 3, WIDTH * 8 // 3
    last = nn.Conv2d(second, 2 * LATENTS, 1)
    with torch.no_grad():
        last.bias[LATENTS:] = 1  # scales begin where their gradients are neither 0 nor large
    return nn.Sequential(
        nn.Conv2d(inputs, first, 1), _leaky(), nn.Conv2d(first, second, 1), _leaky(), last
    )


def mean_and_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of an entropy network's output; scales are ``SCALE_MIN`` at least."""
    mean, scale = parameters.float().chunk(2, 1)
    return mean, _at_least(scale, SCALE_MIN)


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of uniform noise from 0 to 1."""
    return -torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6)))


def in_bands(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], reach: int) -> Tensor:
    """``function`` of inputs (B, C, h, w), computed in bands of rows unless gradients are wanted.

    reach: rows of the largest input by which it looks further up and down; a multiple of the
    ratios between heights. Heights differ by whole ratios.
    """
    height, width = max(x.shape[2] for x in inputs), max(x.shape[3] for x in inputs)
    rows = max(BAND // width // 16, 4) * 16
    if torch.is_grad_enabled() or height <= rows + reach:
        return function(*inputs)
    parts = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(top - reach, 0), min(bottom + reach, height)
        cut = [x[:, :, first * x.shape[2] // height : last * x.shape[2] // height] for x in inputs]
        part = function(*cut)
        unit = (last - first) // part.shape[2]
        parts.append(part[:, :, (top - first) // unit : (bottom - first) // unit].clone())
    return torch.cat(parts, 2)


class Coder(ABC):
    """What codes hyper-latents and latents in the one walk of ``walk``.

    fresh: whether the order is to have fresh noise.
    """

    fresh = False

    @abstractmethod
    def hyper(self, prior: Factorised) -> Tensor:
        """Code v; it comes back as decoded, (B, LATENTS, h / 4, w / 4)."""

    @abstractmethod
    def latents(self, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Code z where ``mask``, (B, 1, h, w), is 1; it comes back as decoded, 0 elsewhere."""


def walk(network: Transforms, picture: Tensor, coder: Coder) -> Tensor:
    """Code v, then z: training, encoding and decoding all go this way. The latents, as decoded."""
    features = network.features(coder.hyper(network.prior), picture)
    return network.code(features, picture, coder)


class Meter(Coder):
    """Sums what symbols would take.

    values: (B, LATENTS, h, w), latents with noise, or rounded. hyper: hyper-latents less their
    channels' means, the same way. hyper_bits, latent_bits: as large as these, after the walk.
    """

    def __init__(self, values: Tensor, hyper: Tensor, means: Tensor, fresh: bool) -> None:
        self.values = values
        self.fresh = fresh
        self._hyper = hyper
        self._means = means
        self.hyper_bits = torch.zeros_like(hyper)
        self.latent_bits = torch.zeros_like(values)

    def hyper(self, prior: Factorised) -> Tensor:
        self.hyper_bits = prior.bits(self._hyper)
        return self._hyper + self._means

    def latents(self, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        self.latent_bits = self.latent_bits + mask * gaussian_bits(self.values, mean, scale)
        return self.values * mask


class Symbols(NamedTuple):
    """Integers of one picture. latents: int32 (LATENTS, h, w). hyper: int32 (LATENTS, h/4, w/4),
    to which ``means``, float32 (LATENTS,), are added."""

    latents: np.ndarray
    hyper: np.ndarray
    means: np.ndarray


class StreamCoder(Coder):
    """What ``Writer`` and ``Reader`` share. bounds: least and largest latent and hyper-latent."""

    def __init__(self, symbols: Symbols, bounds: tuple[int, int, int, int]) -> None:
        self.symbols = symbols
        self._hyper_bounds = bounds[2:]
        # A model needs two symbols at least.
        self._gaussian = constriction.stream.model.QuantizedGaussian(bounds[0], bounds[1] + 1)

    def hyper(self, prior: Factorised) -> Tensor:
        low, high = self._hyper_bounds
        hyper, means = self.symbols.hyper, self.symbols.means
        support = torch.arange(low, high + 2, dtype=torch.float64)
        tables = prior.probabilities(support.expand(LATENTS, -1)).cpu().numpy()
        for plane, table in zip(hyper, tables, strict=True):
            model = constriction.stream.model.Categorical(table + LEAST, perfect=False)
            plane[...] = self._code(plane.ravel() - low, model).reshape(plane.shape) + low
        decoded = hyper.astype(np.float32) + means[:, None, None]
        return torch.from_numpy(decoded)[None]

    def latents(self, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        if not bool(torch.isfinite(mean).all() and torch.isfinite(scale).all()):
            raise ValueError("the network gives means or scales that are no numbers")
        chosen = mask[0, 0].numpy() > 0
        values = self.symbols.latents
        values[:, chosen] = self.gaussians(
            values[:, chosen], mean[0].numpy()[:, chosen], scale[0].numpy()[:, chosen]
        )
        return torch.from_numpy(np.where(chosen, values, 0).astype(np.float32))[None]

    def gaussians(self, values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Code latents with means and scales, arrays of one shape."""
        if not values.size:
            return values
        parameters = (mean.ravel().astype(np.float64), scale.ravel().astype(np.float64))
        return self._code(values.ravel(), self._gaussian, *parameters).reshape(values.shape)

    @abstractmethod
    def _code(self, values: np.ndarray, model: Any, *parameters: np.ndarray) -> np.ndarray:
        """Code as many symbols as there are values; a ``Reader`` looks only at their number."""


class Writer(StreamCoder):
    """Writes symbols."""

    def __init__(self, symbols: Symbols, bounds: tuple[int, int, int, int]) -> None:
        super().__init__(symbols, bounds)
        self._coder = constriction.stream.queue.RangeEncoder()

    def _code(self, values: np.ndarray, model: Any, *parameters: np.ndarray) -> np.ndarray:
        self._coder.encode(np.ascontiguousarray(values), model, *parameters)
        return values

    def data(self) -> bytes:
        """What was written."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class Reader(StreamCoder):
    """Reads symbols; those that it is given are overwritten."""

    def __init__(self, symbols: Symbols, bounds: tuple[int, int, int, int], data: bytes) -> None:
        super().__init__(symbols, bounds)
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def _code(self, values: np.ndarray, model: Any, *parameters: np.ndarray) -> np.ndarray:
        count = () if parameters else (values.size,)
        decoded: np.ndarray = self._coder.decode(model, *parameters, *count)
        return decoded


class R2LCM:
    """The paper's system, to be trained and to be used.

    weights: a safetensors file of the network's arrays; None for fresh ones. order: see ``ORDERS``;
    it is no part of the weights. scale: pixels to a latent, 1 or 4 (see above); for fresh weights,
    others know their own. weight: of the distortion in the loss, the paper's lambda. patch: rows
    and columns of the squares it is trained on, a multiple of 16.
    """

    _magic: ClassVar[bytes] = b"R2LC"
    # Magic, rows, columns, bounds of z and v, means of v, check of z, check of all else.
    _head: ClassVar[struct.Struct] = struct.Struct(f"<4s2H4h{LATENTS}f2I")

    def __init__(
        self,
        weights: Path | None = None,
        *,
        order: Order = "learned",
        scale: int = 1,
        weight: float = 1.0,
        patch: int = 64,
    ) -> None:
        state = None if weights is None else _read_weights(weights)
        self.network = self._network(order, int(state["pixels_per_latent"]) if state else scale)
        if state is not None:
            _load(self.network, state, weights)
        self.weight = weight
        self.patch = patch
        self.name = self._name()

    def _network(self, order: Order, scale: int) -> Transforms:
        return Network(order, scale)

    def _name(self) -> str:
        assert isinstance(self.network, Network)
        order = "" if self.network.order == "learned" else f", {self.network.order} order"
        return f"R2LCM{order}{', z at 1/4' if self.network.scale == 4 else ''}"

    def save(self, path: Path) -> None:
        """Write the weights as a safetensors file."""
        state = self.network.state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, path)

    def loss(
        self, raw: Tensor, picture: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """R + weight * 255^2 * MSE, with noise in the place of rounding; rates are bits a pixel.

        raw, picture: float32 (B, 3, h, w), 0..1, h and w multiples of 16. progress makes no
        difference: the paper trains one way throughout.
        """
        network = self.network
        latents = network.latents(raw, picture).float()
        hyper = network.hyper_latents(latents, picture).float()
        means = hyper.mean((2, 3), keepdim=True)
        meter = Meter(_noisy(latents), _noisy(hyper - means), means, fresh=True)
        rebuilt = network.reconstruct(walk(network, picture, meter), picture)
        error = F.mse_loss(rebuilt.float(), raw)
        area = raw[:, 0].numel()
        hyper_rate, latent_rate = meter.hyper_bits.sum() / area, meter.latent_bits.sum() / area
        total = hyper_rate + latent_rate + self.weight * 255**2 * error
        figures = {
            "bpp": float((hyper_rate + latent_rate).detach()),
            "hyper_bpp": float(hyper_rate.detach()),
            "psnr": decibels(float(error.detach())),
        }
        return total, figures

    @torch.no_grad()
    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """See ``System.encode``."""
        shown = pixels(picture)
        planes = self._padded(shown)
        symbols = self._symbols(raw, planes, shown.shape)
        bounds = _bounds(symbols)
        writer = Writer(symbols, bounds)
        walk(self._ready(), planes, writer)
        head = (self._magic, *shown.shape[:2], *bounds, *symbols.means)
        latents_check = zlib.crc32(symbols.latents.tobytes())
        body = writer.data()
        check = self._check(head, latents_check, body, shown)
        return self._head.pack(*head, latents_check, check) + body

    @torch.no_grad()
    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """See ``System.decode``."""
        size = self._head.size
        if len(data) < size or (len(data) - size) % 4:
            raise ValueError(f"{len(data)} bytes are not what {self.name} writes")
        *head, latents_check, check = self._head.unpack_from(data)
        shown = pixels(picture)
        if head[0] != self._magic or tuple(head[1:3]) != shown.shape[:2]:
            raise ValueError(f"no data of {self.name} for a picture of this size")
        if check != self._check(tuple(head), latents_check, data[size:], shown):
            raise ValueError("damaged, or written with another picture or other weights")
        planes = self._padded(shown)
        rows, columns = (side // self.network.scale for side in planes.shape[2:])
        means = np.array(head[7:], np.float32)
        latents = np.zeros((LATENTS, rows, columns), np.int32)
        hyper = np.zeros((LATENTS, rows // HYPER, columns // HYPER), np.int32)
        with _value_error_on_failure():
            reader = Reader(Symbols(latents, hyper, means), tuple(head[3:7]), data[size:])
            decoded = walk(self._ready(), planes, reader)
        if zlib.crc32(latents.tobytes()) != latents_check:
            raise ValueError("decodes otherwise than it was encoded: floats differ on this machine")
        return self._cropped(decoded, planes, shown.shape)

    @torch.no_grad()
    def reconstruction(self, raw: np.ndarray, picture: bytes) -> np.ndarray:
        """What ``decode`` will give, from the raw itself: uint16 (H, W, 3)."""
        shown = pixels(picture)
        planes = self._padded(shown)
        symbols = self._symbols(raw, planes, shown.shape)
        latents = torch.from_numpy(symbols.latents.astype(np.float32))[None]
        return self._cropped(latents, planes, shown.shape)

    @torch.no_grad()
    def bits(self, raw: np.ndarray, picture: bytes) -> np.ndarray:
        """Where the bits go: float32 (H / 4, W / 4), sides rounded up; no head, no rounding.

        Of z, and of v spread evenly over the latents that each stands for (the supplement,
        section 1). At scale 4, bits beyond the picture's edge are left out.
        """
        shown = pixels(picture)
        planes = self._padded(shown)
        symbols = self._symbols(raw, planes, shown.shape)
        values, hyper = (torch.from_numpy(s.astype(np.float32))[None] for s in symbols[:2])
        means = torch.from_numpy(symbols.means)[None, :, None, None]
        meter = Meter(values, hyper, means, fresh=False)
        walk(self._ready(), planes, meter)
        found = meter.latent_bits.sum(1, keepdim=True)
        side = 4 // self.network.scale
        found = F.avg_pool2d(found, side) * side**2
        spread = meter.hyper_bits.sum(1, keepdim=True)
        ratio = found.shape[2] // spread.shape[2]
        found = found + F.interpolate(spread, scale_factor=ratio) / ratio**2
        height, width = (-(-side // 4) for side in shown.shape[:2])
        return found[0, 0, :height, :width].numpy()

    def _ready(self) -> Transforms:
        return self.network.eval()

    def _padded(self, values: np.ndarray) -> Tensor:
        """Samples or pixels (H, W, 3) as planes; edges repeated up to whole hyper-latents."""
        planes = to_planes(values)
        unit = HYPER * self.network.scale
        down, across = (-side % unit for side in planes.shape[2:])
        return F.pad(planes, (0, across, 0, down), mode="replicate")

    def _cropped(self, latents: Tensor, planes: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        rebuilt = self._ready().reconstruct(latents, planes)
        return to_samples(rebuilt[:, :, : shape[0], : shape[1]])

    def _symbols(self, raw: np.ndarray, planes: Tensor, shape: tuple[int, ...]) -> Symbols:
        """What is to be coded. planes: of the picture, whose shape is ``shape``."""
        if raw.shape != shape:
            raise ValueError(f"a raw of {raw.shape} and a picture of {shape} differ in size")
        network = self._ready()
        latents = network.latents(self._padded(raw), planes)
        if not bool(torch.isfinite(latents).all()):
            raise ValueError("the network gives latents that are no numbers")
        latents = latents.round().clamp(-LIMIT, LIMIT)
        hyper = network.hyper_latents(latents, planes)
        means = hyper.mean((2, 3), keepdim=True)
        hyper = (hyper - means).round().clamp(-LIMIT, LIMIT)
        whole = (x[0].numpy().astype(np.int32) for x in (latents, hyper))
        return Symbols(*whole, means.flatten().numpy())

    def _check(
        self, head: tuple[Any, ...], latents_check: int, body: bytes, shown: np.ndarray
    ) -> int:
        """CRC-32 of the data, and of what it needs: the picture's pixels and the weights."""
        check = zlib.crc32(self.name.encode())
        for name, value in sorted(self.network.state_dict().items()):
            check = zlib.crc32(value.cpu().numpy().tobytes(), zlib.crc32(name.encode(), check))
        check = zlib.crc32(np.ascontiguousarray(shown).tobytes(), check)
        return zlib.crc32(body, zlib.crc32(self._head.pack(*head, latents_check, 0), check))


def _noisy(values: Tensor) -> Tensor:
    """With noise from -1/2 to 1/2, as rounding would add."""
    return values + (torch.rand_like(values) - 0.5)


def _bounds(symbols: Symbols) -> tuple[int, int, int, int]:
    """Least and largest latent, least and largest hyper-latent."""
    low, high = int(symbols.latents.min()), int(symbols.latents.max())
    return low, high, int(symbols.hyper.min()), int(symbols.hyper.max())


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The arrays of a weights file; ValueError if it is none."""
    try:
        state = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: is no weights file") from error
    if "pixels_per_latent" not in state:
        raise ValueError(f"{path}: has the weights of another system")
    return state


def _load(network: nn.Module, state: dict[str, Tensor], path: Path | None) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # PyTorch's for arrays that are missing, or of other sizes
        raise ValueError(f"{path}: has the weights of another system") from error


@contextmanager
def _value_error_on_failure() -> Iterator[None]:
    """Turn what constriction raises on bad data into ValueError."""
    try:
        yield
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError("cannot be decoded") from error
    except BaseException as error:
        # A panic of the Rust code arrives as pyo3's PanicException, which is no
        # Exception and cannot be imported; KeyboardInterrupt and the like pass.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ValueError("cannot be decoded") from error
