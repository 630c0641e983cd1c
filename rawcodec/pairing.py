"""Which files belong together: by their names but for the ending, never by a guess.

Imports the standard library only, so that listing a folder is quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .errors import RawcodecError

JPEG_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SIDECAR_SUFFIXES: Final = frozenset({".rmeta"})

# What cameras write and LibRaw reads. Not .tif: nearly all of these are pictures, not raws.
RAW_SUFFIXES: Final = frozenset(
    f".{name}"
    for names in (
        "3fr arw cr2 cr3 crw dc2 dcr dng erf fff gpr iiq k25 kdc mef mos",
        "mrw nef nrw orf pef ptx raf raw rw2 rwl sr2 srf srw x3f",
    )
    for name in names.split()
)


@dataclass
class Paired:
    """The files of one folder, sorted out. A subject is a raw or a sidecar.

    pairs: (subject, JPEG).
    lone: subjects without a JPEG. jpegs: JPEGs without a subject.
    ambiguous: files of one name, of which any two could be meant.
    """

    pairs: list[tuple[Path, Path]] = field(default_factory=list)
    lone: list[Path] = field(default_factory=list)
    jpegs: list[Path] = field(default_factory=list)
    ambiguous: list[list[Path]] = field(default_factory=list)


def pair(subjects: Iterable[Path], jpegs: Iterable[Path]) -> Paired:
    """Pairs the files of one folder by their stems, in any case.

    Where several of a name differ in case, the same case goes together first:
    IMG_1.DNG and IMG_1.JPG are a pair, whether or not there is an img_1.jpg.
    """
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, paths in enumerate((subjects, jpegs)):
        for path in paths:
            groups.setdefault(path.stem.casefold(), ([], []))[side].append(path)
    paired = Paired()
    for name in sorted(groups):
        left, right = groups[name]
        for stem in sorted({path.stem for path in left}):
            same = [[path for path in side if path.stem == stem] for side in (left, right)]
            if [len(side) for side in same] == [1, 1]:
                paired.pairs.append((same[0][0], same[1][0]))
                left.remove(same[0][0])
                right.remove(same[1][0])
        if len(left) == len(right) == 1:
            paired.pairs.append((left[0], right[0]))
        elif left and right:
            paired.ambiguous.append(sorted([*left, *right]))
        else:
            paired.lone += sorted(left)
            paired.jpegs += sorted(right)
    return paired


def jpeg_beside(path: Path, error: type[RawcodecError], hint: str) -> Path:
    """The JPEG that lies beside a file and has its name, but for the ending.

    error, hint: what is raised where there is not just one, and what to do then.
    """
    if not path.exists():
        raise error(f"{path}: no such file; check the name")
    named = [
        each
        for each in path.parent.iterdir()
        if each.stem.casefold() == path.stem.casefold() and each.suffix.lower() in JPEG_SUFFIXES
    ]
    paired = pair([path], named)
    if paired.pairs:
        return paired.pairs[0][1]
    if not named:
        raise error(f"{path}: no {path.stem}.jpg lies beside it; {hint}")
    raise error(f"{path}: {listed(sorted(named))} lie beside it; {hint}")


def listed(paths: Iterable[Path]) -> str:
    """Names for a sentence."""
    return " and ".join(path.name for path in paths)


def identity(path: Path) -> Path:
    """The same for all paths to an entry of a folder; links that are entries stay what they are."""
    return path.parent.resolve() / path.name


def named_after(path: Path, suffix: str) -> Path:
    # Not with_suffix, which raises for a path without a name, such as "/".
    return path.parent / (path.stem + suffix)
