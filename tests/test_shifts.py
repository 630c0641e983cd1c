"""Classes of quads by what latents near them were off, and the shifts of scales of each class."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from test_latents import Pass, giving, one_pass, shipped_path, sigmas

from rawcodec.model import latents, nearby
from rawcodec.model.config import (
    GROUPS,
    LATENTS,
    MEAN_LIMIT,
    MEAN_UNIT,
    PASSES,
    SCALE_OCTAVES,
    SCALES,
    TRELLIS_SCALE,
)
from rawcodec.model.latents import TableCoder
from rawcodec.model.nearby import CLASSES, EXPECTED, FARTHEST, RATIOS, Nearby
from rawcodec.model.shifts import (
    FEWEST,
    SHIFT_LIMIT,
    SHIFTED,
    SHIFTED_TOGETHER,
    STEP_BITS,
    Cells,
)
from rawcodec.model.store import load_model
from rawcodec.model.tables import SILENT, TOTAL, Tables
from rawcodec.stream.entropy import Decoder, Encoder, RateMeter

STEP_TABLE = np.rint(TOTAL / 2 ** STEP_BITS[SHIFT_LIMIT : SHIFT_LIMIT + 15]).astype(np.int64)
STEP_TABLE = np.append(STEP_TABLE, TOTAL - STEP_TABLE.sum())
"""Frequencies of the steps -7..7, and of any beyond."""

pytestmark = pytest.mark.usefixtures("no_overflow")


@pytest.fixture(scope="module")
def tables() -> Tables:
    return load_model(shipped_path()).tables


def inherited(shifts: np.ndarray, cells: Cells) -> np.ndarray:
    """The shifts (10, 16) as they can be coded: those of few latents are the class's before."""
    found, before = [], np.zeros(SHIFTED, np.int32)
    for row, coded in zip(shifts, cells.shifted, strict=True):
        before = np.where(coded, row, before)
        found.append(before)
    return np.array(found, np.int32)


def forced(shifts: np.ndarray) -> Callable[..., np.ndarray]:
    """In the place of ``TableCoder._best_shifts``: always these, int (10, 16), or (16,)."""

    def best(_: TableCoder, cells: Cells, *__: np.ndarray) -> np.ndarray:
        return inherited(np.broadcast_to(shifts, (CLASSES, SHIFTED)), cells)

    return best


# Classes


@dataclass
class Coded:
    """Some latents of quads (h, w), by chance: in half steps, with their means and scales."""

    here: np.ndarray
    latents: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def add(self, to: Nearby) -> None:
        to.add(self.here, self.latents, self.mean, self.scale)


def coded(size: tuple[int, int], channels: int, seed: int, share: float, spread: float) -> Coded:
    rng = np.random.default_rng([seed, channels])
    here = rng.random(size) < share
    shape = int(here.sum()), channels
    scale = rng.integers(0, SCALES, shape).astype(np.uint8)
    mean = rng.integers(-MEAN_LIMIT, MEAN_LIMIT + 1, shape).astype(np.int16)
    off = 2 * spread * sigmas()[scale] * rng.normal(size=shape)
    z = np.clip(np.rint(mean / 4 + off), -(1 << 15) + 2, (1 << 15) - 2)
    return Coded(here, z.astype(np.int16), mean, scale)


def by_hand(passes: list[Coded], size: tuple[int, int]) -> np.ndarray:
    """The classes as docs/FORMAT.md has them."""
    off, expected = np.zeros((2, *size), int)
    for each in passes:
        places = np.argwhere(each.here)
        for (y, x), zs, ms, ss in zip(places, each.latents, each.mean, each.scale, strict=True):
            for z, m, s in zip(zs.tolist(), ms.tolist(), ss.tolist(), strict=True):
                off[y, x] += 16 * min(abs(4 * z - m), 4095)
                expected[y, x] += EXPECTED[s]
    result = np.zeros(size, int)
    for y, x in np.ndindex(size):
        sums = [128, 128]
        for i, j in itertools.product(range(-3, 4), repeat=2):
            if 0 <= y + i < size[0] and 0 <= x + j < size[1]:
                weight = (4 - abs(i)) * (4 - abs(j))
                sums[0] += weight * int(off[y + i, x + j])
                sums[1] += weight * int(expected[y + i, x + j])
        result[y, x] = sum(16 * sums[0] >= ratio * sums[1] for ratio in RATIOS)
    return result


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (23, 14), (70, 5)])
def test_classes_are_those_of_the_document(size: tuple[int, int], spread: float):
    """After each pass; of all of the quads, of some, and of none."""
    found = Nearby(*size)
    assert np.all(found.classes() == 5)
    passes: list[Coded] = []
    for channels, share in ((1, 0.5), (1, 0.0), (1, 1.0), (2, 1.0)):
        passes.append(coded(size, channels, len(passes), share, spread))
        passes[-1].add(found)
        classes = found.classes()
        assert classes.dtype == np.uint8
        assert np.array_equal(classes, by_hand(passes, size))
    if spread == 0:
        assert classes.max() < 5


