"""The systems of the comparison at the settings that are compared, and their trained weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from rawcodec.weights import MANIFEST

from .interface import System
from .protocol import save
from .train import LOG, WEIGHTS

RATES = (9.56e-4, 9.52e-3, 0.75)
"""Of SAM: the two of the paper's table 1, and a sample for each 8 x 8 pixels."""

QUALITIES = ("tone", "low", "medium", "high", "max")
SIZES = (0.1, 0.3, 1.0)
"""Bits per pixel that rawcodec is asked for, too: its qualities are made for mosaics and for JPEGs
that cameras write, and take far more where a JPEG tells little of three colours."""

RISES = (3.0, 6.0, 10.0, 14.0, 20.0)
"""Of JPEG 2000 over the tone layer alone, dB."""

DISTANCES = (25.0, 15.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Of JPEG XL."""

RUNS = {
    "invisp": "invisp",
    "nam": "nam",
    "r2lcm-0.05": "r2lcm --weight 0.05",
    "r2lcm-0.5": "r2lcm --weight 0.5",
}
"""Folders of trained weights, and what ``python -m examples.baselines train`` makes each of."""

OURS = "rawcodec"
"""The group of rawcodec with its installed weights."""

LITTLE = f"{OURS}, as little training"
"""That of rawcodec with weights that have had no more training than the others."""

LITTLE_RUN = "rawcodec"
"""The folder of these weights."""

_HERE = Path(__file__).resolve().parent
_PACKAGE = _HERE.parents[1] / "rawcodec"
_BESIDE = "batch", "cli", "report", "selftest", "work"
"""Folders of it that do not decide about what files hold."""


@dataclass(frozen=True)
class Entry:
    """A system at a setting.

    group: the system; its settings are the points of one curve. make: it, ready to run. guided:
    whether the picture matters to it. sources: files that decide about its results. renders: it
    has to have a rendering of its own in the place of the picture.
    """

    group: str
    setting: str
    make: Callable[[], System]
    sources: tuple[Path, ...]
    guided: bool = True
    renders: bool = False

    @property
    def name(self) -> str:
        return named(self.group, self.setting)

    def fingerprint(self) -> str:
        """Of what decides about its results, but for photo and picture."""
        return fingerprint(self.sources)


def named(group: str, setting: str) -> str:
    """The name of a group's entry at a setting, which is empty where there is but one."""
    return f"{group}, {setting}" if setting else group


def fingerprint(paths: Sequence[Path]) -> str:
    """Of the contents of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(_hashed(path))
    return total.hexdigest()[:16]


@cache
def _hashed(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def lineup(runs: Path) -> list[Entry]:
    """All of them, rivals first.

    runs: has a folder for each name of ``RUNS``. FileNotFoundError, which says how to train it,
    where one is missing.
    """
    return [*_rivals(runs), *_classical(), *_ours(runs)]


def weights_of(runs: Path, name: str) -> Path:
    """The weights of a run. name: of ``RUNS``. FileNotFoundError as of ``lineup``."""
    path = runs / name / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: is missing; make it with: python -m examples.baselines train {RUNS[name]} "
            f"--frames FRAMES --run {path.parent} --minutes M"
        )
    return path


def _rivals(runs: Path) -> Iterator[Entry]:
    from .invisp import InvISP
    from .nam import Nam
    from .nguyen_brown import NguyenBrown
    from .r2lcm import R2LCM
    from .sam import SAM

    def weights(name: str, module: str) -> tuple[Path, tuple[Path, ...]]:
        path = weights_of(runs, name)
        return path, (*_modules(module), path)

    path, sources = weights("invisp", "invisp")
    yield Entry("InvISP", "", partial(InvISP, path), sources, renders=True)
    for rate in RATES:
        yield Entry("SAM", f"{rate:g}", partial(SAM, rate, tuned=False), _modules("sam"))
        yield Entry("SAM, tuned", f"{rate:g}", partial(SAM, rate), _modules("sam"))
    path, sources = weights("nam", "nam")
    yield Entry("Nam et al.", "", partial(Nam, path, fine_tuned=False), sources)
    yield Entry("Nam et al., fine-tuned", "", partial(Nam, path, fine_tuned=True), sources)
    for weight in ("0.05", "0.5"):
        path, sources = weights(f"r2lcm-{weight}", "r2lcm")
        yield Entry("R2LCM", weight, partial(R2LCM, path), sources)
    yield Entry("Nguyen and Brown", "", NguyenBrown, _modules("nguyen_brown", "sam"))


def _classical() -> Iterator[Entry]:
    from .classical import JpegXL, LosslessDng, ToneJpeg2000

    own = _modules("classical")
    for rise in RISES:
        both = (*own, *_modules("ours"), *package_sources())
        yield Entry("tone + JPEG 2000", f"+{rise:g} dB", partial(ToneJpeg2000, rise), both)
    for distance in DISTANCES:
        make = partial(JpegXL, distance)
        yield Entry("JPEG XL alone", f"distance {distance:g}", make, own, guided=False)
    yield Entry("JPEG XL, lossless", "", partial(JpegXL, 0), own, guided=False)
    yield Entry("DNG, lossless JPEG", "", LosslessDng, own, guided=False)


def _ours(runs: Path) -> Iterator[Entry]:
    package = (*_modules("ours"), *package_sources())
    yield from _sized(OURS, QUALITIES, SIZES, None, package)
    manifest = runs / LITTLE_RUN / MANIFEST
    if manifest.is_file():
        sources = (*package, manifest)
        yield from _sized(LITTLE, QUALITIES[1:], SIZES[:1], runs / LITTLE_RUN, sources)


def _sized(
    group: str,
    qualities: Sequence[str],
    sizes: Sequence[float],
    weights: Path | None,
    sources: tuple[Path, ...],
) -> Iterator[Entry]:
    """rawcodec at qualities and of sizes. weights: a folder, or None for the installed ones."""
    from .ours import Rawcodec

    for quality in qualities:
        yield Entry(group, quality, partial(Rawcodec, quality, weights=weights), sources)
    for bpp in sizes:
        make = partial(Rawcodec, weights=weights, bpp=bpp)
        yield Entry(group, f"{bpp:g} bpp", make, sources)


def own_picture(system: System, raw: np.ndarray, picture: bytes, kind: str) -> bytes:
    """The rendering of a system that has to have its own, saved as pictures are."""
    from .invisp import InvISP

    assert isinstance(system, InvISP)
    return save(system.render(raw, picture), kind)


def progress(runs: Path, name: str) -> list[dict[str, float]]:
    """Lines of a run's log."""
    path = runs / name / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _modules(*names: str) -> tuple[Path, ...]:
    return tuple(_HERE / f"{name}.py" for name in (*names, "interface"))


@cache
def package_sources() -> tuple[Path, ...]:
    """What decides about rawcodec's results."""
    manifest = _PACKAGE.parent / "weights" / MANIFEST
    every = sorted(_PACKAGE.rglob("*.py"))
    return (*(p for p in every if p.relative_to(_PACKAGE).parts[0] not in _BESIDE), manifest)


def groups(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries by system, in their order."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return found
