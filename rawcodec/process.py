"""What suits a process that lives for one photo: how it takes memory, and how it ends.

Only the command line sets these; who imports the package keeps the process as it is.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Final

# <malloc.h> of the GNU C library
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_TURN: Final = 1e-3
"""Seconds that a thread of Python lets others wait: while PyTorch is imported, the work beside it
asks for many short turns."""

_FRAME: Final = 15 << 20
"""Bytes from which on memory goes back to the system once it is not needed: whole frames, and the
pieces of 16 MB that Pillow makes of a picture. They come and go a few times, and would leave holes
in the heap."""

_ALLOCATIONS: Final = 200_000
"""Objects between two collections; PyTorch's import makes a million and no garbage."""


def tune() -> None:
    """Set up the process; before any thread is started.

    A photo's bands are megabytes that come and go. By default the C library asks the system for
    each anew, which clears every page; kept in one heap they are used again.
    """
    # the work is split among threads as a whole; those of libraries would wait, and spin
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(_ALLOCATIONS)
    sys.setswitchinterval(_TURN)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # else another C library, which has its own ways
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, _FRAME)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            mallopt(_M_TOP_PAD, 1 << 26)


def give_back() -> None:
    """Hand memory that is not in use back to the system, where ``tune`` keeps it.

    Between photos, and between stages that need other things: the holes that one leaves in the heap
    would lie beside the frames of the next.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def leave(code: int) -> None:
    """End the process at once, as mypy does: taking PyTorch apart takes half a second.

    Returns where standard output or error cannot be written, for the usual end to tell.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as it is where the file was closed
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
