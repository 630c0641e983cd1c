"""Markdown of a page of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
