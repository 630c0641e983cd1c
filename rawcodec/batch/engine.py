"""What does many tasks: processes of this machine (:mod:`.pool`), or Ray (:mod:`.cluster`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from .worker import Outcome

TICK: Final = 1.0
"""Seconds between two calls of ``tick``, at most."""

PATIENCE: Final = 20.0
"""Seconds that processes have to clean up before they are killed."""


@dataclass(frozen=True)
class Bounds:
    """What a batch may take.

    jobs: tasks at a time. cores: for all of them. memory: bytes for all of them.
    strict: a task that takes more memory by itself fails; else it runs alone.
    """

    jobs: int
    cores: int
    memory: int
    strict: bool


class Engine(Protocol):
    """Does the assignments that it was made with."""

    def run(
        self, ended: Callable[[int, Outcome], None], tick: Callable[[], None] = lambda: None
    ) -> None:
        """Returns when all are done; stops all work on any exception.

        ended: called with the number of an assignment and what became of it.
        tick: called about once a second.
        """
        ...
