"""examples/train: synthetic pairs of raw and JPEG, from synthetic scenes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train import camera as cameras
from examples.train import develop, pairs, planes, render, scene
from rawcodec.mosaic import planes as mosaic_planes
from rawcodec.photo.align import Guide

SIZE = 144


def _smooth_scene(seed: int = 0, size: int = SIZE, sigma: float = 4.0) -> torch.Tensor:
    """Coloured blobs in linear light, 0.1 to 0.9: (3, size, size)."""
    noise = np.random.default_rng(seed).standard_normal((3, size, size), dtype=np.float32)
    blobs = planes.gaussian(torch.from_numpy(noise), sigma)
    low, high = blobs.min(), blobs.max()
    return 0.1 + 0.8 * (blobs - low) / (high - low)


def _quiet(camera: cameras.Camera) -> cameras.Camera:
    """The same camera with next to no noise, no vignetting, and nothing clipped."""
    return dataclasses.replace(
        camera,
        shot=1e-8,
        read=(1e-10,) * len(camera.read),
        vignetting=0.0,
        exposure=0.4,
        smoothing=0.0,
    )


def _shift(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """By how many sites, down and across, plane ``b`` lies beside ``a``: least squares."""
    first, second = (x.numpy().astype(np.float64) for x in (a, b))
    inner = np.s_[12:-12, 12:-12]
    slopes = np.stack([g[inner].ravel() for g in np.gradient(first)], axis=1)
    return np.linalg.lstsq(slopes, (first - second)[inner].ravel(), rcond=None)[0]


def _settings(kind: str) -> list[tuple[str, tuple[str, ...] | None, str]]:
    if kind == "bayer":
        named = [(a, cameras.BAYER[n % 4]) for n, a in enumerate(develop.BAYER_ALGORITHMS)]
        return [(kind, cfa, algorithm) for algorithm, cfa in named]
    if kind == "xtrans":
        return [(kind, None, algorithm) for algorithm in develop.XTRANS_ALGORITHMS]
    return [(kind, None, "AHD")]


@pytest.mark.parametrize(
    ("kind", "cfa", "algorithm"), [setting for kind in cameras.KINDS for setting in _settings(kind)]
)
def test_demosaiced_colours_lie_where_the_light_fell(kind, cfa, algorithm):
    rng = np.random.default_rng(3)
    camera = _quiet(cameras.random_camera(rng, kind))
    if cfa is not None:
        camera = dataclasses.replace(camera, cfa=cfa)
    sheet = _smooth_scene()
    samples = pairs.take(sheet, camera, rng)
    assert samples.shape == camera.sensor(SIZE, SIZE).shape
    light = cameras.irradiance(sheet, camera)
    for highlights in (0, 1, 2):
        chosen = develop.Development(algorithm, 0, 0, highlights)
        colours = develop.demosaic(samples, camera, chosen)
        for colour in range(3):
            wanted = light[colour] * camera.gains[colour]
            assert np.abs(_shift(wanted, colours[colour])).max() < 0.05
            inner = np.s_[12:-12, 12:-12]
            assert float((colours[colour] - wanted)[inner].abs().mean()) < 0.01


@pytest.mark.parametrize(
    ("crop", "scale"), [((0, 0, 0, 0), 1.0), ((3, 8, 5, 0), 1.0), ((0, 0, 0, 0), 0.63)]
)
def test_alignment_is_that_of_the_jpeg(crop, scale):
    rng = np.random.default_rng(1)
    drawn = render.random_rendering(cameras.random_camera(rng), rng)
    chosen = dataclasses.replace(
        drawn, crop=crop, scale=scale, filter="LANCZOS", quality=97, subsampling="4:4:4"
    )
    pixels = _smooth_scene()
    jpeg, alignment = render.write_jpeg(pixels, chosen)
    decoded = pairs.decode(jpeg)
    guide = Guide(decoded, alignment, SIZE, SIZE, 0).band(0, SIZE)
    for colour in range(3):
        seen = torch.from_numpy(guide[colour].astype(np.float32) / 4080)
        assert np.abs(_shift(pixels[colour], seen)).max() < 0.05
        inner = np.s_[12:-12, 12:-12]
        assert float((seen - pixels[colour])[inner].abs().max()) < 0.03


@pytest.mark.parametrize("kind", ["bayer", "xtrans", "quad", "mono"])
def test_noise_is_that_of_the_profile(kind):
    rng = np.random.default_rng(5)
    camera = cameras.random_camera(rng, kind)
    cells = len(camera.read)
    camera = dataclasses.replace(
        camera,
        shot=1e-3,
        read=tuple(np.linspace(1e-5, 4e-5, cells)),
        bits=12,
        black=tuple(200 + n % 3 for n in range(cells)),
        white=4000,
        top=4000,
        smoothing=0.0,
    )
    level = 0.3
    samples = cameras.expose(torch.full((3, 384, 384), level), camera, rng)
    for (_, black, index), read in zip(
        mosaic_planes(camera.sensor(384, 384)), camera.read, strict=True
    ):
        plane = (samples[index].astype(np.float64) - black) / (camera.white - black)
        variance = camera.shot * level + read + 1 / 12 / (camera.white - black) ** 2
        # five standard errors of the mean and of the variance
        assert abs(plane.mean() - level) < 5 * np.sqrt(variance / plane.size)
        assert abs(plane.var() / variance - 1) < 5 * np.sqrt(2 / plane.size)


def test_smoothed_noise_is_correlated_within_a_colour_only():
    rng = np.random.default_rng(5)
    camera = dataclasses.replace(cameras.random_camera(rng, "bayer"), smoothing=0.4)
    noise = cameras.expose(torch.full((3, 256, 256), 0.3), camera, rng).astype(np.float64)
    for i in range(2):
        for j in range(2):
            noise[i::2, j::2] -= noise[i::2, j::2].mean()
    variance = (noise**2).mean()
    assert (noise[:, 2:] * noise[:, :-2]).mean() / variance > 0.15
    assert abs((noise[:, 1:] * noise[:, :-1]).mean() / variance) < 0.02


def test_samples_are_clipped_at_the_sensor():
    rng = np.random.default_rng(2)
    camera = cameras.random_camera(rng, "bayer")
    samples = cameras.expose(torch.full((3, 32, 32), 3.0), camera, rng)
    assert (samples == camera.top).all()


def test_radiance_pictures_are_read():
    width, height = 10, 2
    rows = []
    for exponent in (129, 0):
        row = bytes((2, 2, 0, width))
        row += bytes((128 + width, 128))  # red: a run
        row += bytes((width, *range(width)))  # green: as it is
        row += bytes((128 + width, 64))
        row += bytes((128 + width, exponent))
        rows.append(row)
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    pixels = scene.read_radiance(head + b"".join(rows))
    assert pixels.shape == (height, width, 3)
    np.testing.assert_array_equal(pixels[0, :, 0], 1.0)
    np.testing.assert_array_equal(pixels[0, :, 1], np.arange(width) / 128)
    np.testing.assert_array_equal(pixels[1], 0)


def test_photographs_are_made_larger_and_smaller(monkeypatch):
    """By factors of a range, as often around one end as the other; never to less than a shelf."""
    slope = torch.arange(400.0)
    ramp = torch.stack([slope.expand(300, 400), slope[:300, None].expand(300, 400)])
    photo = torch.cat([1000 + ramp, torch.full((1, 300, 400), 1000.0)])
    monkeypatch.setattr(scene, "read_photo", lambda path: photo)
    rng = np.random.default_rng(8)
    scales = []
    for _ in range(200):
        tile = scene._tile(Path("a.hdr"), 80, 120, rng)
        assert tile.shape[1] == 80
        assert 0 < tile.shape[2] <= 120
        relative = 1000 * tile[:2] / tile[2:]
        inner = relative[:, 8:-8, 8:-8]
        steps = [float(inner.diff(dim=axis).abs().mean((1, 2)).max()) for axis in (1, 2)]
        assert steps[0] == pytest.approx(steps[1], rel=0.05)
        scales.append(steps[0])
    low, high = scene.SCALES
    assert low < 1 < high
    assert low * 0.97 < min(scales) < low * 1.05
    assert high * 0.95 < max(scales) < high * 1.03
    assert float(np.median(scales)) == pytest.approx(np.sqrt(low * high), rel=0.1)

    photo = photo[:, :60, :70]  # smaller than the shelf, whatever the scale
    assert scene._tile(Path("a.hdr"), 80, 120, rng).shape[1] == 80


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n in range(3):
        blobs = _smooth_scene(n, 96, 1.5)
        pixels = (blobs * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def test_a_frame_depends_on_seed_and_number_alone(photos, tmp_path):
    names = scene.find_photos(photos)
    size = 192  # this frame's sensor is monochrome, whose tone layer is fitted fast
    first = pairs.photo_frame(names, 7, 12, size)
    again = pairs.photo_frame(names, 7, 12, size)
    for name in ("guide", "tone", "samples"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.jpeg, first.meta) == (again.jpeg, again.meta)
    assert first.guide.shape == (3, size, size)
    assert first.tone.shape == first.samples.shape
    assert first.tone.dtype == first.samples.dtype == np.uint16

    folder = pairs.frame_folder(tmp_path, 12)
    pairs.write_frame(first, folder)
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    mapped = np.load(folder / "samples.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, first.samples)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["tone_bytes"] > 0
    assert len(meta["black"]) == (len(meta["cfa"]) * len(meta["cfa"][0]) if meta["cfa"] else 3)


@pytest.mark.parametrize(
    "kind",
    [
        k if k in ("mono", "linear") else pytest.param(k, marks=pytest.mark.slow)
        for k in cameras.KINDS
    ],
)
def test_every_kind_makes_a_frame(kind):
    frame = pairs.make_frame(_smooth_scene(size=192), np.random.default_rng(4), kind)
    assert frame.meta["kind"] == kind
    assert frame.meta["tone_psnr"] > 25
    assert frame.samples.shape == ((192, 192, 3) if kind == "linear" else (192, 192))


def test_frames_already_there_are_kept(photos, tmp_path):
    folder = pairs.frame_folder(tmp_path, 0)
    folder.mkdir()
    pairs.write_frames(photos, tmp_path, frames=1, seed=0, jobs=1, size=192)
    assert list(folder.iterdir()) == []
