"""A process that does one task after another, and is stopped by closing the pipe to it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypeVar

from ..errors import OutputError, RawcodecError
from ..process import give_back, leave, tune
from ..work.task import Task

_Result = TypeVar("_Result")
Status = Literal["done", "skipped", "failed"]

REFUSED: Final = 0
"""What a worker is told in the place of a number of threads if its task takes too much memory."""


@dataclass(frozen=True)
class Assignment:
    """A task, and how to do it.

    skip: what is done already is left as it is.
    make_folder: the output's folder is made if it is missing.
    """

    task: Task
    skip: bool = False
    make_folder: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    line: for a reader; of a failure, ``FILE: what is wrong; what to do``.
    values: for a program, where it is done.
    """

    status: Status
    line: str
    values: dict[str, Any] = field(default_factory=dict)


class _Closed(BaseException):
    """Nobody waits for the result; no ``except Exception`` may keep it."""


def work(connection: Connection) -> None:
    """Does what comes through the connection until it is closed.

    For each ``Assignment``: sends the bytes of memory that it takes, and waits for the number of
    threads to use, or REFUSED; then sends the ``Outcome``, at once if there is nothing to wait for.
    """
    tune()
    inbox = _listen(connection)
    # where memory runs out, let the system end this process, not the one that keeps the account
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    try:
        while True:
            assignment = inbox.get()
            connection.send(_outcome(assignment, connection, inbox))
            give_back()
    except (_Closed, BrokenPipeError, ConnectionResetError):
        leave(0)


def _listen(connection: Connection) -> queue.SimpleQueue[Any]:
    """What comes through the connection; its end interrupts whatever the process does.

    It ends too where the process at the other end is killed. Signals from elsewhere are for that
    process to answer: those of a terminal, or of a scheduler, go to all processes of a job.
    """
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    main = threading.get_ident()
    closed = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if closed.is_set():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let files be cleaned up in peace
            raise _Closed

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv())
        except (EOFError, OSError):
            closed.set()
            signal.pthread_kill(main, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    threading.Thread(target=listen, daemon=True).start()
    return inbox


def _outcome(
    assignment: Assignment, connection: Connection, inbox: queue.SimpleQueue[Any]
) -> Outcome:
    need = begin(assignment)
    if isinstance(need, Outcome):
        return need
    connection.send(need)
    threads = inbox.get()
    if threads == REFUSED:
        return refused(assignment.task, need)
    return finish(assignment.task, threads)


def begin(assignment: Assignment) -> Outcome | int:
    """What comes before the work: bytes of memory that it takes, or the outcome if it ends here."""
    task = assignment.task

    def check() -> Outcome | int:
        if assignment.skip and task.is_done():
            return Outcome("skipped", f"{task.output}: is there already, and right; skipped")
        if assignment.make_folder and task.output is not None:
            make_folder(task.output.parent)
        check_free(task)
        task.prepare()
        return task.memory()

    return _told(task, check)


def finish(task: Task, threads: int) -> Outcome:
    """The work itself, with so many threads."""

    def run() -> Outcome:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        done = task.run()
        return Outcome("done", done.line, done.values)

    return _told(task, run)


def refused(task: Task, need: int) -> Outcome:
    """What becomes of a task that takes more memory than a batch may."""
    return Outcome(
        "failed",
        f"{task.subject}: takes about {need / 1e9:.1f} GB of memory, more than "
        f"--max-memory; give it more",
    )


def _told(task: Task, step: Callable[[], _Result]) -> _Result | Outcome:
    """What a step gives, or the failure: one photo never stops the others."""
    try:
        return step()
    except RawcodecError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        kind = type(error).__name__
        return Outcome("failed", f"{task.subject}: rawcodec has a bug here ({kind}); report this")


def check_free(task: Task) -> None:
    """Raises OutputError where there is an output already, and it stays."""
    if task.output is not None and not task.force and os.path.lexists(task.output):
        raise OutputError(
            f"{task.output}: already exists; use --skip-existing to leave it out, or --force to "
            f"replace it"
        )


def make_folder(folder: Path) -> None:
    """Raises RawcodecError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RawcodecError(
            f"{folder}: the folder cannot be made ({error.strerror}); name another --output-dir"
        ) from error
