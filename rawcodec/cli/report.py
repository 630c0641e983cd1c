"""What a batch tells: a line a photo, a bar on a terminal, a summary."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from .shared import complain, printable, say, write

if TYPE_CHECKING:
    from ..batch.sources import Problem
    from ..work.task import Task

_STATUSES: Final = ("done", "planned", "skipped", "failed", "ignored", "left")
"""In the order of the summary. Planned: with --dry-run, what would be done. Ignored: no photo,
and no fault. Left: what was not done when the batch was stopped."""


class Report:
    """Tells what became of each photo, and sums up.

    What went well is told on standard output, what did not on standard error. As JSON all photos
    are on standard output, and the summary on standard error. On a terminal there is a bar in the
    place of lines; what failed is then told once the bar is gone.
    """

    def __init__(self, *, as_json: bool, keys: Sequence[str], summary: bool = True) -> None:
        """keys: of a task's values, all null for what is no photo."""
        self._as_json, self._keys, self._summary = as_json, keys, summary
        self._counts: Counter[str] = Counter()
        self._started = time.perf_counter()
        self._bar: Any = None
        self._kept: list[str] = []

    def count(self, status: str) -> int:
        return self._counts[status]

    def problem(self, problem: Problem) -> None:
        status = "failed" if problem.failed else "ignored"
        self._tell(status, str(problem.path), problem.message, dict.fromkeys(self._keys))

    def failed(self, task: Task, message: str) -> None:
        self.ended(task, "failed", message)

    def left(self, task: Task) -> None:
        self.ended(task, "left", f"{task.subject}: is left undone; run the same command again")

    def ended(
        self, task: Task, status: str, line: str, values: dict[str, Any] | None = None
    ) -> None:
        self._tell(status, str(task.subject), line, {**task.values, **(values or {})})
        if self._bar is not None and status not in ("left", "planned"):
            self._bar.update(1)

    def _tell(self, status: str, path: str, line: str, values: dict[str, Any]) -> None:
        self._counts[status] += 1
        fault = status in ("failed", "ignored", "left")
        if self._as_json:
            record = {"status": status, "path": path, **values, "reason": line if fault else None}
            write(json.dumps(record, allow_nan=False))
        elif fault and self._bar is not None:
            self._kept.append(line)
        elif fault:
            complain(line)
        elif self._bar is None or not sys.stdout.isatty():
            say(line)

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """A bar on standard error while photos end, where that is a terminal.

        Yields what draws it anew.
        """
        if sys.stderr is None or not sys.stderr.isatty():
            yield lambda: None
            return
        bar: Any = click.progressbar(
            length=total, show_pos=True, item_show_func=lambda _: self._said(), file=sys.stderr
        )
        try:
            with bar as self._bar:
                yield bar.render_progress
        finally:
            self._bar = None
            for line in self._kept:
                complain(line)
            self._kept.clear()

    def finish(self) -> None:
        """Sums up."""
        if self._summary:
            line = f"{self._said()}, {time.perf_counter() - self._started:.1f} s"
            if self._as_json:
                click.echo(printable(line), err=True)
            else:
                say(line)

    def _said(self) -> str:
        counts = [f"{self._counts[each]} {each}" for each in _STATUSES if self._counts[each]]
        return ", ".join(counts or ["0 done"])
