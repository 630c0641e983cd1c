"""The paper's table 2: what the learned order of latents is worth, by its own system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from examples.baselines.lineup import weights_of
from examples.baselines.protocol import Photo, render, save
from examples.baselines.r2lcm import ORDERS, R2LCM

from .markdown import table

PUBLISHED = {"learned": 0.2718, "random": 0.2794, "deterministic": 0.2968}
"""Bits per pixel in the supplement's table 2."""

PICTURE, WEIGHT = "10", "0.5"


def orders_section(taken: Sequence[Photo], runs: Path) -> list[str]:
    """The part of the page about orders."""
    path = weights_of(runs, f"r2lcm-{WEIGHT}")
    rows, learned = [], {}
    for order in ORDERS:
        system = R2LCM(path, order=order)
        bpp = {}
        for photo in taken:
            picture = save(render(photo.raw, photo.gains, photo.to_srgb), PICTURE)
            height, width = photo.raw.shape[:2]
            bpp[photo.name] = 8 * len(system.encode(photo.raw, picture)) / (height * width)
        learned = learned or bpp
        more = mean(bpp[name] / learned[name] for name in bpp) - 1
        rows.append(
            [
                order,
                *(f"{value:.4f}" for value in bpp.values()),
                f"{mean(bpp.values()):.4f}",
                f"{more:+.1%}",
                f"{PUBLISHED[order]:.4f}",
                f"{PUBLISHED[order] / PUBLISHED['learned'] - 1:+.1%}",
            ]
        )
    return [
        "## Order of the latents",
        f"R2LCM with the weight {WEIGHT} on JPEGs of quality {PICTURE}, as in the paper's table 2: "
        "the same latents in each row, hence the same raw; only the masks differ, without training "
        "anew. What rawcodec's own order is worth, `python -m examples.benchmark order` measures.",
        table(
            ["masks", *(f"{p.name}, bpp:" for p in taken), "mean:", "more bits:", "published, bpp:",
             "published, more bits:"],
            rows,
        ),
    ]  # fmt: skip
