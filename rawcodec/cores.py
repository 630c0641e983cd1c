"""How many threads to use; imports the standard library only."""

from __future__ import annotations

import os


def thread_count() -> int:
    """Threads to use: OMP_NUM_THREADS, or as many as the process has processors."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
