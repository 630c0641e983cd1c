"""examples/baselines/r2lcm.py and r2lcm_serial.py: fresh networks, tiny pictures."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1]))  # ``examples`` is not installed

from examples.baselines import r2lcm
from examples.baselines.interface import to_planes
from examples.baselines.r2lcm import (
    LATENTS,
    ORDERS,
    R2LCM,
    STEPS,
    Factorised,
    Meter,
    Network,
    Order,
    Symbols,
    Transforms,
    Writer,
    gaussian_bits,
    walk,
)
from examples.baselines.r2lcm_serial import R2LCMSerial, SerialNetwork

Make = Callable[..., R2LCM]
SYSTEMS = pytest.mark.parametrize("make", [R2LCM, R2LCMSerial])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads would compete, and data is for the number of threads that wrote it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _pair(height: int, width: int, saved: str = "PNG") -> tuple[np.ndarray, bytes]:
    """A raw and its picture: waves, with some noise."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    light = 0.5 + 0.3 * np.sin(x / 5 + y / 7)[:, :, None] * np.array([1, 0.8, 0.6])
    light = np.clip(light + rng.normal(0, 0.02, light.shape), 0, 1)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * light).astype(np.uint8)).save(file, saved)
    return np.rint(65535 * light**2.2).astype(np.uint16), file.getvalue()


