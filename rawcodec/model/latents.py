"""The learned layer of one plane: from a companded prediction and a JPEG to a better one.

:class:`PlaneCodec` is what the encoder and the decoder share. All that a
decoder computes is integers; it works in bands of rows with exact overlap, so
that neither the size of the bands nor the number of threads, the kernel or the
device change the result.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..process import give_back
from . import network, trellis
from .analysis import HyperAnalysis, working_type
from .bands import over_bands
from .config import (
    ACTIVATION_MAX,
    BLOCK,
    CONTEXT_INPUTS,
    DISTORTION_WEIGHT,
    FINE,
    GROUPS,
    HALF_WIDTH,
    HYPER_BLOCK,
    HYPER_GAIN,
    HYPER_LIMIT,
    HYPER_WIDTH,
    LATENT_LIMIT,
    LATENTS,
    LAYERS,
    MEAN_UNIT,
    PASSES,
    PATTERN,
    QUAD,
    STEPS,
    TRELLIS_SCALE,
    ZERO,
)
from .fitted import Coefficients, FittedFilter, Sight
from .inputs import unblocks
from .kernels import KERNELS, Kernel, Weights
from .nearby import Nearby
from .seen import MARGIN, PlaneInputs, Rows
from .shifts import Cells
from .store import COMPANDED, DOMAIN, Model
from .tables import (
    HALVES,
    TOGETHER,
    EntropyCoder,
    Tables,
    split,
)
from .view import SiteRows

BAND = 32
"""Rows of blocks that are computed at a time; the result does not depend on it."""

_WIDEST = HALVES[-1]
"""Largest residue that ``Tables.cost`` has."""

_BESIDE = np.int16(MEAN_UNIT // 2)
"""Half a step, in units of means."""

_SHIFT_SAMPLE = 1 << 18
"""Latents of a pass that tell how scales are to be shifted."""

Wanted = Callable[[Sequence[int]], np.ndarray]
"""Given channels, their latents before rounding, in steps: float32 (h, w, c)."""

_FINE = (
    *(16384, 16208, 16033, 15860, 15689, 15520, 15353, 15188),
    *(15024, 14862, 14702, 14544, 14387, 14232, 14079, 13927),
)
"""What gains between two rates multiply steps by: 2**14 and a quarter of an octave down."""

_HALF_MARGIN = MARGIN - 2
"""Quads around a band that features at half the resolution have, where inputs have all."""

_BEGUN = 4
"""Quads across a position of what the hyper-analysis begins with."""

_CONTEXT_MARGIN = 2
"""Quads around the picture that a context reaches."""


class Runner:
    """The layers of a model at one gain, ready to run with one kernel on one device.

    rate, fine: 0..32 and 0..15, sixteenths of the way to the next rate.
    steps: int32 (1, 4, 1, 1), of the latents at this gain.
    """

    def __init__(self, model: Model, rate: int, kernel: str, device: str, fine: int = 0) -> None:
        self.fine = fine
        steps = (model.steps[rate] * _FINE[fine] + (1 << 13)) >> 14
        self.steps = steps.clamp(min=1)[None, :, None, None]
        self.model, self.rate, self.device = model, rate, torch.device(device)
        self.kernel = KERNELS[kernel]
        self.kind = working_type(self.device)
        self._layers: dict[str, Kernel] = {name: self.kernel(self.weights(name)) for name in LAYERS}

    def weights(self, name: str) -> Weights:
        """The integers of a layer at this rate."""
        return self.model.weights(name, self.rate)

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """Activations of a layer, uint8 (B, C, h, w), or int16 values; on the device."""
        return self._layers[name](x)

    @functools.cached_property
    def analysis(self) -> HyperAnalysis:
        """The encoder's hyper-analysis on the device."""
        return copy.deepcopy(self.model.hyper_analysis).to(self.device, self.kind)

    def put(self, x: Tensor) -> Tensor:
        """The tensor on the device, with channels last."""
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    @property
    def hyper_scale(self) -> Tensor:
        """Scales of the hyper-latents at this rate: uint8 (8,)."""
        return self.model.hyper_scale[self.rate]


