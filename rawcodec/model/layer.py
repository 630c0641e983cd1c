"""The learned layer of a photo, or a stripe of it: its planes, in order, and its head.

One walk for the encoder and the decoder; they differ in the entropy coder, and
in whether the raw is there to choose from.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from . import fitted, fitting, grid
from .allocation import Allocation, MappedCoder
from .bands import over_bands
from .config import FINE, HYPER, HYPER_DEAD_ZONE, HYPER_LIMIT, MEAN_UNIT, RATES
from .fitted import Coefficients, Sight
from .fitting import Filters
from .latents import PlaneCodec, Runner, TableCoder, Wanted
from .seen import PlaneInputs
from .store import DOMAIN
from .tables import EntropyCoder, Tables
from .view import PlaneView, SiteRows

_ROWS = 64
"""Rows of sites that are looked up at a time."""

_GAIN = struct.Struct("<BB")

Choose = Callable[[Callable[[float], Tensor]], Tensor]
"""Given what codes latents at a distortion weight, the latents that an encoder settles for."""


@dataclass(frozen=True)
class LayerHead:
    """What stands in front of the entropy-coded data.

    rate, fine: 0..32 and 0..15, which gains the latents were coded with. means: int8 (planes, 8),
    means of the channels of v in eighths; of all planes of the first stripe, then the next one's.
    """

    rate: int
    means: np.ndarray
    fine: int = 0

    def pack(self) -> bytes:
        return _GAIN.pack(self.rate, self.fine) + self.means.astype(np.int8).tobytes()

    @classmethod
    def unpack(cls, payload: bytes, planes: int) -> tuple[LayerHead, bytes]:
        """The head, and the entropy-coded data behind it; ValueError if it is none."""
        size = _GAIN.size + planes * HYPER
        if len(payload) < size:
            raise ValueError(f"the latents have {len(payload)} bytes, fewer than their head")
        rate, fine = _GAIN.unpack_from(payload)
        if rate >= RATES:
            raise ValueError(f"the rate {rate} is not below {RATES}")
        if fine >= FINE:
            raise ValueError(f"the fine gain {fine} is not below {FINE}")
        means = np.frombuffer(payload, np.int8, planes * HYPER, _GAIN.size)
        return cls(rate, means.reshape(planes, HYPER), fine), payload[size:]


def code_planes(
    run: Runner,
    coder: EntropyCoder,
    planes: Sequence[PlaneView],
    *,
    raw: Sequence[SiteRows] | None = None,
    filters: Filters | None = None,
    choose: Choose | None = None,
    means: np.ndarray | None = None,
    allocation: Allocation | None = None,
    overwrite: bool = False,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Code all planes of a stripe, in order: the one walk of encoder and decoder.

    raw: to encode, each plane, companded. filters: to encode, fitted if None.
    choose: to encode, the latents of the last plane; those of the usual weight if None. Not with an
    allocation, which would be told of all that it chooses from.
    means: to decode, those of a :class:`LayerHead`. allocation: told where the bits lie, if given.
    overwrite: the tone layer's values are not needed any more, and corrected where they are.

    Returns what the layer makes of each plane, uint16 (H, W), companded, and
    the means. Raises ValueError for data that no encoder wrote.
    """
    decoded: list[np.ndarray] = []
    used: list[np.ndarray] = []
    earlier: np.ndarray | None = None
    filters = filters or Filters()
    if allocation is not None:
        assert choose is None
        coder = allocation.listen(coder)
        allocation.enter_stripe()
    for number, plane in enumerate(planes):
        ours = None if raw is None else raw[number]
        seen, filter_ = ahead(run, coder, plane, earlier, ours, filters, overwrite)
        codec = PlaneCodec(run, seen, filter_)
        latents = hyper = None
        if ours is not None:
            latents = functools.partial(codec.wanted, ours)
            hyper, middle = quantise(codec.analyse(ours)[0].numpy())
            used.append(middle)
        else:
            assert means is not None
            used.append(means[number])
        table_coder = (
            TableCoder(run.model.tables, coder, latents)
            if allocation is None
            else MappedCoder(allocation, run.model.tables, coder, latents)
        )
        codec.know(table_coder.code_hyper(hyper, used[-1], codec.hyper_shape, run.hyper_scale))
        if choose is None or number < len(planes) - 1:
            chosen = codec.code(table_coder)
        else:
            chosen = choose(functools.partial(_weighed, run, coder, codec, latents))
        decoded.append(after(run, coder, codec, seen, chosen, ours, filters))
        if number < len(planes) - 1:
            earlier = decoded[-1].astype(np.int32) - seen.plane.tone
    return decoded, np.array(used)