def test_all_classes_are_in_use():
    """From nothing that is off at all to far more than was expected."""
    size, found = (120, 120), set()
    for spread in 2.0 ** np.arange(-4, 4, 0.25):
        near = Nearby(*size)
        coded(size, 2, 1, 1.0, spread).add(near)
        found |= set(np.unique(near.classes()).tolist())
    assert found == set(range(CLASSES))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_fit(sign: int):
    """Of latents as far off as there are any, with scales as large; or as small."""
    size = 9, 9
    for scale, expected in ((0, CLASSES - 1), (SCALES - 1, CLASSES - 1)):
        near = Nearby(*size)
        for channels in (1, 1, 2):
            shape = 81, channels
            latents_ = np.full(shape, sign * ((1 << 15) - 2), np.int16)
            means = np.full(shape, -sign * MEAN_LIMIT, np.int16)
            near.add(np.ones(size, bool), latents_, means, np.full(shape, scale, np.uint8))
        assert near.classes()[4, 4] == expected
    most = 16 * FARTHEST * LATENTS * 16**2 + 128
    assert 16 * most < 1 << 31
    assert max(RATIOS) * (int(EXPECTED.max()) * LATENTS * 16**2 + 128) < 1 << 31


def test_what_is_expected_are_the_scales():
    """0.8 standard deviations, as a Gaussian has it, in 1/128 steps."""
    assert pytest.approx(0.8 * 128 * sigmas(), abs=0.5) == EXPECTED
    assert EXPECTED.dtype == np.int32


def test_classes_do_not_depend_on_threads_or_bands(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
):
    size = 150, 40
    given = [coded(size, 1, 1, 0.4, 1.0), coded(size, 2, 2, 1.0, 1.0)]
    expected: np.ndarray | None = None
    for number, rows in ((1, 150), (1, 64), (2, 7), (3, 1)):
        threads(number)
        monkeypatch.setattr(nearby, "_ROWS", rows)
        near = Nearby(*size)
        for each in given:
            each.add(near)
        found = near.classes()
        assert expected is None or np.array_equal(found, expected)
        expected = found


# Shifts


