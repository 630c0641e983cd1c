"""Fixtures shared by all tests."""

from __future__ import annotations

import lzma
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real"

Real = Callable[[str], Path]


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the tests share the cores too.

    Each would start as many threads as there are cores, and those of the others
    would wait for them. Set before torch is imported, and for commands that a
    test starts; tests of threads name their number.
    """
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // worker["workercount"])))


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Finds a real camera's file by name, unpacked: ``real("GOPR0024.dng")``.

    The files lie beside the checkout, in ``shared/data/real``; a test that asks
    for one is skipped where they are missing. Each is unpacked once a session.
    """
    cache = tmp_path_factory.mktemp("real")

    def find(name: str) -> Path:
        if not REAL.is_dir():
            pytest.skip(f"no real photos: {REAL} is missing")
        if (REAL / name).is_file():
            return REAL / name
        packed = REAL / f"{name}.xz"
        if not packed.is_file():
            pytest.skip(f"no such real photo: {REAL / name}")
        unpacked = cache / name
        if not unpacked.exists():
            with lzma.open(packed) as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target)
        return unpacked

    return find


@pytest.fixture
def no_overflow() -> Iterator[None]:
    """What overflows, or divides by nothing, fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets PyTorch's threads, until the test ends."""
    import torch  # which the tests of the tone layer do without

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
