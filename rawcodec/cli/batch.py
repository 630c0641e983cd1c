"""What the commands do to many photos: options, and the way from files to the summary."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ..errors import EngineError, RawcodecError
from .report import Report
from .shared import PATH

if TYPE_CHECKING:
    from ..batch.engine import Engine
    from ..batch.sources import Found, Kind, Photo
    from ..batch.worker import Assignment
    from ..work.task import Task

_Function = TypeVar("_Function", bound=Callable[..., Any])

_TYPICAL: Final = 2 << 30
"""Bytes of memory a job that the usual number of jobs supposes: a photo of 24 MP."""

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """The value of an option in bytes: 4000000000, 4G or 500M."""
    if value is None:
        return None
    text = value.upper().removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in tuple("KMGT") else (text, "")
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise click.BadParameter(f"{value} is not a size, such as 4000000000, 4G or 500M.")
    return size


def _share(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """The value of an option such as 1/4."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{value} is not a share, such as 1/4, 2/4, 3/4 or 4/4.")
    return int(found[1]), int(found[2])


def batch_options(*, writes: bool) -> Callable[[_Function], _Function]:
    """The options of many photos; every one of them makes a command one of many photos.

    writes: the command writes files.
    """
    options = [
        click.option(
            "-r", "--recursive", is_flag=True, help="Take folders, with the folders in them."
        ),
        click.option(
            "--pairs",
            type=click.Path(path_type=Path, allow_dash=True),
            metavar="FILE",
            help="Take the pairs of a list too: two paths a line with a tab between them, or each "
            "path ended by a NUL; - reads standard input.",
        ),
        click.option(
            "--output-dir",
            type=PATH,
            metavar="DIR",
            help="Write there, in folders like those of the photos.  [default: beside them]",
        ),
        click.option(
            "--skip-existing",
            is_flag=True,
            help="Leave out what is done: outputs that are whole and made of these very files.",
        ),
        click.option("--dry-run", is_flag=True, help="Tell what would be done; do nothing."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line and photo."),
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(1),
            metavar="N",
            help="Photos at a time.  [default: one a core, as far as memory goes]",
        ),
        click.option(
            "--max-memory",
            callback=_size,
            metavar="BYTES",
            help="For all jobs, such as 6G.  [default: three quarters of what is free]",
        ),
        click.option(
            "--shard",
            callback=_share,
            metavar="I/N",
            help="Take one of N shares: 1/4, 2/4, 3/4 or 4/4 on four machines.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            help="Work in processes of this machine, or on Ray.  [default: local]",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            help="Of a Ray cluster whose machines see the same files; auto finds one that runs "
            "here.  [default: start one here]",
        ),
    ]
    if not writes:
        options = [options[0], *options[5:]]

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def jpegs_option(function: _Function) -> _Function:
    """Of commands that begin with sidecars; it is one of many photos too."""
    return click.option(
        "--jpegs",
        type=PATH,
        metavar="DIR",
        help="Look for the JPEGs there, in folders like those of the sidecars.  "
        "[default: beside them]",
    )(function)


@dataclass(frozen=True)
class Batch:
    """The options of many photos, as they were given; see ``batch_options``."""

    recursive: bool = False
    pairs: Path | None = None
    output_dir: Path | None = None
    skip_existing: bool = False
    dry_run: bool = False
    as_json: bool = False
    jobs: int | None = None
    max_memory: int | None = None
    shard: tuple[int, int] | None = None
    engine: str = "local"
    address: str | None = None
    jpegs: Path | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Batch:
        """Takes them out of a command's options; click.UsageError if they do not go together."""
        batch = cls(**{name: options.pop(name) for name in cls.__annotations__ if name in options})
        if batch.address is not None and batch.engine != "ray":
            raise click.UsageError("--address goes with --engine ray")
        return batch

    @property
    def is_asked_for(self) -> bool:
        """True if any was given."""
        return self != Batch()


def one_photo(files: Sequence[Path], kind: Kind, batch: Batch, output: Path | None) -> bool:
    """True where a command is of one photo, False where it is of many.

    Raises click.UsageError for what is of none, and for an output of many.
    """
    from ..batch.sources import is_one_photo

    if not files and batch.pairs is None:
        raise click.UsageError("name a photo, folders with -r, or a list with --pairs")
    if output is not None:
        if batch.is_asked_for or len(files) > 2:
            raise click.UsageError("-o is for one photo; for many give --output-dir")
        return True
    return not batch.is_asked_for and is_one_photo(files, kind)


