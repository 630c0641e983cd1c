"""Random patches of frames, as batches."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rawcodec.model.config import BLOCK, TRUNK_MARGIN
from rawcodec.model.inputs import blocks
from rawcodec.sensor import Sensor

from .model import Batch

PATCH = 256
"""Sites across a patch, without its margins."""

_ORDER = (1, 0, 2)
_QUEUE = 4


@dataclass(frozen=True)
class Frame:
    """Memory-mapped arrays of one frame: see ``pairs.py``."""

    guide: np.ndarray
    tone: np.ndarray
    samples: np.ndarray
    reached: np.ndarray | None
    sensor: Sensor


def open_frames(folder: Path) -> list[Frame]:
    """The finished frames of a folder, by name."""
    return [_open(path) for path in sorted(folder.glob("frame-*")) if (path / "meta.json").is_file()]


def _open(path: Path) -> Frame:
    meta = json.loads((path / "meta.json").read_text())
    sensor = Sensor(
        meta["width"], meta["height"], tuple(meta["cfa"]), tuple(meta["black"]), meta["white"]
    )
    reached = path / "reached.npy"
    return Frame(
        np.load(path / "guide.npy", mmap_mode="r"),
        np.load(path / "tone.npy", mmap_mode="r"),
        np.load(path / "samples.npy", mmap_mode="r"),
        np.load(reached, mmap_mode="r") if reached.is_file() else None,
        sensor,
    )


def companded(samples: np.ndarray, black: np.ndarray, white: int) -> np.ndarray:
    """float32 companded values of samples: the inverse of the tone layer's expansion."""
    linear = (samples.astype(np.float32) - black) / (white - black)
    root: np.ndarray = np.sqrt(np.maximum(linear, 0)) * np.float32(1 << 15)
    return np.minimum(root, np.float32(46340))


def take_patch(
    frame: Frame, top: int, left: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The arrays of a patch whose margins begin at (top, left)."""
    part = slice(top, top + size), slice(left, left + size)
    sensor = frame.sensor
    guide = np.asarray(frame.guide[:, part[0], part[1]])
    earlier = np.zeros((size, size), np.int32)
    mask = np.zeros((size, size, 3), np.uint8)
    if sensor.linear:
        turn = int(rng.integers(3))
        colour = _ORDER[turn]
        tone, raw = _plane(frame, part, colour)
        if turn:
            before, was = _plane(frame, part, _ORDER[turn - 1])
            step = 2.0 ** rng.uniform(5, 13)
            earlier = _coarse(was - before, step).astype(np.int32)
        mask[:, :, colour] = 1
    else:
        rows, columns = sensor.period
        pattern = np.array([["RGB".index(c) for c in row] for row in sensor.cfa])
        levels = np.array(sensor.black, np.float32).reshape(rows, columns)
        y, x = np.arange(top, top + size) % rows, np.arange(left, left + size) % columns
        tone = np.asarray(frame.tone[part]).astype(np.int32)
        raw = companded(np.asarray(frame.samples[part]), levels[np.ix_(y, x)], sensor.white)
        mask = np.eye(3, dtype=np.uint8)[pattern[np.ix_(y, x)]]
    missing = np.zeros((size, size), np.uint8)
    if frame.reached is not None:
        missing = 1 - np.asarray(frame.reached[part]).astype(np.uint8)
    patch = {
        "guide": guide,
        "tone": tone,
        "mask": mask.transpose(2, 0, 1),
        "missing": missing,
        "earlier": earlier,
        "raw": raw,
    }
    if rng.random() < 0.5:
        patch = {name: a[..., ::-1] for name, a in patch.items()}
    if rng.random() < 0.5:
        patch = {name: a[..., ::-1, :] for name, a in patch.items()}
    if rng.random() < 0.5:
        patch = {name: a.swapaxes(-1, -2) for name, a in patch.items()}
    return patch


def _plane(
    frame: Frame, part: tuple[slice, slice], colour: int
) -> tuple[np.ndarray, np.ndarray]:
    tone = np.asarray(frame.tone[(*part, colour)]).astype(np.int32)
    black = np.float32(frame.sensor.black[colour])
    return tone, companded(np.asarray(frame.samples[(*part, colour)]), black, frame.sensor.white)


def _coarse(residual: np.ndarray, step: float) -> np.ndarray:
    """About what decoding leaves of a residual at a step: means of blocks, then rounding."""
    size = 1
    while size < 2 * BLOCK and step > 4 * residual.std() * size:
        size *= 2
    if size > 1:
        rows, columns = (n // size * size for n in residual.shape)
        small = residual[:rows, :columns].reshape(rows // size, size, columns // size, size)
        means = small.mean((1, 3))
        residual = np.pad(
            np.kron(means, np.ones((size, size))),
            [(0, residual.shape[0] - rows), (0, residual.shape[1] - columns)],
        )
    return np.sign(residual) * np.floor(np.abs(residual) * size / step + 0.4) * step / size


def collate(patches: list[dict[str, np.ndarray]]) -> Batch:
    """A batch of patches: see :class:`Batch` and ``rawcodec.model.inputs.inputs``."""

    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([patch[name] for patch in patches]))

    mask = blocks(stack("mask"))  # B, 3, 4, h, w
    return Batch(
        guide=stack("guide"),
        tone=stack("tone"),
        mask=mask.transpose(1, 2).flatten(1, 2).contiguous(),
        missing=blocks(stack("missing")).amax(1, keepdim=True),
        earlier=stack("earlier"),
        raw=stack("raw").float(),
    )


def random_batch(frames: list[Frame], count: int, rng: np.random.Generator) -> Batch:
    """Patches of random frames at random places, flipped and transposed at random."""
    size = PATCH + 2 * TRUNK_MARGIN
    patches = []
    for _ in range(count):
        frame = frames[rng.integers(len(frames))]
        top, left = (
            int(rng.integers(n - size + 1)) for n in (frame.sensor.height, frame.sensor.width)
        )
        patches.append(take_patch(frame, top, left, size, rng))
    return collate(patches)


def batches(folder: Path, hold_out: int, count: int, seed: int) -> Iterator[Batch]:
    """Batches without end, made by a thread; new frames of the folder join as they come."""
    ready: queue.Queue[Batch] = queue.Queue(_QUEUE)

    def produce() -> None:
        rng = np.random.default_rng(seed)
        while True:
            frames = open_frames(folder)[hold_out:]
            for _ in range(200):
                ready.put(random_batch(frames, count, rng))

    threading.Thread(target=produce, daemon=True).start()
    while True:
        yield ready.get()
