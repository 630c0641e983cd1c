"""What the systems of ``examples.baselines`` make of photos, kept in a file as it is found.

A line of JSON for each photo, picture, system and setting; it counts as long as what decided about
it is the same, so that a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from examples.baselines.interface import WHITE, psnr
from examples.baselines.lineup import Entry, named, own_picture
from examples.baselines.protocol import Photo, render, save

from .curves import Point
from .edits import ssim


@dataclass(frozen=True)
class Result:
    """A raw that came back.

    picture: of ``protocol.PICTURES``; empty for systems to which it does not matter. size: bytes.
    shown: bytes of the picture. pixels: their number. psnr: dB, of linear samples, white = 1; ssim:
    the mean of the three colours'. encode, decode: seconds.
    """

    photo: str
    picture: str
    group: str
    setting: str
    size: int
    shown: int
    pixels: int
    psnr: float
    ssim: float
    encode: float
    decode: float

    @property
    def name(self) -> str:
        """Of the entry that it is a result of."""
        return named(self.group, self.setting)

    @property
    def bpp(self) -> float:
        """Bits per pixel of what is stored beside the picture."""
        return 8 * self.size / self.pixels

    @property
    def total(self) -> float:
        """Bits per pixel, the picture's own among them."""
        return 8 * (self.size + self.shown) / self.pixels


class Measured:
    """Results in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Result] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                key = entry.pop("key")
                self._known[key] = Result(**entry)

    def measure(
        self, entries: Sequence[Entry], photos: Iterable[Photo], pictures: Sequence[str]
    ) -> list[Result]:
        """All systems on all photos with all pictures, those of the latter in turn."""
        return list(self._measure(entries, photos, pictures))

    def _measure(
        self, entries: Sequence[Entry], photos: Iterable[Photo], pictures: Sequence[str]
    ) -> Iterator[Result]:
        for photo in photos:
            shown = render(photo.raw, photo.gains, photo.to_srgb)
            for kind in pictures:
                picture = save(shown, kind)
                for entry in entries:
                    if entry.guided:
                        yield self._one(entry, photo, kind, picture)
            for entry in entries:
                if not entry.guided:
                    yield self._one(entry, photo, "", b"")

    def _one(self, entry: Entry, photo: Photo, kind: str, picture: bytes) -> Result:
        total = hashlib.sha256(photo.raw.tobytes() + picture)
        key = f"{entry.fingerprint()} {entry.name} {photo.name} {kind} {total.hexdigest()[:16]}"
        if key not in self._known:
            found = run(entry, photo, kind, picture)
            self._known[key] = found
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **asdict(found)}) + "\n")
        return self._known[key]


def run(entry: Entry, photo: Photo, kind: str, picture: bytes) -> Result:
    """Encode and decode a photo. kind: of ``protocol.PICTURES``, what ``picture`` is."""
    system, raw = entry.make(), photo.raw
    if entry.renders:
        picture = own_picture(system, raw, picture, kind)
    begun = time.perf_counter()
    data = system.encode(raw, picture)
    between = time.perf_counter()
    decoded = system.decode(data, picture)
    ended = time.perf_counter()
    similar = [ssim(*(x[:, :, c] / np.float32(WHITE) for x in (raw, decoded))) for c in range(3)]
    return Result(
        photo.name, kind, entry.group, entry.setting, len(data), len(picture),
        raw.shape[0] * raw.shape[1], min(psnr(raw, decoded), 120.0), float(np.mean(similar)),
        between - begun, ended - between,
    )  # fmt: skip


def of(results: Iterable[Result], **wanted: str) -> list[Result]:
    """Results whose fields have these values."""
    return [r for r in results if all(getattr(r, k) == v for k, v in wanted.items())]


def curve(results: Iterable[Result], whole: bool = False) -> list[Point]:
    """Results as points of a curve. whole: with the picture's own bytes."""
    return [Point(r.total if whole else r.bpp, r.psnr) for r in results]


def by_setting(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by their setting, in the order in which they came."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.setting, []).append(result)
    return found


def means(results: Iterable[Result], whole: bool = False) -> list[Point]:
    """A point for each setting: means over the photos of bits per pixel and of PSNR."""
    return [
        Point(mean(r.total if whole else r.bpp for r in same), mean(r.psnr for r in same))
        for same in by_setting(results).values()
    ]
