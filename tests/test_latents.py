"""The learned layer below the pipeline: weights files, tables, and the latents of planes."""

from __future__ import annotations

import functools
import io
import math
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rawcodec import weights
from rawcodec.errors import CorruptSidecarError, ModelError
from rawcodec.model import fitted, fitting, kernels, latents, network, trellis
from rawcodec.model.config import (
    DISTORTION_WEIGHT,
    FINE,
    GROUPS,
    HYPER,
    HYPER_LIMIT,
    LATENT_LIMIT,
    LATENTS,
    LAYERS,
    MEAN_LIMIT,
    MEAN_UNIT,
    PASSES,
    RATES,
    SCALE_MIN,
    SCALE_OCTAVES,
    SCALES,
    STEPS,
    TRELLIS_SCALE,
    operations_per_site,
)
from rawcodec.model.fitted import Coefficients, Sight
from rawcodec.model.inputs import blocks, inputs, unblocks
from rawcodec.model.latents import PlaneCodec, Runner, TableCoder, Wanted
from rawcodec.model.layer import LayerHead, ahead, code_planes
from rawcodec.model.nearby import CLASSES
from rawcodec.model.shifts import SHIFTED
from rawcodec.model.store import COMPANDED, Model, load_model
from rawcodec.model.tables import (
    HALVES,
    SILENT,
    TOTAL,
    EntropyCoder,
    Tables,
    split,
)
from rawcodec.model.view import PlaneView, Stripes
from rawcodec.stream.entropy import Decoder, Encoder, RateMeter

BAYER = np.array([[0, 1], [1, 2]], np.uint8)
XTRANS = np.array(
    [["RGB".index(letter) for letter in row] for row in ("GBGGRG", "RGRBGB", "GBGGRG")]
    + [["RGB".index(letter) for letter in row] for row in ("GRGGBG", "BGBRGR", "GRGGBG")],
    np.uint8,
)
PATTERNS = {
    "RGGB": BAYER,
    "GRBG": BAYER[:, ::-1],
    "GBRG": BAYER[::-1],
    "BGGR": BAYER[::-1, ::-1],
    "X-Trans": XTRANS,
    "quad": BAYER.repeat(2, 0).repeat(2, 1),
    "mono": np.array([[1]], np.uint8),
}
GREEN = PATTERNS["mono"]


# Models: the one that is shipped, and one that nobody trained, with filters that nobody fitted


def shipped_path() -> Path:
    return weights.folder() / weights.models()[0].file


@cache
def arrays() -> dict[str, Tensor]:
    """The shipped weights file, array by array; not to be changed."""
    return load_file(shipped_path())


def wild_arrays() -> dict[str, Tensor]:
    """Weights by chance, so that every activation, mean and scale occurs, and all limits."""
    rng = np.random.default_rng(11)
    found = dict(arrays())
    for name, layer in LAYERS.items():
        shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        middle, spread = layer.limit / 2, layer.limit / 4
        if layer.out == "value":
            middle, spread = 0.0, layer.limit / 3
        if name.endswith("mean"):
            spread = 60.0
        if name == "order":
            spread = 200.0  # less than the noise, so that both steps have positions
        size = math.sqrt(layer.inputs * layer.kernel**2) * 50 * 73
        shift = max(0, round(math.log2(size / spread)))
        bias = middle * 2**shift + rng.normal(0, size / 2, bias_shape(name))
        found[f"{name}.weight"] = torch.from_numpy(rng.integers(-127, 128, shape).astype(np.int8))
        found[f"{name}.shift"] = torch.full((layer.outputs,), shift, dtype=torch.uint8)
        limit = (1 << 24) - 1 - int(layer.inputs * layer.kernel**2 * 127 * 127)
        bias = np.clip(np.rint(bias), -limit, limit)
        found[f"{name}.bias"] = torch.from_numpy(bias.astype(np.int32))
    found["pattern"] = torch.from_numpy(rng.integers(-4096, 4097, (STEPS, 64, 64)).astype(np.int16))
    found["hyper_scale"] = torch.from_numpy(
        rng.integers(0, SCALES, (RATES, HYPER)).astype(np.uint8)
    )
    return found


def bias_shape(name: str) -> tuple[int, int]:
    return RATES if LAYERS[name].conditioned else 1, LAYERS[name].outputs


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(shipped_path())


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("wild") / "wild.safetensors"
    save_file(wild_arrays(), path)
    return load_model(path)


def unfitted(
    seed: int,
    sight: Sight,
    values: np.ndarray,
    raw: np.ndarray,
    forward: np.ndarray,
    step: int,
    tables: Tables,
) -> Coefficients:
    """A filter by chance in the place of one fitted to a plane, the same for the same size."""
    seen, colours = sight.seen, sight.seen.plane.colours
    rng = np.random.default_rng([seed, seen.height, seen.width, *colours.ravel()])
    possible = fitted.shapes(colours)
    activities, shades = possible[rng.integers(len(possible))]
    thresholds = [
        np.sort(rng.integers(0, n, m - 1)) for n, m in ((6000, activities), (4080, shades))
    ]
    count = activities * shades * len(fitted.outputs(colours))
    octaves = rng.integers(0, fitted.OCTAVES, fitted.CHANNELS + 1)
    limits = np.append(np.full(fitted.CHANNELS, 127), 100_000) >> octaves
    limits[rng.integers(fitted.CHANNELS, size=4)] = 0
    numbers = [
        rng.integers(-limit, limit + 1, count * fitted.TAPS).astype(np.int32) for limit in limits
    ]
    numbers[-1] = numbers[-1][:count]
    return Coefficients(
        (activities, shades),
        tuple(np.concatenate(thresholds).tolist()),
        int(rng.integers(4, 9)),
        np.where(limits == 0, 0, octaves),
        np.array([tables.best_scale(part)[0] for part in numbers]),
        numbers,
    )


