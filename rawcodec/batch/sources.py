"""What a batch is of: the photos in folders, among files that are named, and in lists of pairs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from ..errors import RawcodecError
from ..pairing import JPEG_SUFFIXES, RAW_SUFFIXES, SIDECAR_SUFFIXES, Paired, identity, listed, pair

_LIST: Final = "or list the pairs in a file for --pairs"


@dataclass(frozen=True)
class Photo:
    """A photo that was found.

    subject: its raw or its sidecar. jpeg: None where there is none.
    place: the folder, below one that mirrors the tree, that its output belongs in.
    """

    subject: Path
    jpeg: Path | None
    place: PurePath


@dataclass(frozen=True)
class Problem:
    """What is no photo, and should be known.

    message: one line that begins with the path. failed: it should have been a photo.
    """

    path: Path
    message: str
    failed: bool
    place: PurePath


@dataclass(frozen=True)
class Kind:
    """What a batch goes through: raws or sidecars.

    jpegs: a JPEG alone in a folder is worth telling. alone: so is a subject without a JPEG.
    """

    name: str
    suffixes: frozenset[str]
    jpegs: bool
    alone: bool

    def is_subject(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes


RAWS: Final = Kind("raw", RAW_SUFFIXES, jpegs=True, alone=True)
SIDECARS: Final = Kind("sidecar", SIDECAR_SUFFIXES, jpegs=False, alone=True)
TESTED: Final = Kind("sidecar", SIDECAR_SUFFIXES, jpegs=False, alone=False)
"""Sidecars of which something can be done without their JPEGs."""

Found = Photo | Problem


class UnknownKindError(ValueError):
    """A file is named whose ending does not tell what it is; str() says which."""


@dataclass(frozen=True)
class Shard:
    """One of several shares of a batch: each photo is in just one.

    Which one depends on its name alone, so that a photo that is added, or taken away, while
    shares are under way moves no other.
    """

    number: int
    count: int

    def keeps(self, found: Found) -> bool:
        path = found.subject if isinstance(found, Photo) else found.path
        digest = hashlib.sha256(os.fsencode((found.place / path.name).as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def is_one_photo(files: Sequence[Path], kind: Kind) -> bool:
    """True for one file, and for two that are not both subjects or both JPEGs by their endings."""
    if len(files) == 2:
        first, second = files
        both = kind.is_subject(first) and kind.is_subject(second)
        return not both and not (_is_jpeg(first) and _is_jpeg(second))
    return len(files) == 1


def find(
    paths: Sequence[Path],
    kind: Kind,
    *,
    recursive: bool,
    pairs: Iterable[tuple[Path, Path]] = (),
    jpegs: Path | None = None,
) -> list[Found]:
    """The photos of folders, files and pairs; sorted, each once.

    A file that is named stands for its photo, whose other file is looked for beside it unless it
    is named too. recursive: folders are taken, with the folders in them. jpegs: a folder in which
    the JPEGs are looked for, in folders like those of the others.

    Raises UnknownKindError, and RawcodecError for a folder where none are taken.
    """
    found: list[Found] = [Photo(subject, jpeg, _mirrored(subject)) for subject, jpeg in pairs]
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if path not in folders]
    if folders and not recursive:
        raise RawcodecError(
            f"{folders[0]}: is a folder; name a file in it, or take all of it with -r"
        )
    if len(files) == 2 and not folders and is_one_photo(files, kind):
        jpeg, subject = files if _is_jpeg(files[0]) or kind.is_subject(files[1]) else files[::-1]
        found.append(Photo(subject, jpeg, PurePath()))
    else:
        found += _among(files, kind, jpegs)
    for folder in folders:
        found += _within(folder, kind, jpegs)
    return _each_once(found)


def walk(root: Path) -> Iterator[tuple[Path, list[Path]] | Problem]:
    """The folders of a tree with their files, and what could not be listed; sorted.

    Hidden files and folders are left out: thumbnails, wastebaskets, what other systems keep
    beside a file, and outputs that were never finished. Links to folders are not followed, which
    might lead in circles or to the same photos again.
    """
    problems: list[Problem] = []

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        message = f"{path}: {error.strerror}; check its permissions"
        problems.append(Problem(path, message, True, _relative(path.parent, root)))

    for top, folders, names in os.walk(root, onerror=unreadable):
        folder = Path(top)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (folder / name).is_symlink():
                message = (
                    f"{folder / name}: is a link to a folder, not followed; name it to take it"
                )
                yield Problem(folder / name, message, False, _relative(folder, root))
        yield folder, [folder / name for name in sorted(names) if not name.startswith(".")]
    yield from problems


def read_pairs(data: bytes, name: str) -> list[tuple[Path, Path]]:
    """The pairs of a list: of lines of two paths, or of paths that each end with a NUL.

    In a line, a tab stands between the two; a space may where it is the line's only one.
    name: what messages call the list.

    Raises RawcodecError for a list that can be read in two ways, or in none.
    """
    if b"\0" in data:
        paths = data.removesuffix(b"\0").split(b"\0")
        if len(paths) % 2 or b"" in paths:
            raise RawcodecError(
                f"{name}: has {len(paths)} paths, some of them empty or without a second one; "
                f"end each of the two paths of a pair with a NUL"
            )
        return [(_path(paths[n]), _path(paths[n + 1])) for n in range(0, len(paths), 2)]
    pairs = []
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line.strip():
            continue
        parts = line.split(b"\t" if b"\t" in line else b" ")
        if len(parts) != 2 or b"" in parts:
            raise RawcodecError(
                f"{name}: line {number} is not two paths with one tab between them; "
                f"write a tab, or end each path with a NUL"
            )
        pairs.append((_path(parts[0]), _path(parts[1])))
    return pairs


def _within(root: Path, kind: Kind, jpegs: Path | None) -> Iterator[Found]:
    """What lies in a folder and in those within it."""
    for each in walk(root):
        if isinstance(each, Problem):
            yield each
            continue
        folder, files = each
        place = _relative(folder, root)
        there = [path for path in files if path.is_file() or path.is_symlink()]
        subjects = [path for path in there if kind.is_subject(path)]
        if jpegs is not None:
            there = _entries(jpegs / place)
        paired = pair(subjects, filter(_is_jpeg, there))
        yield from _told(paired, kind, place, jpegs)


def _among(files: Iterable[Path], kind: Kind, jpegs: Path | None) -> Iterator[Found]:
    """The photos of files that are named."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        if not kind.is_subject(path) and not _is_jpeg(path):
            raise UnknownKindError(
                f"{path} is neither a {kind.name} nor a JPEG by its ending; name it with its "
                f"partner alone, {_LIST}"
            )
        folders.setdefault(path.parent, []).append(path)
    for folder, named in folders.items():
        missing = [path for path in named if not os.path.lexists(path)]
        for path in missing:
            message = f"{path}: no such file; check the name"
            yield Problem(path, message, True, PurePath())
        wanted = [path for path in dict.fromkeys(named) if path not in missing]
        if wanted:
            there = _entries(folder)
            if jpegs is not None:
                there = [*filter(kind.is_subject, there), *_entries(jpegs)]
            paired = pair(*_completed(wanted, there, kind))
            yield from _told(paired, kind, PurePath(), jpegs, named=frozenset(wanted))


