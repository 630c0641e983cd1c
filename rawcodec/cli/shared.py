"""What the commands share: options, and lines for a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..errors import OutputError

PATH: Final = click.Path(path_type=Path)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def device_option(function: _Function) -> _Function:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute. The result is the same.",
    )(function)


def force_option(function: _Function) -> _Function:
    return click.option("--force", is_flag=True, help="Replace the output if it exists.")(function)


def say(line: str) -> None:
    write(printable(line))


def write(line: str) -> None:
    """A line on standard output, which may be a file on a full disk."""
    try:
        click.echo(line)
    except BrokenPipeError:
        raise  # who reads has seen enough; click ends the program for it
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}; check where it goes") from error


def complain(line: str) -> None:
    click.echo(printable(line), err=True)


def printable(line: str) -> str:
    """The text on one line: a name may hold line ends, or codes that upset a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