@pytest.fixture
def filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plane has two filters, by chance."""
    monkeypatch.setattr(fitting, "fit_ahead", functools.partial(unfitted, 3))
    monkeypatch.setattr(fitting, "fit_after", functools.partial(unfitted, 4))


@pytest.fixture
def wild(untrained: Model, filters: None) -> Model:
    return untrained


@pytest.fixture(params=["shipped", "wild"])
def model(request: pytest.FixtureRequest) -> Model:
    found: Model = request.getfixturevalue(request.param)
    return found


# The weights file


def saved(tmp_path: Path, **changed: Tensor | None) -> Path:
    """The shipped weights with some arrays replaced, or left out for None."""
    kept = {**arrays(), **changed}
    path = tmp_path / "altered.safetensors"
    save_file({name: array for name, array in kept.items() if array is not None}, path)
    return path


def refused(path: Path, match: str = "") -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; install rawcodec again")
    assert "\n" not in message


def test_the_shipped_model_is_one_and_within_its_budget(shipped: Model) -> None:
    assert set(shipped.layers) == set(LAYERS)
    assert operations_per_site() <= 30_000
    for name in LAYERS:
        for rate in (0, RATES - 1):
            assert shipped.weights(name, rate).bias.shape == (LAYERS[name].outputs,)
    steps = shipped.steps.numpy()
    assert np.all(steps[-1] < steps[0])  # finer at the highest rate


def test_a_weights_file_that_is_unchanged_is_read(tmp_path: Path, shipped: Model) -> None:
    again = load_model(saved(tmp_path))
    assert torch.equal(again.steps, shipped.steps)


def test_a_weights_file_that_is_missing_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.safetensors", "cannot be read")
    refused(tmp_path, "cannot be read")


def test_a_weights_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = shipped_path().read_bytes()
    path = tmp_path / "cut.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    for size in (0, 1, 7, 8, 9, 100, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(path, "is no model")
    path.write_bytes(data + b"\0")
    refused(path, "is no model")


def test_garbage_is_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "garbage.safetensors"
    for data in (
        rng.bytes(5000),
        bytes(5000),
        b"\xff" * 5000,
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{" * 100,
        (20).to_bytes(8, "little") + b'{"__metadata__":{} }',
        b"PK\x03\x04" + rng.bytes(500),
    ):
        path.write_bytes(data)
        refused(path, "is no model")


def test_no_weights_file_runs_code(tmp_path: Path) -> None:
    """Pickles, plain or as PyTorch writes them, are refused unread."""
    ran = tmp_path / "ran"
    pickled = pickle.dumps(Pickled(ran))
    stream = io.BytesIO()
    torch.save({"steps": torch.zeros(3), "more": Pickled(ran)}, stream)
    for number, data in enumerate((pickled, stream.getvalue())):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        refused(path, "is no model")
    assert not ran.exists()
    pickle.loads(pickled)  # it would have
    assert ran.exists()


class Pickled:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_every_array_is_needed(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    names = sorted(arrays())
    wanted = {"steps", "pattern", "forward", "back", "hyper_scale", "tables.sizes"}
    wanted |= {"tables.frequencies", "trunk.0.weight", "base.bias", "context.3.scale.shift"}
    for name in [*wanted, *rng.choice(names, 12)]:
        refused(saved(tmp_path, **{name: None}), "is no model")


def with_entry(name: str, entry: Any, value: int) -> Tensor:
    array = arrays()[name].clone()
    if array.dtype == torch.uint16:  # which PyTorch does not index by
        array.numpy()[entry] = value
    else:
        array[entry] = value
    return array


def heaviest() -> Tensor:
    """Biases of a layer, of which one makes its sums too large at one rate."""
    bias = arrays()["detail.bias"].clone()
    bias[RATES - 1, 3] = -(1 << 24)
    return bias


ALTERED: dict[str, tuple[str, Callable[[], Tensor]]] = {
    "weights of 16 bits": ("base.weight", lambda: arrays()["base.weight"].to(torch.int16)),
    "weights as floats": ("base.weight", lambda: arrays()["base.weight"].float()),
    "a kernel too small": ("base.weight", lambda: arrays()["base.weight"][:, :, 1:].contiguous()),
    "an output too few": ("order.bias", lambda: arrays()["order.bias"][:, 1:].contiguous()),
    "biases of one rate": ("base.bias", lambda: arrays()["base.bias"][:1].contiguous()),
    "biases of 64 bits": ("base.bias", lambda: arrays()["base.bias"].long()),
    "shifts of 32 bits": ("base.shift", lambda: arrays()["base.shift"].int()),
    "a weight of -128": (
        "trunk.1.weight",
        lambda: with_entry("trunk.1.weight", (1, 2, 0, 0), -128),
    ),
    "a shift of 24": ("down.shift", lambda: with_entry("down.shift", 5, 24)),
    "sums too large": ("detail.bias", heaviest),
    "a step of 0": ("steps", lambda: with_entry("steps", (4, 3), 0)),
    "a negative step": ("steps", lambda: with_entry("steps", (4, 3), -3)),
    "a step too large": ("steps", lambda: with_entry("steps", (4, 3), (1 << 15) + 1)),
    "steps of a rate too few": ("steps", lambda: arrays()["steps"][1:].contiguous()),
    "steps of 64 bits": ("steps", lambda: arrays()["steps"].long()),
    "a scale too large": ("hyper_scale", lambda: with_entry("hyper_scale", (0, 0), SCALES)),
    "a pattern too large": ("pattern", lambda: with_entry("pattern", (1, 5, 5), 4097)),
    "a pattern too small": ("pattern", lambda: with_entry("pattern", (1, 5, 5), -4097)),
    "a value beyond the companded ones": ("back", lambda: with_entry("back", 77, COMPANDED)),
    "a domain of another size": ("forward", lambda: arrays()["forward"][1:].contiguous()),
    "a domain of signed values": ("back", lambda: torch.zeros(1 << 16, dtype=torch.int16)),
    "a table of no size": ("tables.sizes", lambda: with_entry("tables.sizes", 50, len(HALVES))),
    "a table too large": ("tables.sizes", lambda: with_entry("tables.sizes", SCALES - 1, SILENT)),
    "a scale too few": ("tables.sizes", lambda: arrays()["tables.sizes"][1:].contiguous()),
    "sizes of 16 bits": ("tables.sizes", lambda: arrays()["tables.sizes"].to(torch.int16)),
    "sizes as floats": ("tables.sizes", lambda: arrays()["tables.sizes"].to(torch.bfloat16)),
    "a frequency of 0": ("tables.frequencies", lambda: with_entry("tables.frequencies", 9, 0)),
    "too high a sum": ("tables.frequencies", lambda: with_entry("tables.frequencies", 9, 65535)),
    "a frequency too few": (
        "tables.frequencies",
        lambda: arrays()["tables.frequencies"][:-1].clone(),
    ),
    "a frequency too many": (
        "tables.frequencies",
        lambda: torch.cat([arrays()["tables.frequencies"].int(), torch.ones(1)]).to(torch.uint16),
    ),
    "frequencies as floats": (
        "tables.frequencies",
        lambda: arrays()["tables.frequencies"].to(torch.bfloat16),
    ),
    "a hyper-analysis of another shape": ("hyper_analysis.first.weight", lambda: torch.zeros(3, 4)),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_model_that_breaks_its_bounds_is_refused(tmp_path: Path, name: str) -> None:
    array, altered = ALTERED[name]
    refused(saved(tmp_path, **{array: altered()}), "is no model")


def test_a_layer_that_cannot_be_certified_is_named(tmp_path: Path) -> None:
    refused(saved(tmp_path, **{"detail.bias": heaviest()}), "detail: sums may reach")


def test_values_at_their_bounds_are_allowed(tmp_path: Path) -> None:
    """What is one further is refused above."""
    model = load_model(
        saved(
            tmp_path,
            steps=with_entry("steps", (4, 3), 1 << 15),
            hyper_scale=with_entry("hyper_scale", (0, 0), SCALES - 1),
            pattern=with_entry("pattern", (1, 5, 5), -4096),
            back=with_entry("back", 77, COMPANDED - 1),
            **{
                "trunk.1.weight": with_entry("trunk.1.weight", (1, 2, 0, 0), -127),
                "down.shift": with_entry("down.shift", 5, 23),
            },
        )
    )
    assert model.steps[4, 3] == 1 << 15


# Tables


def sigmas() -> np.ndarray:
    """The standard deviations of the scales."""
    return SCALE_MIN * 2.0 ** (np.arange(SCALES) * SCALE_OCTAVES / (SCALES - 1))


@dataclass
class Drawn:
    """Latents by chance: of every scale and fraction of the mean."""

    values: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def drawn(count: int, outliers: float, seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    scale = rng.integers(0, SCALES, count).astype(np.uint8)
    mean = rng.integers(-MEAN_LIMIT, MEAN_LIMIT + 1, count).astype(np.int16)
    values = np.rint(mean / MEAN_UNIT + rng.normal(size=count) * sigmas()[scale])
    wild = rng.random(count) < outliers
    values[wild] = np.rint(rng.normal(size=wild.sum()) * 10 ** rng.uniform(0, 4, wild.sum()))
    limit = LATENT_LIMIT - 1
    return Drawn(np.clip(values, -limit, limit).astype(np.int32), mean, scale)


def audible(tables: Tables, values: Drawn) -> np.ndarray:
    """What can be coded: latents of silent scales are their rounded mean."""
    return np.where(tables.sizes[values.scale] == SILENT, split(values.mean)[0], values.values)


@pytest.mark.parametrize("outliers", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("count", [0, 1, 1000, 150_000])
def test_latents_of_any_scale_and_mean_are_read_back(
    shipped: Model, count: int, outliers: float
) -> None:
    tables, given = shipped.tables, drawn(count, outliers, seed=count)
    encoder, meter = Encoder(), RateMeter()
    coded = tables.code(encoder, given.values, given.mean, given.scale)
    assert coded.dtype == np.int16
    assert np.array_equal(coded, audible(tables, given))
    assert np.array_equal(tables.code(meter, given.values, given.mean, given.scale), coded)
    data = encoder.finish()
    assert abs(8 * len(data) - meter.bits) <= 0.01 * meter.bits + 128
    decoder = Decoder(data)
    assert np.array_equal(tables.code(decoder, None, given.mean, given.scale), coded)
    decoder.finish()


def test_a_silent_scale_takes_no_bits(shipped: Model) -> None:
    silent = np.flatnonzero(shipped.tables.sizes == SILENT).astype(np.uint8)
    if not len(silent):
        pytest.skip("this model has none")
    mean = np.arange(-100, 100, dtype=np.int16)
    encoder = Encoder()
    for scale in silent:
        given = np.full(200, 7, np.int32)
        found = shipped.tables.code(encoder, given, mean, np.full(200, scale))
        assert np.array_equal(found, np.floor(mean / 8 + 0.5))
    assert encoder.finish() == Encoder().finish()


@dataclass
class Law:
    """Normal distributions, of which some latents have wider ones: what tables stand for."""

    weight: float
    wider: float

    def chances(self, residues: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """The probability of rounded values of this mean and standard deviation."""
        distance = np.abs(residues - mean)

        def mass(s: np.ndarray) -> np.ndarray:
            far, near = ((distance + side) / (s * math.sqrt(2)) for side in (0.5, -0.5))
            # of the upper tail, where the difference of two erf would be nothing
            both = [torch.erfc(torch.from_numpy(np.asarray(x))).numpy() for x in (near, far)]
            found: np.ndarray = 0.5 * (both[0] - both[1])
            return found

        return (1 - self.weight) * mass(sigma) + self.weight * mass(self.wider * sigma)

    def drawn(self, given: Drawn, seed: int) -> Drawn:
        """The same means and scales with latents of this law."""
        rng = np.random.default_rng(seed)
        sigma = sigmas()[given.scale] * np.where(
            rng.random(len(given.scale)) < self.weight, self.wider, 1
        )
        values = np.rint(given.mean / MEAN_UNIT + rng.normal(size=len(sigma)) * sigma)
        return Drawn(values.astype(np.int32), given.mean, given.scale)


def row_of(tables: Tables, scale: int, fraction: int) -> np.ndarray:
    """The probabilities of a table's residues, and of its escape."""
    silent = np.count_nonzero(tables.sizes[:scale] == SILENT)
    return tables.rows[MEAN_UNIT * (scale - silent) + fraction] / TOTAL


