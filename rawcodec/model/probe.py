"""What a sample of a photo takes at a gain: it tells what the photo takes, at little cost.

Of each stripe, tiles of the first plane are coded as if they were a plane of their own, after what
comes ahead of latents was done for all of it. What lies beside a tile there is not what lay there
before, which networks bear, and filters do not: the prediction is that of the whole plane, and its
errors tell, by theory, how much there is in all of the stripe beside the tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from . import fitted
from .config import BLOCK, HYPER_BLOCK
from .fitted import Coefficients
from .latents import PlaneCodec, Runner, TableCoder
from .layer import ahead, quantise
from .seen import PlaneInputs
from .tables import EntropyCoder
from .target import LEAST, block_errors, worth
from .view import GuideRows, PlaneView, RowsFrom, SiteRows, Stripes

_SITES = 500_000
"""Sites of a sample, about, where a stripe has more."""

_MOST = 8
"""The smallest share of a stripe that is looked at is one in so many."""

_TALL, _WIDE = 2 * HYPER_BLOCK, 256
"""Sites of a tile, about: small ones are spread better, large ones have fewer wrong neighbours."""

_LIGHTER = math.log(0.75)
"""The logarithm of the weight that tells what weights change."""

_LITTLE = 1e-9
"""Bits a site that there are where there are no errors."""

_SPREAD = (math.sqrt(5) - 1) / 2
"""Columns go on by so much of their period from one row of tiles to the next."""


class Meter(EntropyCoder, Protocol):
    """Adds up what symbols take."""

    bits: float


class Glimpse(NamedTuple):
    """What a stripe may take at a gain.

    size: bytes, without filters. steepness: how the logarithm of its latents' bytes changes with
    that of the distortion weight.
    """

    size: float
    steepness: float


@dataclass(frozen=True)
class _Sample:
    """Tiles of a stripe's first plane, side by side, and what is known of all of the stripe.

    plane, raw: of the tiles; raw uint16 (H, W), companded. prediction: uint16, in whole
    hyper-blocks, see ``PlaneCodec.prediction``. filter: of the whole plane. ahead: bits of what
    comes before it. errors: of this prediction, float32 (n,), by block. all_errors: of that of all
    planes. times: how many sites there are for each of the tiles'.
    """

    plane: PlaneView
    raw: np.ndarray
    prediction: np.ndarray
    filter: Coefficients | None
    ahead: float
    errors: np.ndarray
    all_errors: np.ndarray
    times: float

    def look(self, run: Runner, meter: Callable[[], Meter]) -> Glimpse:
        """What the stripe takes at a gain. meter: makes one that has heard nothing."""
        codec = PlaneCodec(run, PlaneInputs(self.plane, None), None)
        codec.prediction = self.prediction
        tables, latents = run.model.tables, functools.partial(codec.wanted, self.raw)
        hyper, means = quantise(codec.analyse(self.raw)[0].numpy())
        usual, lighter = meter(), meter()
        coder = TableCoder(tables, usual, latents)
        codec.know(coder.code_hyper(hyper, means, codec.hyper_shape, run.hyper_scale))
        before = usual.bits
        codec.code(coder, again=True)
        codec.code(TableCoder(tables, lighter, latents, math.exp(_LIGHTER)))
        step = float(run.steps[0, 0])
        all_, here = (worth(errors, step) + _LITTLE for errors in (self.all_errors, self.errors))
        change = (lighter.bits + 1) / (usual.bits - before + 1)
        size = self.ahead + usual.bits * self.times * all_ / here
        return Glimpse(max(size / 8, LEAST), math.log(change) / _LIGHTER)


class Probe:
    """Samples of all stripes of a photo.

    filters: of the first plane of each stripe, that ahead of the latents. errors: of blocks, as
    there are ahead of latents, float32 (n,).
    """

    def __init__(
        self,
        run: Runner,
        stripes: Stripes,
        raws: Sequence[SiteRows],
        meter: Callable[[], Meter],
    ) -> None:
        """run: at a gain for which large areas and filters are fitted. raws: of each plane,
        companded. meter: makes one that has heard nothing.
        """
        self._meter = meter
        self._samples = [
            _sample(run, planes, [RowsFrom(raw, rows) for raw in raws], meter)
            for rows, planes in stripes
        ]
        self.filters = [sample.filter for sample in self._samples]
        self.errors = np.concatenate([sample.all_errors for sample in self._samples])

    def look(self, run: Runner) -> list[Glimpse]:
        """What each stripe takes at a gain."""
        return [sample.look(run, self._meter) for sample in self._samples]


def _sample(
    run: Runner, planes: Sequence[PlaneView], raws: Sequence[SiteRows], meter: Callable[[], Meter]
) -> _Sample:
    """Of one stripe. raws: its rows of each plane."""
    whole, of_filter = meter(), meter()
    seen, filter_ = ahead(run, whole, planes[0], None, raws[0])
    plane = seen.plane
    fitted.code(of_filter, run.model.tables, plane.colours, filter_, read=False)
    prediction = PlaneCodec(run, seen, filter_).prediction
    tiles = _Tiles(plane.tone.shape, plane.colours)
    tone, raw, made = (tiles.of(sites) for sites in (plane.tone, raws[0], prediction))
    reached = None if plane.reached is None else tiles.of(plane.reached)
    ours = PlaneView(tiles.of_guide(plane.guide), tone, plane.colours, reached)
    missing = [(0, -n % HYPER_BLOCK) for n in made.shape]

    def errors(tone: np.ndarray, raw: SiteRows) -> np.ndarray:
        return block_errors(tone, raw, run.model.forward, _TALL // HYPER_BLOCK)

    height, width = plane.tone.shape
    others = [errors(each.tone, raw) for each, raw in zip(planes[1:], raws[1:], strict=True)]
    return _Sample(
        ours,
        raw,
        np.pad(made, missing),
        filter_,
        whole.bits - of_filter.bits,
        errors(made, raw),
        np.concatenate([errors(prediction[:height, :width], raws[0]), *others]),
        len(planes) * plane.tone.size / tone.size,
    )


class _Tiles:
    """Where a plane is looked at: rows and columns of each row of tiles, which are alike wide.

    From edge to edge, for edges may be unlike all else. Colours lie in a sample as in the plane.
    """

    def __init__(self, shape: tuple[int, ...], colours: np.ndarray) -> None:
        self._height, width = shape
        self._tall = math.lcm(_TALL, colours.shape[0])
        unit = math.lcm(BLOCK, colours.shape[1])
        self._one_in = min(max(math.prod(shape) // _SITES, 1), _MOST)
        count = self._one_in * max(round(width / (self._one_in * _WIDE)), 1)
        wide = min(-(-width // (count * unit)) * unit, width)
        starts = np.linspace(0, width - wide, count).astype(int) // unit * unit
        self._columns = starts[:, None] + np.arange(wide)

    def of(self, sites: SiteRows) -> np.ndarray:
        """Those of a plane (H, W)."""
        return np.concatenate([sites[rows][:, columns] for rows, columns in self])

    def of_guide(self, guide: GuideRows) -> np.ndarray:
        """Those of the JPEG at the sites, int16 (3, h, w)."""
        parts = [
            guide.take(np.arange(rows.start, rows.stop), 1)[..., columns] for rows, columns in self
        ]
        return np.concatenate(parts, 1)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for number, top in enumerate(range(0, self._height, self._tall)):
            first = int(number * _SPREAD % 1 * self._one_in)
            columns = self._columns[first :: self._one_in].ravel()
            yield slice(top, min(top + self._tall, self._height)), columns
