"""Trellis-coded quantisation: paths, the best of them, and what it gains."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_latents import Pass, giving, one_pass, shipped_path, sigmas
from test_shifts import forced

from rawcodec.model import latents, trellis
from rawcodec.model.config import (
    DISTORTION_WEIGHT,
    GROUPS,
    LANE,
    LATENT_LIMIT,
    LATENTS,
    MEAN_LIMIT,
    MEAN_UNIT,
    PASSES,
    SCALES,
    TRELLIS_SCALE,
)
from rawcodec.model.latents import TableCoder
from rawcodec.model.store import load_model
from rawcodec.model.tables import SILENT, Tables
from rawcodec.stream.entropy import Decoder, Encoder, RateMeter

STATES = range(8)

pytestmark = pytest.mark.usefixtures("no_overflow")


@pytest.fixture(scope="module")
def tables() -> Tables:
    return load_model(shipped_path()).tables


def short_lanes(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Lanes of so few latents that all of their paths can be tried."""
    monkeypatch.setattr(trellis, "LANE", length)


# The walk


def test_two_ways_lead_into_each_state_of_different_parities() -> None:
    assert trellis.NEXT.shape == (2 * len(STATES),)
    for state in STATES:
        ways = np.flatnonzero(state == trellis.NEXT)
        assert sorted(ways & 1) == [0, 1]
        assert len(set(ways >> 1)) == 2


def test_every_state_is_three_latents_away_by_one_path() -> None:
    """From any state: so paths that part stay apart for three, and each quantiser is near."""
    for start in STATES:
        ends = set()
        for parities in itertools.product((0, 1), repeat=3):
            state = np.array([start], np.uint8)
            for parity in parities:
                state = trellis.after(state, np.array([parity]))
            ends.add(int(state[0]))
        assert ends == set(STATES)


def test_half_of_the_states_have_the_second_quantiser() -> None:
    second = trellis.second(np.arange(8, dtype=np.uint8))
    assert second.sum() == 4
    assert second[0] == 0  # with which every lane begins


def test_a_state_follows_from_the_parity_alone() -> None:
    """Of negative integers too: that of -1 is 1."""
    integers = np.array([-LATENT_LIMIT, -3, -2, -1, 0, 1, 2, 3, LATENT_LIMIT], np.int32)
    for state in STATES:
        before = np.full(len(integers), state, np.uint8)
        found = trellis.after(before, integers)
        assert found.dtype == np.uint8
        assert np.array_equal(found, trellis.NEXT[2 * state + integers % 2])


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 255, 256, 257, 1000, 100_000])
def test_steps_are_all_latents_in_order(count: int) -> None:
    """At most as many as a lane has latents, each but the last of all lanes."""
    found = list(trellis.steps(count))
    at = [n for part in found for n in range(count)[part]]
    assert at == list(range(count))
    sizes = [part.stop - part.start for part in found]
    assert len(sizes) <= LANE
    assert set(sizes[:-1]) <= {math.ceil(count / LANE)}
    assert all(0 < size <= math.ceil(count / LANE) for size in sizes)


# The best path


@dataclass
class Offer:
    """What latents may become, and what that costs: (2, n) each, as of ``trellis.Prices``."""

    below: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.below[:, part], self.low[:, part], self.high[:, part]

    def price(self, latent: int, quantiser: int, integer: int) -> np.float32:
        """What one costs that is one of the two."""
        above = integer - int(self.below[quantiser, latent])
        assert above in (0, 1)
        price: np.float32 = (self.low, self.high)[above][quantiser, latent]
        return price

    def cost(self, lane: range, integers: list[int]) -> np.float32:
        """What a path costs, added up from its beginning."""
        total, state = np.float32(0), 0
        for latent, integer in zip(lane, integers, strict=True):
            total += self.price(latent, state % 2, integer)
            state = int(trellis.NEXT[2 * state + integer % 2])
        return total

    def cheapest(self, lane: range) -> np.float32:
        """The lowest cost of all paths."""

        def costs(total: np.float32, state: int, rest: range) -> Iterator[np.float32]:
            if not rest:
                yield total
                return
            for above in (0, 1):
                integer = int(self.below[state % 2, rest[0]]) + above
                paid = total + self.price(rest[0], state % 2, integer)
                yield from costs(paid, int(trellis.NEXT[2 * state + integer % 2]), rest[1:])

        return min(costs(np.float32(0), 0, lane))


