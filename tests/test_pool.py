"""Tasks in processes: how many at a time, in how much memory, with how many threads.

The tasks only wait, and write down when they began and ended.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rawcodec.batch.engine import Bounds
from rawcodec.batch.memory import available
from rawcodec.batch.pool import Pool
from rawcodec.batch.worker import Assignment, Outcome
from rawcodec.work.task import IDLE, Done

MEMORY = 10 * IDLE


@dataclass(frozen=True)
class Waits:
    """Takes ``seconds``, and a share of MEMORY; dies in the middle if ``code`` is given."""

    subject: Path
    share: float = 0.1
    seconds: float = 0.3
    code: int | None = None

    output = None
    force = False
    inputs = ()

    @property
    def values(self) -> dict[str, Any]:
        return {}

    def prepare(self) -> None:
        pass

    def is_done(self) -> bool:
        return False

    def memory(self) -> int:
        return int(self.share * MEMORY)

    def run(self) -> Done:
        began = time.monotonic()
        time.sleep(self.seconds)
        if self.code is not None:
            os._exit(self.code)
        threads = int(os.environ["OMP_NUM_THREADS"])
        values = {"from": began, "to": time.monotonic(), "process": os.getpid(), "threads": threads}
        return Done(json.dumps(values), values)


def ran(tasks: list[Waits], **bounds: Any) -> dict[str, Outcome]:
    """What became of tasks, by name."""
    ended: dict[str, Outcome] = {}

    def note(index: int, outcome: Outcome) -> None:
        assert tasks[index].subject.name not in ended
        ended[tasks[index].subject.name] = outcome

    limits = {"jobs": 2, "cores": 2, "memory": MEMORY, "strict": False, **bounds}
    Pool([Assignment(task) for task in tasks], Bounds(**limits)).run(note)
    return ended


def overlap(first: Outcome, second: Outcome) -> bool:
    return bool(
        first.values["from"] < second.values["to"] and second.values["from"] < first.values["to"]
    )


def test_tasks_run_side_by_side_and_share_the_cores() -> None:
    ended = ran([Waits(Path(name), seconds=2) for name in "ab"], cores=6)
    assert overlap(ended["a"], ended["b"])
    assert [outcome.values["threads"] for outcome in ended.values()] == [3, 3]
    assert len({outcome.values["process"] for outcome in ended.values()}) == 2


def test_one_at_a_time_has_all_cores_and_one_process() -> None:
    ended = ran([Waits(Path(name)) for name in "abc"], jobs=1, cores=6)
    assert [outcome.values["threads"] for outcome in ended.values()] == [6, 6, 6]
    assert len({outcome.values["process"] for outcome in ended.values()}) == 1


def test_tasks_that_do_not_fit_together_wait_for_one_another() -> None:
    ended = ran([Waits(Path(name), share=0.6) for name in "abc"], cores=4)
    assert not any(
        overlap(ended[one], ended[other]) for one in "abc" for other in "abc" if one < other
    )
    # each has the machine for itself
    assert [outcome.values["threads"] for outcome in ended.values()] == [4, 4, 4]


def test_a_task_too_large_runs_alone_or_fails_where_the_bound_was_asked_for() -> None:
    tasks = [Waits(Path("large"), share=1.5), Waits(Path("small"))]
    assert {outcome.status for outcome in ran(tasks).values()} == {"done"}
    ended = ran(tasks, strict=True)
    assert ended["small"].status == "done"
    assert ended["large"] == Outcome(
        "failed",
        "large: takes about 4.7 GB of memory, more than --max-memory; give it more",
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_ends_fails_its_task_alone(jobs: int) -> None:
    tasks = [Waits(Path("a")), Waits(Path("b"), code=7), Waits(Path("c")), Waits(Path("d"))]
    ended = ran(tasks, jobs=jobs)
    assert {name: outcome.status for name, outcome in ended.items()} == {
        "a": "done",
        "b": "failed",
        "c": "done",
        "d": "done",
    }
    assert ended["b"].line == (
        "b: the process that worked on it ended by itself (code 7); try fewer --jobs"
    )


def test_what_is_available_is_less_than_the_machine_has() -> None:
    assert 0 < available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
