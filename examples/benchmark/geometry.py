"""JPEGs that a raw converter bent, cropped or reduced: docs/results/geometry.md.

RawTherapee and darktable render each raw plainly and with one edit of the geometry, by profiles
that this module writes. What the edit costs is told by the plain rendering: by the tone layer
fitted to the same sites, and at one quality by the bits at which the plain one is as good.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import rawcodec
from rawcodec.mosaic import Mosaic
from rawcodec.photo.align import Alignment, Guide, orient
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.photo.register import register
from rawcodec.pipeline import Layers, View, mosaic_error, reconstruct
from rawcodec.stream.entropy import Encoder
from rawcodec.tone import coding
from rawcodec.tone.fit import fit_tone
from rawcodec.tone.table import MARGIN, REACH, Tone

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair

COMMAND = "python -m examples.benchmark geometry"
NEEDED = "rawtherapee-cli", "darktable-cli"
JPEG_QUALITY = 92
REDUCED_QUALITY = 95

QUALITIES = "low", "medium", "high"
"""The ideal is encoded with all of them, an edited rendering with the middle one."""

TIMES = 2
"""Both are encoded in turn for the time of each, and the least counts."""

Crop = tuple[float, float, float]
"""Share of the frame's area, and where of the room beside it: 0 to 1 across and down."""


@dataclass(frozen=True)
class Edit:
    """What a program does to the geometry of its rendering.

    amount: radial distortion, a share of the distance at the corners. degrees: rotation.
    tilt: RawTherapee's horizontal and vertical perspective, or darktable's lens shift, in the
    program's own units. lateral: whether lateral chromatic aberration is corrected, which
    RawTherapee does by default. crop: what is kept. scale: by which the rest is reduced.
    """

    amount: float = 0.0
    degrees: float = 0.0
    tilt: tuple[float, float] = (0, 0)
    lateral: bool = True
    crop: Crop | None = None
    scale: float = 1.0

    @property
    def name(self) -> str:
        """How tables call it."""
        parts = [
            f"distortion {self.amount:+.0%}" if self.amount else "",
            f"turned by {self.degrees:g}°" if self.degrees else "",
            f"perspective {self.tilt[0]:g}, {self.tilt[1]:g}" if any(self.tilt) else "",
            "" if self.lateral else "lateral colour left",
            f"{self.crop[0]:.0%} of the frame" if self.crop else "",
            f"1/{round(1 / self.scale)}" if self.scale < 1 else "",
        ]
        return ", ".join(part for part in parts if part) or "plain"


PLAIN = Edit()

CASES: tuple[tuple[str, str, Edit], ...] = (
    ("colorchart", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(amount=-0.05)),
    ("GPFR7066", "rt", Edit(amount=0.02)),
    ("GOPR0024", "rt", Edit(amount=-0.05)),
    ("GOPR9231", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(lateral=False)),
    ("GPFR7066", "rt", Edit(lateral=False)),
    ("GOPR9231", "rt", Edit(tilt=(5, 8))),
    ("colorchart", "rt", Edit(tilt=(0, 15))),
    ("GPFR7066", "rt", Edit(degrees=0.5)),
    ("NikonD1", "rt", Edit(degrees=-1.5)),
    ("GOPR0024", "rt", Edit(degrees=3)),
    ("colorchart", "dt", Edit(degrees=2, crop=(0.8, 0.5, 0.5))),
    ("NikonD1", "dt", Edit(tilt=(0.1, 0.15), crop=(0.7, 0.5, 0.5))),
    ("GOPR9231", "rt", Edit(crop=(0.9, 0.5, 0.5))),
    ("NikonD1", "rt", Edit(crop=(0.7, 0.8, 0.1))),
    ("colorchart", "dt", Edit(crop=(0.55, 0.2, 0.9))),
    ("GPFR7066", "rt", Edit(crop=(0.4, 0.9, 0.4))),
    ("GOPR0024", "rt", Edit(scale=1 / 2)),
    ("NikonD1", "rt", Edit(scale=1 / 4)),
    ("colorchart", "rt", Edit(scale=1 / 8)),
    ("GPFR7066", "rt", Edit(scale=1 / 8)),
    ("NikonD1", "rt", Edit(amount=0.03, degrees=-1, scale=1 / 2)),
    ("colorchart", "rt", Edit(degrees=2, crop=(0.7, 0.5, 0.5))),
    ("GOPR9231", "rt", Edit(amount=0.03, degrees=-1, scale=1 / 8)),
)
"""Photo, program and edit."""

