"""Finds the golden sidecars that come with rawcodec, and their JPEGs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import RawcodecError

NAMES: Final = ("bayer-high", "xtrans-max", "xtrans")
"""A Bayer mosaic under a JPEG that was turned a little; X-Trans under one that shows a part of
it, with latents and without."""

_TABLE: Final = "golden.json"


@dataclass(frozen=True)
class Vector:
    """A sidecar, its JPEG, and the digest of the mosaic that they decode to, as hexadecimal."""

    name: str
    jpeg: Path
    sidecar: Path
    digest: str


def vectors() -> tuple[Vector, ...]:
    """Those that are installed: inside the package from a wheel, with the tests in a checkout.

    Raises RawcodecError where some are missing.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "golden", package.parent / "tests" / "golden"):
        if (folder / _TABLE).is_file():
            return _in(folder)
    raise RawcodecError(f"{package / 'golden'}: is missing; install rawcodec again")


def _in(folder: Path) -> tuple[Vector, ...]:
    path = folder / _TABLE
    try:
        table = json.loads(path.read_text("utf-8"))
        found = tuple(
            Vector(
                name,
                folder / table[name]["jpeg"],
                folder / f"{name}.rmeta",
                str(table[name]["mosaic_digest"]),
            )
            for name in NAMES
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RawcodecError(f"{path}: cannot be read; install rawcodec again") from error
    for vector in found:
        for file in (vector.jpeg, vector.sidecar):
            if not file.is_file():
                raise RawcodecError(f"{file}: is missing; install rawcodec again")
    return found
