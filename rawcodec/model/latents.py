"""The learned layer of one plane: from a companded prediction and a JPEG to a better one.

:class:`PlaneCodec` is what the encoder and the decoder share. All that a
decoder computes is integers; it works in bands of rows with exact overlap, so
that neither the size of the bands nor the number of threads, the kernel or the
device change the result.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import network
from .analysis import REACH, Analysis, HyperAnalysis, working_type
from .config import (
    BLOCK,
    CORRECTION_BITS,
    GROUPS,
    HYPER_BLOCK,
    HYPER_GAIN,
    HYPER_LIMIT,
    LATENT_LIMIT,
    LATENTS,
    LAYERS,
    MEAN_UNIT,
    PASSES,
    PATTERN,
    PREDICTION_UNIT,
    STEPS,
    TRUNK_MARGIN,
    WIDTH,
    ZERO,
)
from .inputs import blocks, inputs, inverse, transform, unblocks
from .kernels import KERNELS, Kernel
from .store import COMPANDED, DOMAIN, Model
from .tables import HALVES, EntropyCoder, Tables, split
from .view import PlaneView

BAND = 48
"""Rows of blocks that are computed at a time; the result does not depend on it."""

DISTORTION_WEIGHT = 8.66
"""Bits that a squared step is worth to the encoder: 6 / ln 2, from high-rate theory."""

_CHOICES = 1 << 17
"""Latents that are chosen at a time: few enough for the cache."""

_VALUE_LIMIT = 1 << 20
"""Larger latents than any picture has, in the residual's domain."""

_MARGIN = 3
"""Blocks around the picture that the synthesis reaches."""


class Runner:
    """The layers of a model at one rate, ready to run with one kernel on one device."""

    def __init__(self, model: Model, rate: int, kernel: str, device: str) -> None:
        self.model, self.rate, self.device = model, rate, torch.device(device)
        self.kind = working_type(self.device)
        self._layers: dict[str, Kernel] = {
            name: KERNELS[kernel](model.weights(name, rate)) for name in LAYERS
        }

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """Activations of a layer, uint8 (B, C, h, w), or int16 values; on the device."""
        return self._layers[name](x)

    @functools.cached_property
    def transforms(self) -> tuple[Analysis, HyperAnalysis]:
        """The encoder's transforms on the device."""
        both = copy.deepcopy((self.model.analysis, self.model.hyper_analysis))
        for module in both:
            module.to(self.device, self.kind)
        return both

    def put(self, x: Tensor) -> Tensor:
        """The tensor on the device, with channels last."""
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    @property
    def steps(self) -> Tensor:
        """Steps of the latents at this rate: int32 (1, 16, 1, 1)."""
        return self.model.steps[self.rate][None, :, None, None]

    @property
    def hyper_scale(self) -> Tensor:
        """Scales of the hyper-latents at this rate: uint8 (8,)."""
        return self.model.hyper_scale[self.rate]


def _bands(first: int, last: int) -> Iterator[tuple[int, int]]:
    for top in range(first, last, BAND):
        yield top, min(top + BAND, last)


def _levels() -> np.ndarray:
    """Activations of latents: uint8 (65536,), by the latent's 16 bits.

    64 and 10 log2(1 + |z|), rounded, of the sign of z. No machine's logarithm
    is asked: |z| rounds to n or more where (1 + |z|)^20 >= 2^(2n - 1).
    """
    sizes = np.zeros(1 << 15, np.uint8)
    for n in range(1, ZERO):
        power = 1 << (2 * n - 1)
        low, high = 0, 1 << 15
        while low < high:  # the smallest |z| that reaches it
            middle = (low + high) // 2
            if (1 + middle) ** 20 >= power:
                high = middle
            else:
                low = middle + 1
        sizes[low:] = n
    table = np.full(1 << 16, ZERO, np.uint8)
    table[: 1 << 15] += sizes
    table[-1 : -(1 << 15) : -1] -= sizes[1:]
    return table