def offers(kind: str, count: int, seed: int) -> Offer:
    """Integers and prices by chance.

    kind: "chance"; "ties", of few prices, or none at all; or "large", of any size.
    """
    rng = np.random.default_rng([seed, count])
    shape = 2, count
    low, high = (rng.gamma(2, 3, shape).astype(np.float32) for _ in range(2))
    below = rng.integers(-4, 4, shape).astype(np.int32)
    if kind == "ties":
        low, high = (rng.integers(0, 1 + seed % 3, shape).astype(np.float32) for _ in range(2))
    if kind == "large":
        low, high = ((10 ** rng.uniform(-30, 30, shape)).astype(np.float32) for _ in range(2))
        below = rng.integers(-(1 << 15), (1 << 15) - 1, shape).astype(np.int32)
    return Offer(below, low, high)


@pytest.mark.parametrize("kind", ["chance", "ties", "large"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, 11, 12, 13, 31, 36, 75])
def test_the_best_path_is_the_cheapest_of_all(
    kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit of the sum; of each lane, whole or not."""
    short_lanes(monkeypatch, 6)
    for seed in range(6):
        offer = offers(kind, count, seed)
        found = trellis.best(count, offer)
        assert found.dtype == np.int16
        assert found.shape == (count,)
        lanes = math.ceil(count / 6)
        for first in range(lanes):
            lane = range(first, count, lanes)
            assert offer.cost(lane, found[first::lanes].tolist()) == offer.cheapest(lane)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_the_best_path_is_the_cheapest_of_lanes_as_they_are(count: int) -> None:
    """Whose paths cannot all be tried: of those into a state, only the cheapest is kept."""
    for kind in ("chance", "ties", "large"):
        offer = offers(kind, count, 1)
        found = trellis.best(count, offer)
        lanes = math.ceil(count / LANE)
        for first in range(lanes):
            lane = range(first, count, lanes)
            reached = {0: np.float32(0)}
            for latent in lane:
                paid: dict[int, list[np.float32]] = {}
                for state, total in reached.items():
                    for above in (0, 1):
                        integer = int(offer.below[state % 2, latent]) + above
                        following = int(trellis.NEXT[2 * state + integer % 2])
                        price = offer.price(latent, state % 2, integer)
                        paid.setdefault(following, []).append(total + price)
                reached = {state: min(totals) for state, totals in paid.items()}
            assert offer.cost(lane, found[first::lanes].tolist()) == min(reached.values())


@pytest.mark.parametrize("kind", ["chance", "ties"])
def test_a_path_does_not_depend_on_threads_or_on_lanes_at_a_time(
    kind: str, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several paths cost the same."""
    count = 5000  # of 40 lanes
    offer = offers(kind, count, 2)
    threads(1)
    monkeypatch.setattr(trellis, "_TOGETHER", 1000)
    expected = trellis.best(count, offer)
    for number, together in itertools.product((1, 2, 5), (1, 9, 20, 39, 40)):
        threads(number)
        monkeypatch.setattr(trellis, "_TOGETHER", together)
        assert np.array_equal(trellis.best(count, offer), expected)
        assert torch.get_num_threads() == number


# Through the coder


def some(scale: np.ndarray, seed: int, spread: float = 1) -> Pass:
    """Latents of these scales (n,) in one row."""
    return one_pass(scale[None], spread, seed)


def errors(given: Pass, coded: np.ndarray) -> np.ndarray:
    """How far what was coded, in half steps, is off the latents: (n,), in steps."""
    wanted = given.latents[:, GROUPS[PASSES[0][0]][0]].numpy()
    found: np.ndarray = (coded / 2 - wanted).ravel()
    return found


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 1000, 20_000])
@pytest.mark.parametrize("spread", [0.3, 1, 3])
def test_latents_of_any_scale_come_back(tables: Tables, count: int, spread: float) -> None:
    """The same from all three coders; with shifts, and without."""
    scale = np.random.default_rng(count).integers(0, SCALES, count)
    given = some(scale, 1, spread)
    for shifts in (False, True):
        encoder, meter = Encoder(), RateMeter()
        coded = given.coded(tables, encoder, shifts)
        assert np.array_equal(given.coded(tables, meter, shifts), coded)
        data = encoder.finish()
        assert 8 * len(data) == pytest.approx(meter.bits, rel=0.002, abs=16 + 97)
        decoder = Decoder(data)
        blind = replace(given, latents=torch.zeros_like(given.latents))
        assert np.array_equal(blind.coded(tables, decoder, shifts), coded)
        decoder.finish()