def _weighed(
    run: Runner, coder: EntropyCoder, codec: PlaneCodec, latents: Wanted | None, weight: float
) -> Tensor:
    """Latents as they are chosen at a distortion weight, the first or another one."""
    return codec.code(TableCoder(run.model.tables, coder, latents, weight), again=True)


def ahead(
    run: Runner,
    coder: EntropyCoder,
    plane: PlaneView,
    earlier: np.ndarray | None,
    raw: SiteRows | None,
    filters: Filters | None = None,
    overwrite: bool = False,
) -> tuple[PlaneInputs, Coefficients | None]:
    """What comes before any network: the plane, corrected over large areas, and its filter.

    earlier: see :class:`.seen.PlaneInputs`. raw: to encode, companded. filters,
    overwrite: see ``code_planes``. ValueError for data that no encoder wrote.
    """
    seen, filter_ = PlaneInputs(_levelled(run, coder, plane, raw, overwrite), earlier), None
    if raw is not None:
        given = Sight(seen), seen.plane.tone, raw, *_fitted_with(run)
        filter_ = (filters or Filters())(lambda: fitting.fit_ahead(*given))
    return seen, fitted.code(coder, run.model.tables, plane.colours, filter_, read=raw is None)


def after(
    run: Runner,
    coder: EntropyCoder,
    codec: PlaneCodec,
    seen: PlaneInputs,
    latents: Tensor,
    raw: SiteRows | None,
    filters: Filters,
) -> np.ndarray:
    """What comes after the latents, int16 (1, 4, h, w): the plane, uint16 (H, W), and its filter.

    raw, filters: see ``ahead``.
    """
    decoded, sight, filter_ = codec.decoded(latents), Sight(seen, latents), None
    if raw is not None:
        given = sight, decoded, raw, *_fitted_with(run)
        filter_ = filters(lambda: fitting.fit_after(*given))
    colours = seen.plane.colours
    filter_ = fitted.code(coder, run.model.tables, colours, filter_, read=raw is None)
    return codec.corrected(decoded, sight, filter_)


def _fitted_with(run: Runner) -> tuple[np.ndarray, int, Tables]:
    """What a filter is fitted with: the residual's domain, its step, and tables."""
    return run.model.forward, int(run.steps[0, 0]), run.model.tables


def _levelled(
    run: Runner,
    coder: EntropyCoder,
    plane: PlaneView,
    raw: SiteRows | None,
    overwrite: bool,
) -> PlaneView:
    """The plane, the tone layer's values corrected over large areas: see :mod:`.grid`."""
    model, (height, width) = run.model, plane.tone.shape
    fit = None
    if raw is not None:
        real = model.forward.astype(np.float32)

        def residual(top: int, bottom: int) -> np.ndarray:
            part = slice(top, bottom)
            found: np.ndarray = real.take(raw[part])
            found -= real.take(plane.tone[part])
            return found

        fit = grid.GridFit(residual, (height, width), plane.colours, int(run.steps[0, 0]))
    size = -(-height // 2), -(-width // 2)
    nodes = grid.code(coder, model.tables, int(run.steps[0, 0]), size, fit)
    if not nodes.any():
        return plane
    forward = model.forward.astype(np.int32)
    tone = plane.tone if overwrite else np.empty(plane.tone.shape, np.uint16)

    def correct(top: int, bottom: int) -> None:
        sites = forward.take(plane.tone[top:bottom])
        grid.add(sites, nodes, plane.colours, top)
        tone[top:bottom] = model.back.take(np.clip(sites, 0, DOMAIN - 1, out=sites))

    over_bands(0, height, _ROWS, correct)
    return replace(plane, tone=tone)


def quantise(hyper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers for hyper-latents, float32 (8, h, w), and their means in eighths, int8 (8,).

    What lies near its channel's mean becomes the mean, which costs next to nothing: without
    this dead zone the hyper-latents take most of the bits at low rates.
    """
    means = np.clip(hyper.mean((1, 2)), -HYPER_LIMIT, HYPER_LIMIT)
    centre = np.rint(means)[:, None, None]
    away = hyper - centre
    whole = centre + np.sign(away) * np.floor(np.maximum(np.abs(away) + 0.5 - HYPER_DEAD_ZONE, 0))
    whole = np.clip(whole, -HYPER_LIMIT, HYPER_LIMIT).astype(np.int32)
    return whole, np.rint(whole.mean((1, 2)) * MEAN_UNIT).astype(np.int8)