def cells_of(tables: Tables, least: int, seed: int) -> Cells:
    """Cells with latents of all classes and scales: ``least`` to four times as many of each."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(least, 4 * least + 1, CLASSES * SCALES)
    of = rng.permutation(np.repeat(np.arange(CLASSES * SCALES), counts))
    classes, scale = np.divmod(of, SCALES)
    return Cells(tables, classes.astype(np.uint8), scale.astype(np.uint8))


@pytest.mark.parametrize("least", [0, 5, 30])
@pytest.mark.parametrize("seed", range(5))
def test_shifts_are_read_back(tables: Tables, seed: int, least: int) -> None:
    """None at all take a bit and a half each."""
    rng = np.random.default_rng(seed)
    cells = cells_of(tables, least, seed)
    shifts = rng.integers(-SHIFT_LIMIT, SHIFT_LIMIT + 1, (CLASSES, SHIFTED))
    if seed == 0:
        shifts[:] = 0
    if seed == 1:
        shifts[:] = SHIFT_LIMIT * (-1) ** np.arange(CLASSES)[:, None]
    shifts = inherited(shifts, cells)
    encoder, meter = Encoder(), RateMeter()
    for coder in (encoder, meter):
        assert np.array_equal(cells.code(coder, shifts), shifts)
    decoder = Decoder(encoder.finish())
    found = cells.code(decoder, None)
    assert found.dtype == np.int32
    assert np.array_equal(found, shifts)
    decoder.finish()
    steps = np.diff(shifts, axis=0, prepend=0)[cells.shifted]
    assert meter.bits == pytest.approx(STEP_BITS[steps + 2 * SHIFT_LIMIT].sum(), rel=1e-4)
    assert seed > 0 or meter.bits < 1.5 * cells.shifted.sum() + 1
    if least == 0:
        assert not cells.shifted.any()
    elif least == 30:
        assert cells.shifted.sum() > 100


def test_shifts_are_coded_where_latents_have_them(tables: Tables) -> None:
    """At ``FEWEST`` of a class and four scales, but for silent ones."""
    spoken = [scale for scale in range(SCALES) if tables.sizes[scale] != SILENT]
    silent = [scale for scale in range(SCALES) if tables.sizes[scale] == SILENT]
    group = [scale for scale in spoken if scale // SHIFTED_TOGETHER == 7]
    assert len(group) == SHIFTED_TOGETHER
    of_class = {3: FEWEST - 1, 4: FEWEST, 9: 5 * FEWEST}
    classes = np.repeat(list(of_class), list(of_class.values())).astype(np.uint8)
    scale = np.resize(np.array(group, np.uint8), len(classes))
    many = 3 * FEWEST
    classes = np.append(classes, np.zeros(many, np.uint8))
    scale = np.append(scale, np.resize(np.array(silent, np.uint8), many))
    expected = np.zeros((CLASSES, SHIFTED), bool)
    expected[[4, 9], 7] = True
    assert np.array_equal(Cells(tables, classes, scale).shifted, expected)


@pytest.mark.parametrize("value", [SHIFT_LIMIT + 1, -SHIFT_LIMIT - 1, 63, -64, 1 << 23])
@pytest.mark.parametrize("before", [0, 2])
def test_a_shift_out_of_range_is_refused(tables: Tables, value: int, before: int) -> None:
    """Written by no encoder; behind right checksums. Also one that two steps lead to."""
    cells = cells_of(tables, 64, 1)
    steps = np.zeros((CLASSES, SHIFTED), np.int32)
    steps[4, 11], steps[2, 11] = value - before, before
    encoder = Encoder()
    written = steps[cells.shifted]
    encoder.code(written, [STEP_TABLE], np.zeros(len(written), np.uint8))
    with pytest.raises(ValueError, match="a shift of scales is out of range"):
        cells.code(Decoder(encoder.finish()), None)
    with pytest.raises(ValueError, match="a shift of scales is out of range"):
        cells.code(Encoder(), steps.cumsum(0, dtype=np.int32))


@pytest.mark.parametrize("shift", [-SHIFT_LIMIT, -1, 0, 3, SHIFT_LIMIT])
def test_a_shift_moves_four_scales_of_a_class_but_silent_ones_stay(
    tables: Tables, shift: int
) -> None:
    of = np.random.default_rng(1).permutation(np.arange(CLASSES * SCALES).repeat(2))
    classes, scale = (part.astype(np.uint8) for part in np.divmod(of, SCALES))
    cells = Cells(tables, classes, scale)
    for number, group in itertools.product((0, 5, 9), range(SHIFTED)):
        shifts = np.zeros((CLASSES, SHIFTED), np.int32)
        shifts[number, group] = shift
        found = cells.moved(shifts)
        assert found.dtype == np.uint8
        moves = (classes == number) & (scale // 4 == group) & (tables.sizes[scale] != SILENT)
        assert np.array_equal(found, np.clip(scale + shift * moves, 0, SCALES - 1))


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 1])
@pytest.mark.parametrize("spread", [0.3, 1, 3])
def test_a_pass_with_shifts_is_read_back(tables: Tables, spread: float, share: float) -> None:
    given = one_pass(scales_like(0, SCALES, 1), spread, 1, share)
    encoder = Encoder()
    found = given.coded(tables, encoder)
    data = encoder.finish()
    decoder = Decoder(data)
    assert np.array_equal(given.coded(tables, decoder), found)
    decoder.finish()
    if share == 0:  # a pass of no positions takes nothing
        assert data == Encoder().finish()
    given.latents[:] = 0  # what an encoder knows, and a decoder does not
    assert share == 0 or not np.array_equal(given.coded(tables, Encoder()), found)


def scales_like(low: int, high: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (90, 120))


@pytest.mark.parametrize("octaves", [-1, 1])
def test_shifts_make_up_for_scales_that_are_wrong(tables: Tables, octaves: int) -> None:
    """By a factor of two: of what that costs, less than a tenth is left."""
    scale = scales_like(30, 50, 2)
    given = one_pass(scale, 2.0**octaves, 3)
    step = round((SCALES - 1) / SCALE_OCTAVES)
    right = replace(given, scale=given.scale + octaves * step)
    ideal, _ = right.cost(tables, shifts=False)
    wrong, _ = given.cost(tables, shifts=False)
    found, _ = given.cost(tables)
    assert wrong > 1.02 * ideal
    assert found - ideal < 0.1 * (wrong - ideal)


def test_each_four_scales_have_a_shift_of_their_own(tables: Tables) -> None:
    """Small ones that are too large, and large ones that are too small."""
    scale = scales_like(28, 56, 4)
    spread = np.where(scale < 44, 0.5, 2.0)
    given = one_pass(scale, spread, 5)
    step = round((SCALES - 1) / SCALE_OCTAVES)
    moved = given.scale + torch.from_numpy(np.where(scale < 44, -step, step))
    right = replace(given, scale=moved.to(torch.uint8))
    ideal, _ = right.cost(tables, shifts=False)
    wrong, _ = given.cost(tables, shifts=False)
    found, _ = given.cost(tables)
    assert found - ideal < 0.1 * (wrong - ideal)


@dataclass
class Passes:
    """All passes of a plane whose scales are wrong by places: by ``factor`` (h, w) of each."""

    factor: np.ndarray
    seed: int

    def code(self, tables: Tables, coder: Any) -> tuple[list[torch.Tensor], list[float]]:
        """The latents of each pass, and bits after it where the coder is a meter."""
        rng = np.random.default_rng(self.seed)
        shape = self.factor.shape
        wanted = torch.zeros((1, LATENTS, *shape))
        given = None if isinstance(coder, Decoder) else giving(wanted)
        table_coder = TableCoder(tables, coder, given)
        found, bits = [], []
        for number, (group, _) in enumerate(PASSES):
            channels = GROUPS[group]
            mean = rng.integers(-80, 81, (len(channels), *shape)).astype(np.int16)
            scale = rng.integers(25, 45, mean.shape).astype(np.uint8)
            residue = rng.normal(size=mean.shape) * sigmas()[scale] * self.factor
            wanted[0, list(channels)] = torch.from_numpy(mean / MEAN_UNIT + residue).float()
            here = np.ones(shape, np.int16)
            if number < 2:
                here[(np.indices(shape).sum(0) + number) % 2 == 1] = 0
            tensors = (torch.from_numpy(part)[None] for part in (here[None], mean, scale))
            found.append(table_coder.code(number, *tensors))
            bits.append(getattr(coder, "bits", 0.0))
        return found, bits


def test_scales_that_are_wrong_in_places_have_shifts_there(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second pass on, most of what that costs is saved; and it is all read back."""
    factor = np.where(np.indices((96, 96)).sum(0) // 32 % 2, 3.0, 1 / 3)
    given = Passes(factor, 1)
    _, found = given.code(tables, RateMeter())
    encoder = Encoder()
    latents_, _ = given.code(tables, encoder)
    decoder = Decoder(encoder.finish())
    for one, other in zip(latents_, given.code(tables, decoder)[0], strict=True):
        assert torch.equal(one, other)
    decoder.finish()

    with monkeypatch.context() as patched:
        patched.setattr(Nearby, "classes", lambda near: np.full(near._shape, 5, np.uint8))
        _, together = given.code(tables, RateMeter())
    assert found[0] == together[0]
    assert found[-1] - found[0] < 0.85 * (together[-1] - together[0])


@pytest.mark.parametrize("spread", [0, 0.1, 0.7, 1, 1.4, 10])
@pytest.mark.parametrize("share", [0, 0.002, 0.02, 1])
def test_shifts_never_do_harm(
    tables: Tables, spread: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bits of shifts that are all none: few latents are not worth one.

    They are chosen as if each latent were quantised alone, and are the best then. Those that lead
    to the trellis or away from it may cost a little.
    """
    rng = np.random.default_rng(6)
    for scale in (scales_like(0, SCALES, 7), scales_like(10, 22, 8), scales_like(60, SCALES, 9)):
        mixed = spread * 2 ** rng.uniform(-1, 1, scale.shape)
        given: Pass = one_pass(scale, mixed, 10, share)
        for slack, first in ((0.01, TRELLIS_SCALE), (0, SCALES)):
            monkeypatch.setattr(latents, "TRELLIS_SCALE", first)
            _, without = given.cost(tables, shifts=False)
            bits, found = given.cost(tables)
            assert found <= (1 + slack) * without + 1e-3 * max(1, bits * 1e-3)
            if share == 0:
                assert bits == 0