def _completed(named: list[Path], there: list[Path], kind: Kind) -> tuple[list[Path], list[Path]]:
    """(subjects, JPEGs): those named, and what lies beside them where none is named."""
    sides: tuple[list[Path], list[Path]] = ([], [])
    for side, belongs in zip(sides, (kind.is_subject, _is_jpeg), strict=True):
        side += filter(belongs, named)
        have = {path.stem.casefold() for path in side}
        lack = {path.stem.casefold() for path in named} - have
        side += (path for path in there if belongs(path) and path.stem.casefold() in lack)
    return sides


def _told(
    paired: Paired,
    kind: Kind,
    place: PurePath,
    jpegs: Path | None,
    named: frozenset[Path] = frozenset(),
) -> Iterator[Found]:
    """What was sorted out, as photos and problems; named: of a folder's files those that count."""
    for subject, jpeg in paired.pairs:
        yield Photo(subject, jpeg, place)
    for path in paired.lone:
        if kind.alone:
            where = "beside it" if jpegs is None else f"in {jpegs / place}"
            message = f"{path}: no JPEG of its name lies {where}; put it there, {_LIST}"
            yield Problem(path, message, True, place)
        else:
            yield Photo(path, None, place)
    for path in paired.jpegs:
        if path in named or (kind.jpegs and not named):
            message = f"{path}: no {kind.name} of its name lies beside it; put it there, {_LIST}"
            yield Problem(path, message, path in named, place)
    for group in paired.ambiguous:
        message = (
            f"{group[0]}: {listed(group)} share a name, and which of them belong together is "
            f"not known; rename them, {_LIST}"
        )
        yield Problem(group[0], message, True, place)


def _each_once(found: Iterable[Found]) -> list[Found]:
    """Sorted; a photo that was found by several ways once."""
    unique: dict[tuple[Path, ...], Found] = {}
    for each in found:
        if isinstance(each, Photo):
            files = [each.subject] if each.jpeg is None else [each.subject, each.jpeg]
        else:
            files = [each.path]
        unique.setdefault(tuple(map(identity, files)), each)
    return [unique[key] for key in sorted(unique)]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what is hidden; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in JPEG_SUFFIXES


def _relative(folder: Path, root: Path) -> PurePath:
    return folder.relative_to(root)


def _mirrored(path: Path) -> PurePath:
    """The folder of a path in a list, where it can be had below another folder."""
    inside = not path.is_absolute() and ".." not in path.parts
    return PurePath(path.parent) if inside else PurePath()


def _path(data: bytes) -> Path:
    return Path(os.fsdecode(data))
