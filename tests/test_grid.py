"""The grids that correct errors of large areas, below the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_latents import (
    BAYER,
    GREEN,
    PATTERNS,
    Plane,
    check_decodes,
    encoded,
    error,
    fast,
    linear,
    one_stripe,
    plane,
    shipped_path,
)

from rawcodec.errors import CorruptSidecarError
from rawcodec.learned import LatentDecoder
from rawcodec.model import fitting, grid, layer
from rawcodec.model.config import HYPER, RATES, SCALES
from rawcodec.model.layer import LayerHead
from rawcodec.model.store import DOMAIN, Model, load_model
from rawcodec.model.tables import SILENT, TOTAL, Tables
from rawcodec.stream.entropy import Decoder, Encoder

COLOURS = {**PATTERNS, **{f"linear {c}": np.array([[c]], np.uint8) for c in range(3)}}
SIZES = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 3), (1, 300), (270, 1), (16, 17), (128, 128)]
SIZES += [(127, 130), (129, 257)]

SCALE_TABLE = np.array([TOTAL // 2, *[520] * (SCALES - 2), TOTAL // 2 - 520 * (SCALES - 2)])
"""Frequencies of the scales 1..63, which are coded from -31, and of any beyond."""

LARGEST = grid.largest(64 * 16 // 64)
"""Largest magnitude of what is coded for a node of the coarsest level at a step of 64."""

FEW = 12
"""Bytes of an encoder's closing mark and words: what a stream without nodes may take."""


pytestmark = pytest.mark.usefixtures("no_overflow")


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(shipped_path())


@pytest.fixture(scope="module")
def tables(shipped: Model) -> Tables:
    return shipped.tables