def _over_bands(
    run: Runner, first: int, last: int, task: Callable[[int, int], None], rows: int = 1
) -> None:
    """Call ``task`` with the first and the last row of each band. rows: of blocks in one."""
    size = max(BAND // rows, 1)
    over_bands(first, last, size, task, None if run.device.type == "cpu" else 1)


def _levels() -> np.ndarray:
    """Activations of latents: uint8 (65536,), by the 16 bits of the latent in half steps.

    64 and 10 log2(1 + |z|), rounded, of the sign of z. No machine's logarithm
    is asked: |z| rounds to n or more where (2 + 2 |z|)^20 >= 2^(2n + 19).
    """
    sizes = np.zeros(1 << 15, np.uint8)
    for n in range(1, ZERO):
        power = 1 << (2 * n + 19)
        low, high = 0, 1 << 15
        while low < high:  # the smallest 2 |z| that reaches it
            middle = (low + high) // 2
            if (2 + middle) ** 20 >= power:
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
    fill: int | None,
    dtype: torch.dtype,
    device: str | torch.device,
) -> Tensor:
    """(1, C, H, W), channels last in memory. fill: None where all of it will be written."""
    shape = (1, height, width, channels)
    if fill is None:
        return torch.empty(shape, dtype=dtype, device=device).permute(0, 3, 1, 2)
    return torch.full(shape, fill, dtype=dtype, device=device).permute(0, 3, 1, 2)


