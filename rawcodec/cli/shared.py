"""What the commands share: options, names of files, and lines for a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ..errors import OutputError, RawcodecError

if TYPE_CHECKING:
    from ..inspection import SidecarInfo

PATH: Final = click.Path(path_type=Path)
JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif")
_Function = TypeVar("_Function", bound=Callable[..., Any])


@contextmanager
def plainly(path: str | Path) -> Iterator[None]:
    """Names the file at which the machine's own limits were met.

    Other unexpected exceptions are bugs, and keep their traceback.
    """
    try:
        yield
    except MemoryError as error:
        raise RawcodecError(
            f"{path}: not enough memory; close other programs or use a larger machine"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RawcodecError(
            f"{error.filename or path}: {reason}; check the file and its disk"
        ) from error


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


def jpeg_beside(path: Path, error: type[RawcodecError], hint: str) -> Path:
    """The JPEG that has the file's name, but for its ending.

    error, hint: what is raised where there is not just one, and what to do then.
    """
    if not path.exists():
        raise error(f"{path}: no such file; check the name")
    found = sorted(
        each
        for each in path.parent.iterdir()
        if each.stem == path.stem and each.suffix.lower() in JPEG_SUFFIXES
    )
    if len(found) == 1:
        return found[0]
    fault = f"{' and '.join(each.name for each in found)} lie beside it"
    if not found:
        fault = f"no {path.stem}.jpg lies beside it"
    raise error(f"{path}: {fault}; {hint}")


def named_after(path: Path, suffix: str) -> Path:
    # Not with_suffix, which raises for a path without a name, such as "/".
    return path.parent / (path.stem + suffix)


def psnr(info: SidecarInfo) -> str:
    return "lossless" if info.lossless else f"{info.psnr_db:.2f} dB"


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
