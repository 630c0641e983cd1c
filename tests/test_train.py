"""examples/train: training computes what the codec will, and runs go on where they stopped."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pairs import compand

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed
TRAIN = ROOT / "examples" / "train"

from test_shifts import forced  # noqa: E402

from examples.train import data, export, fit  # noqa: E402
from examples.train.__main__ import main  # noqa: E402
from examples.train.model import (  # noqa: E402
    FIRST_TAIL,
    Batch,
    TrainingCodec,
    _LatentMeter,
    bits_of,
    levels,
    log_scale,
)
from rawcodec import weights  # noqa: E402
from rawcodec.model import fitting, latents, network, shifts  # noqa: E402
from rawcodec.model.config import (  # noqa: E402
    GROUPS,
    HYPER,
    HYPER_LIMIT,
    LAYERS,
    PASSES,
    RATES,
    SCALES,
    TRELLIS_SCALE,
    TRUNK_MARGIN,
)
from rawcodec.model.fitted import CHANNELS, TAPS, Coefficients, Sight, outputs  # noqa: E402
from rawcodec.model.inputs import unblocks  # noqa: E402
from rawcodec.model.kernels import FloatKernel, Weights  # noqa: E402
from rawcodec.model.latents import PlaneCodec, Runner, TableCoder  # noqa: E402
from rawcodec.model.layer import ahead, code_planes  # noqa: E402
from rawcodec.model.store import SUM_LIMIT, Model, load_model  # noqa: E402
from rawcodec.model.tables import (  # noqa: E402
    HALVES,
    SILENT,
    TOTAL,
    Tables,
)
from rawcodec.model.view import PlaneView  # noqa: E402
from rawcodec.sensor import Sensor  # noqa: E402
from rawcodec.stream.entropy import Encoder, RateMeter  # noqa: E402
from rawcodec.tone.table import expand_band  # noqa: E402

EXPONENT = 0.8125
UNIT = 32
RGGB = np.array([[0, 1], [1, 2]], np.uint8)
XTRANS = np.array(
    [["RGB".index(c) for c in row] for row in ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR")]
    + [["RGB".index(c) for c in "GRGGBG"]],
    np.uint8,
)


@pytest.fixture(autouse=True)
def _one_algorithm():
    """No Winograd, which is not exact, where PyTorch has NNPACK."""
    with torch.backends.nnpack.flags(enabled=False):
        yield


def _codec(seed: int = 0) -> TrainingCodec:
    """A codec with no parameter at its first value, which often is zero."""
    torch.manual_seed(seed)
    codec = TrainingCodec(EXPONENT)
    with torch.no_grad():
        for name, part in codec.named_parameters():
            size = 0.1 * float(part.std()) if part.ndim == 4 else 0.2
            if name.startswith("hyper_analysis."):
                size = 0.05
            part += size * torch.randn_like(part)
        codec.hyper_analysis.last.bias += torch.linspace(-3, 3, HYPER)
    return codec.eval()


def _integers(name: str, y: torch.Tensor) -> torch.Tensor:
    """A training layer's outputs as the integers that they stand for."""
    scaled = y if LAYERS[name].out == "value" or name.endswith(".scale") else y * UNIT
    assert torch.equal(scaled, scaled.round())
    return scaled.to(torch.int32)


# The layers


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_training_is_the_exported_one(name):
    torch.manual_seed(1)
    conv = _codec().layers[name]
    arrays = export.integers(conv, name)
    layer = LAYERS[name]
    rates = (0, 7, 13, 32)
    x = torch.randint(0, 128, (len(rates), layer.inputs, 8, 10)).to(torch.uint8)
    with torch.no_grad():
        ours = _integers(name, conv(x.float() / UNIT, torch.tensor(rates).float(), True))
    assert ours.unique().numel() > 3
    for number, rate in enumerate(rates):
        bias = arrays["bias"][rate if layer.conditioned else 0]
        kernel = FloatKernel(Weights(layer, arrays["weight"], arrays["shift"].long(), bias))
        theirs = kernel(x[number : number + 1]).to(torch.int32)
        assert torch.equal(ours[number : number + 1], theirs)


def test_levels_are_those_of_the_codec():
    z = torch.arange(1 - (1 << 15), 1 << 15)  # in half steps
    ours = levels(z.float() / 2) * UNIT
    theirs = torch.from_numpy(latents._LEVELS[z.numpy().astype(np.int16).view(np.uint16)])
    assert torch.equal(ours, theirs.float())


# The whole codec


class _Trace:
    """What goes through the graph, in training as in the codec: both call ``network``."""

    NAMES = (
        "half_features",
        "guide_features",
        "hyper_features",
        "base_features",
        "detail_features",
        "parameters",
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, list] = {}
        for name in self.NAMES:
            monkeypatch.setattr(network, name, self._spy(name, getattr(network, name)))
        walk = network.walk

        def walked(coder, steps, known, parameters_of):
            self.coder, self.steps = coder, steps
            self.latents = walk(coder, steps, known, parameters_of)
            return self.latents

        monkeypatch.setattr(network, "walk", walked)

    def _spy(self, name, function):
        def called(layer, *arguments):
            result = function(layer, *arguments)
            self.seen.setdefault(name, []).append((arguments, result))
            return result

        return called

    def results(self, name: str) -> list:
        return [result for _, result in self.seen[name]]


class _Given:
    """A coder that has the latents already."""

    def __init__(self, latents: torch.Tensor) -> None:
        self.latents = latents

    def code(self, number, here, mean, scale):
        group = GROUPS[PASSES[number][0]]
        return self.latents[:, group[0] : group[-1] + 1]


