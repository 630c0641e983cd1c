"""The two rivals without a network: samples on a grid, and one map of colours."""

from __future__ import annotations

import binascii
import io
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from pairs import scene
from PIL import Image

from examples.baselines.interface import WHITE, System, pixels, psnr
from examples.baselines.nguyen_brown import LIMIT, NguyenBrown
from examples.baselines.sam import LINEAR, SAM

SIZE = (96, 128)
KINDS = ("png", "jpeg")
RATES = (0.2, 0.75, 2.0)
SYSTEMS: dict[str, Callable[[], System]] = {
    "sam": lambda: SAM(0.75),
    "untuned": lambda: SAM(0.75, tuned=False),
    "nguyen": lambda: NguyenBrown(500),
}


def file(shown: np.ndarray, kind: str = "png") -> bytes:
    data = io.BytesIO()
    options = {"quality": 30} if kind == "jpeg" else {}
    Image.fromarray(shown).save(data, kind, **options)
    return data.getvalue()


def render(raw: np.ndarray) -> np.ndarray:
    """White balance, a matrix, a highlight that clips, and a tone curve that is not sRGB's."""
    balanced = raw / WHITE * (2.0, 1.0, 1.6)
    matrix = np.array([[1.5, -0.4, -0.1], [-0.2, 1.4, -0.2], [0.0, -0.5, 1.5]])
    light = np.clip(1.2 * balanced @ matrix.T, 0, 1)
    toned = light ** (1 / 2.2)
    return np.round(255 * (toned + 0.6 * toned * (1 - toned) * (toned - 0.4))).astype(np.uint8)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, dict[str, bytes]]:
    """A raw of smooth colours, texture and some noise, darker to one side than its picture."""
    smooth = np.kron(scene(6, 8, seed=3), np.ones((16, 16, 1)))
    for axis in (0, 1):
        smooth = sum(np.roll(smooth, step, axis) for step in range(-8, 9)) / 17
    light = (0.8 * smooth + 0.2 * scene(*SIZE, seed=3)) * (0.45, 0.8, 0.5)
    raw = WHITE * light + np.random.default_rng(4).normal(0, 60, light.shape)
    raw = np.round(np.clip(raw, 0, WHITE)).astype(np.uint16)
    shown = render(raw)
    shaded = np.round(raw * np.linspace(1, 0.85, SIZE[1])[:, None]).astype(np.uint16)
    return shaded, {kind: file(shown, kind) for kind in KINDS}


def trivial(raw: np.ndarray, picture: bytes) -> float:
    """PSNR of the best matrix of the picture's linear light, by which rivals are to do better."""
    light = LINEAR[pixels(picture)].reshape(-1, 3)
    matrix = np.linalg.lstsq(light, raw.reshape(-1, 3).astype(float), None)[0]
    return psnr(raw, np.clip(light @ matrix, 0, WHITE).reshape(raw.shape))


def signed(data: bytes) -> bytes:
    """Altered data with a check sum that is right again."""
    if data.startswith(b"SM"):
        crc = binascii.crc_hqx(data[:11] + data[13:], 0)
        return data[:11] + crc.to_bytes(2, "little") + data[13:]
    return data[:14] + zlib.crc32(data[:14] + data[18:]).to_bytes(4, "little") + data[18:]


# Quality and rate


