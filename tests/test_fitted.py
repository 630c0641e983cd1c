"""The filters that are fitted to a photo, below the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_grid import hostile, noise, rms
from test_latents import (
    BAYER,
    GREEN,
    PATTERNS,
    Coded,
    Plane,
    check_decodes,
    encoded,
    error,
    fast,
    linear,
    plane,
    shipped_path,
)

from rawcodec.errors import CorruptSidecarError
from rawcodec.model import fitted, fitting, latents
from rawcodec.model.config import DISTORTION_WEIGHT, RATES, SCALES
from rawcodec.model.fitted import Coefficients, Sight
from rawcodec.model.kernels import KERNELS
from rawcodec.model.latents import PlaneCodec, Runner
from rawcodec.model.seen import PlaneInputs
from rawcodec.model.store import COMPANDED, Model, load_model
from rawcodec.model.tables import SILENT, TOTAL, Tables
from rawcodec.model.view import PlaneView
from rawcodec.stream.entropy import Decoder, Encoder

COLOURS = {name: PATTERNS[name] for name in ("RGGB", "X-Trans", "quad", "mono")}
COLOURS |= {"red": GREEN * 0, "stripes": np.array([[0], [1], [2]], np.uint8)}
SIZES = [(1, 1), (1, 40), (37, 1), (2, 2), (15, 90), (16, 16), (17, 33), (31, 16), (66, 50)]

SINGLE = np.array([255] * 257 + [1])
OCTAVE = np.array([9362] * 7 + [2])
SCALE_TABLE = np.array([TOTAL // 2, *[520] * (SCALES - 2), TOTAL // 2 - 520 * (SCALES - 2)])

FEW = 8
"""Bytes of a stream that says that there is no filter: the closing mark and words among them."""


pytestmark = pytest.mark.usefixtures("no_overflow")


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(shipped_path())


@pytest.fixture(scope="module")
def tables(shipped: Model) -> Tables:
    return shipped.tables


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    make_eager(monkeypatch)


def make_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters are worth their bits in pictures of any size, and hold for all of them."""
    rounded = fitting._rounded

    def of_all(parts, *more):  # type: ignore[no-untyped-def]
        return rounded([(replace(sums, count=0), where) for sums, where in parts], *more)

    monkeypatch.setattr(fitting, "_rounded", of_all)
    monkeypatch.setattr(fitting, "_BITS", 1e6)
    monkeypatch.setattr(fitting, "_WORTH", 1e9)  # in which the bits above do not count


def tiled(colours: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The colour of every site."""
    tiles = [-(-n // m) for n, m in zip(size, colours.shape, strict=True)]
    return np.tile(colours, tiles)[: size[0], : size[1]]


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of three colours with detail of all sizes, mostly grey: (3, H, W), 0..1."""
    rng = np.random.default_rng([seed, height, width])
    grey, tint = rng.normal(size=(1, height, width)), rng.normal(size=(3, height, width))
    total = np.zeros((3, height, width))
    for radius, weight in ((1, 1.0), (3, 1.6), (9, 3.0)):
        total += weight * radius * (blurred(grey, radius) + 0.4 * blurred(tint, radius))
    found: np.ndarray = np.clip(0.5 + 0.12 * total, 0.05, 0.95)
    return found


def blurred(picture: np.ndarray, radius: int) -> np.ndarray:
    """Means of 2 r + 1 sites in both directions, twice."""
    for axis in (-2, -1, -2, -1):
        size = picture.shape[axis]
        at = np.arange(size)[:, None] + np.arange(-radius, radius + 1)
        near = np.abs((at + size) % (2 * size) - size)
        near = np.minimum(near, size - 1)
        picture = np.moveaxis(np.moveaxis(picture, axis, -1)[..., near].mean(-1), -1, axis)
    return picture


MIXING = np.array([[1.3, -0.2, -0.1], [0.15, 0.8, 0.05], [-0.05, -0.35, 1.4]])

RENDERINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sharpened": lambda light: light + 0.8 * (light - blurred(light, 1)),
    "blurred": lambda light: 0.4 * light + 0.6 * blurred(light, 1),
    "mixed": lambda light: np.tensordot(MIXING, light, 1),
    "darkened": lambda light: 0.95 * light,
}


def pair(
    light: np.ndarray, rendered: np.ndarray, colours: np.ndarray = BAYER, spread: float = 0
) -> Plane:
    """A raw with noise, its JPEG, and a prediction that is the JPEG, site by site."""
    size = light.shape[1], light.shape[2]
    guide = np.clip(np.rint(4080 * rendered), 0, 4080).astype(np.int16)
    here = tiled(colours, size)[None]
    tone = np.take_along_axis(guide, here, 0)[0] * (46340 / 4080)
    raw = np.take_along_axis(light, here, 0)[0] * 46340 + noise(size, spread)
    return Plane(
        PlaneView(guide, np.rint(tone).astype(np.uint16), colours, None),
        np.clip(np.rint(raw), 0, COMPANDED - 1).astype(np.uint16),
    )


def scene(
    kind: str,
    height: int = 240,
    width: int = 320,
    colours: np.ndarray = BAYER,
    spread: float = 100,
) -> Plane:
    light = texture(height, width)
    return pair(light, RENDERINGS[kind](light), colours, spread)


@dataclass
class Fitted:
    """A filter that was coded: the bytes, and what it makes of the prediction."""

    data: bytes
    filter_: Coefficients | None
    prediction: np.ndarray