def _scene(kind: str, spot: float = 9000) -> tuple[PlaneView, np.ndarray | None, np.ndarray]:
    """A plane of 64 x 48 sites, what the plane before was decoded to, and the raw.

    Of its noise, of a brighter spot and of a brighter half, the JPEG knows nothing.
    """
    rng = np.random.default_rng(5)
    height, width = 64, 48
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + 0.4 * np.sin(y / 9 + np.arange(3)[:, None, None]) * np.cos(x / 7)
    guide = np.clip(4080 * waves + rng.normal(0, 100, waves.shape), 0, 4080).astype(np.int16)
    colours = {"bayer": RGGB, "xtrans": XTRANS, "linear": np.array([[0]], np.uint8)}[kind]
    light = guide.mean(0) / 4080
    tone = np.clip(46000 * light + rng.normal(0, 600, light.shape), 0, 46340).astype(np.uint16)
    surprise = rng.normal(0, 500, tone.shape)
    surprise[20:26, 9:16] += spot
    surprise[:, width // 2 :] += spot / 3
    raw = np.clip(tone + surprise, 0, 46340).astype(np.uint16)
    reached = earlier = None
    if kind == "xtrans":
        reached = np.ones((height, width), bool)
        reached[:7] = reached[:, -5:] = False
    if kind == "linear":
        earlier = rng.integers(-2000, 2000, (height, width)).astype(np.int32)
    return PlaneView(guide, tone, colours, reached), earlier, raw


def _filter(sight: Sight, *_: object) -> Coefficients:
    """A filter of two classes that changes a plane's prediction a little, by chance."""
    rng = np.random.default_rng(6)
    count = 2 * len(outputs(sight.seen.plane.colours))
    sizes = [TAPS * count] * CHANNELS + [count]
    numbers = [rng.integers(-2, 3, size).astype(np.int32) for size in sizes]
    return Coefficients(
        (2, 1), (300,), 4, np.zeros(len(sizes), int), np.full(len(sizes), 40), numbers
    )


def _batch(
    plane: PlaneView,
    earlier: np.ndarray | None,
    prediction: np.ndarray,
    raw: np.ndarray,
    rate: int,
) -> Batch:
    """The same plane as a patch: its margins are the reflections that the codec pads with."""
    margin = TRUNK_MARGIN
    height, width = raw.shape

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((margin, margin), (margin, margin)), "reflect")

    rows, columns = plane.colours.shape
    y = (np.arange(height + 2 * margin) - margin) % rows
    x = (np.arange(width + 2 * margin) - margin) % columns
    missing = np.zeros(raw.shape, bool) if plane.reached is None else ~plane.reached
    patch = {
        "guide": np.stack([padded(part) for part in plane.guide]),
        "tone": padded(plane.tone).astype(np.int32),
        "mask": np.eye(3, dtype=np.uint8)[plane.colours[np.ix_(y, x)]].transpose(2, 0, 1),
        "missing": padded(missing).astype(np.uint8),
        "earlier": padded(np.zeros(raw.shape, np.int32) if earlier is None else earlier),
        "prediction": padded(prediction).astype(np.int32),
        "raw": padded(raw).astype(np.float32),
    }
    return data.collate([patch], [rate])


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[TrainingCodec, Model]:
    """A codec in training, and what it is exported to."""
    codec = _codec()
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    export.export(codec, path)
    return codec, load_model(path)


@pytest.mark.parametrize("choosy", [False, True])
@pytest.mark.parametrize(("kind", "rate"), [("bayer", 3), ("xtrans", 14), ("linear", 27)])
def test_training_computes_what_the_codec_will(pair, monkeypatch, kind, rate, choosy):
    codec, model = pair
    plane, earlier, raw = _scene(kind)
    monkeypatch.setattr(latents, "working_type", lambda device: torch.float32)

    # what comes before any network changes both: what is seen, and what is predicted of it
    monkeypatch.setattr(fitting, "fit_ahead", _filter)
    run = Runner(model, rate, "float32", "cpu")
    seen, filter_ = ahead(run, RateMeter(), plane, earlier, raw)
    prediction = PlaneCodec(run, seen, filter_).prediction
    assert (seen.plane.tone != plane.tone).any()
    assert (prediction != seen.plane.tone).mean() > 0.9
    batch = _batch(seen.plane, earlier, prediction, raw, rate)
    with torch.no_grad():
        ours = _Trace(monkeypatch)
        parts = codec(batch, exact=True, noisy=False, choosy=choosy)
    monkeypatch.undo()
    monkeypatch.setattr(latents, "working_type", lambda device: torch.float32)
    z = (2 * ours.latents).round().to(torch.int16)  # in half steps
    assert float((z / 2 - ours.latents).abs().max()) < 1e-5
    # the trellis has some between integers; at a low rate, all scales are below it
    assert bool(torch.any(z & 1)) == (choosy and rate > 3)
    ((activation,), _) = ours.seen["hyper_features"][0]
    v = ((activation * UNIT - 64) / 4)[:, :, 1:-1, 1:-1].to(torch.int32)
    assert z.any()
    assert v.any()

    monkeypatch.setattr(latents, "BAND", 1000)  # one band, so that each layer runs once
    theirs = _Trace(monkeypatch)
    runtime = PlaneCodec(run, seen, filter_)
    hyper = runtime.analyse(raw)
    unrounded = torch.from_numpy(runtime.wanted(raw, range(4))).permute(2, 0, 1)[None]
    runtime.know(v)
    given = z.contiguous(memory_format=torch.channels_last)
    assert torch.equal(runtime.code(_Given(given)), z)
    decoded = runtime.decoded(given)

    # what the decoder computes: to the bit, the borders included
    np.testing.assert_array_equal(runtime.prediction, prediction)
    for step in range(2):
        assert torch.equal(ours.steps[step], theirs.steps[step].float())
        assert ours.steps[step].any()
    for name, layer in (
        ("half_features", "trunk.1"),
        ("guide_features", "trunk.3"),
        ("hyper_features", "hyper.1"),
        ("base_features", "base"),
        ("detail_features", "detail"),
    ):
        (mine,), (other,) = ours.results(name), theirs.results(name)
        assert torch.equal(_integers(layer, mine), other.to(torch.int32)), name
    both = zip(ours.seen["parameters"], theirs.seen["parameters"], strict=True)
    for number, ((mine, _), (other, _)) in enumerate(both):
        if number > 0:  # what the contexts see
            assert torch.equal((mine[2] * UNIT).to(torch.uint8), other[2])
    both = zip(ours.results("parameters"), theirs.results("parameters"), strict=True)
    for number, (mine, other) in enumerate(both):
        for part, here, there in zip(("mean", "scale"), mine, other, strict=True):
            integers = _integers(f"context.{number}.{part}", here)
            assert torch.equal(integers, there.to(torch.int32)), (number, part)

    # what only the encoder computes: nearly
    wanted = ours.coder.latents
    assert float((unrounded - wanted).abs().max()) < 0.02 * float(wanted.abs().max()) + 0.02
    limit = HYPER_LIMIT
    assert float((hyper.clamp(-limit, limit).round() - v).abs().max()) <= 1

    # what the latents make of the prediction; the codec's steps are integers
    base = 8192 * 2 ** (-rate / 4)
    with torch.no_grad():
        wanted_steps = base * codec.gains_at(batch.rate)[:, :, None, None]
        steps = model.steps[rate][None, :, None, None]
        assert float((steps - wanted_steps).abs().max()) <= 0.51
        before = codec.domain(torch.from_numpy(prediction.astype(np.float32)))
        expected = (before + unblocks(z / 2 * steps)[0]).numpy()
        wanted_picture = before + unblocks(z / 2 * wanted_steps)[0]
        error = codec.domain(torch.from_numpy(raw.astype(np.float32))) - wanted_picture
    found = model.forward.astype(np.float32)[decoded]
    inner = (expected > 100) & (expected < 57000)
    assert inner.mean() > 0.8
    assert np.abs(found - expected)[inner].max() < 3
    assert float((error**2).mean()) == pytest.approx(float(parts["distortion"]) * base**2, rel=1e-3)


