"""Geometry in integers: orientations, the interpolation kernel, and the JPEG over the sites."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rawcodec.photo.align import (
    FRACTION_BITS,
    GUIDE_MAX,
    MAX_STEP,
    MIN_STEP,
    Alignment,
    Guide,
    kernel,
    orient,
)

ONE = 1 << FRACTION_BITS
ORIGIN_LIMIT = 1 << (16 + FRACTION_BITS)
PLAIN = Alignment(1, ONE, 0, ONE, 0)

steps = st.integers(MIN_STEP, MAX_STEP)
origins = st.integers(1 - ORIGIN_LIMIT, ORIGIN_LIMIT - 1)
alignments = st.builds(Alignment, st.integers(1, 8), steps, origins, steps, origins)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# The stored numbers


@given(alignments)
def test_packed_and_unpacked_is_the_same(alignment: Alignment):
    data = alignment.pack()
    assert len(data) == Alignment.SIZE
    assert Alignment.unpack(data) == alignment


def test_packed_bytes_are_as_specified():
    alignment = Alignment(6, ONE // 2, -4 << FRACTION_BITS, ONE, 1)
    expected = bytes.fromhex("06 00008000 000000fcffffffff 00000001 0100000000000000")
    assert alignment.pack() == expected


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        (0, 0, "orientation 0"),
        (0, 9, "orientation 9"),
        (1, 0, "scale"),
        (1, MIN_STEP - 1, "scale"),
        (3, MAX_STEP + 1, "scale"),
        (3, 0xFFFFFFFF, "scale"),
        (2, ORIGIN_LIMIT, "offset"),
        (2, -ORIGIN_LIMIT, "offset"),
        (4, -(1 << 63), "offset"),
        (4, (1 << 63) - 1, "offset"),
    ],
)
def test_a_field_out_of_range_is_refused(field: int, value: int, fault: str):
    fields = [1, ONE, 0, ONE, 0]
    fields[field] = value
    with pytest.raises(ValueError, match=fault):
        Alignment.unpack(struct.pack("<BIqIq", *fields))


@pytest.mark.parametrize("size", [0, 24, 26])
def test_a_wrong_length_is_refused(size: int):
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Alignment.unpack(PLAIN.pack().ljust(size, b"\0")[:size])


def test_fixed_point_keeps_positions_to_a_256th_of_a_pixel_over_the_widest_raw():
    for scale in (1 / 3, 0.7, 2 / 3, 0.9999, 1.01):
        alignment = Alignment.from_floats(1, scale, -4.3, scale, 7.1)
        for site in (0, 1, 65534):
            assert abs(alignment.position_x(site) - (scale * site - 4.3)) < 1 / 256
            assert abs(alignment.position_y(site) - (scale * site + 7.1)) < 1 / 256
        assert alignment.scale == pytest.approx((scale, scale), abs=1e-7)


# Orientations


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_mean_what_exif_says(orientation: int):
    pixels = picture(5, 7)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(orient(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orienting_copies_nothing(orientation: int):
    pixels = picture(5, 7)
    assert np.shares_memory(orient(pixels, orientation), pixels)
    assert np.array_equal(
        orient(pixels[:, :, 1], orientation), orient(pixels, orientation)[:, :, 1]
    )


# The kernel


def test_kernel_rows_sum_to_256():
    assert kernel().shape == (64, 6)
    assert kernel().dtype == np.int32
    assert (kernel().sum(axis=1) == 256).all()


def test_kernel_on_a_pixel_is_that_pixel():
    assert kernel()[0].tolist() == [0, 0, 256, 0, 0, 0]


def test_kernel_is_symmetric():
    for phase in range(1, 64):
        assert kernel()[phase].tolist() == kernel()[64 - phase][::-1].tolist()


def test_kernel_is_keys_six_point_cubic():
    def keys(distance: float) -> float:
        d = abs(distance)
        if d < 1:
            return 4 / 3 * d**3 - 7 / 3 * d**2 + 1
        if d < 2:
            return -7 / 12 * d**3 + 3 * d**2 - 59 / 12 * d + 5 / 2
        if d < 3:
            return 1 / 12 * d**3 - 2 / 3 * d**2 + 7 / 4 * d - 3 / 2
        return 0.0

    for phase in range(64):
        for tap in range(6):
            exact = 256 * keys(tap - 2 - phase / 64)
            assert abs(kernel()[phase, tap] - exact) < 2.5, (phase, tap)


@pytest.mark.parametrize(
    ("phase", "row"),
    [
        (1, [0, -3, 256, 3, 0, 0]),
        (8, [2, -17, 248, 27, -4, 0]),
        (16, [3, -25, 224, 64, -11, 1]),
        (32, [3, -24, 149, 149, -24, 3]),
        (63, [0, 0, 3, 256, -3, 0]),
    ],
)
def test_kernel_has_these_weights(phase: int, row: list[int]):
    """Sidecars depend on every weight: a change is a new format."""
    assert kernel()[phase].tolist() == row


# The JPEG over the sites


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (-4, -4), (3, -2), (-1, 5)])
def test_an_integer_shift_gives_the_jpegs_own_pixels(dx: int, dy: int):
    pixels = picture(40, 50)
    alignment = Alignment(1, ONE, dx << FRACTION_BITS, ONE, dy << FRACTION_BITS)
    got = Guide(pixels, alignment, -2, 52).band(-2, 42)
    rows = np.clip(np.arange(-2, 42) + dy, 0, 39)
    columns = np.clip(np.arange(-2, 52) + dx, 0, 49)
    expected = pixels[np.ix_(rows, columns)].transpose(2, 0, 1).astype(int) * 16
    assert got.dtype == np.int16
    assert np.array_equal(got, expected)


@settings(max_examples=60, deadline=None)
@given(
    steps,
    st.integers(-20 * ONE, 20 * ONE),
    st.lists(st.integers(-9, 39), max_size=5, unique=True),
)
def test_bands_do_not_change_the_guide(step: int, origin: int, cuts: list[int]):
    pixels = picture(24, 31)
    guide = Guide(pixels, Alignment(1, step, origin, step, origin), -2, 33)
    whole = guide.band(-10, 40)
    edges = [-10, *sorted(cuts), 40]
    parts = [guide.band(a, b) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@settings(max_examples=40, deadline=None)
@given(steps, steps, st.integers(-20 * ONE, 20 * ONE), st.integers(-20 * ONE, 20 * ONE))
def test_the_guide_stays_in_range_at_the_hardest_edges(sx: int, sy: int, ox: int, oy: int):
    pixels = (picture(24, 31) > 127).astype(np.uint8) * 255
    band = Guide(pixels, Alignment(1, sx, ox, sy, oy), -2, 33).band(-2, 30)
    assert band.min() >= 0
    assert band.max() <= GUIDE_MAX
    assert np.abs(band - _reference(pixels, Alignment(1, sx, ox, sy, oy), 33, 30)).max() <= 1.2


@pytest.mark.parametrize("scale", [0.5, 0.25, 2 / 3, 0.9173, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, -3.37])
def test_the_guide_is_the_kernels_sum_to_within_rounding(scale: float, shift: float):
    """Two passes round by half a unit each, the first amplified by the second's weights."""
    pixels = picture(60, 80)
    alignment = Alignment.from_floats(1, scale, shift, scale, -shift)
    got = Guide(pixels, alignment, -2, 82).band(-2, 62)
    assert np.abs(got - _reference(pixels, alignment, 82, 62)).max() <= 1.2


