"""The same tasks on Ray: in processes of this machine, or of machines that see the same files.

Ray decides where a task runs, by the cores and the memory that it is said to take. What is tried
again is decided here: a process that was killed may have written its output before.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TextIO

from ..errors import EngineError
from ..process import give_back, tune
from ..work.task import IDLE, Task
from .engine import PATIENCE, TICK
from .worker import Assignment, Outcome, begin, finish, refused

RETRIES: Final = 2
"""How often a task is tried again whose process was killed, or whose machine is gone."""

_STORE: Final = 100 << 20
"""Bytes for what Ray passes between processes, which is next to nothing: its least is 75 MB."""

_SLICE: Final = 0.01
"""Share of a GPU that a task asks for: it must be there, and the tasks share it."""


@dataclass(frozen=True)
class Place:
    """Where the work is done, and how much of it at a time.

    address: of a cluster, in Ray's form; None to start one in this machine, which ends with the
    batch. jobs: tasks at a time; as many as there are cores if None. cores, memory: of this machine
    for a cluster that is started. limit: bytes for all tasks, as far as they are known; a task that
    takes more by itself fails. None for what the machines have.
    """

    address: str | None
    jobs: int | None
    cores: int
    memory: int
    limit: int | None


@dataclass(frozen=True)
class _Step:
    """Something that runs. need: bytes, once they are known."""

    index: int
    ref: Any
    need: int | None = None


class Cluster:
    """Does assignments on Ray; an :class:`.engine.Engine`."""

    def __init__(self, assignments: Sequence[Assignment], place: Place) -> None:
        """Raises EngineError where Ray is not installed."""
        self._ray = _imported()
        self._assignments = list(assignments)
        self._place = place
        self._folder = str(Path.cwd())
        self._queue = deque(range(len(assignments)))
        self._ready: deque[tuple[int, int]] = deque()  # with what they need, in order
        self._deaths: Counter[int] = Counter()
        self._steps: dict[int, _Step] = {}
        # not ray.wait: it answers signals itself
        self._inbox: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._numbers = iter(range(1 << 62))

    def run(
        self, ended: Callable[[int, Outcome], None], tick: Callable[[], None] = lambda: None
    ) -> None:
        """See ``Engine.run``. Raises EngineError where no cluster answers."""
        with self._connected():
            try:
                while self._queue or self._ready or self._steps:
                    self._submit(ended)
                    with contextlib.suppress(queue.Empty):
                        self._receive(*self._inbox.get(timeout=TICK), ended)
                    tick()
            finally:
                self._stop()

    def _submit(self, ended: Callable[[int, Outcome], None]) -> None:
        """Hands to Ray what may run beside what runs."""
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        jobs = self._place.jobs or max(1, cores)
        while self._ready:
            index, need = self._ready[0]
            taken = [step.need for step in self._steps.values() if step.need is not None]
            limit = self._place.limit
            if limit is not None and need > limit:
                ended(index, refused(self._assignments[index].task, need))
            elif limit is not None and taken and sum(taken) + need > limit:
                break
            else:
                tasks = len(self._queue) + len(self._ready) + len(self._steps)
                threads, memory = self._fitting(max(1, cores // min(jobs, tasks)), need)
                self._start(index, _finish, threads, memory, need, threads)
            self._ready.popleft()
        while self._queue and len(self._steps) + len(self._ready) < jobs:
            self._start(self._queue.popleft(), _begin, *self._fitting(1, IDLE), None)

    def _fitting(self, cores: int, memory: int) -> tuple[int, int]:
        """Cores and memory as one machine has them: Ray waits for ever for one that has more."""
        machines = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        machines = [each for each in machines if each.get("CPU", 0) >= 1]
        memory = min(memory, max((int(each["memory"]) for each in machines), default=memory))
        fitting = [int(each["CPU"]) for each in machines if each["memory"] >= memory]
        return min(cores, max(fitting, default=cores)), memory

    def _start(
        self,
        index: int,
        step: Callable[..., Outcome | int],
        cores: int,
        memory: int,
        need: int | None,
        *arguments: Any,
    ) -> None:
        assignment = self._assignments[index]
        gpus = 0.0
        if assignment.task.device == "cuda" and self._ray.cluster_resources().get("GPU"):
            gpus = _SLICE
        remote = self._ray.remote(step).options(
            num_cpus=cores,
            num_gpus=gpus,
            memory=memory,
            max_retries=0,
            name=f"rawcodec {step.__name__[1:]}",
        )
        ref = remote.remote(self._folder, assignment, *arguments)
        number = next(self._numbers)
        self._steps[number] = _Step(index, ref, need)
        ref.future().add_done_callback(lambda future: self._inbox.put((number, future)))

    def _receive(
        self, number: int, future: Future[Any], ended: Callable[[int, Outcome], None]
    ) -> None:
        """What came of a step; it is forgotten."""
        index = self._steps.pop(number).index
        lost = self._ray.exceptions
        try:
            message = future.result()
        except (
            lost.WorkerCrashedError,
            lost.OutOfMemoryError,
            lost.NodeDiedError,
            lost.LocalRayletDiedError,
            lost.ObjectLostError,
        ):
            message = self._died(index)
        except lost.RayError as error:
            kind = type(getattr(error, "cause", None) or error).__name__
            subject = self._assignments[index].task.subject
            message = Outcome(
                "failed",
                f"{subject}: Ray cannot work on it ({kind}); have the same rawcodec and Ray on all "
                f"machines of the cluster",
            )
        if isinstance(message, Outcome):
            ended(index, message)
        elif message is not None:
            self._ready.append((index, message))

    def _died(self, index: int) -> Outcome | None:
        """Has the task done once more; the failure, if that was tried often enough."""
        self._deaths[index] += 1
        assignment = self._assignments[index]
        if self._deaths[index] > RETRIES:
            return Outcome(
                "failed",
                f"{assignment.task.subject}: the process that worked on it was killed "
                f"{self._deaths[index]} times, for want of memory perhaps; try fewer --jobs",
            )
        if not assignment.task.force:  # else what is there may be what is to be replaced
            self._assignments[index] = replace(assignment, skip=True)
        self._queue.appendleft(index)
        return None

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Within, Ray can be asked for work; signals stay with who has them."""
        place, ray = self._place, self._ray
        common = {"log_to_driver": False, "configure_logging": False}
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(_OneVoice(sys.stdout)))
            stack.enter_context(contextlib.redirect_stderr(_OneVoice(sys.stderr)))
            if place.address is None:
                # its logs and sockets; the names of sockets must be short
                options = {
                    "address": "local",
                    "num_cpus": place.cores,
                    "object_store_memory": _STORE,
                    "include_dashboard": False,
                    "_memory": place.limit or place.memory,
                    "_node_ip_address": "127.0.0.1",
                    "_temp_dir": stack.enter_context(
                        tempfile.TemporaryDirectory(
                            prefix="rawcodec-ray-", ignore_cleanup_errors=True
                        )
                    ),
                }
            else:
                _check_answer(place.address)
                options = {"address": place.address}
            stack.callback(ray.shutdown)
            with _signals_kept():
                try:
                    ray.init(**options, **common)
                except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
                    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise _unusable(place.address, said.rstrip(".")) from error
            yield

    def _stop(self) -> None:
        """Ends what runs, which cleans up."""
        left = [step.ref for step in self._steps.values()]
        self._steps.clear()
        for force in (False, True):
            for ref in left:
                with contextlib.suppress(Exception):
                    self._ray.cancel(ref, force=force)
            if left:
                _, left = self._ray.wait(left, num_returns=len(left), timeout=PATIENCE)


