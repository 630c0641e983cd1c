"""Folders on Ray: the same outputs, whatever happens to its processes.

The cluster has two machines of one core, both of them this one: two processes do the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pairs import scene, write_jpeg, write_raw

import rawcodec
from rawcodec.batch.cluster import Cluster, Place
from rawcodec.batch.worker import Assignment, Outcome
from rawcodec.work.task import IDLE, Done

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))}
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the cluster answers."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rawcodec[ray]'")
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        size = {"num_cpus": 1, "object_store_memory": 100 << 20, "memory": 4 << 30}
        machines = Machines(initialize_head=True, head_node_args=size)
        try:
            machines.add_node(**size)
            yield machines.address
        finally:
            machines.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos, all alike; in ``good`` the sidecar and the TIFF of one."""
    folder = tmp_path_factory.mktemp("photos")
    light = scene(203, 301)
    raw = write_raw(folder / "a.dng", light, ("RG", "GB"))
    jpeg = write_jpeg(folder / "a.jpg", light)
    for name in NAMES[1:]:
        shutil.copyfile(raw, folder / f"{name}.dng")
        shutil.copyfile(jpeg, folder / f"{name}.jpg")
    (folder / "good").mkdir()
    (folder / "good" / "a.rmeta").write_bytes(rawcodec.encode(raw, jpeg, quality="low"))
    return folder


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    """A folder with a folder of photos."""
    shutil.copytree(photos, tmp_path / "in", ignore=lambda *_: ["good"])
    return tmp_path


def started(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rawcodec", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        **options,
    )


def working(cwd: Path) -> list[int]:
    """Processes of Ray that work on a photo of this command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title, place = (process / "cmdline").read_bytes(), (process / "cwd").readlink()
            if title.startswith(b"ray::") and b"finish" in title and place == cwd:
                found.append(int(process.name))
    return found


def killed(process: subprocess.Popen[str], cwd: Path, number: int) -> int:
    """Sends a signal to the first process that works; returns which one it is."""
    while process.poll() is None:
        for each in working(cwd):
            os.kill(each, number)
            return each
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def test_a_process_that_is_killed_costs_no_photo(address: str, folder: Path, photos: Path) -> None:
    """Encoding, two photos at a time; the second run finds all of them done."""
    arguments = ("--quality", "low", "--engine", "ray", "--address", address, "--json")
    process = started("encode", "-r", "in", *arguments, "--output-dir", "out", cwd=folder)
    dead = killed(process, folder, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    told = {line["path"]: line for line in map(json.loads, out.splitlines())}
    assert {path: line["status"] for path, line in told.items()} == {
        f"in/{name}.dng": "done" for name in NAMES
    }
    assert told["in/a.dng"]["sidecar"] == "out/a.rmeta"
    assert re.fullmatch(r"4 done, \d+\.\d s\n", err)
    assert not Path(f"/proc/{dead}").exists()
    for name in NAMES:
        made = (folder / "out" / f"{name}.rmeta").read_bytes()
        assert made == (photos / "good" / "a.rmeta").read_bytes()

    again = started(
        "encode", "-r", "in", *arguments, "--output-dir", "out", "--skip-existing", cwd=folder
    )
    out, err = again.communicate(timeout=300)
    assert re.fullmatch(r"4 skipped, \d+\.\d s\n", err)


def test_an_interruption_names_what_is_left_and_leaves_nothing_behind(
    folder: Path, photos: Path
) -> None:
    """With a Ray of the command's own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rawcodec[ray]'")
    (folder / "in" / "a.dng").write_bytes(b"no raw" * 1000)
    process = started(
        *("encode", "-r", "in", "--engine", "ray", "--jobs", "1", "--quality", "low"),
        cwd=folder,
        start_new_session=True,
    )
    while process.poll() is None and not working(folder):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    first, *left, last = err.splitlines()
    assert first.startswith("in/a.dng: is not a raw")
    assert left == [f"in/{n}.dng: is left undone; run the same command again" for n in "bcd"]
    assert last == "rawcodec: interrupted"
    assert re.fullmatch(r"1 failed, 3 left, \d+\.\d s\n", out)
    assert not working(folder)
    assert not [path for path in (folder / "in").iterdir() if path.suffix in (".rmeta", ".part")]