def coded(tables: Tables, colours: np.ndarray, given: Coefficients | None) -> bytes:
    encoder = Encoder()
    fitted.code(encoder, tables, colours, given, read=False)
    return encoder.finish()


def predicted(
    run: Runner, plane_: Plane, filter_: Coefficients | None, earlier: np.ndarray | None = None
) -> np.ndarray:
    codec = PlaneCodec(run, PlaneInputs(plane_.view, earlier), filter_)
    height, width = plane_.raw.shape
    return codec.prediction[:height, :width]


def filtered(
    run: Runner, plane_: Plane, earlier: np.ndarray | None = None, step: int | None = None
) -> Fitted:
    """Fit a filter, code it, read it back, compare, and run it."""
    model, colours = run.model, plane_.view.colours
    sight = Sight(PlaneInputs(plane_.view, earlier))
    step = step or int(model.steps[run.rate][0])
    filter_ = fitting.fit_ahead(
        sight, plane_.view.tone, plane_.raw, model.forward, step, model.tables
    )
    data = coded(model.tables, colours, filter_)
    check_same(read(model.tables, colours, data), filter_)
    return Fitted(data, filter_, predicted(run, plane_, filter_, earlier))


def read(tables: Tables, colours: np.ndarray, data: bytes) -> Coefficients | None:
    decoder = Decoder(data)
    found = fitted.code(decoder, tables, colours, None, read=True)
    decoder.finish()
    return found


def check_same(found: Coefficients | None, given: Coefficients | None) -> None:
    if found is None or given is None:
        assert found is given
        return
    assert (found.shape, found.thresholds, found.shift) == (
        given.shape,
        given.thresholds,
        given.shift,
    )
    assert np.array_equal(found.scales, given.scales)
    assert len(found.numbers) == len(given.numbers) == fitted.CHANNELS + 1
    for ours, theirs in zip(found.numbers, given.numbers, strict=True):
        assert np.array_equal(ours, theirs)
    # what is silent has none
    spoken = [bool(part.any()) for part in given.numbers]
    assert np.array_equal(found.octaves[spoken], given.octaves[spoken])
    ours, theirs = fitted.weights(found), fitted.weights(given)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    assert torch.equal(ours.shift, theirs.shift)


def any_filter(
    tables: Tables,
    colours: np.ndarray,
    shape: tuple[int, int],
    seed: int,
    *,
    shift: int | None = None,
    octave: int | None = None,
    extreme: bool = False,
) -> Coefficients:
    """A filter that no photo asks for.

    octave: of all channels. extreme: all numbers are as large as they may be, of either sign.
    """
    rng = np.random.default_rng([seed, *shape])
    count = shape[0] * shape[1] * len(fitted.outputs(colours))
    channels = fitted.CHANNELS + 1
    silent, spoken = (np.flatnonzero(part) for part in (tables.sizes == SILENT, tables.sizes < 8))
    scales = rng.choice(spoken[spoken > 0], channels)
    octaves = rng.integers(0, fitted.OCTAVES, channels)
    if octave is not None:
        octaves[:] = octave
    if not extreme:
        scales[rng.random(channels) < 0.15] = silent[silent > 0][0]
        octaves[np.isin(scales, silent)] = 0
    numbers = []
    for channel in range(channels):
        size, most = (9 * count, 127) if channel < fitted.CHANNELS else (count, 1 << 22)
        most >>= int(octaves[channel])
        values = rng.integers(-most, most + 1, size)
        if extreme:
            values = most * rng.choice([-1, 1], size)
        elif channel < fitted.CHANNELS:
            values[rng.random(size) < 0.6] //= 16
        else:
            values //= rng.choice([1, 64, 4096], size)
        numbers.append((values * (scales[channel] not in silent)).astype(np.int32))
    return Coefficients(
        shape,
        tuple(rng.integers(0, 1 << rng.integers(6, 16), sum(shape) - 2).tolist()),
        int(rng.integers(0, fitted.SHIFT_LIMIT + 1)) if shift is None else shift,
        octaves,
        scales,
        numbers,
    )


def any_filters(tables: Tables, colours: np.ndarray, seed: int) -> Iterator[Coefficients]:
    """Of all shapes, with shifts and octaves at their ends too."""
    for shape in fitted.shapes(colours):
        yield any_filter(tables, colours, shape, seed, shift=18)
        yield any_filter(tables, colours, shape, seed, shift=13)
        yield any_filter(tables, colours, shape, seed, shift=0, octave=6)
        yield any_filter(tables, colours, shape, seed, shift=10, octave=0, extreme=True)
        yield any_filter(tables, colours, shape, seed, shift=20, extreme=True)


# What it is for


@pytest.mark.parametrize("colours", ["RGGB", "X-Trans", "quad", "mono"])
@pytest.mark.parametrize(
    ("kind", "left"), [("sharpened", 0.3), ("blurred", 0.4), ("mixed", 0.3), ("darkened", 0.18)]
)
def test_what_a_linear_rendering_left_is_gone(
    shipped: Model, kind: str, left: float, colours: str
) -> None:
    """left: of the error, for few bits."""
    given = scene(kind, 128, 192, COLOURS[colours])
    found = filtered(fast(shipped, 24), given)
    assert still(given, found.prediction) < left * still(given, given.view.tone)
    assert 8 * len(found.data) < 0.16 * given.raw.size


def still(given: Plane, found: np.ndarray) -> float:
    """The error of a prediction."""
    return rms(given.raw - found.astype(float))


