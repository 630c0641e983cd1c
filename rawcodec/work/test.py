"""Testing one sidecar: all that can be checked without writing the raw."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import plainly
from ..inspection import inspect_path
from .decode import decoding_memory
from .task import IDLE, Done


@dataclass(frozen=True)
class TestTask:
    """A sidecar, and its JPEG, if there is one."""

    __test__ = False  # pytest takes classes of such a name for its own

    sidecar: Path
    jpeg: Path | None
    device: str = "auto"

    @property
    def subject(self) -> Path:
        return self.sidecar

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.sidecar,) if self.jpeg is None else (self.sidecar, self.jpeg)

    @property
    def output(self) -> None:
        return None

    @property
    def force(self) -> bool:
        return False

    @property
    def values(self) -> dict[str, Any]:
        return {
            "sidecar": str(self.sidecar),
            "jpeg": None if self.jpeg is None else str(self.jpeg),
            "checked": None,
            "seconds": None,
        }

    def prepare(self) -> None:
        pass

    def is_done(self) -> bool:
        return False

    def memory(self) -> int:
        return IDLE if self.jpeg is None else decoding_memory(self.sidecar)

    def run(self) -> Done:
        started = time.perf_counter()
        with plainly(self.sidecar):
            inspect_path(self.sidecar)
            if self.jpeg is None:
                return Done(
                    f"{self.sidecar}: structure and checksums are right; not decoded, "
                    f"since there is no JPEG of its name",
                    {"checked": "structure"},
                )
            import rawcodec

            rawcodec.decode(self.jpeg, self.sidecar, device=self.device)
        seconds = time.perf_counter() - started
        return Done(
            f"{self.sidecar}: structure and checksums are right, and with {self.jpeg.name} it "
            f"decodes to its digest, {seconds:.1f} s",
            {"checked": "decoded", "seconds": round(seconds, 3)},
        )
