"""Random patches of frames, as batches.

A patch sees of its frame what the codec sees of a photo: the guide, the tone
layer's values, the mask of colours. Of a linear frame it takes one colour, as
the codec does, and what it would know of the colour coded before.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rawcodec.model import config
from rawcodec.model.config import TRUNK_MARGIN
from rawcodec.model.inputs import blocks
from rawcodec.mosaic import Mosaic
from rawcodec.sensor import Sensor

from .model import COMPANDED_MAX, Batch

PATCH = 256
"""Sites across a patch, without its margins; a multiple of ``HYPER_BLOCK``."""

USUAL_RATES = 8, 26
"""Rates that give about 0.01 to 2 bits per site: most patches are trained at one of them."""

RATES = (10, 17, 24)
"""Those that a frame is prepared for; patches of other rates take the nearest."""

PLANES = (1, 0, 2)
"""Colours of a linear frame in the order that the codec codes them."""

_QUEUE = 4
"""Batches that wait."""

_LOOK_AGAIN = 200
"""Batches after which the folder is searched for new frames."""


@dataclass(frozen=True)
class Frame:
    """Memory-mapped arrays of one frame: see ``pairs.py``.

    guide: int16 (3, H, W). samples: uint16 (H, W), or (H, W, 3) if linear. tone, prediction:
    likewise, and earlier: int32, only if linear; by rate of ``RATES``. reached: bool (H, W),
    or None where the JPEG reaches all sites.
    """

    guide: np.ndarray
    samples: np.ndarray
    tone: dict[int, np.ndarray]
    prediction: dict[int, np.ndarray]
    earlier: dict[int, np.ndarray]
    reached: np.ndarray | None
    sensor: Sensor


def open_frames(folder: Path) -> list[Frame]:
    """The finished frames of a folder, by name."""
    return [_open(path) for path in finished(folder)]


def describe(folder: Path) -> dict[str, object]:
    """What a folder's frames were made of, to be written beside the weights.

    frames: how many. seeds, sizes: those that they were made with. photographs:
    how many different ones they show.
    """
    metas = [_meta(path) for path in finished(folder)]
    tiles = (tile for meta in metas for tile in meta.get("tiles", ()))
    return {
        "frames": len(metas),
        "seeds": sorted({int(meta.get("seed", 0)) for meta in metas}),
        "sizes": sorted({int(meta["width"]) for meta in metas}),
        "photographs": len({tile["photo"] for tile in tiles}),
    }


def finished(folder: Path) -> list[Path]:
    """The folders of the finished frames of a folder, by name."""
    return sorted(path for path in folder.glob("frame-*") if (path / "meta.json").is_file())


def take_mosaic(path: Path) -> tuple[Mosaic, dict[str, Any]]:
    """The mosaic of a frame, and what its ``meta.json`` says."""
    meta = _meta(path)
    return Mosaic(np.load(path / "samples.npy"), _sensor(meta)), meta


def _meta(path: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((path / "meta.json").read_text())
    return meta


def _sensor(meta: dict[str, Any]) -> Sensor:
    return Sensor(
        meta["width"], meta["height"], tuple(meta["cfa"]), tuple(meta["black"]), meta["white"]
    )


def _open(path: Path) -> Frame:
    sensor = _sensor(_meta(path))
    reached = path / "reached.npy"

    def by_rate(name: str) -> dict[int, np.ndarray]:
        return {rate: np.load(path / f"{name}-{rate}.npy", mmap_mode="r") for rate in RATES}

    return Frame(
        np.load(path / "guide.npy", mmap_mode="r"),
        np.load(path / "samples.npy", mmap_mode="r"),
        by_rate("tone"),
        by_rate("prediction"),
        by_rate("earlier") if sensor.linear else {},
        np.load(reached, mmap_mode="r") if reached.is_file() else None,
        sensor,
    )


def nearest(rate: float) -> int:
    """The rate of ``RATES`` nearest to one."""
    return min(RATES, key=lambda known: abs(known - rate))


def colours(sensor: Sensor, plane: int | None) -> np.ndarray:
    """The repeating pattern of colours of a mosaic, or of a plane of a linear frame: uint8."""
    if plane is not None:
        return np.array([[plane]], np.uint8)
    return np.array([["RGB".index(c) for c in row] for row in sensor.cfa], np.uint8)


def companded(samples: np.ndarray, sensor: Sensor) -> np.ndarray:
    """The inverse of the tone layer's expansion, not rounded: float32, 2**15 is white.

    samples: uint16 in DN, from the frame's first site on.
    """
    if sensor.linear:
        black = np.array(sensor.black, np.float32)
    else:
        period = sensor.period
        levels = np.array(sensor.black, np.float32).reshape(period)
        at = [np.arange(n) % m for n, m in zip(samples.shape, period, strict=True)]
        black = levels[np.ix_(*at)]
    linear = (samples.astype(np.float32) - black) / (sensor.white - black)
    root: np.ndarray = np.sqrt(np.maximum(linear, 0)) * np.float32(1 << 15)
    return np.minimum(root, np.float32(COMPANDED_MAX))


def random_rate(rng: np.random.Generator) -> int:
    """Mostly one of ``USUAL_RATES``."""
    if rng.random() < 0.8:
        return int(rng.integers(USUAL_RATES[0], USUAL_RATES[1] + 1))
    return int(rng.integers(config.RATES))


def random_plane(frame: Frame, rng: np.random.Generator) -> int | None:
    """A colour of a linear frame; None for a mosaic."""
    return int(rng.choice(PLANES)) if frame.sensor.linear else None


def take_patch(
    frame: Frame,
    top: int,
    left: int,
    size: int,
    rate: int,
    plane: int | None,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The arrays of a patch of size x size sites whose margins begin at (top, left).

    plane: the colour of a linear frame, None of a mosaic. As in :class:`Batch` without B and rate,
    but that mask is uint8 (3, size, size) and missing uint8 (size, size): not yet in blocks.
    Flipped and transposed at random.
    """
    part = slice(top, top + size), slice(left, left + size)
    sensor, known = frame.sensor, nearest(rate)
    every = part if plane is None else (*part, plane)
    rows, columns = sensor.period
    # the pattern from its beginning on, as companded() has it
    from_pattern = top // rows * rows, left // columns * columns
    whole = tuple(slice(a, b.stop) for a, b in zip(from_pattern, part, strict=True))
    raw = companded(np.asarray(frame.samples[whole]), sensor)
    raw = raw[top - from_pattern[0] :, left - from_pattern[1] :]
    pattern = colours(sensor, plane)
    y, x = (np.arange(s.start, s.stop) % n for s, n in zip(part, pattern.shape, strict=True))
    earlier = np.zeros((size, size), np.int32)
    if sensor.linear:
        earlier = np.asarray(frame.earlier[known][every])
    missing = np.zeros((size, size), np.uint8)
    if frame.reached is not None:
        missing = 1 - np.asarray(frame.reached[part]).astype(np.uint8)
    patch = {
        "guide": np.asarray(frame.guide[:, part[0], part[1]]),
        "tone": np.asarray(frame.tone[known][every]).astype(np.int32),
        "mask": np.eye(3, dtype=np.uint8)[pattern[np.ix_(y, x)]].transpose(2, 0, 1),
        "missing": missing,
        "earlier": earlier,
        "prediction": np.asarray(frame.prediction[known][every]).astype(np.int32),
        "raw": raw if plane is None else raw[..., plane],
    }
    if rng.random() < 0.5:
        patch = {name: a[..., ::-1] for name, a in patch.items()}
    if rng.random() < 0.5:
        patch = {name: a[..., ::-1, :] for name, a in patch.items()}
    if rng.random() < 0.5:
        patch = {name: a.swapaxes(-1, -2) for name, a in patch.items()}
    return patch