def _reference(pixels: np.ndarray, alignment: Alignment, right: int, bottom: int) -> np.ndarray:
    """The guide from column and row -2 on, by matrices of kernel weights in float64."""

    def matrix(step: int, origin: int, end: int, size: int) -> np.ndarray:
        weights = np.zeros((end + 2, size))
        for row, site in enumerate(range(-2, end)):
            sixty_fourths = (step * site + origin) * 64 / ONE
            whole, phase = divmod(int(np.floor(sixty_fourths + 0.5)), 64)
            for tap in range(6):
                pixel = min(max(whole + tap - 2, 0), size - 1)
                weights[row, pixel] += kernel()[phase, tap] / 256
        return weights

    across = matrix(alignment.step_x, alignment.origin_x, right, pixels.shape[1])
    down = matrix(alignment.step_y, alignment.origin_y, bottom, pixels.shape[0])
    total = np.einsum("yr,rcp,xc->pyx", down, pixels.astype(np.float64), across, optimize=True)
    return np.clip(16 * total, 0, GUIDE_MAX)


@pytest.mark.parametrize("scale", [0.7, 1 / 3, 0.985])
def test_a_ramp_stays_a_ramp(scale: float):
    """Weights of 1/256 and 64 phases misplace a ramp by less than 1/50 of a pixel."""
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[:, :, 0] = 2 * np.arange(120)
    pixels[:, :, 1] = 2 * np.arange(100)[:, None]
    alignment = Alignment.from_floats(1, scale, 5.3, scale, 6.8)
    band = Guide(pixels, alignment, 0, 80).band(0, 80)
    sites = np.arange(80)
    u, v = scale * sites + 5.3, scale * sites + 6.8
    assert np.abs(band[0] - 32 * u)[:, u < 116].max() < 2
    assert np.abs(band[1] - 32 * v[:, None])[v < 96].max() < 2
    assert not band[2].any()


