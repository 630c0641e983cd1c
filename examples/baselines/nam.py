"""Nam et al.: raw values at pixels that a network picks, from which another makes the raw.

Nam, Punnappurath, Brubaker, Brown, "Learning sRGB-to-Raw-RGB De-rendering with Content-Aware
Metadata", CVPR 2022. A U-Net that sees picture and raw assigns pixels to superpixels, one for each
cell of a grid (after Yang et al., "Superpixel Segmentation with Fully Convolutional Networks", CVPR
2020), and from each the pixel is kept that belongs to it most: one in 64, 1.5625%. A second U-Net
makes the raw from the picture, the kept values and their places. It can be fine-tuned at decoding
to what is known at the kept pixels, for which it is prepared by first-order meta-learning.

The kept pixel of a superpixel lies in its cell (the published program searches the cells around,
too, and may find the same pixel twice): its place and three samples of 16 bits are 54 bits a
cell, the 0.844 a pixel that comparisons report for this system. Here samples are coded as
differences to what the picture lets expect, in steps far finer than these: a third of it.
"""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import constriction
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .interface import WHITE, decibels, pixels, to_planes, to_samples

CELL = 8
"""Pixels across a cell of the grid, of which one is kept."""

PLACES = CELL * CELL

COARSEST = 8
"""Samples are rounded to 2 to the power of at most this, of 65535."""

HALVINGS = 3
"""How often a U-Net halves the size of its planes."""

SAMPLER, RECONSTRUCTOR = 16, 32
"""Features of the U-Nets at full size. The published program has 32 for both and halves four
times, 15.5 million weights; these have 2.4 million, near the 2.59 that comparisons report."""

REACH = 48
"""Pixels around that one of a U-Net's output depends on, in whole cells."""

TILE, TUNED_TILE = 512, 384
"""Pixels across what is computed at a time, without margins; the second with gradients."""

TUNING_STEPS, TUNING_RATE = 10, 1e-4
"""Of Adam, at decoding."""

FIRST_LEVEL = -3.0
"""What reconstructions begin with, before the sigmoid: 5% of white."""

MOMENTUM = 0.02
"""Share of a batch in the gathered statistics: these batches are small."""

SUPERPIXEL_WEIGHT, PICTURE_SHARE, COMPACTNESS = 1e-4, 0.2, 10.0
"""In the loss: of superpixels; among their errors, of the picture against the raw; of places."""

META_WEIGHT, META_STEPS, META_RATE = 0.01, 5, 1e-3
META_EVERY = 4
"""Batches from one of the meta-learning to the next, whose weight makes up for it."""

SETTLED = 0.5
"""Share of the time after which the gathered statistics stay, and meta-learning begins."""

_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""The nine superpixels that a pixel may belong to, as cells down and right of its own."""

_OWN = 4
"""The place of its own cell among them."""

_COLOURS = (1, 0, 2)
"""The order in which a pixel's samples are coded: each is expected from those before it, too."""


