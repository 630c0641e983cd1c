"""Photos of a folder together, and one command for each: docs/results/folders.md."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rawcodec.photo.raw import read_size

from .markdown import page, table, versions, yes
from .pairs import Pair
from .process import run

COMMAND = "python -m examples.benchmark folders"

LEAST_SITES = 5_000_000
"""Smaller photos are left out: they would measure how long Python takes to begin."""

JOBS = 2
BAR = 1.3
"""How many times as many photos a folder is to make in the same time."""


@dataclass(frozen=True)
class Round:
    """The same photos in both ways, one after the other: seconds of the wall clock, and of all
    cores together."""

    command: str
    alone: float
    together: float
    processor_alone: float
    processor_together: float

    @property
    def ratio(self) -> float:
        """How many times as many photos the folder made in the same time."""
        return self.alone / self.together


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path, rounds: int) -> None:
    """Measure so many rounds, and write ``folders.md`` to ``out``. scratch: for the photos."""
    photos = scratch / "photos"
    photos.mkdir()
    chosen = [pair for pair in pairs if _sites(pair.raw) >= LEAST_SITES]
    raws, jpegs = [], []
    for pair in chosen:
        raws.append(photos / f"{pair.name}{pair.raw.suffix}")
        jpegs.append(photos / f"{pair.name}.jpg")
        shutil.copy(pair.raw, raws[-1])
        shutil.copy(pair.jpeg, jpegs[-1])
    found = []
    for number in range(rounds):
        # whichever comes first finds the files unread
        for command in ("encode", "decode"):
            found.append(_round(command, raws, jpegs, scratch, folder_first=number % 2 == 1))
            print(found[-1], file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "folders.md").write_text(write(found, [pair.name for pair in chosen]), encoding="utf-8")


def _sites(raw: Path) -> int:
    width, height, _ = read_size(raw)
    return width * height


def _round(
    command: str, raws: list[Path], jpegs: list[Path], scratch: Path, *, folder_first: bool
) -> Round:
    photos, sidecars = raws[0].parent, scratch / "sidecars"
    made = scratch / "raws"
    if command == "encode":
        single = [
            ("encode", "--force", raw, jpeg, "-o", photos / f"{jpeg.stem}.rmeta")
            for raw, jpeg in zip(raws, jpegs, strict=True)
        ]
        folder = ("encode", "--force", "-r", photos, "--output-dir", sidecars)
    else:
        made.mkdir(exist_ok=True)
        single = [
            ("decode", "--force", jpeg, photos / f"{jpeg.stem}.rmeta", "-o", made / "one.tiff")
            for jpeg in jpegs
        ]
        folder = ("decode", "--force", "-r", sidecars, "--jpegs", photos, "--output-dir", made)

    def one_by_one() -> tuple[float, float]:
        each = [run(("-m", "rawcodec", *words)) for words in single]
        return sum(r.seconds for r in each), sum(r.processor for r in each)

    def at_once() -> tuple[float, float]:
        done = run(("-m", "rawcodec", *folder, "--jobs", str(JOBS)))
        return done.seconds, done.processor

    if folder_first:
        together, alone = at_once(), one_by_one()
    else:
        alone, together = one_by_one(), at_once()
    return Round(command, alone[0], together[0], alone[1], together[1])


def write(found: Sequence[Round], names: Sequence[str]) -> str:
    """The page."""
    said = []
    for command in ("encode", "decode"):
        ratio = median(r.ratio for r in found if r.command == command)
        said.append(f"`{command}` {ratio:.2f} times ({BAR}: {yes(ratio >= BAR)})")
    return page(
        "# Folders",
        f"{len(names)} photos ({', '.join(names)}), with one command for each, one after the "
        f"other, and as a folder with `--jobs {JOBS}`, in turns. The processors' seconds are those "
        "of all cores together; what else the machine did meanwhile is in the seconds of the clock "
        "of both.",
        f"```\n{COMMAND} --data FOLDER\n```",
        versions(),
        f"Photos in the same time, the median of the rounds: {'; '.join(said)}.",
        table(
            ["command", "one by one, s:", "folder, s:", "ratio:", "processors, s:", "folder, s:"],
            [
                [
                    f"`{r.command}`",
                    f"{r.alone:.1f}",
                    f"{r.together:.1f}",
                    f"{r.ratio:.2f}",
                    f"{r.processor_alone:.1f}",
                    f"{r.processor_together:.1f}",
                ]
                for r in found
            ],
        ),
    )
