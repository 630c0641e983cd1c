"""What the learned systems of the comparison had: photos, time and curves."""

from __future__ import annotations

from pathlib import Path

from examples.baselines.lineup import LITTLE, RUNS, progress

from .markdown import table


def section(runs: Path) -> list[str]:
    """The part of the page about training."""
    rows = []
    for name, arguments in RUNS.items():
        lines = progress(runs, name)
        last = lines[-1]
        rows.append(
            [
                f"`{arguments}`",
                f"{last['step']:,}",
                f"{last['minutes']:.0f}",
                *(_at(lines, share) for share in (0.25, 0.5, 0.75, 1.0)),
            ]
        )
    return [
        "## Training",
        "The learned rivals were trained on the same synthetic photos with the same loop and the "
        "same processor time, one thread each, on JPEGs of quality 90, 70, 50, 30 and 10 by turns "
        "(`python -m examples.baselines train ARGUMENTS --frames FRAMES --run RUN --minutes M`). "
        "For such large networks that is little: PSNR in training, below, still rises. The paper's "
        "authors trained on a GPU, and one model for each camera. The installed weights of "
        f"rawcodec had [six hours of two cores](training.md); *{LITTLE}* are "
        "weights from nothing in the time that the rivals had.",
        table(
            ["run", "steps:", "minutes:", "dB after 1/4:", "1/2:", "3/4:", "at the end:"],
            rows,
        ),
    ]  # fmt: skip


def _at(lines: list[dict[str, float]], share: float) -> str:
    """PSNR in training, the mean of what was logged in the tenth of the time before."""
    end = share * lines[-1]["minutes"]
    near = [e["psnr"] for e in lines if end - lines[-1]["minutes"] / 10 < e["minutes"] <= end]
    return f"{sum(near) / len(near):.1f}" if near else ""