class _Convolutions(nn.Sequential):
    """Two 3x3 convolutions, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for given in (inputs, outputs):
            self.append(
                nn.Conv2d(given, outputs, 3, padding=1, padding_mode="replicate", bias=False)
            )
            self.append(nn.BatchNorm2d(outputs, momentum=MOMENTUM))
            self.append(nn.ReLU(inplace=True))


class UNet(nn.Module):
    """A U-Net with normalised batches (Ronneberger, Fischer, Brox, MICCAI 2015).

    float32 (B, inputs, H, W) to (B, outputs, H, W), where both sizes are multiples of ``CELL``.
    """

    def __init__(self, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        widths = [features << level for level in range(HALVINGS + 1)]
        self.down = nn.ModuleList(
            _Convolutions(i, o) for i, o in zip([inputs, *widths], widths, strict=False)
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1])
        self.up = nn.ModuleList(_Convolutions(2 * w, w) for w in widths[:-1])
        self.last = nn.Conv2d(features, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for enlarge, block in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            x = block(torch.cat((enlarge(x), kept.pop()), 1))
        y: Tensor = self.last(x)
        return y


class NamNetwork(nn.Module):
    """Both U-Nets. Sizes of planes are multiples of ``CELL``."""

    def __init__(self) -> None:
        super().__init__()
        self.sampler = UNet(6, len(_NEIGHBOURS), SAMPLER)
        self.reconstructor = UNet(7, 3, RECONSTRUCTOR)
        assert self.reconstructor.last.bias is not None
        # raws are dark: else much of a short training would only go there
        nn.init.constant_(self.reconstructor.last.bias, FIRST_LEVEL)

    def association(self, picture: Tensor, raw: Tensor) -> Tensor:
        """How much each pixel belongs to the superpixels around: (B, 9, H, W), sums of 1."""
        return F.softmax(self.sampler(torch.cat((picture, raw), 1)).float(), 1)

    def reconstruct(self, picture: Tensor, mask: Tensor, raw: Tensor) -> Tensor:
        """The raw, (B, 3, H, W), 0..1. mask: (B, 1, H, W), 1 where the raw is known."""
        return torch.sigmoid(self.reconstructor(known(picture, mask, raw)).float())


def known(picture: Tensor, mask: Tensor, raw: Tensor) -> Tensor:
    """What the reconstructor sees: (B, 7, H, W)."""
    return torch.cat((picture, mask * raw, mask), 1)


def places(own: Tensor) -> Tensor:
    """The place in each cell, row by row, of the pixel that belongs most to its superpixel.

    own: (B, 1, H, W), how much. Returns int64 (B, H/8, W/8).
    """
    return F.pixel_unshuffle(own.detach(), CELL).argmax(1)


def at_places(place: Tensor) -> Tensor:
    """1 where pixels are kept, 0 elsewhere: float32 (B, 1, H, W)."""
    chosen = F.one_hot(place, PLACES).permute(0, 3, 1, 2).float()
    return F.pixel_shuffle(chosen, CELL)


def superpixel_loss(association: Tensor, picture: Tensor, raw: Tensor) -> Tensor:
    """How much pixels differ from the means of their superpixels, in colour and place.

    Colours count in 255ths. association: (B, 9, H, W). picture, raw: (B, 3, H, W), 0..1.
    """
    height, width = picture.shape[2:]
    rows, columns = (torch.arange(n, device=raw.device).float() for n in (height, width))
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    place = place.expand(len(raw), 2, height, width)
    features = torch.cat((255 * picture, 255 * raw, place), 1)
    weighted = torch.cat((features, torch.ones_like(raw[:, :1])), 1)
    total = torch.zeros_like(weighted[:, :, ::CELL, ::CELL])
    for number, (y, x) in enumerate(_NEIGHBOURS):
        share = F.avg_pool2d(weighted * association[:, number, None], CELL)
        total = total + _moved(share, -y, -x)
    means = total[:, :-1] / (total[:, -1:] + 1e-8)
    spread = torch.zeros_like(features)
    for number, (y, x) in enumerate(_NEIGHBOURS):
        near = F.interpolate(_moved(means, y, x), scale_factor=CELL, mode="nearest")
        spread = spread + near * association[:, number, None]
    shown, light, where = ((spread - features) ** 2).split((3, 3, 2), 1)
    return (
        PICTURE_SHARE * shown.mean()
        + (1 - PICTURE_SHARE) * light.mean()
        + (COMPACTNESS / CELL) ** 2 * where.mean()
    )


def _moved(cells: Tensor, y: int, x: int) -> Tensor:
    """At each cell, what the one so far down and right has; nothing beyond the edges."""
    height, width = cells.shape[2:]
    return F.pad(cells, (1, 1, 1, 1))[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width]


class Nam:
    """The trained networks as a system of the comparison.

    weights: safetensors of a ``NamNetwork``; None for one that is not trained. fine_tuned: whether
    ``decode`` adapts the second network to the kept pixels. device: where it computes. ValueError
    for other weights.

    Pictures are computed in tiles whose margins hold all that a pixel depends on, so that nothing
    but the rounding of floats depends on the tiles; 1.5 megapixels take less than 2 GB. As it
    computes with floats, decoding gives the same result again on the same machine only; the
    metadata themselves are read without the networks.
    """

    def __init__(self, weights: Path | None, fine_tuned: bool, device: str = "cpu") -> None:
        self.name = "Nam et al., fine-tuned" if fine_tuned else "Nam et al."
        self.fine_tuned = fine_tuned
        self.network = NamNetwork()
        if weights is not None:
            try:
                self.network.load_state_dict(load_file(weights))
            except (RuntimeError, SafetensorError) as error:
                raise ValueError(f"{weights}: is not a network of Nam et al.") from error
        self.network.eval().requires_grad_(False).to(device)
        self._device = device

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        """Which pixels are kept, and their samples. raw: uint16 (H, W, 3)."""
        shown = pixels(picture)
        if shown.shape != raw.shape:
            raise ValueError("the picture is not of the raw's size")
        both = torch.cat([self._whole_cells(part) for part in (shown, raw)], 1)
        own = tiled(both, TILE, self._own)
        own[:, :, raw.shape[0] :] = -1
        own[:, :, :, raw.shape[1] :] = -1
        place = places(own)[0].cpu().numpy()
        rows, columns = _kept(place)
        return pack(place, raw[rows, columns], shown)

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        """The raw, uint16 (H, W, 3); ValueError for data that is damaged or of another size."""
        shown = pixels(picture)
        place, values = unpack(data, shown)
        rows, columns = _kept(place)
        sparse = np.zeros(shown.shape, np.uint16)
        sparse[rows, columns] = values
        mask = at_places(torch.from_numpy(place)[None]).to(self._device)
        seen = known(self._whole_cells(shown), mask, self._whole_cells(sparse))
        network: nn.Module = self.network.reconstructor
        if self.fine_tuned:
            network = fine_tuned(network, seen)
        raw = tiled(seen, TILE, lambda x: torch.sigmoid(network(x)))
        raw = raw[:, :, : shown.shape[0], : shown.shape[1]]
        result = to_samples(raw.cpu())
        result[rows, columns] = values
        return result

    def _own(self, both: Tensor) -> Tensor:
        """How much pixels belong to the superpixel of their cell, (B, 1, H, W)."""
        return self.network.association(both[:, :3], both[:, 3:])[:, _OWN : _OWN + 1]

    def _whole_cells(self, values: np.ndarray) -> Tensor:
        """Integers (H, W, 3) as planes whose sizes are multiples of ``CELL``."""
        height, width = values.shape[:2]
        planes = F.pad(to_planes(values), (0, -width % CELL, 0, -height % CELL), mode="replicate")
        return planes.to(self._device)


def tiles(height: int, width: int, size: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """For each tile: what it covers, with margins of ``REACH``, and where in that the tile lies."""
    for top in range(0, height, size):
        for left in range(0, width, size):
            bottom, right = min(top + size, height), min(left + size, width)
            above, before = max(0, top - REACH), max(0, left - REACH)
            yield (
                (slice(top, bottom), slice(left, right)),
                (slice(above, bottom + REACH), slice(before, right + REACH)),
                (slice(top - above, bottom - above), slice(left - before, right - before)),
            )


@torch.no_grad()
def tiled(x: Tensor, size: int, network: Callable[[Tensor], Tensor]) -> Tensor:
    """What a network gives for (1, C, H, W), computed in tiles."""
    result: Tensor | None = None
    for core, wide, inner in tiles(x.shape[2], x.shape[3], size):
        part = network(x[(..., *wide)])[(..., *inner)]
        if result is None:
            result = part.new_empty(1, part.shape[1], *x.shape[2:])
        result[(..., *core)] = part
    assert result is not None
    return result


def fine_tuned(network: nn.Module, seen: Tensor) -> nn.Module:
    """A copy of the reconstructor, after ``TUNING_STEPS`` towards the kept samples.

    Each step is that of the whole picture: gradients are summed over tiles. seen: as ``known``
    gives it, (1, 7, H, W).
    """
    adapted = copy.deepcopy(network).eval().requires_grad_(True)
    optimiser = torch.optim.Adam(adapted.parameters(), TUNING_RATE)
    height, width = seen.shape[2:]
    with torch.enable_grad():
        for _ in range(TUNING_STEPS):
            optimiser.zero_grad()
            for _, wide, inner in tiles(height, width, TUNED_TILE):
                part = seen[(..., *wide)]
                error = sample_error(torch.sigmoid(adapted(part)), part)
                (error[(..., *inner)].sum() / (3 * height * width)).backward()
            optimiser.step()
    return adapted.requires_grad_(False)


def sample_error(raw: Tensor, seen: Tensor) -> Tensor:
    """Magnitude of a reconstruction's error at kept pixels, 0 elsewhere: (B, 3, H, W)."""
    return (raw * seen[:, 6:] - seen[:, 3:6]).abs()