@pytest.mark.parametrize(("kind", "rate"), [("bayer", 14), ("xtrans", 20), ("linear", 27)])
def test_training_counts_the_bits_that_the_codec_writes(pair, monkeypatch, kind, rate):
    """Within a hundredth, beside grids, filters and shifts of scales, which it does not count.

    Shifts are chosen to take fewer bits, so that what the codec writes may be less, but not more.
    Of latents that no scale foretells training knows the bits less well: see ``FLOOR``.
    """
    codec, model = pair
    plane, _, raw = _scene(kind, spot=0)
    monkeypatch.setattr(latents, "working_type", lambda device: torch.float32)
    monkeypatch.setattr(
        "rawcodec.model.layer._levelled", lambda run, coder, plane, raw, overwrite: plane
    )
    for name in ("fit_ahead", "fit_after"):
        monkeypatch.setattr(fitting, name, lambda *_: None)
    batch = _batch(plane, None, plane.tone, raw, rate)
    with torch.no_grad():
        parts = codec(batch, exact=True, noisy=False, choosy=True)
    counted = float(parts["latent_bits"] + parts["hyper_bits"]) * raw.size

    def written() -> int:
        coder = Encoder()
        code_planes(Runner(model, rate, "float32", "cpu"), coder, [plane], raw=[raw])
        return 8 * len(coder.finish()) - 8 * len(Encoder().finish())

    shifted = written()
    monkeypatch.setattr(TableCoder, "_best_shifts", forced(np.array(0)))
    monkeypatch.setattr(shifts, "FEWEST", raw.size + 1)  # hence none is coded
    assert counted > 5000
    assert written() == pytest.approx(counted, rel=0.01, abs=96)
    assert shifted < 1.01 * counted + 96


# The export


TAILS = [FIRST_TAIL, (-9.0, 2.0), (-2.5, 0.75), (-4.0, 3.0)]


