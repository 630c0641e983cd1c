"""Rows in bands, several at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def over_bands(
    first: int, last: int, size: int, task: Callable[[int, int], None], threads: int | None = None
) -> None:
    """Call ``task`` with the first and the last row of each band from ``first`` to ``last``.

    threads: at a time; as many as torch has if None. Torch has one in each of them, since much of
    a task is not in its layers.
    """
    tops = range(first, last, size)
    bottoms = [min(top + size, last) for top in tops]
    there = torch.get_num_threads()
    count = there if threads is None else threads
    if count == 1 or len(tops) < 2:
        for top, bottom in zip(tops, bottoms, strict=True):
            task(top, bottom)
        return
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(task, tops, bottoms):
                pass  # draws the exceptions out
    finally:
        torch.set_num_threads(there)  # what its initialiser sets is not of its threads alone