class NamTraining:
    """How ``NamNetwork`` is trained: both U-Nets together.

    Batches are small here. So their statistics are used for the first half of the time alone; then
    those that were gathered stay, as at decoding. Meta-learning is for the second half, too.
    """

    name = "Nam et al."

    def __init__(self, patch: int = 128) -> None:
        self.network = NamNetwork()
        self.patch = patch
        self._batches = 0

    def loss(
        self, raw: Tensor, picture: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """L1 of the raw, and the losses of superpixels and of meta-learning.

        raw, picture: float32 (B, 3, h, w), 0..1, sizes multiples of 8. progress: 0..1. Figures: the
        parts, and the PSNR in dB.
        """
        network = self.network
        settled = progress >= SETTLED
        if settled:
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        association = network.association(picture, raw)
        superpixels = superpixel_loss(association, picture, raw)
        own = association[:, _OWN : _OWN + 1]
        mask = _passing(at_places(places(own)), own)
        restored = network.reconstruct(picture, mask, raw)
        reconstruction = F.l1_loss(restored, raw)
        loss = reconstruction + SUPERPIXEL_WEIGHT * superpixels
        figures = {
            "reconstruction": float(reconstruction.detach()),
            "superpixels": float(superpixels.detach()),
            "psnr": decibels(float(F.mse_loss(restored.detach(), raw))),
        }
        if settled and network.training:
            if self._batches % META_EVERY == 0:
                loss = loss + META_EVERY * META_WEIGHT * self._meta_loss(raw, picture)
            self._batches += 1
        return loss, figures

    def _meta_loss(self, raw: Tensor, picture: Tensor) -> Tensor:
        """L1 after steps towards the raw at random places, with its first-order gradient.

        Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning", ICML 2017: gradients
        behind the steps are taken for those before them.
        """
        network = self.network.reconstructor
        cells = (len(raw), raw.shape[2] // CELL, raw.shape[3] // CELL)
        mask = at_places(torch.randint(PLACES, cells, device=raw.device))
        seen = known(picture, mask, raw)
        names, before = zip(*network.named_parameters(), strict=True)
        weights = [value.detach().requires_grad_() for value in before]

        def restored() -> Tensor:
            given = dict(zip(names, weights, strict=True))
            return torch.sigmoid(torch.func.functional_call(network, given, (seen,)).float())

        for _ in range(META_STEPS):
            slopes = torch.autograd.grad(sample_error(restored(), seen).mean(), weights)
            weights = [
                (value - META_RATE * slope).detach().requires_grad_()
                for value, slope in zip(weights, slopes, strict=True)
            ]
        after = F.l1_loss(restored(), raw)
        slopes = torch.autograd.grad(after, weights)
        # its value is that of ``after``, its gradient the slopes
        moves = ((v - v.detach()) * s for v, s in zip(before, slopes, strict=True))
        return after.detach() + sum(move.sum() for move in moves)


def _passing(mask: Tensor, own: Tensor) -> Tensor:
    """A mask whose gradients, bounded, go to how much kept pixels belong to their superpixels."""
    kept = own * mask
    if kept.requires_grad:
        kept.register_hook(lambda gradient: gradient.clamp(-1, 1))
    return mask + (kept - kept.detach())


_HEAD = struct.Struct("<IB64s51f")
"""CRC-32 of all that follows and of the picture's size; the step's power of two; how often each
place is kept, in 255ths of the most frequent; the numbers of every colour, see ``_fit``. Behind it
are the range coder's words: places, then samples."""

_WORD = np.dtype("<u4")
_TERMS = 13


def pack(place: np.ndarray, samples: np.ndarray, shown: np.ndarray) -> bytes:
    """The metadata.

    place: integers (h, w), below 64. samples: uint16 (h, w, 3), those of the pixels at the places.
    shown: uint8 (H, W, 3), the picture.

    Samples are rounded to a quarter to a half of the error that the picture leaves: about four
    bits each.
    """
    terms = _terms(shown[_kept(place)])
    error = np.mean([numbers[-2] / (1 - numbers[-1]) for numbers in _fit(terms, samples, 0)])
    power = int(np.clip(np.floor(np.log2(error / 2)), 0, COARSEST))
    steps = (samples.astype(np.int32) + ((1 << power) >> 1)) >> power
    numbers = _fit(terms, steps, power)
    counts = np.bincount(place.flatten(), minlength=PLACES)
    table = np.rint(255 * counts / counts.max()).astype(np.uint8)
    coder = _Writer()
    _code_places(coder, table, place)
    _code_samples(coder, power, numbers, terms, steps)
    words = coder.encoder.get_compressed().astype(_WORD).tobytes()
    head = _HEAD.pack(0, power, table.tobytes(), *(x for colour in numbers for x in colour))
    data = head + words
    return struct.pack("<I", _checksum(data, shown)) + data[4:]


def unpack(data: bytes, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places, int64 (h, w), and rounded samples, uint16 (h, w, 3), of what ``pack`` wrote.

    ValueError for anything else, or a picture of another size.
    """
    if len(data) < _HEAD.size or (len(data) - _HEAD.size) % _WORD.itemsize:
        raise ValueError("the samples of Nam et al. are truncated")
    checksum, power, table, *numbers = _HEAD.unpack_from(data)
    if checksum != _checksum(data, shown):
        raise ValueError("the samples of Nam et al. are damaged, or of a picture of another size")
    coder = _Reader(np.frombuffer(data, _WORD, offset=_HEAD.size).astype(np.uint32))
    cells = [-(-n // CELL) for n in shown.shape[:2]]
    place = _code_places(coder, np.frombuffer(table, np.uint8), None, cells[0] * cells[1])
    place = place.reshape(cells)
    each = iter(numbers)
    colours = [[next(each) for _ in range(_TERMS + n + 3)] for n in range(3)]
    steps = _code_samples(coder, power, colours, _terms(shown[_kept(place)]), None)
    return place, np.minimum(steps << power, WHITE).astype(np.uint16)


def _kept(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the kept pixels of all cells: (h, w) each."""
    rows, columns = np.indices(place.shape) * CELL
    return rows + place // CELL, columns + place % CELL


def _checksum(data: bytes, shown: np.ndarray) -> int:
    return zlib.crc32(data[4:], zlib.crc32(struct.pack("<2I", *shown.shape[:2])))


class _Coder(Protocol):
    def code(self, symbols: np.ndarray | None, model: Any, *parameters: Any) -> np.ndarray:
        """Code symbols, which a reader is not told; which they are.

        parameters: of the model, an array each; how many symbols there are, if it has none.
        """
        ...


class _Writer:
    def __init__(self) -> None:
        self.encoder = constriction.stream.queue.RangeEncoder()

    def code(self, symbols: np.ndarray | None, model: Any, *parameters: Any) -> np.ndarray:
        assert symbols is not None
        arrays = [part for part in parameters if isinstance(part, np.ndarray)]
        self.encoder.encode(np.ascontiguousarray(symbols, np.int32), model, *arrays)
        return symbols


class _Reader:
    def __init__(self, words: np.ndarray) -> None:
        self.decoder = constriction.stream.queue.RangeDecoder(words)

    def code(self, symbols: np.ndarray | None, model: Any, *parameters: Any) -> np.ndarray:
        found: np.ndarray = self.decoder.decode(model, *parameters)
        return found


def _code_places(
    coder: _Coder, table: np.ndarray, place: np.ndarray | None, count: int = 0
) -> np.ndarray:
    """Code places, integers (h, w), or ``count`` that are read, by the frequencies of a table."""
    share = (table + 1e-3) / (table + 1e-3).sum()
    model = constriction.stream.model.Categorical(share, perfect=False)
    return coder.code(None if place is None else place.flatten(), model, count).astype(np.int64)


def _code_samples(
    coder: _Coder,
    power: int,
    numbers: list[list[float]],
    terms: list[np.ndarray],
    samples: np.ndarray | None,
) -> np.ndarray:
    """Code samples in steps of 2**power, integers (h, w, 3), or read them: int32.

    By rows and, in a row, colours, so that a row of a colour can be expected at once from the row
    above and the colours before. numbers: what ``_fit`` gave. terms: of the picture at the samples.
    """
    height, width = terms[0].shape
    model = constriction.stream.model.QuantizedLaplace(0, (WHITE >> power) + 1)
    found = np.zeros((height, width, 3), np.int32)
    above = np.zeros((3, width))  # errors of what the picture lets expect
    missed = np.stack([np.full(width, n[-2] / (1 - n[-1])) for n in numbers])
    for y in range(height):
        for n, colour in enumerate(_COLOURS):
            *weights, slope, least, growth = numbers[n]
            before = (found[y, :, c] * (2.0**power / WHITE) for c in _COLOURS[:n])
            inputs = [*(term[y] for term in terms), *before]
            expected = _sum(weights, inputs)
            mean = expected + slope * _smooth(above[n])
            scale = least + growth * _smooth(missed[n])
            symbols = None if samples is None else samples[y, :, colour]
            found[y, :, colour] = coder.code(symbols, model, mean, scale)
            above[n] = found[y, :, colour] - expected
            missed[n] = np.abs(found[y, :, colour] - mean)
    return found


def _fit(terms: list[np.ndarray], samples: np.ndarray, power: int) -> list[list[float]]:
    """The numbers that ``_code_samples`` expects samples with, for each colour, as float32.

    They are weights of the terms and of the colours known before; how much of the error above is
    expected again; and the mean error that is left, where there was none above and how it grows
    with the one there.
    """
    result = []
    for n, colour in enumerate(_COLOURS):
        inputs = [*terms, *(samples[:, :, c] * (2.0**power / WHITE) for c in _COLOURS[:n])]
        wanted = samples[:, :, colour].astype(np.float64)
        matrix = np.stack([np.broadcast_to(x, wanted.shape).flatten() for x in inputs], 1)
        weights = _single(np.linalg.lstsq(matrix, wanted.flatten(), rcond=1e-6)[0])
        error = wanted - _sum(weights, inputs)
        above = _smooth(error[:-1])
        slope = np.clip((above * error[1:]).sum() / max((above**2).sum(), 1e-9), 0, 1)
        missed = np.abs(np.concatenate((error[:1], error[1:] - slope * above)))
        before = _smooth(missed[:-1])
        spread = before - (before.mean() if before.size else 0)
        growth = np.clip((spread * missed[1:]).sum() / max((spread**2).sum(), 1e-9), 0, 0.9)
        least = max(missed.mean() * (1 - growth), 0.05)
        result.append(_single([*weights, slope, least, growth]))
    return result


def _single(values: Any) -> list[float]:
    """Numbers as float32 holds them."""
    return [float(x) for x in np.asarray(values, np.float32)]


def _terms(seen: np.ndarray) -> list[np.ndarray]:
    """What samples are a weighted sum of, by pixel: uint8 (h, w, 3) to ``_TERMS`` times (h, w)."""
    r, g, b = np.moveaxis(seen / 255.0, 2, 0)
    return [np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, g * b, b * r, r**3, g**3, b**3]


def _sum(weights: list[float], inputs: list[np.ndarray]) -> np.ndarray:
    # not a product of matrices: its rounding may depend on their sizes
    total = np.zeros(inputs[-1].shape)
    for weight, x in zip(weights, inputs, strict=True):
        total = total + weight * x
    return total


def _smooth(row: np.ndarray) -> np.ndarray:
    """Means of each and its neighbours to the left and right: (..., w)."""
    wide = np.concatenate((row[..., :1], row, row[..., -1:]), -1)
    result: np.ndarray = (wide[..., :-2] + 2 * row + wide[..., 2:]) / 4
    return result
