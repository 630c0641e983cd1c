"""The tone layer: its integers, its coding, and the fit."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rawcodec.errors import CorruptSidecarError
from rawcodec.mosaic import Mosaic, planes
from rawcodec.pipeline import mosaic_error
from rawcodec.sensor import Sensor
from rawcodec.stream.entropy import Decoder, Encoder, RateMeter
from rawcodec.tone import coding, fit
from rawcodec.tone import table as t
from rawcodec.tone.coding import Steps
from rawcodec.tone.table import Border, Tone, expand_band, predict_band

XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
CFAS = [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR"), XTRANS, ("G",), ()]
NAMES = ["RGGB", "GRBG", "GBRG", "BGGR", "X-Trans", "mono", "linear"]

Reached = np.ndarray | None
"""Which sites the JPEG reaches, bool (H, W); None for all."""


def inside(width: int, height: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A JPEG that reaches a rectangle."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def tilted(width: int, height: int, degrees: float) -> np.ndarray:
    """A JPEG of the mosaic's size that was straightened: wedges are missing at the edges."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (abs(c * x + s * y) <= width / 2) & (abs(c * y - s * x) <= height / 2)


def sensor_of(cfa: tuple[str, ...], width: int, height: int, white: int = 16383) -> Sensor:
    cells = sum(map(len, cfa)) if cfa else 3
    black = tuple(min(100 + 7 * cell, white - 1) for cell in range(cells))
    return Sensor(width, height, cfa, black, white)


def random_tone(
    rng: np.random.Generator, sensor: Sensor, reached: Reached, steps: Steps, shift: int
) -> Tone:
    """Any tone layer that the format holds: values of used colours are whole steps."""
    table = np.zeros((3, 9, 9, 9), np.int32)
    gains = np.full((3, 4, 9, 12), 1 << t.GAIN_BITS, np.int32)
    wild = rng.random() < 0.5
    for colour in t.used_colours(sensor):
        if wild:
            table[colour] = rng.integers(0, t.TABLE_MAX + 1, (9, 9, 9))
            gains[colour] = rng.integers(0, t.GAIN_MAX + 1, (4, 9, 12))
        else:
            ramp = 4000 * np.arange(9)
            table[colour] = ramp + rng.integers(0, 300, (9, 9, 9))
            gains[colour] += rng.integers(-200, 200, (4, 9, 12)).astype(np.int32)
    table = table // steps.table * steps.table
    # up to a step below 0 after rounding down; coded gains are multiples of a step from 1
    offset = (gains - (1 << t.GAIN_BITS)) // steps.gain * steps.gain
    gains = np.where(offset < -(1 << t.GAIN_BITS), offset + steps.gain, offset)
    gains = (gains + (1 << t.GAIN_BITS)).astype(np.int32)
    border = None
    if reached is not None:
        mask = t.border_mask(sensor, reached, shift)
        nodes = np.zeros((3, *mask.shape), np.int32)
        for colour in t.used_colours(sensor):
            values = rng.integers(0, t.VALUE_MAX + 1, mask.shape)
            nodes[colour] = np.where(mask, values // steps.border * steps.border, 0)
        border = Border(shift, nodes)
    taps = tuple(int(tap) for tap in rng.integers(-t.FILTER_LIMIT, t.FILTER_LIMIT + 1, 5))
    return Tone(taps, table, gains, border)


def same(a: Tone, b: Tone) -> bool:
    borders = (a.border is None) == (b.border is None)
    if a.border is not None and b.border is not None:
        borders = a.border.shift == b.border.shift and np.array_equal(
            a.border.nodes, b.border.nodes
        )
    return (
        a.taps == b.taps
        and np.array_equal(a.table, b.table)
        and np.array_equal(a.gains, b.gains)
        and borders
    )


def only_used(tone: Tone, sensor: Sensor) -> Tone:
    """With the parameters of colours that the sensor lacks as the decoder has them."""
    table, gains = np.zeros_like(tone.table), np.full_like(tone.gains, 1 << t.GAIN_BITS)
    for colour in t.used_colours(sensor):
        table[colour], gains[colour] = tone.table[colour], tone.gains[colour]
    return Tone(tone.taps, table, gains, tone.border)


@st.composite
def masks(draw: st.DrawFn, width: int, height: int) -> Reached:
    """All sites, a rectangle, what a straightened JPEG reaches, or any sites."""
    kind = draw(st.sampled_from(["all", "rectangle", "tilted", "any", "none"]))
    if kind == "rectangle":
        left, top = draw(st.integers(0, width)), draw(st.integers(0, height))
        right, bottom = draw(st.integers(left, width)), draw(st.integers(top, height))
        return inside(width, height, left, top, right, bottom)
    if kind == "tilted":
        return tilted(width, height, draw(st.floats(-20, 20)))
    if kind == "any":
        rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
        return rng.random((height, width)) < draw(st.sampled_from([0.05, 0.5, 0.99]))
    return np.zeros((height, width), bool) if kind == "none" else None


@st.composite
def layers(draw: st.DrawFn) -> tuple[Sensor, Reached, Steps, int, Tone]:
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 50))
    sensor = sensor_of(draw(st.sampled_from(CFAS)), width, height)
    reached = draw(masks(width, height))
    small = st.sampled_from([1, 2, 3, 16, 32, 64, 100, 256, 1024])
    steps = Steps(draw(small), draw(small), draw(small))
    shift = draw(st.integers(coding.MIN_SHIFT, coding.MAX_SHIFT))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    return sensor, reached, steps, shift, random_tone(rng, sensor, reached, steps, shift)


