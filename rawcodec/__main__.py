"""The command ``rawcodec``, and ``python -m rawcodec``, which is the same."""

from __future__ import annotations

from .process import leave, tune


def program() -> None:
    """Runs the command line in a process of its own."""
    tune()
    from .cli import main

    try:
        main()
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)
        raise


if __name__ == "__main__":
    program()
