"""Geometry in integers: orientations, the interpolation kernel, and the JPEG over the sites."""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rawcodec.photo.align import (
    CONE_TERMS,
    FRACTION_BITS,
    GUIDE_MAX,
    MAX_STEP,
    MIN_STEP,
    TERMS,
    Alignment,
    Guide,
    Lateral,
    Warp,
    kernel,
    orient,
)

ONE = 1 << FRACTION_BITS
ORIGIN_LIMIT = 1 << (16 + FRACTION_BITS)
PLAIN = Alignment(1, ONE, 0, ONE, 0)
FLAT = Warp((0,) * len(TERMS), (0,) * len(TERMS))

steps = st.integers(MIN_STEP, MAX_STEP)
origins = st.integers(1 - ORIGIN_LIMIT, ORIGIN_LIMIT - 1)
coefficients = st.integers(-(1 << 31), (1 << 31) - 1)
SIZES = len(TERMS), len(TERMS) + len(CONE_TERMS)
wild_warps = st.sampled_from(SIZES).flatmap(
    lambda n: st.builds(Warp, *[st.tuples(*[coefficients] * n)] * 2)
)
laterals = st.builds(Lateral, *[st.tuples(*[coefficients] * 4)] * 2)
alignments = st.builds(
    Alignment,
    st.integers(1, 8),
    *(steps, origins) * 2,
    st.none() | wild_warps,
    st.none() | laterals,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# The stored numbers


@given(alignments)
def test_packed_and_unpacked_is_the_same(alignment: Alignment):
    data = alignment.pack()
    warp = 0 if alignment.warp is None else 8 * len(alignment.warp.x)
    assert len(data) == 26 + warp + (0 if alignment.lateral is None else 32)
    assert Alignment.unpack(data) == alignment


def test_packed_bytes_are_as_specified():
    alignment = Alignment(6, ONE // 2, -4 << FRACTION_BITS, ONE, 1)
    expected = bytes.fromhex("06 00008000 000000fcffffffff 00000001 0100000000000000 00")
    assert alignment.pack() == expected
    warp = Warp(tuple(range(-5, 16)), (-(1 << 31), *[0] * 19, (1 << 31) - 1))
    warped = dataclasses.replace(alignment, warp=warp)
    numbers = [*range(-5, 16), -(1 << 31), *[0] * 19, (1 << 31) - 1]
    assert warped.pack() == expected[:-1] + b"\1" + struct.pack("<42i", *numbers)
    cone = dataclasses.replace(alignment, warp=Warp(tuple(range(30)), tuple(range(30, 60))))
    assert cone.pack() == expected[:-1] + b"\2" + struct.pack("<60i", *range(60))
    shifts = struct.pack("<8i", *range(-4, 4))
    lateral = Lateral((-4, -3, -2, -1), (0, 1, 2, 3))
    assert dataclasses.replace(alignment, lateral=lateral).pack() == expected[:-1] + b"\4" + shifts
    assert dataclasses.replace(warped, lateral=lateral).pack() == (
        expected[:-1] + b"\5" + struct.pack("<42i", *numbers) + shifts
    )


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
    fields = [1, ONE, 0, ONE, 0, 0]
    fields[field] = value
    with pytest.raises(ValueError, match=fault):
        Alignment.unpack(struct.pack("<BIqIqB", *fields))
    fields[5] = 1
    with pytest.raises(ValueError, match=fault):
        Alignment.unpack(struct.pack("<BIqIqB42i", *fields, *[0] * 42))


@pytest.mark.parametrize("size", [0, 25, 27, 194])
def test_a_wrong_length_is_refused(size: int):
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Alignment.unpack(PLAIN.pack().ljust(size, b"\0")[:size])


@pytest.mark.parametrize("size", [26, 27, 193, 195])
def test_a_wrong_length_is_refused_of_a_warp(size: int):
    data = dataclasses.replace(PLAIN, warp=FLAT).pack()
    assert Alignment.unpack(data).warp == FLAT
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Alignment.unpack(data.ljust(size, b"\0")[:size])


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6, 7, 8, 128, 255])
def test_a_kind_that_is_unknown_or_of_another_length_is_refused(kind: int):
    data = dataclasses.replace(PLAIN, warp=FLAT).pack()
    for size in (26, 194):
        with pytest.raises(ValueError):
            Alignment.unpack(data[:25] + bytes([kind]) + data[26:size])


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
    got = Guide(pixels, alignment, 50, 40, 2).band(-2, 42)
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
    guide = Guide(pixels, Alignment(1, step, origin, step, origin), 31, 30, 2)
    check_bands(guide, cuts)