@dataclass(frozen=True)
class Dies:
    """Kills its own process, so many times; writes a line for each try."""

    subject: Path
    times: int
    share: float = 0.1

    inputs = ()
    force = False
    device = "cpu"
    values: Any = None

    @property
    def output(self) -> Path:
        return self.subject.with_suffix(".out")

    def prepare(self) -> None:
        pass

    def is_done(self) -> bool:
        return self.output.exists()

    def memory(self) -> int:
        return int(self.share * 10 * IDLE)

    def run(self) -> Done:
        with self.subject.open("a") as file:
            print(os.getpid(), os.environ["OMP_NUM_THREADS"], file=file)
        if len(self.subject.read_text().splitlines()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return Done("done", {"process": os.getpid()})


def ran(tasks: list[Any], place: Place) -> dict[str, Outcome]:
    """What became of tasks, by name."""
    ended: dict[str, Outcome] = {}

    def note(index: int, outcome: Outcome) -> None:
        assert tasks[index].subject.name not in ended
        ended[tasks[index].subject.name] = outcome

    before = signal.getsignal(signal.SIGTERM)
    Cluster([Assignment(task) for task in tasks], place).run(note)
    assert signal.getsignal(signal.SIGTERM) == before
    return ended


def test_a_task_whose_process_dies_is_tried_again_a_few_times(address: str, tmp_path: Path) -> None:
    tasks = [Dies(tmp_path / f"{times}", times) for times in (0, 1, 2, 3)]
    tasks += [Dies(tmp_path / "large", 0, 0.5), Dies(tmp_path / "there", 0)]
    tasks[-1].output.touch()
    ended = ran(tasks, Place(address, jobs=None, cores=1, memory=0, limit=4 * IDLE))
    assert {name: outcome.status for name, outcome in ended.items()} == {
        "0": "done",
        "1": "done",
        "2": "done",
        "3": "failed",
        "large": "failed",
        "there": "failed",
    }
    assert ended["3"].line == (
        f"{tmp_path}/3: the process that worked on it was killed 3 times, for want of memory "
        f"perhaps; try fewer --jobs"
    )
    assert "more than --max-memory" in ended["large"].line
    assert "already exists" in ended["there"].line
    tries = [line.split() for line in (tmp_path / "2").read_text().splitlines()]
    assert len({process for process, _ in tries}) == 3
    assert {threads for _, threads in tries} == {"1"}


def test_what_no_machine_has_is_not_waited_for(address: str, tmp_path: Path) -> None:
    """Ray would wait for ever for a machine of six cores, or of so much memory."""
    task = Dies(tmp_path / "huge", 0, share=1e6)
    ended = ran([task], Place(address, jobs=1, cores=6, memory=0, limit=None))
    assert ended["huge"].status == "done"


def test_ray_that_is_not_there_is_one_line(folder: Path) -> None:
    def fails(code: int, *arguments: str, **more: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", "rawcodec", "encode", "-r", "in", *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**ENVIRONMENT, **more},
            check=False,
        )
        assert (process.returncode, process.stdout) == (code, "")
        return process.stderr

    (folder / "none").mkdir()
    (folder / "none" / "ray.py").write_text("raise ImportError")
    path = os.pathsep.join([str(folder / "none"), ENVIRONMENT["PYTHONPATH"]])
    assert fails(1, "--engine", "ray", PYTHONPATH=path) == (
        "--engine ray: Ray is not installed; pip install 'rawcodec[ray]', or leave it out\n"
    )
    assert "--address goes with --engine ray" in fails(2, "--address", "auto")
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rawcodec[ray]'")
    told = fails(1, "--engine", "ray", "--address", "127.0.0.1:1")
    assert re.fullmatch(r"--engine ray: no Ray answers at 127.0.0.1:1 \([^\n]+\n", told)
