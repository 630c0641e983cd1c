"""The protocol that the rivals are compared under, their training, and rawcodec among them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

from examples.baselines import train  # noqa: E402
from examples.baselines.__main__ import main  # noqa: E402
from examples.baselines.interface import WHITE, pixels, psnr, to_planes, to_samples  # noqa: E402
from examples.baselines.ours import Rawcodec  # noqa: E402
from examples.baselines.protocol import (  # noqa: E402
    PICTURES,
    Photo,
    binned,
    camera_colours,
    photo,
    read_photo,
    render,
    save,
)
from rawcodec.mosaic import Mosaic  # noqa: E402
from rawcodec.sensor import Sensor  # noqa: E402

BUNDLED = ROOT / "examples" / "photo.dng"


@pytest.fixture(scope="module")
def bundled() -> Photo:
    return read_photo(BUNDLED, "photo", 2)


def test_a_cell_of_the_pattern_becomes_a_pixel() -> None:
    """Greens are averaged, black levels taken off, a last odd row left out."""
    samples = np.tile(np.array([[110, 220], [240, 350]], np.uint16), (3, 2))[:5]
    sensor = Sensor(4, 5, ("RG", "GB"), (10, 20, 40, 50), 1050)
    found = binned(Mosaic(samples, sensor))
    assert found.shape == (2, 2, 3)
    wanted = [100 / 1040, (200 / 1030 + 200 / 1010) / 2, 300 / 1000]
    assert np.allclose(found, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="Bayer"):
        binned(Mosaic(samples, Sensor(4, 5, ("G",), (0,), 1023)))


def test_white_stays_white() -> None:
    matrix = np.array([[0.8, -0.2, -0.1], [-0.4, 1.2, 0.2], [0, 0.2, 0.6]])
    assert np.allclose(camera_colours(matrix) @ np.ones(3), 1)


def test_pictures_are_those_of_the_raw(bundled: Photo) -> None:
    """Of the raw's size, exposed, the same each time, and worse the stronger they are coded."""
    shown = render(bundled.raw, bundled.gains, bundled.to_srgb)
    assert shown.shape == bundled.raw.shape
    assert (shown.max(2) < 255).mean() > 0.97
    assert 30 < shown.mean() < 200
    files = {picture: save(shown, picture) for picture in PICTURES}
    assert np.array_equal(pixels(files["png"]), shown)
    sizes = [len(data) for data in files.values()]
    assert sizes == sorted(sizes, reverse=True)
    errors = [np.square(pixels(data).astype(float) - shown).mean() for data in files.values()]
    assert errors == sorted(errors)


def test_brightness_does_not_depend_on_exposure(bundled: Photo) -> None:
    """A raw of half the light is rendered as bright."""
    samples = np.random.default_rng(1).integers(0, 800, (64, 64)).astype(np.uint16)
    sensor = Sensor(64, 64, ("RG", "GB"), (0,) * 4, 4095)
    gains, matrix = np.array([2.0, 1.0, 1.5]), np.eye(3)
    bright, dark = (
        photo("", Mosaic(values, sensor), gains, matrix, 1) for values in (samples, samples // 2)
    )
    shown = [render(p.raw, p.gains, p.to_srgb).mean() for p in (bright, dark)]
    assert shown[0] == pytest.approx(shown[1], rel=0.03)


def test_samples_and_planes_are_each_other(bundled: Photo) -> None:
    assert np.array_equal(to_samples(to_planes(bundled.raw)), bundled.raw)
    assert psnr(bundled.raw, bundled.raw) == float("inf")
    off = np.full((4, 4, 3), 655, np.uint16)
    assert psnr(off, np.zeros_like(off)) == pytest.approx(20 * np.log10(WHITE / 655))


@pytest.mark.parametrize("picture", ["png", "70"])
def test_rawcodec_is_one_of_the_systems(bundled: Photo, picture: str) -> None:
    """It takes pictures without loss, too, and more bytes give a better raw."""
    shown = save(render(bundled.raw, bundled.gains, bundled.to_srgb), picture)
    found = []
    for quality in ("tone", "medium"):
        system = Rawcodec(quality, "cpu")
        data = system.encode(bundled.raw, shown)
        decoded = system.decode(data, shown)
        assert decoded.shape == bundled.raw.shape
        assert decoded.dtype == np.uint16
        found.append((len(data), psnr(bundled.raw, decoded)))
    assert found[0][0] < found[1][0]
    assert found[0][1] + 2 < found[1][1]


class Gain:
    """A system of three weights: the raw is the picture times them."""

    name, patch = "gain", 16

    def __init__(self) -> None:
        self.network = nn.Conv2d(3, 3, 1, groups=3, bias=False)

    def loss(
        self, raw: Tensor, picture: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        assert raw.shape == picture.shape == (train.BATCH, 3, self.patch, self.patch)
        assert 0 <= progress < 1
        loss = (self.network(picture) - raw).abs().mean()
        return loss, {"error": float(loss.detach())}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two frames, of which one has no Bayer sensor."""
    for number, kind in enumerate(("bayer", "xtrans")):
        folder = tmp_path / "frames" / f"frame-{number:05d}"
        folder.mkdir(parents=True)
        samples = np.random.default_rng(number).integers(0, 4096, (96, 96)).astype(np.uint16)
        np.save(folder / "samples.npy", samples)
        meta = {"width": 96, "height": 96, "cfa": ["RG", "GB"], "black": [0] * 4, "white": 4095,
                "kind": kind,
                "camera": {"gains": [2, 1, 1.5], "to_camera": np.eye(3).tolist()}}  # fmt: skip
        (folder / "meta.json").write_text(json.dumps(meta))
    return tmp_path / "frames"


def test_training_goes_on_where_it_stopped(frames: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train.train(Gain(), frames, run, "jpeg", 0.05)
    first = torch.load(run / train.CHECKPOINT, weights_only=True)
    assert first["step"] > 10
    train.train(Gain(), frames, run, "jpeg", 0.1)
    second = torch.load(run / train.CHECKPOINT, weights_only=True)
    assert second["step"] > first["step"]
    assert second["spent"] == pytest.approx(6, abs=2)
    lines = [json.loads(line) for line in (run / train.LOG).read_text().splitlines()]
    assert all(line["loss"] == line["error"] for line in lines)
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    kept = load_file(run / train.WEIGHTS)
    assert torch.equal(kept["weight"], second["average"]["weight"])
    with pytest.raises(ValueError, match="gain on jpeg"):
        train.train(Gain(), frames, run, "png", 1)


def test_frames_without_bayer_sensors_are_refused(frames: Path, tmp_path: Path) -> None:
    (frames / "frame-00000").rename(tmp_path / "away")
    answer = CliRunner().invoke(
        main, ["train", "nam", "--frames", str(frames), "--run", str(tmp_path / "r"),
               "--minutes", "1"],
    )  # fmt: skip
    assert answer.exit_code == 1
    assert "has no frame of a Bayer sensor" in answer.output