@pytest.mark.parametrize(("kind", "margin"), [("png", 10), ("jpeg", 1.5)])
def test_sam_is_better_than_a_matrix_and_better_for_more(pair, kind: str, margin: float):
    raw, pictures = pair
    picture = pictures[kind]
    found = []
    for rate in RATES:
        data = SAM(rate).encode(raw, picture)
        assert 0.9 * rate < 8 * len(data) / (raw.size // 3) <= rate
        # what decodes knows nothing of the rate
        decoded = SAM(1.0).decode(data, picture)
        assert decoded.dtype == np.uint16
        assert decoded.shape == raw.shape
        found.append(psnr(raw, decoded))
    assert found == sorted(found)
    assert found[0] > trivial(raw, picture)
    assert found[1] > trivial(raw, picture) + margin


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_were_chosen_are_better_than_the_plain_ones(pair, kind: str):
    raw, pictures = pair
    plain, chosen = (
        psnr(raw, system.decode(system.encode(raw, pictures[kind]), pictures[kind]))
        for system in (SAM(0.5, tuned=False), SAM(0.5))
    )
    assert chosen > plain


@pytest.mark.parametrize(("kind", "margin"), [("png", 4), ("jpeg", 1.5)])
def test_one_map_of_colours_is_better_than_a_matrix(pair, kind: str, margin: float):
    raw, pictures = pair
    picture = pictures[kind]
    data = NguyenBrown(500).encode(raw, picture)
    assert len(data) < LIMIT
    decoded = NguyenBrown().decode(data, picture)
    assert decoded.dtype == np.uint16
    assert psnr(raw, decoded) > trivial(raw, picture) + margin


def test_more_control_points_are_better_and_cost_more(pair):
    raw, pictures = pair
    files = [NguyenBrown(points).encode(raw, pictures["png"]) for points in (8, 64, 512)]
    assert [len(data) for data in files] == sorted(len(data) for data in files)
    found = [psnr(raw, NguyenBrown().decode(data, pictures["png"])) for data in files]
    assert found == sorted(found)


def test_the_inverse_tone_curve_needs_no_control_points():
    """A raw that is the model's, but for rounding: curve and matrix alone give it back."""
    shown = np.random.default_rng(0).integers(1, 255, (64, 64, 3)).astype(np.uint8)
    light = (shown / 255) ** 1.7
    raw = light @ np.array([[0.5, 0.1, 0.0], [0.1, 0.7, 0.1], [0.0, 0.2, 0.5]]).T
    raw = np.round(raw * 60000).astype(np.uint16)
    picture = file(shown)
    data = NguyenBrown(1).encode(raw, picture)
    assert psnr(raw, NguyenBrown().decode(data, picture)) > 60


def test_the_limit_holds_for_noise():
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 65536, (128, 160, 3)).astype(np.uint16)
    shown = rng.integers(0, 256, raw.shape).astype(np.uint8)
    assert len(NguyenBrown().encode(raw, file(shown))) < LIMIT


# What is unusual


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (3, 2), (37, 61)])
def test_any_size(system: str, shape: tuple[int, int]):
    raw = np.random.default_rng(1).integers(0, 65536, (*shape, 3)).astype(np.uint16)
    picture = file(render(raw))
    made = SYSTEMS[system]()
    decoded = made.decode(made.encode(raw, picture), picture)
    assert decoded.dtype == np.uint16
    assert decoded.shape == raw.shape


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("level", [0, 100, 255])
@pytest.mark.parametrize("value", [0, 20000, 65535])
def test_flat_pictures_of_flat_raws_are_exact(no_overflow, system: str, level: int, value: int):
    raw = np.full((20, 30, 3), value, np.uint16)
    picture = file(np.full(raw.shape, level, np.uint8))
    made = SYSTEMS[system]()
    decoded = made.decode(made.encode(raw, picture), picture)
    assert np.abs(decoded.astype(int) - value).max() <= 1


@pytest.mark.parametrize("tuned", [True, False])
def test_places_tell_what_a_flat_picture_does_not(no_overflow, tuned: bool):
    """Colours have no part in it, so the affine part has no unique solution."""
    down, across = np.mgrid[:60, :80]
    raw = np.stack([400 * down, 500 * across, 100 * (down + across)], 2).astype(np.uint16)
    picture = file(np.full(raw.shape, 200, np.uint8))
    system = SAM(0.75, tuned)
    assert psnr(raw, system.decode(system.encode(raw, picture), picture)) > 60