def check_bands(guide: Guide, cuts: list[int]) -> None:
    """The rows -10 to 39 are the same whatever bands they are computed in."""
    whole = guide.band(-10, 40)
    edges = [-10, *sorted(cuts), 40]
    parts = [guide.band(a, b) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@settings(max_examples=40, deadline=None)
@given(steps, steps, st.integers(-20 * ONE, 20 * ONE), st.integers(-20 * ONE, 20 * ONE))
def test_the_guide_stays_in_range_at_the_hardest_edges(sx: int, sy: int, ox: int, oy: int):
    pixels = (picture(24, 31) > 127).astype(np.uint8) * 255
    band = Guide(pixels, Alignment(1, sx, ox, sy, oy), 31, 28, 2).band(-2, 30)
    assert band.min() >= 0
    assert band.max() <= GUIDE_MAX
    assert np.abs(band - _reference(pixels, Alignment(1, sx, ox, sy, oy), 33, 30)).max() <= 1.2


@pytest.mark.parametrize("scale", [0.5, 0.25, 2 / 3, 0.9173, 1.0])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, -3.37])
def test_the_guide_is_the_kernels_sum_to_within_rounding(scale: float, shift: float):
    """Two passes round by half a unit each, the first amplified by the second's weights."""
    pixels = picture(60, 80)
    alignment = Alignment.from_floats(1, scale, shift, scale, -shift)
    got = Guide(pixels, alignment, 80, 60, 2).band(-2, 62)
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
    band = Guide(pixels, alignment, 80, 80, 0).band(0, 80)
    sites = np.arange(80)
    u, v = scale * sites + 5.3, scale * sites + 6.8
    assert np.abs(band[0] - 32 * u)[:, u < 116].max() < 2
    assert np.abs(band[1] - 32 * v[:, None])[v < 96].max() < 2
    assert not band[2].any()


def test_sites_outside_the_jpeg_see_its_nearest_edge_pixel():
    pixels = picture(20, 30)
    alignment = Alignment.from_floats(1, 0.5, -10.25, 0.5, -10.25)
    band = Guide(pixels, alignment, 118, 98, 2).band(-2, 100)
    corner = pixels[0, 0].astype(int) * 16
    assert np.array_equal(band[:, 0, 0], corner)
    assert np.array_equal(band[:, 10, 10], corner)
    assert np.array_equal(band[:, -1, -1], pixels[-1, -1].astype(int) * 16)
    assert np.array_equal(band[:, -1, 0], pixels[-1, 0].astype(int) * 16)


# Which sites the JPEG reaches


def reached_by_the_document(
    alignment: Alignment, width: int, height: int, jpeg: tuple[int, int], margin: int
) -> np.ndarray:
    """Site by site, in Python's integers."""
    result = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            u, v = exact_position(alignment, x, y, width, height)
            across = -margin * alignment.step_x, margin * alignment.step_x + (jpeg[0] - 1) * ONE
            down = -margin * alignment.step_y, margin * alignment.step_y + (jpeg[1] - 1) * ONE
            result[y, x] = across[0] <= u <= across[1] and down[0] <= v <= down[1]
    return result


def check_reached(
    alignment: Alignment, width: int, height: int, jpeg: tuple[int, int], margin: int
) -> None:
    expected = reached_by_the_document(alignment, width, height, jpeg, margin)
    got = alignment.reached(width, height, *jpeg, margin)
    if expected.all():
        assert got is None
    else:
        assert got is not None
        assert got.dtype == bool
        assert np.array_equal(got, expected)


