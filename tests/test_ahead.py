"""examples/train: frames hold what the product makes of a photo before any network."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import compand

sys.path.append(str(Path(__file__).resolve().parents[1]))  # ``examples`` is not installed

from examples.train import ahead, camera, data, pairs, planes
from rawcodec.model import layer
from rawcodec.model.fitted import Coefficients
from rawcodec.model.latents import PlaneCodec
from rawcodec.model.view import PlaneView
from rawcodec.stream.entropy import Encoder

SIZE = 192


@dataclass(frozen=True)
class Prepared:
    """A synthetic frame, and the arrays of all rates that are written beside it."""

    frame: pairs.Frame
    arrays: dict[str, np.ndarray]


@cache
def prepared(kind: str) -> Prepared:
    noise = np.random.default_rng(2).standard_normal((3, SIZE, SIZE), dtype=np.float32)
    blobs = planes.gaussian(torch.from_numpy(noise), 4) + 0.05 * torch.from_numpy(noise)
    low, high = blobs.min(), blobs.max()
    sheet = 0.02 + 0.98 * (blobs - low) / (high - low)
    frame = pairs.make_frame(sheet, np.random.default_rng(5), kind)
    frame = replace(frame, tone=misled(frame))
    found = ahead.prepare(frame.guide, frame.tone, frame.samples, frame.reached, frame.sensor)
    return Prepared(frame, found)


def misled(frame: pairs.Frame) -> np.ndarray:
    """A tone layer that is too bright in a corner, and wherever the JPEG's green has detail."""
    rng = np.random.default_rng(7)
    green = frame.guide[1].astype(float)
    mean = green.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    wrong = 8 * np.clip(green - mean, -400, 400)
    wrong[:40, :50] += 3000
    if frame.sensor.linear:
        wrong = wrong[..., None]
    raw = compand(frame.sensor, frame.samples)
    tone = raw + wrong + rng.normal(0, 200, raw.shape)
    values: np.ndarray = np.clip(np.rint(tone), 0, 46340).astype(np.uint16)
    return values


def colours_of(frame: pairs.Frame) -> tuple[int | None, ...]:
    return data.PLANES if frame.sensor.linear else (None,)


def of(array: np.ndarray, plane: int | None) -> np.ndarray:
    """A plane of a linear frame's array, or all of a mosaic's."""
    return np.ascontiguousarray(array if plane is None else array[..., plane])


def coded(
    given: Prepared, rate: int, plane: int | None
) -> tuple[np.ndarray, np.ndarray, Coefficients | None]:
    """What the product's encoder sees of a plane and predicts of it, as it would be decoded."""
    frame = given.frame
    view = PlaneView(
        frame.guide, of(frame.tone, plane), data.colours(frame.sensor, plane), frame.reached
    )
    earlier = None
    if plane in data.PLANES[1:]:
        earlier = of(given.arrays[f"earlier-{rate}"], plane)
    raw = of(compand(frame.sensor, frame.samples), plane)
    run = ahead._runner(rate)
    seen, filter_ = layer.ahead(run, Encoder(), view, earlier, raw)
    height, width = raw.shape
    prediction = PlaneCodec(run, seen, filter_).prediction
    return seen.plane.tone, prediction[:height, :width], filter_


@pytest.mark.parametrize("kind", camera.KINDS)
def test_every_rate_has_its_arrays(kind: str) -> None:
    given = prepared(kind)
    frame, arrays = given.frame, given.arrays
    names = ["tone", "prediction"] + ["earlier"] * frame.sensor.linear
    assert set(arrays) == {f"{name}-{rate}" for name in names for rate in data.RATES}
    for name, array in arrays.items():
        assert array.shape == frame.samples.shape == frame.sensor.shape
        assert array.dtype == (np.int32 if name.startswith("earlier") else np.uint16)
        assert array.max() <= 46340
    different = {arrays[f"tone-{rate}"].tobytes() for rate in data.RATES}
    assert len(different) > 1  # finer grids pay at finer rates


@pytest.mark.parametrize("kind", camera.KINDS)
def test_frames_have_what_the_encoder_predicts(kind: str) -> None:
    """To the bit, of every plane at every rate, corrected by a filter where that is worth it."""
    given = prepared(kind)
    for rate in data.RATES:
        for plane in colours_of(given.frame):
            tone, prediction, filter_ = coded(given, rate, plane)
            assert filter_ is not None or rate < max(data.RATES)
            assert np.array_equal(of(given.arrays[f"tone-{rate}"], plane), tone)
            assert np.array_equal(of(given.arrays[f"prediction-{rate}"], plane), prediction)
            changed = (tone != prediction).mean()
            assert changed == 0 if filter_ is None else changed > 0.5


@pytest.mark.parametrize("kind", camera.KINDS)
def test_predictions_are_better_than_the_tone_layer(kind: str) -> None:
    """In the bits that the error costs: at no rate worse, and at the finest much better."""
    given = prepared(kind)
    forward = ahead._model().forward.astype(float)
    raw = forward[compand(given.frame.sensor, given.frame.samples)]

    def bits(values: np.ndarray, rate: int) -> float:
        step = 8192 * 2 ** (-rate / 4)
        return float(np.log2(1 + 6 * ((forward[values] - raw) / step) ** 2).mean()) / 2

    for rate in data.RATES:
        alone = bits(given.frame.tone, rate)
        gridded = bits(given.arrays[f"tone-{rate}"], rate)
        fitted = bits(given.arrays[f"prediction-{rate}"], rate)
        assert gridded <= 1.001 * alone
        assert fitted <= 1.001 * gridded
    assert gridded < 0.99 * alone
    assert fitted < 0.9 * gridded


def test_later_colours_know_about_what_the_one_before_was_decoded_to() -> None:
    """Nearer to the raw than its prediction, the more so the finer the rate."""
    given = prepared("linear")
    raw = compand(given.frame.sensor, given.frame.samples).astype(float)
    before = dict(zip(data.PLANES[1:], data.PLANES, strict=False))
    left = []
    for rate in data.RATES:
        earlier = given.arrays[f"earlier-{rate}"]
        assert not of(earlier, data.PLANES[0]).any()
        for plane, known in before.items():
            tone = of(given.arrays[f"tone-{rate}"], known)
            predicted = of(given.arrays[f"prediction-{rate}"], known)
            decoded = tone + of(earlier, plane)
            errors = [float(np.mean((x - of(raw, known)) ** 2)) for x in (decoded, predicted)]
            assert errors[0] <= errors[1]
            assert decoded.min() >= 0
            assert decoded.max() <= 46340
        left.append(errors[0])
    assert left == sorted(left, reverse=True)
    step = 8192 * 2 ** (-data.RATES[-1] / 4)
    assert left[-1] < step**2


def test_a_written_frame_opens_as_it_was_prepared(tmp_path: Path) -> None:
    for number, kind in enumerate(("bayer", "linear")):
        given = prepared(kind)
        pairs.write_frame(given.frame, pairs.frame_folder(tmp_path, number))
        frame = data.open_frames(tmp_path)[number]
        assert frame.sensor == given.frame.sensor
        for rate in data.RATES:
            assert np.array_equal(frame.tone[rate], given.arrays[f"tone-{rate}"])
            assert np.array_equal(frame.prediction[rate], given.arrays[f"prediction-{rate}"])
            if kind == "linear":
                assert np.array_equal(frame.earlier[rate], given.arrays[f"earlier-{rate}"])
        assert bool(frame.earlier) == (kind == "linear")
