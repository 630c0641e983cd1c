"""What edits of the decoded raw look like: docs/results/edits.md and its plot.

Edits are what raws are kept for. One fixed renderer (LibRaw's) develops the
raw and what came back of it with the same parameters, and the two pictures are
compared: as shot, brighter, darker, and under another white balance.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import rawpy

import rawcodec
from rawcodec.model.bands import over_bands
from rawcodec.mosaic import Mosaic
from rawcodec.photo.raw import read_raw
from rawcodec.stream.header import QUALITIES

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark edits"
PLOT = "edits.png"

WHITE = 65535
"""The white of a rendering."""

LEAST = 1 / (12 * WHITE**2)
"""Mean squared error of rounding to 16 bits, white = 1: less than that counts as that."""

DARKEST, BRIGHTEST = 1 / 4, 1 / 10
"""Shares of the pixels that are called shadows and highlights."""

SIGMA, TAPS, K1, K2 = 1.5, 11, 0.01, 0.03
"""The window and the constants of SSIM."""

FROM_KELVIN, TO_KELVIN = 5000.0, 3500.0
"""The black bodies whose ratio changes the white balance."""

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_COLOUR_MATRICES = {50721: 50778, 50722: 50779}  # ColorMatrix1 and 2: CalibrationIlluminant1, 2
_SRATIONAL = 10
_D65 = 21
_ROWS = 64  # at a time: few enough for the cache
_NAMED = 6  # falls that the page names


@dataclass(frozen=True)
class Edit:
    """What is done to a raw. shift: exposure's factor. balanced: another white balance or not."""

    name: str
    shift: float = 1.0
    balanced: bool = False


AS_SHOT = Edit("as shot")
EDITS = (
    AS_SHOT,
    Edit("+2 EV", shift=4.0),
    Edit("-1 EV", shift=0.5),
    Edit("white balance", balanced=True),
)


@dataclass(frozen=True)
class Score:
    """How near a rendering is to that of the original.

    psnr: dB, of R, G and B, white = 1. ssim: mean structural similarity of
    luma. shadows, highlights: PSNR of these pixels alone, dB.
    """

    psnr: float
    ssim: float
    shadows: float
    highlights: float


METRICS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "shadows": "PSNR in shadows",
    "highlights": "PSNR in highlights",
}
"""What tables call the fields of ``Score``, in their order."""

Scores = dict[str, dict[Edit, Score]]
"""Of one pair, by quality and edit."""


@dataclass(frozen=True)
class Edited:
    """A pair: bits per site of its sidecars and scores of its renderings, by quality."""

    pair: Pair
    bpp: dict[str, float]
    scores: Scores


@dataclass(frozen=True)
class Skipped:
    """A photo that is not measured, and why."""

    photo: str
    reason: str


class CannotRenderError(Exception):
    """A raw that cannot be edited in all ways."""


class Renderer:
    """Develops samples as those of one raw file, always with the same parameters."""

    def __init__(self, path: Path, mosaic: Mosaic) -> None:
        """mosaic: that of the file. CannotRenderError where its colours are not known."""
        if mosaic.sensor.cfa == ("G",):
            raise CannotRenderError("is monochrome, and has no white balance")
        self._matrix = colour_matrix(mosaic)
        self._raw = rawpy.RawPy()
        self._raw.open_file(str(path))
        self._raw.unpack()

    @cached_property
    def multipliers(self) -> np.ndarray:
        """White balance as shot, or of daylight where the file has none: float64 (3,), green 1."""
        shot = np.array(self._raw.camera_whitebalance[:3], np.float64)
        if not (shot > 0).all():
            shot = np.array(self._raw.daylight_whitebalance[:3], np.float64)
        balance: np.ndarray = shot / shot[1]
        return balance

    @cached_property
    def rebalancing(self) -> np.ndarray:
        """What the edit multiplies the multipliers by: float64 (3,), green 1."""
        return rebalancing(self._matrix)

    def render(self, samples: np.ndarray, edit: Edit) -> np.ndarray:
        """The picture of visible samples, uint16, under an edit: uint16 (H, W, 3), sRGB.

        Not turned: the sensor's own rows and columns.
        """
        visible = self._raw.raw_image_visible
        if visible.ndim == 3:
            visible[:, :, : samples.shape[2]] = samples
        else:
            visible[:] = samples
        balance = self.multipliers * (self.rebalancing if edit.balanced else 1)
        red, green, blue = (float(multiplier) for multiplier in balance)
        picture: np.ndarray = self._raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
            user_wb=[red, green, blue, green],
            exp_shift=None if edit.shift == 1 else edit.shift,
            exp_preserve_highlights=0.0,
            no_auto_bright=True,
            adjust_maximum_thr=0.0,  # the white level does not depend on the samples
            highlight_mode=rawpy.HighlightMode.Clip,
            fbdd_noise_reduction=rawpy.FBDDNoiseReductionMode.Off,
            noise_thr=None,
            median_filter_passes=0,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),
            output_bps=16,
            user_flip=0,
        )
        return picture

    def close(self) -> None:
        """Frees what LibRaw holds."""
        self._raw.close()