_LEVELS = _levels()


def _channels_last(
    channels: int,
    height: int,
    width: int,
    fill: int,
    dtype: torch.dtype,
    device: str | torch.device,
) -> Tensor:
    shape = (1, height, width, channels)
    return torch.full(shape, fill, dtype=dtype, device=device).permute(0, 3, 1, 2)


class PlaneCodec:
    """The stages of one plane, in order: look, then the hyper-latents, then the latents."""

    def __init__(self, run: Runner, plane: PlaneView, earlier: np.ndarray | None) -> None:
        """earlier: int32 (H, W), what the plane before was decoded to, less its tone values."""
        self.run = run
        self.height, self.width = plane.tone.shape
        self.rows, self.columns = (
            -(-n // HYPER_BLOCK) * (HYPER_BLOCK // BLOCK) for n in plane.tone.shape
        )
        self._look(plane, earlier)

    def _look(self, plane: PlaneView, decoded: np.ndarray | None) -> None:
        """Features of the JPEG, and its correction of the tone layer's prediction."""
        rows, columns, margin = self.rows, self.columns, TRUNK_MARGIN
        pad = (
            (margin, BLOCK * rows - self.height + margin),
            (margin, BLOCK * columns - self.width + margin),
        )
        # reflection keeps sites on their colour
        guide = torch.from_numpy(np.pad(plane.guide, ((0, 0), *pad), "reflect"))[None]
        tone = torch.from_numpy(np.pad(plane.tone, pad, "reflect").view(np.int16))[None]
        covered = torch.zeros((1, 1), dtype=torch.uint8)
        if plane.reached is not None:
            covered = torch.from_numpy(np.pad(~plane.reached, pad, "reflect").view(np.uint8))
        before = None
        if decoded is not None:
            before = torch.from_numpy(np.pad(decoded, pad, "reflect"))[None]
        mask = self._mask(plane.colours)
        self._guide = self._padded(WIDTH, 0, 1)
        self.prediction = np.empty((BLOCK * rows, BLOCK * columns), np.uint16)
        for top, bottom in _bands(-1, rows + 1):
            part = slice(4 * top + 4, 4 * bottom + 28)
            half_part = slice(part.start // 2, part.stop // 2)
            values = tone[:, part].to(torch.int32) & 0xFFFF
            height, width = values.shape[1:]
            missing = torch.zeros((1, 1, height // 2, width // 2), dtype=torch.uint8)
            if plane.reached is not None:
                missing = blocks(covered[None, part]).amax(1, keepdim=True)
            earlier = torch.zeros_like(values) if before is None else before[:, part]
            x = inputs(guide[:, :, part], values, mask(half_part), missing, earlier)
            half = network.half_features(self.run, self.run.put(x))
            self._guide[:, :, top + 1 : bottom + 1] = network.guide_features(self.run, half)
            self._correct(top, bottom, half, tone, mask)

    def _correct(
        self, top: int, bottom: int, half: Tensor, tone: Tensor, mask: Callable[[slice], Tensor]
    ) -> None:
        """The corrected prediction of rows of blocks that lie in the picture.

        half: features of these rows with a margin of 4. tone: int16 (1, H, W)
        with the trunk's margin. mask: see ``_mask``.
        """
        first, last = max(top, 0), min(bottom, self.rows)
        if first >= last:
            return
        margin = TRUNK_MARGIN
        # the layer reaches one position of the margin
        skip = 3 + 2 * (first - top)
        here = half[:, :, skip : skip + 2 * (last - first) + 2, 5:-5]
        planes = self.run("prediction", here).cpu()
        chosen = mask(slice(margin // 2 + 2 * first, margin // 2 + 2 * last))
        chosen = chosen[..., margin // 2 : -(margin // 2)]
        shape = (1, 4, 3, *planes.shape[2:])
        correction = (planes.reshape(shape) * chosen.reshape(shape)).sum(2, dtype=torch.int32)
        sites = tone[0, margin + 4 * first : margin + 4 * last, margin:-margin]
        sites = (sites.to(torch.int32) & 0xFFFF) + unblocks(correction)[0] * PREDICTION_UNIT
        self.prediction[4 * first : 4 * last] = sites.clamp_(0, COMPANDED - 1).numpy()

    def _mask(self, colours: np.ndarray) -> Callable[[slice], Tensor]:
        """Which colour each site of a 2x2 block has: uint8 (1, 12, rows, ...) of rows of blocks.

        Rows and columns include the margins; only as many as the pattern has are stored.
        """
        period = math.lcm(2, colours.shape[0])
        width = BLOCK * self.columns + 2 * TRUNK_MARGIN
        y = (np.arange(period) - TRUNK_MARGIN) % colours.shape[0]
        x = (np.arange(width) - TRUNK_MARGIN) % colours.shape[1]
        sites = torch.from_numpy(np.eye(3, dtype=np.uint8)[colours[np.ix_(y, x)]])
        rows = blocks(sites.permute(2, 0, 1)).transpose(0, 1).flatten(0, 1)[None]
        return lambda part: rows[:, :, torch.arange(part.start, part.stop) % rows.shape[2]]

    @property
    def hyper_shape(self) -> tuple[int, int]:
        """Rows and columns of the hyper-latents."""
        return self.rows * BLOCK // HYPER_BLOCK, self.columns * BLOCK // HYPER_BLOCK

    def analyse(self, raw: np.ndarray) -> tuple[Tensor, Tensor]:
        """The encoder's transforms: latents in steps, and hyper-latents, both float32.

        raw: uint16 (H, W), the companded mosaic. Returns (1, 16, h, w) and (1,
        8, h / 4, w / 4).
        """
        rows = self.rows
        padded = self.prediction.copy()
        padded[: self.height, : self.width] = raw
        forward = self.run.model.forward.astype(np.int32)
        linear = _channels_last(LATENTS, rows, self.columns, 0, torch.float32, "cpu")
        for top, bottom in _bands(0, rows):
            part = slice(4 * top, 4 * bottom)
            residual = forward.take(padded[part]) - forward.take(self.prediction[part])
            linear[:, :, top:bottom] = transform(torch.from_numpy(residual)[None])
        linear /= 4 * self.run.steps
        guide = self._guide[:, :, 1:-1, 1:-1]
        analysis, hyper_analysis = self.run.transforms
        kind = self.run.kind
        rate = torch.tensor([float(self.run.rate)], device=self.run.device)
        latents = linear.clone()
        with torch.inference_mode():
            for top, bottom in _bands(0, rows):
                above, below = max(top - REACH, 0), min(bottom + REACH, rows)
                seen = guide[:, :, above:below].to(kind) / 32
                near = self.run.put(linear[:, :, above:below].to(kind))
                added = analysis(near, seen, rate)
                latents[:, :, top:bottom] += added[:, :, top - above : bottom - above].cpu()
            hyper = hyper_analysis(self.run.put(latents.to(kind)), rate).float().cpu()
        return latents, hyper

    def know(self, hyper: Tensor) -> None:
        """Take the hyper-latents, int32 (1, 8, h / 4, w / 4): the entropy model, and the order."""
        rows, columns = self.rows, self.columns
        activations = (ZERO + HYPER_GAIN * hyper).to(torch.uint8)
        activations = self.run.put(F.pad(activations, [1] * 4, value=ZERO))
        features = F.pad(network.hyper_features(self.run, activations), [1] * 4)
        self._base = self._padded(WIDTH, 0, _MARGIN)
        inner = self._base[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        scores = torch.empty((STEPS, rows, columns), dtype=torch.int32)
        down = -(-rows // PATTERN), -(-columns // PATTERN)
        pattern = self.run.model.pattern.to(torch.int32).repeat(1, *down)[:, :rows, :columns]
        for top, bottom in _bands(0, rows):
            near = slice(top, bottom + 2)
            base = network.base_features(self.run, self._guide[:, :, near], features[:, :, near])
            inner[:, :, top:bottom] = base
            scores[:, top:bottom] = self.run("order", base)[0].cpu()
        scores += pattern
        order = torch.zeros((rows, columns), dtype=torch.uint8)
        best = scores[0]
        for step in range(1, STEPS):
            order[scores[step] > best] = step
            best = torch.maximum(best, scores[step])
        self.steps = [(order == step)[None, None].to(torch.int16) for step in range(STEPS)]

    def parameters(self, number: int, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, int16, and scale, uint8, of the latents of a pass: each (1, c, h, w)."""
        rows, columns = self.rows, self.columns
        count = len(GROUPS[PASSES[number][0]])
        mean = _channels_last(count, rows, columns, 0, torch.int16, "cpu")
        scale = _channels_last(count, rows, columns, 0, torch.uint8, "cpu")
        levels = self._padded_levels(known)
        base = self._base[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        for top, bottom in _bands(0, rows):
            near = levels[:, :, top + 1 : bottom + 5, 1:-1]
            mean[:, :, top:bottom], scale[:, :, top:bottom] = network.parameters(
                self.run, number, base[:, :, top:bottom], near
            )
        return mean, scale

    def code(self, coder: network.LatentCoder) -> Tensor:
        """All latents, through a coder: int16 (1, 16, h, w)."""
        zeros = _channels_last(LATENTS, self.rows, self.columns, 0, torch.int16, "cpu")
        return network.walk(coder, self.steps, zeros, self.parameters)

    def synthesise(self, latents: Tensor) -> np.ndarray:
        """The plane that the latents make of the prediction: uint16 (H, W), companded."""
        model = self.run.model
        step = self.run.steps
        levels = self._padded_levels(latents)
        forward = model.forward.astype(np.int32)
        result = np.empty((self.height, self.width), np.uint16)
        for top, bottom in _bands(0, -(-self.height // BLOCK)):
            near = slice(top, bottom + 2 * _MARGIN)
            added = network.synthesis(self.run, self._base[:, :, near], levels[:, :, near])
            values = latents[:, :, top:bottom].to(torch.int32) * step
            values += (added.cpu().to(torch.int32) * step) >> CORRECTION_BITS
            values.clamp_(-_VALUE_LIMIT, _VALUE_LIMIT)
            residual = (inverse(values)[0] + 2) >> 2
            part = slice(4 * top, min(4 * bottom, self.height))
            sites = forward.take(self.prediction[part, : self.width])
            sites += residual[: part.stop - part.start, : self.width].numpy()
            np.clip(sites, 0, DOMAIN - 1, out=sites)
            result[part] = model.back.take(sites)
        return result

    def _padded_levels(self, latents: Tensor) -> Tensor:
        """Latents as activations on the device, with a margin of zeros."""
        levels = np.empty((self.rows, self.columns, LATENTS), np.uint8)
        rows = latents.permute(0, 2, 3, 1)[0].numpy().view(np.uint16)
        for top, bottom in _bands(0, self.rows):
            _LEVELS.take(rows[top:bottom], out=levels[top:bottom], mode="clip")
        result = self._padded(LATENTS, ZERO, _MARGIN)
        inner = result.permute(0, 2, 3, 1)[0, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        inner.copy_(torch.from_numpy(levels))
        return result

    def _padded(self, channels: int, fill: int, margin: int) -> Tensor:
        """Activations of all positions and the margin, filled: uint8 (1, channels, ...)."""
        rows, columns = self.rows + 2 * margin, self.columns + 2 * margin
        return _channels_last(channels, rows, columns, fill, torch.uint8, self.run.device)


class TableCoder:
    """Codes latents with tables, through an entropy coder; also the hyper-latents.

    It is the ``LatentCoder`` of encoder and decoder. latents: float32 (1, 16,
    h, w) in steps, from which an encoder chooses integers; None to decode.
    """

    def __init__(self, tables: Tables, coder: EntropyCoder, latents: Tensor | None) -> None:
        self._tables, self._coder = tables, coder
        self._latents = latents
        self._cost = None if latents is None else tables.cost().reshape(-1, 2 * HALVES[-1] + 1)

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """See :class:`.network.LatentCoder`; raises ValueError for latents out of range."""
        channels = GROUPS[PASSES[number][0]]
        _, _, height, width = mean.shape
        positions = np.flatnonzero(here.numpy())
        means, scales = (_rows(part)[positions].ravel() for part in (mean, scale))
        given = None
        if self._latents is not None:
            ours = self._latents[:, channels[0] : channels[-1] + 1]
            given = self._choose(_rows(ours)[positions].ravel(), means, scales)
        values = self._tables.code(self._coder, given, means, scales)
        if len(values) and max(-int(values.min()), int(values.max())) >= LATENT_LIMIT:
            raise ValueError("a latent is out of range")
        result = np.zeros((height * width, len(channels)), np.int16)
        result[positions] = values.reshape(-1, len(channels))
        return torch.from_numpy(result.reshape(1, height, width, -1)).permute(0, 3, 1, 2)

    def code_hyper(
        self, hyper: np.ndarray | None, means: np.ndarray, shape: tuple[int, int], scale: Tensor
    ) -> Tensor:
        """The hyper-latents: int32 (1, 8, h, w); ValueError for values out of range.

        hyper: int32 (8, h, w), or None to decode. means: int8 (8,), in eighths.
        shape: h and w. scale: uint8 (8,), of each channel.
        """
        sites = shape[0] * shape[1]
        middle = np.repeat(means.astype(np.int16), sites)
        given = None if hyper is None else hyper.reshape(-1)
        values = self._tables.code(self._coder, given, middle, np.repeat(scale.numpy(), sites))
        if len(values) and np.abs(values).max() > HYPER_LIMIT:
            raise ValueError("a hyper-latent is out of range")
        return torch.from_numpy(values.reshape(1, len(means), *shape))

    def _choose(self, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Integers for the latents: the nearest, or one nearer to the mean where that pays.

        Rate-distortion optimised quantisation: squared error in steps, and bits
        of the tables, at the exchange rate ``DISTORTION_WEIGHT``.
        """
        result = np.empty(len(latents), np.int32)

        def part(start: int) -> None:
            here = slice(start, start + _CHOICES)
            result[here] = self._chosen(latents[here], mean[here], scale[here])

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(part, range(0, len(latents), _CHOICES)))
        return result

    def _chosen(self, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        assert self._cost is not None
        whole, fraction = split(mean)
        nearest = np.rint(latents)
        np.clip(nearest, 1 - LATENT_LIMIT, LATENT_LIMIT - 1, out=nearest)
        residue: np.ndarray = nearest.astype(np.int32) - whole
        toward = np.sign(residue)
        widest = (self._cost.shape[-1] - 1) // 2
        line = scale.astype(np.int32) * MEAN_UNIT + fraction
        line *= self._cost.shape[-1]
        line += widest
        saved = self._cost.take(line + np.clip(residue, -widest, widest))
        saved -= self._cost.take(line + np.clip(residue - toward, -widest, widest))
        # (e - t)^2 - e^2 with e the error of the nearest and t the step toward the mean
        nearest -= latents
        nearest *= toward * np.float32(-2 * DISTORTION_WEIGHT)
        nearest += np.float32(DISTORTION_WEIGHT)
        residue -= np.where(saved > nearest, toward, 0)
        residue += whole
        return residue


def _rows(planes: Tensor) -> np.ndarray:
    """(1, c, h, w) as (h w, c), a view where channels come last."""
    flat: np.ndarray = planes.permute(0, 2, 3, 1).reshape(-1, planes.shape[1]).numpy()
    return flat
