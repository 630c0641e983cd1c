"""How much memory there is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")

_SHARE: Final = 0.75
"""Of the memory that is free now, what a batch takes unless it is told."""

_UNKNOWN: Final = 4 << 30
"""Bytes that are supposed to be free where the system does not say."""


def default_limit() -> int:
    """Bytes that a batch may take."""
    return int(_SHARE * available())


def available() -> int:
    """Bytes that programs can take now, within the limits of the process's own groups."""
    found = list(_in_groups())
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    if not found:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has none
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(found, default=_UNKNOWN)


def _in_groups() -> Iterator[int]:
    """What is left of the limit of each control group that the process is in (Linux, version 2)."""
    with contextlib.suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2]
        group = _GROUPS / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder == _GROUPS.parent:
                break
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").open())
                # files that are kept in memory make room
                yield max(0, limit - used + int(stat["inactive_file"]))