CODED = (
    ("colorchart", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(amount=-0.05)),
    ("GPFR7066", "rt", Edit(amount=0.02)),
    ("GOPR0024", "rt", Edit(amount=-0.05)),
    ("GOPR9231", "rt", Edit(amount=0.05)),
    ("NikonD1", "rt", Edit(lateral=False)),
    ("GOPR9231", "rt", Edit(tilt=(5, 8))),
    ("NikonD1", "rt", Edit(degrees=-1.5)),
    ("NikonD1", "dt", Edit(tilt=(0.1, 0.15), crop=(0.7, 0.5, 0.5))),
)
"""Those that are encoded with the learned layer, too."""


@dataclass(frozen=True)
class Fitted:
    """The tone layer of a JPEG.

    psnr: of the sites that are compared, dB. seconds: of processors, of the registration, the
    fit and the mosaic that is rebuilt.
    """

    psnr: float
    size: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """A case. coverage: share of the sites that the JPEG reaches. plain: of the same sites."""

    photo: str
    program: str
    edit: Edit
    alignment: Alignment
    coverage: float
    found: Fitted
    plain: Fitted


@dataclass(frozen=True)
class Coded:
    """A case with the learned layer: bits per site and PSNR in dB.

    ideal: those of a rendering without the edit that shows as much of the frame, with each of
    ``QUALITIES``. longer: how many times as long as the plain one, which shows all of it, the
    edited one takes to encode with the middle one.
    """

    photo: str
    program: str
    edit: Edit
    found: tuple[float, float]
    ideal: tuple[tuple[float, float], ...]
    longer: float

    @property
    def lost(self) -> float:
        """In dB, against the ideal at the same bits per site."""
        bits = np.log([point[0] for point in self.ideal])
        curve = np.polyfit(bits, [point[1] for point in self.ideal], len(bits) - 1)
        return float(np.polyval(curve, np.log(self.found[0])) - self.found[1])


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Render and measure all cases of the photos there are; write ``geometry.md`` to ``out``.

    Raises FileNotFoundError where a program is not installed.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: not installed")
    raws = {pair.photo: pair.raw for pair in pairs}
    measured, coded = [], []
    for photo, raw in raws.items():
        mosaic = read_raw(raw).mosaic
        renderings = Renderings(photo, raw, scratch)
        for case in (case for case in CASES if case[0] == photo):
            print(f"{photo}: {PROGRAMS[case[1]]}, {case[2].name}", file=sys.stderr, flush=True)
            measured.append(measure(mosaic, renderings, *case[1:]))
        for case in (case for case in CODED if case[0] == photo):
            print(f"{photo}: {case[2].name}, {QUALITIES[1]}", file=sys.stderr, flush=True)
            coverage = next(m.coverage for m in measured if (m.photo, m.program, m.edit) == case)
            coded.append(code(raw, renderings, *case[1:], coverage))
    out.mkdir(parents=True, exist_ok=True)
    (out / "geometry.md").write_text(write(measured, coded), encoding="utf-8")


