"""Samples of a photo: where it is looked at, and what they tell of all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_latents import BAYER, XTRANS, Plane, fast, linear, plane, shipped_path

from rawcodec.model import fitted, probe
from rawcodec.model.fitting import Filters
from rawcodec.model.latents import Runner
from rawcodec.model.layer import code_planes
from rawcodec.model.store import load_model
from rawcodec.model.view import PlaneView, RowsFrom, SiteRows, Stripes
from rawcodec.stream.entropy import RateMeter


@pytest.fixture(scope="module")
def coarse() -> Runner:
    return fast(load_model(shipped_path()), 12)


def stripes_of(planes: list[Plane], height: int) -> Stripes:
    """Planes, divided."""

    def make(rows: slice) -> list[PlaneView]:
        return [
            replace(
                each.view,
                guide=np.asarray(each.view.guide)[:, rows],
                tone=each.view.tone[rows].copy(),
                colours=np.roll(each.view.colours, -rows.start, 0),
                reached=None if each.view.reached is None else each.view.reached[rows],
            )
            for each in planes
        ]

    whole = planes[0].raw.shape[0]
    rows = [slice(top, min(top + height, whole)) for top in range(0, whole, height)]
    return Stripes(rows, [each.view.colours for each in planes], make)


def taken(run: Runner, stripes: Stripes, raws: list[np.ndarray]) -> list[float]:
    """Bytes of each stripe without its filters, as it is coded."""
    sizes = []
    for rows, planes in stripes:
        meter, of_filters, filters = RateMeter(), RateMeter(), Filters()
        parts: list[SiteRows] = [RowsFrom(raw, rows) for raw in raws]
        code_planes(run, meter, planes, raw=parts, filters=filters)
        for number, filter_ in filters.made.items():
            colours = planes[number // 2].colours
            fitted.code(of_filters, run.model.tables, colours, filter_, read=False)
        sizes.append((meter.bits - of_filters.bits) / 8)
    return sizes


def probed(run: Runner, stripes: Stripes, raws: list[np.ndarray]) -> list[float]:
    return [each.size for each in probe.Probe(run, stripes, raws, RateMeter).look(run)]


def uneven(height: int, width: int) -> Plane:
    """With an eighth that the tone layer is far off in."""
    made = plane(height, width)
    off = np.zeros((height, width))
    off[: height // 4, width // 2 :] = np.random.default_rng(3).normal(
        0, 3000, (height // 4, width - width // 2)
    )
    return Plane(made.view, np.clip(made.raw + off, 0, 46_340).astype(np.uint16))


def test_a_small_photo_is_looked_at_as_a_whole(coarse: Runner) -> None:
    made = plane(150, 203)
    stripes = stripes_of([made], 80)
    found = probed(coarse, stripes, [made.raw])
    assert found == pytest.approx(taken(coarse, stripes, [made.raw]), rel=0.01)


@pytest.mark.parametrize("make", [plane, uneven])
def test_of_a_larger_one_tiles_tell_the_rest(
    coarse: Runner, make: Callable[[int, int], Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SITES", 40_000)
    monkeypatch.setattr(probe, "_WIDE", 64)
    made = make(400, 450)
    stripes = stripes_of([made], 208)
    found = probed(coarse, stripes, [made.raw])
    assert found == pytest.approx(taken(coarse, stripes, [made.raw]), rel=0.15)


def test_the_first_plane_tells_of_the_others(coarse: Runner) -> None:
    """These have planes before them, and take less."""
    made = linear(120, 160)
    stripes, raws = stripes_of(made, 120), [each.raw for each in made]
    (found,), (real,) = probed(coarse, stripes, raws), taken(coarse, stripes, raws)
    assert 0.6 < found / real < 1.7


def test_filters_are_those_of_the_whole_plane(coarse: Runner) -> None:
    made = plane(150, 203)
    stripes, filters = stripes_of([made], 150), Filters()
    for _, planes in stripes:
        code_planes(coarse, RateMeter(), planes, raw=[made.raw], filters=filters)
    (found,) = probe.Probe(coarse, stripes, [made.raw], RateMeter).filters
    assert repr(found) == repr(filters.made[0])


@pytest.mark.parametrize("colours", [BAYER, XTRANS, np.zeros((1, 1), np.uint8)])
@pytest.mark.parametrize("shape", [(400, 450), (600, 1000), (1000, 37), (40, 5)])
def test_tiles_keep_colours_and_reach_all_edges(
    colours: np.ndarray, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SITES", shape[0] * shape[1] // 4)
    rows, columns = (np.arange(n) for n in shape)
    tiles = probe._Tiles(shape, colours)
    pattern = colours[rows[:, None] % len(colours), columns % colours.shape[1]]
    found = tiles.of(pattern)
    rows_there, columns_there = (np.arange(n) for n in found.shape)
    again = colours[rows_there[:, None] % len(colours), columns_there % colours.shape[1]]
    assert (found == again).all()
    where = tiles.of(np.broadcast_to(columns, shape))
    assert where.min() == 0 and where.max() >= shape[1] - 12
    assert len(np.unique(tiles.of(np.broadcast_to(rows[:, None], shape)))) == shape[0]
    guide = np.broadcast_to(columns, (3, *shape)).astype(np.int16)
    assert (tiles.of_guide(guide) == where).all()
