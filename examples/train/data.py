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

import numpy as np
import torch

from rawcodec.model.config import BLOCK, TRUNK_MARGIN
from rawcodec.model.inputs import blocks
from rawcodec.sensor import Sensor

from .model import COMPANDED_MAX, Batch

PATCH = 256
"""Sites across a patch, without its margins; a multiple of ``HYPER_BLOCK``."""

_ORDER = (1, 0, 2)
"""Colours of a linear frame in the order that the codec codes them."""

_QUEUE = 4
"""Batches that wait."""

_LOOK_AGAIN = 200
"""Batches after which the folder is searched for new frames."""


@dataclass(frozen=True)
class Frame:
    """Memory-mapped arrays of one frame: see ``pairs.py``.

    guide: int16 (3, H, W). tone, samples: uint16 (H, W), or (H, W, 3) if
    linear. reached: bool (H, W), or None where the JPEG reaches all sites.
    """

    guide: np.ndarray
    tone: np.ndarray
    samples: np.ndarray
    reached: np.ndarray | None
    sensor: Sensor


def open_frames(folder: Path) -> list[Frame]:
    """The finished frames of a folder, by name."""
    return [_open(path) for path in _finished(folder)]


def describe(folder: Path) -> dict[str, object]:
    """What a folder's frames were made of, to be written beside the weights.

    frames: how many. seeds, sizes: those that they were made with. photographs:
    how many different ones they show.
    """
    metas = [json.loads((path / "meta.json").read_text()) for path in _finished(folder)]
    tiles = (tile for meta in metas for tile in meta.get("tiles", ()))
    return {
        "frames": len(metas),
        "seeds": sorted({int(meta.get("seed", 0)) for meta in metas}),
        "sizes": sorted({int(meta["width"]) for meta in metas}),
        "photographs": len({tile["photo"] for tile in tiles}),
    }


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("frame-*") if (path / "meta.json").is_file())


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


def companded(samples: np.ndarray, black: np.ndarray | np.float32, white: int) -> np.ndarray:
    """The inverse of the tone layer's expansion, not rounded: float32, 2**15 is white.

    samples: uint16 in DN. black: float32 that broadcasts with them.
    """
    linear = (samples.astype(np.float32) - black) / (white - black)
    root: np.ndarray = np.sqrt(np.maximum(linear, 0)) * np.float32(1 << 15)
    return np.minimum(root, np.float32(COMPANDED_MAX))


def take_patch(
    frame: Frame, top: int, left: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The arrays of a patch of size x size sites whose margins begin at (top, left).

    As in :class:`Batch` without B, but that mask is uint8 (3, size, size) and
    missing uint8 (size, size): not yet in blocks. Flipped and transposed at random.
    """
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


def _plane(frame: Frame, part: tuple[slice, slice], colour: int) -> tuple[np.ndarray, np.ndarray]:
    """Companded tone values, int32, and raw, float32, of one colour of a linear frame."""
    tone = np.asarray(frame.tone[(*part, colour)]).astype(np.int32)
    black = np.float32(frame.sensor.black[colour])
    return tone, companded(np.asarray(frame.samples[(*part, colour)]), black, frame.sensor.white)


def _coarse(residual: np.ndarray, step: float) -> np.ndarray:
    """About what decoding leaves of a residual (H, W) at a step: means of blocks, rounded.

    Stands in for the plane coded before, whose decoding at the patch's rate
    would cost another pass of the codec.
    """
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
    rounded: np.ndarray = np.floor(np.abs(residual) * size / step + 0.4) * step / size
    return np.sign(residual) * rounded


def collate(patches: list[dict[str, np.ndarray]]) -> Batch:
    """A batch of patches of :func:`take_patch`."""

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
        height, width = frame.sensor.height, frame.sensor.width
        if min(height, width) < size:
            raise ValueError(f"a frame of {height}x{width} sites is too small: {size} are needed")
        top, left = (int(rng.integers(n - size + 1)) for n in (height, width))
        patches.append(take_patch(frame, top, left, size, rng))
    return collate(patches)


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