class PlaneCodec:
    """The stages of one plane, in order: look, then the hyper-latents, then the latents."""

    def __init__(self, run: Runner, seen: PlaneInputs, filter_: Coefficients | None) -> None:
        self.run = run
        self.height, self.width = seen.height, seen.width
        self.rows, self.columns = seen.rows, seen.columns
        self._seen, self._sight = seen, Sight(seen)
        self._again = True
        self._fitted = None
        if filter_ is not None:
            self._fitted = FittedFilter(run.kernel, self._sight, filter_)

    @functools.cached_property
    def prediction(self) -> np.ndarray:
        """The tone layer's values as the filter corrects them: uint16 (4 rows, 4 columns)."""
        result = self._room()

        def predict(top: int, bottom: int) -> None:
            first, last = 2 * top, 2 * bottom
            near = self._seen(first - 1, last + 1)
            self._predict(near, first - 1, first, last, result)

        _over_bands(self.run, 0, self.rows, predict)
        return result

    def _room(self) -> np.ndarray:
        return np.empty((BLOCK * self.rows, BLOCK * self.columns), np.uint16)

    def _predict(self, near: Rows, start: int, first: int, last: int, out: np.ndarray) -> None:
        """The prediction of rows of quads. start: the first that ``near`` has, before ``first``."""
        here = slice(first - start, last - start)
        sites = near.tone[:, 2 * here.start : 2 * here.stop, 2 * MARGIN : -2 * MARGIN]
        if self._fitted is not None:
            filtered = self._sight.rows(near, start)
            sites = sites + self._fitted(self.run.put, filtered, first, here)
            sites = sites.clamp_(0, COMPANDED - 1)
        out[2 * first : 2 * last] = sites[0].numpy()

    @property
    def hyper_shape(self) -> tuple[int, int]:
        """Rows and columns of the hyper-latents."""
        return self.rows * BLOCK // HYPER_BLOCK, self.columns * BLOCK // HYPER_BLOCK

    def analyse(self, raw: SiteRows) -> Tensor:
        """Hyper-latents before rounding: float32 (1, 8, h / 8, w / 8).

        raw: the companded mosaic.
        """
        run, rows, columns = self.run, 2 * self.rows, 2 * self.columns
        rate = torch.tensor([run.rate + run.fine / FINE], device=run.device)
        size = rows // _BEGUN, columns // _BEGUN
        begun = torch.empty((1, HYPER_WIDTH, *size), dtype=run.kind, device=run.device)

        def begin(top: int, bottom: int) -> None:
            # with a quad around; what lies beyond the picture is zero
            start, stop = _BEGUN * top - QUAD, _BEGUN * bottom + QUAD
            shape = LATENTS, stop - start, columns + 2 * QUAD
            near = _channels_last(*shape, 0, torch.float32, "cpu")
            first, last = max(start, 0), min(stop, rows)
            steps = self._steps(raw, range(LATENTS), first, last)
            near[0, :, first - start : last - start, QUAD:-QUAD] = torch.from_numpy(steps)
            begun[:, :, top:bottom] = run.analysis.begin(run.put(near.to(run.kind)), rate)

        _over_bands(run, 0, size[0], begin, _BEGUN * QUAD // BLOCK)
        return run.analysis.end(begun).float().cpu()

    def wanted(self, raw: SiteRows, channels: Sequence[int]) -> np.ndarray:
        """Latents of some channels before rounding, in steps: float32 (h, w, c).

        raw: see ``analyse``.
        """
        result = np.empty((2 * self.rows, 2 * self.columns, len(channels)), np.float32)

        def put(top: int, bottom: int) -> None:
            steps = self._steps(raw, channels, 2 * top, 2 * bottom)
            result[2 * top : 2 * bottom] = np.moveaxis(steps, 0, -1)

        _over_bands(self.run, 0, self.rows, put)
        return result

    def _steps(self, raw: SiteRows, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        """Rows of quads of latents, in steps: float32 (c, rows, w); 0 beyond the picture."""
        forward, sites = self.run.model.forward, slice(QUAD * first, QUAD * last)
        theirs, mine = raw[sites], self.prediction[sites]
        result = np.zeros((len(channels), last - first, 2 * self.columns), np.float32)
        for part, channel in zip(result, channels, strict=True):
            here = np.s_[channel // QUAD :: QUAD, channel % QUAD :: QUAD]
            known = theirs[here]
            part = part[: known.shape[0], : known.shape[1]]
            less = mine[here][: known.shape[0], : known.shape[1]]
            np.subtract(forward.take(known), forward.take(less), out=part, dtype=np.int32)
            part /= np.float32(self.run.steps[0, channel, 0, 0])
        return result

    def know(self, hyper: Tensor) -> None:
        """Take the hyper-latents, int32 (1, 8, h / 8, w / 8): the entropy model, and the order.

        Once. Of the JPEG's features, only what all passes look at is kept, a band after another.
        """
        rows, columns = self.rows, self.columns
        activations = (ZERO + HYPER_GAIN * hyper).to(torch.uint8)
        activations = self.run.put(F.pad(activations, [1] * 4, value=ZERO))
        features = F.pad(network.hyper_features(self.run, activations), [1] * 4)
        across = -(-2 * columns // PATTERN)
        pattern = self.run.model.pattern.repeat(1, 1, across)[..., : 2 * columns]
        order = torch.empty((2 * rows, 2 * columns), dtype=torch.uint8)
        trunk = self.run.kernel(self._seen.layer(self.run.weights("trunk.0")))
        self._detail = _channels_last(
            HALF_WIDTH, 2 * rows, 2 * columns, None, torch.uint8, self.run.device
        )
        # an encoder has it already
        missing = None if "prediction" in self.__dict__ else self._room()

        def layer(name: str, x: Tensor) -> Tensor:
            return trunk(x) if name == "trunk.0" else self.run(name, x)

        def know(top: int, bottom: int) -> None:
            here = slice(2 * top, 2 * bottom)
            start = here.start - MARGIN
            near = self._seen(start, here.stop + MARGIN)
            if missing is not None:
                self._predict(near, start, here.start, here.stop, missing)
            half = network.half_features(layer, self.run.put(near.inputs))
            base = network.base_features(
                self.run, network.guide_features(self.run, half), features[:, :, top : bottom + 2]
            )
            inner = half[:, :, _HALF_MARGIN:-_HALF_MARGIN, _HALF_MARGIN:-_HALF_MARGIN]
            detail = network.detail_features(self.run, inner, base)
            self._detail[:, :, here] = detail
            noise = pattern[:, torch.arange(here.start, here.stop) % PATTERN]
            scores = self.run("order", detail)[0].cpu().to(torch.int32) + noise
            best, chosen = scores[0], torch.zeros_like(scores[0], dtype=torch.uint8)
            for step in range(1, STEPS):
                chosen[scores[step] > best] = step
                best = torch.maximum(best, scores[step])
            order[here] = chosen

        _over_bands(self.run, 0, rows, know)
        if missing is not None:
            self.prediction = missing
        self.steps = [(order == step)[None, None].to(torch.uint8) for step in range(STEPS)]

    def parameters(self, number: int, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, int16, and scale, uint8, of the latents of a pass: each (1, c, h, w)."""
        give_back()  # what coding the pass before took
        rows, columns = self.rows, self.columns
        count = len(GROUPS[PASSES[number][0]])
        mean = _channels_last(count, 2 * rows, 2 * columns, None, torch.int16, "cpu")
        scale = _channels_last(count, 2 * rows, 2 * columns, None, torch.uint8, "cpu")

        def look(top: int, bottom: int) -> None:
            here = slice(2 * top, 2 * bottom)
            detail = self._detail[:, :, here]
            seen = self._known(known, here.start, here.stop) if number > 0 else detail
            mean[:, :, here], scale[:, :, here] = network.parameters(self.run, number, detail, seen)

        # they reach less than the guide's features do
        _over_bands(self.run, 0, rows, look, 2)
        if number == len(PASSES) - 1 and not self._again:
            del self._detail  # its memory serves what follows
        return mean, scale

    def code(self, coder: network.LatentCoder, *, again: bool = False) -> Tensor:
        """All latents, through a coder: int16 (1, 4, h, w), in half steps.

        again: they may be coded once more.
        """
        self._again = again
        size = 2 * self.rows, 2 * self.columns
        zeros = _channels_last(LATENTS, *size, 0, torch.int16, "cpu")
        return network.walk(coder, self.steps, zeros, self.parameters)

    def decoded(self, latents: Tensor) -> np.ndarray:
        """The plane that the latents make of the prediction: uint16 (H, W), companded.

        latents: int16 (1, 4, h, w), in half steps.
        """
        model = self.run.model
        forward = model.forward.astype(np.int32)
        result = np.empty((self.height, self.width), np.uint16)

        def add(top: int, bottom: int) -> None:
            values = latents[:, :, 2 * top : 2 * bottom].to(torch.int32) * self.run.steps
            residual = unblocks(values >> 1)[0]
            part = slice(4 * top, min(4 * bottom, self.height))
            sites = forward.take(self.prediction[part, : self.width])
            sites += residual[: part.stop - part.start, : self.width].numpy()
            np.clip(sites, 0, DOMAIN - 1, out=sites)
            result[part] = model.back.take(sites)

        _over_bands(self.run, 0, -(-self.height // BLOCK), add)
        del self.prediction  # its memory serves what follows
        return result

    def corrected(
        self, values: np.ndarray, sight: Sight, filter_: Coefficients | None
    ) -> np.ndarray:
        """What a filter makes of the decoded plane: uint16 (H, W), companded, as ``values``."""
        if filter_ is None:
            return values
        fitted = FittedFilter(self.run.kernel, sight, filter_)
        result = np.empty_like(values)

        def correct(top: int, bottom: int) -> None:
            first, last = 2 * top, 2 * bottom
            near = sight(first - 1, last + 1)
            added = fitted(self.run.put, near, first, slice(1, 1 + last - first))
            part = slice(4 * top, min(4 * bottom, self.height))
            sites = values[part].astype(np.int32)
            sites += added[: part.stop - part.start, : self.width].numpy()
            result[part] = np.clip(sites, 0, COMPANDED - 1, out=sites)

        _over_bands(self.run, 0, -(-self.height // BLOCK), correct)
        return result

    def _known(self, latents: Tensor, top: int, bottom: int) -> Tensor:
        """What a context sees of rows of quads: see ``network.parameters``.

        latents: in half steps.
        """
        margin = _CONTEXT_MARGIN
        levels = self._levels(latents, top, bottom, margin)
        height, width = levels.shape[2:]
        known = _channels_last(CONTEXT_INPUTS, height, width, 0, torch.uint8, "cpu")
        known[:, :LATENTS] = levels
        known[:, LATENTS : 2 * LATENTS] = (levels.to(torch.int16) - ZERO).abs_() * 2
        rows, at = self._near(top, bottom, margin)
        known[:, -1:, at, margin:-margin] = self.steps[0][:, :, rows] * ACTIVATION_MAX
        return self.run.put(known)

    def _levels(self, latents: Tensor, top: int, bottom: int, margin: int) -> Tensor:
        """Latents of rows of quads, and of a margin, as activations: uint8 (1, 4, ...).

        latents: in half steps. They are zero beyond the picture.
        """
        size = bottom - top + 2 * margin, latents.shape[3] + 2 * margin
        result = _channels_last(LATENTS, *size, ZERO, torch.uint8, "cpu")
        rows, at = self._near(top, bottom, margin)
        inside = latents[:, :, rows].permute(0, 2, 3, 1).numpy().view(np.uint16)
        result[:, :, at, margin:-margin] = torch.from_numpy(_LEVELS.take(inside)).permute(
            0, 3, 1, 2
        )
        return result

    def _near(self, top: int, bottom: int, margin: int) -> tuple[slice, slice]:
        """Rows of quads in the picture, up to a margin away, and where they lie with it."""
        start, stop = max(top - margin, 0), min(bottom + margin, 2 * self.rows)
        at = start - top + margin
        return slice(start, stop), slice(at, at + stop - start)


class TableCoder:
    """Codes a plane's latents with tables, through an entropy coder; also the hyper-latents.

    It is the ``LatentCoder`` of encoder and decoder; what it returns is in half
    steps. latents: gives those of some channels in steps, float32 (h, w, c), for
    which an encoder chooses integers; None to decode. weight: of their distortion,
    1 being the usual one.
    """

    def __init__(
        self, tables: Tables, coder: EntropyCoder, latents: Wanted | None, weight: float = 1.0
    ) -> None:
        self._tables, self._coder = tables, coder
        self._latents, self._weight = latents, np.float32(weight * DISTORTION_WEIGHT)
        self._cost = None if latents is None else tables.cost
        self._nearby: Nearby | None = None

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """See :class:`.network.LatentCoder`; raises ValueError for latents out of range."""
        channels = GROUPS[PASSES[number][0]]
        _, _, height, width = mean.shape
        if self._nearby is None:
            self._nearby = Nearby(height, width)
        quads = here.numpy().reshape(height, width).astype(bool)
        # all of them without copies
        chosen: slice | np.ndarray = slice(None) if quads.all() else quads.ravel()
        means, scales = (_rows(part)[chosen].ravel() for part in (mean, scale))
        classes = self._nearby.classes().ravel()[chosen].repeat(len(channels))
        cells = Cells(self._tables, classes, scales)
        del classes
        ours = shifts = None
        if self._latents is not None:
            ours = self._latents(channels).reshape(-1, len(channels))[chosen].ravel()
            shifts = self._best_shifts(cells, ours, means, scales)
        scales = cells.moved(cells.code(self._coder, shifts))
        del cells
        small = scales < TRELLIS_SCALE
        large = np.flatnonzero(~small)
        given = wanted = None
        if ours is not None:
            given = self._choose(ours, means, scales, small)
            wanted = ours[large]
            del ours  # as much as all that is left to do takes
        values = self._coded(given, means, scales, small)
        values *= 2
        del given, small
        values[large] = self._along(wanted, means[large], scales[large])
        by_quad = (part.reshape(-1, len(channels)) for part in (values, means, scales))
        self._nearby.add(quads, *by_quad)
        if isinstance(chosen, slice):
            result = values
        else:
            result = np.zeros((height * width, len(channels)), np.int16)
            result[chosen] = values.reshape(-1, len(channels))
        return torch.from_numpy(result.reshape(1, height, width, -1)).permute(0, 3, 1, 2)

    def _along(self, latents: np.ndarray | None, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Latents whose quantisers the trellis knows: int16 (n,), in half steps.

        latents: float32 (n,), to encode.
        """
        given = None
        if latents is not None:
            given = trellis.best(len(mean), functools.partial(self._prices, latents, mean, scale))

        def code(part: slice, second: np.ndarray) -> np.ndarray:
            # half a step beside: integers lie as those of the first do around a mean half a step up
            moved = mean[part] + _BESIDE * second
            return self._coded(None if given is None else given[part], moved, scale[part])

        return trellis.walk(len(mean), code)

    def _coded(
        self,
        given: np.ndarray | None,
        mean: np.ndarray,
        scale: np.ndarray,
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        """The integers of latents, int16; ValueError for those out of range."""
        values = self._tables.code(self._coder, given, mean, scale, where)
        if len(values) and max(-int(values.min()), int(values.max())) >= LATENT_LIMIT:
            raise ValueError("a latent is out of range")
        return values

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
        return torch.from_numpy(values.astype(np.int32).reshape(1, len(means), *shape))

    def _choose(
        self,
        latents: np.ndarray,
        mean: np.ndarray,
        scale: np.ndarray,
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        """Integers for the latents: the nearest, or one nearer to the mean where that pays.

        Rate-distortion optimised quantisation: squared error in steps, and bits
        of the tables, at the exchange rate ``DISTORTION_WEIGHT`` times the weight.

        where: for which of them, if not all; the others are 0.
        """
        result = np.zeros(len(latents), np.int16)

        def choose(start: int, stop: int) -> None:
            part: slice | np.ndarray = slice(start, stop)
            if where is not None:
                part = start + np.flatnonzero(where[start:stop])
            result[part] = self._chosen(latents[part], mean[part], scale[part])

        over_bands(0, len(latents), TOGETHER, choose)
        return result

    def _prices(
        self, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray, part: slice
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integers for some latents, bits and weighted errors of these: ``trellis.Prices``."""
        assert self._cost is not None
        whole, fraction = split(mean[part] + _BESIDE * np.arange(2, dtype=np.int16)[:, None])
        # clipped a little inside, so that the next integer is in range with either quantiser
        above = latents[part].clip(2 - LATENT_LIMIT, LATENT_LIMIT - 3)
        above = above + np.float32(0.5) * np.arange(2, dtype=np.float32)[:, None]
        floor = np.floor(above)
        above -= floor
        below = floor.astype(np.int32)
        residue = below - whole
        np.minimum(np.maximum(residue, -_WIDEST, out=residue), _WIDEST - 1, out=residue)
        residue += _places(scale[part], fraction)
        low = self._cost.take(residue)
        residue += 1
        high = self._cost.take(residue)
        weight = self._weight
        error = above * above
        error *= weight
        low += error
        high += error
        above *= 2 * weight  # (1 - a)^2 = a^2 - (2 a - 1)
        above -= weight
        high -= above
        return below, low, high

    def _best_shifts(
        self, cells: Cells, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> np.ndarray:
        """The shifts of scales with which latents take the fewest bits: see ``Cells.best``.

        Found from some of the latents where there are many, as they would be chosen without.
        """
        stride = max(1, len(latents) // _SHIFT_SAMPLE)
        mean, scale = mean[::stride], scale[::stride]
        latents = self._choose(latents[::stride], mean, scale)
        whole, fraction = split(mean)
        places = _places(scale, fraction) + np.clip(latents - whole, -_WIDEST, _WIDEST)
        return cells.best(self._tables, places, stride)

    def _chosen(self, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        assert self._cost is not None
        whole, fraction = split(mean)
        nearest = np.rint(latents)
        np.clip(nearest, 1 - LATENT_LIMIT, LATENT_LIMIT - 1, out=nearest)
        residue: np.ndarray = nearest.astype(np.int32) - whole
        toward = np.sign(residue)
        places = _places(scale, fraction)
        saved = self._cost.take(places + np.clip(residue, -_WIDEST, _WIDEST))
        saved -= self._cost.take(places + np.clip(residue - toward, -_WIDEST, _WIDEST))
        # (e - t)^2 - e^2 with e the error of the nearest and t the step toward the mean
        nearest -= latents
        nearest *= toward * (-2 * self._weight)
        nearest += self._weight
        residue -= np.where(saved > nearest, toward, 0)
        residue += whole
        return residue


def _places(scale: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Where ``Tables.cost`` has the residue 0 of scales and fractions of means: int32 (n,)."""
    places: np.ndarray = scale.astype(np.int32) * MEAN_UNIT + fraction
    places *= 2 * _WIDEST + 1
    places += _WIDEST
    return places


def _rows(planes: Tensor) -> np.ndarray:
    """(1, c, h, w) as (h w, c), a view where channels come last."""
    flat: np.ndarray = planes.permute(0, 2, 3, 1).reshape(-1, planes.shape[1]).numpy()
    return flat