@pytest.mark.parametrize(
    ("rate", "share", "most"), [(12, 0.6, 1.02), (22, 0.81, 1.06), (RATES - 1, 0.88, 1.03)]
)
def test_a_rendering_costs_fewer_latents(
    shipped: Model, rate: int, share: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same picture at fewer bytes than without a filter.

    share: of the bytes. most: of the error; it varies by some hundredths from rate to rate.
    """
    run, planes = fast(shipped, rate), [scene("mixed", 96, 160)]
    monkeypatch.setattr(fitting, "fit_after", lambda *_: None)  # it makes up for the other one
    with_it = encoded(run, planes)
    check_decodes(run, planes, with_it)
    monkeypatch.setattr(fitting, "fit_ahead", lambda *_: None)
    without = encoded(run, planes)
    assert len(with_it.data) < share * len(without.data)
    assert error(planes, with_it.decoded) < most * error(planes, without.decoded)


def test_what_a_part_of_the_samples_shares_by_chance_is_no_gain(
    shipped: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few of them are fitted well by any filter, which the others are not."""
    monkeypatch.setattr(fitting, "SAMPLES", 1000)
    for colours in ("RGGB", "mono"):
        found = filtered(fast(shipped), plane(160, 320, COLOURS[colours], noise=300), step=50)
        assert found.filter_ is None


def test_what_the_plane_before_lacked_is_seen(shipped: Model) -> None:
    """Where a plane is wrong as the one before was, and the JPEG does not tell."""
    run, size = fast(shipped, 24), (160, 240)
    wrong = 1500 * (texture(*size, seed=3)[1] - 0.5)
    given = plane(*size, GREEN * 0, noise=40)
    raw = np.clip(np.rint(given.view.tone + wrong), 0, COMPANDED - 1).astype(np.uint16)
    given = Plane(given.view, raw)
    alone = filtered(run, given)
    behind = filtered(run, given, np.rint(1.4 * wrong).astype(np.int32))
    assert still(given, alone.prediction) > 0.7 * still(given, given.view.tone)
    assert still(given, behind.prediction) < 0.2 * still(given, given.view.tone)


@pytest.mark.parametrize(("colours", "step"), [("RGGB", 50), ("mono", 800), ("X-Trans", 300)])
def test_noise_alone_is_left_to_the_latents(shipped: Model, colours: str, step: int) -> None:
    """Only that there is no filter is coded, though every fit makes it a little smaller."""
    for size, spread in (((16, 16), 100), ((61, 40), 1000), ((160, 200), 0), ((160, 240), 150)):
        given = plane(*size, COLOURS[colours], noise=spread)
        found = filtered(fast(shipped), given, step=step)
        assert found.filter_ is None
        assert len(found.data) <= FEW
        assert np.array_equal(found.prediction, given.view.tone)


@pytest.mark.parametrize("samples", [250_000, 3000])
def test_a_filter_makes_no_picture_worse(
    shipped: Model, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that was fitted to a part of it; noise hides what there is to gain."""
    monkeypatch.setattr(fitting, "SAMPLES", samples)
    for kind in ("sharpened", "mixed"):
        for spread in (100, 1500):
            given = scene(kind, 128, 160, spread=spread)
            found = filtered(fast(shipped, 20), given)
            assert still(given, found.prediction) <= still(given, given.view.tone)
            assert 8 * len(found.data) < 0.2 * given.raw.size


def test_a_part_of_the_samples_tells_nearly_as_much(
    shipped: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, run = scene("sharpened", colours=BAYER), fast(shipped, 24)
    errors = []
    for samples in (250_000, 4000):
        monkeypatch.setattr(fitting, "SAMPLES", samples)
        errors.append(still(given, filtered(run, given).prediction))
    assert errors[1] < 1.3 * errors[0]


# After the latents


def seen_latents(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Latents of a picture's quads, in half steps, a few of them large: int16 (1, 4, h, w)."""
    rng = np.random.default_rng([seed, *size])
    values = np.rint(rng.laplace(0, 3, (1, 4, *size)))
    values[rng.random(values.shape) < 0.01] *= 100
    return torch.from_numpy(values.clip(-32768, 32767).astype(np.int16))


def quads_of(seen: PlaneInputs) -> tuple[int, int]:
    return 2 * seen.rows, 2 * seen.columns


def finished(
    run: Runner, given: Plane, filter_: Coefficients | None, halves: torch.Tensor | None = None
) -> np.ndarray:
    """What a filter makes of the picture's tone values, as if latents had made them."""
    seen = PlaneInputs(given.view, None)
    halves = seen_latents(quads_of(seen)) if halves is None else halves
    codec = PlaneCodec(run, seen, None)
    return codec.corrected(given.view.tone, Sight(seen, halves), filter_)


@pytest.mark.parametrize("colours", ["RGGB", "mono", "stripes"])
def test_latents_are_seen_in_half_steps(colours: str) -> None:
    """Up to 63 of them, and as none beyond the picture; other inputs stay as they are."""
    seen = PlaneInputs(plane(37, 50, COLOURS[colours]).view, None)
    halves = seen_latents(quads_of(seen))
    found, without = Sight(seen, halves)(-3, 20).inputs, Sight(seen)(-3, 20).inputs
    assert found.shape[1] == Sight(seen, halves).channels
    assert torch.equal(found[:, :23], without[:, :23])
    wanted = torch.full((4, 23, found.shape[3]), 64)
    wanted[:, 3:, 8:-8] = 64 + halves[0, :, :20].long().clamp(-63, 63)
    assert torch.equal(found[0, 23:27].long(), wanted)
    beyond = Sight(seen, halves)(quads_of(seen)[0] - 1, quads_of(seen)[0] + 2).inputs
    assert (beyond[0, 23:27, 1:] == 64).all() and (beyond[0, 23:27, 0] != 64).any()
    if seen.constant is None:  # the plane before is seen behind them
        assert torch.equal(found[:, 27:], without[:, 27:])
        assert (without[:, 23:27] == 64).all()


@pytest.mark.parametrize("colours", ["RGGB", "X-Trans", "mono"])
def test_what_the_latents_tell_is_corrected(shipped: Model, colours: str) -> None:
    """A raw that is off by a part of the latents around; the JPEG does not tell."""
    light = texture(160, 240)
    run, given = fast(shipped, 20), pair(light, light, COLOURS[colours])
    seen = PlaneInputs(given.view, None)
    halves = torch.from_numpy(
        np.rint(np.random.default_rng(1).normal(0, 8, (1, 4, *quads_of(seen)))).astype(np.int16)
    )
    told = 30 * halves[0, 0] - 12 * halves[0, 3].roll(1, 1)
    wrong = told.repeat_interleave(2, 0).repeat_interleave(2, 1)[:160, :240].numpy()
    raw = np.clip(given.view.tone + wrong, 0, COMPANDED - 1).astype(np.uint16)
    found = []
    step = int(run.steps[0, 0])
    for known in (halves, None):
        sight, arrays = Sight(seen, known), (given.view.tone, raw, shipped.forward)
        filter_ = fitting.fit_after(sight, *arrays, step, shipped.tables)
        codec = PlaneCodec(run, seen, None)
        found.append(rms(raw - codec.corrected(given.view.tone, sight, filter_).astype(float)))
    before = rms(wrong.astype(float))
    assert found[0] < 0.2 * before
    assert found[1] > 0.9 * before


def cost(run: Runner, given: Plane, found: Coded) -> float:
    """Bits, and what the error left weighs beside them."""
    forward = run.model.forward.astype(float)
    steps = (forward[given.raw] - forward[found.decoded[0]]) / int(run.steps[0, 0])
    return 8 * len(found.data) + DISTORTION_WEIGHT * float(np.square(steps).sum())


@pytest.mark.parametrize(("rate", "most"), [(8, 0.8), (16, 1.0), (26, 1.0)])
def test_what_latents_left_is_corrected_where_it_pays(
    shipped: Model, rate: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the latents of a rendering that differs from class to class, no filter before them.

    most: of the cost.
    """
    light = split_texture(240, 320)
    run, given = fast(shipped, rate), pair(light, by_brightness(light), spread=60)
    monkeypatch.setattr(fitting, "fit_ahead", lambda *_: None)
    with_it = encoded(run, [given])
    check_decodes(run, [given], with_it)
    monkeypatch.setattr(fitting, "fit_after", lambda *_: None)
    without = encoded(run, [given])
    assert cost(run, given, with_it) <= most * cost(run, given, without)


@pytest.mark.parametrize("colours", ["RGGB", "X-Trans"])
def test_noise_that_latents_left_is_not_filtered(shipped: Model, colours: str) -> None:
    """Only that there is no filter is coded."""
    light = texture(160, 240, seed=4)  # of other numbers than the noise
    given = pair(light, light, COLOURS[colours], 40)
    seen = PlaneInputs(given.view, None)
    sight = Sight(seen, seen_latents(quads_of(seen)))
    arrays = given.view.tone, given.raw, shipped.forward
    assert fitting.fit_after(sight, *arrays, 300, shipped.tables) is None


# Classes


def by_brightness(light: np.ndarray) -> np.ndarray:
    """Highlights are sharpened, and shadows blurred."""
    soft = blurred(light, 1)
    bright = blurred(light.mean(0), 3) > 0.5
    return light + np.where(bright, 0.8, -0.6) * (light - soft)


def by_activity(light: np.ndarray) -> np.ndarray:
    """Edges are sharpened, and what is flat is smoothed."""
    soft = blurred(light, 1)
    detail = blurred(np.abs(light - soft).mean(0), 3)
    return light + np.where(detail > np.median(detail), 0.8, -0.7) * (light - soft)


def split_texture(height: int, width: int) -> np.ndarray:
    """Half of it with little detail; both dark and bright."""
    light = texture(height, width)
    strong = 1 / (1 + np.exp((np.arange(width) - width / 2) / 4))
    soft = blurred(light, 3)
    found: np.ndarray = soft + (0.25 + 0.75 * strong) * (light - soft)
    return found


def test_one_rendering_needs_one_class(shipped: Model) -> None:
    for kind in ("sharpened", "mixed"):
        found = filtered(fast(shipped, 20), scene(kind, 200, 300))
        assert found.filter_ is not None
        assert found.filter_.shape == (1, 1)


@pytest.mark.parametrize(
    ("rendering", "colours", "shape"),
    [
        (by_brightness, "RGGB", (2, 2)),
        (by_brightness, "mono", (2, 2)),
        (by_activity, "RGGB", (2, 1)),
        (by_activity, "X-Trans", (2, 1)),
    ],
)
def test_classes_are_taken_where_they_pay(
    shipped: Model,
    rendering: Callable[[np.ndarray], np.ndarray],
    colours: str,
    shape: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """shape: the least that tells the difference."""
    run = fast(shipped, 24)
    light = split_texture(240, 320)
    given = pair(light, rendering(light), COLOURS[colours], 60)
    found = filtered(run, given)
    monkeypatch.setattr(fitting, "shapes", lambda _: [(1, 1)])
    one = filtered(run, given)
    assert found.filter_ is not None and one.filter_ is not None
    assert found.filter_.shape >= shape
    assert len(found.data) > len(one.data)
    assert still(given, found.prediction) < 0.9 * still(given, one.prediction)


def test_outputs_are_sites_and_their_colours() -> None:
    assert fitted.outputs(BAYER) == [(0, 0), (1, 1), (2, 1), (3, 2)]
    assert fitted.outputs(GREEN) == [(site, 1) for site in range(4)]
    every = [(site, colour) for site in range(4) for colour in range(3)]
    for name in ("X-Trans", "quad", "stripes"):
        assert fitted.outputs(COLOURS[name]) == every
    cells = np.zeros((8, 8), np.uint8)
    cells[7, 6] = 2
    assert fitted.outputs(cells) == [(0, 0), (1, 0), (2, 0), (2, 2), (3, 0)]
    assert fitted.shapes(BAYER) == [(1, 1), (2, 1), (2, 2), (4, 2)]
    assert fitted.shapes(cells) == [(1, 1), (2, 1), (2, 2)]
    assert fitted.shapes(COLOURS["X-Trans"]) == [(1, 1), (2, 1)]


def test_classes_are_those_of_activity_and_brightness(tables: Tables) -> None:
    """Quad by quad, from thresholds in any order."""
    rng = np.random.default_rng(2)
    luma = rng.integers(0, 4081, (1, 9, 14)).astype(np.int16)
    luma[:, :4] = 16 * (luma[:, :4] // 64) + 1000
    varies = fitted.activity(torch.from_numpy(luma))
    assert varies.dtype == torch.int16
    for shape, thresholds in (
        ((1, 1), ()),
        ((2, 1), (9000,)),
        ((2, 2), (0, 4080)),
        ((4, 2), (12000, 3000, 9000, 2000)),
        ((4, 2), (32767, 0, 8000, 32767)),
    ):
        filter_ = replace(any_filter(tables, BAYER, shape, 0), thresholds=thresholds)
        found = fitted.classes(filter_, varies, torch.from_numpy(luma)[:, 1:-1, 1:-1])
        for i in range(7):
            for j in range(12):
                near = luma[0, i : i + 3, j : j + 3].astype(int)
                total = int(np.abs(near - near[1, 1]).sum())
                assert total == varies[0, i, j]
                first = sum(total >= limit for limit in thresholds[: shape[0] - 1])
                second = sum(near[1, 1] >= limit for limit in thresholds[shape[0] - 1 :])
                assert found[0, i, j] == first * shape[1] + second
    flat = torch.zeros((1, 3, 3), dtype=torch.int16)
    flat[0, 1, 1] = 4080
    assert fitted.activity(flat) == 8 * 4080  # fits 16 bits


# What comes back


@pytest.mark.parametrize("colours", COLOURS)
def test_filters_of_any_sensor_are_read_back(tables: Tables, colours: str) -> None:
    pattern = COLOURS[colours]
    for given in (None, *any_filters(tables, pattern, 1)):
        found = read(tables, pattern, coded(tables, pattern, given))
        check_same(found, given)
        if found is not None:
            assert found.octaves.dtype == found.scales.dtype == np.int64
            assert all(part.dtype == np.int32 for part in found.numbers)


@pytest.mark.parametrize("colours", COLOURS)
def test_weights_fit_the_certificate(tables: Tables, colours: str) -> None:
    """Whatever is coded: no sum reaches 2^24, in any order."""
    largest = 0
    for seed in range(3):
        for given in any_filters(tables, COLOURS[colours], seed):
            found = fitted.weights(given)
            size = found.weight.to(torch.int64).abs().sum((1, 2, 3))
            assert found.weight.dtype == torch.int8
            assert found.weight.min() >= -127  # -128 was another value, cut to 8 bits
            assert found.bias.dtype == torch.int32
            assert found.shift.min() >= 0 and found.shift.max() <= 20
            largest = max(largest, int((127 * size + found.bias.abs()).max()))
    assert 5e6 < largest < 1 << 24


def test_the_most_that_can_be_coded_fits_the_certificate(tables: Tables) -> None:
    spoken = np.flatnonzero(tables.sizes != SILENT)[-1]
    for sign in (-1, 1):
        numbers = [np.full(9 * 4, sign * 127, np.int32) for _ in range(fitted.CHANNELS)]
        numbers.append(np.full(4, -sign * (1 << 22), np.int32))
        scales = np.full(32, spoken)
        given = Coefficients((1, 1), (), 0, np.zeros(32, int), scales, numbers)
        check_same(read(tables, BAYER, coded(tables, BAYER, given)), given)
        found = fitted.weights(given)
        size = found.weight.to(torch.int64).abs().sum((1, 2, 3))
        assert 1e7 < int((127 * size + found.bias.abs()).max()) < 1 << 24


def test_weights_are_numbers_times_their_octave(tables: Tables) -> None:
    given = any_filter(tables, BAYER, (2, 2), 5)
    found = fitted.weights(given)
    assert found.weight.shape == (16, 31, 3, 3)
    for output, channel, tap in ((0, 0, 0), (3, 11, 7), (9, 30, 2), (15, 5, 8)):
        number = int(given.numbers[channel][9 * output + tap]) << int(given.octaves[channel])
        assert found.weight[output, channel, tap // 3, tap % 3] == number
    constant = given.numbers[-1].astype(int) << given.octaves[-1]
    # of inputs of 64 nothing but the constant is left
    still_there = found.bias + 64 * found.weight.to(torch.int64).sum((1, 2, 3))
    assert np.array_equal(still_there.numpy(), constant)


def test_a_constant_is_added_to_each_class_and_site(shipped: Model) -> None:
    given = plane(40, 50, noise=0)
    shape, count = (2, 2), 16
    numbers = [np.zeros(9 * count, np.int32) for _ in range(fitted.CHANNELS)]
    numbers.append(np.arange(-8, 8, dtype=np.int32) * 3 * 32)
    scales = np.full(32, SCALES - 1)
    filter_ = Coefficients(shape, (700, 2000), 5, np.zeros(32, int), scales, numbers)
    found = predicted(fast(shipped), given, filter_).astype(int)
    seen = PlaneInputs(given.view, None)(-1, 21)
    classes = np.zeros((20, 25), int)
    luma = seen.luma[0, :, 7:34].numpy().astype(int)
    for y in range(20):
        for x in range(25):
            near = luma[y : y + 3, x : x + 3]
            active = np.abs(near - near[1, 1]).sum() >= 700
            classes[y, x] = 2 * active + (near[1, 1] >= 2000)
    assert len(np.unique(classes)) == 4
    y, x = np.mgrid[:40, :50]
    output = 4 * classes[y // 2, x // 2] + 2 * (y % 2) + x % 2
    wanted = np.clip(given.view.tone + 4 * 3 * (output - 8), 0, COMPANDED - 1)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_of_any_size_and_sensor_come_back(
    shipped: Model, size: tuple[int, int], eager: None
) -> None:
    """The smallest have no filter, though it would pay."""
    run = fast(shipped, 20)
    for colours in COLOURS.values():
        given = plane(*size, colours)
        given = replace(given, raw=np.clip(0.8 * given.raw + 900, 0, 46340).astype(np.uint16))
        found = filtered(run, given)
        if min(size) < 16:
            assert found.filter_ is None
            assert len(found.data) <= FEW
            assert np.array_equal(found.prediction, given.view.tone)
        else:
            assert found.filter_ is not None
    check_decodes(run, [given], encoded(run, [given]))


@pytest.mark.parametrize("size", [(20, 30), (48, 64), (96, 128)], ids=str)
def test_small_pictures_pay_few_bytes(shipped: Model, size: tuple[int, int]) -> None:
    """No more than the filter saves."""
    for kind in RENDERINGS:
        given = scene(kind, *size)
        found = filtered(fast(shipped, 16), given)
        assert 8 * len(found.data) <= 64 + 0.3 * given.raw.size
        if found.filter_ is not None:
            assert still(given, found.prediction) < still(given, given.view.tone)


def test_planes_of_a_linear_raw_have_their_own(shipped: Model, eager: None) -> None:
    run, planes = fast(shipped), linear(37, 66)
    planes[1] = scene("mixed", 37, 66, GREEN * 0)
    check_decodes(run, planes, encoded(run, planes))


@pytest.fixture(scope="module")
def example(
    shipped: Model,
) -> tuple[dict[str, list[tuple[Coefficients, np.ndarray, np.ndarray]]], Plane]:
    """Filters of each shape, and what they make of a picture: by sensor."""
    given = plane(83, 57)
    found = {}
    for name in ("RGGB", "X-Trans"):
        pattern = COLOURS[name]
        filters = [
            any_filter(shipped.tables, pattern, shape, 3, shift=13)
            for shape in fitted.shapes(pattern)
        ]
        filters.append(any_filter(shipped.tables, pattern, (2, 1), 4, shift=15, extreme=True))
        run, view = Runner(shipped, 13, "float32", "cpu"), replace(given.view, colours=pattern)
        here = replace(given, view=view)
        found[name] = [(f, predicted(run, here, f), finished(run, here, f)) for f in filters]
    return found, given


def check_example(
    run: Runner, example: tuple[dict[str, list[tuple[Coefficients, np.ndarray, np.ndarray]]], Plane]
) -> None:
    found, given = example
    for name, filters in found.items():
        view = replace(given.view, colours=COLOURS[name])
        here = Plane(view, given.raw)
        for filter_, ahead, after in filters:
            assert len(np.unique(ahead)) > 100 and not np.array_equal(ahead, after)
            assert np.array_equal(predicted(run, here, filter_), ahead)
            assert np.array_equal(finished(run, here, filter_), after)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_do_not_change_what_filters_make(
    shipped: Model, kernel: str, example: tuple[dict, Plane]
) -> None:
    check_example(Runner(shipped, 13, kernel, "cpu"), example)


@pytest.mark.parametrize("band", [1, 2, 3, 5, 1000])
def test_bands_do_not_change_what_filters_make(
    shipped: Model, band: int, example: tuple[dict, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "BAND", band)
    check_example(fast(shipped), example)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_do_not_change_what_filters_make(
    shipped: Model,
    count: int,
    example: tuple[dict, Plane],
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latents, "BAND", 2)
    threads(count)
    check_example(fast(shipped), example)


# What no encoder wrote


class Writer:
    """Writes the symbols of a filter, whatever they are."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.encoder = tables, Encoder()

    def symbol(self, value: int, table: np.ndarray) -> None:
        self.encoder.code(np.array([value], np.int32), [table], np.zeros(1, np.uint8))

    def single(self, *values: int) -> None:
        for value in values:
            self.symbol(value - 128, SINGLE)

    def channel(self, scale: int, octave: int, values: list[int]) -> None:
        self.symbol(scale - SCALES // 2, SCALE_TABLE)
        if not 0 < scale < SCALES or self.tables.sizes[scale] == SILENT:
            return
        self.symbol(octave - 3, OCTAVE)
        here = np.full(len(values), scale, np.uint8)
        zeros = np.zeros(len(values), np.int16)
        self.tables.code(self.encoder, np.array(values, np.int32), zeros, here)

    def rest(self, count: int) -> bytes:
        """So many silent channels, and the end."""
        for _ in range(count):
            self.channel(1, 0, [])
        return self.encoder.finish()


@dataclass
class Faulty:
    """A filter of a Bayer pattern, of one or more numbers that may be out of range."""

    shape: int = 1
    thresholds: tuple[int, ...] = ()
    shift: int = 5
    scale: int = 45
    octave: int = 0
    number: int = 0
    constant: int = 0
    constant_octave: int = 0

    def write(self, writer: Writer) -> bytes:
        count = 4 * (1, 1, 2, 4, 8, 1, 1)[min(max(self.shape, 0), 6)]
        writer.single(self.shape)
        if 1 <= self.shape <= 4:
            writer.single(*self.thresholds, self.shift)
            for channel in range(31):
                values = [0] * (9 * count - 1) + [self.number if channel == 20 else 1]
                writer.channel(self.scale if channel > 18 else 45, self.octave, values)
            writer.channel(45, self.constant_octave, [0] * (count - 1) + [self.constant])
        return writer.rest(0)


FAULTS: dict[str, tuple[Faulty, bool]] = {
    "none": (Faulty(shape=0), True),
    "the last shape": (Faulty(shape=4, thresholds=(127, 255) * 4), True),
    "no such shape": (Faulty(shape=5), False),
    "a shape of a byte more": (Faulty(shape=257), False),
    "a negative shape": (Faulty(shape=-1), False),
    "an escaped shape": (Faulty(shape=1 << 20), False),
    "thresholds of 0": (Faulty(shape=2, thresholds=(0, 0)), True),
    "too high a threshold": (Faulty(shape=2, thresholds=(128, 0)), False),
    "a threshold's byte too large": (Faulty(shape=2, thresholds=(0, 256)), False),
    "a negative threshold": (Faulty(shape=3, thresholds=(0, 0, 0, -1)), False),
    "shift 0": (Faulty(shift=0), True),
    "shift 20": (Faulty(shift=20), True),
    "shift 21": (Faulty(shift=21), False),
    "shift -1": (Faulty(shift=-1), False),
    "shift 256": (Faulty(shift=256), False),
    "octave 6": (Faulty(octave=6), True),
    "octave 7": (Faulty(octave=7), False),
    "octave -1": (Faulty(octave=-1), False),
    "an escaped octave": (Faulty(octave=1 << 23), False),
    "scale 1": (Faulty(scale=1), True),
    "scale 63": (Faulty(scale=63, number=7), True),
    "scale 0": (Faulty(scale=0), False),
    "scale 64": (Faulty(scale=64), False),
    "scale -1": (Faulty(scale=-1), False),
    "the largest number": (Faulty(number=127), True),
    "the least number": (Faulty(number=-127), True),
    "too large a number": (Faulty(number=128), False),
    "too small a number": (Faulty(number=-128), False),
    "a number of two octaves": (Faulty(number=31, octave=2), True),
    "too large a number of two octaves": (Faulty(number=32, octave=2), False),
    "too small a number of six octaves": (Faulty(number=-2, octave=6), False),
    "a number that 32 bits do not hold with its octave": (Faulty(number=1 << 23), False),
    "the largest constant": (Faulty(constant=1 << 22), True),
    "the least constant": (Faulty(constant=-(1 << 22)), True),
    "too large a constant": (Faulty(constant=(1 << 22) + 1), False),
    "a constant of six octaves": (Faulty(constant=1 << 16, constant_octave=6), True),
    "too small a constant": (Faulty(constant=-(1 << 16) - 1, constant_octave=6), False),
    "a constant's octave 7": (Faulty(constant_octave=7), False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_numbers_out_of_range_are_refused(tables: Tables, name: str) -> None:
    """Written by no encoder; behind right checksums."""
    faulty, valid = FAULTS[name]
    decoder = Decoder(faulty.write(Writer(tables)))
    if valid:
        found = fitted.code(decoder, tables, BAYER, None, read=True)
        decoder.finish()
        if found is not None:
            fitted.weights(found)
            assert found.numbers[-1][-1] == faulty.constant
            assert found.numbers[20][-1] == faulty.number
    else:
        with pytest.raises(ValueError, match=r"(number of the filter|scale) is out of range"):
            fitted.code(decoder, tables, BAYER, None, read=True)


def test_a_silent_channel_takes_no_bits(tables: Tables) -> None:
    """Whichever of the silent scales a stream names: its numbers are zero."""
    silent = np.flatnonzero(tables.sizes == SILENT)
    assert len(silent) > 2
    for scale in silent[silent > 0][:3].tolist():
        writer = Writer(tables)
        writer.single(1, 9)
        for _ in range(32):
            writer.channel(scale, 3, [5] * 36)
        found = read(tables, BAYER, writer.rest(0))
        assert found is not None
        assert not any(part.any() for part in found.numbers)
        assert not found.octaves.any()
        assert [len(part) for part in found.numbers] == [36] * 31 + [4]


def test_hostile_streams_end_in_an_error_or_in_a_filter_that_fits(tables: Tables) -> None:
    refused = 0
    for number, (name, pattern) in enumerate(COLOURS.items()):
        given = any_filter(tables, pattern, fitted.shapes(pattern)[-1], 7)
        data = coded(tables, pattern, given)
        for seed in range(40):
            coder = Decoder(hostile(data, 50 * number + seed))
            try:
                found = fitted.code(coder, tables, pattern, None, read=True)
                if found is not None:
                    part = fitted.weights(found)
                    size = part.weight.to(torch.int64).abs().sum((1, 2, 3))
                    assert part.weight.min() >= -127, name
                    assert (127 * size + part.bias.abs()).max() < 1 << 24
                coder.finish()
            except (ValueError, CorruptSidecarError):
                refused += 1
    assert refused > 35 * len(COLOURS)


# What there is to fit to


def flat(level: int, size: tuple[int, int], colours: np.ndarray, error_: float) -> Plane:
    guide = np.full((3, *size), level, np.int16)
    tone = np.full(size, level * 11, np.uint16)
    raw = np.clip(np.rint(tone + error_ + noise(size, 100)), 0, COMPANDED - 1)
    return Plane(PlaneView(guide, tone, colours, None), raw.astype(np.uint16))


@pytest.mark.parametrize("samples", [250_000, 1000])
@pytest.mark.parametrize("colours", ["RGGB", "X-Trans"])
def test_pictures_of_one_level_are_fitted(
    shipped: Model, colours: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All quads are of one class; what is wrong everywhere is a constant."""
    monkeypatch.setattr(fitting, "SAMPLES", samples)
    run = fast(shipped, 24)
    for level in (100, 4080):
        found = filtered(run, flat(level, (96, 112), COLOURS[colours], 0))
        assert found.filter_ is None
        given = flat(level, (96, 112), COLOURS[colours], 900)
        found = filtered(run, given)
        assert found.filter_ is not None
        assert still(given, found.prediction) < 0.3 * still(given, given.view.tone)
        assert len(found.data) < 60


@pytest.mark.parametrize("samples", [250_000, 2000])
@pytest.mark.parametrize("colours", ["RGGB", "quad"])
def test_saturated_and_black_areas_are_fitted(
    shipped: Model, colours: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are most of the picture, so that a class may be of no quads."""
    monkeypatch.setattr(fitting, "SAMPLES", samples)
    light = texture(160, 200)
    light[:, :, :70], light[:, :, 70:130] = 1, 0
    given = pair(light, RENDERINGS["sharpened"](light), COLOURS[colours], 0)
    found = filtered(fast(shipped, 24), given)
    assert found.filter_ is not None
    assert still(given, found.prediction) < 0.77 * still(given, given.view.tone)


@pytest.mark.parametrize("kind", ["sharpened", "darkened"])
def test_a_grey_jpeg_is_fitted(shipped: Model, kind: str) -> None:
    """Its three colours are one, and say all there is."""
    light = texture(160, 200)[1:2].repeat(3, 0)
    given = pair(light, RENDERINGS[kind](light), spread=60)
    found = filtered(fast(shipped, 24), given)
    assert still(given, found.prediction) < 0.3 * still(given, given.view.tone)
    assert found.filter_ is not None
    assert np.abs(found.prediction.astype(int) - given.view.tone).max() < 12_000


@pytest.mark.parametrize("colours", ["RGGB", "X-Trans"])
def test_a_ramp_is_fitted(shipped: Model, colours: str) -> None:
    """Its inputs are one but for their rounding: what is summed is singular, or worse."""
    height, width = 480, 640
    x = np.broadcast_to(np.arange(width), (height, width))
    guide = np.repeat((x * 4080 // width)[None], 3, 0).astype(np.int16)
    tone = (x * 46340 // width).astype(np.uint16)
    raw = np.clip(1.02 * tone, 0, COMPANDED - 1).astype(np.uint16)
    given = Plane(PlaneView(guide, tone, COLOURS[colours], None), raw)
    found = filtered(fast(shipped, 24), given)
    assert still(given, found.prediction) < 0.6 * still(given, given.view.tone)


def test_the_opposite_of_the_jpeg_is_fitted(shipped: Model, eager: None) -> None:
    """Black for white and white for black: corrections at their limits."""
    white = noise((64, 80), 1) > 0
    guide = np.repeat(4080 * white[None], 3, 0).astype(np.int16)
    for colours in (BAYER, COLOURS["X-Trans"]):
        view = PlaneView(guide, (46340 * white).astype(np.uint16), colours, None)
        given = Plane(view, (46340 * ~white).astype(np.uint16))
        for rate in (0, RATES - 1):
            found = filtered(fast(shipped, rate), given)
            assert found.filter_ is not None
            assert np.abs(found.prediction.astype(int) - view.tone).max() == 4 * 2047


@pytest.mark.parametrize("step", [1, 1 << 15])
def test_steps_of_any_size_are_fitted(shipped: Model, step: int, eager: None) -> None:
    for colours in ("RGGB", "X-Trans"):
        given = scene("mixed", 64, 96, COLOURS[colours])
        found = filtered(fast(shipped), given, step=step)
        assert still(given, found.prediction) < still(given, given.view.tone)


@pytest.mark.parametrize("rate", [0, RATES - 1])
def test_a_layer_with_filters_is_decoded(
    shipped: Model, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the filter does: the latents make up for it."""
    run = fast(shipped, rate)
    for name in ("RGGB", "X-Trans"):
        planes = [plane(47, 38, COLOURS[name])]
        for filter_ in (*any_filters(shipped.tables, COLOURS[name], rate),)[1::4]:
            monkeypatch.setattr(fitting, "fit_ahead", lambda *_, f=filter_: f)
            monkeypatch.setattr(fitting, "fit_after", lambda *_, f=filter_: f)
            check_decodes(run, planes, encoded(run, planes))
