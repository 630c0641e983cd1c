"""What is common to all that can be done to one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

IDLE: Final = 310_000_000
"""Bytes that a process takes between two photos, all packages and the weights being loaded."""

LINEAR: Final = 1.75
"""How much more a site of a linear raw takes, which has three samples, one coded after another."""


def memory_of(height: int, width: int, linear: bool, whole: int, stripe: int = 0) -> int:
    """Bytes that a photo takes at the peak, by its size.

    whole: of a site of it. stripe: of a site of its largest stripe, beyond that.
    """
    from ..model.view import stripes

    tallest = max(rows.stop - rows.start for rows in stripes(height, width))
    return int((LINEAR if linear else 1) * width * (whole * height + stripe * tallest))


@dataclass(frozen=True)
class Done:
    """What was done to a photo.

    line: for a reader. values: for a program; what JSON can hold.
    """

    line: str
    values: dict[str, Any]


class Task(Protocol):
    """One photo, and what is to be done to it; goes from process to process."""

    @property
    def subject(self) -> Path:
        """The file that stands for the photo."""
        ...

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read."""
        ...

    @property
    def output(self) -> Path | None:
        """The file that is written, if any."""
        ...

    @property
    def force(self) -> bool:
        """Whether an output that is there is replaced."""
        ...

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""
        ...

    @property
    def values(self) -> dict[str, Any]:
        """What is known before it is done, for a program; the same keys for every photo."""
        ...

    def prepare(self) -> None:
        """Raise OutputError if the output is going to fail; before minutes of work."""
        ...

    def is_done(self) -> bool:
        """True if the output is there, whole, and made of these very inputs.

        Raises RawcodecError if the output is there, is something else, and is not to be replaced.
        """
        ...

    def memory(self) -> int:
        """Bytes that the process will have at its peak. Raises as ``run`` does."""
        ...

    def run(self) -> Done:
        """Do it. Raises RawcodecError, with a message that begins with a file."""
        ...