class Renderings:
    """JPEGs of a raw, each made once."""

    def __init__(self, photo: str, raw: Path, scratch: Path) -> None:
        self.photo, self.raw, self.scratch = photo, raw, scratch

    def make(self, program: str, edit: Edit) -> Path:
        """The JPEG of an edit. RuntimeError, with what the program said, where it makes none."""
        known = sorted(self.scratch.glob(f"{self.photo}.{program}.*.jpg"))
        words = "_".join(f"{value}" for value in vars(edit).values())
        target = self.scratch / f"{self.photo}.{program}.{words.replace('/', '_')}.jpg"
        if target not in known:
            {"rt": self._rawtherapee, "dt": self._darktable}[program](edit, target)
        return target

    def reduced(self, program: str, scale: float) -> Path:
        """The plain JPEG, reduced without the program: nothing but that is lost."""
        plain = self.make(program, PLAIN)
        target = plain.with_suffix(f".{scale}.jpg")
        with Image.open(plain) as picture:
            size = round(picture.width * scale), round(picture.height * scale)
            small = picture.resize(size, Image.Resampling.LANCZOS)
        small.save(target, quality=REDUCED_QUALITY)
        return target

    def _rawtherapee(self, edit: Edit, target: Path) -> None:
        profile = target.with_suffix(".pp3")
        size = (1, 1)
        if edit.crop:
            with Image.open(self.make("rt", PLAIN)) as plain:
                size = plain.size
        profile.write_text(rawtherapee_profile(edit, size))
        _run(
            target, "rawtherapee-cli", "-q", "-d", "-p", profile, f"-j{JPEG_QUALITY}", "-Y",
            "-o", target, "-c", self.raw,
        )  # fmt: skip

    def _darktable(self, edit: Edit, target: Path) -> None:
        style = target.with_suffix(".xmp")
        style.write_text(darktable_history(edit))
        # its own folder, and a library that is not kept: no edits of a user's are applied
        _run(
            target, "darktable-cli", self.raw, style, target, "--core",
            "--configdir", self.scratch / "darktable", "--library", ":memory:",
        )  # fmt: skip


def _run(target: Path, *words: object) -> None:
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


def rawtherapee_profile(edit: Edit, size: tuple[int, int]) -> str:
    """A partial profile (pp3). size: width and height of the plain rendering."""
    sections = {"Version": {"AppVersion": "5.9", "Version": "349"}}
    if not edit.lateral:
        sections["RAW"] = {"CA": "false"}
    if edit.amount:
        sections["Distortion"] = {"Amount": f"{edit.amount}"}
    if edit.degrees:
        sections["Rotation"] = {"Degree": f"{edit.degrees}"}
    if any(edit.tilt):
        across, down = edit.tilt
        sections["Perspective"] = {
            "Method": "simple", "Horizontal": f"{across}", "Vertical": f"{down}",
        }  # fmt: skip
    if edit.amount or edit.degrees or any(edit.tilt):
        sections["Common Properties for Transformations"] = {"Method": "log", "AutoFill": "true"}
    if edit.crop:
        share, right, below = edit.crop
        width, height = (int(n * share**0.5) for n in size)
        sections["Crop"] = {
            "Enabled": "true",
            "X": f"{int((size[0] - width) * right)}", "Y": f"{int((size[1] - height) * below)}",
            "W": f"{width}", "H": f"{height}", "FixedRatio": "false",
        }  # fmt: skip
    if edit.scale < 1:
        sections["Resize"] = {
            "Enabled": "true", "Scale": f"{edit.scale}", "AppliesTo": "Cropped area",
            "Method": "Lanczos", "DataSpecified": "0", "AllowUpscaling": "false",
        }  # fmt: skip
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )


