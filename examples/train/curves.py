"""A picture of how a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from .fit import LOG, VALIDATION_RATES, Phase, phase_of, read_log

_COLOURS = ("#1f5f8b", "#e08e45", "#6a9a3f", "#8f5aa8")

Line = dict[str, Any]


def draw(run: Path, out: Path, minutes: float | None = None) -> None:
    """Draw what a run has logged: rate and distortion over steps, and phases.

    minutes: of the whole run, where its log does not say how far it is.

    Raises ValueError if there is nothing to draw.
    """
    path = run / LOG
    lines = read_log(path) if path.is_file() else []
    steps = [line for line in lines if "latent_bits" in line]
    checks = [line for line in lines if "validation_bits" in line]
    if not steps:
        raise ValueError(f"{path}: has no steps to draw yet")
    begins = _phases(lines, minutes)
    figure = Figure(figsize=(13, 8), layout="constrained")
    (bits, checked_bits), (error, checked_error) = figure.subplots(2, 2, sharex=True)

    for name, label in (("latent_bits", "latents"), ("hyper_bits", "hyper-latents")):
        _plot(bits, steps, [line[name] for line in steps], label)
    _finish(bits, begins, "Rate of training patches", "bits per site", logarithmic=True)
    _plot(error, steps, [line["distortion"] for line in steps], "after latents")
    error.axhline(1 / 12, color="#999999", lw=1, ls="--", label="rounding alone: 1 / 12")
    _finish(error, begins, "Distortion of training patches", "squared base steps")
    for number, rate in enumerate(VALIDATION_RATES):
        label = f"rate {rate}"
        _plot(checked_bits, checks, [line["validation_bits"][number] for line in checks], label)
        _plot(checked_error, checks, [line["validation_db"][number] for line in checks], label)
    _finish(checked_bits, begins, "Rate of held-out patches", "bits per site", logarithmic=True)
    _finish(checked_error, begins, "Quality of held-out patches", "PSNR, dB")

    for axes in (bits, checked_bits):
        _mark(axes, begins, named=True)
    for axes in (error, checked_error):
        _mark(axes, begins, named=False)
        axes.set_xlabel("steps")
    last = lines[-1]
    figure.suptitle(f"{last['step']} steps in {last['seconds'] / 60:.0f} minutes", fontsize=12)
    figure.savefig(out, dpi=120)


def _phases(lines: Sequence[Line], minutes: float | None) -> list[tuple[int, str]]:
    """The step at which each phase begins, and what is new in it."""
    begins: list[tuple[int, str]] = []
    before: Phase | None = None
    for line in lines:
        progress = line.get("progress")
        if progress is None:
            if minutes is None:
                continue
            progress = line["seconds"] / (60 * minutes)
        phase = phase_of(progress)
        new = _new(before, phase)
        if new:
            begins.append((0 if before is None else line["step"], new))
        before = phase
    return begins


def _new(before: Phase | None, phase: Phase) -> str:
    """What a phase does that the one before did not."""
    parts = {
        "noise": phase.noisy,
        "rounding": not phase.noisy,
        "choosing": phase.choosy,
        "integers": phase.exact,
        "order": phase.ordered,
    }
    if before is not None:
        was = (before.noisy, not before.noisy, before.choosy, before.exact, before.ordered)
        parts = {
            name: now and not then for (name, now), then in zip(parts.items(), was, strict=True)
        }
    return ", ".join(name for name, new in parts.items() if new)


def _plot(axes: Axes, lines: Sequence[Line], values: Sequence[float], label: str) -> None:
    colour = _COLOURS[len(axes.lines) % len(_COLOURS)]
    marker = "o" if len(lines) < 60 else None
    steps = [line["step"] for line in lines]
    axes.plot(steps, values, color=colour, lw=1.5, marker=marker, ms=3, label=label)


def _finish(
    axes: Axes,
    begins: Sequence[tuple[int, str]],
    title: str,
    unit: str,
    logarithmic: bool = False,
) -> None:
    axes.set_title(title, loc="left", fontsize=11, pad=28 if begins else 6)
    axes.set_ylabel(unit)
    if logarithmic and axes.lines:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", lw=0.7)
    if axes.lines:
        axes.legend(frameon=False, fontsize=9)


def _mark(axes: Axes, begins: Sequence[tuple[int, str]], named: bool) -> None:
    """Vertical lines where phases begin."""
    for number, (step, name) in enumerate(begins):
        axes.axvline(step, color="#777777", lw=0.8, ls=":")
        if named:
            axes.annotate(
                name,
                (step, 1),
                (2, 3 + 10 * (number % 2)),  # two lines, for phases that are short
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color="#555555",
            )
