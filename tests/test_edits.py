"""The benchmark of edits: its measures, the renderer, and what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Real
from dng import write_dng

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

from examples.benchmark import edits  # noqa: E402
from examples.benchmark.edits import (  # noqa: E402
    AS_SHOT,
    EDITS,
    METRICS,
    CannotRenderError,
    Edited,
    Renderer,
    Score,
    Skipped,
)
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.mosaic import Mosaic  # noqa: E402
from rawcodec.photo.raw import read_raw  # noqa: E402

PAIR = Pair("photo", "rt", ROOT / "examples" / "photo.dng", ROOT / "examples" / "photo.jpg")
OTHER = Pair("other", "dt", Path("other.dng"), Path("other.dt.jpg"))
BRIGHTER, DARKER, BALANCED = EDITS[1:]


def picture(seed: int, height: int = 27, width: int = 23) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)).astype(np.float32)


# SSIM


def ssim_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """As the paper writes it: weighted means, variances and covariance of every window."""
    distance = np.arange(11) - 5
    weights = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = (p[i : i + 11, j : j + 11].astype(np.float64) for p in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + 0.01**2)
                * (2 * covariance + 0.03**2)
                / ((mean_a**2 + mean_b**2 + 0.01**2) * (variances + 0.03**2))
            )
    return float(np.mean(found))


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_ssim_is_that_of_the_paper(noise: float) -> None:
    one = picture(1)
    other = np.clip(0.9 * one + noise * picture(2), 0, 1)
    assert edits.ssim(one, other) == pytest.approx(ssim_by_loops(one, other), abs=2e-5)


def test_ssim_is_one_of_the_same_and_falls_with_noise() -> None:
    one = picture(3, 150, 40)  # more than a band high
    values = [edits.ssim(one, one + noise * (picture(4, 150, 40) - 0.5)) for noise in (0, 0.1, 0.4)]
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values[0] > values[1] > values[2] > 0
    assert edits.ssim(one, 1 - one) < 0
    assert edits.ssim(one, picture(5, 150, 40)) == edits.ssim(picture(5, 150, 40), one)


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    a, b = (np.full((20, 30), value, np.float32) for value in (0.2, 0.6))
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert edits.ssim(a, b) == pytest.approx(expected, abs=1e-4)


def test_ssim_of_bands_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = picture(6, 143, 31), picture(7, 143, 31)
    whole = edits.ssim(one, other)
    monkeypatch.setattr(edits, "_ROWS", 7)
    assert edits.ssim(one, other) == pytest.approx(whole, abs=1e-7)


# the other measures


def test_psnr_of_a_known_error_and_of_none() -> None:
    one = np.full((70, 9, 3), 30000, np.uint16)
    other = one.copy()
    other[..., 1] += 6554  # a tenth of white, in a colour of three
    power = edits.squared_error(one, other)
    assert power == pytest.approx(0.01 / 3, rel=1e-3)
    assert edits.psnr(float(power.mean())) == pytest.approx(20 + 4.771, abs=1e-2)
    assert edits.squared_error(other, one) == pytest.approx(power)
    assert edits.psnr(0) == pytest.approx(107.12, abs=0.01)


def test_regions_are_a_quarter_and_a_tenth() -> None:
    light = np.random.default_rng(8).permutation(1000).reshape(20, 50).astype(np.float32)
    shadows, highlights = edits.regions(light)
    assert shadows.sum() == 250
    assert light[shadows].max() == 249
    assert highlights.sum() == pytest.approx(100, abs=1)
    assert light[highlights].min() == pytest.approx(900, abs=1)
    light[light > 600] = 1000  # a clipped sky: all of it is as bright as the last
    assert edits.regions(light)[1].sum() == 399


def test_luma_is_that_of_rec_709() -> None:
    colours = np.diag([65535, 65535, 65535]).astype(np.uint16)[None]
    assert edits.luma(colours)[0] == pytest.approx([0.2126, 0.7152, 0.0722])


# white balance


@pytest.mark.parametrize(
    ("kelvin", "x", "y"),
    [
        (2000, 0.5267, 0.4133),
        (2856, 0.4476, 0.4074),
        (3500, 0.4053, 0.3907),
        (5000, 0.3451, 0.3516),
        (6500, 0.3135, 0.3236),
        (10000, 0.2807, 0.2884),
    ],
)
def test_black_bodies_are_where_they_are_on_the_diagram(kelvin: float, x: float, y: float) -> None:
    xyz = edits.black_body(kelvin)
    assert xyz[1] == 1
    assert xyz[:2] / xyz.sum() == pytest.approx((x, y), abs=1e-3)


def test_a_warmer_light_is_balanced_with_more_blue_and_less_red() -> None:
    red, green, blue = edits.rebalancing(np.eye(3))
    assert red < green == 1 < blue
    assert red == edits.black_body(5000)[0] / edits.black_body(3500)[0]
    # what a camera amplifies in each colour makes no difference
    assert edits.rebalancing(np.diag([3.0, 1.0, 0.5])) == pytest.approx([red, green, blue])


def srational(matrix: np.ndarray) -> bytes:
    numbers = np.stack([np.rint(matrix.ravel() * 10000), np.full(9, 10000)], 1)
    return numbers.astype("<i4").tobytes()


def test_the_matrix_for_daylight_is_taken() -> None:
    mosaic = read_raw(PAIR.raw).mosaic
    first, second = np.eye(3), 2 * np.eye(3)

    def found(*tags: tuple[int, int, int, bytes]) -> float:
        return float(edits.colour_matrix(Mosaic(mosaic.samples, mosaic.sensor, tags=tags))[0, 0])

    both = (50721, 10, 9, srational(first)), (50722, 10, 9, srational(second))
    d65, tungsten = (np.array([n], "<u2").tobytes() for n in (21, 17))
    assert found(*both, (50778, 3, 1, d65), (50779, 3, 1, tungsten)) == 1
    assert found(*both, (50778, 3, 1, tungsten), (50779, 3, 1, d65)) == 2
    assert found(*both) == 2
    assert found(both[0]) == 1
    with pytest.raises(CannotRenderError, match="has no colour matrix"):
        found()


# the renderer


def linear(rendered: np.ndarray) -> np.ndarray:
    """Light of a rendering in sRGB, white = 1."""
    value = rendered / 65535
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def test_renderings_are_fixed_and_edited_as_they_say() -> None:
    mosaic = read_raw(PAIR.raw).mosaic
    renderer = Renderer(PAIR.raw, mosaic)
    shot = renderer.render(mosaic.samples, AS_SHOT)
    assert shot.dtype == np.uint16
    assert shot.shape == (*mosaic.samples.shape, 3)
    others = [renderer.render(mosaic.samples, edit) for edit in EDITS[1:]]
    # the samples decide, not what was rendered before
    changed = mosaic.samples.copy()
    changed[500:510, 700:710] += 3000
    assert (np.abs(renderer.render(changed, AS_SHOT) - shot.astype(int)).any(2)).sum() >= 100
    assert np.array_equal(renderer.render(mosaic.samples, AS_SHOT), shot)
    renderer.close()

    brighter, darker, balanced = (linear(other) for other in others)
    light = linear(shot)
    dim = (light < 0.2).all(2) & (light > 0.02).all(2)
    assert dim.mean() > 0.2
    assert np.median(brighter[dim] / light[dim]) == pytest.approx(4, rel=0.01)
    assert np.median(darker[dim] / light[dim]) == pytest.approx(0.5, rel=0.01)
    ratio = np.median(balanced[dim] / light[dim], axis=0)
    assert ratio[0] / ratio[1] < 0.95 < 1.05 < ratio[2] / ratio[1]  # bluer


def test_the_original_scores_full_marks_and_noise_does_not() -> None:
    mosaic = read_raw(PAIR.raw).mosaic
    renderer = Renderer(PAIR.raw, mosaic)
    original = edits.Original(renderer, mosaic.samples)
    same = original.score(mosaic.samples, BRIGHTER)
    assert same.psnr == same.shadows == same.highlights == edits.psnr(0)
    assert same.ssim == pytest.approx(1, abs=1e-5)
    noise = np.random.default_rng(9).normal(0, 30, mosaic.samples.shape)
    noisy = np.clip(np.rint(mosaic.samples + noise), 0, 16383).astype(np.uint16)
    shot, brighter, darker, _ = (original.score(noisy, edit) for edit in EDITS)
    # gamma makes the same noise weigh more in the dark
    assert brighter.psnr < shot.psnr < darker.psnr < 60
    assert shot.shadows < shot.psnr < shot.highlights
    assert brighter.ssim < shot.ssim < darker.ssim < 1
    renderer.close()


def test_every_real_camera_can_be_edited(real: Real) -> None:
    for name in ("NikonD1.nef", "GPFR7066.dng"):
        mosaic = read_raw(real(name)).mosaic
        renderer = Renderer(real(name), mosaic)
        red, green, blue = renderer.rebalancing
        assert 0.6 < red < 0.9 < green == 1 < 1.1 < blue < 1.6
        assert (renderer.multipliers >= 1).all()
        renderer.close()


# the page


def score(level: float) -> Score:
    return Score(level, 1 - 10 ** (-level / 20), level - 2, level + 3)


def edited(pair: Pair, levels: dict[str, float]) -> Edited:
    scores = {
        quality: {edit: score(level - number) for number, edit in enumerate(EDITS)}
        for quality, level in levels.items()
    }
    return Edited(pair, dict.fromkeys(levels, 0.25), scores)


def page(
    tmp_path: Path, measured: list[Edited], monkeypatch: pytest.MonkeyPatch, *skipped: Skipped
) -> str:
    monkeypatch.setattr(edits, "_draw", lambda *_: None)
    balances = {"photo": (np.array([2, 1, 1.5]), np.array([0.8, 1, 1.3]))}
    edits.write(measured, skipped, balances, tmp_path)
    return (tmp_path / "edits.md").read_text(encoding="utf-8")


LEVELS = {"tone": 36.0, "low": 40.0, "medium": 42.5}


def test_page_of_qualities_that_improve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = {quality: level + 2 for quality, level in LEVELS.items()}
    text = page(tmp_path, [edited(PAIR, LEVELS), edited(OTHER, better)], monkeypatch)
    assert "as shot 37.0 to 43.5 dB (shadows 35.0 to 41.5, highlights 40.0 to 46.5; SSIM" in text
    for name in METRICS.values():
        assert f"{name} improves with every edit on all 2 pairs, by " in text
    assert "PSNR in shadows improves with every edit on all 2 pairs, by 2.500 or more." in text
    assert "**" not in text
    assert "| `low` | -1 EV | 39.00 | 0.9887 | 37.00 | 42.00 |" in text
    assert "| other | darktable | `tone` | 0.2500 | 38.00 / " in text
    assert "| photo | 2.000, 1.000, 1.500 | 0.800, 1.000, 1.300 |" in text
    assert "Left out" not in text


def test_page_names_what_falls_and_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = edited(OTHER, LEVELS)
    worse.scores["low"][DARKER] = Score(30, 0.9, 38, 50)
    text = page(
        tmp_path,
        [edited(PAIR, LEVELS), worse],
        monkeypatch,
        Skipped("third", "has no colour matrix, which another white balance needs"),
    )
    assert (
        "**PSNR improves with every edit on 1 of 2 pairs** (as shot 2, +2 EV 2, -1 EV 1, white "
        "balance 2; 1 of 16 steps do not: other.dt -1 EV from tone to low (-4.000))."
    ) in text
    assert "**SSIM improves with every edit on 1 of 2 pairs**" in text
    assert "PSNR in shadows improves with every edit on all 2 pairs" in text
    assert "**PSNR in highlights improves with every edit on 1 of 2 pairs**" in text
    assert "other.dt -1 EV from low to medium" in text
    assert "- third: the raw has no colour matrix" in text


def test_nothing_left_to_improve_is_no_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = Score(edits.psnr(0), 1.0, edits.psnr(0), edits.psnr(0))
    measured = edited(PAIR, LEVELS)
    measured.scores["low"][BRIGHTER] = measured.scores["medium"][BRIGHTER] = perfect
    text = page(tmp_path, [measured], monkeypatch)
    assert "**" not in text


def test_one_quality_of_a_pair_beside_a_raw_without_a_matrix(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    samples = np.full((64, 64), 800, np.uint16)
    bare = write_dng(tmp_path / "bare.dng", samples, color_matrix=None)
    grey = write_dng(tmp_path / "grey.dng", samples, ("G",))
    pairs = [Pair("bare", "rt", bare, PAIR.jpeg), PAIR, Pair("grey", "rt", grey, PAIR.jpeg)]
    edits.run_all(pairs, tmp_path / "out", ("tone",))
    text = (tmp_path / "out" / "edits.md").read_text(encoding="utf-8")
    assert "of 1 pairs against the edited raw, `tone`: as shot " in text
    assert "- bare: the raw has no colour matrix, which another white balance needs" in text
    assert "- grey: the raw is monochrome" in text
    assert "| photo | RawTherapee | `tone` |" in text
    assert (tmp_path / "out" / "edits.png").stat().st_size > 10_000
