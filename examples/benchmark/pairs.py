"""The photos to measure: raw files, each with JPEGs that other programs made of it."""

from __future__ import annotations

import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = {"rt": "RawTherapee", "dt": "darktable"}
"""What made NAME.rt.jpg and NAME.dt.jpg."""


@dataclass(frozen=True)
class Pair:
    """A raw and a JPEG of the same shot.

    photo: the name that both files start with. program: key of ``PROGRAMS``.
    """

    photo: str
    program: str
    raw: Path
    jpeg: Path

    @property
    def name(self) -> str:
        """What files and plots call the pair."""
        return f"{self.photo}.{self.program}"


def find_pairs(folder: Path, scratch: Path) -> list[Pair]:
    """All pairs in a folder, by name; raws with ``.xz`` are unpacked to ``scratch``.

    Raises FileNotFoundError where there is none, or a JPEG has no raw.
    """
    raws = {
        Path(path.name.removesuffix(".xz")).stem: path
        for path in sorted(folder.iterdir())
        if path.suffix != ".jpg"
    }
    jpegs = {
        program: {path.name.removesuffix(f".{program}.jpg"): path for path in found}
        for program in PROGRAMS
        if (found := sorted(folder.glob(f"*.{program}.jpg")))
    }
    photos = sorted({photo for found in jpegs.values() for photo in found}, key=str.casefold)
    if not photos:
        raise FileNotFoundError(f"{folder}: has no NAME.rt.jpg or NAME.dt.jpg")
    missing = [photo for photo in photos if photo not in raws]
    if missing:
        raise FileNotFoundError(f"{folder}: has no raw of {', '.join(missing)}")
    unpacked = {photo: _unpack(raws[photo], scratch) for photo in photos}
    return [
        Pair(photo, program, unpacked[photo], found[photo])
        for photo in photos
        for program, found in jpegs.items()
        if photo in found
    ]


def _unpack(path: Path, scratch: Path) -> Path:
    if path.suffix != ".xz":
        return path
    target = scratch / path.stem
    with lzma.open(path) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return target
