"""Sizes that are asked for: the search for a gain, and sidecars of a wanted size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pairs import Pair
from test_cli import EXAMPLES, rawcodec_, refused
from test_learned import pair_of

import rawcodec
from rawcodec.errors import QualityError
from rawcodec.model import config, target
from rawcodec.model.config import FINE, RATES
from rawcodec.model.view import PlaneView, Stripes

RAW, JPEG = EXAMPLES / "photo.dng", EXAMPLES / "photo.jpg"


# What is foretold


def noisy(height: int, width: int, spread: float) -> tuple[PlaneView, np.ndarray]:
    """A plane of one value, and a raw that is off it by noise."""
    tone = np.full((height, width), 20_000, np.uint16)
    off = np.random.default_rng(5).normal(0, spread, (height, width))
    raw = np.clip(tone + off, 0, 46_340).astype(np.uint16)
    guide = np.zeros((3, height, width), np.int16)
    return PlaneView(guide, tone, np.array([[0, 1], [1, 2]], np.uint8), None), raw


STEPS = 4000 * 2 ** (-np.arange(RATES) / 4)


def foretold(spread: float, size: tuple[int, int] = (640, 960)) -> target.Forecast:
    view, raw = noisy(*size, spread)
    stripes = Stripes([], [], lambda rows: [replace(view, tone=view.tone[rows])])
    errors = target.tone_errors(stripes, [raw], np.arange(46_341))
    return target.Forecast(errors, raw.size, STEPS, target.OF_TONE)


@pytest.mark.parametrize("bpp", [0.05, 0.4, 1.5])
def test_errors_twice_as_large_need_steps_twice_as_large(bpp: float) -> None:
    finer, coarser = (foretold(spread).gain(bpp * 640 * 960) for spread in (200, 400))
    assert abs(finer - coarser - 4 * FINE) <= 2


def test_the_slope_foretold_is_that_of_the_gains_foretold() -> None:
    forecast = foretold(200)
    for bits in (6e4, 3e5, 9e5):
        below, gain, above = (forecast.gain(bits * 2**n) for n in (-0.5, 0, 0.5))
        assert below < gain < above
        assert forecast.slope(gain) == pytest.approx(1 / (above - below), rel=0.2)


@pytest.mark.parametrize("steepness", [0.6, 1.0, 2.0])
def test_what_is_found_at_a_gain_corrects_the_others(steepness: float) -> None:
    forecast = foretold(200)
    bits = 1.5 * forecast.bits(240)
    forecast.correct(240, bits, steepness)
    assert forecast.bits(240) == pytest.approx(bits)
    assert forecast.gain(bits) == 240
    # as 25 gains change them, so does twice the weight
    assert forecast.slope(240) == pytest.approx(steepness / 25)
    assert forecast.bits(253) == pytest.approx(bits * 2 ** (13 * steepness / 25), rel=0.1)
    assert all(forecast.bits(gain) <= forecast.bits(gain + 1) for gain in range(target.FINEST))


def test_any_photo_has_a_gain_to_begin_with() -> None:
    for size in ((1, 1), (3, 40), (100, 17)):
        for spread in (0, 1, 20_000):
            forecast = foretold(spread, size)
            for bits in (1e-6, 100, 1e9):
                gain = forecast.gain(bits)
                assert 0 <= gain <= target.FINEST
                assert 0 < forecast.slope(gain) < 1


# The search


def curve(slope: float, offset: float) -> Callable[[int], float]:
    """Bytes that double every so often."""
    return lambda gain: 2 ** (offset + slope * gain / FINE)


def tried(sizes_of: Callable[[int], float], aim: float, steepness: float = 1.0) -> dict[int, float]:
    """The gains that are tried on a photo, in order, until none is left that may be better."""
    forecast = foretold(200)
    sizes: dict[int, float] = {}
    gain: int | None = forecast.gain(8 * aim)
    while gain is not None and len(sizes) < 30:
        assert gain not in sizes and 0 <= gain <= target.FINEST
        sizes[gain] = round(sizes_of(gain))
        gain = target.better(forecast, sizes, aim, steepness)
    assert gain is None
    return sizes


@pytest.mark.parametrize("slope", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("offset", [5, 9])
def test_a_gain_is_found_in_a_few_trials(slope: float, offset: float) -> None:
    """One whose bytes a lighter weight makes the wanted ones."""
    sizes_of = curve(slope, offset)
    for wanted in (40, 260, 300, 431):
        aim = sizes_of(wanted)
        for steepness, ample in ((0.0, 1.0), (0.5, 1.06), (2.0, 1.08)):
            sizes = tried(sizes_of, aim, steepness).values()
            assert min(abs(math.log(size / aim / ample)) for size in list(sizes)[:4]) < 0.05


def test_what_is_out_of_reach_ends_at_the_last_gain() -> None:
    sizes_of = curve(0.5, 6)
    assert min(tried(sizes_of, sizes_of(0) / 100)) == 0
    assert max(tried(sizes_of, sizes_of(target.FINEST) * 100)) == target.FINEST


def test_around_a_jump_the_gains_next_to_it_are_tried() -> None:
    """Where no gain takes what is wanted."""
    usual = curve(0.5, 7)
    jumps = tried(lambda gain: usual(gain) * (1 if gain < 290 else 1.4), 1.1 * usual(290))
    assert {289, 290} <= set(jumps)


@pytest.mark.parametrize("steepness", [0.3, 0.9, 1.6])
@pytest.mark.parametrize("off", [0.95, 1.07, 1.1, 1.15])
def test_a_weight_is_found_in_a_few_trials(steepness: float, off: float) -> None:
    sizes = {0.0: 1000 * off}
    while abs(math.log(min(sizes.values(), key=lambda size: abs(size - 1000)) / 1000)) > 0.02:
        found = target.weight(sizes, 1000, 0.75)
        assert found is not None and found not in sizes
        assert target.LIGHTEST <= found <= target.HEAVIEST
        sizes[found] = 1000 * off * math.exp(steepness * found)
    assert len(sizes) <= 4


def test_a_size_that_is_far_off_is_for_another_gain() -> None:
    for size in (100, 400, 3000, 1e5):
        assert target.weight({0.0: size}, 1000, 0.75) is None
    # no weight has changed much
    assert target.weight({0.0: 1200, -0.2: 1190}, 1000, 0.75) is None


def test_an_end_is_put_to_weights_that_do_not_come_near() -> None:
    assert target.weight({0.0: 1100, -0.1: 930, -0.05: 1080, -0.07: 920}, 1000, 0.75) is None


# Stripes


class Photo:
    """Stripes of known sizes: what they take beside latents, these, and how weights change them."""

    def __init__(self, *stripes: tuple[float, float, float]) -> None:
        self.stripes = stripes

    def coded(self, course: target.Course, filters: float) -> tuple[float, list[float]]:
        """What it takes with filters as a course has it, and the last weight of each stripe."""
        above, weights = 0.0, []
        for fixed, latents, steepness in self.stripes:
            for _ in range(10):
                used = course.weight
                took = latents * math.exp(steepness * used)
                if course.take(above + fixed, took, filters):
                    break
            else:
                pytest.fail("no end")
            above += fixed + took
            weights.append(used)
        return above + filters, weights


EVEN = Photo((500, 4000, 0.6), (500, 3500, 0.9), (300, 4200, 0.5))
GUESS = [0.75] * 3
"""What is told of how steep stripes are."""
UNEVEN = Photo((4000, 8000, 0.5), (200, 300, 2.0))


@pytest.mark.parametrize("photo", [EVEN, UNEVEN])
@pytest.mark.parametrize("off", [0.9, 0.97, 1.03, 1.07])
def test_stripes_whose_shares_are_known_take_what_is_wanted(photo: Photo, off: float) -> None:
    usual = [fixed + latents for fixed, latents, _ in photo.stripes]
    aim = 700 + off * sum(usual)
    course = target.Course([each / sum(usual) for each in usual], GUESS, aim, 0.0)
    size, weights = photo.coded(course, 700)
    assert abs(size / aim - 1) < 0.05
    assert all(target.LIGHTEST <= weight <= target.HEAVIEST for weight in weights)


@pytest.mark.parametrize("off", [(1.2, 1, 1), (1, 0.8, 1.1), (1, 1, 0.8)])
@pytest.mark.parametrize("wanted", [0.9, 1.0])
def test_stripes_whose_shares_are_foretold_take_what_is_wanted(
    off: tuple[float, ...], wanted: float
) -> None:
    """About as much as their own sizes are, whatever was foretold: no stripe pays for another."""
    usual = [fixed + latents for fixed, latents, _ in EVEN.stripes]
    expected = [each * factor for each, factor in zip(usual, off, strict=True)]
    aim = 700 + wanted * sum(usual)
    shares = [each / sum(expected) for each in expected]
    course = target.Course(shares, GUESS, aim, 0.0, whole=sum(expected))
    size, weights = EVEN.coded(course, 700)
    assert abs(size / aim - 1) < 0.05
    assert course.shares == pytest.approx([each / sum(usual) for each in usual], rel=0.1)
    assert max(weights) - min(weights) < 0.6


def test_a_small_stripe_above_tells_little_of_a_large_one_below() -> None:
    """Where it takes twice what was foretold, the others need not."""
    photo, aim = Photo((10, 190, 0.6), (500, 9300, 0.6)), 10_000
    course = target.Course([0.01, 0.99], GUESS, aim, 0.0, whole=aim)
    assert course.take(10, 190, 0)
    assert abs(course.weight) < 0.1
    size, weights = photo.coded(target.Course([0.01, 0.99], GUESS, aim, 0.0, whole=aim), 0)
    assert abs(size / aim - 1) < 0.05
    assert weights[0] == 0 and abs(weights[1]) < 0.1


def test_a_stripe_that_no_weight_brings_near_is_for_another_gain() -> None:
    course = target.Course([0.5, 0.5], GUESS, 3000, 0.0)
    with pytest.raises(target.MissedError):
        Photo((100, 9000, 0.6), (100, 9000, 0.6)).coded(course, 0)
    assert course.sizes[0.0] == pytest.approx(18_200)
    assert course.again(0) is None


def test_a_weight_that_is_given_stays() -> None:
    course = target.Course([0.2, 0.5, 0.3], GUESS, 3000, -0.3, trims=False)
    assert EVEN.coded(course, 0)[1] == [-0.3] * 3
    assert course.weight == -0.3


# Sidecars


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(tmp_path_factory.mktemp("small"), (163, 221))


def test_bits_per_site_of_a_real_photo_are_met() -> None:
    info = rawcodec.inspect(rawcodec.encode(RAW, JPEG, bpp=0.2))
    assert info.quality == "custom"
    assert info.bpp == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("cfa", "size"), [(("RG", "GB"), (163, 221)), ((), (97, 131))], ids=["mosaic", "linear"]
)
def test_other_weights_are_read_back_too(
    tmp_path: Path, cfa: tuple[str, ...], size: tuple[int, int]
) -> None:
    """Those of a linear raw are of its last colour."""
    pair = pair_of(tmp_path, size, cfa)
    for share in (0.93, 1.05):
        bpp = share * rawcodec.inspect(pair.sidecar).bpp
        sidecar = rawcodec.encode(pair.raw, pair.jpeg, bpp=bpp)  # and verified
        assert rawcodec.inspect(sidecar).bpp == pytest.approx(bpp, rel=0.05)
        digest = rawcodec.decode(pair.jpeg, sidecar).digest().hex()
        assert digest == rawcodec.inspect(sidecar).mosaic_digest


@pytest.mark.parametrize(
    ("cfa", "size"), [(("RG", "GB"), (163, 221)), ((), (66, 90))], ids=["mosaic", "linear"]
)
def test_bits_per_site_of_several_stripes_are_met(
    tmp_path: Path,
    cfa: tuple[str, ...],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config, "STRIPE", math.prod(size) * 2 // 3)
    pair = pair_of(tmp_path, size, cfa)
    bpp = 0.8 * rawcodec.inspect(pair.sidecar).bpp
    sidecar = rawcodec.encode(pair.raw, pair.jpeg, bpp=bpp)  # and verified
    assert rawcodec.inspect(sidecar).bpp == pytest.approx(bpp, rel=0.05)


def test_the_most_bytes_hold_for_several_stripes(
    small: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "STRIPE", 24_000)
    limit = round(1.1 * len(small.sidecar))
    sidecar = rawcodec.encode(small.raw, small.jpeg, max_bytes=limit)
    assert 0.85 * limit < len(sidecar) <= limit


def test_the_most_bytes_are_never_exceeded(small: Pair, tmp_path: Path) -> None:
    path = tmp_path / "photo.rmeta"
    limit = 2 * len(small.sidecar)
    pair = small.raw, small.jpeg
    done = rawcodec_("encode", *pair, "-o", path, "--max-bytes", str(limit), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0.85 * limit < path.stat().st_size <= limit
    assert "custom" in rawcodec_("info", path, cwd=tmp_path).stdout
    done = rawcodec_("decode", small.jpeg, path, "-o", tmp_path / "raw.tiff", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_between_the_tone_layer_and_the_coarsest_gain_is_the_tone_layer(small: Pair) -> None:
    """Nothing else is as small."""
    raw, jpeg = small.raw, small.jpeg
    alone = rawcodec.encode(raw, jpeg, quality="tone", verify=False)
    assert rawcodec.encode(raw, jpeg, max_bytes=len(alone), verify=False) == alone
    bpp = rawcodec.inspect(alone).bpp
    assert rawcodec.encode(raw, jpeg, bpp=bpp, verify=False) == alone


def test_less_than_any_sidecar_takes_is_refused(small: Pair, tmp_path: Path) -> None:
    raw, jpeg = small.raw, small.jpeg
    alone = len(rawcodec.encode(raw, jpeg, quality="tone", verify=False))
    with pytest.raises(QualityError, match=f"takes {alone} bytes"):
        rawcodec.encode(raw, jpeg, max_bytes=alone - 1)
    for size in (("--max-bytes", "100"), ("--bpp", "0.0001")):
        said = refused("encode", raw, jpeg, "-o", tmp_path / "x.rmeta", *size, cwd=tmp_path)
        assert f"takes {alone} bytes" in said and "ask for more" in said


def test_one_size_or_quality_is_given(tmp_path: Path) -> None:
    every = {"quality": "low", "bpp": 0.2, "max_bytes": 9000}
    for left in every:
        two = {name: value for name, value in every.items() if name != left}
        with pytest.raises(ValueError, match="give one of"):
            rawcodec.encode(RAW, JPEG, **two)  # type: ignore[arg-type]
    for size in ({"bpp": 0.0}, {"bpp": -1.0}, {"bpp": math.nan}, {"bpp": math.inf}):
        with pytest.raises(ValueError, match="is not positive"):
            rawcodec.encode(RAW, JPEG, **size)
    with pytest.raises(ValueError, match="is not positive"):
        rawcodec.encode(RAW, JPEG, max_bytes=0)
    for wrong in (
        ("--bpp", "0.2", "--quality", "low"),
        ("--bpp", "0.2", "--max-bytes", "9000"),
        ("--max-bytes", "9000", "--quality", "tone"),
        ("--bpp", "0"),
        ("--bpp", "-1"),
        ("--bpp", "nan"),
        ("--max-bytes", "0"),
        ("--max-bytes", "1.5"),
        ("--quality", "custom"),
    ):
        refused("encode", RAW, JPEG, "-o", tmp_path / "x.rmeta", *wrong, cwd=tmp_path, code=2)


def test_custom_is_no_quality() -> None:
    with pytest.raises(QualityError, match="is none of tone, low, medium, high, max"):
        rawcodec.encode(RAW, JPEG, quality="custom")