def _batch(size: int = 32) -> tuple[Tensor, Tensor]:
    light = torch.rand(2, 3, size // 4, size // 4)
    light = torch.nn.functional.interpolate(light, scale_factor=4, mode="bilinear")
    return light**2.2, (light * 255).round() / 255


def _lively(system: R2LCM) -> R2LCM:
    """The same system; its latents and hyper-latents have sizes as trained ones may have."""
    raw, picture = _pair(32, 32)
    planes, shown = to_planes(raw), to_planes(r2lcm.pixels(picture))
    network = system.network.eval()
    with torch.no_grad():
        for _ in range(2):
            latents = network.latents(planes, shown)
            network.analysis[-2].weight /= latents.std()
        # Around a mean of nothing: what fresh networks of the entropy model foretell.
        network.analysis[-2].bias -= latents.mean((0, 2, 3)) / latents.std()
        hyper = network.hyper_latents(network.latents(planes, shown), shown)
        network.hyper_analysis[-1].weight *= 3 / hyper.std()
    return system


def _rounded(system: R2LCM, raw: np.ndarray, picture: bytes) -> tuple[Symbols, Tensor]:
    """The symbols of a raw, and the picture's planes."""
    shown = r2lcm.pixels(picture)
    planes = system._padded(shown)
    with torch.no_grad():
        return system._symbols(raw, planes, shown.shape), planes


class _Recorder(Meter):
    """Keeps what each step was coded with."""

    def __init__(self, values: Tensor) -> None:
        shape = (1, LATENTS, values.shape[2] // 4, values.shape[3] // 4)
        super().__init__(values, torch.zeros(shape), torch.zeros(shape), fresh=False)
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def latents(self, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        self.steps.append((mask, mean, scale))
        return super().latents(mask, mean, scale)


@SYSTEMS
@pytest.mark.parametrize(
    ("scale", "size", "saved"),
    [(1, (21, 35), "PNG"), (1, (3, 5), "PNG"), (4, (37, 50), "JPEG"), (4, (16, 32), "PNG")],
)
def test_decodes_to_what_the_encoder_computed(
    make: Make, scale: int, size: tuple[int, int], saved: str
) -> None:
    system = _lively(make(scale=scale))
    raw, picture = _pair(*size, saved)
    data = system.encode(raw, picture)
    decoded = system.decode(data, picture)
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, system.reconstruction(raw, picture))
    assert data == system.encode(raw, picture)
    symbols, _ = _rounded(system, raw, picture)
    assert len(np.unique(symbols.latents)) > 3


@pytest.mark.parametrize("order", ORDERS)
def test_every_position_has_one_step(order: Order) -> None:
    network = Network(order)
    features, picture = torch.randn(2, 2 * LATENTS, 80, 20), torch.rand(2, 3, 80, 20)
    with torch.no_grad():
        noise = network.noise(features, fresh=False)
        masks = network.masks(features, picture, noise)
    assert torch.equal(masks.sum(1), torch.ones(2, 80, 20))
    assert set(masks.unique().tolist()) == {0, 1}
    if order != "deterministic":
        assert all(bool(masks[:, step].any()) for step in range(STEPS))
    # Training has the same masks for the same noise, with gradients.
    trained = network.masks(features.requires_grad_(), picture, noise)
    assert torch.equal(trained, masks)


def test_the_decoder_has_the_encoder_s_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    system = _lively(R2LCM())
    found = []
    masks = Network.masks

    def recorded(*arguments: Tensor) -> Tensor:
        found.append(masks(*arguments))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(Network, "masks", recorded)
    raw, picture = _pair(24, 20)
    system.decode(system.encode(raw, picture), picture)
    assert torch.equal(*found)


def test_later_steps_change_nothing_in_earlier_ones() -> None:
    network = Network().eval()
    picture, values = torch.rand(1, 3, 24, 24), torch.randn(1, LATENTS, 24, 24).round()

    def steps(values: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        recorder = _Recorder(values)
        with torch.no_grad():
            walk(network, picture, recorder)
        return recorder.steps

    before = steps(values)
    assert len(before) == STEPS
    for changed in range(STEPS):
        after = steps(values + 3 * before[changed][0])
        for step, (old, new) in enumerate(zip(before, after, strict=True)):
            assert torch.equal(old[0], new[0])
            assert torch.equal(old[1], new[1]) == (step <= changed)
            assert torch.equal(old[2], new[2]) or step > changed


def test_serial_parameters_look_back_only() -> None:
    network = SerialNetwork().eval()
    features, values = torch.randn(1, 2 * LATENTS, 9, 9), torch.randn(1, LATENTS, 9, 9)
    changed = values.clone()
    changed[:, 1, 4, 5] += 3
    with torch.no_grad():
        before, after = (
            torch.cat(network.parameters_of(features, x), 1).flatten(2) for x in (values, changed)
        )
    place = 4 * 9 + 5
    assert torch.equal(before[:, :, : place + 1], after[:, :, : place + 1])
    # Two to the right, and the five below within two rows and columns.
    reached = (before != after).any(1)[0].reshape(9, 9).nonzero().tolist()
    assert reached == [[4, 6], [4, 7], *([row, column] for row in (5, 6) for column in range(3, 8))]


def test_serial_one_by_one_is_what_training_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    system = _lively(R2LCMSerial())
    raw, picture = _pair(12, 16)
    symbols, planes = _rounded(system, raw, picture)
    found = []
    gaussians = Writer.gaussians

    def recorded(self: Writer, values: np.ndarray, *parameters: np.ndarray) -> np.ndarray:
        found.append(np.concatenate(parameters))
        return gaussians(self, values, *parameters)

    monkeypatch.setattr(Writer, "gaussians", recorded)
    with torch.no_grad():
        writer = Writer(symbols, r2lcm._bounds(symbols))
        decoded = walk(system.network, planes, writer)
        features = system.network.features(writer.hyper(system.network.prior), planes)
        assert isinstance(system.network, SerialNetwork)
        mean, scale = system.network.parameters_of(features, decoded)
    expected = torch.cat([mean, scale], 1)[0].flatten(1).T
    assert np.array_equal(decoded[0].numpy(), symbols.latents)
    assert np.allclose(np.array(found), expected.numpy(), atol=1e-4)


@SYSTEMS
def test_a_file_is_as_large_as_estimated(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    system = _lively(make())
    raw, picture = _pair(32, 32)
    estimate = float(system.bits(raw, picture).sum()) / 8
    assert estimate > 800
    least = len(system.encode(raw, picture)) - system._head.size
    # Wide bounds: none of what lies beyond them is given to the symbols within.
    monkeypatch.setattr(r2lcm, "_bounds", lambda _: (-100, 100, -400, 400))
    size = len(system.encode(raw, picture)) - system._head.size
    assert abs(size - estimate) < 0.02 * estimate
    assert least <= size


@SYSTEMS
@pytest.mark.parametrize("scale", [1, 4])
def test_the_map_holds_all_bits(make: Make, scale: int) -> None:
    system = _lively(make(scale=scale))
    raw, picture = _pair(16, 32)
    found = system.bits(raw, picture)
    assert found.dtype == np.float32
    assert found.shape == (4, 8)
    symbols, planes = _rounded(system, raw, picture)
    values, hyper = (torch.from_numpy(x.astype(np.float32))[None] for x in symbols[:2])
    meter = Meter(values, hyper, torch.from_numpy(symbols.means)[None, :, None, None], fresh=False)
    with torch.no_grad():
        walk(system.network, planes, meter)
    total = float(meter.latent_bits.sum() + meter.hyper_bits.sum())
    assert float(found.sum()) == pytest.approx(total, rel=1e-4)
    assert system.bits(*_pair(18, 33)).shape == (5, 9)


@pytest.mark.parametrize("make", [R2LCM, R2LCMSerial])
@pytest.mark.parametrize("scale", [1, 4])
def test_gradients_reach_every_weight(make: Make, scale: int) -> None:
    system = make(scale=scale)
    raw, picture = _batch()
    loss, figures = system.loss(raw, picture, 0.0)
    loss.backward()
    for name, parameter in system.network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["bpp"] > figures["hyper_bpp"] > 0
    if isinstance(system.network, Network):  # straight through the argmax
        assert float(system.network.scores[0].weight.grad.abs().sum()) > 0


@SYSTEMS
def test_training_lowers_the_loss_and_coding_goes_on(make: Make) -> None:
    system = make(scale=4, weight=0.5)
    raw, picture = _batch(16)
    optimiser = torch.optim.Adam(system.network.parameters(), 1e-3)
    losses = []
    for step in range(30):
        loss, _ = system.loss(raw, picture, step / 30)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(system.network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    samples, shown = _pair(16, 20)
    decoded = system.decode(system.encode(samples, shown), shown)
    assert np.array_equal(decoded, system.reconstruction(samples, shown))


@SYSTEMS
def test_saved_weights_decode_alike(make: Make, tmp_path: Path) -> None:
    system = _lively(make(scale=4))
    raw, picture = _pair(20, 24)
    data = system.encode(raw, picture)
    path = tmp_path / "weights.safetensors"
    system.save(path)
    loaded = make(path)
    assert loaded.network.scale == 4
    assert loaded.name == system.name
    assert loaded.encode(raw, picture) == data
    assert np.array_equal(loaded.decode(data, picture), system.decode(data, picture))
    with pytest.raises(ValueError, match="other weights"):
        make(scale=4).decode(data, picture)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    R2LCM().save(path)
    with pytest.raises(ValueError, match="another system"):
        R2LCMSerial(path)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no weights file"):
        R2LCM(path)
    with pytest.raises(ValueError, match="order"):
        R2LCMSerial(order="random")
    with pytest.raises(ValueError, match="scale"):
        R2LCM(scale=2)


@SYSTEMS
def test_damage_is_noticed(make: Make) -> None:
    system = _lively(make())
    raw, picture = _pair(9, 12)
    data = system.encode(raw, picture)
    for length in [*range(0, len(data), 7), len(data) - 4, len(data) - 1]:
        with pytest.raises(ValueError):
            system.decode(data[:length], picture)
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ValueError):
            system.decode(bytes(damaged), picture)
    with pytest.raises(ValueError):
        system.decode(data + bytes(4), picture)
    with pytest.raises(ValueError, match="another picture"):
        system.decode(data, _pair(9, 12, "JPEG")[1])
    with pytest.raises(ValueError, match="this size"):
        system.decode(data, _pair(12, 9)[1])
    with pytest.raises(ValueError, match="differ in size"):
        system.encode(raw, _pair(12, 9)[1])


@SYSTEMS
def test_other_floats_than_the_encoder_s_are_noticed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: the data is whole, and the entropy model slightly another."""
    system = _lively(make())
    raw, picture = _pair(12, 12)
    data = system.encode(raw, picture)
    monkeypatch.setattr(system, "_check", lambda *_: int.from_bytes(data[36:40], "little"))
    assert np.array_equal(system.decode(data, picture), system.reconstruction(raw, picture))
    with torch.no_grad():
        system.network.entropy[-1].bias += 0.3
    with pytest.raises(ValueError):
        system.decode(data, picture)
    # Rubbish of all kinds reaches the range decoder.
    rng = np.random.default_rng(1)
    for _ in range(5):
        with pytest.raises(ValueError):
            system.decode(data[:40] + rng.bytes(4 * int(rng.integers(60))), picture)


def test_sizes_are_the_paper_s() -> None:
    def count(network: Transforms) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(Network()) == pytest.approx(550_000, rel=0.1)
    assert count(SerialNetwork()) == pytest.approx(530_000, rel=0.1)
    assert count(Network(scale=4)) == count(Network())


def test_orders_differ_in_bits_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    _lively(R2LCM()).save(path)
    systems = [R2LCM(path, order=order) for order in ORDERS]
    assert len({system.name for system in systems}) == len(ORDERS)
    raw, picture = _pair(24, 24)
    data = [system.encode(raw, picture) for system in systems]
    decoded = [s.decode(d, picture) for s, d in zip(systems, data, strict=True)]
    assert all(np.array_equal(decoded[0], other) for other in decoded[1:])
    assert len(set(data)) == len(ORDERS)
    with pytest.raises(ValueError):
        systems[1].decode(data[0], picture)


@pytest.mark.parametrize("scale", [1, 4])
def test_bands_change_nothing(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(scale=scale).eval()
    height = 192 if scale == 1 else 320
    raw, picture = torch.rand(1, 3, height, 16), torch.rand(1, 3, height, 16)

    def computed() -> list[Tensor]:
        latents = network.latents(raw, picture)
        hyper = network.hyper_latents(latents, picture)
        features = network.features(hyper, picture)
        masks = network.masks(features, picture, network.noise(features, fresh=False))
        known = masks[:, :1]
        mean, spread = network.parameters_of(features, latents * known, known)
        return [latents, hyper, features, mean, spread, network.reconstruct(latents, picture)]

    with torch.no_grad():
        whole = computed()
        monkeypatch.setattr(r2lcm, "BAND", 64 * 16)
        for one, other in zip(whole, computed(), strict=True):
            assert torch.allclose(one, other, atol=1e-4 * float(one.abs().max()))


def test_probabilities_sum_to_one() -> None:
    values = torch.arange(-400, 401.0)
    mean, scale = torch.tensor(0.3), torch.tensor(1.7)
    assert float(torch.exp2(-gaussian_bits(values, mean, scale)).sum()) == pytest.approx(1, 1e-3)
    rows = Factorised(LATENTS).probabilities(values.double().expand(LATENTS, -1))
    assert rows.sum(1).tolist() == pytest.approx([1] * LATENTS, abs=1e-3)


def test_time_is_extrapolated_by_pixels() -> None:
    system = R2LCMSerial()
    found = system.decode_time(*_pair(20, 12), (2920, 4386), (8, 16))
    assert found.crop == (8, 12)
    assert found.seconds > 0
    assert found.extrapolated == pytest.approx(found.seconds * 2920 * 4386 / 96)
    assert "8 x 12" in str(found)
    assert str(round(found.extrapolated)) in str(found)
