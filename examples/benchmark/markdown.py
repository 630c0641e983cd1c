"""Markdown of a page of results."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence

import numpy as np

import rawcodec


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns whose head ends with ``:`` are aligned right, without the colon."""
    right = [head.endswith(":") for head in heads]
    lines = [
        _line([head.removesuffix(":") for head in heads]),
        _line(["---:" if r else "---" for r in right]),
        *(_line([str(cell) for cell in row]) for row in rows),
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(*blocks: str) -> str:
    """Headings, paragraphs and tables, one empty line between them."""
    return "\n\n".join(blocks) + "\n"


def yes(answer: bool) -> str:
    """How a table says yes and no; a no stands out."""
    return "yes" if answer else "**NO**"


def versions() -> str:
    """A sentence that says with what, and on what machine, a page was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"Measured with rawcodec {rawcodec.__version__}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, on {platform.system()} {platform.machine()} with {cores} CPU "
        "cores."
    )
