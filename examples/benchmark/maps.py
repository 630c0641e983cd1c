"""Where in a photo the bits go, and where the error was and is: docs/results/maps.md.

The sidecar is the real one: while it is decoded, a meter beside the entropy coder hears the
same symbols, and what each latent takes is laid where it lies in the photo.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import rawcodec
from rawcodec.model.allocation import Allocation, in_blocks
from rawcodec.model.config import HYPER_BLOCK
from rawcodec.mosaic import Mosaic, planes
from rawcodec.photo.align import GUIDE_MAX, Alignment, Guide, orient
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.pipeline import map_photo
from rawcodec.stream import container

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark maps"
QUALITY = "medium"

PREFERRED = "NikonD1.rt", "GOPR0024.rt", "GPFR7066.dt"
"""The pairs that are shown where a folder has them: noise, a clipped sky, a fisheye."""

SIZE_LIMIT = 400_000
"""Bytes that no plot reaches."""

OCTAVES = 8
"""Classes of brightness, each half as bright as the one before; the last has all below."""

CLIPPED = GUIDE_MAX * 254 // 255
"""A site of the JPEG is clipped where a colour of it reaches this; 0 is as far at the dark end."""

WORST = 1 / 10
"""The share of blocks, those with the largest error, that the page tells of."""

CLIPPING = (
    "a colour of the JPEG at white",
    "a colour of the JPEG at black",
    "neither",
    "beyond the JPEG",
)
"""Where sites are in the JPEG; the first that holds."""

_ROWS = 256
_DPI, _LEAST_DPI = 110, 40
_MAPS = "magma", "viridis"  # of errors, and of all else


@dataclass(frozen=True)
class Shares:
    """How something is spread over classes of sites; each row sums to 1, or is 0.

    Float64 (4, classes): shares of the sites, of the latents' bits, of the
    squared error of the tone layer alone, and of that after all.
    """

    brightness: np.ndarray
    clipping: np.ndarray


@dataclass(frozen=True)
class Mapped:
    """All of a pair.

    bpp, latents, hyper: bits per site of the sidecar, of its latents and of
        its hyper-latents. psnr: before and after, dB.
    worst: of the tenth of blocks with the largest error before, the share of
        that error and of the bits.
    """

    pair: Pair
    bpp: float
    latents: float
    hyper: float
    psnr: tuple[float, float]
    worst: tuple[float, float]
    shares: Shares

    @property
    def picture(self) -> str:
        """The name of its plot."""
        return f"maps-{self.pair.name}.png"


def choose(pairs: Sequence[Pair], names: Sequence[str]) -> list[Pair]:
    """The pairs of these names; of none, ``PREFERRED``, or the first pairs of three photos.

    ValueError for a name that no pair has.
    """
    by_name = {pair.name: pair for pair in pairs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"has no pair {', '.join(missing)}, but {', '.join(by_name)}")
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    if all(name in by_name for name in PREFERRED):
        return [by_name[name] for name in PREFERRED]
    first = {pair.photo: pair for pair in reversed(pairs)}
    return [pair for pair in pairs if first[pair.photo] is pair][: len(PREFERRED)]


def run_all(pairs: Sequence[Pair], out: Path) -> None:
    """Map all pairs, and write ``maps.md`` and a plot of each to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    mapped = []
    for pair in pairs:
        print(f"{pair.name}: {QUALITY}", file=sys.stderr, flush=True)
        mapped.append(_map(pair, out))
    (out / "maps.md").write_text(write(mapped), encoding="utf-8")


def _map(pair: Pair, out: Path) -> Mapped:
    """Encode a pair, measure, and draw its plot."""
    mosaic = read_raw(pair.raw).mosaic
    plain = rawcodec.encode(pair.raw, pair.jpeg, quality="tone", verify=False)
    sidecar = rawcodec.encode(pair.raw, pair.jpeg, quality=QUALITY, verify=False)
    decoded = map_photo(pair.jpeg, sidecar)
    bits = decoded.allocation
    before, after = (
        error(mosaic, found.samples)
        for found in (rawcodec.decode(pair.jpeg, plain), decoded.mosaic)
    )
    pixels, place = _placed(pair.jpeg, sidecar, mosaic)
    powers = [_power(wrong) for wrong in (before, after)]
    sites, size = bits.sites, powers[0].shape
    shares = Shares(
        _spread(octaves(mosaic), OCTAVES, sites[: size[0], : size[1]], *powers),
        _spread(place, len(CLIPPING), sites[: size[0], : size[1]], *powers),
    )
    info, count = rawcodec.inspect(sidecar), powers[0].size
    mapped = Mapped(
        pair,
        info.bpp,
        bits.of_latents / count,
        bits.of_hyper / count,
        (rawcodec.inspect(plain).psnr_db, info.psnr_db),
        worst_tenth(in_blocks(_padded(powers[0], sites.shape)), bits.blocks),
        shares,
    )
    _draw(out / mapped.picture, mapped, pixels, bits, (cells(before), cells(after)), place == 0)
    return mapped


