"""Training: one model for all rates, in a given time, resumable."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data import batches, open_frames, random_batch
from .model import DISTORTION_WEIGHT, Batch, TrainingCodec, rates_like

HOLD_OUT = 6
"""Frames, the first ones, that validation has and training does not."""

CHECKPOINT_SECONDS = 300
VALIDATION_RATES = (6, 12, 18, 24)


@dataclass(frozen=True)
class Phase:
    """How a part of the training goes: shares of the whole are in ``phase_of``."""

    noisy: bool
    exact: bool
    choosy: bool
    ordered: bool
    rate_weight: float


def phase_of(progress: float) -> Phase:
    """Noise first, then rounding; integers from a third on.

    The order is learned late: as long as the context tells little, its gradient
    moves all positions into one step, and from there nothing brings them back.
    """
    return Phase(
        noisy=progress < 0.10,
        exact=progress >= 0.35,
        choosy=progress >= 0.20,
        ordered=progress >= 0.40,
        rate_weight=min(1.0, 0.05 + progress / 0.12),
    )


def learning_rate(progress: float, step: int, highest: float) -> float:
    warm = min(1.0, (step + 1) / 200)
    return highest * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def loss_of(parts: dict[str, Tensor], rate_weight: float) -> tuple[Tensor, Tensor]:
    """The loss, relative at every rate, and bits-equivalent cost per patch."""
    bits = parts["latent_bits"] + parts["hyper_bits"]
    cost = rate_weight * bits + DISTORTION_WEIGHT * parts["distortion"]
    # a patch at a fine step costs a hundred times one at a coarse step: weigh alike
    relative = (cost / (cost.detach() + 0.02)).mean()
    # a step that holds less than a quarter of all positions is pushed back
    uneven = ((parts["first"].mean() - 0.5).abs() - 0.25).clamp(min=0)
    return relative + uneven, cost


def train(
    frames: Path,
    run: Path,
    minutes: float,
    patches: int,
    highest_rate: float,
    exponent: float,
    seed: int,
    low_precision: bool,
) -> None:
    """Train for so many minutes in all, checkpoints included; continues what ``run`` holds."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    codec = TrainingCodec(exponent).to(memory_format=torch.channels_last)
    average = TrainingCodec(exponent)
    average.load_state_dict(codec.state_dict())
    optimiser = torch.optim.Adam(codec.parameters(), lr=highest_rate, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    path = run / "checkpoint.pt"
    if path.is_file():
        state = torch.load(path, weights_only=True)
        codec.load_state_dict(state["codec"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    log = (run / "log.jsonl").open("a")
    feed = batches(frames, HOLD_OUT, patches, seed + step)
    held = open_frames(frames)[:HOLD_OUT]
    started = saved = time.monotonic()
    base = spent
    sums: dict[str, float] = {}
    while spent < 60 * minutes:
        progress = spent / (60 * minutes)
        phase = phase_of(progress)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, step, highest_rate)
        batch = next(feed)
        rate = rates_like(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            parts = codec(
                batch, rate, exact=phase.exact, noisy=phase.noisy, choosy=phase.choosy,
                ordered=phase.ordered,
            )
        loss, cost = loss_of(parts, phase.rate_weight)
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is not finite at step {step}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(0.999, (step + 1) / (step + 10))
            for ours, theirs in zip(average.parameters(), codec.parameters(), strict=True):
                ours.lerp_(theirs, 1 - decay)
        step += 1
        spent = base + time.monotonic() - started
        record = {name: float(value.detach().mean()) for name, value in parts.items()}
        record |= {"log_cost": float(cost.detach().clamp(min=1e-9).log2().mean())}
        for name, value in record.items():
            sums[name] = sums.get(name, 0.0) + value
        if step % 50 == 0:
            line = {"step": step, "seconds": round(spent, 1)}
            line |= {name: value / 50 for name, value in sums.items()}
            sums = {}
            print(json.dumps(line), file=log, flush=True)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or spent >= 60 * minutes:
            saved = time.monotonic()
            temporary = path.with_suffix(".new")
            torch.save(
                {
                    "codec": codec.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "spent": spent,
                    "exponent": exponent,
                },
                temporary,
            )
            os.replace(temporary, path)
            print(
                json.dumps({"step": step, "seconds": round(spent, 1)} | validate(average, held, phase)),
                file=log,
                flush=True,
            )


def validate(codec: TrainingCodec, frames: list, phase: Phase) -> dict[str, list[float]]:
    """Bits per site and distortion in dB of held-out patches, by rate."""
    if not frames:
        return {}
    codec.eval()
    bits, error = [], []
    with torch.no_grad():
        batch: Batch = random_batch(frames, 8, np.random.default_rng(1))
        for q in VALIDATION_RATES:
            rate = torch.full((len(batch.raw),), float(q))
            parts = codec(batch, rate, exact=phase.exact, noisy=False, choosy=phase.choosy,
                          ordered=phase.ordered)
            bits.append(round(float((parts["latent_bits"] + parts["hyper_bits"]).mean()), 4))
            step = 8192 * 2 ** (-q / 4) / 2**15
            error.append(round(float(-10 * torch.log10(parts["distortion"] * step**2).mean()), 2))
    codec.train()
    return {"validation_bits": bits, "validation_db": error}