@pytest.mark.parametrize("number", range(len(PASSES)))
def test_latents_of_every_pass_come_back(tables: Tables, number: int) -> None:
    """Also of several channels, and of some of the positions."""
    rng = np.random.default_rng(number)
    channels = len(GROUPS[PASSES[number][0]])
    mean = torch.from_numpy(rng.integers(-80, 81, (1, channels, 21, 34)).astype(np.int16))
    scale = torch.from_numpy(rng.integers(0, SCALES, mean.shape).astype(np.uint8))
    wanted = torch.from_numpy(rng.normal(0, 20, (1, LATENTS, 21, 34)).astype(np.float32))
    here = torch.from_numpy(rng.integers(0, 2, (1, 1, 21, 34)).astype(np.int16))
    encoder = Encoder()
    coded = TableCoder(tables, encoder, giving(wanted)).code(number, here, mean, scale)
    assert coded.dtype == torch.int16
    decoder = Decoder(encoder.finish())
    assert torch.equal(TableCoder(tables, decoder, None).code(number, here, mean, scale), coded)
    decoder.finish()
    assert torch.any(coded[:, -1] & 1)
    near = (coded / 2 - wanted[:, list(GROUPS[PASSES[number][0]])]).abs() * here
    assert float(near[scale.expand_as(near) >= TRELLIS_SCALE].max()) <= 1


