"""Several tasks at a time, each in a process of its own: one that is killed takes no other along.

Why processes and not threads: docs/DESIGN.md, A process for each job.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from ..work.task import IDLE
from .engine import PATIENCE, TICK, Bounds
from .worker import REFUSED, Assignment, Outcome, work


class _Worker:
    """A process, and what it does."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would share the locks of threads that it lacks
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=work, args=(theirs,), daemon=True)
        with _signals_blocked():
            self.process.start()
        theirs.close()
        self.index: int | None = None
        self.need = 0
        self.granted = False

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def send(self, message: Any) -> None:
        """Where the process is dead, receiving from it says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)


class Pool:
    """Does assignments, as many at a time as the bounds allow."""

    def __init__(self, assignments: Sequence[Assignment], bounds: Bounds) -> None:
        self._assignments, self._bounds = assignments, bounds
        self._queue = deque(range(len(assignments)))
        self._workers: list[_Worker] = []
        self._waiting: deque[_Worker] = deque()  # for memory, in order

    def run(
        self, ended: Callable[[int, Outcome], None], tick: Callable[[], None] = lambda: None
    ) -> None:
        """See ``Engine.run``."""
        try:
            while self._assign():
                self._grant()
                busy = {each.connection: each for each in self._workers if each.index is not None}
                for ready in connection.wait(list(busy), TICK):
                    assert isinstance(ready, Connection)
                    self._receive(busy[ready], ended)
                tick()
        finally:
            self._stop()

    def _assign(self) -> bool:
        """Gives idle processes work, starting them as needed; False when all is done."""
        self._workers = [each for each in self._workers if each.index is not None or each.alive]
        idle = [each for each in self._workers if each.index is None]
        while self._queue and (idle or len(self._workers) < self._bounds.jobs):
            if idle:
                worker = idle.pop()
            else:
                worker = _Worker()
                self._workers.append(worker)
            worker.index = self._queue.popleft()
            worker.send(self._assignments[worker.index])
            if self._queue:
                _read_ahead(self._assignments[self._queue[0]])
        return any(each.index is not None for each in self._workers)

    def _grant(self) -> None:
        """Lets those start for which there is memory, in order, so that none waits for ever."""
        while self._waiting:
            worker = self._waiting[0]
            running = [each for each in self._workers if each.granted]
            taken = sum(each.need for each in running)
            taken += IDLE * (len(self._workers) - len(running) - 1)
            if worker.need > self._bounds.memory and self._bounds.strict:
                worker.send(REFUSED)
            elif running and taken + worker.need > self._bounds.memory:
                return
            else:
                worker.send(self._threads(worker.need))
            worker.granted = True
            self._waiting.popleft()

    def _threads(self, need: int) -> int:
        """The cores shared by the tasks that can run beside one of such a need, itself included."""
        tasks = len(self._queue) + sum(each.index is not None for each in self._workers)
        fitting = max(1, self._bounds.memory // max(1, need))
        return max(1, self._bounds.cores // min(self._bounds.jobs, tasks, fitting))

    def _receive(self, worker: _Worker, ended: Callable[[int, Outcome], None]) -> None:
        assert worker.index is not None
        index = worker.index
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            message = self._died(worker)
        if not isinstance(message, Outcome):
            worker.need = message
            self._waiting.append(worker)
            return
        worker.index, worker.granted = None, False
        ended(index, message)

    def _died(self, worker: _Worker) -> Outcome:
        """Forgets a process that is no more; its task fails."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        if worker in self._waiting:
            self._waiting.remove(worker)
        assert worker.index is not None
        subject = self._assignments[worker.index].task.subject
        code = worker.process.exitcode or 0
        how = f"was killed (signal {-code})" if code < 0 else f"ended by itself (code {code})"
        memory = ", for want of memory perhaps" if code == -signal.SIGKILL else ""
        return Outcome(
            "failed", f"{subject}: the process that worked on it {how}{memory}; try fewer --jobs"
        )

    def _stop(self) -> None:
        """Ends the processes, which clean up."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            if worker.alive:
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started within has no part in a terminal's signals, from its first moment on."""
    theirs = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, theirs)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_ahead(assignment: Assignment) -> None:
    """Lets the system read the files of a task while others are computed."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in assignment.task.inputs:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