@pytest.mark.parametrize("tail", TAILS, ids=str)
@pytest.mark.parametrize("share", [0.4, 1])
def test_training_chooses_latents_as_the_codec_does(tail, share, monkeypatch):
    """All but few, for training does not round the probabilities; of small scales and of large."""
    count = 30_000
    rng = np.random.default_rng(3)
    tables = Tables(*export.tables(tail))
    spoken = np.flatnonzero(tables.sizes != SILENT)
    scale = rng.choice(spoken, count)
    mean = rng.integers(-80, 81, count)
    wanted = mean / 8 + rng.normal(size=count) * export.scales()[scale]
    y = torch.zeros((1, 4, 1, count))
    y[0, 0, 0] = torch.from_numpy(wanted)
    here = rng.random(count) < share
    at, means, scales = (
        torch.from_numpy(array.astype(kind))[None, None, None]
        for array, kind in ((here, np.int16), (mean, np.int16), (scale, np.uint8))
    )
    meter, coder = _LatentMeter(y, False, True, torch.tensor(tail)), RateMeter()
    with torch.no_grad():
        found = meter.code(0, at.float(), means.float(), scales.float())
    halves = (2 * found).round()
    assert float((2 * found - halves).abs().max()) < 1e-3
    ours = halves[0, 0, 0].numpy()
    monkeypatch.setattr(TableCoder, "_best_shifts", forced(np.array(0)))
    theirs = (
        TableCoder(tables, coder, lambda at: y[0, list(at)].permute(1, 2, 0).numpy())
        .code(0, at, means, scales)[0, 0, 0]
        .numpy()
    )
    large = here & (scale >= TRELLIS_SCALE)
    small = here & (scale < TRELLIS_SCALE)
    assert np.mean(ours[small] != theirs[small]) < 0.001
    assert np.mean(ours[large] != theirs[large]) < 0.005
    for found in (ours, theirs):
        assert not np.any(found[small] % 2)
        assert 0.45 < np.mean(found[large] % 2) < 0.55
    errors = [((z / 2 - wanted)[large] ** 2).sum() for z in (ours, theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert float(meter.bits) == pytest.approx(coder.bits, rel=2e-3)


@pytest.mark.parametrize("tail", TAILS, ids=str)
def test_the_tables_are_those_of_the_rate_that_training_counts(tail):
    sizes, frequencies = export.tables(tail)
    tables = Tables(sizes, frequencies)  # checks that every frequency is positive
    assert all(row.sum() == TOTAL for row in tables.rows)
    sigmas = export.scales()
    assert sigmas[0] == pytest.approx(0.015)
    assert sigmas[-1] == pytest.approx(0.015 * 2**13)
    np.testing.assert_array_equal(sizes == SILENT, sigmas < 0.1)
    spoken = np.flatnonzero(sizes != SILENT)
    assert len(tables.rows) == 8 * len(spoken)
    index = torch.arange(SCALES).float()
    np.testing.assert_allclose(torch.exp2(log_scale(index)).numpy(), sigmas, rtol=1e-5)
    for number, scale in enumerate(spoken):
        half = HALVES[sizes[scale]]
        for fraction in range(8):
            row = tables.rows[8 * number + fraction][:-1]
            assert row[half] == row.max()
            assert (np.diff(row[: half + 1]) >= 0).all()
            assert (np.diff(row[half:]) <= 0).all()
            likely = np.flatnonzero(row > 64)
            z = torch.from_numpy(likely - half).double()
            mean, sigma = torch.tensor((fraction - 4) / 8), torch.tensor(sigmas[scale])
            counted = bits_of(z, mean, sigma, torch.tensor(tail)).numpy()
            np.testing.assert_allclose(16 - np.log2(row[likely]), counted, atol=0.04)


@pytest.mark.parametrize("tail", TAILS[1:], ids=str)
def test_a_learned_tail_is_exported(tmp_path, tail):
    codec = _codec()
    with torch.no_grad():
        codec.tail.copy_(torch.tensor(tail))
    export.export(codec, tmp_path / "m.safetensors")
    found = load_model(tmp_path / "m.safetensors").tables
    expected = Tables(*export.tables(tail))
    assert all(map(np.array_equal, found.rows, expected.rows))
    other = Tables(*export.tables(FIRST_TAIL))
    assert not all(map(np.array_equal, found.rows, other.rows))


def test_a_tail_is_learned_that_fits_the_latents():
    """Bits have a gradient that leads to the tail that latents were drawn from."""
    generator = torch.Generator().manual_seed(4)
    wide = torch.rand(40_000, generator=generator) < 0.1
    drawn = torch.randn(40_000, generator=generator) * torch.where(wide, 12.0, 2.0)
    latents, counts = drawn.round().unique(return_counts=True)
    sigma, mean = torch.full_like(latents, 2), torch.zeros_like(latents)
    tail = torch.tensor(FIRST_TAIL, requires_grad=True)
    optimiser = torch.optim.Adam([tail], lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        (bits_of(latents, mean, sigma, tail) * counts).sum().backward()
        optimiser.step()
    weight, wider = torch.exp2(tail).tolist()
    assert weight == pytest.approx(0.1, rel=0.1)
    assert wider == pytest.approx(6, rel=0.1)


def _set(codec: TrainingCodec, name: str, part: str, value: float) -> None:
    with torch.no_grad():
        getattr(codec.layers[name], part).view(-1)[0] = value


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("bias", 1e5, f"{SUM_LIMIT} is the limit"),
        ("bias", float(2**32), f"{SUM_LIMIT} is the limit"),  # 0 in the low 32 bits
        ("bias", math.nan, "not finite"),
        ("weight", math.inf, "not finite"),
        ("rate", -1e5, f"{SUM_LIMIT} is the limit"),
    ],
)
def test_what_cannot_be_certified_is_refused(tmp_path, part, value, complaint):
    codec = _codec()
    _set(codec, "base", part, value)
    with pytest.raises(ValueError, match=f"^base: .*{complaint}"):
        export.export(codec, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_small_weights_beside_a_large_bias_are_refused(tmp_path):
    codec = _codec()
    with torch.no_grad():
        codec.layers["trunk.2"].weight[5] *= 1e-4
        codec.layers["trunk.2"].bias[5] = 3
    with pytest.raises(ValueError, match=r"^trunk\.2: sums may reach"):
        export.export(codec, tmp_path / "m.safetensors")


def test_large_weights_saturate_as_in_training():
    conv = _codec().layers["trunk.1"]
    with torch.no_grad():
        conv.weight[3] *= 1e5
    arrays = export.integers(conv, "trunk.1")
    assert int(arrays["shift"][3]) == 0
    x = torch.randint(0, 128, (1, 32, 5, 5)).to(torch.uint8)
    kernel = FloatKernel(
        Weights(LAYERS["trunk.1"], arrays["weight"], arrays["shift"].long(), arrays["bias"][0])
    )
    with torch.no_grad():
        ours = conv(x.float() / UNIT, torch.zeros(1), True)
    assert torch.equal(_integers("trunk.1", ours), kernel(x).to(torch.int32))


def test_what_else_a_weights_file_may_not_hold_is_refused(tmp_path):
    codec = _codec()
    with torch.no_grad():
        codec.gains[0, 0] = 12
    with pytest.raises(ValueError, match=r"^steps is not as it should be"):
        export.export(codec, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        export.export(_codec(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# The training


def test_noise_comes_before_rounding_and_the_order_last():
    phases = [fit.phase_of(n / 100) for n in range(101)]
    assert phases[0].noisy
    assert phases[0].rate_weight < 0.1
    last = phases[-1]
    assert (last.noisy, last.exact, last.choosy, last.ordered) == (False, True, True, True)
    assert last.rate_weight == 1
    for before, after in itertools.pairwise(phases):
        assert before.noisy >= after.noisy
        assert before.exact <= after.exact
        assert before.choosy <= after.choosy
        assert before.ordered <= after.ordered
    begins = [next(n for n, p in enumerate(phases) if getattr(p, name)) for name in
              ("choosy", "exact", "ordered")]  # fmt: skip
    assert begins == sorted(begins)
    assert begins[0] > next(n for n, p in enumerate(phases) if not p.noisy)


def test_the_learning_rate_rises_and_falls():
    rates = [fit.learning_rate(n / 1000, n, 1.0) for n in range(1001)]
    top = int(np.argmax(rates))
    assert 100 < top < 300
    assert (np.diff(rates[:top]) > 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    assert rates[-1] == fit.LOWEST_RATE


def test_most_patches_are_trained_at_rates_of_use():
    """But none at no other: any rate occurs, each of those of use as often as another."""
    rng = np.random.default_rng(0)
    rates = np.array([data.random_rate(rng) for _ in range(40_000)])
    counts = np.bincount(rates, minlength=RATES)
    assert len(counts) == RATES
    assert counts.min() > 100
    low, high = data.USUAL_RATES
    usual, others = counts[low : high + 1], np.delete(counts, np.s_[low : high + 1])
    assert 0.85 < usual.sum() / len(rates) < 0.97
    assert usual.max() < 1.2 * usual.min()
    assert others.max() < 1.5 * others.min()
    assert all(low <= rate <= high for rate in export.QUALITIES.values())


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Frames made by hand: three of a Bayer sensor, one of a linear raw."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    for number in range(4):
        linear = number == 3
        shape = (100, 90, 3) if linear else (100, 90)
        level = rng.random((100, 90))
        guide = (4080 * np.stack([level**p for p in (0.5, 0.6, 0.7)])).astype(np.int16)
        light = np.stack([level] * 3, 2) if linear else level
        tone = (32768 * np.sqrt(light)).astype(np.uint16)
        samples = np.clip(light * 3000 + rng.normal(100, 20, shape), 0, 4095).astype(np.uint16)
        path = folder / f"frame-{number:05d}"
        path.mkdir()
        arrays = {"guide": guide, "tone": tone, "samples": samples}
        for rate in data.RATES:
            ahead = tone - np.minimum(tone, rate), tone + rng.integers(0, 99, shape)
            arrays[f"tone-{rate}"], arrays[f"prediction-{rate}"] = (
                a.astype(np.uint16) for a in ahead
            )
            if linear:
                earlier = rng.integers(-999, 999, shape) * np.array([1, 0, 1])  # green is the first
                arrays[f"earlier-{rate}"] = earlier.astype(np.int32)
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
        if number == 2:
            np.save(path / "reached.npy", level < 0.9)
        cfa, black = ([], [100] * 3) if linear else (["RG", "GB"], [100] * 4)
        meta = {"width": 90, "height": 100, "cfa": cfa, "black": black, "white": 3100}
        meta |= {"seed": 1, "number": number, "tiles": [{"photo": f"{number % 2}.png"}]}
        (path / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def small():
    """Small patches, and a clock that goes on by a second whenever it is read."""
    seconds = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PATCH", 16)
        patch.setattr(fit, "HOLD_OUT", 1)
        patch.setattr(fit, "VALIDATION_PATCHES", 2)
        patch.setattr(fit, "LOG_STEPS", 1)
        patch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        yield


class _Unturned:
    """In the place of a random generator: patches are not flipped."""

    def random(self) -> float:
        return 1.0


def _frame(cfa: tuple[str, ...], *, reached: bool = True) -> data.Frame:
    """A frame of 41 x 53 sites, all by chance; each cell of the pattern has its own black level."""
    rng = np.random.default_rng(8)
    cells = sum(map(len, cfa)) or 3
    sensor = Sensor(53, 41, cfa, tuple(200 + 7 * n for n in range(cells)), 4000)
    shape = sensor.shape

    def by_rate(low: int, high: int, kind: type) -> dict[int, np.ndarray]:
        return {rate: rng.integers(low, high, shape).astype(kind) for rate in data.RATES}

    return data.Frame(
        rng.integers(0, 4081, (3, 41, 53)).astype(np.int16),
        rng.integers(0, 4096, shape).astype(np.uint16),
        by_rate(0, 46341, np.uint16),
        by_rate(0, 46341, np.uint16),
        {} if cfa else by_rate(-9999, 9999, np.int32),
        None if reached else rng.random((41, 53)) < 0.9,
        sensor,
    )


QUAD = ("RRGG", "RRGG", "GGBB", "GGBB")
SENSORS = {
    "bayer": ("GR", "BG"),
    "xtrans": ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"),
    "quad": QUAD,
    "mono": ("G",),
    "linear": (),
}


@pytest.mark.parametrize("rate", [0, 13, 14, 32])
@pytest.mark.parametrize("kind", SENSORS)
def test_a_patch_is_a_part_of_its_frame(kind, rate):
    """Wherever it is cut, of the rate nearest to its own; the black level is that of each site."""
    frame = _frame(SENSORS[kind], reached=rate != 14)
    sensor, known = frame.sensor, data.nearest(rate)
    whole = compand(sensor, frame.samples)
    letters = np.array([list(row) for row in sensor.cfa]) if sensor.cfa else None
    for top, left in ((0, 0), (1, 0), (0, 1), (3, 5), (8, 19), (17, 29)):
        part = slice(top, top + 24), slice(left, left + 24)
        for colour in data.PLANES if sensor.linear else (None,):
            every = (*part, colour) if sensor.linear else part
            patch = data.take_patch(frame, top, left, 24, rate, colour, _Unturned())
            assert np.array_equal(patch["guide"], frame.guide[:, part[0], part[1]])
            assert np.array_equal(patch["tone"], frame.tone[known][every])
            assert np.array_equal(patch["prediction"], frame.prediction[known][every])
            earlier = frame.earlier[known][every] if sensor.linear else np.zeros((24, 24))
            assert np.array_equal(patch["earlier"], earlier)
            assert np.abs(patch["raw"] - whole[every]).max() <= 0.51
            missing = np.zeros((24, 24)) if frame.reached is None else ~frame.reached[part]
            assert np.array_equal(patch["missing"], missing)
            assert patch["mask"].shape == (3, 24, 24)
            if letters is None:
                assert patch["mask"][colour].all()
                assert patch["mask"].sum() == 24 * 24
            else:
                y, x = (
                    np.arange(s.start, s.stop) % n for s, n in zip(part, letters.shape, strict=True)
                )
                for number, letter in enumerate("RGB"):
                    assert np.array_equal(patch["mask"][number], letters[np.ix_(y, x)] == letter)


@pytest.mark.parametrize("kind", SENSORS)
def test_companding_is_the_inverse_of_expansion(kind):
    """Of any pattern, with a black level of each cell, below black and above white."""
    frame = _frame(SENSORS[kind])
    sensor, samples = frame.sensor, frame.samples
    ours = data.companded(samples, sensor)
    assert ours.dtype == np.float32
    assert np.abs(ours - compand(sensor, samples)).max() <= 0.51
    again = np.empty(sensor.shape, np.uint16)
    expand_band(sensor, np.rint(ours).astype(np.uint16), 0, again)
    low = np.empty(sensor.shape, np.uint16)  # the black level of every site
    expand_band(sensor, np.zeros(sensor.shape, np.uint16), 0, low)
    assert (samples < low).any()
    assert len(np.unique(low)) == len(set(sensor.black))
    assert np.array_equal(again, np.maximum(samples, low))


def test_patches_of_a_batch_are_of_its_rates():
    """In blocks of quads; flipped and transposed, all arrays of a patch alike."""
    frame = _frame(SENSORS["bayer"], reached=False)
    turned = set()
    for seed in range(40):
        patch = data.take_patch(frame, 4, 6, 24, 17, None, np.random.default_rng(seed))
        straight = data.take_patch(frame, 4, 6, 24, 17, None, _Unturned())
        turns = [
            (down, across, swapped) for down in (1, -1) for across in (1, -1) for swapped in (0, 1)
        ]

        def turn(array, down, across, swapped):
            array = array[..., ::down, ::across]
            return array.swapaxes(-1, -2) if swapped else array

        (found,) = [
            how
            for how in turns
            if all(np.array_equal(turn(straight[name], *how), patch[name]) for name in patch)
        ]
        turned.add(found)
    assert len(turned) == 8
    batch = data.collate([straight, patch], [3, 29])
    assert batch.rate.tolist() == [3, 29]
    assert batch.rate.dtype == torch.float32
    assert batch.guide.shape == (2, 3, 24, 24)
    assert batch.tone.shape == batch.prediction.shape == batch.raw.shape == (2, 24, 24)
    assert batch.mask.shape == (2, 12, 12, 12)
    assert batch.missing.shape == (2, 1, 12, 12)
    for site in range(4):
        here = straight["mask"][:, site // 2 :: 2, site % 2 :: 2]
        assert np.array_equal(batch.mask[0, 3 * site : 3 * site + 3].numpy(), here)


def test_the_nearest_rate_is_taken():
    assert list(data.RATES) == sorted(set(data.RATES))
    assert [data.nearest(rate) for rate in data.RATES] == list(data.RATES)
    for rate in range(RATES):
        away = [abs(known - rate) for known in data.RATES]
        assert abs(data.nearest(rate) - rate) == min(away)


def test_of_a_linear_frame_later_colours_know_the_one_before(frames):
    frame = data.open_frames(frames)[3]
    seen = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        patch = data.take_patch(frame, 0, 0, 64, 17, data.random_plane(frame, rng), rng)
        (colour,) = np.flatnonzero(patch["mask"].any((1, 2)))
        assert patch["mask"][colour].all()
        seen.add((int(colour), bool(patch["earlier"].any())))
    assert seen == {(1, False), (0, True), (2, True)}  # green is the first


@pytest.mark.usefixtures("small")
def test_a_batch_has_patches_of_one_photo(frames):
    """Of one plane and rate, at places of their own."""
    opened = data.open_frames(frames)
    rng = np.random.default_rng(2)
    assert data.random_batch(opened, 5, rng, 24).rate.tolist() == [24] * 5
    found = [data.random_batch(opened, 3, rng) for _ in range(40)]
    assert all(len(batch.rate.unique()) == 1 for batch in found)
    assert len({float(batch.rate[0]) for batch in found}) > 5
    for batch in found:
        planes = batch.mask.flatten(2).amax(2).view(3, 4, 3).amax(1)
        assert planes.sum(1).tolist() in ([1] * 3, [3] * 3)
        assert len(planes.unique(dim=0)) == 1
        assert any(
            all(np.isin(patch.numpy(), frame.guide).all() for patch in batch.guide)
            for frame in opened
        )
    assert any(not torch.equal(batch.guide[0], batch.guide[1]) for batch in found)
    for frame in opened:
        (one,) = data.random_batch([frame], 1, rng, 10).tone
        assert np.isin(one.numpy(), frame.tone[10]).all()
        assert not np.isin(one.numpy(), frame.tone[17]).all()


@pytest.mark.parametrize("noisy", [False, True])
def test_hyper_latents_have_one_mean_in_all_of_a_photo(noisy):
    """What differs from patch to patch takes bits, as it does in a file."""
    codec = _codec()
    wanted = torch.zeros(2, HYPER, 8, 8)
    wanted[1] = 3.0
    codec.hyper_analysis.forward = lambda *_: wanted
    latents, rates = torch.zeros(2, 4, 64, 64), torch.tensor([12.0, 12.0])
    _, together = codec._hyper(latents, rates, noisy)
    for one in range(2):
        codec.hyper_analysis.forward = lambda *_, one=one: wanted[one : one + 1]
        _, alone = codec._hyper(latents[:1], rates[:1], noisy)
        assert together[one] > 2 * alone[0]


@pytest.mark.usefixtures("small")
def test_the_same_patches_are_measured_at_every_rate(frames, monkeypatch):
    """With what the nearest of the prepared rates makes of them; and again in the next call."""
    seen = []
    apply = fit.apply

    def watched(codec, batch, phase):
        seen.append(batch)
        return apply(codec, batch, phase)

    monkeypatch.setattr(fit, "apply", watched)
    opened = data.open_frames(frames)
    rates = (2, 10, 16, 31)
    for _ in range(2):
        found = fit.measure(_codec(), opened, fit.phase_of(1), rates, 3)
    assert [len(values) for values in found.values()] == [4, 4]
    assert all(len(batch.rate.unique()) == 1 for batch in seen)
    by_rate = {rate: [b for b in seen if b.rate[0] == rate] for rate in rates}
    for batches in by_rate.values():
        for ours, reference in zip(batches, by_rate[2], strict=True):
            for name in ("guide", "mask", "missing", "raw"):
                assert torch.equal(getattr(ours, name), getattr(reference, name))
    for ours, reference in zip(by_rate[10], by_rate[2], strict=True):
        assert torch.equal(ours.tone, reference.tone)
        assert torch.equal(ours.prediction, reference.prediction)
    for ours, reference in zip(by_rate[16], by_rate[2], strict=True):
        assert not torch.equal(ours.tone, reference.tone)
        assert not torch.equal(ours.prediction, reference.prediction)
    for n, batch in enumerate(by_rate[2][: len(by_rate[2]) // 2]):
        assert torch.equal(batch.raw, by_rate[2][n + len(by_rate[2]) // 2].raw)


def test_what_is_wrong_with_frames_is_told(frames, tmp_path, small, monkeypatch):
    settings = fit.Settings(minutes=1)
    with pytest.raises(ValueError, match="has 0 frames"):
        fit.train(tmp_path, tmp_path / "run", settings)
    monkeypatch.setattr(data, "PATCH", 256)
    with pytest.raises(ValueError, match="a frame of 100x90 sites is too small: 288"):
        fit.train(frames, tmp_path / "run", settings)


def test_a_run_goes_on_where_it_stopped(frames, tmp_path, small):
    path = tmp_path / fit.CHECKPOINT
    settings = fit.Settings(minutes=5 / 60, patches=1)
    fit.train(frames, tmp_path, settings)
    first = fit.read_checkpoint(path)
    assert first["step"] > 1
    assert first["spent"] >= 5

    longer = fit.Settings(minutes=11 / 60, patches=1)
    again = fit.Training(longer)
    again.restore(path)
    assert (again.step, again.spent) == (first["step"], first["spent"])
    for name, array in again.codec.state_dict().items():
        assert torch.equal(array, first["codec"][name]), name
    for name, array in again.average.state_dict().items():
        assert torch.equal(array, first["average"][name]), name
    assert all(part.requires_grad for part in again.codec.parameters())
    moments = again.optimiser.state_dict()["state"]
    assert torch.equal(moments[0]["exp_avg"], first["optimiser"]["state"][0]["exp_avg"])

    fit.train(frames, tmp_path, longer)
    second = fit.read_checkpoint(path)
    assert second["step"] > first["step"]
    assert 11 <= second["spent"] < 16
    assert [call["step"] for call in second["calls"]] == [0, first["step"]]
    assert second["calls"][0]["data"] == {
        "frames": 4,
        "seeds": [1],
        "sizes": [90],
        "photographs": 2,
    }
    lines = fit.read_log(tmp_path / fit.LOG)
    steps = [line["step"] for line in lines if "latent_bits" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == second["step"]
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert sum("validation_bits" in line for line in lines) == 2

    before = path.read_bytes()
    fit.train(frames, tmp_path, longer)  # nothing is left to do
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match=r"was trained with exponent 0\.8125"):
        fit.train(frames, tmp_path, fit.Settings(minutes=1, exponent=0.5))


def test_a_run_may_begin_with_the_weights_of_another(frames, tmp_path, small):
    """At its average, and where everything learns; once begun, it goes on as any other."""
    first, second = tmp_path / "first", tmp_path / "second"
    fit.train(frames, first, fit.Settings(minutes=3 / 60, patches=1))
    path = first / fit.CHECKPOINT
    state = fit.read_checkpoint(path)
    state["average"]["layers.layers.gone.weight"] = torch.zeros(3)  # of a layer that is no more
    torch.save(state, path)

    settings = fit.Settings(minutes=1, patches=1, start=str(first))
    training = fit.Training(settings)
    training.begin(path)
    assert (training.step, training.spent, training.progress) == (0, 0, fit.STARTED)
    phase = fit.phase_of(training.progress)
    assert (phase.noisy, phase.exact, phase.choosy, phase.ordered) == (False, True, True, True)
    training.spent = 30
    assert training.progress == pytest.approx((1 + fit.STARTED) / 2)
    training.spent = 60
    assert training.progress == 1
    for name, array in training.codec.state_dict().items():
        assert torch.equal(array, state["average"][name]), name
        assert torch.equal(array, training.average.state_dict()[name]), name
    for name, part in training.codec.named_parameters():
        assert part.requires_grad != name.startswith("hyper_analysis."), name

    short = replace(settings, minutes=4 / 60)
    fit.train(frames, second, short)
    begun = fit.read_checkpoint(second / fit.CHECKPOINT)
    lines = fit.read_log(second / fit.LOG)
    assert lines[0]["progress"] > fit.STARTED
    path.unlink()  # what goes on needs it no more
    fit.train(frames, second, replace(short, minutes=8 / 60))
    again = fit.read_checkpoint(second / fit.CHECKPOINT)
    assert [call["step"] for call in again["calls"]] == [0, 0, begun["step"]]
    assert again["begun"] == fit.STARTED
    for kind, name in itertools.product(("codec", "average"), state["average"]):
        if name.startswith("hyper_analysis."):  # it stays as the other run left it
            assert torch.equal(again[kind][name], state["average"][name]), name
    changed = "layers.layers.base.weight"
    assert not torch.equal(again["codec"][changed], begun["codec"][changed])
    commands = [c for c in export.commands(again["calls"]) if " fit " in c]
    assert [c.endswith(" --start OTHER") for c in commands] == [False, True, True]
    assert str(tmp_path) not in "".join(export.commands(again["calls"]))


def test_weights_that_do_not_fit_begin_no_run(frames, tmp_path, small):
    fit.train(frames, tmp_path, fit.Settings(minutes=2 / 60, patches=1))
    path = tmp_path / fit.CHECKPOINT
    state = fit.read_checkpoint(path)
    name = "layers.layers.base.weight"
    for wrong in (state["average"][name][:, 1:], None):
        average = {**state["average"], name: wrong}
        if wrong is None:
            del average[name]
        torch.save({**state, "average": average}, path)
        with pytest.raises(ValueError, match=f"{name} as this model has it; begin without it$"):
            fit.Training(fit.Settings(minutes=1, start=str(tmp_path))).begin(path)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"was trained with exponent 0\.8125, not 0\.5"):
        fit.Training(fit.Settings(minutes=1, exponent=0.5)).begin(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        fit.train(frames, tmp_path / "b", fit.Settings(minutes=1, start=str(tmp_path / "none")))


def test_steps_that_were_taken_again_count_once(tmp_path):
    steps = (50, 100, 150, 100, 150)
    lines = [json.dumps({"step": step, "n": n}) for n, step in enumerate(steps)]
    (tmp_path / "log").write_text("\n".join(lines))
    assert [line["n"] for line in fit.read_log(tmp_path / "log")] == [0, 1, 3, 4]


def test_every_parameter_learns_to_the_end(frames, small):
    training = fit.Training(fit.Settings(minutes=1))
    training.codec.load_state_dict(_codec().state_dict())
    batch = data.random_batch(data.open_frames(frames), 9, np.random.default_rng(0))
    batch = replace(batch, rate=torch.arange(0, RATES, 4).float())  # each anchor
    learned: dict[bool, set[str]] = {}
    for phase in (fit.phase_of(0.05), fit.phase_of(1.0)):
        training.learn(batch, phase)
        learned[phase.noisy] = {
            name
            for name, part in training.codec.named_parameters()
            if part.grad is not None and part.grad.abs().amax() > 0
        }
        assert all(
            torch.isfinite(part.grad).all()
            for part in training.codec.parameters()
            if part.grad is not None
        )
    names = {name for name, _ in training.codec.named_parameters()}
    assert learned[True] == names - {"layers.layers.order.weight", "layers.layers.order.bias"}
    assert learned[False] == names - {"gains"}


# The commands


@pytest.mark.parametrize("first", sorted(path.stem for path in TRAIN.glob("[a-z]*.py")))
def test_modules_of_training_can_be_imported_in_any_order(first, monkeypatch):
    if first == "curves":
        pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    for name in [name for name in sys.modules if name.startswith("examples.train")]:
        monkeypatch.delitem(sys.modules, name)
    try:
        importlib.import_module(f"examples.train.{first}")
    finally:
        for name in [name for name in sys.modules if name.startswith("examples.train")]:
            del sys.modules[name]  # those that the tests have come back


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def run(frames, small, tmp_path_factory) -> Path:
    """A run that was done at once."""
    folder = tmp_path_factory.mktemp("run")
    _run("fit", "--frames", frames, "--run", folder, "--minutes", 0.05, "--patches", 1)
    return folder


def test_a_run_becomes_a_model_in_the_manifest(run, frames, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    out, manifest = folder / "m-1.safetensors", folder / weights.MANIFEST
    manifest.write_text(json.dumps({"manifest_version": weights.MANIFEST_VERSION, "models": []}))
    printed = json.loads(_run("export", "--run", run, "--out", out, "--id", "m-1"))
    _run("export", "--run", run, "--out", out, "--id", "m-1", "--manifest", manifest)
    assert json.loads(manifest.read_text())["models"] == [printed]

    assert printed["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert printed["steps"] == fit.read_checkpoint(run / fit.CHECKPOINT)["step"]
    assert [line.split()[3] for line in printed["trained_by"]] == ["pairs", "fit"]
    assert "--frames 4 --seed 1 --size 90" in printed["trained_by"][0]
    assert "--minutes 0.05 --patches 1 " in printed["trained_by"][1]
    assert str(tmp_path) not in json.dumps(printed)
    assert printed["data"].startswith("4 synthetic pairs")
    assert len(printed["curve"]["db"]) == len(printed["curve"]["rates"])
    monkeypatch.setattr(weights, "folder", lambda: folder)
    (model,) = weights.models()
    assert load_model(weights.require_model("m-1", model.hash)).steps.shape == (33, 4)

    entry = printed | {"qualities": {"low": 1}, "steps": 0}
    manifest.write_text(json.dumps({"about": "a", "models": [{"id": "m-0"}, entry]}))
    export.insert(manifest, printed)
    found = json.loads(manifest.read_text())
    assert found == {"about": "a", "models": [{"id": "m-0"}, printed | {"qualities": {"low": 1}}]}


def test_a_run_that_cannot_be_exported_says_why_in_one_line(run, tmp_path):
    state = fit.read_checkpoint(run / fit.CHECKPOINT)
    path = tmp_path / fit.CHECKPOINT
    state["average"]["layers.layers.base.bias"][0] = 1e6
    torch.save(state, path)
    out = tmp_path / "m.safetensors"
    arguments = ["export", "--run", str(tmp_path), "--out", str(out), "--id", "m-1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {path}: cannot be exported: base: sums may reach")
    assert result.output.count("\n") == 1
    assert not out.exists()

    del state["calls"]
    torch.save(state, path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "give --trained-by and --data" in result.output

    path.unlink()
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "there is no checkpoint" in result.output


def test_a_run_is_measured(run, frames):
    lines = _run("measure", "--run", run, "--frames", frames, "--patches", 3).splitlines()
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(0, 33, 4))
    decibels = [float(line.split()[2]) for line in lines[1:]]
    assert decibels[-1] > decibels[0]


def test_a_run_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra benchmark, is not there")
    _run("curves", "--run", run, "--out", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_frames_are_described_by_what_made_them(frames):
    sensor = data.open_frames(frames)[0].sensor
    assert sensor == Sensor(90, 100, ("RG", "GB"), (100,) * 4, 3100)