def run_batch(
    files: Sequence[Path],
    kind: Kind,
    batch: Batch,
    make: Callable[[Photo, Callable[[Path, str], Path]], Task],
    keys: Sequence[str],
    report: Report | None = None,
) -> int:
    """Does to each photo of the files what a task of it does; returns the exit code.

    make: the task of a photo, told how to name its output: after a file, with a suffix.
    keys: those of a task's values, for what is no photo. report: see ``Report``.
    """
    from ..batch.sources import Photo

    found = _found(files, kind, batch)
    report = report or Report(as_json=batch.as_json, keys=keys)
    tasks = []
    for each in found:
        if isinstance(each, Photo):
            tasks.append(make(each, _namer(batch, each)))
        else:
            report.problem(each)
    tasks, clashes = _without_clashes(tasks)
    for task, message in clashes:
        report.failed(task, message)
    if batch.dry_run:
        for task in tasks:
            _foretell(task, batch, report)
        report.finish()
    elif tasks:
        _do(tasks, batch, report)
    else:
        report.finish()
    return 1 if report.count("failed") else 0


def _found(files: Sequence[Path], kind: Kind, batch: Batch) -> list[Found]:
    """What this share of the batch is of."""
    from ..batch.sources import Shard, UnknownKindError, find, read_pairs

    pairs: list[tuple[Path, Path]] = []
    if batch.pairs is not None:
        pairs = read_pairs(_read(batch.pairs), str(batch.pairs))
    try:
        found = find(files, kind, recursive=batch.recursive, pairs=pairs, jpegs=batch.jpegs)
    except UnknownKindError as error:
        raise click.UsageError(str(error)) from error
    if not found:
        source = files[0] if files else batch.pairs
        raise RawcodecError(f"{source}: there is no {kind.name} in it; name another")
    if batch.shard is not None:
        shard = Shard(*batch.shard)
        found = [each for each in found if shard.keeps(each)]
    return found


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise RawcodecError(f"{path}: cannot be read ({error.strerror}); check the name") from error


def _namer(batch: Batch, photo: Photo) -> Callable[[Path, str], Path]:
    """Names a photo's output after a file of it: beside that, or where the tree is mirrored."""
    from ..pairing import named_after

    def name(path: Path, suffix: str) -> Path:
        beside = named_after(path, suffix)
        if batch.output_dir is None:
            return beside
        return batch.output_dir / photo.place / beside.name

    return name


def _without_clashes(tasks: Sequence[Task]) -> tuple[list[Task], list[tuple[Task, str]]]:
    """The tasks whose output is theirs alone, and the others with what is wrong."""
    from ..pairing import identity

    by_output: dict[Path | None, list[Task]] = {}
    outputs = [None if task.output is None else identity(task.output) for task in tasks]
    for task, output in zip(tasks, outputs, strict=True):
        by_output.setdefault(output, []).append(task)
    kept, clashes = [], []
    for task, output in zip(tasks, outputs, strict=True):
        others = [each for each in by_output[output] if each is not task]
        if output is not None and others:
            message = (
                f"{task.subject}: would be written as {task.output}, like {others[0].subject}; "
                f"give one of them another --output-dir"
            )
            clashes.append((task, message))
        else:
            kept.append(task)
    return kept, clashes


def _foretell(task: Task, batch: Batch, report: Report) -> None:
    """Tells what would become of a task."""
    from ..batch.worker import check_free

    try:
        if batch.skip_existing and task.is_done():
            report.ended(task, "skipped", f"{task.output}: is there already, and right; skipped")
            return
        check_free(task)
    except RawcodecError as error:
        report.failed(task, str(error))
    else:
        sources = " and ".join(map(str, task.inputs))
        report.ended(task, "planned", f"{task.output}: would be written from {sources}")


def _do(tasks: Sequence[Task], batch: Batch, report: Report) -> None:
    """Does the tasks; where it is interrupted, tells what is left."""
    from ..batch.worker import Assignment

    assignments = [
        Assignment(task, skip=batch.skip_existing, make_folder=batch.output_dir is not None)
        for task in tasks
    ]
    left = dict.fromkeys(range(len(tasks)))

    def ended(index: int, status: str, line: str, values: dict[str, Any]) -> None:
        del left[index]
        report.ended(tasks[index], status, line, values)

    def close() -> None:
        for index in left:
            report.left(tasks[index])
        report.finish()

    try:
        with report.progress(len(tasks)) as tick:
            engine = _engine(batch, assignments)
            engine.run(lambda n, o: ended(n, o.status, o.line, o.values), tick)
    except EngineError:
        raise  # of the photos there is nothing to tell
    except BaseException:
        close()
        raise
    close()


def _engine(batch: Batch, assignments: Sequence[Assignment]) -> Engine:
    """What does the work."""
    from ..batch.memory import default_limit
    from ..cores import thread_count

    cores, memory = thread_count(), batch.max_memory or default_limit()
    if batch.engine == "ray":
        from ..batch.cluster import Cluster, Place

        place = Place(batch.address, batch.jobs, cores, memory, limit=batch.max_memory)
        return Cluster(assignments, place)

    from ..batch.engine import Bounds
    from ..batch.pool import Pool
    from ..work.task import IDLE

    jobs = batch.jobs or min(cores, memory // _TYPICAL)
    jobs = min(jobs, memory // IDLE, len(assignments))  # those that wait take memory too
    return Pool(
        assignments, Bounds(max(1, jobs), cores, memory, strict=batch.max_memory is not None)
    )
