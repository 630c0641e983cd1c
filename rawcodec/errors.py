"""Every exception that rawcodec raises on purpose.

::

    RawcodecError                 something a user can act on; str() is one line
    ├── RawError                  the raw file is missing, not a raw, or unreadable
    ├── JpegError                 the JPEG is missing, not a JPEG, or damaged
    ├── AlignmentError            the JPEG is not a rendering of this raw
    ├── QualityError              the requested quality cannot be made
    ├── SidecarError              the sidecar cannot be used
    │   ├── CorruptSidecarError   truncated, altered, or not a sidecar
    │   ├── VersionError          written by a newer format
    │   └── ModelError            names a model that is not installed
    ├── JpegMismatchError         not the JPEG that the sidecar was made with
    ├── DigestError               the decoded mosaic is not the encoded one
    ├── DeviceError               the requested device cannot be used
    ├── EngineError               what is to work on many photos cannot be used
    └── OutputError               the output exists or cannot be written

Messages follow one pattern, ``FILE: what is wrong; what to do``, so that the
command line prints them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RawcodecError(Exception):
    """Base of every error that rawcodec raises on purpose."""


class RawError(RawcodecError):
    """The raw file is missing, is not a raw, or cannot be read."""


class JpegError(RawcodecError):
    """The JPEG is missing, is not a JPEG, or is damaged."""


class AlignmentError(RawcodecError):
    """The JPEG is not a rendering of this raw."""


class QualityError(RawcodecError):
    """The requested quality cannot be made."""


class SidecarError(RawcodecError):
    """The sidecar cannot be used."""


class CorruptSidecarError(SidecarError):
    """The sidecar is truncated, altered, or not a sidecar at all."""


class VersionError(SidecarError):
    """The sidecar was written by a newer format."""


class ModelError(SidecarError):
    """The sidecar names a model that is not installed, or installed otherwise."""


class JpegMismatchError(RawcodecError):
    """The JPEG's pixels are not the ones that the sidecar was made with."""


class DigestError(RawcodecError):
    """The decoded mosaic is not the one that was encoded."""


class DeviceError(RawcodecError):
    """The requested device cannot be used."""


class EngineError(RawcodecError):
    """What is to work on many photos cannot be used; nothing was begun."""


class OutputError(RawcodecError):
    """The output exists already, or cannot be written."""


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