def error(mosaic: Mosaic, samples: np.ndarray) -> np.ndarray:
    """Signed error of samples, white = 1: float32 of the mosaic's shape."""
    result = np.empty(mosaic.samples.shape, np.float32)
    for _, black, index in planes(mosaic.sensor):
        wrong = samples[index].astype(np.float32) - mosaic.samples[index]
        result[index] = wrong / (mosaic.sensor.white - black)
    return result


def _power(wrong: np.ndarray) -> np.ndarray:
    """Squared error of each site, the mean of its colours: float64 (H, W)."""
    squares = wrong.astype(np.float64) ** 2
    return squares if squares.ndim == 2 else squares.mean(2)


def octaves(mosaic: Mosaic) -> np.ndarray:
    """Class of brightness of each site: uint8 (H, W); 0 from half of white, 1 from a quarter...

    By the raw's linear value, black subtracted; of a linear raw, that of green.
    """
    result = np.empty(mosaic.samples.shape[:2], np.uint8)
    for colour, black, index in planes(mosaic.sensor):
        if mosaic.sensor.linear and colour != 1:
            continue
        level = (mosaic.samples[index].astype(np.float32) - black) / (mosaic.sensor.white - black)
        number = np.floor(-np.log2(np.maximum(level, 2.0**-OCTAVES)))
        # exact at powers of two, which float32 and its logarithm have exactly
        below = np.where(np.exp2(-number) == level, number - 1, number)
        result[index[:2]] = np.clip(below, 0, OCTAVES - 1)
    return result


def _placed(jpeg_path: Path, sidecar: bytes, mosaic: Mosaic) -> tuple[np.ndarray, np.ndarray]:
    """The JPEG as it lies over the sensor, uint8 (h, w, 3), and the class of each site's clipping.

    Classes, uint8 (H, W), are numbers in ``CLIPPING``.
    """
    chunks = {chunk.type: chunk.payload for chunk in container.read(sidecar)}
    alignment = Alignment.unpack(chunks["ALGN"])
    pixels = orient(read_jpeg(jpeg_path).pixels, alignment.orientation)
    width, height = mosaic.sensor.width, mosaic.sensor.height
    guide = Guide(pixels, alignment, width, height, 0)
    place = np.empty((height, width), np.uint8)
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        place[rows] = clipping(guide.band(rows.start, rows.stop))
    reached = alignment.reached(width, height, pixels.shape[1], pixels.shape[0], 0)
    if reached is not None:
        place[~reached] = CLIPPING.index("beyond the JPEG")
    return pixels, place


def clipping(guide: np.ndarray) -> np.ndarray:
    """Numbers in ``CLIPPING`` of sites that the JPEG reaches: int16 (3, h, w) to uint8 (h, w)."""
    bright, dark = guide.max(0) >= CLIPPED, guide.min(0) <= GUIDE_MAX - CLIPPED
    return np.where(bright, 0, np.where(dark, 1, 2)).astype(np.uint8)


def _spread(classes: np.ndarray, count: int, *weights: np.ndarray) -> np.ndarray:
    """Shares of sites, and of weights (H, W), in each class: float64 (1 + weights, count)."""
    flat = classes.ravel()
    every = [np.ones(classes.shape), *weights]
    sums = [np.bincount(flat, weight.ravel(), count) for weight in every]
    return np.array([row / row.sum() if row.sum() > 0 else row for row in sums])