def darktable_history(edit: Edit) -> str:
    """A history (XMP) of the modules *rotate and perspective* 5 and *crop* 1, as in 4.2."""
    items = []
    if edit.degrees or any(edit.tilt):
        # rotation, two shifts, shear; focal length, crop factor, dependence, aspect; the model;
        # no crop; no lines drawn
        floats = edit.degrees, *edit.tilt, 0, 28, 1, 100, 1
        lines = 200 * [0] + [0] + 8 * [0]
        items.append(
            ("ashift", 5, struct.pack("<8f2i4f200fi8f", *floats, 0, 0, 0, 1, 0, 1, *lines))
        )
    if edit.crop:
        share, right, below = edit.crop
        side = share**0.5
        left, top = (1 - side) * right, (1 - side) * below
        edges = left, top, left + side, top + side
        items.append(("crop", 1, struct.pack("<4f2i", *edges, -1, -1)))
    entries = "".join(
        f'<rdf:li darktable:num="{n}" darktable:operation="{operation}" darktable:enabled="1" '
        f'darktable:modversion="{version}" darktable:params="{params.hex()}" '
        'darktable:multi_name="" darktable:multi_priority="0" darktable:blendop_version="11" '
        'darktable:blendop_params="gz14eJxjYIAACQYYOOHEgAZY0QVwggZ7CB6pfNoAAE8gGQg="/>'
        for n, (operation, version, params) in enumerate(items)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/" '
        'darktable:xmp_version="5" darktable:auto_presets_applied="0" '
        f'darktable:history_end="{len(items)}" darktable:iop_order_version="2">'
        f"<darktable:history><rdf:Seq>{entries}</rdf:Seq></darktable:history>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>\n"
    )


def measure(mosaic: Mosaic, renderings: Renderings, program: str, edit: Edit) -> Measured:
    """A case, beside the plain rendering of the sites that both reach."""
    jpeg = renderings.make(program, edit)
    ideal = (
        renderings.reduced(program, edit.scale)
        if edit.scale < 1
        else renderings.make(program, PLAIN)
    )
    views, alignments, seconds = [], [], []
    for path in (jpeg, ideal):
        started = time.process_time()
        alignment, view = _view(mosaic, path)
        seconds.append(time.process_time() - started)
        alignments.append(alignment)
        views.append(view)
    own = views[0].reached
    masks = [view.reached for view in views if view.reached is not None]
    both = np.logical_and.reduce(masks) if masks else None
    found, plain = (
        _fit(mosaic, view, reached, both, spent)
        for view, reached, spent in zip(views, (own, both), seconds, strict=True)
    )
    coverage = views[0].coverage
    return Measured(renderings.photo, program, edit, alignments[0], coverage, found, plain)


def _view(mosaic: Mosaic, path: Path) -> tuple[Alignment, View]:
    jpeg = read_jpeg(path)
    sensor = mosaic.sensor
    alignment = register(mosaic, jpeg.pixels, jpeg.orientation).alignment
    oriented = orient(jpeg.pixels, alignment.orientation)
    height, width = oriented.shape[:2]
    guide = Guide(oriented, alignment, sensor.width, sensor.height, REACH)
    reached = alignment.reached(sensor.width, sensor.height, width, height, MARGIN)
    return alignment, View(guide, reached)


def _fit(
    mosaic: Mosaic,
    view: View,
    reached: np.ndarray | None,
    compared: np.ndarray | None,
    spent: float,
) -> Fitted:
    """The tone layer of a view, fitted to sites that are reached; spent: seconds so far."""
    started = time.process_time()
    view = replace(view, reached=reached)

    def pack(tone: Tone, head: bytes) -> bytes:
        encoder = Encoder()
        coding.code(encoder, mosaic.sensor, view.reached, head, tone)
        return head + encoder.finish()

    tone, payload = fit_tone(mosaic, view.guide.band, view.reached, pack)
    samples = reconstruct(mosaic.sensor, view, Layers(tone))
    seconds = spent + time.process_time() - started
    psnr = mosaic_error(mosaic, samples)[0]
    if compared is not None:
        samples[~compared] = mosaic.samples[~compared]
        psnr = mosaic_error(mosaic, samples)[0] + 10 * float(np.log10(compared.mean()))
    return Fitted(psnr, len(payload), seconds)