def law_of(tables: Tables) -> Law:
    """The law that is nearest to some of the tables: their tail is learned."""
    scales = [int(np.argmin(np.abs(np.log(sigmas() / wanted)))) for wanted in (0.12, 0.3, 1, 6)]
    rows = [row_of(tables, scale, MEAN_UNIT // 2) for scale in scales]
    starts = np.cumsum([0] + [len(row) for row in rows])
    residues = np.concatenate([np.arange(len(row)) - len(row) // 2 + 1 for row in rows])
    sigma = np.repeat(sigmas()[scales], np.diff(starts))
    found = np.concatenate(rows)

    def missed(law: Law) -> float:
        chances = law.chances(residues, np.zeros(1), sigma)
        chances[starts[1:] - 1] = 0  # of the escapes: the rest
        chances[starts[1:] - 1] = 1 - np.add.reduceat(chances, starts[:-1])
        return float(-found @ np.log2(np.maximum(chances, 1 / TOTAL)))

    best = Law(2**-5, 2**1.5)
    for step in (1.0, 0.5, 0.25, 0.1, 0.05, 0.02):
        powers = step * np.arange(-5, 6)
        laws = [Law(best.weight * 2**w, best.wider * 2 ** (f / 2)) for w in powers for f in powers]
        best = min((law for law in laws if law.weight < 0.9 and law.wider > 1), key=missed)
    return best


def test_tables_are_bells_of_every_scale_with_the_same_tail(shipped: Model) -> None:
    law = law_of(shipped.tables)
    for scale in np.flatnonzero(shipped.tables.sizes != SILENT).tolist():
        for fraction in range(MEAN_UNIT):
            row = row_of(shipped.tables, scale, fraction)[:-1]
            residues = np.arange(len(row)) - len(row) // 2
            mean, sigma = np.array((fraction - 4) / 8), np.array(sigmas()[scale])
            chances = law.chances(residues, mean, sigma)
            likely = row > row.max() / 20
            assert np.log2(row[likely]) == pytest.approx(np.log2(chances[likely]), abs=0.2)


def test_bytes_are_those_of_the_theory(shipped: Model) -> None:
    """Within a hundredth of the entropy of the distributions that tables stand for.

    The largest scales left out: the widest table does not hold all of their tail.
    """
    tables, law = shipped.tables, law_of(shipped.tables)
    given = law.drawn(drawn(250_000, 0, seed=3), seed=4)
    heard = (tables.sizes[given.scale] != SILENT) & (given.scale < 50)
    given = Drawn(given.values[heard], given.mean[heard], given.scale[heard])
    encoder = Encoder()
    tables.code(encoder, given.values, given.mean, given.scale)
    chances = law.chances(given.values, given.mean / MEAN_UNIT, sigmas()[given.scale])
    ideal = -np.log2(chances).sum()
    assert len(given.values) > 100_000
    assert 0.999 * ideal < 8 * len(encoder.finish()) < 1.01 * ideal


def test_costs_are_those_of_the_coder(shipped: Model) -> None:
    """What the encoder's choice reckons with, within the tables and beyond them."""
    cost = shipped.tables.cost
    for scale in range(SCALES):
        size = shipped.tables.sizes[scale]
        for fraction in (0, 3, 7):
            mean = np.array([fraction - 4], np.int16)
            row = cost[scale, fraction]
            if size == SILENT:
                assert not row.any()  # nothing is coded
                continue
            half = HALVES[size]
            for residue in {0, 1, -1, half, -half, min(half + 1, 255), 200, -255}:
                meter = RateMeter()
                given = np.array([residue])
                shipped.tables.code(meter, given, mean, np.array([scale], np.uint8))
                assert row[255 + residue] == pytest.approx(meter.bits, abs=1e-3)


def test_tables_that_do_not_fit_are_refused() -> None:
    sizes = np.full(SCALES, SILENT, np.uint8)
    sizes[3] = 0
    flat = np.full(8 * 3, 20_000, np.uint16)
    assert len(Tables(sizes, flat).rows) == 8
    assert np.array_equal(Tables(sizes, flat).rows[7], [20_000] * 3 + [TOTAL - 60_000])
    broken = flat.copy()
    broken[0] = 30_000
    more: Any = flat.astype(np.int64)
    for wrong in (flat[:-1], np.append(flat, 5).astype(np.uint16), broken, more):
        with pytest.raises(ValueError):
            Tables(sizes, wrong)
    with pytest.raises(ValueError):
        Tables(sizes[:-1], flat)
    with pytest.raises(ValueError):
        Tables(np.where(sizes == SILENT, 8, sizes).astype(np.uint8), flat)


# The transform, the inputs, the levels


@pytest.mark.parametrize("lead", [(), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.float32], ids=str)
def test_four_sites_are_taken_apart_and_put_together(
    lead: tuple[int, ...], kind: torch.dtype
) -> None:
    """Every site once, of any number of pictures and any kind of numbers."""
    sites = torch.arange(math.prod(lead) * 8 * 10).view(*lead, 8, 10).to(kind)
    planes = blocks(sites)
    assert planes.shape == (*lead, 4, 4, 5)
    assert planes.dtype == kind
    for site in range(4):
        expected = sites[..., site // 2 :: 2, site % 2 :: 2]
        assert torch.equal(planes[..., site, :, :], expected)
    assert torch.equal(unblocks(planes), sites)
    assert torch.equal(blocks(unblocks(planes)), planes)


def test_groups_are_all_sites_and_the_last_ones_have_four_neighbours() -> None:
    """Each latent is coded in one pass, and the rest when all beside, above and below is known."""
    assert sorted(sum(GROUPS, ())) == list(range(LATENTS))
    for group in range(len(GROUPS)):
        steps = [step for which, step in PASSES if which == group]
        assert steps in ([None], list(range(STEPS)))
    before = torch.zeros((LATENTS, 6, 6))
    before[list(sum(GROUPS[:-1], ()))] = 1
    known = unblocks(before)
    y, x = torch.nonzero(known == 0).T
    inner = (y > 0) & (y < 11) & (x > 0) & (x < 11)
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        assert torch.all(known[y[inner] + down, x[inner] + across] == 1)


@pytest.mark.parametrize("spread", [1, 40, 4080])
def test_what_the_network_sees_has_seven_bits(spread: int) -> None:
    """Whatever the JPEG and the tone layer; eight would not be exact on every processor."""
    rng = np.random.default_rng(spread)

    def chance(low: int, high: int, kind: type, *shape: int) -> Tensor:
        middle = rng.integers(low, high + 1, (*shape[:-2], 1, 1))
        noise = rng.integers(-spread, spread + 1, shape) * ((high - low) // 4080 + 1)
        return torch.from_numpy(np.clip(middle + noise, low, high).astype(kind))

    for _ in range(20):
        seen = inputs(
            chance(0, 4080, np.int16, 1, 3, 8, 12),
            chance(0, COMPANDED - 1, np.int32, 1, 8, 12),
            chance(0, 1, np.uint8, 1, 12, 4, 6),
            chance(0, 1, np.uint8, 1, 1, 4, 6),
            chance(1 - COMPANDED, COMPANDED - 1, np.int32, 1, 8, 12),
        )
        assert seen.dtype == torch.uint8
        assert seen.shape == (1, 40, 4, 6)
        assert seen.max() <= 127


def test_levels_are_rounded_logarithms() -> None:
    """64 and 10 log2(1 + |z|) of the sign of z, no logarithm of a machine being asked.

    Of latents in half steps.
    """
    levels = latents._LEVELS
    with localcontext() as context:
        context.prec = 40
        for z in range(600):
            size = 10 * (1 + Decimal(z) / 2).ln() / Decimal(2).ln()
            rest = size % 1
            assert abs(rest - Decimal("0.5")) > Decimal("1e-9")  # far from any doubt
            level = min(int(size) + (rest > Decimal("0.5")), 63)
            assert levels[z] == 64 + level
            assert levels[-z] == 64 - level
    assert np.all(levels[600 : 1 << 15] == 127)
    assert np.all(levels[(1 << 15) + 1 : -600] == 1)
    assert levels.shape == (1 << 16,)


# Planes


@dataclass
class Plane:
    """What is known of a plane, and the raw."""

    view: PlaneView
    raw: np.ndarray


def one_stripe(views: Sequence[PlaneView]) -> Stripes:
    """Planes of a photo that is not divided."""
    rows = slice(0, len(views[0].tone))
    return Stripes([rows], [view.colours for view in views], lambda _: list(views))


def plane(
    height: int,
    width: int,
    colours: np.ndarray = BAYER,
    *,
    reached: np.ndarray | None = None,
    noise: float = 400,
    seed: int = 0,
) -> Plane:
    """A picture by chance: slopes, edges, and noise that only the raw has."""
    rng = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[:height, :width]
    light = np.sin(y / 7 + seed) + np.cos(x / 11) + 1.5 * ((x // 9 + y // 13) % 2)
    light = (light + 2) / 5.5
    guide = 4080 * np.stack([light**power for power in (0.7, 1.0, 1.4)])
    guide += rng.normal(0, 60, guide.shape)
    tone = 46340 * light**1.2 + rng.normal(0, noise / 4, light.shape)
    raw = tone + rng.normal(0, noise, light.shape)
    return Plane(
        PlaneView(
            np.clip(np.rint(guide), 0, 4080).astype(np.int16),
            np.clip(np.rint(tone), 0, COMPANDED - 1).astype(np.uint16),
            colours,
            reached,
        ),
        np.clip(np.rint(raw), 0, COMPANDED - 1).astype(np.uint16),
    )


def linear(height: int, width: int, reached: np.ndarray | None = None) -> list[Plane]:
    """The three planes of a demosaiced raw, in the order they are coded."""
    return [
        plane(height, width, np.array([[colour]], np.uint8), reached=reached, seed=colour)
        for colour in (1, 0, 2)
    ]


@dataclass
class Coded:
    data: bytes
    means: np.ndarray
    decoded: list[np.ndarray]


def encoded(run: Runner, planes: Sequence[Plane]) -> Coded:
    coder = Encoder()
    decoded, means = code_planes(run, coder, [p.view for p in planes], raw=[p.raw for p in planes])
    assert means.shape == (len(planes), HYPER)
    return Coded(coder.finish(), means, decoded)


def check_decodes(run: Runner, planes: Sequence[Plane], coded: Coded) -> None:
    """To what the encoder saw, with everything consumed."""
    coder = Decoder(coded.data)
    decoded, _ = code_planes(run, coder, [p.view for p in planes], means=coded.means)
    coder.finish()
    for ours, theirs, given in zip(decoded, coded.decoded, planes, strict=True):
        assert ours.dtype == np.uint16
        assert ours.shape == given.raw.shape
        assert ours.max() < COMPANDED
        assert np.array_equal(ours, theirs)


def fast(model: Model, rate: int = 13) -> Runner:
    return Runner(model, rate, kernels.best_kernel("cpu"), "cpu")


def error(planes: Sequence[Plane], decoded: Sequence[np.ndarray]) -> float:
    """Mean squared error in the companded domain."""
    pairs = zip(planes, decoded, strict=True)
    return float(np.mean([np.mean((p.raw.astype(float) - d) ** 2) for p, d in pairs]))


SIZES = [(1, 1), (1, 40), (37, 1), (2, 2), (5, 3), (16, 16), (17, 33), (66, 50)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_planes_of_any_size_come_back(model: Model, size: tuple[int, int]) -> None:
    run = fast(model)
    for colours in (BAYER, XTRANS):
        planes = [plane(*size, colours)]
        check_decodes(run, planes, encoded(run, planes))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_planes_of_any_sensor_come_back(model: Model, pattern: str) -> None:
    run = fast(model, 20)
    planes = [plane(37, 58, PATTERNS[pattern])]
    check_decodes(run, planes, encoded(run, planes))


@pytest.mark.parametrize("size", [(1, 1), (23, 41)], ids=str)
def test_the_planes_of_a_linear_raw_come_back(model: Model, size: tuple[int, int]) -> None:
    run = fast(model)
    planes = linear(*size)
    coded = encoded(run, planes)
    check_decodes(run, planes, coded)


def test_a_plane_is_seen_by_the_next(shipped: Model) -> None:
    """The second plane of a photo is coded as a first one is not."""
    run = fast(shipped, 20)
    first, second = linear(48, 64)[:2]
    alone, both = encoded(run, [second]), encoded(run, [first, second])
    assert not np.array_equal(both.decoded[1], alone.decoded[0])


def masks(height: int, width: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(4).random((height, width))
    inner = np.zeros((height, width), bool)
    inner[5:-9, 3:] = True
    return {
        "all": np.ones((height, width), bool),
        "none": np.zeros((height, width), bool),
        "a strip": inner,
        "by chance": chance < 0.5,
    }


@pytest.mark.parametrize("name", masks(9, 9))
def test_sites_that_the_jpeg_does_not_reach_come_back(model: Model, name: str) -> None:
    run = fast(model)
    for planes in (
        [plane(41, 55, reached=masks(41, 55)[name])],
        linear(18, 21, masks(18, 21)[name]),
    ):
        coded = encoded(run, planes)
        check_decodes(run, planes, coded)
        plain = [Plane(replace(p.view, reached=None), p.raw) for p in planes]
        same = encoded(run, plain).data == coded.data
        assert same == (name == "all")


@pytest.mark.parametrize("rate", [0, 1, 16, RATES - 1])
def test_pictures_of_extremes_come_back(model: Model, rate: int) -> None:
    """Black and white sites in turn, and a prediction that is as wrong as it can be."""
    rng = np.random.default_rng(9)
    last = COMPANDED - 1
    shape = 35, 46
    chess = np.indices(shape).sum(0) % 2
    pictures = {
        "chess": (chess * last, np.full(shape, last // 2)),
        "chess, foretold wrong": (chess * last, (1 - chess) * last),
        "white, foretold black": (np.full(shape, last), np.zeros(shape)),
        "black, foretold white": (np.zeros(shape), np.full(shape, last)),
        "chance": (rng.integers(0, last + 1, shape), rng.integers(0, last + 1, shape)),
    }
    run = fast(model, rate)
    for raw, tone in pictures.values():
        guide = rng.integers(0, 2, (3, *shape)) * 4080
        view = PlaneView(guide.astype(np.int16), tone.astype(np.uint16), BAYER, None)
        planes = [Plane(view, raw.astype(np.uint16))]
        check_decodes(run, planes, encoded(run, planes))


def test_more_bits_give_a_smaller_error(shipped: Model) -> None:
    """From the coarsest rate to the finest, which leaves next to none."""
    planes = [plane(96, 128)]
    sizes, errors = [], []
    for rate in (0, 8, 16, 24, RATES - 1):
        coded = encoded(fast(shipped, rate), planes)
        sizes.append(len(coded.data))
        errors.append(error(planes, coded.decoded))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)
    alone = error(planes, [planes[0].view.tone])
    assert errors[2] < alone
    assert errors[-1] < alone / 100  # the transform is complete


# What must not matter


@dataclass
class Stream:
    """A stream of three planes, more than a band high, that the JPEG reaches in part."""

    planes: list[Plane]
    coded: Coded
    rate: int


@pytest.fixture
def stream(model: Model) -> tuple[Model, Stream]:
    assert 4 * latents.BAND < 230
    planes = linear(230, 37, masks(230, 37)["a strip"])
    return model, Stream(planes, encoded(fast(model, 15), planes), 15)


@pytest.mark.parametrize("band", [1, 3, 7, 48, 1000])
def test_bands_do_not_change_what_is_decoded(
    stream: tuple[Model, Stream], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = stream
    monkeypatch.setattr(latents, "BAND", band)
    check_decodes(fast(model, given.rate), given.planes, given.coded)


@pytest.mark.parametrize("band", [3, 1000])
def test_what_is_encoded_in_other_bands_comes_back(
    stream: tuple[Model, Stream], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = stream
    run = fast(model, given.rate)
    with monkeypatch.context() as patch:
        patch.setattr(latents, "BAND", band)
        coded = encoded(run, given.planes)
    check_decodes(run, given.planes, coded)


@pytest.mark.usefixtures("filters")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_bands_and_kernels_do_not_change_what_a_filter_corrects(
    shipped: Model, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any pattern, though it is longer than the rows that are corrected together."""
    given = plane(117, 46, PATTERNS[pattern])
    seen, filter_ = ahead(fast(shipped), RateMeter(), given.view, None, given.raw)
    expected = PlaneCodec(fast(shipped), seen, filter_).prediction
    assert np.mean(expected[:117, :46] != seen.plane.tone) > 0.9
    for band in (1, 2, 7, 1000):
        monkeypatch.setattr(latents, "BAND", band)
        assert np.array_equal(PlaneCodec(fast(shipped), seen, filter_).prediction, expected)
    for kernel in filter(kernels.is_exact, kernels.KERNELS):
        run = Runner(shipped, 13, kernel, "cpu")
        assert np.array_equal(PlaneCodec(run, seen, filter_).prediction, expected)


@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_kernels_do_not_change_what_is_decoded(stream: tuple[Model, Stream], kernel: str) -> None:
    if not kernels.is_exact(kernel):
        pytest.skip("this machine has no such kernel")
    model, given = stream
    check_decodes(Runner(model, given.rate, kernel, "cpu"), given.planes, given.coded)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_threads_do_not_change_what_is_decoded(
    stream: tuple[Model, Stream],
    count: int,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In more bands than there are threads; what several encoded, one decodes."""
    model, given = stream
    monkeypatch.setattr(latents, "BAND", 7)
    threads(count)
    run = fast(model, given.rate)
    check_decodes(run, given.planes, given.coded)
    coded = encoded(run, given.planes)
    threads(1)
    check_decodes(run, given.planes, coded)


def threads_seen() -> tuple[int, int]:
    """Threads that PyTorch uses here, and in a thread that begins now."""
    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def test_bands_leave_the_number_of_threads_as_it_was(
    wild: Model, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though each is computed with one, so that several bands do not fight for processors."""
    monkeypatch.setattr(latents, "BAND", 3)
    inside: set[int] = set()

    class Watching(Runner):
        def __call__(self, name: str, x: Tensor) -> Tensor:
            if name != "hyper.0" and name != "hyper.1":  # small, and not in bands
                inside.add(torch.get_num_threads())
            return super().__call__(name, x)

    run = Watching(wild, 13, kernels.best_kernel("cpu"), "cpu")
    planes = [plane(70, 50)]
    for count in (3, 2):
        threads(count)
        coded = encoded(run, planes)
        assert threads_seen() == (count, count)
        check_decodes(run, planes, coded)
        assert threads_seen() == (count, count)
    assert inside == {1}


def test_bands_are_computed_at_the_same_time(
    wild: Model, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as PyTorch has threads: they wait for each other here."""
    monkeypatch.setattr(latents, "BAND", 22)  # of which contexts take half at a time
    meeting = threading.Barrier(3)

    class Meeting(Runner):
        def __call__(self, name: str, x: Tensor) -> Tensor:
            if name == "context.2.0":
                meeting.wait(20)
            return super().__call__(name, x)

    planes = [plane(115, 50)]  # three bands
    coded = encoded(fast(wild), planes)
    threads(3)
    check_decodes(Meeting(wild, 13, kernels.best_kernel("cpu"), "cpu"), planes, coded)


class Fault(Exception):
    """What goes wrong in a band."""


@pytest.mark.parametrize("layer", ["trunk.1", "filter", "up", "context.2.0", "context.3.mean"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_goes_wrong_in_a_band_is_told(
    wild: Model,
    layer: str,
    count: int,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To whoever called; threads are as they were, and the next photo decodes."""
    monkeypatch.setattr(latents, "BAND", 4)
    calls = iter(range(10**6))

    def fail(name: str) -> None:
        if name == layer and next(calls) == 2:
            raise Fault(layer)

    class Failing(Runner):
        def __call__(self, name: str, x: Tensor) -> Tensor:
            fail(name)
            return super().__call__(name, x)

    class FailingFilter(kernels.FloatKernel):
        def __call__(self, x: Tensor) -> Tensor:
            fail("filter")
            return super().__call__(x)

    threads(count)
    planes = [plane(70, 50)]
    coded = encoded(fast(wild), planes)
    failing = Failing(wild, 13, kernels.best_kernel("cpu"), "cpu")
    failing.kernel = FailingFilter  # of what is made of it from now on: filters alone
    with pytest.raises(Fault, match=f"^{layer}$"):
        check_decodes(failing, planes, coded)
    assert threads_seen() == (count, count)
    check_decodes(failing, planes, coded)


def test_another_rate_or_mean_does_not_decode(stream: tuple[Model, Stream]) -> None:
    """What the tests above rely on: that a difference is seen."""
    model, given = stream
    means = given.coded.means.copy()
    means[0, 3] += 8
    for run, coded in (
        (fast(model, given.rate + 1), given.coded),
        (fast(model, given.rate), replace(given.coded, means=means)),
    ):
        with pytest.raises((AssertionError, ValueError, CorruptSidecarError)):
            check_decodes(run, given.planes, coded)


# The order, and what is coded of a pass


def test_every_latent_is_coded_once_from_what_is_known() -> None:
    """The walk: each pass sees those before it, and nothing else."""
    order = torch.from_numpy(np.random.default_rng(1).integers(0, STEPS, (1, 1, 6, 7)))
    steps = [(order == step).to(torch.int16) for step in range(STEPS)]
    seen: list[Tensor] = []

    class Numbering:
        """Codes the number of the pass, and nonsense where it is not asked."""

        def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            step = PASSES[number][1]
            assert torch.equal(here, torch.ones_like(here) if step is None else steps[step])
            count = len(GROUPS[PASSES[number][0]])
            return torch.full((1, count, 6, 7), number + 1, dtype=torch.int16)

    def parameters_of(number: int, known: Tensor) -> tuple[Tensor, Tensor]:
        assert number == len(seen)
        seen.append(known.clone())
        return known, known

    zeros = torch.zeros((1, LATENTS, 6, 7), dtype=torch.int16)
    found = network.walk(Numbering(), steps, zeros, parameters_of)
    for number, (group, step) in enumerate(PASSES):
        at = torch.ones_like(order[0, 0]) > 0 if step is None else order[0, 0] == step
        assert torch.all(found[0, list(GROUPS[group])][:, at] == number + 1)
    assert torch.all(found > 0)
    for number, known in enumerate(seen):
        assert torch.equal(known, torch.where(found <= number, found, 0))


def looked(model: Model, seed: int = 0) -> tuple[PlaneCodec, Tensor]:
    """A plane of 20 x 16 blocks up to its latents, and latents by chance, many of them 0.

    They are in half steps, as everywhere in the codec.
    """
    run, given = fast(model), plane(70, 50)
    seen, filter_ = ahead(run, RateMeter(), given.view, None, given.raw)
    codec = PlaneCodec(run, seen, filter_)
    assert np.mean(codec.prediction[:70, :50] != seen.plane.tone) > 0.9
    codec.know(torch.zeros((1, HYPER, *codec.hyper_shape), dtype=torch.int32))
    assert (codec.rows, codec.columns) == (20, 16)
    rng = np.random.default_rng(seed)
    shape = (1, 2 * codec.rows, 2 * codec.columns, LATENTS)
    values = rng.normal(size=shape) * 10 ** rng.uniform(-1, 4, shape)
    values[rng.random(shape) < 0.3] = 0
    values = np.clip(values, 1 - 2 * LATENT_LIMIT, 2 * LATENT_LIMIT - 1).astype(np.int16)
    return codec, torch.from_numpy(values).permute(0, 3, 1, 2)


@pytest.mark.parametrize("band", [1, 2, 7, 1000])
def test_a_context_sees_levels_sizes_and_the_first_step(
    wild: Model, band: int, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two quads around; the same of every band, at the borders too."""
    threads(1)
    monkeypatch.setattr(latents, "BAND", band)
    codec, known = looked(wild)
    first = codec.steps[0][0].numpy()
    assert 0.1 < first.mean() < 0.9
    assert np.array_equal(codec.steps[1][0].numpy(), 1 - first)
    levels = latents._LEVELS.take(known[0].numpy().view(np.uint16)).astype(int)
    around = ((0, 0), (2, 2), (2, 2))
    parts = [np.pad(levels, around, constant_values=64)]
    parts += [np.pad(part, around) for part in (2 * np.abs(levels - 64), 127 * first)]
    expected = np.concatenate(parts)

    seen: list[Tensor] = []
    parameters = network.parameters

    def watched(
        layer: network.LayerFunction, number: int, detail: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        seen.append(known)
        return parameters(layer, number, detail, known)

    monkeypatch.setattr(network, "parameters", watched)
    for number in range(1, len(PASSES)):
        seen.clear()
        codec.parameters(number, known)
        rows = max(band // 2, 1)  # contexts take half as many at a time
        assert len(seen) == -(-codec.rows // rows)
        for turn, view in enumerate(seen):
            top, bottom = rows * turn, min(rows * (turn + 1), codec.rows)
            assert view.dtype == torch.uint8
            assert np.array_equal(view[0].numpy(), expected[:, 2 * top : 2 * bottom + 4])


@pytest.mark.parametrize("at", [(0, 0), (17, 11), (39, 31)], ids=str)
def test_a_latent_matters_to_what_is_near_it(wild: Model, at: tuple[int, int]) -> None:
    """To means and scales of quads up to two away, and not before the second pass."""
    codec, known = looked(wild, seed=1)
    row, column = at
    away = np.maximum(*np.abs(np.indices((40, 32)) - np.array(at)[:, None, None]))
    reached = np.zeros((len(PASSES), 40, 32), bool)
    for channel in range(LATENTS):
        other = known.clone()
        other[0, channel, row, column] += 500 * (1 if other[0, channel, row, column] < 0 else -1)
        for number in range(len(PASSES)):
            pairs = zip(
                codec.parameters(number, known), codec.parameters(number, other), strict=True
            )
            for one, two in pairs:
                reached[number] |= (one != two)[0].any(0).numpy()
    assert not reached[0].any()
    assert not reached[:, away > 2].any()
    for number in range(1, len(PASSES)):
        assert reached[number][away == 2].any()


@pytest.mark.usefixtures("filters")
def test_a_latent_is_the_residual_of_a_site(tmp_path: Path) -> None:
    """Of every site in the picture, in half steps."""
    steps = torch.arange(1, RATES * LATENTS + 1, dtype=torch.int32).view(RATES, LATENTS)
    model = load_model(saved(tmp_path, steps=steps))
    codec, values = looked(model, seed=2)
    values = values.clamp(-500, 500)
    found = codec.decoded(values)
    expected = model.forward.astype(int)[codec.prediction]
    for site in range(LATENTS):
        part = expected[site // 2 :: 2, site % 2 :: 2]
        part += values[0, site].numpy().astype(int) * int(codec.run.steps[0, site]) // 2
    expected = model.back[np.clip(expected, 0, (1 << 16) - 1)]
    assert np.array_equal(found, expected[:70, :50])


def giving(latents: Tensor) -> Wanted:
    """What an encoder asks for latents, of these: (1, 4, h, w)."""
    return lambda channels: latents[0, list(channels)].permute(1, 2, 0).numpy()


@dataclass
class Pass:
    """Latents of the first pass, in steps, with what the network says of them."""

    latents: Tensor
    mean: Tensor
    scale: Tensor
    here: Tensor

    def coded(self, tables: Tables, coder: EntropyCoder, shifts: bool = True) -> np.ndarray:
        """What a coder makes of them, in half steps; shifts: whether it may shift scales."""
        given = None if isinstance(coder, Decoder) else giving(self.latents)
        table_coder = TableCoder(tables, coder, given)
        if not shifts:
            none = np.zeros((CLASSES, SHIFTED), np.int32)
            table_coder._best_shifts = lambda *_: none  # type: ignore[method-assign]
        found = table_coder.code(0, self.here, self.mean, self.scale)
        assert found.shape == self.mean.shape
        result: np.ndarray = found.numpy() * self.here.numpy()
        return result

    def cost(self, tables: Tables, shifts: bool = True) -> tuple[float, float]:
        """Bits, and what the encoder makes least: these and the weighted squared error."""
        meter = RateMeter()
        found = self.coded(tables, meter, shifts)
        channel = GROUPS[0][0]
        error = (found / 2 - self.latents[:, channel].numpy()) * self.here.numpy()
        return meter.bits, meter.bits + DISTORTION_WEIGHT * float((error**2).sum())


def one_pass(scale: np.ndarray, spread: np.ndarray | float, seed: int, share: float = 1) -> Pass:
    """Latents of these scales (h, w), but with a standard deviation of ``spread`` times theirs."""
    rng = np.random.default_rng(seed)
    mean = rng.integers(-80, 81, scale.shape).astype(np.int16)
    residue = rng.normal(size=scale.shape) * sigmas()[scale] * spread
    found = torch.zeros((1, LATENTS, *scale.shape))
    found[0, GROUPS[0][0]] = torch.from_numpy(mean / MEAN_UNIT + np.clip(residue, -240, 240))
    here = torch.from_numpy((rng.random(scale.shape) < share).astype(np.int16))
    scales = torch.from_numpy(scale.astype(np.uint8))
    return Pass(found, torch.from_numpy(mean)[None, None], scales[None, None], here[None, None])


def scales_like(low: int, high: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (90, 120))


def chosen(tables: Tables, wanted: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The integers that an encoder chooses for latents."""
    coder = TableCoder(tables, Encoder(), giving(torch.zeros((1, LATENTS, 1, 1))))
    found: np.ndarray = coder._choose(wanted, mean, scale)
    return found


def test_the_encoder_chooses_what_is_worth_its_bits(shipped: Model) -> None:
    """The nearest integer, or the next toward the mean if the bits saved outweigh the error."""
    tables = shipped.tables
    rng = np.random.default_rng(12)
    given = drawn(60_000, 0, seed=12)
    wanted = (given.values + rng.uniform(-0.5, 0.5, len(given.values))).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = chosen(tables, wanted, given.mean, given.scale)
    nearest = np.rint(wanted).astype(np.int32)
    whole, fraction = split(given.mean)
    moved = nearest - found
    assert np.all((moved == 0) | (moved == np.sign(nearest - whole)))
    assert 0 < np.count_nonzero(moved) < len(moved) / 2

    cost = tables.cost

    def price(values: np.ndarray) -> np.ndarray:
        bits = cost[given.scale, fraction, np.clip(values - whole, -255, 255) + 255]
        found: np.ndarray = DISTORTION_WEIGHT * (values - wanted.astype(float)) ** 2 + bits
        return found

    heard = (tables.sizes[given.scale] != SILENT) & (np.abs(nearest - whole) < 250)
    other = nearest - np.sign(nearest - whole)
    best = np.minimum(price(nearest), price(other))[heard]
    assert price(found)[heard] == pytest.approx(best, abs=1e-2)


def test_the_choice_stays_in_range(shipped: Model) -> None:
    """Of latents beyond anything that a picture has, and of every scale."""
    scale = np.repeat(np.arange(SCALES, dtype=np.uint8), 6)
    mean = np.tile(np.array([-MEAN_LIMIT, MEAN_LIMIT], np.int16), 3 * SCALES)
    wanted = np.tile(np.array([-1e9, 1e9, 0, -40_000, 40_000, 3], np.float32), SCALES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = chosen(shipped.tables, wanted, mean, scale)
    assert np.abs(found).max() < LATENT_LIMIT
    encoder = Encoder()
    coded = shipped.tables.code(encoder, found, mean, scale)
    decoded = shipped.tables.code(Decoder(encoder.finish()), None, mean, scale)
    assert np.array_equal(coded, decoded)


@pytest.mark.parametrize("value", [HYPER_LIMIT, -HYPER_LIMIT, HYPER_LIMIT + 1, -HYPER_LIMIT - 1])
def test_a_hyper_latent_out_of_range_is_refused(shipped: Model, value: int) -> None:
    means, scale = np.zeros(HYPER, np.int8), torch.full((HYPER,), SCALES - 20, dtype=torch.uint8)
    hyper = np.zeros((HYPER, 2, 3), np.int32)
    hyper[4, 1, 1] = value
    encoder = Encoder()
    middle, scales = np.zeros(hyper.size, np.int16), np.full(hyper.size, SCALES - 20, np.uint8)
    shipped.tables.code(encoder, hyper.ravel(), middle, scales)
    coder = TableCoder(shipped.tables, Decoder(encoder.finish()), None)
    if abs(value) > HYPER_LIMIT:
        with pytest.raises(ValueError, match="a hyper-latent is out of range"):
            coder.code_hyper(None, means, (2, 3), scale)
    else:
        found = coder.code_hyper(None, means, (2, 3), scale)
        assert np.array_equal(found[0].numpy(), hyper)


@dataclass
class Written:
    """Integers of latents of the mean 0 that no encoder need have chosen."""

    values: np.ndarray
    scale: int

    def code(self, tables: Tables, coder: EntropyCoder) -> list[int]:
        """Write them, too few for shifts, and return the latents in half steps."""
        mean = np.zeros(len(self.values), np.int16)
        scale = np.full(len(mean), self.scale, np.uint8)
        if self.scale < TRELLIS_SCALE:
            tables.code(coder, self.values, mean, scale)
            return [2 * int(value) for value in self.values]
        found, state = [], np.zeros(1, np.uint8)
        for n in range(len(mean)):  # they are one lane
            beside, value = int(trellis.second(state)[0]), self.values[n : n + 1]
            tables.code(coder, value, mean[:1] + np.int16(4 * beside), scale[:1])
            found.append(2 * int(value[0]) - beside)
            state = trellis.after(state, value)
        return found


@pytest.mark.parametrize("value", [LATENT_LIMIT - 1, LATENT_LIMIT, -LATENT_LIMIT, 1 << 23])
@pytest.mark.parametrize(
    ("scale", "before"),
    [(TRELLIS_SCALE - 1, 0), (TRELLIS_SCALE, 0), (SCALES - 1, 0), (SCALES - 1, 1)],
)
def test_a_latent_out_of_range_is_refused(
    shipped: Model, scale: int, before: int, value: int
) -> None:
    """Written by no encoder; behind right checksums. Of either quantiser, and without a trellis."""
    shape = (1, len(GROUPS[0]), 2, 2)
    mean = torch.zeros(shape, dtype=torch.int16)
    scales = torch.full(shape, scale, dtype=torch.uint8)
    here = torch.ones((1, 1, 2, 2), dtype=torch.int16)
    written = Written(np.array([before, before, value, 0], np.int32), scale)
    encoder = Encoder()
    expected = written.code(shipped.tables, encoder)
    assert expected[2] == 2 * value - before  # after two odd ones, of the second quantiser
    decoder = Decoder(encoder.finish())
    coder = TableCoder(shipped.tables, decoder, None)
    if abs(value) < LATENT_LIMIT:
        found = coder.code(0, here, mean, scales)
        assert found.permute(0, 2, 3, 1).flatten().tolist() == expected
        decoder.finish()
    else:
        with pytest.raises(ValueError, match="a latent is out of range"):
            coder.code(0, here, mean, scales)


# The head


@pytest.mark.parametrize("planes", [1, 3])
def test_a_head_is_read_back(planes: int) -> None:
    rng = np.random.default_rng(planes)
    for rate in (0, 7, RATES - 1):
        means = rng.integers(-128, 128, (planes, HYPER)).astype(np.int8)
        packed = LayerHead(rate, means, rate % FINE).pack()
        assert len(packed) == 2 + 8 * planes
        found, rest = LayerHead.unpack(packed + b"coded", planes)
        assert (found.rate, found.fine, rest) == (rate, rate % FINE, b"coded")
        assert np.array_equal(found.means, means)


def test_a_head_that_is_none_is_refused() -> None:
    for size in range(10):
        with pytest.raises(ValueError, match=f"{size} bytes, fewer than their head"):
            LayerHead.unpack(bytes(size), 1)
    with pytest.raises(ValueError, match="25 bytes"):
        LayerHead.unpack(bytes(25), 3)
    for rate in (RATES, 200, 255):
        with pytest.raises(ValueError, match=f"the rate {rate} is not below 33"):
            LayerHead.unpack(bytes([rate]) + bytes(9), 1)
    for fine in (16, 255):
        with pytest.raises(ValueError, match=f"the fine gain {fine} is not below 16"):
            LayerHead.unpack(bytes([3, fine]) + bytes(8), 1)
