"""The benchmark of maps: classes of sites, and what the page says; bits are in test_map.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pairs import scene, write_jpeg, write_raw

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

from examples.benchmark import maps  # noqa: E402
from examples.benchmark.maps import Mapped, Shares  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.mosaic import Mosaic, planes  # noqa: E402
from rawcodec.photo.align import GUIDE_MAX  # noqa: E402
from rawcodec.sensor import Sensor  # noqa: E402

# classes of sites

BAYER = Sensor(16, 8, ("RG", "GB"), (100, 110, 120, 130), 100 + 1024)


def mosaic_of(level: np.ndarray, sensor: Sensor = BAYER) -> Mosaic:
    """With the linear values of (H, W), white = 1."""
    samples = np.empty(sensor.shape, np.uint16)
    for _, black, index in planes(sensor):
        part = level[index[:2]]
        samples[index] = np.floor(black + part * (sensor.white - black) + 0.5)
    return Mosaic(samples, sensor)


@pytest.mark.parametrize("cfa", [("RG", "GB"), ()], ids=["mosaic", "linear"])
def test_octaves_of_brightness(cfa: tuple[str, ...]) -> None:
    black = (100,) * 4 if cfa else (100,) * 3
    levels = [1.0, 0.6, 0.5, 0.49, 0.25, 0.2, 1 / 128, 0.0]
    level = np.repeat(np.array(levels)[:, None], 16, 1)
    found = maps.octaves(mosaic_of(level, Sensor(16, 8, cfa, black, 100 + 1024)))
    assert found.shape == (8, 16)
    # a bound belongs to the class above it
    assert found[:, 0].tolist() == [0, 0, 0, 1, 1, 2, 6, 7]
    assert (found == found[:, :1]).all()


def test_errors_are_shares_of_white() -> None:
    mosaic = mosaic_of(np.full((8, 16), 0.5))
    samples = mosaic.samples.copy()
    samples[0, 0] += 512  # black 100, white 1124: half of it
    samples[3, 6] -= 128
    wrong = maps.error(mosaic, samples)
    assert wrong[0, 0] == 0.5
    assert wrong[3, 6] < 0
    largest = maps.cells(wrong)
    assert largest.shape == (4, 8)
    assert largest[0, 0] == 0.5
    assert largest[1, 3] == pytest.approx(128 / (1124 - 120), rel=0.05)
    assert (largest > 0).sum() == 2
    assert maps._power(wrong).sum() == pytest.approx(float((wrong**2).sum()))


def test_white_goes_before_black_and_neither() -> None:
    guide = np.full((3, 1, 4), GUIDE_MAX // 2, np.int16)
    guide[1, 0, 0] = GUIDE_MAX
    guide[2, 0, :2] = 0
    guide[:, 0, 3] = GUIDE_MAX * 253 // 255
    assert maps.clipping(guide).tolist() == [[0, 1, 2, 2]]


def test_shares_are_of_each_total() -> None:
    classes = np.array([[0, 0], [0, 2]])
    weight = np.array([[1.0, 2.0], [3.0, 14.0]])
    found = maps._spread(classes, 4, weight, np.zeros((2, 2)))
    assert found.tolist() == [[0.75, 0, 0.25, 0], [0.3, 0, 0.7, 0], [0, 0, 0, 0]]


def test_the_worst_tenth_is_a_tenth_of_the_blocks() -> None:
    power = np.arange(100.0).reshape(10, 10)
    bits = np.ones((10, 10))
    assert maps.worst_tenth(power, bits) == pytest.approx((945 / 4950, 0.1))
    assert maps.worst_tenth(power, 0 * bits)[1] == 0


# which pairs, and what the page says

PAIRS = [Pair(name, p, Path(name), Path(f"{name}.{p}")) for name in "abcd" for p in ("rt", "dt")]


def test_pairs_are_chosen_by_name_or_one_of_each_photo() -> None:
    assert [p.name for p in maps.choose(PAIRS, ["c.dt", "a.rt", "c.dt"])] == ["c.dt", "a.rt"]
    assert [p.name for p in maps.choose(PAIRS, [])] == ["a.rt", "b.rt", "c.rt"]
    ours = [Pair(*name.rsplit(".", 1), Path(), Path()) for name in maps.PREFERRED]
    assert maps.choose([*PAIRS, *ours], []) == ours
    with pytest.raises(ValueError, match=r"has no pair e\.rt, but a\.rt, a\.dt"):
        maps.choose(PAIRS, ["a.rt", "e.rt"])


def test_page_tells_where_the_bits_are() -> None:
    brightness, clipping = np.full((4, 8), 1 / 8), np.full((4, 4), 0.25)
    clipping[:, 0] = 0.1, 0.2, 0.3, 0.4
    mapped = [
        Mapped(pair, 0.5, 0.4, 0.01, (40.0, 45.0), worst, Shares(brightness, clipping))
        for pair, worst in zip(PAIRS[:2], [(0.6, 0.5), (0.3, 0.05)], strict=True)
    ]
    text = maps.write(mapped)
    assert "60% of the error and 50% of the bits on a.rt; 30% of the error and 5% of the" in text
    assert "more bits than its share of the photo on 1 of 2." in text
    assert "10.0% of the sites, 30.0% of the squared error before, 20.0% of the latents'" in text
    assert "| a | darktable | 0.5000 | 0.4000 | 0.0100 | 40.00 | 45.00 | 30% | 5% |" in text
    assert "| 1/4 to 1/2 | 12.5% | 12.5% | 12.5% | 12.5% |" in text
    assert "| below 1/128 |" in text
    assert "![a, JPEG by RawTherapee](maps-a.rt.png)" in text
    assert text.count("--out docs/results --pair a.rt --pair a.dt`.") == 5


def test_a_pair_is_mapped_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    light = scene(168, 240) * 1.3  # clipped in places
    raw = write_raw(tmp_path / "a.dng", light * 0.7, ("RG", "GB"), noise=40)
    jpeg = write_jpeg(tmp_path / "a.jpg", np.clip(light, 0, 1))
    maps.run_all([Pair("a", "rt", raw, jpeg)], tmp_path / "out")
    text = (tmp_path / "out" / "maps.md").read_text(encoding="utf-8")
    assert "| beyond the JPEG | 7.9% |" in text
    assert "| a colour of the JPEG at white | 0.0% |" not in text
    plot = tmp_path / "out" / "maps-a.rt.png"
    assert 10_000 < plot.stat().st_size < maps.SIZE_LIMIT


def test_a_plot_is_as_small_as_it_has_to_be(tmp_path: Path) -> None:
    figures = pytest.importorskip(
        "matplotlib.figure", reason="matplotlib, of the extra benchmark, is not there"
    )
    noise = np.random.default_rng(4).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    figure = figures.Figure(figsize=(6, 4))
    figure.figimage(noise)
    maps.save(figure, tmp_path / "large.png", noise)
    maps.save(figure, tmp_path / "small.png", noise, 120_000)
    assert (tmp_path / "small.png").stat().st_size < 120_000
    assert (tmp_path / "large.png").stat().st_size > 120_000
    with pytest.raises(RuntimeError, match="cannot be drawn in 1000 bytes"):
        maps.save(figure, tmp_path / "none.png", noise, 1000)