def code(raw: Path, renderings: Renderings, program: str, edit: Edit, coverage: float) -> Coded:
    """A case with the learned layer. coverage: how much of the frame the edit leaves."""

    def point(jpeg: Path, quality: str) -> tuple[float, float, float]:
        started = time.process_time()
        info = rawcodec.inspect(rawcodec.encode(raw, jpeg, quality=quality))
        return info.bpp, info.psnr_db, time.process_time() - started

    shown = round(coverage, 3)
    ideal = renderings.make(program, Edit(crop=(shown, 0.5, 0.5)) if shown < 1 else PLAIN)
    points = tuple(point(ideal, quality)[:2] for quality in QUALITIES)
    both = renderings.make(program, PLAIN), renderings.make(program, edit)
    # in turn, because the machine's speed changes
    turns = [[point(jpeg, QUALITIES[1]) for jpeg in both] for _ in range(TIMES)]
    usual, longer = (min(each[2] for each in points) for points in zip(*turns, strict=True))
    return Coded(renderings.photo, program, edit, turns[0][1][:2], points, longer / usual)


def write(measured: Sequence[Measured], coded: Sequence[Coded]) -> str:
    """The page."""
    order = {case: n for n, case in enumerate(CASES)}
    measured = sorted(measured, key=lambda m: order[m.photo, m.program, m.edit])
    coded = sorted(coded, key=lambda c: order[c.photo, c.program, c.edit])
    rows = [
        (
            m.photo,
            PROGRAMS[m.program],
            m.edit.name,
            f"{m.coverage:.0%}",
            _kind(m.alignment),
            f"{m.found.size:,}",
            f"{m.found.psnr:.2f}",
            f"{m.plain.psnr:.2f}",
            f"{m.plain.psnr - m.found.psnr:+.2f}",
            f"{m.found.seconds / m.plain.seconds:.2f}",
        )
        for m in measured
    ]
    more = [
        (
            c.photo,
            PROGRAMS[c.program],
            c.edit.name,
            f"{c.found[0]:.4f} / {c.found[1]:.2f}",
            *(f"{bpp:.4f} / {psnr:.2f}" for bpp, psnr in c.ideal),
            f"{c.lost:+.2f}",
            f"{c.longer:.2f}",
        )
        for c in coded
    ]
    return page(
        "# JPEGs that were bent, cropped and reduced",
        f"`{COMMAND} --data FOLDER --out docs/results` makes this page, its JPEGs and the profiles "
        f"for them; it needs {' and '.join(NEEDED)}. {versions()}",
        "Each raw was rendered plainly and with one edit; RawTherapee's default profile corrects "
        "lateral chromatic aberration on the raw, with and without the edit, and fills the frame "
        "where it bends. Distortion is RawTherapee's own amount, perspective and shifts are in the "
        "units of the program.",
        "## The tone layer",
        "PSNR in dB of the mosaic at the sites that both renderings reach: of the edited one, and "
        "of the plain one, fitted to the same sites; for JPEGs that were reduced, of the plain "
        "one reduced by Pillow to that size. *Alignment* is what the sidecar stores: lines, a "
        "polynomial, a cone (a polynomial with the distance from the middle), and whether red and "
        "blue lie apart from green. Time is that of the processors, registration included, and "
        "relative to the plain one's.",
        table(
            (
                "photo", "JPEG by", "edit", "reached:", "alignment", "bytes:", "PSNR:", "plain:",
                "lost, dB:", "time:",
            ),
            rows,
        ),
        f"## With the learned layer (`{QUALITIES[1]}`)",
        "Bits per site / PSNR of the whole mosaic in dB, of the edited rendering, and of the ideal "
        f"with the qualities {', '.join(QUALITIES)}: a rendering by the same program without the "
        "edit, cropped to as much of the frame. *Lost* is the distance from the ideal's curve "
        "through its three points, at the bits of the edited one. Time is that of the processors, "
        "of the whole command with its verification, relative to the plain rendering's with the "
        f"same quality; the least of {TIMES}, in turn.",
        table(
            (
                "photo", "JPEG by", "edit", "edited:", *(f"{q}:" for q in QUALITIES),
                "lost, dB:", "time:",
            ),
            more,
        ),
    )  # fmt: skip


def _kind(alignment: Alignment) -> str:
    count = 0 if alignment.warp is None else len(alignment.warp.x)
    kind = {0: "lines", 21: "polynomial"}.get(count, "cone")
    return kind if alignment.lateral is None else f"{kind}, colours apart"
