"""Pictures of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

_COLOURS = ("#1f5f8b", "#e08e45", "#6a9a3f", "#8f5aa8")


def bars(
    path: Path, names: Sequence[str], series: dict[str, Sequence[float]], unit: str, title: str
) -> None:
    """Grouped horizontal bars, a group a name, with their values written at the ends."""
    figure = Figure(figsize=(9, 1.2 + 0.28 * len(names) * len(series)), layout="constrained")
    axes = figure.add_subplot()
    thickness = 0.8 / len(series)
    places = np.arange(len(names))
    for number, (label, values) in enumerate(series.items()):
        offset = (number - (len(series) - 1) / 2) * thickness
        drawn = axes.barh(places + offset, values, thickness, label=label, color=_COLOURS[number])
        axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(max(values) for values in series.values()))
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", pad=24)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series), frameon=False, borderaxespad=0
    )
    figure.savefig(path, dpi=120)


def error_maps(
    path: Path, rows: Sequence[tuple[str, np.ndarray, np.ndarray]], limit: float
) -> None:
    """A row for each photo: the picture, and beside it where the error is.

    rows: caption, the picture (uint8, (H, W, 3)), and the error map: share of
        the white level, (H, W), clipped at ``limit``.
    """
    shapes = [picture.shape[0] / picture.shape[1] for _, picture, _ in rows]
    figure = Figure(figsize=(12, 5.4 * sum(shapes) + 0.8 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, height_ratios=shapes)
    for (left, right), (caption, picture, error) in zip(grid, rows, strict=True):
        left.imshow(picture)
        left.set_title(caption, loc="left", fontsize=11)
        drawn = right.imshow(100 * error, cmap="magma", norm=PowerNorm(0.5, 0, 100 * limit))
        right.set_title("error of the decoded raw", loc="left", fontsize=11)
        beside = right.inset_axes((1.02, 0, 0.03, 1))
        bar = figure.colorbar(drawn, cax=beside, extend="max", extendfrac=0.04)
        bar.set_label("RMS error, % of white (square-root scale, clipped)")
        for axes in (left, right):
            axes.set_axis_off()
    figure.savefig(path, dpi=100, bbox_inches="tight")
