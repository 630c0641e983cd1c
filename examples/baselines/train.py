"""Training of the learned systems: the same photos, the same time, one loop.

Photos are the frames of ``python -m examples.train pairs``: cameras and scenes that have no part
in the comparison. A run is a folder with ``checkpoint.pt`` and ``log.jsonl``; it goes on where it
stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from examples.train.data import finished, take_mosaic

from .interface import Trainable, pixels
from .protocol import Photo, photo, reduce, render, save

CHECKPOINT, LOG, WEIGHTS = "checkpoint.pt", "log.jsonl", "weights.safetensors"

BATCH = 4
HIGHEST = 1e-3
"""The learning rate after ``WARM`` steps; it falls to a hundredth along a cosine of the time."""

WARM = 100
LIMIT = 1.0
"""The norm of a gradient at most."""

AVERAGE = 0.998
"""Decay of the average of the weights, which is what is kept."""

LOG_STEPS, CHECKPOINT_SECONDS = 25, 120

QUALITIES = ("90", "70", "50", "30", "10")
"""Of the JPEGs that a system for JPEGs is trained on, by turns."""


def training_photos(frames: Path) -> list[Photo]:
    """Photos of all frames with a Bayer mosaic; FileNotFoundError if there is none."""
    found = []
    for folder in finished(frames):
        mosaic, meta = take_mosaic(folder)
        if meta["kind"] != "bayer":
            continue
        camera = meta["camera"]
        to_srgb = np.linalg.inv(np.array(camera["to_camera"]))
        found.append(photo(folder.name, mosaic, np.array(camera["gains"]), to_srgb, 1))
    if not found:
        raise FileNotFoundError(f"{frames}: has no frame of a Bayer sensor; make some with pairs")
    return found


def patch(photos: list[Photo], size: int, picture: str, rng: np.random.Generator) -> list[Tensor]:
    """A square of a photo, and its picture: float32 (3, size, size) each, 0..1.

    As it is or reduced once more by two, turned and mirrored. picture: of ``protocol.PICTURES``.
    """
    chosen = photos[rng.integers(len(photos))]
    by = int(rng.integers(1, 3))
    height, width = chosen.raw.shape[:2]
    top, left = (int(rng.integers(n - by * size + 1)) for n in (height, width))
    raw = chosen.raw[top : top + by * size, left : left + by * size]
    if by > 1:
        raw = np.rint(reduce(raw, by)).astype(np.uint16)
    raw = np.rot90(raw, rng.integers(4))
    if rng.random() < 0.5:
        raw = raw[:, ::-1]
    raw = np.ascontiguousarray(raw)
    shown = pixels(save(render(raw, chosen.gains, chosen.to_srgb), picture))
    both = raw.astype(np.float32) / np.float32(65535), shown.astype(np.float32) / np.float32(255)
    return [torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))) for x in both]


def batches(photos: list[Photo], size: int, picture: str, seed: int) -> Iterator[list[Tensor]]:
    """Batches without end, made ahead in a thread. picture: as of ``patch``, or ``jpeg`` for all
    ``QUALITIES`` by turns."""

    def make(number: int) -> list[Tensor]:
        rng = np.random.default_rng([seed, number])
        saved = QUALITIES[number % len(QUALITIES)] if picture == "jpeg" else picture
        parts = [patch(photos, size, saved, rng) for _ in range(BATCH)]
        return [torch.stack(column) for column in zip(*parts, strict=True)]

    with ThreadPoolExecutor(1) as pool:
        number = 0
        waiting = [pool.submit(make, number)]
        while True:
            number += 1
            waiting.append(pool.submit(make, number))
            yield waiting.pop(0).result()


def train(system: Trainable, frames: Path, run: Path, picture: str, minutes: float) -> None:
    """Train, or go on, until the run has had so many minutes of the processor.

    Writes ``weights.safetensors``, the average of the weights, at every checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    network = system.network.train()
    optimiser = torch.optim.Adam(network.parameters(), HIGHEST)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    step, spent = 0, 0.0
    path = run / CHECKPOINT
    if path.exists():
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if (state["system"], state["picture"]) != (system.name, picture):
            raise ValueError(f"{run}: is a run of {state['system']} on {state['picture']}")
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]
    # of the processor: what else runs on the machine must not shorten a run
    begun = saved = time.process_time()
    before = spent
    figures: list[dict[str, float]] = []

    def keep() -> None:
        scratch = path.with_suffix(".new")
        torch.save({"system": system.name, "picture": picture, "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(), "average": average, "step": step,
                    "spent": spent}, scratch)  # fmt: skip
        scratch.replace(path)
        save_file({n: v.contiguous() for n, v in average.items()}, run / WEIGHTS)

    for raw, shown in batches(training_photos(frames), system.patch, picture, 1 + step):
        progress = spent / (60 * minutes)
        if progress >= 1:
            break
        falling = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = HIGHEST * min(1, (step + 1) / WARM) * falling
        loss, noted = system.loss(raw, shown, progress)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(network.parameters(), LIMIT)
        if torch.isfinite(size):
            optimiser.step()
        step += 1
        share = min(AVERAGE, step / (step + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - share)
                else:
                    average[name].copy_(value)
        figures.append({"loss": float(loss.detach()), **noted})
        now = time.process_time()
        spent = before + now - begun
        if len(figures) == LOG_STEPS:
            means = {key: float(np.mean([f[key] for f in figures])) for key in figures[0]}
            line = {"step": step, "minutes": round(spent / 60, 2), **means}
            with (run / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            figures.clear()
        if now - saved > CHECKPOINT_SECONDS:
            keep()
            saved = now
    keep()