def _padded(sites: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """With zeros at the bottom and the right."""
    return np.pad(sites, [(0, wanted - n) for n, wanted in zip(sites.shape, shape, strict=True)])


def worst_tenth(power: np.ndarray, bits: np.ndarray) -> tuple[float, float]:
    """What share of a map's total, and of another's, lies in the blocks where it is largest."""
    order = np.argsort(-power, axis=None, kind="stable")[: max(1, round(power.size * WORST))]
    here, there = (
        float(part.ravel()[order].sum() / part.sum()) if part.sum() > 0 else 0.0
        for part in (power, bits)
    )
    return here, there


def cells(wrong: np.ndarray) -> np.ndarray:
    """The largest absolute error of each 2x2 sites, in any colour: (H / 2, W / 2)."""
    size = np.abs(wrong) if wrong.ndim == 2 else np.abs(wrong).max(2)
    height, width = (n // 2 * 2 for n in size.shape)
    largest: np.ndarray = size[:height, :width].reshape(height // 2, 2, width // 2, 2).max((1, 3))
    return largest


def write(mapped: Sequence[Mapped]) -> str:
    """The page."""
    brightness, clipped = (
        np.mean([getattr(m.shares, name) for m in mapped], 0) for name in ("brightness", "clipping")
    )
    made = _made_by(mapped)
    return page(
        "# Where the bits go",
        _headline(mapped),
        f"{versions()} {made}",
        f"Everything is of `{QUALITY}`. The bits of a latent are -log2 of the probability that "
        "its table gives it, heard by a meter beside the real entropy coder; the program makes "
        "sure that the maps hold all bits that the meter counts for latents and hyper-latents. "
        "*Before* is the tone layer alone, *after* the decoded raw; errors are of linear values, "
        "white = 1.",
        table(
            [
                "photo",
                "JPEG by",
                "bpp:",
                "of latents:",
                "of hyper-latents:",
                "PSNR before, dB:",
                "after, dB:",
                f"worst {WORST:.0%} of blocks, error:",
                "bits:",
            ],
            [
                [
                    m.pair.photo,
                    PROGRAMS[m.pair.program],
                    f"{m.bpp:.4f}",
                    f"{m.latents:.4f}",
                    f"{m.hyper:.4f}",
                    *(f"{psnr:.2f}" for psnr in m.psnr),
                    *(f"{share:.0%}" for share in m.worst),
                ]
                for m in mapped
            ],
        ),
        f"The last two columns: of the tenth of all blocks of {HYPER_BLOCK}x{HYPER_BLOCK} sites "
        "with the largest squared error before, the share of that error and of the latents' bits. "
        f"The rest of the sidecar is the tone layer, grids, filters and the header. "
        f"{made}",
        "## By brightness",
        "Shares of the sites, of the latents' bits, and of the squared error before and after, in "
        "octaves of the raw's linear value (black subtracted, white = 1), each the mean of the "
        f"shares in {len(mapped)} pairs. {made}",
        _shares_table("raw value", _octave_names(), brightness),
        "## By clipping",
        "The same by what the JPEG shows at the site: a colour within a 255th of white, or else "
        f"of black; neither; or nothing, beyond its edge. {made}",
        _shares_table("site", CLIPPING, clipped),
        "## Maps",
        "Of each pair the JPEG as it lies over the sensor; the bits of latents and of "
        f"hyper-latents, per site, in blocks of {HYPER_BLOCK}x{HYPER_BLOCK} sites (there is one "
        "position of hyper-latents in each, so that its bits are laid where it lies); the sites "
        "at which a colour of the JPEG is at white; and the absolute error before and after, of "
        f"each 2x2 sites the largest. {made}",
        *(f"![{_title(m)}]({m.picture})" for m in mapped),
    )


def _headline(mapped: Sequence[Mapped]) -> str:
    """Sentences on whether the bits go where the error was."""
    told = [
        f"{m.worst[0]:.0%} of the error and {m.worst[1]:.0%} of the bits on {m.pair.name}"
        for m in mapped
    ]
    more = sum(m.worst[1] > WORST for m in mapped)
    clipped = np.mean([m.shares.clipping[:, 0] for m in mapped], 0)
    return (
        f"The tenth of each photo where the tone layer alone is worst has {'; '.join(told)}: more "
        f"bits than its share of the photo on {more} of {len(mapped)}. Where a colour of the JPEG "
        f"is at white there are on average {clipped[0]:.1%} of the sites, {clipped[2]:.1%} of the "
        f"squared error before, {clipped[1]:.1%} of the latents' bits, and {clipped[3]:.1%} of "
        "the squared error after."
    )


def _shares_table(head: str, names: Sequence[str], shares: np.ndarray) -> str:
    heads = [head, "sites:", "bits:", "error before:", "error after:"]
    return table(
        heads,
        [
            [name, *(f"{100 * share:.1f}%" for share in column)]
            for name, column in zip(names, shares.T, strict=True)
        ],
    )


def _octave_names() -> list[str]:
    bounds = [f"1/{2**n}" for n in range(1, OCTAVES)]
    between = [f"{low} to {high}" for low, high in zip(bounds[1:], bounds, strict=False)]
    return [f"above {bounds[0]}", *between, f"below {bounds[-1]}"]


def _title(m: Mapped) -> str:
    return f"{m.pair.photo}, JPEG by {PROGRAMS[m.pair.program]}"


def _made_by(mapped: Sequence[Mapped]) -> str:
    names = [m.pair.name for m in mapped]
    chosen = "" if names == list(PREFERRED) else "".join(f" --pair {name}" for name in names)
    return f"Made by `{COMMAND} --data FOLDER --out docs/results{chosen}`."


def _draw(
    path: Path,
    mapped: Mapped,
    pixels: np.ndarray,
    bits: Allocation,
    errors: tuple[np.ndarray, np.ndarray],
    white: np.ndarray,
) -> None:
    """Six panels over the sensor's frame, in a PNG of 256 colours below ``SIZE_LIMIT``."""
    # here, so that all else does without the extra
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    height, width = white.shape
    area = HYPER_BLOCK**2
    share = 100 * np.array([part[: height // 2, : width // 2] for part in errors])
    root = PowerNorm(0.5, 0, max(float(np.percentile(share[0], 99.9)), 1e-9))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((900, 900))
    scaled = "square-root scale"
    panels: list[tuple[str, np.ndarray, Any, str]] = [
        (f"JPEG by {PROGRAMS[mapped.pair.program]}", np.asarray(picture), None, ""),
        ("error before: tone layer alone", share[0], root, f"% of white, {scaled}, clipped"),
        ("error after", share[1], root, f"% of white, {scaled}, clipped"),
        ("a colour of the JPEG at white", _reduced(white.astype(float), 4), None, "share of sites"),
        ("bits of latents", bits.blocks / area, _root_norm(bits.blocks / area), "bits per site"),
        (
            "bits of hyper-latents",
            bits.hyper / area,
            _root_norm(bits.hyper / area),
            "bits per site",
        ),
    ]
    figure = Figure(figsize=(13, 1.3 + 7.0 * height / width), layout="constrained")
    figure.suptitle(
        f"{_title(mapped)}, {QUALITY}: {mapped.bpp:.3f} bits per site, "
        f"{mapped.psnr[0]:.1f} to {mapped.psnr[1]:.1f} dB",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    for axes, (title, shown, norm, unit) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        colours = None if shown.ndim == 3 else _MAPS["error" not in title]
        drawn = axes.imshow(shown, cmap=colours, norm=norm, interpolation="antialiased")
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_axis_off()
        if shown.ndim == 2:
            bar = figure.colorbar(drawn, cax=axes.inset_axes((1.02, 0, 0.03, 1)))
            bar.set_label(unit, fontsize=9)
            bar.ax.tick_params(labelsize=8)
    save(figure, path, np.asarray(picture))


def _root_norm(values: np.ndarray) -> Any:
    """A square-root scale, on which few bits show too."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0, max(float(values.max()), 1e-9))


def _reduced(values: np.ndarray, times: int) -> np.ndarray:
    """Means of squares of so many sites across."""
    rows, columns = (n // times for n in values.shape)
    part = values[: rows * times, : columns * times]
    mean: np.ndarray = part.reshape(rows, times, columns, times).mean((1, 3))
    return mean


def save(figure: Any, path: Path, picture: np.ndarray, limit: int = SIZE_LIMIT) -> None:
    """Save a figure in 256 colours, as large as its bytes allow; RuntimeError if none does.

    picture: uint8 (h, w, 3), the photo in it, whose colours share the palette with the maps'.
    """
    palette = _palette(picture)
    for dpi in range(_DPI, _LEAST_DPI - 1, -10):
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=dpi, format="png")
        image = Image.open(drawn).convert("RGB")
        image = image.quantize(palette=palette, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        image.save(packed, "PNG", optimize=True)
        if packed.tell() < limit:
            path.write_bytes(packed.getvalue())
            return
    raise RuntimeError(f"{path}: cannot be drawn in {limit} bytes")


def _palette(picture: np.ndarray) -> Image.Image:
    """A picture that has the palette: greys of letters, 72 colours of each map, the photo's."""
    import matplotlib

    greys = np.linspace(0, 255, 12).round().astype(np.uint8)[:, None].repeat(3, 1)
    maps = [
        (255 * matplotlib.colormaps[name](np.linspace(0, 1, 72))[:, :3]).round().astype(np.uint8)
        for name in _MAPS
    ]
    left = 256 - len(greys) - sum(map(len, maps))
    used = Image.fromarray(np.ascontiguousarray(picture)).quantize(left).getpalette() or []
    ours = np.array(used[: 3 * left], np.uint8).reshape(-1, 3)
    ours[(ours > 240).all(1)] = 255  # else the paper takes on their tint
    result = Image.new("P", (1, 1))
    result.putpalette(np.concatenate([greys, *maps, ours]).ravel().tolist())
    return result
