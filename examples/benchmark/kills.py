"""What is left of a command that is killed at any moment: docs/results/kills.md.

Each trial starts a command in a folder of its own, kills it (SIGKILL, which no program can answer)
after a time by chance, looks at all files, and runs the command again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tifffile

import rawcodec
from rawcodec.errors import RawcodecError
from rawcodec.mosaic import mosaic_digest
from rawcodec.photo.raw import read_raw

from .markdown import page, table, versions, yes
from .process import CHECKOUT

COMMAND = "python -m examples.benchmark kills"

GOLDEN = CHECKOUT / "tests" / "golden"
_PATIENCE = 60.0
"""Seconds in which the processes of a killed batch must end."""


@dataclass(frozen=True)
class Task:
    """A command. arguments: of rawcodec; again: of the run that repairs. outputs: names."""

    name: str
    arguments: tuple[str, ...]
    again: tuple[str, ...]
    outputs: tuple[str, ...]


TASKS = (
    Task(
        "encode",
        ("encode", "a.dng", "a.jpg", "-o", "new.rmeta"),
        ("encode", "a.dng", "a.jpg", "-o", "new.rmeta", "--force"),
        ("new.rmeta",),
    ),
    Task(
        "encode --force",
        ("encode", "a.dng", "a.jpg", "--force", "--quality", "tone"),
        ("encode", "a.dng", "a.jpg", "--force", "--quality", "tone"),
        ("a.rmeta",),
    ),
    Task(
        "decode to TIFF",
        ("decode", "a.jpg", "a.rmeta", "-o", "a.tiff"),
        ("decode", "a.jpg", "a.rmeta", "-o", "a.tiff", "--force"),
        ("a.tiff",),
    ),
    Task(
        "decode to DNG",
        ("decode", "a.jpg", "a.rmeta", "-o", "back.dng"),
        ("decode", "a.jpg", "a.rmeta", "-o", "back.dng", "--force"),
        ("back.dng",),
    ),
    Task(
        "a folder",
        ("encode", "-r", ".", "--skip-existing", "--output-dir", "out", "--quality", "low"),
        ("encode", "-r", ".", "--skip-existing", "--output-dir", "out", "--quality", "low"),
        ("out/a.rmeta", "out/b.rmeta", "out/c.rmeta"),
    ),
)


@dataclass(frozen=True)
class Trial:
    """What came of one.

    whole: the process had ended by itself. made: outputs with their final names after the kill.
    left: files under other names. fault: what is wrong; empty if nothing is.
    """

    task: Task
    seconds: float
    whole: bool
    made: int
    left: int
    fault: str


def run_all(out: Path, scratch: Path, trials: int) -> None:
    """Kill every command at many moments, and write ``kills.md`` to ``out``."""
    rng = random.Random(1)
    longest = {task: _time(task, scratch / "timed") for task in TASKS}
    done = []
    for number in range(trials):
        task = TASKS[number % len(TASKS)]
        seconds = rng.uniform(0.05, 1.05 * longest[task])
        done.append(_trial(task, scratch / f"trial-{number}", seconds, group=rng.random() < 0.5))
        print(f"{number + 1}: {task.name}: {done[-1].fault or 'fine'}", file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "kills.md").write_text(write(done), encoding="utf-8")


def _prepare(folder: Path) -> dict[Path, bytes]:
    """The sources, in a new folder: digests by path."""
    folder.mkdir(parents=True)
    for name in "abc":
        shutil.copy(GOLDEN / "xtrans.dng", folder / f"{name}.dng")
        shutil.copy(GOLDEN / "xtrans.jpg", folder / f"{name}.jpg")
    shutil.copy(GOLDEN / "xtrans-max.rmeta", folder / "a.rmeta")
    (folder / "out").mkdir()
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _start(arguments: tuple[str, ...], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rawcodec", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _time(task: Task, folder: Path) -> float:
    _prepare(folder)
    started = time.perf_counter()
    if _start(task.arguments, folder).wait():
        raise RuntimeError(f"{task.name}: fails by itself")
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _trial(task: Task, folder: Path, seconds: float, *, group: bool) -> Trial:
    """group: all processes of a batch are killed at once, not the first alone."""
    sources = _prepare(folder)
    process = _start(task.arguments, folder)
    time.sleep(seconds)
    whole = process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    faults = [] if _ended(process.pid) else ["processes went on"]
    made = [folder / name for name in task.outputs if (folder / name).exists()]
    known = {*sources, *(folder / name for name in task.outputs)}
    left = [path for path in folder.rglob("*") if path.is_file() and path not in known]
    # an output that replaces a file may still be that file
    faults += _changed(sources, {folder / name for name in task.outputs})
    faults += [fault for path in made if (fault := _fault(path))]
    strange = [path.name for path in left if not path.name.startswith(".rawcodec-")]
    if strange:
        faults.append(f"there is {strange[0]}")
    if _start(task.again, folder).wait():
        faults.append("running it again fails")
    faults += _changed(sources, {folder / name for name in task.outputs})
    for name in task.outputs:
        if not (folder / name).exists():
            faults.append(f"running it again made no {name}")
        elif fault := _fault(folder / name):
            faults.append(f"after running it again: {fault}")
    shutil.rmtree(folder)
    return Trial(task, seconds, whole, len(made), len(left), "; ".join(faults))


def _ended(group: int) -> bool:
    """Whether all processes of a group end in time."""
    limit = time.perf_counter() + _PATIENCE
    while time.perf_counter() < limit:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False


def _changed(sources: dict[Path, bytes], replaced: set[Path]) -> list[str]:
    return [
        f"{path.name} was changed"
        for path, data in sources.items()
        if path not in replaced and (not path.exists() or path.read_bytes() != data)
    ]


def _fault(path: Path) -> str:
    """What is wrong with an output; empty if it is whole."""
    try:
        if path.suffix == ".rmeta":
            jpeg = GOLDEN / "xtrans.jpg"
            rawcodec.decode(jpeg, path, device="cpu")
            return ""
        wanted = rawcodec.inspect(GOLDEN / "xtrans-max.rmeta").mosaic_digest
        samples = read_raw(path).mosaic.samples if path.suffix == ".dng" else tifffile.imread(path)
        return "" if mosaic_digest(samples).hex() == wanted else f"{path.name} is another picture"
    except (RawcodecError, OSError, ValueError) as error:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        return f"{path.name} ({path.stat().st_size} bytes, {digest}) is damaged: {error}"


def write(trials: list[Trial]) -> str:
    """The page."""
    faults = [trial for trial in trials if trial.fault]
    verdict = (
        f"In none of {len(trials)} trials was there a damaged or partial file under a final name, "
        "or a source changed; and running the command again made all outputs."
        if not faults
        else f"**{len(faults)} of {len(trials)} trials went wrong.**"
    )
    count: Callable[[Callable[[Trial], bool]], Counter[str]] = lambda test: Counter(  # noqa: E731
        trial.task.name for trial in trials if test(trial)
    )
    all_, whole, some = count(lambda _: True), count(lambda t: t.whole), count(lambda t: t.made > 0)
    left, wrong = count(lambda t: t.left > 0), count(lambda t: bool(t.fault))
    return page(
        "# Killed at any moment",
        "A command is started, and killed (SIGKILL) after a time by chance, from 0.05 s to a "
        "little longer than it takes; in half of the trials with all processes that it started. "
        "Then all files under final names must be whole (sidecars decode to their digests, "
        "pictures have theirs) and all sources unchanged, and the same command, run again, must "
        "make what is missing. A temporary file may be left, under a name that begins with "
        "`.rawcodec-`, which nothing reads.",
        f"```\n{COMMAND} --trials {len(trials)}\n```",
        versions(),
        verdict,
        table(
            ["command", "trials:", "had ended:", "outputs there:", "temporary file left:", "fine"],
            [
                [
                    f"`{task.name}`" if task.name[0] == "e" else task.name,
                    *(counts[task.name] for counts in (all_, whole, some, left)),
                    yes(not wrong[task.name]),
                ]
                for task in TASKS
            ],
        ),
        *([f"- {trial.task.name}, after {trial.seconds:.2f} s: {trial.fault}" for trial in faults]),
    )