@pytest.mark.parametrize("system", SYSTEMS)
def test_greys_and_clipped_areas(no_overflow, system: str):
    """Colours on one line, half of them the same: singular, but for the ridge."""
    raw = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], 48, 0)
    raw = np.repeat(raw, 3, 2)
    shown = np.minimum(255, raw // 128).astype(np.uint8)
    picture = file(shown)
    made = SYSTEMS[system]()
    decoded = made.decode(made.encode(raw, picture), picture)
    assert psnr(raw[:, :32], decoded[:, :32]) > 38


def test_a_rate_that_pays_for_all_samples_gives_the_raw_back():
    raw = np.random.default_rng(5).integers(0, 65536, (13, 17, 3)).astype(np.uint16)
    picture = file(render(raw))
    decoded = SAM(100).decode(SAM(100).encode(raw, picture), picture)
    assert np.abs(decoded.astype(int) - raw).max() <= 1


def test_a_picture_too_small_for_its_rate_gets_nine_samples():
    raw = np.full((20, 20, 3), 5, np.uint16)
    raw[::2] = 60000
    assert len(SAM(1e-3).encode(raw, file(render(raw)))) <= 13 + 9 * 6


# Data


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_each_time(pair, system: str):
    raw, pictures = pair
    picture = pictures["jpeg"]
    data = SYSTEMS[system]().encode(raw, picture)
    assert SYSTEMS[system]().encode(raw.copy(), picture) == data
    first = SYSTEMS[system]().decode(data, picture)
    assert np.array_equal(first, SYSTEMS[system]().decode(data, picture))


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_damaged_is_refused(pair, system: str):
    raw, pictures = pair
    picture = pictures["png"]
    made = SYSTEMS[system]()
    data = made.encode(raw, picture)
    for size in (*range(70), len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="truncated"):
            made.decode(data[:size], picture)
    with pytest.raises(ValueError, match="damaged"):
        made.decode(data + b"\0", picture)
    for position in (*range(60), *range(60, len(data), 37)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"damaged|not written|the data are for|control"):
            made.decode(bytes(altered), picture)


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_has_a_right_sum_but_makes_no_sense_is_refused(pair, system: str):
    raw, pictures = pair
    picture = pictures["png"]
    made = SYSTEMS[system]()
    data = made.encode(raw, picture)
    # rows and columns of picture and grid; rows, columns and control points
    for position in range(2, 10) if data.startswith(b"SM") else (4, 5, 6, 7, 12, 13):
        altered = bytearray(data)
        altered[position] ^= 0x55
        with pytest.raises(ValueError):
            made.decode(signed(bytes(altered)), picture)
    for size in (0, 1, 10, 40, len(data) - 19):
        with pytest.raises(ValueError):
            made.decode(signed(data[: 18 + size]), picture)
    with pytest.raises(ValueError):
        made.decode(signed(data[:60] + b"\xff" * (len(data) - 60)), picture)


@pytest.mark.parametrize("system", SYSTEMS)
def test_other_data_and_other_pictures_are_refused(pair, system: str):
    raw, pictures = pair
    made = SYSTEMS[system]()
    other = next(
        build for name, build in SYSTEMS.items() if (name == "nguyen") != (system == "nguyen")
    )()
    with pytest.raises(ValueError, match="not written by"):
        made.decode(other.encode(raw, pictures["png"]), pictures["png"])
    data = made.encode(raw, pictures["png"])
    with pytest.raises(ValueError, match="the data are for 96 x 128 pixels"):
        made.decode(data, file(np.zeros((128, 96, 3), np.uint8)))


def test_control_points_belong_to_one_picture(pair):
    raw, pictures = pair
    data = NguyenBrown(500).encode(raw, pictures["png"])
    with pytest.raises(ValueError, match="another"):
        NguyenBrown().decode(data, file(np.zeros(raw.shape, np.uint8)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_raws_that_do_not_fit_their_picture_are_refused(pair, system: str):
    raw, pictures = pair
    for wrong in (raw[:-1], raw.astype(np.float32), raw[..., 0]):
        with pytest.raises(ValueError, match="for a picture of"):
            SYSTEMS[system]().encode(wrong, pictures["png"])


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_rates_are_positive(rate: float):
    with pytest.raises(ValueError, match="positive"):
        SAM(rate)


@pytest.mark.parametrize("points", [0, 4097])
def test_control_points_are_limited(points: int):
    with pytest.raises(ValueError, match="control points"):
        NguyenBrown(points)
