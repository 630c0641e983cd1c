"""Training: one model for all rates, in a given time, resumable.

A run is a folder: ``checkpoint.pt``, and ``log.jsonl`` with a line every 50
steps and one for each validation. A run that is continued has its weights,
their average, the optimiser, the steps and the time exactly as the checkpoint
has them. It has other patches and other noise than a run without a break, and
as learning rate and phases go by the clock, no two runs give the same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rawcodec.model.config import DISTORTION_WEIGHT

from .data import Frame, batches, describe, open_frames, random_batch
from .model import EXPONENT, Batch, TrainingCodec, base_step

HOLD_OUT = 6
"""Frames, the first ones, that validation has and training does not."""

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"

CHECKPOINT_SECONDS = 300
LOG_STEPS = 50

VALIDATION_RATES = (6, 12, 18, 24)
VALIDATION_PATCHES = 2
"""Of each frame that is held out."""

AVERAGE = 0.999
"""Decay of the average of weights, for a step; less at first."""

WARM_STEPS = 200
"""Steps in which the learning rate rises."""

LOWEST_RATE = 0.01
"""What the learning rate ends at, as a share of the highest."""

NEGLIGIBLE = 0.02
"""Cost in bits per site below which patches count less and less in the loss."""


STARTED = 0.4
"""Where in the schedule a run begins that has weights of another: everything learns from there."""


@dataclass(frozen=True)
class Phase:
    """How a part of the training goes: shares of the whole are in ``phase_of``.

    noisy, exact, choosy, ordered: see ``TrainingCodec.forward``. rate_weight:
    what bits weigh in the loss.
    """

    noisy: bool
    exact: bool
    choosy: bool
    ordered: bool
    rate_weight: float


@dataclass(frozen=True)
class Settings:
    """What a call of ``fit`` is told.

    minutes: in all, breaks between calls not counted. patches: of a batch.
    highest_rate: the learning rate after warming up. exponent: see
    ``TrainingCodec``. precision: of the convolutions; bfloat16 is autocast.
    start: folder of another run, whose weights a new run begins with.
    """

    minutes: float
    patches: int = 4
    highest_rate: float = 1.5e-3
    seed: int = 0
    exponent: float = EXPONENT
    precision: Literal["bfloat16", "float32"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    start: str | None = None


def phase_of(progress: float) -> Phase:
    """The phase at a share of the time, 0 to 1.

    Noise first, for gains learn from it alone, then rounding; integers from a
    third on. The full rate from the start makes all latents zero, from which
    they do not recover.

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
    """Rises over the first steps, then falls along a cosine over the whole time."""
    warm = min(1.0, (step + 1) / WARM_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return highest * warm * max(LOWEST_RATE, cosine)


def loss_of(parts: dict[str, Tensor], rate_weight: float) -> tuple[Tensor, Tensor]:
    """The loss, relative at every rate, and bits-equivalent cost per patch: (), (B,).

    parts: what ``TrainingCodec`` returns.
    """
    bits = parts["latent_bits"] + parts["hyper_bits"]
    cost = rate_weight * bits + DISTORTION_WEIGHT * parts["distortion"]
    # a patch at a fine step costs a hundred times one at a coarse step: weigh alike
    relative = (cost / (cost.detach() + NEGLIGIBLE)).mean()
    # a step that holds less than a quarter of all positions is pushed back
    uneven = ((parts["first"].mean() - 0.5).abs() - 0.25).clamp(min=0)
    return relative + uneven, cost


def apply(codec: TrainingCodec, batch: Batch, phase: Phase) -> dict[str, Tensor]:
    """Rate and distortion of a batch in a phase: see ``TrainingCodec.forward``."""
    parts: dict[str, Tensor] = codec(
        batch,
        exact=phase.exact,
        noisy=phase.noisy,
        choosy=phase.choosy,
        ordered=phase.ordered,
    )
    return parts


class Training:
    """The state of a run: what a checkpoint holds.

    codec: what is trained. average: the average of its weights, which is what
    is exported. step: steps taken. spent: seconds, of all calls. begun: where
    in the schedule. calls: for each call of :func:`train`, of the run that this
    one began with too, the step it began at, its settings, and what the frames
    are (``data.describe``).
    """

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = torch.device(settings.device)
        codec = TrainingCodec(settings.exponent)
        self.codec = codec.to(self.device, memory_format=torch.channels_last)
        self.average = TrainingCodec(settings.exponent).to(self.device)
        self.average.load_state_dict(self.codec.state_dict())
        self.optimiser = torch.optim.Adam(
            self.codec.parameters(), lr=settings.highest_rate, betas=(0.9, 0.98)
        )
        self.step, self.spent, self.begun = 0, 0.0, 0.0
        self.calls: list[dict[str, Any]] = []

    @property
    def progress(self) -> float:
        """Share of the schedule that is done: of the time, from where it begins."""
        return self.begun + (1 - self.begun) * self.spent / (60 * self.settings.minutes)

    def begin(self, path: Path) -> None:
        """Take the averaged weights of another run's checkpoint, those of its layers that are left.

        ValueError if it is of another exponent, or lacks a weight, or has one of another shape.
        """
        state = self._checkpoint(path)
        ours = self.codec.state_dict()
        theirs = {name: state["average"].get(name) for name in ours}
        for name, array in theirs.items():
            if array is None or array.shape != ours[name].shape:
                raise ValueError(f"{path}: has no {name} as this model has it; begin without it")
        self.codec.load_state_dict(theirs)
        self.average.load_state_dict(theirs)
        self.begun, self.calls = STARTED, state.get("calls", [])
        self._keep_hyper_analysis()

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if it is of another exponent."""
        state = self._checkpoint(path)
        self.codec.load_state_dict(state["codec"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]
        self.begun = state.get("begun", 0.0)
        self.calls = state.get("calls", [])
        if self.begun > 0:
            self._keep_hyper_analysis()
        torch.manual_seed(self.settings.seed + self.step)  # else the first noise comes again

    def _keep_hyper_analysis(self) -> None:
        """Leave the hyper-analysis as another run made it: see docs/results/training.md, run 6."""
        self.codec.hyper_analysis.requires_grad_(False)

    def _checkpoint(self, path: Path) -> dict[str, Any]:
        state = read_checkpoint(path)
        if state["exponent"] != self.settings.exponent:
            raise ValueError(
                f"{path}: was trained with exponent {state['exponent']}, "
                f"not {self.settings.exponent}"
            )
        return state

    def save(self, path: Path) -> None:
        """Write a checkpoint; it has its name only once it is complete."""
        state = {
            "codec": self.codec.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "begun": self.begun,
            "exponent": self.settings.exponent,
            "calls": self.calls,
        }
        scratch = path.with_suffix(".new")
        torch.save(state, scratch)
        scratch.replace(path)

    def learn(self, batch: Batch, phase: Phase) -> dict[str, float]:
        """Take one step; what to log of it. RuntimeError if the loss is not finite."""
        lr = learning_rate(self.progress, self.step, self.settings.highest_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        batch = batch.to(self.device)
        low = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            parts = apply(self.codec, batch, phase)
        loss, cost = loss_of(parts, phase.rate_weight)
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is not finite at step {self.step}; try a lower rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.codec.parameters(), 1.0)
        self.optimiser.step()
        self._follow()
        self.step += 1
        seen = {name: float(value.detach().mean()) for name, value in parts.items()}
        return seen | {"log_cost": float(cost.detach().clamp(min=1e-9).log2().mean())}

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow the weights."""
        decay = min(AVERAGE, (self.step + 1) / (self.step + 10))
        for ours, theirs in zip(self.average.parameters(), self.codec.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)


class _Log:
    """The lines of ``log.jsonl``; what steps give is averaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: list[dict[str, float]] = []

    def add(self, training: Training, seen: dict[str, float]) -> None:
        """Count a step in; write a line every ``LOG_STEPS``."""
        self._seen.append(seen)
        if training.step % LOG_STEPS == 0:
            means = {name: float(np.mean([s[name] for s in self._seen])) for name in seen}
            self._seen = []
            self.write(training, means)

    def write(self, training: Training, values: dict[str, Any]) -> None:
        """Write a line."""
        head = {
            "step": training.step,
            "seconds": round(training.spent, 1),
            "progress": round(training.progress, 4),
        }
        with self._path.open("a", encoding="utf-8") as file:
            print(json.dumps(head | values), file=file)


def train(frames: Path, run: Path, settings: Settings) -> None:
    """Train until the time is spent, checkpoints included; continues what ``run`` holds.

    Raises ValueError where there are too few frames, or they are too small, or
    the checkpoint in ``run`` has another exponent.
    """
    held = held_out(frames)
    run.mkdir(parents=True, exist_ok=True)
    training = Training(settings)
    path = run / CHECKPOINT
    if path.is_file():
        training.restore(path)
    elif settings.start is not None:
        training.begin(Path(settings.start) / CHECKPOINT)
    training.calls.append({"step": training.step} | asdict(settings))
    log = _Log(run / LOG)
    feed = batches(frames, HOLD_OUT, settings.patches, settings.seed + training.step)
    before = training.spent
    started = saved = time.monotonic()
    while training.progress < 1:
        phase = phase_of(training.progress)
        seen = training.learn(next(feed), phase)
        training.spent = before + time.monotonic() - started
        log.add(training, seen)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or training.progress >= 1:
            saved = time.monotonic()
            training.calls[-1]["data"] = describe(frames)
            training.save(path)
            log.write(training, measure(training.average, held, phase))


def held_out(frames: Path) -> list[Frame]:
    """The frames that training does not see; ValueError if none are left for it."""
    found = open_frames(frames)
    if len(found) <= HOLD_OUT:
        raise ValueError(
            f"{frames}: has {len(found)} frames, and more than {HOLD_OUT} are needed; "
            f"make them with the command pairs"
        )
    return found[:HOLD_OUT]


def measure(
    codec: TrainingCodec,
    frames: Sequence[Frame],
    phase: Phase,
    rates: Sequence[int] = VALIDATION_RATES,
    patches: int = VALIDATION_PATCHES,
) -> dict[str, list[float]]:
    """Bits per site and PSNR of the residual's domain in dB, by rate, of random patches.

    patches: of each frame. In float32, latents are rounded, and no filter follows them; the patches
    are the same every time. Leaves the codec in training mode.
    """
    codec.eval()
    phase = replace(phase, noisy=False)
    bits: list[list[float]] = [[] for _ in rates]
    decibels: list[list[float]] = [[] for _ in rates]
    with torch.no_grad():
        for place, frame in enumerate(frames):
            for number, q in enumerate(rates):
                rng = np.random.default_rng([1, place])
                batch = random_batch([frame], patches, rng, q).to(codec.gains.device)
                parts = apply(codec, batch, phase)
                bits[number] += (parts["latent_bits"] + parts["hyper_bits"]).tolist()
                error = parts["distortion"] * (base_step(batch.rate) / 2**15) ** 2
                decibels[number] += (-10 * torch.log10(error)).tolist()
    codec.train()
    return {
        "validation_bits": [round(float(np.mean(values)), 4) for values in bits],
        "validation_db": [round(float(np.mean(values)), 2) for values in decibels],
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What :meth:`Training.save` wrote; FileNotFoundError if there is none.

    Those of before ``calls`` were kept lack them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no checkpoint; make one with the command fit")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def averaged(state: dict[str, Any]) -> TrainingCodec:
    """The codec of a checkpoint, its weights averaged."""
    codec = TrainingCodec(state["exponent"])
    codec.load_state_dict(state["average"])
    return codec


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without those of steps that were taken again after a break."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        while lines and lines[-1]["step"] > line["step"]:
            lines.pop()
        lines.append(line)
    return lines
