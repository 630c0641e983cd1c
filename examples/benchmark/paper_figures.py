"""Pictures of the comparison: errors, bits, shadows and highlights, as the supplement has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from examples.baselines.interface import WHITE, pixels, psnr
from examples.baselines.lineup import OURS, Entry, lineup, named, own_picture, weights_of
from examples.baselines.ours import Rawcodec
from examples.baselines.protocol import Photo, linear_srgb, render, save, srgb
from examples.baselines.r2lcm import R2LCM

from .plots import Tile, tiles

PICTURE = "10"
SHOWN = ("InvISP", "SAM, 0.00952", "Nam et al.", "R2LCM, 0.5", named(OURS, "1 bpp"))
"""Entries whose errors are shown, and of which details are; the last about as large as R2LCM's."""

EPSILON = 1e-3
"""Of the map of quantisation errors (the supplement, section 1)."""

LIMIT = 0.02
"""Errors are drawn up to this share of white."""

WINDOW = 192
"""Rows and columns of a detail."""

BRIGHTER, DARKER = 8.0, 0.4
DARK, CLIPPED = 16, 250
"""Mean of 8-bit values that a shadow is about, and values from which a pixel counts as clipped."""


def figures_section(taken: Sequence[Photo], runs: Path, out: Path) -> list[str]:
    """The part of the page with pictures, which are written to ``out``."""
    entries = [entry for entry in lineup(runs) if entry.name in SHOWN]
    shown = {p.name: render(p.raw, p.gains, p.to_srgb) for p in taken}
    dark = min(taken, key=lambda p: float(np.median(shown[p.name])))
    bright = max(taken, key=lambda p: float((shown[p.name].max(2) >= CLIPPED).mean()))
    decoded = {p.name: list(_decoded(p, entries)) for p in (dark, bright)}
    tiles(
        out / "paper-errors.png", _errors(bright, decoded[bright.name]), "share of white", columns=3
    )
    tiles(out / "paper-bits.png", _bits(bright, runs), "", columns=2)
    shadow, highlight = shadow_of(shown[dark.name]), highlight_of(bright.raw, shown[bright.name])
    details = _details(dark, decoded[dark.name], shadow, BRIGHTER)
    tiles(out / "paper-shadows.png", details, "", columns=4)
    details = _details(bright, decoded[bright.name], highlight, DARKER)
    tiles(out / "paper-highlights.png", details, "", columns=4)
    return [
        "## Pictures",
        f"JPEG of quality {PICTURE}. Errors: the largest of the three colours', linear, up to "
        f"{LIMIT:.0%} of white.",
        "![Errors](paper-errors.png)",
        "Where the bits go, of R2LCM (z, and v spread over the latents it stands for) and of "
        "rawcodec; and what 8 bits without any JPEG lose already: |w (y_q + e) - x| with w = x / "
        f"(y + e), e = {EPSILON:g} (the supplement, section 1). Square roots, each up to its 99.5% "
        "quantile.",
        "![Bits](paper-bits.png)",
        f"A shadow of {dark.name}, {BRIGHTER:g} times as bright:",
        "![Shadows](paper-shadows.png)",
        f"Highlights of {bright.name}, {DARKER:g} times as bright:",
        "![Highlights](paper-highlights.png)",
    ]


def _decoded(photo: Photo, entries: Sequence[Entry]) -> Iterator[tuple[str, np.ndarray]]:
    """What systems make of a photo: names and samples, uint16 (H, W, 3)."""
    saved = save(render(photo.raw, photo.gains, photo.to_srgb), PICTURE)
    for entry in entries:
        system, picture = entry.make(), saved
        if entry.renders:
            picture = own_picture(system, photo.raw, picture, PICTURE)
        data = system.encode(photo.raw, picture)
        bpp = 8 * len(data) / (photo.raw.shape[0] * photo.raw.shape[1])
        decoded = system.decode(data, picture)
        yield f"{entry.name}\n{bpp:.4g} bpp, {psnr(photo.raw, decoded):.1f} dB", decoded


def _errors(photo: Photo, found: Sequence[tuple[str, np.ndarray]]) -> Iterator[Tile]:
    yield Tile(f"{photo.name}, rendered", render(photo.raw, photo.gains, photo.to_srgb))
    for name, decoded in found:
        error = np.abs(photo.raw.astype(np.int32) - decoded).max(2) / WHITE
        yield Tile(name, error, LIMIT)


def _bits(photo: Photo, runs: Path) -> Iterator[Tile]:
    shown = render(photo.raw, photo.gains, photo.to_srgb)
    picture = save(shown, PICTURE)
    yield Tile(f"{photo.name}, JPEG of quality {PICTURE}", pixels(picture))
    yield _mapped("errors of 8 bits", quantisation_error(photo))
    theirs = R2LCM(weights_of(runs, "r2lcm-0.5")).bits(photo.raw, picture)
    yield _mapped("R2LCM, 0.5: bits", theirs)
    ours = Rawcodec(bpp=1.0)
    yield _mapped(f"{SHOWN[-1]}: bits", ours.bits(ours.encode(photo.raw, picture), picture))


def _mapped(name: str, values: np.ndarray) -> Tile:
    return Tile(name, values, float(np.quantile(values, 0.995)))


def quantisation_error(photo: Photo) -> np.ndarray:
    """What rounding to 8 bits loses, the largest of the three colours': float64 (H, W).

    Source: the paper's supplement, section 1, "Quantization error map".
    """
    raw = photo.raw / np.float64(WHITE)
    exact = srgb(linear_srgb(photo.raw, photo.gains, photo.to_srgb)).astype(np.float64)
    rounded = np.rint(255 * exact) / 255
    ratio = raw / (exact + EPSILON)
    error: np.ndarray = np.abs(ratio * (rounded + EPSILON) - raw).max(2)
    return error


def _windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    side = min(WINDOW, height, width)
    for top in range(0, height - side + 1, side // 2):
        for left in range(0, width - side + 1, side // 2):
            yield slice(top, top + side), slice(left, left + side)


def shadow_of(shown: np.ndarray) -> tuple[slice, slice]:
    """The window of a picture, uint8 (H, W, 3), with the most detail among the dark ones."""
    return max(
        _windows(*shown.shape[:2]),
        key=lambda at: float(shown[at].std()) / (1 + abs(float(shown[at].mean()) - DARK)),
    )


def highlight_of(raw: np.ndarray, shown: np.ndarray) -> tuple[slice, slice]:
    """The window whose clipped pixels differ the most in the raw, uint16 (H, W, 3)."""

    def differ(at: tuple[slice, slice]) -> float:
        clipped = shown[at].max(2) >= CLIPPED
        return float(raw[at][clipped].std(0).sum() * clipped.mean()) if clipped.any() else 0.0

    return max(_windows(*shown.shape[:2]), key=differ)


def _details(
    photo: Photo,
    found: Sequence[tuple[str, np.ndarray]],
    at: tuple[slice, slice],
    times: float,
) -> Iterator[Tile]:
    """A window of what came back, rendered so many times as bright; the JPEG's alike."""

    def seen(raw: np.ndarray) -> np.ndarray:
        return render(raw[at], photo.gains, photo.to_srgb * np.float32(times))

    saved = pixels(save(render(photo.raw, photo.gains, photo.to_srgb), PICTURE))[at]
    level = saved / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    brightened = np.rint(255 * srgb(np.minimum(times * light, 1))).astype(np.uint8)
    yield Tile("the JPEG alone", brightened)
    for name, decoded in found:
        yield Tile(name, seen(decoded))
    yield Tile("the raw itself", seen(photo.raw))
