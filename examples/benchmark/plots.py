"""Pictures of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .curves import Point, monotone

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


@dataclass(frozen=True)
class Panel:
    """One set of axes of :func:`curves`.

    lines: by label, the places (x, rising) and values (y) of a curve, drawn as a
        monotone cubic through its points; None leaves it out.
    level: a label and a value that is drawn as a dotted line across.
    """

    title: str
    lines: dict[str, tuple[Sequence[float], Sequence[float]] | None]
    level: tuple[str, float]


def curves(path: Path, panels: Sequence[Panel], x_unit: str, y_unit: str) -> None:
    """Small multiples of curves over a logarithmic axis that all share, two a row."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns, 3.1 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _curves(axes, panel)
        axes.set_ylabel(y_unit)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel(x_unit)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)


def curve_and_gains(
    path: Path,
    panel: Panel,
    units: tuple[str, str],
    gains: dict[str, Sequence[float]],
    gain_unit: str,
) -> None:
    """Curves, and beside them a dot for each gain, in columns by name, with their means."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(left, panel)
    left.set_xlabel(units[0])
    left.set_ylabel(units[1])
    left.legend(frameon=False)
    right.axhline(0, color="#888888", linewidth=1)
    for place, values in enumerate(gains.values()):
        if not values:
            continue
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        right.plot(
            place + np.array(spread), values, "o", color=_COLOURS[0], alpha=0.5, markersize=5
        )
        mean = float(np.mean(values))
        right.plot([place - 0.25, place + 0.25], [mean, mean], color=_COLOURS[1], linewidth=2)
        right.annotate(f"{mean:+.2f}", (place + 0.28, mean), va="center", fontsize=9)
    right.set_xticks(range(len(gains)), list(gains))
    right.set_xlim(-0.5, len(gains) - 0.2)
    right.set_ylabel(gain_unit)
    right.set_title("a dot a pair, and the mean", loc="left", fontsize=11)
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def rate_distortion(
    path: Path,
    panels: Sequence[tuple[str, dict[str, Sequence[Point]]]],
    units: tuple[str, str],
) -> None:
    """Many systems in each of some panels, two a row: lines, or a dot for one point; ours in black
    and grey."""
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(13, 4.4 * rows + 1.2), layout="constrained")
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    ours = [name for name in names if name.startswith("rawcodec")]
    names = [name for name in names if name not in ours]
    looks = {
        name: {"color": f"C{number % 10}", "marker": "osD^vPX*<>hdp8"[number % 14]}
        for number, name in enumerate(names)
    } | {
        name: {"color": ("black", "0.55")[number % 2], "marker": "o", "linewidth": 2.4}
        for number, name in enumerate(ours)
    }
    known: dict[str, Any] = {}
    for axes, (title, lines) in zip(
        figure.subplots(rows, 2, squeeze=False).flat, panels, strict=False
    ):
        for name, points in lines.items():
            line = sorted(points, key=lambda point: point.bpp)
            x, y = [point.bpp for point in line], [point.psnr for point in line]
            look = {"linewidth": 1.2, "markersize": 5} | looks[name]
            (known[name],) = axes.plot(x, y, label=name, **look)
        axes.set_xscale("log")
        axes.set_ylim(top=min(axes.get_ylim()[1], 75))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(units[0])
        axes.set_ylabel(units[1])
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, loc="left", fontsize=11)
    figure.legend(
        list(known.values()), list(known), loc="outside lower center", ncols=5, frameon=False
    )
    figure.savefig(path, dpi=100)


@dataclass(frozen=True)
class Tile:
    """A picture, uint8 (H, W, 3), or a map, float (H, W), drawn by square roots up to ``limit``."""

    title: str
    values: np.ndarray
    limit: float = 0.0


def tiles(path: Path, parts: Iterable[Tile], unit: str, columns: int) -> None:
    """Pictures and maps of one size beside each other. unit: of the maps; a bar shows it."""
    found = list(parts)
    rows = -(-len(found) // columns)
    height, width = found[0].values.shape[:2]
    across = 15 / columns
    figure = Figure(
        figsize=(15, rows * (across * height / width + 0.55) + 0.3), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    drawn = None
    for axes, tile in zip(grid.flat, found, strict=False):
        axes.set_title(tile.title, loc="left", fontsize=10)
        if tile.limit:
            drawn = axes.imshow(tile.values, cmap="magma", norm=PowerNorm(0.5, 0, tile.limit))
        else:
            axes.imshow(tile.values)
    if unit and drawn is not None:
        figure.colorbar(drawn, ax=list(grid.flat), label=unit, shrink=0.6, extend="max")
    figure.savefig(path, dpi=80)


def _curves(axes: Axes, panel: Panel) -> None:
    for number, (label, line) in enumerate(panel.lines.items()):
        if line is not None:
            x, y = np.log(line[0]), np.array(line[1])
            at = np.linspace(x[0], x[-1], 200)
            look = {"color": _COLOURS[number], "label": label, "markersize": 3.5}
            axes.plot(np.exp(at), monotone(x, y, at), marker="", **look)
            look["label"] = None
            axes.plot(*line, "o", **look)
    label, level = panel.level
    axes.axhline(level, color="#888888", linestyle=":", linewidth=1.2, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(panel.title, loc="left", fontsize=11)