sides = st.integers(1, 60)


@settings(deadline=None)
@given(steps, st.integers(-60 * ONE, 60 * ONE), sides, sides, st.integers(0, 6))
def test_reached_sites_are_those_within_the_margin_of_the_jpegs_pixels(
    step: int, origin: int, sites: int, pixels: int, margin: int
):
    alignment = Alignment(1, step, origin, ONE, 0)
    check_reached(alignment, sites, 3, (pixels, 3), margin)
    # the position of each site along the other axis
    turned = Alignment(1, ONE, 0, step, origin)
    got, other = (
        a.reached(*size, margin)
        for a, size in ((alignment, (sites, 3, pixels, 3)), (turned, (3, sites, 3, pixels)))
    )
    assert (got is None) == (other is None)
    assert got is None or np.array_equal(got, other.T)


def test_more_rows_than_are_computed_at_a_time_are_reached_alike():
    alignment = Alignment(1, ONE // 2, -3 * ONE, ONE, 5 * ONE)
    got = alignment.reached(70, 150, 40, 130, 2)
    expected = np.zeros((150, 70), bool)
    expected[:127, 4:] = True
    assert np.array_equal(got, expected)


def test_a_crop_within_the_margin_reaches_everything():
    crop = Alignment(1, ONE, -4 * ONE, ONE, -4 * ONE)
    assert crop.reached(100, 80, 92, 72, 4) is None
    expected = np.zeros((80, 100), bool)
    expected[1:-1, 1:-1] = True
    assert np.array_equal(crop.reached(100, 80, 92, 72, 3), expected)


def test_a_jpeg_beyond_the_mosaic_reaches_nothing():
    away = Alignment(1, ONE, 1000 * ONE, ONE, 0)
    got = away.reached(10, 8, 10, 8, 4)
    assert got is not None
    assert not got.any()


# Warps, against Python's integers as docs/FORMAT.md has them


def displacement(warp: tuple[int, ...], x: int, y: int, width: int, height: int) -> int:
    """D of a site."""
    longer = max(width, height)
    far = (2 * x - (width - 1)) * 2**15 // longer
    down = (2 * y - (height - 1)) * 2**15 // longer

    def polynomial(degree: int, values: tuple[int, ...]) -> int:
        terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        coefficient = dict(zip(terms, values, strict=True))
        total = 0
        for i in range(degree, -1, -1):
            line = 0
            for j in range(degree - i, -1, -1):
                line = (line * down + 2**14) // 2**15 + coefficient[i, j]
            total = (total * far + 2**14) // 2**15 + line
        return total

    total = polynomial(5, warp[:21])
    if len(warp) > 21:
        distance = math.isqrt(far * far + down * down)
        total += (distance * polynomial(3, (0, *warp[21:])) + 2**14) // 2**15
    return total


def exact_position(a: Alignment, x: int, y: int, width: int, height: int) -> tuple[int, int]:
    """U and V of a site."""
    u, v = a.step_x * x + a.origin_x, a.step_y * y + a.origin_y
    if a.warp is not None:
        u += 2**8 * displacement(a.warp.x, x, y, width, height)
        v += 2**8 * displacement(a.warp.y, x, y, width, height)
    return u, v


def exact_guide(
    pixels: np.ndarray, a: Alignment, width: int, height: int, rows: range
) -> np.ndarray:
    """The guide of these rows and two more columns on both sides."""
    bottom, right = (n - 1 for n in pixels.shape[:2])
    plain, weights = pixels.tolist(), kernel().tolist()
    out = np.empty((3, len(rows), width + 4), int)
    for n, y in enumerate(rows):
        for x in range(-2, width + 2):
            green = exact_position(a, x, y, width, height)
            for c in range(3):
                u, v = green
                if a.lateral is not None and c != 1:
                    shift = a.lateral.red if c == 0 else a.lateral.blue
                    u, v = u + shift[0] * x + shift[1], v + shift[2] * y + shift[3]
                column, phase_u = divmod((u + 2**17) // 2**18, 64)
                row, phase_v = divmod((v + 2**17) // 2**18, 64)
                lines = [plain[min(max(row - 2 + s, 0), bottom)] for s in range(6)]
                places = [min(max(column - 2 + t, 0), right) for t in range(6)]
                sums = [
                    (sum(weights[phase_v][s] * lines[s][p][c] for s in range(6)) + 8) // 16
                    for p in places
                ]
                total = sum(weights[phase_u][t] * sums[t] for t in range(6))
                out[c, n, x + 2] = min(max((total + 128) // 256, 0), 4080)
    return out


def bend(rng: np.random.Generator, pixels: float) -> Warp:
    """A warp that moves sites by about so many pixels."""
    values = rng.normal(0, pixels * 65536 / 3, (2, rng.choice(SIZES)))
    return Warp(*(tuple(int(n) for n in row) for row in values))


any_warp = st.one_of(
    wild_warps,
    st.builds(
        lambda seed, pixels: bend(np.random.default_rng(seed), pixels),
        st.integers(0, 1 << 32),
        st.sampled_from([0.01, 0.5, 3.0, 40.0]),
    ),
)
near_origins = st.integers(-20 * ONE, 20 * ONE)
near_shifts = st.tuples(*[st.integers(-ONE // 4, ONE // 4), st.integers(-3 * ONE, 3 * ONE)] * 2)
near_laterals = st.none() | laterals | st.builds(Lateral, near_shifts, near_shifts)
warped_alignments = st.builds(
    Alignment, st.just(1), *(steps, near_origins) * 2, any_warp, near_laterals
)
EXTREMES = [
    Warp((a,) * SIZES[1], (b,) * SIZES[1])
    for a, b in itertools.product((-(1 << 31), (1 << 31) - 1), repeat=2)
] + [
    Warp(
        tuple(((-1) ** (i + 1)) * ((1 << 31) - 1) for i, j in TERMS + CONE_TERMS),
        tuple(((-1) ** (j + 1)) * ((1 << 31) - 1) for i, j in TERMS + CONE_TERMS),
    )
]


def check_positions(a: Alignment, rows: list[int], columns: list[int], width: int, height: int):
    u, v = a.positions(np.array(rows, np.int64), np.array(columns, np.int64), width, height)
    u, v = np.broadcast_arrays(u, v)
    expected = [[exact_position(a, x, y, width, height) for x in columns] for y in rows]
    assert u.dtype == v.dtype == np.int64
    assert u.tolist() == [[p[0] for p in row] for row in expected]
    assert v.tolist() == [[p[1] for p in row] for row in expected]


@settings(deadline=None)
@given(alignments, st.integers(1, 65535), st.integers(1, 65535), st.integers(0, 1 << 32))
def test_positions_are_exactly_the_specified_ones(a: Alignment, width: int, height: int, seed: int):
    """Two sites around the mosaic included."""
    rng = np.random.default_rng(seed)
    rows, columns = (
        sorted({-2, 0, n // 2, n - 1, n + 1, *rng.integers(-2, n + 2, 3).tolist()})
        for n in (height, width)
    )
    check_positions(a, rows, columns, width, height)


@pytest.mark.parametrize("warp", EXTREMES, ids=["--", "-+", "+-", "++", "+-+-"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (7, 5), (65535, 8192), (1, 65535)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_warps_do_not_overflow(warp: Warp, size: tuple[int, int], sign: int):
    """In a mosaic of one site, the sites around it are at four times the longer side."""
    origin = sign * (ORIGIN_LIMIT - 1)
    a = Alignment(1, MAX_STEP, origin, MAX_STEP, -origin, warp)
    width, height = size
    rows, columns = (sorted({-2, -1, 0, n // 2, n - 1, n, n + 1}) for n in (height, width))
    check_positions(a, rows, columns, width, height)


@pytest.mark.parametrize("warp", EXTREMES, ids=["--", "-+", "+-", "++", "+-+-"])
def test_the_guide_of_an_extreme_warp_is_the_jpegs_edge_or_what_lies_there(warp: Warp):
    pixels = picture(9, 11)
    for size in ((1, 1), (13, 9)):
        a = Alignment(1, MAX_STEP, ORIGIN_LIMIT - 1, MIN_STEP, 1 - ORIGIN_LIMIT, warp)
        rows = range(-2, size[1] + 2)
        got = Guide(pixels, a, *size, 2).band(rows.start, rows.stop)
        assert np.array_equal(got, exact_guide(pixels, a, *size, rows))
        check_reached(a, *size, (11, 9), 4)


@settings(max_examples=25, deadline=None)
@given(warped_alignments, st.integers(1, 15), st.integers(1, 12), st.booleans())
def test_a_warped_guide_is_exactly_the_specified_one(
    a: Alignment, width: int, height: int, hard: bool
):
    """hard: black and white pixels alone, where the kernel overshoots most."""
    pixels = picture(13, 17)
    if hard:
        pixels = (pixels > 127).astype(np.uint8) * 255
    got = Guide(pixels, a, width, height, 2).band(-2, height + 2)
    assert got.dtype == np.int16
    assert np.array_equal(got, exact_guide(pixels, a, width, height, range(-2, height + 2)))


@settings(max_examples=25, deadline=None)
@given(steps, near_origins, steps, near_origins, near_laterals)
def test_a_plain_guide_is_exactly_the_specified_one(
    sx: int, ox: int, sy: int, oy: int, lateral: Lateral | None
):
    """As a warped one is: that of a warp of zeros is the same."""
    a = Alignment(1, sx, ox, sy, oy, None, lateral)
    pixels = picture(13, 17)
    got = Guide(pixels, a, 15, 10, 2).band(-2, 12)
    assert np.array_equal(got, exact_guide(pixels, a, 15, 10, range(-2, 12)))


@settings(max_examples=60, deadline=None)
@given(steps, near_origins, steps, near_origins, near_laterals, st.integers(0, 6))
def test_a_warp_of_zeros_gives_exactly_the_plain_guide(
    sx: int, ox: int, sy: int, oy: int, lateral: Lateral | None, reach: int
):
    plain = Alignment(1, sx, ox, sy, oy, None, lateral)
    warped = dataclasses.replace(plain, warp=FLAT)
    pixels = (picture(40, 50) > 127).astype(np.uint8) * 255
    bands = [Guide(pixels, a, 61, 37, reach).band(-7, 45) for a in (plain, warped)]
    assert np.array_equal(*bands)
    masks = [a.reached(61, 37, 50, 40, 4) for a in (plain, warped)]
    assert (masks[0] is None) == (masks[1] is None)
    assert masks[0] is None or np.array_equal(*masks)


@settings(max_examples=40, deadline=None)
@given(warped_alignments, st.lists(st.integers(-9, 39), max_size=5, unique=True))
def test_bands_do_not_change_a_warped_guide(a: Alignment, cuts: list[int]):
    check_bands(Guide(picture(24, 31), a, 31, 30, 2), cuts)


@settings(max_examples=25, deadline=None)
@given(warped_alignments, sides, sides, st.integers(1, 40), st.integers(1, 40), st.integers(0, 6))
def test_a_warped_jpeg_reaches_the_specified_sites(
    a: Alignment, width: int, height: int, across: int, down: int, margin: int
):
    check_reached(a, min(width, 20), height, (across, down), margin)


@settings(max_examples=60, deadline=None)
@given(any_warp, steps, near_origins, st.integers(33, 260), st.integers(33, 200), st.integers(0, 6))
def test_blocks_of_sites_are_reached_as_each_site_is(
    warp: Warp, step: int, origin: int, width: int, height: int, margin: int
):
    """Most blocks are told by their middle alone."""
    a = Alignment(1, step, origin, step, -origin, warp)
    across, down = (max(round(n * step / ONE), 1) for n in (width, height))
    expected = np.ones((height, width), bool)
    rows, columns = np.arange(height), np.arange(width)
    for position, pixels in zip(
        a.positions(rows, columns, width, height), (across, down), strict=True
    ):
        expected &= position >= -margin * step
        expected &= position <= (pixels - 1) * ONE + margin * step
    found = a.reached(width, height, across, down, margin)
    assert (found is None) == bool(expected.all())
    assert found is None or np.array_equal(found, expected)


def test_a_warp_of_one_term_moves_sites_by_that_power():
    """A quarter of a pixel times x^2 y^3, the longer side of the mosaic being 2."""
    warp = dict.fromkeys(TERMS, 0)
    warp[2, 3] = 1 << 14
    a = dataclasses.replace(PLAIN, warp=Warp(tuple(warp.values()), FLAT.y))
    rows, columns = np.arange(300, dtype=np.int64), np.arange(400, dtype=np.int64)
    u, v = a.positions(rows, columns, 400, 300)
    x, y = (2 * columns - 399) / 400, (2 * rows - 299) / 400
    moved = u / ONE - columns
    assert np.abs(moved - 0.25 * x**2 * y[:, None] ** 3).max() < 1e-4
    assert np.array_equal(
        np.broadcast_to(v, u.shape), np.broadcast_to(rows[:, None] * ONE, u.shape)
    )


def test_guide_rows_may_be_turned_by_a_warp():
    """A tenth of a radian: rows of the JPEG run across the bands."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[:, :, 0] = np.arange(200)
    pixels[:, :, 1] = np.arange(200)[:, None]
    turn = dict.fromkeys(TERMS, 0)
    x, y = dict(turn), dict(turn)
    x[0, 1] = 5 << 16  # half the longer side, 50 sites, times 0.1
    y[1, 0] = -5 << 16
    warp = Warp(tuple(x.values()), tuple(y.values()))
    a = Alignment(1, ONE, 50 * ONE, ONE, 50 * ONE, warp)
    band = Guide(pixels, a, 100, 100, 0).band(0, 100)
    rows, columns = np.mgrid[:100, :100]
    assert np.abs(band[0] / 16 - (columns + 50 + 0.1 * (rows - 49.5))).max() < 0.05
    assert np.abs(band[1] / 16 - (rows + 50 - 0.1 * (columns - 49.5))).max() < 0.05


def test_a_cone_of_one_term_moves_sites_by_their_distance_too():
    """A pixel times x times the distance from the middle, the longer side being 2."""
    cone = dict.fromkeys(CONE_TERMS, 0)
    cone[1, 0] = 1 << 16
    a = dataclasses.replace(PLAIN, warp=Warp(FLAT.x + tuple(cone.values()), FLAT.y + (0,) * 9))
    rows, columns = np.arange(300, dtype=np.int64), np.arange(400, dtype=np.int64)
    u, v = a.positions(rows, columns, 400, 300)
    x, y = (2 * columns - 399) / 400, (2 * rows - 299) / 400
    assert np.abs(u / ONE - columns - x * np.hypot(x, y[:, None])).max() < 2e-4
    assert np.array_equal(
        np.broadcast_to(v, u.shape), np.broadcast_to(rows[:, None] * ONE, u.shape)
    )


def test_colours_are_moved_against_green():
    """Red a pixel to the right, blue 2 % larger."""
    ramp = np.arange(200, dtype=np.uint8)
    pixels = np.repeat(np.broadcast_to(ramp, (50, 200))[:, :, None], 3, axis=2)
    a = dataclasses.replace(PLAIN, lateral=Lateral((0, ONE, 0, 0), (ONE // 50, 0, ONE // 50, 0)))
    red, green, blue = (n[20, :150] / 16 for n in Guide(pixels, a, 180, 40, 0).band(0, 40))
    assert np.array_equal(green, ramp[:150])
    assert np.array_equal(red, ramp[1:151])
    assert np.abs(blue - 1.02 * ramp[:150]).max() < 0.1