def colour_matrix(mosaic: Mosaic) -> np.ndarray:
    """From CIE XYZ to the camera's R, G, B: float64 (3, 3); CannotRenderError without one.

    That for D65 of the raw's own tags (the DNG's ColorMatrix1 or 2; of other
    raws LibRaw's ``rgb_xyz_matrix``, which the mosaic's tags hold), or else the
    last there is.
    """
    tags = {tag: (kind, data) for tag, kind, _, data in mosaic.tags}
    found = None
    for tag, illuminant in _COLOUR_MATRICES.items():
        kind, data = tags.get(tag, (0, b""))
        if kind != _SRATIONAL or len(data) != 72:
            continue
        numbers = np.array(struct.unpack("<18i", data), np.float64).reshape(9, 2)
        found = (numbers[:, 0] / numbers[:, 1]).reshape(3, 3)
        if illuminant in tags and struct.unpack("<H", tags[illuminant][1][:2])[0] == _D65:
            break
    if found is None:
        raise CannotRenderError("has no colour matrix, which another white balance needs")
    return found


def black_body(kelvin: float) -> np.ndarray:
    """CIE XYZ of a black body of 1667 to 25000 K, Y = 1: float64 (3,).

    Source: the cubic approximation of the Planckian locus by Kim et al., "Design
    of advanced color temperature control system for HDTV applications" (Journal
    of the Korean Physical Society 41(6), 2002, pages 865-871).
    """
    t = 1000 / kelvin
    if kelvin <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    return np.array([x / y, 1.0, (1 - x - y) / y])


def rebalancing(matrix: np.ndarray) -> np.ndarray:
    """What to multiply multipliers of 5000 K by to have those of 3500 K: float64 (3,), green 1.

    matrix: float64 (3, 3), from XYZ to the camera's colours. Multipliers make
    what the camera sees of the light grey, so they are its reciprocal.
    """
    ratio = (matrix @ black_body(FROM_KELVIN)) / (matrix @ black_body(TO_KELVIN))
    if not (ratio > 0).all():
        raise CannotRenderError("has a colour matrix that sees black bodies as negative")
    balanced: np.ndarray = ratio / ratio[1]
    return balanced


def luma(picture: np.ndarray) -> np.ndarray:
    """Luma of a rendering, with the weights of Rec. 709, white = 1: float32 (H, W).

    picture: uint16 (H, W, 3), sRGB.
    """
    result = np.empty(picture.shape[:2], np.float32)

    def weigh(top: int, bottom: int) -> None:
        result[top:bottom] = picture[top:bottom].astype(np.float32) @ (_LUMA / WHITE)

    over_bands(0, len(picture), _ROWS, weigh)
    return result


