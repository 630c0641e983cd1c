"""The benchmark's own arithmetic: curves, the classical coding, what pages say."""

from __future__ import annotations

import hashlib
import importlib
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

import rawcodec  # noqa: E402
from examples.benchmark import classical, exactness, profile, stages  # noqa: E402
from examples.benchmark.classical import VARIANTS, Rest, Variant, decode  # noqa: E402
from examples.benchmark.curves import Point, bd_rate, monotone, psnr_at  # noqa: E402
from examples.benchmark.exactness import Checked, Decoded  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from examples.benchmark.process import run  # noqa: E402
from rawcodec import SidecarInfo  # noqa: E402
from rawcodec.mosaic import Mosaic  # noqa: E402
from rawcodec.photo.raw import read_raw  # noqa: E402
from rawcodec.pipeline import mosaic_error  # noqa: E402
from rawcodec.selftest.settings import Setting, settings  # noqa: E402
from rawcodec.sensor import Sensor  # noqa: E402

XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
CFAS = {"RGGB": ("RG", "GB"), "X-Trans": XTRANS, "mono": ("G",), "linear": ()}

BASE = [Point(0.1, 40.0), Point(0.2, 43.0), Point(0.5, 46.0), Point(1.3, 50.0)]


def scaled(points: list[Point], factor: float) -> list[Point]:
    return [Point(point.bpp * factor, point.psnr) for point in points]


# curves


def test_cubic_passes_through_its_points_and_never_turns() -> None:
    rng = np.random.default_rng(1)
    for count in (2, 3, 4, 9):
        for _ in range(50):
            x, y = np.cumsum(rng.exponential(size=(2, count)) + 1e-3, axis=1)
            assert monotone(x, y, x) == pytest.approx(y)
            assert np.all(np.diff(monotone(x, y, np.linspace(x[0], x[-1], 500))) >= -1e-9)


def test_cubic_is_that_of_scipy() -> None:
    interpolate = pytest.importorskip("scipy.interpolate", reason="SciPy, to compare with")
    rng = np.random.default_rng(2)
    for count in (3, 4, 9):
        x, y = np.cumsum(rng.exponential(size=count)), rng.normal(size=count)
        at = np.linspace(x[0], x[-1], 100)
        assert monotone(x, y, at) == pytest.approx(interpolate.PchipInterpolator(x, y)(at))


def test_psnr_is_read_between_points_and_not_beyond() -> None:
    line = [Point(0.1, 40.0), Point(0.2, 43.0), Point(0.4, 46.0)]  # 3 dB an octave
    assert psnr_at(line, 0.1 * 2**0.5) == pytest.approx(41.5)
    assert psnr_at(line, 0.1) == 40.0
    assert psnr_at(line, 0.4) == 46.0
    assert psnr_at(line, 0.099) is None
    assert psnr_at(line, 0.401) is None
    assert psnr_at([], 0.1) is None


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 3.0])
def test_bd_rate_of_so_many_times_the_bits(factor: float) -> None:
    assert bd_rate(scaled(BASE, factor), BASE) == pytest.approx(factor - 1)


def test_bd_rate_counts_the_shared_psnr_alone() -> None:
    # the same from 40 to 46 dB; what one has beyond that is not compared
    line = [Point(0.1 * 2**n, 40.0 + 3 * n) for n in range(5)]
    assert bd_rate(line[:3], line) == pytest.approx(0, abs=1e-9)
    assert bd_rate(scaled(line[1:], 0.75), line[:4]) == pytest.approx(-0.25)


def test_bd_rate_of_crossing_lines() -> None:
    # the logarithms differ from -log 2 to +log 4: the mean is half of log 2
    ours, theirs = [Point(0.1, 40), Point(1.6, 46)], [Point(0.2, 40), Point(0.4, 46)]
    assert bd_rate(ours, theirs) == pytest.approx(2**0.5 - 1)


@pytest.mark.parametrize(
    "ours",
    [
        [Point(1.0, 60.0), Point(2.0, 64.0)],  # shares no PSNR
        [Point(0.1, 42.0)],
        [],
        [Point(0.1, 42.0), Point(0.2, 41.0), Point(0.3, 45.0)],  # falls
        [Point(0.1, 42.0), Point(0.2, 42.0)],
    ],
)
def test_no_bd_rate_where_there_is_none(ours: list[Point]) -> None:
    assert bd_rate(ours, BASE) is None


# stages


@pytest.mark.parametrize("stage", stages.STAGES)
def test_every_stage_is_a_function(stage: str) -> None:
    module, *path = stages.STAGES[stage]
    found = importlib.import_module(module)
    for name in path:
        found = getattr(found, name)
    assert callable(found)


def test_stages_of_the_learned_layer_are_stages() -> None:
    assert set(profile.LEARNED) < set(stages.STAGES)


# tone + JPEG 2000


