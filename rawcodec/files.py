"""Output files that appear whole or not at all, and never in place of another."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


class NewFile(io.BufferedRandom):
    """A file that has no name yet; for writing, seeking and reading back.

    It does not give its descriptor away: numpy would write through a C stream
    of its own, which loses the reason of a failure and may lose the failure.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._descriptor = raw.fileno()

    def fileno(self) -> int:
        """Raises io.UnsupportedOperation."""
        raise io.UnsupportedOperation("fileno")

    def sync(self) -> None:
        """Returns when everything written is on the disk."""
        self.flush()
        os.fsync(self._descriptor)

    def read_back(self) -> bytes:
        """The whole file, read anew from where it was written."""
        self.sync()
        return Path(self.name).read_bytes()


def check_target(path: Path, *, force: bool, inputs: Iterable[Path]) -> None:
    """Raises OutputError if ``new_file(path, force)`` is going to fail.

    Called before minutes of work. An input is never a target, whatever name
    leads to it, and force does not change that.
    """
    for source in inputs:
        # A missing input is the reader's to report.
        with contextlib.suppress(OSError, ValueError):
            if path.samefile(source):
                raise OutputError(f"{path}: is an input itself; name another output with -o")
    try:
        _check_name(path, force=force)
        folder = _resolved(path, force=force).parent
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(_message(path, error)) from error


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[NewFile]:
    """A file that gets its name when the ``with`` block ends without an exception.

    Until then it is a temporary file beside it, which is removed if the block
    ends with an exception of any kind. With force it replaces a file of that
    name, in one step; without, it never does, not even one that another
    program makes meanwhile. Its permissions are those of any new file.

    Raises OutputError if the file exists (without force) or cannot be written.
    """
    temporary: Path | None = None
    try:
        _check_name(path, force=force)
        final = _resolved(path, force=force)
        # Short, because the target's own name may be as long as allowed.
        temporary = final.with_name(f".rawcodec-{secrets.token_hex(4)}.part")
        with NewFile(io.FileIO(temporary, "x+")) as file:
            yield file
            file.sync()
        if force:
            temporary.replace(final)
        else:
            _name_without_clobbering(temporary, final)
        _sync_folder(final.parent)
    except OSError as error:
        # One with another file's name is not about this file.
        if error.filename is not None and Path(error.filename) not in (path, temporary):
            raise
        raise OutputError(_message(path, error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _resolved(path: Path, *, force: bool) -> Path:
    """What is replaced with force is the file that a link leads to, not the link."""
    return Path(os.path.realpath(path)) if force else path


def _check_name(path: Path, *, force: bool) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not force:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    # Replacing a device such as /dev/null would break the system.
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is not an ordinary file; name another with -o")


def _name_without_clobbering(temporary: Path, final: Path) -> None:
    try:
        # Unlike a rename, a link fails if the name is taken.
        os.link(temporary, final)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems (exFAT, some network shares) have no links.
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.rename(final)


def _sync_folder(folder: Path) -> None:
    """Puts the new name on the disk too, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _message(path: Path, error: OSError) -> str:
    folder = path.parent
    match error.errno:
        case errno.EEXIST:
            fault = "already exists; use --force to replace it or -o to name another"
        case errno.EISDIR:
            fault = "is a folder; name a file in it with -o"
        case errno.ENOENT:
            fault = f"the folder {folder} does not exist; make it or name another output with -o"
        case errno.ENOTDIR:
            fault = f"{folder} is not a folder; name another output with -o"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            fault = f"the folder {folder} is not writable; name another output with -o"
        case errno.ENOSPC | errno.EDQUOT:
            fault = "the disk is full; make room or name another output with -o"
        case errno.ENAMETOOLONG:
            fault = "the name is too long; name another output with -o"
        case _:
            reason = error.strerror or str(error)
            fault = f"cannot be written ({reason}); name another output with -o"
    return f"{path}: {fault}"