def quads(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


@dataclass
class Gridded:
    """An error that was coded: the bytes, the nodes, and what they make of every site."""

    data: bytes
    nodes: np.ndarray
    added: np.ndarray


def added(nodes: np.ndarray, size: tuple[int, int], colours: np.ndarray) -> np.ndarray:
    sites = np.zeros(size, np.int32)
    grid.add(sites, nodes, colours)
    return sites


def gridded(
    tables: Tables, wrong: np.ndarray, colours: np.ndarray = BAYER, step: int = 400
) -> Gridded:
    """Code an error, read it back, and compare."""
    encoder = Encoder()
    fit = grid.GridFit(lambda a, b: wrong[a:b].astype(np.float32), wrong.shape, colours, step)
    nodes = grid.code(encoder, tables, step, quads(wrong.shape), fit)
    data = encoder.finish()
    decoder = Decoder(data)
    read = grid.code(decoder, tables, step, quads(wrong.shape), None)
    decoder.finish()
    assert read.dtype == nodes.dtype == np.int32
    assert np.array_equal(read, nodes)
    return Gridded(data, nodes, added(nodes, wrong.shape, colours))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def large(kind: str, height: int = 240, width: int = 320) -> np.ndarray:
    """An error of a large area."""
    y, x = np.mgrid[:height, :width]
    return {
        "level": np.full((height, width), 3000.0),
        "ramp": 20.0 * x - 10.0 * y - 2000,
        "waves": 3000 * np.sin(y / 40) * np.cos(x / 50),
        "disc": 6000.0 * (np.hypot(y - height / 2, x - width / 2.2) < height / 3),
        "step": 4000.0 * (x >= width // 2),
        "corner": -5000.0 * ((y > height * 0.7) & (x > width * 0.6)),
    }[kind]


def noise(size: tuple[int, int], spread: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *size]).normal(0, spread, size)


# What it is for


@pytest.mark.parametrize("colours", ["RGGB", "X-Trans", "mono"])
@pytest.mark.parametrize(
    ("kind", "left", "bits"),
    [
        ("level", 0.01, 0.03),
        ("ramp", 0.04, 0.07),
        ("waves", 0.06, 0.3),
        ("disc", 0.22, 0.5),
        ("step", 0.12, 0.4),
        ("corner", 0.2, 0.4),
    ],
)
def test_an_error_of_a_large_area_is_gone_for_few_bits(
    tables: Tables, kind: str, left: float, bits: float, colours: str
) -> None:
    """left: of the error. bits: for each site, far fewer than latents that repair it take."""
    wrong = large(kind)
    found = gridded(tables, wrong, PATTERNS[colours])
    assert rms(wrong - found.added) < left * rms(wrong)
    assert 8 * len(found.data) < bits * wrong.size


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_level_is_met_to_its_step(tables: Tables, sign: int) -> None:
    """Wherever it is, and at the edges of the picture, however the size falls."""
    for size in SIZES[:: 2 + sign]:
        wrong = np.full(size, sign * 7000.0)
        found = gridded(tables, wrong)
        assert np.abs(wrong - found.added).max() <= 200


@pytest.mark.parametrize("size", [(1, 1), (37, 41), (300, 200)], ids=str)
@pytest.mark.parametrize("colours", COLOURS)
def test_noise_alone_is_left_to_the_latents(
    tables: Tables, size: tuple[int, int], colours: str
) -> None:
    """Only the scales are coded, which say that there is nothing."""
    for spread in (0, 30, 100):
        found = gridded(tables, noise(size, spread), COLOURS[colours])
        assert len(found.data) <= FEW
        assert not found.nodes.any()
        assert not found.added.any()


def test_noise_as_large_as_a_step_costs_next_to_nothing(tables: Tables) -> None:
    """Chance makes a few nodes worth their bits."""
    for seed in range(2):
        wrong = noise((300, 400), 400, seed)
        found = gridded(tables, wrong)
        assert 8 * len(found.data) < 0.08 * wrong.size
        assert rms(found.added) < 0.15 * 400
        assert rms(wrong - found.added) <= rms(wrong)


def test_noise_does_not_hide_an_error_nor_make_it_dearer(tables: Tables) -> None:
    for kind in ("waves", "disc"):
        wrong = large(kind)
        clean, noisy = (gridded(tables, wrong + noise(wrong.shape, n)) for n in (0, 150))
        assert rms(wrong - noisy.added) < 1.3 * rms(wrong - clean.added)
        assert len(noisy.data) < 1.4 * len(clean.data)


def test_finer_steps_give_smaller_errors_at_more_bytes(tables: Tables) -> None:
    wrong = large("waves")
    found = [gridded(tables, wrong, step=step) for step in (6400, 1600, 400, 100)]
    errors = [rms(wrong - one.added) for one in found]
    sizes = [len(one.data) for one in found]
    assert errors == sorted(set(errors), reverse=True)
    assert sizes == sorted(set(sizes))


def test_an_error_of_one_place_costs_little_elsewhere(tables: Tables) -> None:
    """Nor changes it: a picture of four times the sites takes less than twice as much."""
    sizes = []
    for height, width in ((480, 640), (960, 1280)):
        wrong = np.zeros((height, width))
        wrong[128 : 128 + 160, 256 : 256 + 160] = large("disc", 160, 160)
        found = gridded(tables, wrong)
        sizes.append(len(found.data))
        found.added[: 288 + 256, : 416 + 256] = 0
        assert not found.added.any()
    assert sizes[1] < 1.8 * sizes[0]


# What comes back


@pytest.mark.parametrize("colours", COLOURS)
def test_nodes_of_any_sensor_and_size_are_read_back(tables: Tables, colours: str) -> None:
    """And are those of sites: for each colour that the sensor has."""
    pattern = COLOURS[colours]
    for number, size in enumerate(SIZES):
        if number % 3 != len(COLOURS[colours]) % 3 and size != (129, 257):
            continue
        y, x = np.mgrid[: size[0], : size[1]]
        wrong = 5000 + 3000 * np.sin(y / 15) + 2000 * np.cos(x / 12) + noise(size, 300)
        found = gridded(tables, wrong, pattern, 700 if size[0] > 1 else 33)
        assert found.nodes.shape == (3, *(-(-n // 4) + 1 for n in quads(size)))
        assert rms(wrong - found.added) < 0.3 * rms(wrong)
        tiles = [-(-n // m) for n, m in zip(size, pattern.shape, strict=True)]
        there = np.unique(np.tile(pattern, tiles)[: size[0], : size[1]])
        for colour in range(3):
            assert found.nodes[colour].any() == (colour in there)


@pytest.mark.parametrize("step", [1, 5, 1 << 12, 1 << 15])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (140, 90)], ids=str)
def test_errors_of_any_magnitude_are_read_back(
    tables: Tables, size: tuple[int, int], step: int
) -> None:
    """Black for white and white for black, next to each other, at every step that weights have."""
    signs = noise(size, 1) > 0
    for wrong in (
        np.full(size, DOMAIN - 1),
        np.full(size, 1 - DOMAIN),
        np.where(signs, DOMAIN - 1, 1 - DOMAIN),
        np.where(np.indices(size)[1] < size[1] // 2, DOMAIN - 1, 1 - DOMAIN),
    ):
        found = gridded(tables, wrong, step=step)
        assert np.abs(found.nodes).max() <= grid.NODE_LIMIT
        assert np.abs(found.added).max() <= DOMAIN


@pytest.mark.parametrize("pattern", PATTERNS)
def test_colours_do_not_leak(tables: Tables, pattern: str) -> None:
    """An error of one colour, in opposite directions for another, leaves the third alone."""
    colours = PATTERNS[pattern]
    size = 150, 180
    tiles = [-(-n // m) for n, m in zip(size, colours.shape, strict=True)]
    every = np.tile(colours, tiles)[: size[0], : size[1]]
    for wrong_one in range(3):
        other = (wrong_one + 1) % 3
        wrong = 4000.0 * (every == wrong_one) - 3000.0 * (every == other)
        found = gridded(tables, wrong, colours)
        assert np.abs(found.added - wrong).max() <= 200
        assert not found.nodes[(wrong_one + 2) % 3].any()


def test_each_colour_is_added_to_its_own_sites() -> None:
    """Of patterns that a block of four sites does not hold, in pictures of odd sizes."""
    for colours in (*COLOURS.values(), np.array([[0], [1], [2]]), np.array([[2, 0, 1, 1, 0]])):
        for size in SIZES:
            nodes = np.ones((3, *(-(-n // 4) + 1 for n in quads(size))), np.int32)
            nodes *= np.array([1, 10, 100])[:, None, None] << grid.FRACTION
            tiles = [-(-n // m) for n, m in zip(size, colours.shape, strict=True)]
            every = np.tile(colours, tiles)[: size[0], : size[1]]
            found = added(nodes, size, colours.astype(np.uint8))
            assert np.array_equal(found, np.array([1, 10, 100])[every])


def nodes_for(size: tuple[int, int]) -> np.ndarray:
    shape = (3, *(-(-n // 4) + 1 for n in quads(size)))
    rng = np.random.default_rng(size)
    return rng.integers(-grid.NODE_LIMIT, grid.NODE_LIMIT + 1, shape).astype(np.int32)


def test_what_is_added_lies_between_the_nodes(tables: Tables) -> None:
    """The nodes at their own quads, and linear in between, to the rounding of two halvings."""
    nodes = nodes_for((65, 97))
    found = added(nodes, (65, 97), GREEN)[::2, ::2]
    y, x = (np.arange(n)[:, None] for n in found.shape)
    down, across = (np.maximum(1 - np.abs(at / 4 - np.arange(20 + 8)), 0) for at in (y, x))
    expected = down[:, : nodes.shape[1]] @ nodes[1] @ across[:, : nodes.shape[2]].T / 16
    assert np.abs(found - expected).max() < 1


@pytest.mark.parametrize("band", [2, 4, 6, 14, 122, 2000])
def test_bands_do_not_change_what_is_added(band: int) -> None:
    for size in ((1, 1), (2, 3), (131, 40), (260, 33)):
        for colours in (BAYER, PATTERNS["X-Trans"]):
            nodes = nodes_for(size)
            sites = np.zeros(size, np.int32)
            for top in range(0, size[0], band):
                grid.add(sites[top : top + band], nodes, colours, top)
            assert np.array_equal(sites, added(nodes, size, colours))


def test_what_is_added_is_added() -> None:
    """To values that are there, in place."""
    nodes = nodes_for((50, 61))
    before = np.random.default_rng(3).integers(0, DOMAIN, (50, 61)).astype(np.int32)
    sites = before.copy()
    grid.add(sites, nodes, BAYER)
    assert np.array_equal(sites - before, added(nodes, (50, 61), BAYER))
    assert sites.any()


# What no encoder wrote


def written(tables: Tables, scale: int, values: list[int]) -> bytes:
    """The beginning of a stream: four nodes of the first colour."""
    encoder = Encoder()
    encoder.code(np.array([scale - SCALES // 2]), [SCALE_TABLE], np.zeros(1, np.uint8))
    if 0 < scale < SCALES:
        here = np.full(len(values), scale, np.uint8)
        tables.code(encoder, np.array(values, np.int32), np.zeros(len(values), np.int16), here)
        for _ in range(40):  # nothing more: the scales that say so
            encoder.code(np.array([1 - SCALES // 2]), [SCALE_TABLE], np.zeros(1, np.uint8))
    return encoder.finish()


@pytest.mark.parametrize(
    "value", [LARGEST, -LARGEST, LARGEST + 1, -LARGEST - 1, 1 << 22, 1 - (1 << 24)]
)
def test_a_node_out_of_range_is_refused(tables: Tables, value: int) -> None:
    """Written by no encoder; behind right checksums."""
    decoder = Decoder(written(tables, SCALES - 1, [0, value, 0, 7]))
    if abs(value) > LARGEST:
        with pytest.raises(ValueError, match="a node of the grid is out of range"):
            grid.code(decoder, tables, 64, (1, 1), None)
    else:
        nodes = grid.code(decoder, tables, 64, (1, 1), None)
        assert nodes[0, 0, 0] == nodes[1].any() == nodes[2].any() == 0
        assert nodes[0].any()


@pytest.mark.parametrize("scale", [1, SCALES - 1, 0, -1, SCALES, SCALES + 1, 1 << 23, -(1 << 23)])
def test_a_scale_out_of_range_is_refused(tables: Tables, scale: int) -> None:
    decoder = Decoder(written(tables, scale, [0] * 4))
    if 0 < scale < SCALES:
        assert not grid.code(decoder, tables, 64, (1, 1), None).any()
    else:
        with pytest.raises(ValueError, match="a scale is out of range"):
            grid.code(decoder, tables, 64, (1, 1), None)


def test_a_silent_scale_takes_no_bits(tables: Tables) -> None:
    """Whichever of them a stream names: the nodes are zero."""
    for scale in np.flatnonzero(tables.sizes == SILENT)[1::6].tolist():
        data = written(tables, scale, [5, 5, 5, 5])
        assert not grid.code(Decoder(data), tables, 64, (1, 1), None).any()


@pytest.mark.parametrize("sign", [-1, 1])
def test_nodes_stay_in_range_however_levels_add_up(tables: Tables, sign: int) -> None:
    """Each level adds the most there is, at the largest step."""

    largest = sign * grid.largest((1 << 15 + grid.FRACTION) // grid.SPACINGS[-1])

    class Largest:
        def code(self, symbols, frequencies, index):  # type: ignore[no-untyped-def]
            assert symbols is None
            if np.array_equal(frequencies[0], SCALE_TABLE):
                return np.array([31], np.int32)
            return np.full(len(index), largest, np.int32)

    nodes = grid.code(Largest(), tables, 1 << 15, (40, 30), None)
    assert np.all(nodes == sign * grid.NODE_LIMIT)
    assert np.all(added(nodes, (80, 60), BAYER) == sign * DOMAIN)


def hostile(data: bytes, seed: int) -> bytes:
    """Bytes by chance, or a stream with some of its bytes altered, or cut."""
    rng = np.random.default_rng(seed)
    kind = seed % 4
    if kind == 0:
        return rng.bytes(4 * int(rng.integers(1, 300)))
    altered = np.frombuffer(data, np.uint8).copy()
    if kind == 1:
        altered = altered[: 4 * int(rng.integers(1, len(altered) // 4))]
    elif kind == 2:
        altered[rng.integers(0, len(altered), 3)] = rng.integers(0, 256, 3)
    else:
        altered[: int(rng.integers(1, 40))] = rng.choice([0, 255])
    return altered.tobytes()


@pytest.mark.parametrize("step", [1, 400, 1 << 15])
def test_hostile_streams_end_in_an_error_or_in_nodes_in_range(tables: Tables, step: int) -> None:
    wrong = large("disc", 61, 90)
    data = gridded(tables, wrong, step=step).data
    refused = 0
    for seed in range(24):
        coder = Decoder(hostile(data, seed))
        try:
            nodes = grid.code(coder, tables, step, quads(wrong.shape), None)
            assert np.abs(nodes).max() <= grid.NODE_LIMIT
            assert np.abs(added(nodes, wrong.shape, BAYER)).max() <= DOMAIN
            coder.finish()
        except (ValueError, CorruptSidecarError):
            refused += 1
    assert refused > 18


@pytest.mark.parametrize("rate", [0, RATES - 1])
def test_hostile_streams_of_a_layer_are_damaged_sidecars(shipped: Model, rate: int) -> None:
    run = fast(shipped, rate)
    planes = [clipped(24, 33)]
    photo = one_stripe([p.view for p in planes])
    coded = encoded(run, planes)
    head = LayerHead(rate, np.zeros((1, HYPER), np.int8))
    for seed in range(8):
        with pytest.raises(CorruptSidecarError, match=r"^damaged: "):
            list(LatentDecoder(run, head, hostile(coded.data, seed)).refine(photo))


# In the learned layer


def clipped(height: int, width: int, colours: np.ndarray = BAYER) -> Plane:
    """A picture with highlights that its JPEG does not have: too low by far, in a disc."""
    given = plane(height, width, colours)
    y, x = np.mgrid[:height, :width]
    near = np.hypot(y - height / 2, x - width / 2) / (0.4 * min(height, width))
    low = np.clip(14_000 * (1.3 - near), 0, 9000)
    tone = np.clip(given.view.tone - low, 0, None).astype(np.uint16)
    return Plane(replace(given.view, tone=tone), given.raw)


@pytest.mark.parametrize(
    ("rate", "share", "better"), [(4, 0.25, -0.4), (8, 0.65, 0.2), (16, 0.75, 0.6)]
)
def test_clipped_highlights_are_better_at_fewer_bytes(
    shipped: Model, rate: int, share: float, better: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than without the grids; or the same at fewer bytes still, as the encoder weighs both.

    share: of the bytes. better: dB.
    """
    run, planes = fast(shipped, rate), [clipped(192, 256)]
    for fit in ("fit_ahead", "fit_after"):  # which do a part of it, too
        monkeypatch.setattr(fitting, fit, lambda *_: None)
    coded = encoded(run, planes)
    check_decodes(run, planes, coded)
    monkeypatch.setattr(layer, "_levelled", lambda run, coder, plane, raw, overwrite: plane)
    without = encoded(run, planes)
    assert len(coded.data) < share * len(without.data)
    gain = 10 * np.log10(error(planes, without.decoded) / error(planes, coded.decoded))
    assert gain > better


@pytest.mark.parametrize("rate", [0, 13, RATES - 1])
def test_clipped_planes_of_any_sensor_come_back(shipped: Model, rate: int) -> None:
    run = fast(shipped, rate)
    for pattern in PATTERNS.values():
        planes = [clipped(47, 38, pattern)]
        check_decodes(run, planes, encoded(run, planes))


def test_clipped_planes_of_a_linear_raw_come_back(shipped: Model) -> None:
    """One of three, or all: each has its own grids."""
    run = fast(shipped)
    every = [clipped(37, 66, np.array([[colour]], np.uint8)) for colour in (1, 0, 2)]
    some = linear(37, 66)
    for planes in (every, [every[0], *some[1:]], [*some[:2], every[2]]):
        check_decodes(run, planes, encoded(run, planes))


def test_a_plane_without_such_errors_is_left_as_it_is(
    shipped: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same picture as without the grids, for a few bytes more."""
    run, planes = fast(shipped), [plane(96, 128, noise=150)]
    coded = encoded(run, planes)
    monkeypatch.setattr(layer, "_levelled", lambda run, coder, plane, raw, overwrite: plane)
    without = encoded(run, planes)
    assert np.array_equal(coded.decoded[0], without.decoded[0])
    assert len(coded.data) <= len(without.data) + FEW