@pytest.mark.parametrize("scale", [30, 40, 63])
def test_half_of_large_latents_have_the_second_quantiser(tables: Tables, scale: int) -> None:
    """They alone lie between integers."""
    coded = some(np.full(20_000, scale), 2).coded(tables, RateMeter(), shifts=False)
    assert 0.47 < np.mean(coded & 1) < 0.53


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_latents_of_small_scales_have_the_first_quantiser(
    tables: Tables, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of scales that are small once they are shifted."""
    monkeypatch.setattr(TableCoder, "_best_shifts", forced(np.array(shift)))
    scale = np.random.default_rng(3).integers(0, SCALES, 20_000)
    coded = some(scale, 3).coded(tables, RateMeter()).ravel()
    moved = np.clip(scale + shift * (tables.sizes[scale] != SILENT), 0, SCALES - 1)
    assert not np.any(coded[moved < TRELLIS_SCALE] & 1)
    for large in range(TRELLIS_SCALE, SCALES + min(shift, 0)):
        assert np.mean(coded[moved == large] & 1) > 0.3


def test_the_encoder_finds_the_cheapest_of_all_paths(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bits that its coder takes, and the weighted squared error."""
    short_lanes(monkeypatch, 5)
    count, lanes = 60, 12
    scale = np.random.default_rng(4).integers(TRELLIS_SCALE, 45, count)
    given = some(scale, 4, 1.5)
    found = given.coded(tables, RateMeter(), shifts=False).ravel()
    wanted = given.latents[0, GROUPS[0][0], 0].numpy().astype(float)
    mean, scales = given.mean.numpy().ravel(), given.scale.numpy().ravel()

    @functools.cache
    def price(latent: int, beside: int, integer: int) -> float:
        meter, at = RateMeter(), slice(latent, latent + 1)
        moved = mean[at] + np.int16(MEAN_UNIT // 2 * beside)
        tables.code(meter, np.array([integer], np.int32), moved, scales[at])
        return meter.bits + DISTORTION_WEIGHT * float(integer - beside / 2 - wanted[latent]) ** 2

    for first in range(lanes):
        costs = {}
        for aboves in itertools.product((0, 1), repeat=5):
            total, state, path = 0.0, 0, []
            for latent, above in zip(range(first, count, lanes), aboves, strict=True):
                beside = state % 2
                integer = math.floor(wanted[latent] + beside / 2) + above
                total += price(latent, beside, integer)
                path.append(2 * integer - beside)
                state = int(trellis.NEXT[2 * state + integer % 2])
            costs[tuple(path)] = total
        assert costs[tuple(found[first::lanes].tolist())] < min(costs.values()) + 1e-3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_do_not_change_what_is_chosen(
    tables: Tables,
    count: int,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = some(np.random.default_rng(5).integers(0, SCALES, 20_000), 5)
    threads(1)
    encoder = Encoder()
    given.coded(tables, encoder)
    monkeypatch.setattr(trellis, "_TOGETHER", 9)
    threads(count)
    again = Encoder()
    given.coded(tables, again)
    assert again.finish() == encoder.finish()


@pytest.mark.parametrize("mean", [-MEAN_LIMIT, 0, MEAN_LIMIT])
def test_latents_beyond_any_range_are_limited(tables: Tables, mean: int) -> None:
    """With either quantiser; those that are in range are met as ever."""
    wild = np.array([1e9, -1e9, 40_000, -40_000, 16_384, -16_384, 16_381, -16_381, 0, 3.3])
    values = np.tile(wild, 60)
    scale = np.random.default_rng(6).integers(TRELLIS_SCALE, SCALES, len(values))
    given = some(scale, 6)
    given.latents[0, GROUPS[0][0], 0] = torch.from_numpy(values).float()
    given.mean[:] = mean
    for shifts in (False, True):
        encoder = Encoder()
        coded = given.coded(tables, encoder, shifts).ravel()
        decoder = Decoder(encoder.finish())
        assert np.array_equal(given.coded(tables, decoder, shifts).ravel(), coded)
        decoder.finish()
        assert {0, 1} == set(coded[values == 1e9] & 1)
        assert np.abs(coded.astype(int)).max() < 2 * LATENT_LIMIT
        limited = np.clip(values, 1 - LATENT_LIMIT, LATENT_LIMIT - 1)
        assert np.abs(coded / 2 - limited).max() <= 3
        assert np.abs(coded / 2 - values)[np.abs(values) < 100].max() <= 1


# What it gains


@dataclass
class Outcome:
    """Of latents: bits each, and their mean squared error, in squares of the standard deviation."""

    bits: float
    error: float
    sigma: float

    @property
    def cost(self) -> float:
        return self.bits + DISTORTION_WEIGHT * self.error * self.sigma**2

    @property
    def decibels(self) -> float:
        return -10 * math.log10(self.error)


def outcome(tables: Tables, scale: int) -> Outcome:
    """Of latents that are as a scale says."""
    given = some(np.full(40_000, scale), 8)
    meter = RateMeter()
    error = errors(given, given.coded(tables, meter, shifts=False))
    sigma = float(sigmas()[scale])
    return Outcome(meter.bits / error.size, float((error**2).mean()) / sigma**2, sigma)


def nearest_scale(sigma: float) -> int:
    return int(np.argmin(np.abs(np.log(sigmas() / sigma))))


@pytest.mark.parametrize(
    ("sigma", "cheaper", "decibels"), [(0.5, 0.09, 1.1), (1, 0.055, 0.95), (3, 0.033, 0.95)]
)
def test_latents_take_fewer_bits_or_have_a_smaller_error(
    tables: Tables,
    sigma: float,
    cheaper: float,
    decibels: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Than those of one quantiser, however its steps are chosen to take the same bits.

    cheaper: the share of bits and weighted error that is saved, of the same steps. decibels: how
    much less the error is, of the same bits.
    """
    scale = nearest_scale(sigma)
    ours = outcome(tables, scale)
    monkeypatch.setattr(latents, "TRELLIS_SCALE", SCALES)
    alone = [outcome(tables, n) for n in (scale - 1, scale, scale + 1)]
    assert ours.cost < (1 - cheaper) * alone[1].cost
    bits = [other.bits for other in alone]
    assert bits[0] < ours.bits < bits[-1]
    theirs = float(np.interp(ours.bits, bits, [other.decibels for other in alone]))
    assert ours.decibels > theirs + decibels