def collate(patches: list[dict[str, np.ndarray]], rates: list[int]) -> Batch:
    """A batch of patches of :func:`take_patch`, and their rates."""

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([patch[name] for patch in patches]))

    mask = blocks(stack("mask"))  # B, 3, 4, h, w
    return Batch(
        guide=stack("guide"),
        tone=stack("tone"),
        mask=mask.transpose(1, 2).flatten(1, 2).contiguous(),
        missing=blocks(stack("missing")).amax(1, keepdim=True),
        earlier=stack("earlier"),
        prediction=stack("prediction"),
        raw=stack("raw").float(),
        rate=torch.tensor(rates, dtype=torch.float32),
    )


def random_batch(
    frames: list[Frame], count: int, rng: np.random.Generator, rate: int | None = None
) -> Batch:
    """Patches of one random frame at random places, flipped and transposed at random.

    Of one frame, plane and rate, as a photo is: hyper-latents have a mean for all of its places.
    rate: None for a random one.
    """
    size = PATCH + 2 * TRUNK_MARGIN
    frame = frames[rng.integers(len(frames))]
    height, width = frame.sensor.height, frame.sensor.width
    if min(height, width) < size:
        raise ValueError(f"a frame of {height}x{width} sites is too small: {size} are needed")
    rate = random_rate(rng) if rate is None else rate
    plane = random_plane(frame, rng)
    patches = []
    for _ in range(count):
        top, left = (int(rng.integers(n - size + 1)) for n in (height, width))
        patches.append(take_patch(frame, top, left, size, rate, plane, rng))
    return collate(patches, [rate] * count)


def batches(folder: Path, hold_out: int, count: int, seed: int) -> Iterator[Batch]:
    """Batches without end, made by a thread; new frames of the folder join as they come.

    The first ``hold_out`` frames are left out.
    """
    ready: queue.Queue[Batch | Exception] = queue.Queue(_QUEUE)

    def produce() -> None:
        rng = np.random.default_rng(seed)
        try:
            while True:
                frames = open_frames(folder)[hold_out:]
                for _ in range(_LOOK_AGAIN):
                    ready.put(random_batch(frames, count, rng))
        except Exception as error:  # whoever waits for the batch must hear of it
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    while True:
        batch = ready.get()
        if isinstance(batch, Exception):
            raise batch
        yield batch