# Coding


@settings(max_examples=25, deadline=None)
@given(layers())
def test_coded_and_decoded_is_the_same(layer: tuple[Sensor, Reached, Steps, int, Tone]):
    sensor, reached, steps, shift, tone = layer
    head = coding.pack_head(tone.taps, steps, shift)
    encoder, meter = Encoder(), RateMeter()
    written = coding.code(encoder, sensor, reached, head, tone)
    measured = coding.code(meter, sensor, reached, head, tone)
    data = encoder.finish()
    decoder = Decoder(data)
    decoded = coding.code(decoder, sensor, reached, head, None)
    decoder.finish()
    expected = only_used(tone, sensor)
    assert same(decoded, expected)
    assert same(written, expected)
    assert same(measured, expected)
    assert -1 <= 8 * len(data) - meter.bits <= 16 + 3 * 32 + 16


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=4, max_size=400).map(lambda data: data[: len(data) // 4 * 4]),
    st.sampled_from(CFAS),
    st.tuples(*[st.integers(1, 0xFFFF)] * 3),
    st.integers(coding.MIN_SHIFT, coding.MAX_SHIFT),
    st.integers(0, 1 << 32),
    st.data(),
)
def test_random_bytes_are_refused_or_give_a_layer_within_its_limits(
    data: bytes,
    cfa: tuple[str, ...],
    steps: tuple[int, int, int],
    shift: int,
    seed: int,
    draw: st.DataObject,
):
    sensor = sensor_of(cfa, 37, 23)
    reached = draw.draw(masks(37, 23))
    rng = np.random.default_rng(seed)
    taps = tuple(int(tap) for tap in rng.integers(-1024, 1025, 5))
    head = coding.pack_head(taps, Steps(*steps), shift)
    with np.errstate(all="raise"):
        try:
            tone = coding.code(Decoder(data), sensor, reached, head, None)
        except CorruptSidecarError:
            return
    assert tone.table.dtype == tone.gains.dtype == np.int32
    assert tone.table.min() >= 0
    assert tone.table.max() <= t.TABLE_MAX
    assert tone.gains.min() >= 0
    assert tone.gains.max() <= t.GAIN_MAX
    if tone.border is not None:
        assert tone.border.nodes.min() >= 0
        assert tone.border.nodes.max() <= t.VALUE_MAX
    guide = rng.integers(0, 4081, (3, 27, 41)).astype(np.int16)
    out = np.empty(sensor.shape, np.uint16)
    predict_band(tone, sensor, guide, 0, reached, out)


@pytest.mark.parametrize("size", range(coding.HEAD_SIZE + 3))
def test_a_head_of_another_size_is_refused(size: int):
    good = coding.pack_head((0,) * 5, Steps(64, 32, 256), 3)
    if size == coding.HEAD_SIZE:
        assert coding.unpack_head(good) == ((0,) * 5, Steps(64, 32, 256), 3)
        return
    with pytest.raises(ValueError, match=f"{size} bytes"):
        coding.unpack_head(good.ljust(size, b"\1")[:size])


@pytest.mark.parametrize(
    ("taps", "steps", "shift", "fault"),
    [
        ((1025, 0, 0, 0, 0), Steps(1, 1, 1), 3, "filter"),
        ((0, 0, 0, 0, -1025), Steps(1, 1, 1), 3, "filter"),
        ((0,) * 5, Steps(0, 1, 1), 3, "step"),
        ((0,) * 5, Steps(1, 0, 1), 3, "step"),
        ((0,) * 5, Steps(1, 1, 0), 3, "step"),
        ((0,) * 5, Steps(1, 1, 1), 2, "spacing"),
        ((0,) * 5, Steps(1, 1, 1), 13, "spacing"),
    ],
)
def test_a_head_out_of_range_is_refused(taps, steps: Steps, shift: int, fault: str):
    with pytest.raises(ValueError, match=fault):
        coding.unpack_head(coding.pack_head(taps, steps, shift))


@pytest.mark.parametrize(("width", "refused"), [(1016, False), (1017, True)])
def test_a_border_of_more_nodes_than_the_limit_is_refused(width: int, refused: bool):
    """Nothing is decoded of a damaged file that asks for more than ``NODE_LIMIT``."""
    sensor = sensor_of(("RG", "GB"), width, 1016)
    nowhere = np.zeros((1016, width), bool)
    assert coding.NODE_LIMIT == 1 << 14
    assert (t.border_mask(sensor, nowhere, 3).sum() > coding.NODE_LIMIT) == refused
    tone = random_tone(np.random.default_rng(1), sensor, nowhere, Steps(64, 32, 256), 3)
    head = coding.pack_head(tone.taps, Steps(64, 32, 256), 3)
    encoder = Encoder()
    if refused:
        with pytest.raises(ValueError, match=r"16512 nodes is more than 16384"):
            coding.code(encoder, sensor, nowhere, head, tone)
        decoder = Decoder(encoder.finish())
        with pytest.raises(ValueError, match=r"16512 nodes is more than 16384"):
            coding.code(decoder, sensor, nowhere, head, None)
        return
    coding.code(encoder, sensor, nowhere, head, tone)
    decoded = coding.code(Decoder(encoder.finish()), sensor, nowhere, head, None)
    assert same(decoded, only_used(tone, sensor))


def test_frequency_tables_are_complete_and_symmetric():
    tables = coding.frequencies()
    assert tables.shape == (14, 50)
    assert (tables.sum(axis=1) == 1 << 16).all()
    assert (tables >= 1).all()
    assert np.array_equal(tables[:, :49], tables[:, 48::-1])
    assert (np.diff(tables[:, 24:49], axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("row", "values", "escape"),
    [
        (0, [61350, 553, 75, 69, 65], 1010),
        (4, [35008, 9890, 2832, 845, 283], 1010),
        (13, [1874, 1728, 1634, 1546, 1461], 16688),
    ],
)
def test_frequency_tables_have_these_entries(row: int, values: list[int], escape: int):
    """Sidecars depend on every entry: a change is a new format."""
    assert coding.frequencies()[row, 24:29].tolist() == values
    assert coding.frequencies()[row, -1] == escape


# Prediction, against Python's own integers


def slow_prediction(tone: Tone, sensor: Sensor, guide: np.ndarray, reached: Reached) -> np.ndarray:
    """The mosaic as docs/FORMAT.md describes it, site by site, in integers without bounds.

    guide: of the whole mosaic with two more sites on every side.
    """
    out = np.empty(sensor.shape, np.uint16)
    for colour, black, index in planes(sensor):
        rows = range(sensor.height)[index[0]]
        columns = range(sensor.width)[index[1]]
        for y in rows:
            for x in columns:
                value = _covered_value(tone, sensor, guide, colour, y, x)
                if tone.border is not None and reached is not None and not reached[y, x]:
                    value = _border_value(tone.border, colour, y, x)
                value = min(max(value, 0), 46340)
                level = (value * value * (sensor.white - black) + (1 << 29) >> 30) + black
                out[(y, x, *index[2:])] = min(level, 65535)
    return out


def _mix(a: int, b: int, fraction: int, bits: int) -> int:
    return a + (((b - a) * fraction + (1 << (bits - 1))) >> bits)


def _covered_value(
    tone: Tone, sensor: Sensor, guide: np.ndarray, colour: int, y: int, x: int
) -> int:
    rgb = []
    for channel in range(3):
        total = 1024 * int(guide[channel, y + 2, x + 2])
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                distance = (min(abs(dy), abs(dx)), max(abs(dy), abs(dx)))
                if distance == (0, 0):
                    continue
                tap = tone.taps[t.CLASSES.index(distance)]
                there = int(guide[channel, y + 2 + dy, x + 2 + dx])
                total += tap * (there - int(guide[channel, y + 2, x + 2]))
        value = min(max((total + 512) >> 10, 0), 4080)
        rgb.append(value + ((value + 128) >> 8))

    cells = [min(value // 512, 7) for value in rgb]
    r, g, b = (value - 512 * cell for value, cell in zip(rgb, cells, strict=True))

    def node(dr: int, dg: int, db: int) -> int:
        return int(tone.table[colour, cells[0] + dr, cells[1] + dg, cells[2] + db])

    def face(dr: int) -> int:
        edges = [_mix(node(dr, dg, 0), node(dr, dg, 1), b, 9) for dg in (0, 1)]
        return _mix(edges[0], edges[1], g, 9)

    base = _mix(face(0), face(1), r, 9)

    def place(site: int, length: int, nodes: int) -> tuple[int, int]:
        position = site * (nodes - 1) * 4096 // max(length - 1, 1)
        cell = min(position // 4096, nodes - 2)
        return cell, position - 4096 * cell

    row, down = place(y, sensor.height, 9)
    column, across = place(x, sensor.width, 12)

    def at_level(level: int) -> int:
        grid = tone.gains[colour, level]
        ends = [
            _mix(int(grid[row, c]), int(grid[row + 1, c]), down, 12) for c in (column, column + 1)
        ]
        return _mix(ends[0], ends[1], across, 12)

    brightness = ((rgb[0] + 2 * rgb[1] + rgb[2] + 2) >> 2) * 3
    level = min(brightness // 4096, 2)
    gain = _mix(at_level(level), at_level(level + 1), brightness - 4096 * level, 12)
    return (base * gain + 2048) >> 12


def _border_value(border: Border, colour: int, y: int, x: int) -> int:
    size = 1 << border.shift
    row, column = y // size, x // size
    nodes = border.nodes[colour]
    lines = [
        _mix(int(nodes[row, c]), int(nodes[row + 1, c]), y % size, border.shift)
        for c in (column, column + 1)
    ]
    return _mix(lines[0], lines[1], x % size, border.shift)


def predicted(
    tone: Tone, sensor: Sensor, guide: np.ndarray, reached: Reached, cuts: list[int]
) -> np.ndarray:
    out = np.full(sensor.shape, 7, np.uint16)
    edges = [0, *cuts, sensor.height]
    for top, bottom in itertools.pairwise(edges):
        part = None if reached is None else reached[top:bottom]
        values = np.empty_like(out[top:bottom])
        predict_band(tone, sensor, guide[:, top : bottom + 4], top, part, values)
        expand_band(sensor, values, top, out[top:bottom])
    return out


def random_guide(rng: np.random.Generator, sensor: Sensor) -> np.ndarray:
    """With many values at both ends, where overflows would be."""
    shape = (3, sensor.height + 4, sensor.width + 4)
    values = rng.integers(-2000, 6000, shape)
    return np.clip(values, 0, 4080).astype(np.int16)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(CFAS),
    st.integers(1, 15),
    st.integers(1, 15),
    st.integers(0, 1 << 32),
    st.data(),
)
def test_prediction_is_exactly_the_specified_one(
    cfa: tuple[str, ...], width: int, height: int, seed: int, draw: st.DataObject
):
    white = draw.draw(st.sampled_from([1, 255, 4095, 16383, 65535]))
    sensor = sensor_of(cfa, width, height, white)
    reached = draw.draw(masks(width, height))
    cuts = draw.draw(st.lists(st.integers(1, height), max_size=3, unique=True).map(sorted))
    rng = np.random.default_rng(seed)
    tone = random_tone(rng, sensor, reached, Steps(1, 1, 1), draw.draw(st.integers(3, 12)))
    guide = random_guide(rng, sensor)
    expected = slow_prediction(tone, sensor, guide, reached)
    assert np.array_equal(predicted(tone, sensor, guide, reached, cuts), expected)


@pytest.mark.parametrize("cfa", CFAS, ids=NAMES)
@pytest.mark.parametrize("tap", [-t.FILTER_LIMIT, 0, t.FILTER_LIMIT])
@pytest.mark.parametrize("node", [0, t.TABLE_MAX, None])
@pytest.mark.parametrize("gain", [0, t.GAIN_MAX, None])
def test_extremes_do_not_overflow(cfa: tuple[str, ...], tap: int, node: int | None, gain):
    """None: both extremes, in turns."""
    sensor = Sensor(9, 8, cfa, (0,) * (sum(map(len, cfa)) or 3), 65535)
    rng = np.random.default_rng(1)

    def extreme(value: int | None, top: int, shape: tuple[int, ...]) -> np.ndarray:
        if value is not None:
            return np.full(shape, value, np.int32)
        return (rng.integers(0, 2, shape) * top).astype(np.int32)

    tone = Tone(
        (tap, tap, -tap, tap, -tap) if node is None else (tap,) * 5,
        extreme(node, t.TABLE_MAX, (3, 9, 9, 9)),
        extreme(gain, t.GAIN_MAX, (3, 4, 9, 12)),
        None,
    )
    guide = (rng.integers(0, 2, (3, 12, 13)) * 4080).astype(np.int16)
    expected = slow_prediction(tone, sensor, guide, None)
    assert np.array_equal(predicted(tone, sensor, guide, None, [3]), expected)


@pytest.mark.parametrize("cfa", CFAS, ids=NAMES)
@pytest.mark.parametrize(
    "reached", [inside(61, 53, 5, 7, 50, 53), tilted(61, 53, 8)], ids=["rectangle", "tilted"]
)
def test_bands_do_not_change_the_prediction(cfa: tuple[str, ...], reached: np.ndarray):
    sensor = sensor_of(cfa, 61, 53)
    rng = np.random.default_rng(4)
    tone = random_tone(rng, sensor, reached, Steps(1, 1, 1), 4)
    guide = random_guide(rng, sensor)
    whole = predicted(tone, sensor, guide, reached, [])
    for cuts in ([1], [7, 8, 9, 30], list(range(1, 53)), [52]):
        assert np.array_equal(predicted(tone, sensor, guide, reached, cuts), whole)


def test_expanding_gives_black_white_and_twice_white():
    values = np.array([-5, 0, 1 << 14, 1 << 15, t.VALUE_MAX, 1 << 30], np.int32)
    assert t.expand(values, 100, 1100).tolist() == [100, 100, 350, 1100, 2100, 2100]
    assert t.expand(values, 0, 65535).tolist() == [0, 0, 16384, 65535, 65535, 65535]


def test_a_filter_of_zeros_and_one_that_sums_to_nothing_keep_a_flat_guide():
    guide = np.full((3, 9, 9), 1234, np.int16)
    plain = t.sharpen(guide, (0,) * 5)
    for taps in ((100, -50, 30, 7, -90), (1024,) * 5, (-1024,) * 5):
        assert np.array_equal(t.sharpen(guide, taps), plain)


@pytest.mark.parametrize(
    "reached",
    [
        inside(45, 37, 6, 0, 40, 30),
        inside(45, 37, 8, 8, 40, 32),
        tilted(45, 37, -6),
        ~inside(45, 37, 17, 20, 18, 21),
        np.zeros((37, 45), bool),
        np.ones((37, 45), bool),
    ],
    ids=["rectangle", "whole cells", "tilted", "a hole", "nothing", "everything"],
)
@pytest.mark.parametrize("cfa", [("RG", "GB"), ()], ids=["RGGB", "linear"])
def test_border_nodes_that_matter_are_those_of_cells_with_sites_not_reached(
    cfa: tuple[str, ...], reached: np.ndarray
):
    sensor = sensor_of(cfa, 45, 37)
    for shift in (3, 4, 6, 12):
        needed = np.zeros(t.border_shape(sensor, shift), bool)
        for y, x in np.argwhere(~reached):
            row, column = y >> shift, x >> shift
            needed[row : row + 2, column : column + 2] = True
        assert np.array_equal(t.border_mask(sensor, reached, shift), needed)


# The fit


FINE = ((40, 1.0), (90, 0.4))
"""All tones everywhere: colour and place are told apart."""

COARSE = ((3, 2.0), (9, 1.0), (40, 0.4))
"""Large shapes, as in most photos."""


def photo(height: int, width: int, detail: tuple[tuple[int, float], ...]) -> np.ndarray:
    """A colourful picture, uint8. detail: (cells across, weight) of smoothed noise."""
    rng = np.random.default_rng(2)
    total = np.zeros((height, width, 3))
    for cells, weight in detail:
        for channel in range(3):
            small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
            large = small.resize((width, height), Image.Resampling.BICUBIC)
            total[:, :, channel] += weight * (0.35 * np.asarray(large))
        small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        large = small.resize((width, height), Image.Resampling.BICUBIC)
        total += weight * 0.65 * np.asarray(large)[:, :, None]
    low, high = np.percentile(total, (1, 99))
    return np.clip(np.round(255 * (total - low) / (high - low)), 0, 255).astype(np.uint8)


class Fitted:
    """A raw and a picture of the same size, fitted, packed and predicted."""

    def __init__(self, mosaic: Mosaic, pixels: np.ndarray, reached: Reached = None) -> None:
        sensor = mosaic.sensor
        padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge").transpose(2, 0, 1)
        guide = np.ascontiguousarray(padded.astype(np.int16) << 4)

        def band(top: int, bottom: int) -> np.ndarray:
            rows = np.clip(np.arange(top, bottom) + 2, 0, guide.shape[1] - 1)
            return guide[:, rows]

        def pack(tone: Tone, head: bytes) -> bytes:
            encoder = Encoder()
            coding.code(encoder, sensor, reached, head, tone)
            return head + encoder.finish()

        self.tone, self.payload = fit.fit_tone(mosaic, band, reached, pack)
        self.samples = predicted(self.tone, sensor, guide, reached, [])
        self.psnr, self.worst = mosaic_error(mosaic, self.samples)
        head, coded = self.payload[: coding.HEAD_SIZE], self.payload[coding.HEAD_SIZE :]
        decoder = Decoder(coded)
        self.decoded = coding.code(decoder, sensor, reached, head, None)
        decoder.finish()
        assert same(self.tone, self.decoded)
        assert len(self.payload) <= fit.SIZE_LIMIT == 4096


def sampled(sensor: Sensor, light: np.ndarray) -> Mosaic:
    """What the sensor makes of light, float (H, W, 3), black 0 and white 1."""
    samples = np.empty(sensor.shape, np.uint16)
    for colour, black, index in planes(sensor):
        part = light[(*index[:2], colour)]
        levels = np.round(black + part * (sensor.white - black))
        samples[index] = np.clip(levels, 0, 65535).astype(np.uint16)
    return Mosaic(samples, sensor)


def smooth_scene(
    height: int, width: int, detail: tuple[tuple[int, float], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and the light behind it: a gamma, mixed colours and vignetting."""
    pixels = photo(height, width, detail)
    linear = (0.01 + 0.95 * (pixels / 255.0)) ** 2.0
    mixing = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.2, 0.75]])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return pixels, linear @ mixing.T * (1 - 0.25 * (x * x + y * y))[:, :, None]


@lru_cache(maxsize=1)
def smooth_bayer() -> Fitted:
    pixels, light = smooth_scene(240, 320, FINE)
    return Fitted(sampled(sensor_of(("RG", "GB"), 320, 240), light), pixels)


@pytest.mark.parametrize(
    "cfa",
    [pytest.param(XTRANS, marks=pytest.mark.slow), ("G",), ()],
    ids=["X-Trans", "mono", "linear"],
)
def test_a_smooth_rendering_with_vignetting_is_undone(cfa: tuple[str, ...]):
    pixels, light = smooth_scene(240, 320, FINE)
    assert Fitted(sampled(sensor_of(cfa, 320, 240), light), pixels).psnr > 55


def test_a_smooth_rendering_of_a_bayer_raw_is_undone():
    assert smooth_bayer().psnr > 55


@pytest.mark.slow
def test_the_same_photo_is_fitted_the_same_twice():
    first = smooth_bayer().payload
    smooth_bayer.cache_clear()
    assert smooth_bayer().payload == first


@pytest.mark.parametrize(
    "reached",
    [pytest.param(None, marks=pytest.mark.slow), inside(320, 240, 60, 50, 260, 190)],
    ids=["whole", "crop"],
)
def test_noise_does_not_exceed_the_size_limit(reached: Reached):
    rng = np.random.default_rng(8)
    sensor = sensor_of(("RG", "GB"), 320, 240)
    samples = rng.integers(0, 16384, (240, 320)).astype(np.uint16)
    pixels = rng.integers(0, 256, (240, 320, 3)).astype(np.uint8)
    assert len(Fitted(Mosaic(samples, sensor), pixels, reached).payload) <= 4096


@pytest.mark.slow
def test_a_hard_table_does_not_exceed_the_size_limit():
    """Every node of the table and the grid has its own value, and no noise hides it."""
    rng = np.random.default_rng(9)
    pixels = rng.integers(0, 256, (240, 320, 3)).astype(np.uint8)
    nodes = rng.random((9, 9, 9, 3))
    cells = np.minimum(pixels // 32, 8)
    light = nodes[cells[:, :, 0], cells[:, :, 1], cells[:, :, 2]]
    gains = np.kron(rng.random((12, 16)), np.ones((20, 20)))
    mosaic = sampled(sensor_of((), 320, 240), light * gains[:, :, None])
    assert len(Fitted(mosaic, pixels).payload) <= 4096


@pytest.mark.parametrize(("level", "grey"), [(0.0, 0), (1.0, 255)], ids=["black", "saturated"])
def test_an_empty_frame_comes_back(level: float, grey: int):
    sensor = sensor_of(("RG", "GB"), 160, 120)
    fitted = Fitted(
        sampled(sensor, np.full((120, 160, 3), level)), np.full((120, 160, 3), grey, np.uint8)
    )
    assert fitted.worst <= 32  # half a step of the table at white


def test_levels_below_black_and_above_white_do_no_harm():
    """A dark frame's read noise goes below black; some sensors go above their white level."""
    rng = np.random.default_rng(6)
    sensor = Sensor(160, 120, ("RG", "GB"), (512,) * 4, 4000)
    samples = rng.normal(512, 10, (120, 160)).round().astype(np.uint16)
    samples[:20] = 4095
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:20] = 255
    fitted = Fitted(Mosaic(samples, sensor), pixels)
    assert fitted.psnr > 40


@pytest.mark.parametrize(
    "reached",
    [inside(320, 240, 0, 40, 320, 200), inside(320, 240, 50, 30, 260, 201), tilted(320, 240, 4)],
    ids=["16:9", "all around", "straightened"],
)
def test_what_the_jpeg_does_not_reach_comes_back_better_than_a_constant(reached: np.ndarray):
    pixels, light = smooth_scene(240, 320, COARSE)
    sensor = sensor_of(("RG", "GB"), 320, 240)
    mosaic = sampled(sensor, light)
    fitted = Fitted(mosaic, pixels, reached)
    error = mosaic.samples.astype(float) - fitted.samples
    constant = np.zeros(0)
    for _, _, index in planes(sensor):
        part = mosaic.samples[index].astype(float)[~reached[index]]
        constant = np.concatenate([constant, part - part.mean()])
    gain = 10 * math.log10(np.mean(constant**2) / np.mean(error[~reached] ** 2))
    assert gain > 6
    assert -10 * math.log10(np.mean((error[reached] / 16383) ** 2)) > 50


def test_clipped_highlights_do_not_disturb_the_rest():
    """Where the JPEG shows white, the raw still varies; below, the fit stays exact."""
    pixels, light = smooth_scene(240, 320, COARSE)
    clipped = np.minimum(pixels, 200)
    sensor = sensor_of(("RG", "GB"), 320, 240)
    mosaic = sampled(sensor, light)
    fitted = Fitted(mosaic, np.round(clipped * 1.275).astype(np.uint8))
    below = (pixels < 190).all(axis=2)
    error = (mosaic.samples.astype(float) - fitted.samples)[below] / 16383
    assert -10 * math.log10(np.mean(error**2)) > 45