def _imported() -> ModuleType:
    """Ray, told to be quiet and to report to nobody."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise EngineError(
            "--engine ray: Ray is not installed; pip install 'rawcodec[ray]', or leave it out"
        ) from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


class _OneVoice(io.TextIOBase):
    """A stream that only this thread writes to: threads of Ray's tell what a batch tells itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


def _check_answer(address: str) -> None:
    """Raises EngineError where nobody listens: Ray itself tries for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # auto, and what Ray refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _unusable(address, getattr(error, "strerror", None) or str(error)) from error


def _unusable(address: str | None, reason: str) -> EngineError:
    cluster = "no Ray starts here" if address is None else f"no Ray answers at {address}"
    return EngineError(f"--engine ray: {cluster} ({reason}); check Ray, or leave --engine out")


@contextmanager
def _signals_kept() -> Iterator[None]:
    """What is done within leaves no handler of its own behind."""
    mine = threading.current_thread() is threading.main_thread()
    kept = (signal.SIGINT, signal.SIGTERM) if mine else ()
    before = {each: signal.getsignal(each) for each in kept}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _begin(folder: str, assignment: Assignment) -> Outcome | int:
    """``begin``, on Ray. folder: that of the command."""
    return _enter(folder, assignment.task) or begin(assignment)


def _finish(folder: str, assignment: Assignment, threads: int) -> Outcome:
    """``finish``, on Ray."""
    strange = _enter(folder, assignment.task)
    if strange is not None:
        return strange
    try:
        return finish(assignment.task, threads)
    finally:
        give_back()


def _enter(folder: str, task: Task) -> Outcome | None:
    """Sets up a process of Ray's, which does one task after another; the failure, if any."""
    tune()
    try:
        os.chdir(folder)
    except OSError as error:
        return Outcome(
            "failed",
            f"{task.subject}: the machine {os.uname().nodename} does not see the folder {folder} "
            f"({error.strerror}); let all machines see the same files",
        )
    return None
