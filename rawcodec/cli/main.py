"""The program: its commands, its exit codes, and what signals do to it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from ..errors import RawcodecError
from ..version import VERSION
from .compare import compare
from .decode import decode
from .encode import encode
from .info import info
from .selftest import selftest
from .shared import complain
from .test import test


class _Stopped(BaseException):
    """A signal asked the program to stop; no ``except Exception`` may keep it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves the process with its exit code.

    0: done. 1: a file or the machine stands in the way; one line on standard
    error says what to do. 2: wrong usage. 128 + n: stopped by signal n.
    """
    # Names may hold any bytes; printing them must not fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stop_on_signals():
            code = _run(arguments)
    except _Stopped as stopped:
        interrupted = stopped.number == signal.SIGINT
        complain(f"rawcodec: {'interrupted' if interrupted else 'terminated'}")
        code = 128 + stopped.number
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs a command; returns the exit code."""
    try:
        # Not standalone: click would answer an interruption itself, with 1.
        code = commands.main(arguments, prog_name="rawcodec", standalone_mode=False)
    except RawcodecError as error:
        complain(str(error))
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turns signals that end a program into an exception, so that files are cleaned up."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # A second one must not disturb the cleaning up.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    candidates = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        candidates.append(signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in candidates}
    # One that is ignored (nohup, a shell's background job) stays so.
    before = {each: old for each, old in before.items() if old not in (signal.SIG_IGN, None)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)


@click.group(name="rawcodec")
@click.version_option(VERSION, prog_name="rawcodec", message="%(prog)s %(version)s")
def commands() -> None:
    """Keeps a raw photo as its JPEG and a small sidecar.

    \b
    rawcodec encode photo.dng photo.jpg     writes photo.rmeta
    rawcodec encode -r photos               writes a sidecar for every raw
    rawcodec decode photo.jpg photo.rmeta   writes photo.tiff, the raw mosaic
    rawcodec decode -r photos --format dng  writes a DNG of every sidecar
    rawcodec info photo.rmeta               tells what is in a sidecar
    rawcodec test -r photos                 tells whether sidecars are whole
    rawcodec compare photo.dng photo.rmeta  tells how near what comes back is
    """


for _command in (encode, decode, info, test, compare, selftest):
    commands.add_command(_command)
