"""The benchmark of maps: every bit has its place, and what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Real
from pairs import scene, write_jpeg, write_raw
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

import rawcodec  # noqa: E402
from examples.benchmark import maps  # noqa: E402
from examples.benchmark.maps import Bits, Mapped, Shares, SymbolMeter  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.model import fitting  # noqa: E402
from rawcodec.model.config import GROUPS, MEAN_UNIT, PASSES  # noqa: E402
from rawcodec.model.tables import split  # noqa: E402
from rawcodec.mosaic import Mosaic, planes  # noqa: E402
from rawcodec.photo.align import GUIDE_MAX  # noqa: E402
from rawcodec.photo.raw import read_raw  # noqa: E402
from rawcodec.sensor import Sensor  # noqa: E402
from rawcodec.stream import container  # noqa: E402
from rawcodec.stream.entropy import TOTAL, RateMeter  # noqa: E402

# every symbol of a call


def some_tables() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    rows = []
    for size in (2, 4, 8, 32):
        row = 1 + rng.multinomial(TOTAL - size, rng.dirichlet(np.ones(size)))
        rows.append(row.astype(np.int64))
    return rows


def test_every_symbol_takes_what_it_takes_alone() -> None:
    rng = np.random.default_rng(2)
    tables = some_tables()
    index = rng.integers(0, len(tables), 300)
    symbols = np.rint(rng.standard_cauchy(300) * 5).astype(np.int32)
    symbols[:4] = 0, 1 << 20, -(1 << 23), (1 << 24) - 1
    meter, coder = SymbolMeter(), RateMeter()
    assert np.array_equal(meter.code(symbols, tables, index), symbols)
    coder.code(symbols, tables, index)
    assert meter.bits == coder.bits
    assert meter.last.sum() == pytest.approx(meter.bits, rel=1e-12)
    for number in range(len(symbols)):
        alone = RateMeter()
        alone.code(symbols[number : number + 1], tables, index[number : number + 1])
        assert meter.last[number] == pytest.approx(alone.bits, rel=1e-12)


def test_another_call_has_other_symbols_and_tables() -> None:
    meter, tables = SymbolMeter(), some_tables()
    meter.code(np.array([0, 1]), tables, np.array([1, 2]))
    first = meter.last
    even = [np.array([TOTAL // 2, TOTAL // 2])]
    meter.code(np.zeros(3, np.int32), even, np.zeros(3, np.int64))
    assert meter.last.tolist() == [1, 1, 1]
    assert meter.bits == pytest.approx(first.sum() + 3)
    meter.code(np.zeros(0, np.int32), tables, np.zeros(0, np.int64))
    assert len(meter.last) == 0


# the bits of a photo


@pytest.mark.parametrize(
    ("cfa", "quality"),
    [(("RG", "GB"), "medium"), (("GB", "RG"), "max"), ((), "medium")],
    ids=["medium", "max", "linear"],
)
def test_the_maps_hold_every_bit_of_a_real_sidecar(
    tmp_path: Path, cfa: tuple[str, ...], quality: str
) -> None:
    light = scene(107, 123)
    raw = write_raw(tmp_path / "a.dng", light, cfa, noise=60)
    jpeg = write_jpeg(tmp_path / "a.jpg", light, crop=6)
    with maps.mapping() as bits:
        sidecar = rawcodec.encode(raw, jpeg, quality=quality, verify=False)
    # listening changes nothing
    assert sidecar == rawcodec.encode(raw, jpeg, quality=quality, verify=False)
    assert bits.sites is not None
    assert bits.hyper is not None
    assert bits.sites.shape == (112, 128)
    assert bits.hyper.shape == bits.blocks.shape == (7, 8)
    assert min(bits.sites.min(), bits.hyper.min()) >= 0
    assert bits.sites.sum() == pytest.approx(bits.metered, rel=1e-9)
    assert bits.blocks.sum() == pytest.approx(bits.metered, rel=1e-9)
    assert bits.hyper.sum() == pytest.approx(bits.hyper_metered, rel=1e-9)
    # of the chunk, they are all but the head, grids, filters and shifts of scales
    chunk = next(c.payload for c in container.read(sidecar) if c.type == "LATN")
    assert 0.6 * 8 * len(chunk) < bits.metered + bits.hyper_metered < 8 * len(chunk)


class Checked(maps.MappedCoder):
    """Compares each latent's bits with those of the integer that it was coded as."""

    coded, beside = 0, 0
    """Latents that were compared, and those of them that have the second quantiser."""

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        before = self._taken.copy()
        result = super().code(number, here, mean, scale)
        channels = list(GROUPS[PASSES[number][0]])
        there = np.flatnonzero(here.numpy())
        halves, means, scales = (
            part[0].flatten(1).T.numpy()[there] for part in (result, mean, scale)
        )
        # only the second quantiser has odd halves: its integers lie half a step below
        second = halves & 1
        whole, fraction = split(means + np.int16(MEAN_UNIT // 2) * second)
        scales = self._tables.shifted(scales.ravel(), self.shifts).reshape(scales.shape)
        residue = (halves.astype(np.int32) + second) // 2 - whole
        middle = self._tables.cost.shape[2] // 2
        assert np.abs(residue).max() <= middle
        expected = self._tables.cost[scales, fraction, residue + middle]
        added = self._taken - before
        # the costs of escapes are rounded to powers of two
        assert added[np.ix_(there, channels)] == pytest.approx(expected, abs=1e-3)
        assert added.sum() == pytest.approx(expected.sum(dtype=float), rel=1e-4)
        Checked.coded += expected.size
        Checked.beside += int(second.sum())
        return result

    def _best_shifts(self, latents: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        self.shifts = super()._best_shifts(latents, mean, scale)
        return self.shifts


def test_every_bit_lies_where_its_latent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MappedCoder", Checked)
    light = scene(107, 123)
    raw = write_raw(tmp_path / "a.dng", light, ("RG", "GB"), noise=60)
    jpeg = write_jpeg(tmp_path / "a.jpg", light)
    with maps.mapping() as bits:
        rawcodec.encode(raw, jpeg, quality="high", verify=False)
    assert bits.sites is not None
    assert Checked.coded == bits.sites.size
    assert 0 < Checked.beside < Checked.coded


def test_bits_of_the_filter_after_lie_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes some, and the maps are those of the latents alone."""
    photo, jpeg = ROOT / "examples" / "photo.dng", ROOT / "examples" / "photo.jpg"
    found, sizes = [], []
    for left_out in (False, True):
        if left_out:
            monkeypatch.setattr(fitting, "fit_after", lambda *_: None)
        with maps.mapping() as bits:
            sidecar = rawcodec.encode(photo, jpeg, quality="high", verify=False)
        found.append(bits)
        sizes.append(next(len(c.payload) for c in container.read(sidecar) if c.type == "LATN"))
    ours, without = found
    assert sizes[0] > sizes[1] + 100
    assert ours.metered + ours.hyper_metered < 8 * sizes[1]
    assert np.array_equal(ours.sites, without.sites)
    assert np.array_equal(ours.hyper, without.hyper)


def test_bits_lie_where_the_jpeg_knows_nothing(tmp_path: Path) -> None:
    """A part of the raw is noise that the JPEG does not have."""
    light = scene(256, 256)
    jpeg = write_jpeg(tmp_path / "a.jpg", light, crop=0)
    light[64:128, 128:208] += np.random.default_rng(3).normal(0, 0.1, (64, 80, 3))
    raw = write_raw(tmp_path / "a.dng", np.clip(light, 0, 1), ("RG", "GB"), noise=4)
    with maps.mapping() as bits:
        rawcodec.encode(raw, jpeg, quality="medium", verify=False)
    noisy = np.zeros((16, 16), bool)
    noisy[4:8, 8:13] = True
    assert bits.blocks[noisy].min() > 1.2 * bits.blocks[~noisy].max()


def test_a_map_that_lost_a_bit_is_noticed() -> None:
    bits = Bits()
    bits.add(np.ones((16, 16)), np.ones((1, 1)), 256.0, 1.0)
    with pytest.raises(RuntimeError, match=r"holds 512\.0 bits, and 511\.0 were metered"):
        bits.add(np.ones((16, 16)), np.ones((1, 1)), 255.0, 1.0)


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


@pytest.mark.slow
def test_the_maps_hold_every_bit_of_a_real_photo(real: Real) -> None:
    raw, jpeg = real("colorchart.dng"), real("colorchart.dt.jpg")
    with maps.mapping() as bits:
        sidecar = rawcodec.encode(raw, jpeg, quality="low", verify=False)
    chunk = next(c.payload for c in container.read(sidecar) if c.type == "LATN")
    assert bits.sites is not None
    height, width = read_raw(raw).mosaic.samples.shape
    assert bits.sites.shape == (-(-height // 16) * 16, -(-width // 16) * 16)
    assert bits.metered + bits.hyper_metered < 8 * len(chunk)
    bits.check()
