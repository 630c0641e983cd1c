"""examples/baselines: the learned rivals do what their papers say, and read what they wrote."""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1]))  # ``examples`` is not installed

from examples.baselines import invisp, nam
from examples.baselines.interface import System, Trainable, pixels, psnr, to_planes
from examples.baselines.invisp import InvertibleNetwork, InvISP, InvISPTraining
from examples.baselines.nam import Nam, NamNetwork, NamTraining

SIZES = ((37, 50), (5, 19), (1, 1))
"""Rows and columns: no multiples of anything, less than a cell, and the least."""

_MIX = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
"""From linear sRGB to the colours of a camera."""


@cache
def photo(height: int, width: int, saved: str = "JPEG") -> tuple[np.ndarray, bytes]:
    """A raw with blobs and noise, uint16 (H, W, 3), and the file of its picture."""
    rng = np.random.default_rng(height * width)
    coarse = torch.from_numpy(rng.uniform(0.02, 0.8, (1, 3, 5, 6)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    linear = smooth[0].clamp(0.01, 1).numpy().transpose(1, 2, 0)
    raw = linear @ _MIX.T * (0.5, 0.9, 0.6) + rng.normal(0, 0.001, linear.shape)
    file = io.BytesIO()
    image = Image.fromarray(np.rint(255 * linear ** (1 / 2.2)).astype(np.uint8))
    image.save(file, saved, quality=92)
    return np.rint(np.clip(raw, 0, 1) * 65535).astype(np.uint16), file.getvalue()


def batch(size: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of patches and their pictures: float32 (count, 3, size, size)."""
    raw, picture = photo(size, size * count, "PNG")
    both = (to_planes(raw), to_planes(pixels(picture)))
    raws, pictures = (torch.cat(x.split(size, 3)) for x in both)
    return raws, pictures


@torch.no_grad()
def shaken(network: torch.nn.Module, by: float) -> None:
    """Move all weights, and the statistics of batches, from where training begins."""
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.add_(by * torch.randn_like(value))


def system(kind: str, weights: Path | None = None) -> System:
    """A system with weights of its own, as if trained, or those of a file."""
    torch.manual_seed(1)
    made = InvISP(weights) if kind == "invisp" else Nam(weights, fine_tuned=kind == "tuned")
    if weights is None:
        shaken(made.network, 0.02)
    return made


def training(kind: str) -> Trainable:
    torch.manual_seed(1)
    return NamTraining() if kind == "nam" else InvISPTraining(own=kind == "own")


# both: what the interface asks for


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["invisp", "nam", "tuned"])
def test_a_raw_comes_back_in_its_size_and_twice_the_same(kind: str, size: tuple[int, int]) -> None:
    raw, picture = photo(*size)
    codec = system(kind)
    data = codec.encode(raw, picture)
    first, second = (codec.decode(data, picture) for _ in range(2))
    assert first.shape == raw.shape and first.dtype == np.uint16
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["invisp", "nam"])
def test_truncated_metadata_are_refused(kind: str) -> None:
    raw, picture = photo(37, 50)
    codec = system(kind)
    data = codec.encode(raw, picture)
    for length in range(0, len(data), 5):
        with pytest.raises(ValueError):
            codec.decode(data[:length], picture)


@pytest.mark.parametrize("kind", ["invisp", "nam"])
def test_a_picture_of_another_size_is_refused(kind: str) -> None:
    raw, _ = photo(37, 50)
    with pytest.raises(ValueError, match="size"):
        system(kind).encode(raw, photo(5, 19)[1])


@pytest.mark.parametrize("kind", ["invisp", "nam"])
def test_saved_weights_decode_alike(kind: str, tmp_path: Path) -> None:
    raw, picture = photo(20, 27)
    first = system(kind)
    save_file(first.network.state_dict(), tmp_path / "weights.safetensors")
    second = system(kind, tmp_path / "weights.safetensors")
    data = first.encode(raw, picture)
    assert second.encode(raw, picture) == data
    assert np.array_equal(first.decode(data, picture), second.decode(data, picture))


@pytest.mark.parametrize(("kind", "other"), [("invisp", NamNetwork), ("nam", InvertibleNetwork)])
def test_weights_of_another_system_are_refused(
    kind: str, other: type[torch.nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(other().state_dict(), path)
    with pytest.raises(ValueError, match="weights"):
        system(kind, path)
    path.write_bytes(b"these are none")
    with pytest.raises(ValueError, match="weights"):
        system(kind, path)


@pytest.mark.parametrize("kind", ["own", "given", "nam"])
def test_every_weight_learns(kind: str) -> None:
    learned = training(kind)
    shaken(learned.network, 0.02)
    raw, picture = batch(16)
    for progress in (0.0, 0.9):  # of Nam et al., the second has meta-learning, too
        learned.network.zero_grad()
        loss, figures = learned.loss(raw, picture, progress)
        loss.backward()
        assert all(np.isfinite(value) for value in figures.values())
        for name, value in learned.network.named_parameters():
            assert value.grad is not None and torch.isfinite(value.grad).all(), name
            assert value.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ["own", "given", "nam"])
def test_training_lowers_the_loss(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invisp, "BLOCKS", 2)  # the whole network takes seconds
    learned = training(kind)
    raw, picture = batch(16 if kind == "nam" else 8)
    optimiser = torch.optim.Adam(learned.network.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss, _ = learned.loss(raw, picture, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_networks_are_of_the_size_that_is_reported() -> None:
    def weights(network: torch.nn.Module) -> int:
        return sum(value.numel() for value in network.parameters())

    assert weights(InvertibleNetwork()) == pytest.approx(1.41e6, rel=0.01)
    assert weights(NamNetwork()) == pytest.approx(2.59e6, rel=0.1)


# InvISP


def network() -> InvertibleNetwork:
    """One that is far from where training begins."""
    torch.manual_seed(3)
    made = InvertibleNetwork()
    shaken(made, 0.03)
    return made


def test_the_inverse_undoes_the_network() -> None:
    made = network()
    x = torch.rand(1, 3, 19, 23)
    with torch.no_grad():
        y = made(x)
        assert (y - x).abs().max() > 0.1
        assert (made.inverse(y) - x).abs().max() < 1e-4
        assert (made(made.inverse(x)) - x).abs().max() < 1e-4


def test_training_begins_with_the_identity() -> None:
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(InvertibleNetwork()(x), x)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    x = torch.rand(2, 3, 24, 11)
    with torch.no_grad():
        whole = made(x), made.inverse(x)
        monkeypatch.setattr(invisp, "STRIP", 7 * 22)
        strips = made(x), made.inverse(x)
    for one, other in zip(whole, strips, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("quality", [90, 50, 10])
def test_the_simulated_jpeg_is_like_a_real_one(quality: int) -> None:
    shown = pixels(photo(45, 70, "PNG")[1])
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    real = pixels(file.getvalue()).astype(float)
    simulated = invisp.simulated_jpeg(to_planes(shown), quality)[0].permute(1, 2, 0).numpy() * 255
    assert np.square(simulated - real).mean() < 0.5 * np.square(shown - real).mean()


def test_steps_are_those_of_a_jpeg_file() -> None:
    for quality in (90, 30):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(io.BytesIO(file.getvalue())) as image:
            tables = image.quantization  # type: ignore[attr-defined]
        for number, table in enumerate(invisp.steps(quality)):
            assert table.flatten().tolist() == list(tables[number])


def test_its_own_rendering_gives_the_raw_back() -> None:
    raw, picture = photo(37, 50, "PNG")
    torch.manual_seed(1)
    codec = InvISP(None)
    shaken(codec.network, 0.005)  # more, and much is black or white, which nothing brings back
    shown = codec.render(raw, picture)
    assert shown.shape == raw.shape and shown.dtype == np.uint8
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    data = codec.encode(raw, file.getvalue())
    assert len(data) == 36
    own = psnr(raw, codec.decode(data, file.getvalue()))
    given = psnr(raw, codec.decode(codec.encode(raw, picture), picture))
    assert own > 35 and own > given + 3
    assert codec.render(raw).shape == raw.shape


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    _, picture = photo(5, 19)
    with pytest.raises(ValueError, match="finite"):
        system("invisp").decode(np.full(9, np.nan, "<f4").tobytes(), picture)


def test_balancing_finds_the_colours_of_the_camera() -> None:
    raw, picture = batch(16)
    light = invisp.mixed(raw, invisp.balance(raw, picture))
    assert (light - invisp.expanded(picture)).abs().mean() < 0.01
    # a single colour tells gains only, and black nothing
    flat = torch.full((1, 3, 4, 4), 0.2)
    assert (
        invisp.mixed(flat, invisp.balance(flat, 2 * flat)) - (2 * flat) ** 2.2
    ).abs().max() < 1e-3
    assert torch.isfinite(invisp.balance(0 * flat, 0 * flat)).all()


# Nam et al.


def test_one_pixel_of_each_cell_is_kept_inside_the_picture() -> None:
    raw, picture = photo(37, 50)
    codec = system("nam")
    place, _ = nam.unpack(codec.encode(raw, picture), pixels(picture))
    assert place.shape == (5, 7)
    rows, columns = np.indices(place.shape) * 8 + np.stack((place // 8, place % 8))
    assert rows.max() < 37 and columns.max() < 50
    mask = nam.at_places(torch.from_numpy(place)[None])[0, 0]
    assert mask.sum() == place.size and (mask.numpy()[rows, columns] == 1).all()


def test_the_pixel_that_belongs_most_is_kept() -> None:
    own = torch.rand(1, 1, 16, 24)
    own[0, 0, 3, 6] = own[0, 0, 8, 17] = 2
    assert nam.places(own)[0, 0, 0] == 3 * 8 + 6 and nam.places(own)[0, 1, 2] == 1


def test_samples_come_back_nearly_and_in_a_third_of_their_bits() -> None:
    raw, picture = photo(240, 320)
    shown = pixels(picture)
    place = np.random.default_rng(0).integers(0, 64, (30, 40))
    rows, columns = np.indices(place.shape) * 8 + np.stack((place // 8, place % 8))
    data = nam.pack(place, raw[rows, columns], shown)
    found, values = nam.unpack(data, shown)
    assert np.array_equal(found, place)
    assert psnr(raw[rows, columns], values) > 65
    assert 8 * len(data) < 0.4 * 54 * place.size


@pytest.mark.parametrize("value", [0, 65535])
def test_extreme_samples_come_back(value: int) -> None:
    shown = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    place = np.zeros((3, 4), np.int64)
    samples = np.random.default_rng(1).integers(0, 65536, (3, 4, 3)).astype(np.uint16)
    samples[:, ::2] = value
    _, values = nam.unpack(nam.pack(place, samples, shown), shown)
    assert np.abs(values.astype(int) - samples).max() <= 128
    even = np.full_like(samples, value)
    assert np.array_equal(nam.unpack(nam.pack(place, even, shown), shown)[1], even)


def test_damaged_metadata_are_refused() -> None:
    raw, picture = photo(37, 50)
    codec = system("nam")
    data = codec.encode(raw, picture)
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        with pytest.raises(ValueError):
            codec.decode(bytes(flipped), picture)
    with pytest.raises(ValueError, match="another size"):
        codec.decode(data, photo(37, 51)[1])


def test_decoding_keeps_what_is_known() -> None:
    raw, picture = photo(37, 50)
    codec = system("nam")
    data = codec.encode(raw, picture)
    place, values = nam.unpack(data, pixels(picture))
    rows, columns = np.indices(place.shape) * 8 + np.stack((place // 8, place % 8))
    assert np.array_equal(codec.decode(data, picture)[rows, columns], values)


def seen(height: int, width: int) -> torch.Tensor:
    """What the reconstructor sees of a photo, sizes in whole cells: (1, 7, H, W)."""
    raw, picture = photo(height, width)
    own = torch.rand(1, 1, height, width)
    return nam.known(to_planes(pixels(picture)), nam.at_places(nam.places(own)), to_planes(raw))


def reconstructor() -> torch.nn.Module:
    torch.manual_seed(5)
    made = NamNetwork().reconstructor.eval().requires_grad_(False)
    shaken(made, 0.02)
    return made


def test_fine_tuning_brings_the_samples_nearer() -> None:
    torch.manual_seed(5)
    made, x = NamNetwork().reconstructor, seen(32, 40)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of this batch at once
    with torch.no_grad():
        made(x)
    made.eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    adapted = nam.fine_tuned(made, x)
    with torch.no_grad():
        errors = [nam.sample_error(torch.sigmoid(n(x)), x).sum() for n in (made, adapted)]
    assert errors[1] < 0.95 * errors[0]
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = reconstructor(), seen(48, 136)
    whole = nam.tiled(x, 512, made)
    torch.testing.assert_close(nam.tiled(x, 32, made), whole, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(nam, "TUNING_STEPS", 1)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)  # gradients stay as they are
    one = nam.fine_tuned(made, x)
    monkeypatch.setattr(nam, "TUNED_TILE", 64)
    other = nam.fine_tuned(made, x)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)


def test_superpixels_that_fit_cost_nothing_but_their_extent() -> None:
    # every cell one colour, every pixel in its own superpixel
    cells = torch.rand(1, 6, 3, 4)
    picture, raw = torch.nn.functional.interpolate(cells, scale_factor=8).split(3, 1)
    association = torch.zeros(1, 9, 24, 32)
    association[:, 4] = 1
    extent = (10 / 8) ** 2 * np.var(np.arange(8))
    assert float(nam.superpixel_loss(association, picture, raw)) == pytest.approx(extent, rel=1e-4)
    # a superpixel of the pixels of its right neighbour's cell has these pixels' mean
    association = torch.zeros(1, 9, 24, 32)
    association[:, 3] = 1
    inner = (slice(None), slice(None), slice(None), slice(8, None))
    moved = nam.superpixel_loss(association[inner], picture[inner], raw[inner])
    assert float(moved) > extent


def test_meta_learning_adds_the_gradient_after_its_steps() -> None:
    learned = training("nam")
    learned.network.eval()
    raw, picture = batch(16)
    torch.manual_seed(9)
    loss = learned._meta_loss(raw, picture)
    loss.backward()
    grads = [value.grad.clone() for value in learned.network.reconstructor.parameters()]
    # by hand: plain gradient steps, and then the gradient where they led
    torch.manual_seed(9)
    mask = nam.at_places(torch.randint(64, (2, 2, 2)))
    x = nam.known(picture, mask, raw)
    made = learned.network.reconstructor
    for _ in range(nam.META_STEPS):
        made.zero_grad()
        nam.sample_error(torch.sigmoid(made(x)), x).mean().backward()
        with torch.no_grad():
            for value in made.parameters():
                value -= nam.META_RATE * value.grad
    made.zero_grad()
    after = (torch.sigmoid(made(x)) - raw).abs().mean()
    after.backward()
    assert float(loss.detach()) == pytest.approx(float(after.detach()), rel=1e-4)
    for wanted, value in zip(grads, made.parameters(), strict=True):
        torch.testing.assert_close(wanted, value.grad, atol=1e-6, rtol=1e-3)


def test_statistics_settle() -> None:
    learned = training("nam")
    raw, picture = batch(16)
    learned.loss(raw, picture, 0.4)
    before = learned.network.state_dict()["reconstructor.down.0.1.running_mean"].clone()
    assert before.abs().max() > 0
    learned.loss(raw, picture, 0.6)
    after = learned.network.state_dict()["reconstructor.down.0.1.running_mean"]
    assert torch.equal(before, after)
