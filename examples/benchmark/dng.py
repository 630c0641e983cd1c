"""DNGs in the hands of programs that know nothing of rawcodec: docs/results/dng.md.

Each raw is rendered by LibRaw, RawTherapee and darktable: as the camera's file, as a DNG of the
very same samples, and as the DNG that ``rawcodec decode`` writes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rawpy
from PIL import Image

from rawcodec.photo.dng import write_dng
from rawcodec.photo.jpeg import read_exif
from rawcodec.photo.raw import read_raw
from rawcodec.stream import container

from .markdown import page, table, versions
from .pairs import Pair
from .process import run

COMMAND = "python -m examples.benchmark dng"
QUALITY = "medium"

NEEDED = "exiftool", "rawtherapee-cli", "darktable-cli"
"""Commands that are run; Debian has them as libimage-exiftool-perl, rawtherapee, darktable."""


@dataclass(frozen=True)
class Rendered:
    """What a program made of a photo.

    kept: how its rendering of the DNG of the raw's own samples differs from that of the raw.
    psnr: of the decoded DNG's rendering against that of the former, dB of 8 bits.
    """

    program: str
    kept: str
    psnr: float


@dataclass(frozen=True)
class Checked:
    """All of a photo.

    sizes: bytes of the raw, and of the decoded DNG compressed and uncompressed.
    tags: bytes that the sidecar has for colours, crop and opcodes.
    warnings: of exiftool for the raw and for the decoded DNG.
    """

    photo: str
    sizes: tuple[int, int, int]
    sidecar: int
    tags: int
    warnings: tuple[int, int]
    rendered: tuple[Rendered, ...]


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path) -> None:
    """Check one pair of each photo, and write ``dng.md`` to ``out``.

    Raises FileNotFoundError where a program is not installed.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: not installed")
    first = {pair.photo: pair for pair in reversed(pairs)}
    checked = []
    for pair in first.values():
        print(f"{pair.photo}: {QUALITY}", file=sys.stderr, flush=True)
        folder = scratch / pair.photo
        folder.mkdir()
        checked.append(check(pair, folder, renderers(scratch)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "dng.md").write_text(write(checked[::-1]), encoding="utf-8")


Renderer = Callable[[Path], np.ndarray]


def renderers(scratch: Path) -> dict[str, Renderer]:
    """What renders a raw to uint8 (H, W, 3), by the program's name."""
    return {
        f"LibRaw {'.'.join(map(str, rawpy.libraw_version))}": _libraw,
        # neutral: its default profile fits a curve to the preview, which not every raw has
        "RawTherapee": lambda path: _command(
            path, "rawtherapee-cli", "-q", "-n", "-Y", "-o", "{out}", "-c", "{raw}"
        ),
        # its own folder, and a library that is not kept: no edits of a user's are applied
        "darktable": lambda path: _command(
            path, "darktable-cli", "{raw}", "{out}", "--core", "--configdir",
            str(scratch / "darktable"), "--library", ":memory:",
        ),
    }  # fmt: skip


def _libraw(path: Path) -> np.ndarray:
    with rawpy.imread(str(path)) as raw:
        rendered: np.ndarray = raw.postprocess(use_camera_wb=True)
    return rendered


def _command(path: Path, *words: str) -> np.ndarray:
    """The picture that a command makes. RuntimeError, with what it said, where it makes none."""
    target = path.with_suffix(".rendered.png")
    target.unlink(missing_ok=True)
    command = [word.format(raw=path, out=target) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    with Image.open(target) as picture:
        return np.asarray(picture.convert("RGB"))


def check(pair: Pair, folder: Path, programs: dict[str, Renderer]) -> Checked:
    """Encode and decode a pair as a user does, and render all three raws with each program."""
    raw, sidecar = folder / pair.raw.name, folder / "photo.rmeta"
    shutil.copyfile(pair.raw, raw)
    same, decoded, plain = (folder / name for name in ("same.dng", "decoded.dng", "plain.dng"))
    with same.open("w+b") as file:
        write_dng(file, read_raw(raw).mosaic, read_exif(pair.jpeg))
    words = "-m", "rawcodec", "encode", "--no-verify", "--quality", QUALITY
    run([*words, raw, pair.jpeg, "-o", sidecar])
    run(["-m", "rawcodec", "decode", pair.jpeg, sidecar, "-o", decoded])
    run(["-m", "rawcodec", "decode", pair.jpeg, sidecar, "-o", plain, "--uncompressed"])
    rendered = []
    for name, render in programs.items():
        pictures = [render(path) for path in (raw, same, decoded)]
        rendered.append(Rendered(name, kept(*pictures[:2]), psnr(*pictures[1:])))
    data = sidecar.read_bytes()
    return Checked(
        pair.photo,
        (raw.stat().st_size, decoded.stat().st_size, plain.stat().st_size),
        len(data),
        sum(len(chunk.payload) for chunk in container.read(data) if chunk.type == "tags"),
        (_warnings(raw), _warnings(decoded)),
        tuple(rendered),
    )


def kept(before: np.ndarray, after: np.ndarray) -> str:
    """How two renderings differ, in words."""
    if before.shape != after.shape:
        sizes = (f"{picture.shape[1]}x{picture.shape[0]}" for picture in (before, after))
        return f"{' and '.join(sizes)} pixels"
    wrong = np.abs(before.astype(int) - after)
    if not wrong.any():
        return "the same"
    return f"{wrong.max()} of 255 at most, in {np.mean(wrong > 0):.2g} of the values"


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """In dB, white = 255; infinite where they are the same."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(255**2 / error))


def _warnings(path: Path) -> int:
    """What ``exiftool -validate`` warns of."""
    command = ["exiftool", "-validate", "-warning", "-error", "-a", "-s3", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return len(found) - 1  # the first line is the summary


def write(checked: Sequence[Checked]) -> str:
    """The page."""
    sizes = [
        (
            each.photo,
            *(f"{size / 1e6:.2f}" for size in each.sizes),
            f"{each.sidecar:,}",
            f"{each.tags:,}",
            *each.warnings,
        )
        for each in checked
    ]
    rendered = [
        (each.photo, one.program, one.kept, f"{one.psnr:.1f}")
        for each in checked
        for one in each.rendered
    ]
    return page(
        "# DNGs in other programs",
        f"`{COMMAND}` makes this page; it needs {', '.join(NEEDED)}. {versions()}",
        f"Each raw was encoded with `--quality {QUALITY}` against its first JPEG and decoded with "
        "`-o photo.dng`. Tags are what the sidecar keeps so that the DNG has the raw's colours, "
        "crop and opcodes. Warnings are those of `exiftool -validate`, for the raw and for the "
        "decoded DNG.",
        table(
            (
                "photo", "raw, MB:", "DNG, MB:", "uncompressed, MB:", "sidecar, bytes:",
                "of them tags:", "warnings, raw:", "DNG:",
            ),
            sizes,
        ),
        "Rendered by LibRaw with the camera's balance, by RawTherapee with its neutral profile, "
        "by darktable with its defaults. First, how the rendering of a DNG of the raw's very "
        "samples differs from that of the raw: what writing a DNG changes by itself. A program "
        "that has a camera's frame or balance in tables of its own, for that camera's files, "
        "renders a DNG by its tags instead. Then the PSNR of the decoded DNG's rendering against "
        "that one, of 8 bits: what coding changed.",
        table(("photo", "program", "same samples, as DNG", "decoded, dB:"), rendered),
    )  # fmt: skip
