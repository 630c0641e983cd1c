"""Filters fitted to the photo: what a linear function of the JPEG around a site says of the raw.

Renderings differ too much from photo to photo for a network with weights of its own to tell what
sharpening, noise reduction and demosaicing did; weights that are fitted to one photo, as video
codecs fit theirs (Tsai et al., "Adaptive Loop Filtering for Video Coding", 2013), hold within it.
Quads fall into classes by their brightness and by how much it varies, each with weights of its own.

A plane may have two. One corrects what the tone layer predicts, before any latent. The other one
takes the place of a synthesis: it corrects what the latents made of it, and sees them too. What
latents leave has another best filter than what they are for, since they take the large errors.

Weights are integers of the kind that layers have, and fit the certificate whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .config import (
    ACTIVATION_MAX,
    FILTER_LIMIT,
    FILTER_UNIT,
    LATENTS,
    PICTURE_INPUTS,
    QUAD,
    ZERO,
    Layer,
)
from .inputs import unblocks
from .kernels import Kernel, Weights, folded
from .seen import MARGIN, PlaneInputs, Rows
from .tables import TOTAL, EntropyCoder, Tables, code_scale

CHANNELS = PICTURE_INPUTS + 2 * LATENTS
"""What it takes: the network's inputs of the guide and the tone, the latents, the plane before."""

TAPS = 9
"""Quads that it takes them of: 3 x 3."""

SHAPES = ((1, 1), (2, 1), (2, 2), (4, 2))
"""Classes by activity and by brightness."""

OUTPUTS = 32
"""The most outputs, of all classes."""

SHIFT_LIMIT = 20
"""Largest shift of its sums."""

OCTAVES = 7
"""How coarse the numbers of a channel may be: in units of 1 to 64."""

CONSTANT_LIMIT = 1 << 22
"""Largest magnitude of an output's constant, in units of its sums."""

_NUMBER = np.array([255] * 257 + [1])
_OCTAVE = np.array([9362] * OCTAVES + [TOTAL - 9362 * OCTAVES])


@dataclass(frozen=True)
class Coefficients:
    """What is coded of a filter.

    thresholds: of activity, then of brightness, 0..32767, as many as the shape of ``SHAPES`` has
    classes, less one each. shift: 0..20, as layers have. octaves: int64 (32,), 0..6. scales: int64
    (32,), 1..63. numbers: int32 (32, 9 n) for n outputs, by tap within output; the last, that of
    the constant, has n. Channel 31 is the constant.
    """

    shape: tuple[int, int]
    thresholds: tuple[int, ...]
    shift: int
    octaves: np.ndarray
    scales: np.ndarray
    numbers: list[np.ndarray]