def regions(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shadows and highlights, by luma (H, W): bool (H, W) each.

    The darkest quarter and the brightest tenth of all pixels. Pixels as bright
    as the last one of a region belong to it too.
    """
    low, high = np.quantile(light, (DARKEST, 1 - BRIGHTEST), method="inverted_cdf")
    return light <= low, light >= high


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Mean structural similarity of two pictures (H, W), white = 1.

    Gaussian window of 11x11 and sigma 1.5, wherever it fits in whole; K1 = 0.01,
    K2 = 0.03. Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality
    assessment: from error visibility to structural similarity" (IEEE Trans.
    Image Processing 13(4), 2004).
    """
    height, width = (size - TAPS + 1 for size in one.shape)
    sums = np.zeros(height)

    def compare(top: int, bottom: int) -> None:
        x, y = (part[top : bottom + TAPS - 1].astype(np.float32) for part in (one, other))
        mean_x, mean_y = _blurred(x), _blurred(y)
        both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
        covariance = _blurred(x * y) - both
        variances = _blurred(x * x + y * y) - squares
        c1, c2 = np.float32(K1**2), np.float32(K2**2)
        similar = (2 * both + c1) * (2 * covariance + c2)
        similar /= (squares + c1) * (variances + c2)
        sums[top:bottom] = similar.sum(1, dtype=np.float64)

    over_bands(0, height, _ROWS, compare)
    return float(sums.sum() / (height * width))


def window() -> np.ndarray:
    """One dimension of the Gaussian window: float32 (11,), sum 1."""
    weights = np.exp(-((np.arange(TAPS) - TAPS // 2) ** 2) / (2 * SIGMA**2))
    normal: np.ndarray = (weights / weights.sum()).astype(np.float32)
    return normal


def _blurred(x: np.ndarray) -> np.ndarray:
    """Means under the window: float32 (H, W) to (H - 10, W - 10)."""
    for axis in (0, 1):
        size, middle = x.shape[axis] - TAPS + 1, TAPS // 2
        shifted = [x[s : s + size] if axis == 0 else x[:, s : s + size] for s in range(TAPS)]
        weights = window()
        total = shifted[middle] * weights[middle]
        for away in range(1, middle + 1):
            beside = shifted[middle - away] + shifted[middle + away]
            beside *= weights[middle + away]
            total += beside
        x = total
    return x


def psnr(power: float) -> float:
    """PSNR in dB of a mean squared error, white = 1, of 16-bit renderings."""
    return float(-10 * np.log10(max(power, LEAST)))


def squared_error(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean over R, G, B of the squared error of renderings, white = 1: float32 (H, W)."""
    result = np.empty(one.shape[:2], np.float32)

    def compare(top: int, bottom: int) -> None:
        wrong = (one[top:bottom].astype(np.float32) - other[top:bottom]) / np.float32(WHITE)
        result[top:bottom] = np.einsum("ijk,ijk->ij", wrong, wrong) / one.shape[2]

    over_bands(0, len(one), _ROWS, compare)
    return result


class Original:
    """The renderings of a raw, to compare others with."""

    def __init__(self, renderer: Renderer, samples: np.ndarray) -> None:
        self._renderer = renderer
        self._pictures = {edit: renderer.render(samples, edit) for edit in EDITS}
        self._shadows, self._highlights = regions(luma(self._pictures[AS_SHOT]))

    def score(self, samples: np.ndarray, edit: Edit) -> Score:
        """Of what samples are developed to."""
        theirs, ours = self._pictures[edit], self._renderer.render(samples, edit)
        power = squared_error(theirs, ours)
        parts = (power, power[self._shadows], power[self._highlights])
        whole, shadows, highlights = (psnr(float(part.mean(dtype=np.float64))) for part in parts)
        return Score(whole, ssim(luma(theirs), luma(ours)), shadows, highlights)


def run_all(pairs: Sequence[Pair], out: Path, qualities: Sequence[str] = QUALITIES) -> None:
    """Measure everything, and write ``edits.md`` and its plot to ``out``."""
    measured: list[Edited] = []
    skipped: list[Skipped] = []
    balances: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for photo, group in groupby(pairs, key=lambda pair: pair.photo):
        ours = list(group)
        mosaic = read_raw(ours[0].raw).mosaic
        try:
            renderer = Renderer(ours[0].raw, mosaic)
            balances[photo] = renderer.multipliers, renderer.rebalancing
        except CannotRenderError as error:
            skipped.append(Skipped(photo, str(error)))
            continue
        original = Original(renderer, mosaic.samples)
        measured += [_edited(pair, original, qualities) for pair in ours]
        renderer.close()
    write(measured, skipped, balances, out)


def _edited(pair: Pair, original: Original, qualities: Sequence[str]) -> Edited:
    bpp: dict[str, float] = {}
    scores: Scores = {}
    for quality in qualities:
        print(f"{pair.name}: {quality}", file=sys.stderr, flush=True)
        sidecar = rawcodec.encode(pair.raw, pair.jpeg, quality=quality, verify=False)
        samples = rawcodec.decode(pair.jpeg, sidecar).samples
        bpp[quality] = rawcodec.inspect(sidecar).bpp
        scores[quality] = {edit: original.score(samples, edit) for edit in EDITS}
    return Edited(pair, bpp, scores)


def write(
    measured: Sequence[Edited],
    skipped: Sequence[Skipped],
    balances: dict[str, tuple[np.ndarray, np.ndarray]],
    out: Path,
) -> None:
    """Write the page and its plot. balances: of each photo, see :class:`Renderer`."""
    out.mkdir(parents=True, exist_ok=True)
    text = page(
        "# Edits of the decoded raw",
        *([_headline(measured)] if measured else ["No pair could be measured."]),
        *_method(skipped),
        *([*_means_table(measured), *_pairs_table(measured)] if measured else []),
        *_balances_table(balances),
    )
    (out / "edits.md").write_text(text, encoding="utf-8")
    if measured:
        _draw(out / PLOT, means(measured))


def means(measured: Sequence[Edited]) -> Scores:
    """Over the pairs, by quality and edit."""
    return {
        quality: {
            edit: Score(*np.mean([astuple(m.scores[quality][edit]) for m in measured], 0).tolist())
            for edit in EDITS
        }
        for quality in measured[0].scores
    }


@dataclass(frozen=True)
class Step:
    """From a quality to the next: by how much a metric rises with a pair and an edit."""

    pair: Pair
    edit: Edit
    lower: str
    higher: str
    rise: float
    perfect: bool

    @property
    def improves(self) -> bool:
        """Whether it does, or nothing was left to improve."""
        return self.rise > 0 or self.perfect


def steps(measured: Sequence[Edited], metric: str) -> Iterator[Step]:
    """All steps of a metric, the name of a field of ``Score``."""
    best = 1.0 if metric == "ssim" else psnr(0)
    for m in measured:
        for lower, higher in pairwise(m.scores):
            for edit in EDITS:
                a, b = (getattr(m.scores[quality][edit], metric) for quality in (lower, higher))
                yield Step(m.pair, edit, lower, higher, b - a, a == b == best)


def _headline(measured: Sequence[Edited]) -> str:
    """Sentences on the means, and on whether every step of the quality improves every edit."""
    averages = means(measured)
    qualities = list(averages)
    ranges = [
        f"{edit.name} {_from_to([averages[q][edit].psnr for q in qualities], '.1f')} dB "
        f"(shadows {_from_to([averages[q][edit].shadows for q in qualities], '.1f')}, highlights "
        f"{_from_to([averages[q][edit].highlights for q in qualities], '.1f')}; SSIM "
        f"{_from_to([averages[q][edit].ssim for q in qualities], '.4f')})"
        for edit in EDITS
    ]
    grades = " to ".join(f"`{q}`" for q in dict.fromkeys((qualities[0], qualities[-1])))
    text = (
        f"Mean PSNR of the edited pictures of {len(measured)} pairs against the edited raw, "
        f"{grades}: {'; '.join(ranges)}."
    )
    if len(qualities) < 2:
        return text
    verdicts = [
        _verdict(name, list(steps(measured, metric)), ".6f" if metric == "ssim" else ".3f")
        for metric, name in METRICS.items()
    ]
    return f"{text} From each quality to the next: {' '.join(verdicts)}"


def _from_to(values: Sequence[float], digits: str) -> str:
    ends = [f"{value:{digits}}" for value in values]
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _verdict(name: str, found: Sequence[Step], digits: str) -> str:
    """One sentence on a metric: how many pairs every step improves, and which falls there are."""
    falls = sorted((step for step in found if not step.improves), key=lambda step: step.rise)
    count = len({step.pair for step in found})
    good = count - len({step.pair for step in falls})
    if not falls:
        rise = min(step.rise for step in found)
        return f"{name} improves with every edit on all {count} pairs, by {rise:{digits}} or more."
    by_edit = [
        f"{edit.name} {count - len({step.pair for step in falls if step.edit == edit})}"
        for edit in EDITS
    ]
    named = [
        f"{step.pair.name} {step.edit.name} from {step.lower} to {step.higher} "
        f"({step.rise:+{digits}})"
        for step in falls[:_NAMED]
    ]
    more = f" and {len(falls) - _NAMED} more" if len(falls) > _NAMED else ""
    return (
        f"**{name} improves with every edit on {good} of {count} pairs** "
        f"({', '.join(by_edit)}; {len(falls)} of {len(found)} steps do not: "
        f"{', '.join(named)}{more})."
    )


def _method(skipped: Sequence[Skipped]) -> list[str]:
    left_out = [f"- {s.photo}: the raw {s.reason}" for s in skipped]
    return [
        f"{versions()} Renderings by LibRaw {'.'.join(map(str, rawpy.libraw_version))} (rawpy "
        f"{version('rawpy')}). {_reproduce()}",
        "The raw and what was decoded are developed alike: the decoded samples take the place of "
        "the file's own, all else is the file's; linear demosaicing, white balance as shot, no "
        "automatic brightness, no noise reduction, highlights clipped, sRGB, 16 bits. The edits: "
        f"*+2 EV* and *-1 EV* multiply linear values by 4 and by 1/2, highlights not preserved; "
        f"*white balance* multiplies the multipliers by what the camera sees of a black body of "
        f"{FROM_KELVIN:.0f} K over what it sees of one of {TO_KELVIN:.0f} K, by its colour matrix.",
        "PSNR is of R, G and B of the finished picture, white = 1; an error smaller than that of "
        f"rounding to 16 bits counts as that ({psnr(0):.1f} dB). SSIM is of luma (Wang et al. "
        "2004: Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03). Shadows are the "
        "darkest quarter of the pixels of the raw developed as shot, highlights the brightest "
        "tenth, by luma; pixels as bright as the last of them count too.",
        *(["Left out:", "\n".join(left_out)] if left_out else []),
    ]


def _means_table(measured: Sequence[Edited]) -> list[str]:
    rows = [
        [f"`{quality}`", edit.name, *_cells(score)]
        for quality, by_edit in means(measured).items()
        for edit, score in by_edit.items()
    ]
    heads = [name if metric == "ssim" else f"{name}, dB" for metric, name in METRICS.items()]
    return [
        "## Means",
        f"Over {len(measured)} pairs. {_reproduce()}",
        table(["quality", "edit", *(f"{head}:" for head in heads)], rows),
        f"![Means by quality and edit]({PLOT})",
    ]


def _pairs_table(measured: Sequence[Edited]) -> list[str]:
    rows = [
        [
            m.pair.photo,
            PROGRAMS[m.pair.program],
            f"`{quality}`",
            f"{m.bpp[quality]:.4f}",
            *(" / ".join(_cells(score)) for score in by_edit.values()),
        ]
        for m in measured
        for quality, by_edit in m.scores.items()
    ]
    return [
        "## Every pair",
        f"Bits per site of the sidecar, and of each edit {' / '.join(METRICS.values())}. "
        f"{_reproduce()}",
        table(["photo", "JPEG by", "quality", "bpp:", *(f"{e.name}:" for e in EDITS)], rows),
    ]


def _balances_table(balances: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    if not balances:
        return []
    rows = [
        [photo, *(", ".join(f"{multiplier:.3f}" for multiplier in part) for part in parts)]
        for photo, parts in balances.items()
    ]
    return [
        "## White balance",
        f"Multipliers of R, G, B as shot, and what the edit multiplies them by. {_reproduce()}",
        table(["photo", "as shot:", "edit:"], rows),
    ]


def _cells(score: Score) -> list[str]:
    return [
        f"{getattr(score, field.name):{'.4f' if field.name == 'ssim' else '.2f'}}"
        for field in fields(Score)
    ]


def _reproduce() -> str:
    return f"Made by `{COMMAND} --data FOLDER --out docs/results`."


def _draw(path: Path, averages: Scores) -> None:
    """Means over the qualities: a panel a metric, a line an edit."""
    # here, so that all else does without the extra
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    shown: dict[str, Callable[[Score], float]] = {
        "PSNR, dB": lambda score: score.psnr,
        "1 - SSIM (logarithmic, falling upwards)": lambda score: max(1 - score.ssim, 1e-6),
        f"PSNR in shadows (darkest {DARKEST:.0%}), dB": lambda score: score.shadows,
        f"PSNR in highlights (brightest {BRIGHTEST:.0%}), dB": lambda score: score.highlights,
    }
    colours = ("#1f5f8b", "#e08e45", "#6a9a3f", "#8f5aa8")
    for axes, (title, value) in zip(panels.flat, shown.items(), strict=True):
        for edit, colour in zip(EDITS, colours, strict=True):
            line = [value(by_edit[edit]) for by_edit in averages.values()]
            axes.plot(list(averages), line, "o-", color=colour, label=edit.name, markersize=4)
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    similar = panels[0, 1]
    similar.set_yscale("log")
    similar.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    similar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    similar.yaxis.set_minor_formatter(NullFormatter())
    similar.invert_yaxis()
    in_decibels = (panels[0, 0], panels[1, 0], panels[1, 1])
    lows, highs = zip(*(axes.get_ylim() for axes in in_decibels), strict=True)
    for axes in in_decibels:
        axes.set_ylim(min(lows), max(highs))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)