def test_sites_outside_the_jpeg_see_its_nearest_edge_pixel():
    pixels = picture(20, 30)
    alignment = Alignment.from_floats(1, 0.5, -10.25, 0.5, -10.25)
    band = Guide(pixels, alignment, -2, 120).band(-2, 100)
    corner = pixels[0, 0].astype(int) * 16
    assert np.array_equal(band[:, 0, 0], corner)
    assert np.array_equal(band[:, 10, 10], corner)
    assert np.array_equal(band[:, -1, -1], pixels[-1, -1].astype(int) * 16)
    assert np.array_equal(band[:, -1, 0], pixels[-1, 0].astype(int) * 16)


# Coverage


@given(
    steps,
    st.integers(-60 * ONE, 60 * ONE),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 6),
)
def test_covered_sites_are_those_within_the_margin_of_the_jpegs_pixels(
    step: int, origin: int, sites: int, pixels: int, margin: int
):
    alignment = Alignment(1, step, origin, ONE, 0)
    left, top, right, bottom = alignment.covered(sites, 10, pixels, 10, margin)
    first, last = -margin * step, ((pixels - 1) << FRACTION_BITS) + margin * step
    expected = [x for x in range(sites) if first <= step * x + origin <= last]
    assert list(range(left, right)) == expected
    assert 0 <= left <= right <= sites
    assert (top, bottom) == (0, 10)


def test_rows_and_columns_are_covered_alike():
    alignment = Alignment(1, ONE // 2, -3 * ONE, ONE, 5 * ONE)
    turned = Alignment(1, ONE, 5 * ONE, ONE // 2, -3 * ONE)
    left, top, right, bottom = alignment.covered(70, 50, 40, 30, 2)
    assert turned.covered(50, 70, 30, 40, 2) == (top, left, bottom, right)
    assert (left, top, right, bottom) == (4, 0, 70, 27)


def test_a_crop_within_the_margin_covers_everything():
    crop = Alignment(1, ONE, -4 * ONE, ONE, -4 * ONE)
    assert crop.covered(100, 80, 92, 72, 4) == (0, 0, 100, 80)
    assert crop.covered(100, 80, 92, 72, 3) == (1, 1, 99, 79)