def phases(colours: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the sites of a quad, for each quad of the pattern, row by row."""
    rows, columns = (int(np.lcm(QUAD, n)) for n in colours.shape)
    every = np.tile(colours, (rows // colours.shape[0], columns // colours.shape[1]))
    return [
        tuple(int(c) for c in every[y : y + QUAD, x : x + QUAD].ravel())
        for y in range(0, rows, QUAD)
        for x in range(0, columns, QUAD)
    ]


def outputs(colours: np.ndarray) -> list[tuple[int, int]]:
    """The sites of a quad, 0..3, and the colours that they have somewhere in the pattern."""
    return sorted({pair for quad in phases(colours) for pair in enumerate(quad)})


def shapes(colours: np.ndarray) -> list[tuple[int, int]]:
    """The shapes that the outputs of a pattern leave room for."""
    count = len(outputs(colours))
    return [shape for shape in SHAPES if shape[0] * shape[1] * count <= OUTPUTS]


def code(
    coder: EntropyCoder,
    tables: Tables,
    colours: np.ndarray,
    given: Coefficients | None,
    *,
    read: bool,
) -> Coefficients | None:
    """Code a filter, or None where a plane has none.

    colours: the repeating pattern. read: to decode; ``given`` is None then. ValueError for values
    out of range.
    """
    fitting = shapes(colours)

    def number(value: int | None, limit: int) -> int:
        symbols = None if value is None else np.array([value - 128], np.int32)
        found = int(coder.code(symbols, [_NUMBER], np.zeros(1, np.uint8))[0]) + 128
        if not 0 <= found <= limit:
            raise ValueError("a number of the filter is out of range")
        return found

    chosen = None if read else 0 if given is None else 1 + fitting.index(given.shape)
    chosen = number(chosen, len(fitting))
    if chosen == 0:
        return None
    shape = fitting[chosen - 1]
    thresholds = []
    for at in range(sum(shape) - 2):
        value = None if given is None else given.thresholds[at]
        high = number(None if value is None else value >> 8, 127)
        thresholds.append((high << 8) + number(None if value is None else value & 255, 255))
    shift = number(None if given is None else given.shift, SHIFT_LIMIT)
    count = shape[0] * shape[1] * len(outputs(colours))
    octaves, scales, numbers = np.zeros(CHANNELS + 1, int), np.zeros(CHANNELS + 1, int), []
    for channel in range(CHANNELS + 1):
        taps, limit = (TAPS, ACTIVATION_MAX) if channel < CHANNELS else (1, CONSTANT_LIMIT)
        scales[channel] = code_scale(coder, None if given is None else int(given.scales[channel]))
        frequencies = tables.centred(int(scales[channel]))
        values = np.zeros(taps * count, np.int32)
        if frequencies is not None:
            octave = None if given is None else given.octaves[channel : channel + 1] - OCTAVES // 2
            place = np.zeros(1, np.uint8)
            octaves[channel] = int(coder.code(octave, [_OCTAVE], place)[0]) + OCTAVES // 2
            if not 0 <= octaves[channel] < OCTAVES:
                raise ValueError("a number of the filter is out of range")
            wanted = None if given is None else given.numbers[channel]
            values = coder.code(wanted, [frequencies], np.zeros(taps * count, np.uint8))
            if max(-int(values.min()), int(values.max())) > limit >> octaves[channel]:
                raise ValueError("a number of the filter is out of range")
        numbers.append(values)
    return Coefficients(shape, tuple(thresholds), shift, octaves, scales, numbers)


def weights(filter_: Coefficients) -> Weights:
    """The filter as a layer: its outputs by site and colour, within class."""
    scaled = [
        n.astype(np.int64) << o for n, o in zip(filter_.numbers, filter_.octaves, strict=True)
    ]
    count = len(scaled[-1])
    weight = np.stack(scaled[:-1]).reshape(CHANNELS, count, TAPS).transpose(1, 0, 2)
    bias = scaled[-1] - ZERO * weight.sum((1, 2))
    size = int(TAPS**0.5)
    return Weights(
        Layer(CHANNELS, count, size, out="value", limit=FILTER_LIMIT),
        torch.from_numpy(weight.reshape(count, CHANNELS, size, size).astype(np.int8)),
        torch.full((count,), filter_.shift),
        torch.from_numpy(bias.astype(np.int32)),
    )


def activity(luma: Tensor) -> Tensor:
    """How much brightness varies: int16 (1, h - 2, w - 2) of int16 (1, h, w), 0..32640."""
    inner = luma[:, 1:-1, 1:-1]
    total = torch.zeros_like(inner)
    for dy in range(3):
        for dx in range(3):
            near = luma[:, dy : dy + inner.shape[1], dx : dx + inner.shape[2]]
            total += (near - inner).abs()
    return total


def classes(filter_: Coefficients, varies: Tensor, luma: Tensor) -> Tensor:
    """Which class quads belong to: uint8 of the shape of their activity and brightness."""
    split, shades = filter_.shape
    result = torch.zeros_like(varies, dtype=torch.uint8)
    for threshold in filter_.thresholds[: split - 1]:
        result += varies >= threshold
    result *= shades
    for threshold in filter_.thresholds[split - 1 :]:
        result += luma >= threshold
    return result


class Sight:
    """What a filter sees of a plane.

    channels: how many of the ``CHANNELS`` it has; the rest, the last ones, are zero everywhere.
    """

    def __init__(self, seen: PlaneInputs, latents: Tensor | None = None) -> None:
        """latents: int16 (1, 4, h, w), in half steps, where they are known."""
        self.seen, self._latents = seen, latents
        every, known = seen.constant is None, latents is not None
        self.channels = CHANNELS if every else PICTURE_INPUTS + LATENTS * known

    def __call__(self, first: int, last: int) -> Rows:
        """Rows of quads, as :class:`.seen.PlaneInputs` has them, with the filter's inputs."""
        return self.rows(self.seen(first, last), first)

    def rows(self, near: Rows, first: int) -> Rows:
        """The same rows with the filter's inputs: uint8 (1, channels, h, w).

        first: which is the first of them.
        """
        inputs = near.inputs[:, :PICTURE_INPUTS]
        if self.channels > PICTURE_INPUTS:
            inputs = torch.cat([inputs, self._levels(first, *inputs.shape[2:])], 1)
        if self.seen.constant is None:
            before = near.inputs[:, PICTURE_INPUTS : PICTURE_INPUTS + LATENTS]
            inputs = torch.cat([inputs, before], 1)
        return replace(near, inputs=inputs)

    def _levels(self, first: int, height: int, width: int) -> Tensor:
        """Latents as activations, in half steps; zero beyond the picture and where unknown."""
        levels = torch.full((1, LATENTS, height, width), ZERO, dtype=torch.uint8)
        if self._latents is not None:
            start, stop = max(first, 0), min(first + height, self._latents.shape[2])
            halves = self._latents[:, :, start:stop].clamp(1 - ZERO, ACTIVATION_MAX - ZERO)
            levels[:, :, start - first : stop - first, MARGIN:-MARGIN] = halves + ZERO
        return levels


class FittedFilter:
    """A filter of a plane, ready to run."""

    def __init__(self, kernel: type[Kernel], sight: Sight, filter_: Coefficients) -> None:
        same = torch.full((CHANNELS - sight.channels,), ZERO)
        self._layer = kernel(folded(weights(filter_), same))
        self._filter, self._mask = filter_, sight.seen.mask
        self._outputs = outputs(sight.seen.plane.colours)

    def __call__(
        self, put: Callable[[Tensor], Tensor], near: Rows, first: int, here: slice
    ) -> Tensor:
        """What to add to the sites of rows of quads: int32 (2h, 2w), companded, on the CPU.

        put: to the device. near: of the sight, has these rows, and one more at both ends. first:
        of these rows in the picture. here: where ``near`` has them.
        """
        rows, columns = slice(here.start - 1, here.stop + 1), slice(MARGIN - 1, 1 - MARGIN)
        planes = self._layer(put(near.inputs[:, :, rows, columns])).cpu()
        luma = near.luma[:, rows, columns]
        count = len(self._outputs)
        height, width = planes.shape[2:]
        found = planes.permute(0, 2, 3, 1).reshape(-1, count)  # a row for each quad and class
        if len(found) > height * width:
            chosen = classes(self._filter, activity(luma), luma[:, 1:-1, 1:-1]).flatten()
            every = len(found) // (height * width)
            found = found[torch.arange(0, len(found), every) + chosen]
        found = found.reshape(1, height, width, count)
        if count == LATENTS:  # each site has one colour
            result = found.permute(0, 3, 1, 2)
        else:
            mask = self._mask(first, first + here.stop - here.start)[..., MARGIN:-MARGIN]
            result = torch.zeros((1, LATENTS, *planes.shape[2:]), dtype=torch.int16)
            for at, (site, colour) in enumerate(self._outputs):
                result[:, site] += found[..., at] * mask[:, 3 * site + colour]
        return unblocks(result)[0].to(torch.int32) * FILTER_UNIT
