"""Sizes that are asked for: the search for a gain, and sidecars of a wanted size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_cli import EXAMPLES, rawcodec_, refused

import rawcodec
from rawcodec.errors import QualityError
from rawcodec.model import target
from rawcodec.model.config import FINE, HYPER_BLOCK
from rawcodec.model.view import PlaneView

RAW, JPEG = EXAMPLES / "photo.dng", EXAMPLES / "photo.jpg"
SITES = 1734 * 1156


# The sample


def planes(height: int, width: int, pattern: int, reached: bool) -> tuple[PlaneView, np.ndarray]:
    """A plane whose values tell their place, and the raw, which is its tone and 1."""
    y, x = np.mgrid[:height, :width]
    place = (y * 251 + x).astype(np.uint16)
    colours = (np.arange(pattern**2).reshape(pattern, pattern) % 3).astype(np.uint8)
    guide = np.stack([place & 4095] * 3).astype(np.int16)
    view = PlaneView(guide, place, colours, (y > 3) if reached else None)
    return view, place + 1


@pytest.mark.parametrize(
    "size", [(3000, 4000), (4000, 3000), (1300, 1300), (400, 9000), (9000, 200), (190, 9000)]
)
@pytest.mark.parametrize("pattern", [1, 2, 4, 6])
def test_a_sample_is_made_of_whole_tiles_from_everywhere(
    size: tuple[int, int], pattern: int
) -> None:
    """Each from where the pattern begins anew, so that all sites keep their colours."""
    view, raw = planes(*size, pattern, reached=True)
    (small,), (theirs,) = target.sample([view], [raw])
    height, width = theirs.shape
    assert small.tone.shape == (height, width) and small.guide.shape == (3, height, width)
    assert small.reached is not None and small.reached.shape == (height, width)
    assert 0.5 * target.TILES * target.TILE**2 < theirs.size < 0.75 * raw.size
    assert np.array_equal(theirs, small.tone + 1)
    assert np.array_equal(small.guide[0], small.tone & 4095)
    tall = min(target.TILE, size[0])
    for top in range(0, height, tall):
        for left in range(0, width, target.TILE):
            tile = small.tone[top : top + tall, left : left + target.TILE]
            steps = np.diff(tile.astype(np.int64), axis=1) % (1 << 16)
            assert np.all(steps == 1)
            where = np.argwhere(view.tone == tile[0, 0])
            inside = [place for place in where if np.array_equal(
                view.tone[place[0] : place[0] + tall, place[1] : place[1] + tile.shape[1]], tile
            )]  # fmt: skip
            assert inside and any(np.all(place % pattern == 0) for place in inside)


def test_a_small_photo_is_its_own_sample() -> None:
    for size in ((1, 1), (192, 192), (700, 1200), (5, 100_000)):
        view, raw = planes(*size, 2, reached=False)
        (small,), (theirs,) = target.sample([view], [raw])
        assert small is view and theirs is raw
    assert target.TILE % HYPER_BLOCK == 0


# The search


def curve(slope: float, offset: float, wobble: float = 0) -> Callable[[int], float]:
    """Bits that double every so often, more or less."""

    def bits(gain: int) -> float:
        return 2 ** (offset + slope * gain / FINE + wobble * math.sin(gain * 1.7))

    return bits


@pytest.mark.parametrize("slope", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("offset", [4, 9, 14])
def test_the_gain_is_found_in_a_few_trials(slope: float, offset: float) -> None:
    bits = curve(slope, offset)
    for wanted_gain in (0, 40, 260, 300, 431, target.FINEST):
        tried: list[int] = []

        def counted(gain: int, tried: list[int] = tried) -> float:
            tried.append(gain)
            return bits(gain)

        found = target.Search(counted, 256).find(bits(wanted_gain))
        assert abs(math.log2(bits(found) / bits(wanted_gain))) < 0.04
        assert len(tried) == len(set(tried)) <= 6


def test_what_is_out_of_reach_gives_the_last_gain() -> None:
    for bits in (curve(0.5, 10), curve(0.3, 2)):
        assert target.Search(bits, 256).find(bits(0) / 100) == 0
        assert target.Search(bits, 256).find(bits(target.FINEST) * 100) == target.FINEST
    assert target.Search(lambda gain: 0.0, 256).find(0) in range(target.FINEST + 1)


def test_bits_that_do_not_always_rise_do_not_confuse() -> None:
    """A filter more or fewer moves them by steps."""
    for seed in range(8):
        bits = curve(0.5, 8 + seed, wobble=0.05)
        wanted = bits(200 + 17 * seed)
        found = target.Search(bits, 256).find(wanted)
        assert abs(math.log2(bits(found) / wanted)) < 0.15


def tried(real: Callable[[int], float], sample: Callable[[int], float], aim: float) -> list[int]:
    """The gains that are tried on a photo, in order, until none is left that may be better."""
    search = target.Search(sample, 256)
    sizes: dict[int, float] = {}
    gain: int | None = search.find(8 * aim)
    while gain is not None and len(sizes) < 12:
        sizes[gain] = round(real(gain))
        gain = target.better(search, sizes, aim)
    assert gain is None
    return list(sizes)


def test_a_sample_that_is_wrong_is_corrected_by_the_photo() -> None:
    sample = curve(0.5, 10)
    for wrong in (0.7, 0.95, 1, 1.3, 1.8):
        gains = tried(lambda gain, wrong=wrong: wrong * sample(gain) / 8, sample, 50_000)  # type: ignore[misc]
        assert len(gains) == len(set(gains))
        off = [abs(math.log(wrong * sample(gain) / 8 / 50_000)) for gain in gains]
        assert min(off[:2]) < 0.03


def test_around_a_jump_the_gains_next_to_it_are_tried() -> None:
    """Where no gain takes what is wanted."""
    sample = curve(0.5, 10)

    def real(gain: int) -> float:
        return sample(gain) / 8 * (1 if gain < 290 else 1.4)

    aim = 1.2 * sample(290) / 8
    assert {289, 290} <= set(tried(real, sample, aim))


# Sidecars


@pytest.mark.parametrize("bpp", [0.08, 0.5])
def test_bits_per_site_are_met(bpp: float) -> None:
    sidecar = rawcodec.encode(RAW, JPEG, bpp=bpp)
    info = rawcodec.inspect(sidecar)
    assert info.quality == "custom"
    assert info.bpp == pytest.approx(bpp, rel=0.05)


def test_the_most_bytes_are_never_exceeded(tmp_path: Path) -> None:
    path = tmp_path / "photo.rmeta"
    limit = 60_000
    done = rawcodec_("encode", RAW, JPEG, "-o", path, "--max-bytes", str(limit), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0.85 * limit < path.stat().st_size <= limit
    assert "custom" in rawcodec_("info", path, cwd=tmp_path).stdout
    done = rawcodec_("decode", JPEG, path, "-o", tmp_path / "raw.tiff", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_between_the_tone_layer_and_the_coarsest_gain_is_the_tone_layer() -> None:
    """Nothing else is as small."""
    alone = rawcodec.encode(RAW, JPEG, quality="tone", verify=False)
    assert rawcodec.encode(RAW, JPEG, max_bytes=len(alone), verify=False) == alone
    assert rawcodec.encode(RAW, JPEG, bpp=8 * len(alone) / SITES, verify=False) == alone


def test_less_than_any_sidecar_takes_is_refused(tmp_path: Path) -> None:
    alone = len(rawcodec.encode(RAW, JPEG, quality="tone", verify=False))
    with pytest.raises(QualityError, match=f"takes {alone} bytes"):
        rawcodec.encode(RAW, JPEG, max_bytes=alone - 1)
    for size in (("--max-bytes", "100"), ("--bpp", "0.0001")):
        said = refused("encode", RAW, JPEG, "-o", tmp_path / "x.rmeta", *size, cwd=tmp_path)
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