def shot(name: str, height: int = 75, width: int = 90) -> tuple[Mosaic, np.ndarray]:
    """A mosaic and a prediction that misses fine detail."""
    cfa = CFAS[name]
    cells = sum(map(len, cfa)) or 3
    sensor = Sensor(width, height, cfa, tuple(200 + 9 * cell for cell in range(cells)), 16000)
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width]
    smooth = 5000 + 3000 * np.sin(x / 17) * np.cos(y / 13)
    detail = 400 * np.sin(x / 1.7 + y / 2.3) + rng.normal(size=(height, width)) * 40
    smooth, detail = (a[..., None] if sensor.linear else a for a in (smooth, detail))
    shape = np.ones(sensor.shape)
    return (
        Mosaic(np.uint16(shape * (smooth + detail)), sensor),
        np.uint16(shape * smooth),
    )


@pytest.fixture
def jpeg2000() -> None:
    pytest.importorskip("imagecodecs", reason="imagecodecs, of the extra benchmark, is not there")


@pytest.mark.usefixtures("jpeg2000")
@pytest.mark.parametrize("name", CFAS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_rest_comes_back_from_its_bytes(name: str, variant: Variant) -> None:
    mosaic, prediction = shot(name)
    rest = Rest(mosaic, prediction, variant)
    before, last = mosaic_error(mosaic, prediction)[0], 0
    # without a wavelet OpenJPEG has nothing to drop for so few dB in some pictures of one component
    for rise in (3.0, 12.0, 30.0) if variant.levels else (12.0, 30.0):
        data = rest.encode(rise)
        samples = decode(mosaic.sensor, prediction, data)
        assert samples.dtype == np.uint16
        assert samples.shape == mosaic.samples.shape
        psnr, _ = mosaic_error(mosaic, samples)
        assert len(data) > last
        assert psnr > before + 0.5
        before, last = psnr, len(data)
    start = mosaic_error(mosaic, prediction)[0]
    assert before == pytest.approx(start + 30, abs=4)


@pytest.mark.usefixtures("jpeg2000")
def test_a_curve_spans_the_rates_and_rises() -> None:
    mosaic, prediction = shot("RGGB", 160, 240)
    points = classical.curve(mosaic, prediction, 0.001, Variant())
    assert points[-1].bpp >= classical.HIGHEST
    assert all(a.bpp < b.bpp and a.psnr < b.psnr for a, b in pairwise(points))
    assert points[0].psnr >= mosaic_error(mosaic, prediction)[0]


@pytest.mark.usefixtures("jpeg2000")
def test_the_best_variant_is_that_of_the_highest_psnr() -> None:
    mosaic, prediction = shot("RGGB", 100, 150)
    compared = classical.compare(mosaic, prediction, 0.001)
    assert list(compared) == list(VARIANTS)
    best = classical.best(compared)
    top = max(scores[-1] or 0.0 for scores in compared.values())
    assert compared[best][-1] == pytest.approx(top, abs=0.5)


def test_a_crop_keeps_the_pattern() -> None:
    mosaic, prediction = shot("X-Trans")
    part, samples = classical.crop(mosaic, prediction, 40, 31)
    assert part.sensor.shape == part.samples.shape == samples.shape == (30, 36)
    # whole periods from the first site: 75 x 90 leaves 22 and 27 before it
    assert np.array_equal(part.samples, mosaic.samples[18:48, 24:60])
    assert np.array_equal(samples, prediction[18:48, 24:60])


# what the pages say

PAIR = Pair("photo", "rt", Path("photo.dng"), Path("photo.rt.jpg"))


def info(bpp: float, digest: str = "") -> SidecarInfo:
    return SidecarInfo(
        path=None,
        bytes=round(bpp * 2e6 / 8),
        bpp=bpp,
        width=2000,
        height=1000,
        cfa="RGGB",
        black=(0,) * 4,
        white=16383,
        camera="",
        model=None,
        quality="tone",
        psnr_db=40.0,
        max_error=1,
        orientation=1,
        jpeg_width=2000,
        jpeg_height=1000,
        writer="",
        format_version=1,
        jpeg_digest="",
        jpeg_stream_digest="",
        mosaic_digest=digest,
        layers={},
    )


def quality_page(tmp_path: Path, points: list[Point], draw: bool = True) -> str:
    """The page of one pair: the tone layer at 38 dB, and four qualities at the points."""
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    from examples.benchmark import quality
    from examples.benchmark.process import Run
    from rawcodec.stream.header import QUALITIES

    once = Run(1.0, 100.0, "", 1.9)
    coded = {
        name: quality.Coded(info(point.bpp), point.psnr, once, once)
        for name, point in zip(QUALITIES, [Point(0.001, 38.0), *points], strict=True)
    }
    compared: dict[Variant, list[float | None]] = {v: [41.0, 45.0, 49.0] for v in VARIANTS}
    measured = quality.Measured(PAIR, coded, compared, Variant(), BASE)
    with pytest.MonkeyPatch.context() as patch:
        if not draw:
            patch.setattr(quality, "_draw", lambda *_: None)
        quality.write([measured, measured], tmp_path)
    return (tmp_path / "quality.md").read_text(encoding="utf-8")


def test_quality_page_of_half_the_bits(tmp_path: Path) -> None:
    text = quality_page(tmp_path, scaled(BASE, 0.5))
    assert (tmp_path / "quality-curves.png").is_file()
    assert (tmp_path / "quality-mean.png").is_file()
    assert "PSNR rises from each quality to the next on all pairs (2), by 2.00 to 4.00 dB." in text
    assert "All qualities beat the tone layer alone, by 2.00 to 12.00 dB." in text
    assert "rawcodec is better than tone + JPEG 2000 of the same size at all 6 points: " in text
    assert "it needs 50% fewer bits" in text
    assert "| photo | RawTherapee | -50.0% | 40.0 to 50.0 |" in text
    assert "| n/a |" in text  # half of 0.1 bpp is less than the classical coding reaches
    assert "| 1.9 | 100 | 1.9 | 100 |" in text
    assert "encoding 1.9 s of 24, decoding 1.9 s of 10, memory 100 MB of 1500." in text


def test_a_quality_that_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the photo changes."""
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    from examples.benchmark import quality

    xtrans = ROOT / "tests" / "golden" / "xtrans.dng"
    jpeg = tmp_path / "xtrans.jpg"
    jpeg.write_bytes(xtrans.with_suffix(".jpg").read_bytes())
    pair, mosaic = Pair("xtrans", "rt", xtrans, jpeg), read_raw(xtrans).mosaic
    coded, sidecar = quality._code(pair, mosaic, "tone", tmp_path)
    decoded = rawcodec.decode(jpeg, sidecar)
    assert mosaic_error(mosaic, decoded.samples)[0] == coded.psnr
    assert [path.name for path in sidecar.parent.iterdir() if path != sidecar] == ["told.json"]
    with monkeypatch.context() as patch:
        patch.setattr(quality, "_measure", lambda *_: pytest.fail("measured again"))
        assert quality._code(pair, mosaic, "tone", tmp_path) == (coded, sidecar)
    other = tmp_path / "other.jpg"
    other.write_bytes(jpeg.read_bytes() + b"\0")
    pair = Pair("xtrans", "rt", xtrans, other)
    assert quality._code(pair, mosaic, "tone", tmp_path)[1] != sidecar


def test_quality_page_says_where_it_is_behind(tmp_path: Path) -> None:
    points = [Point(0.1, 37.5), Point(0.2, 42.0), Point(0.5, 42.0), Point(1.0, 48.0)]
    text = quality_page(tmp_path, points, draw=False)
    assert "**PSNR does not rise with quality everywhere: not on photo.rt from tone to low" in text
    assert "photo.rt from medium to high (+0.00 dB)" in text
    assert "**Not all beat the tone layer alone: -0.50 dB at the least.**" in text
    assert (
        "**rawcodec is nowhere better than tone + JPEG 2000** of the same size (8 points)" in text
    )
    assert "| photo | RawTherapee | n/a |" in text


def test_exactness_page_marks_what_differs() -> None:
    digest = hashlib.sha256(b"samples").hexdigest()
    first, second, third = Setting("default"), Setting("one", (("A", "1"),)), Setting("two")
    checked = Checked(
        PAIR,
        info(0.1, digest[:32]),
        {
            first: Decoded(digest, 1.0),
            second: Decoded(hashlib.sha256(b"others").hexdigest(), 2.0),
        },
    )
    assert [checked.exact(s) for s in (first, second)] == [True, False]
    text = exactness._page([first, second, third], [checked], "medium")
    assert "**1 of 2 decodes are not exact: photo.rt with one.** 1 were left out" in text
    assert f"| photo | RawTherapee | `{digest[:16]}` | \u2713 | **NO** | \u2013 |" in text
    checked.decoded[second] = Decoded(digest, 2.0)
    checked.decoded[third] = Decoded("", 0.0, "it broke")
    text = exactness._page([first, second, third], [checked], "medium")
    assert "photo.rt with two" in text
    assert "- photo.rt with two: it broke" in text
    del checked.decoded[third]
    assert "All 2 decodes (1 pairs, 2 settings) are exact." in exactness._page(
        [first, second], [checked], "medium"
    )


def test_configured_decoder_decodes_the_same(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tiff = tmp_path / "out.tiff"
    golden = ROOT / "tests" / "golden"
    files = [golden / "xtrans.jpg", golden / "xtrans.rmeta"]
    words = ["-m", "rawcodec.selftest.configured", "--band", "7", "decode", *files, "-o", tiff]
    assert "exact: the digest matches" in run(words).output
    assert tifffile.imread(tiff).dtype == np.uint16


def test_every_setting_has_a_name_of_its_own() -> None:
    names = [setting.name for setting in settings(("int8", "float32"))]
    assert names[0] == "default"
    assert len(set(names)) == len(names)
