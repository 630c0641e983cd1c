"""Decoding one photo: a JPEG and its sidecar to a TIFF or a DNG with a name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import OutputError, RawcodecError, plainly
from ..files import check_target, new_file
from ..inspection import inspect_path, read_sidecar
from .task import IDLE, Done, memory_of

_TONE_PER_SITE: Final = 12
_PER_SITE: Final = 12
_PER_STRIPE_SITE: Final = 36
"""Bytes at the peak, beyond IDLE; see ``memory_of``, and docs/DESIGN.md, Memory of a batch."""


@dataclass(frozen=True)
class DecodeTask:
    """A JPEG, its sidecar, and the file to make of them: a DNG if it ends in .dng, else a TIFF.

    uncompressed: a DNG's samples are written as they are.
    """

    jpeg: Path
    sidecar: Path
    output: Path
    uncompressed: bool = False
    device: str = "auto"
    force: bool = False

    @property
    def subject(self) -> Path:
        return self.sidecar

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.jpeg, self.sidecar)

    @property
    def values(self) -> dict[str, Any]:
        return {
            "sidecar": str(self.sidecar),
            "jpeg": str(self.jpeg),
            "output": str(self.output),
            **dict.fromkeys(("bytes", "width", "height", "seconds")),
        }

    def prepare(self) -> None:
        check_target(self.output, force=self.force, inputs=self.inputs)

    def is_done(self) -> bool:
        """True for a file whose samples have the sidecar's digest."""
        if not self.output.exists():
            return False
        with plainly(self.output):
            if self._digest_there() == inspect_path(self.sidecar).mosaic_digest:
                return True
        if self.force:
            return False
        raise OutputError(
            f"{self.output}: is there, and is not what {self.sidecar} decodes to; "
            f"use --force to replace it"
        )

    def memory(self) -> int:
        return decoding_memory(self.sidecar)

    def run(self) -> Done:
        import rawcodec

        from ..cores import thread_count
        from ..photo.dng import write_dng
        from ..photo.jpeg import read_exif
        from ..photo.output import write_tiff
        from ..pipeline import read_preview

        started = time.perf_counter()
        with plainly(self.sidecar):
            mosaic = rawcodec.decode(self.jpeg, self.sidecar, device=self.device)
            with new_file(self.output, force=self.force) as file:
                if self._as_dng:
                    write_dng(
                        file,
                        mosaic,
                        read_exif(self.jpeg),
                        read_preview(self.jpeg, read_sidecar(self.sidecar)),
                        compressed=not self.uncompressed,
                        threads=thread_count(),
                    )
                else:
                    write_tiff(file, mosaic)
                size = file.seek(0, 2)
        sensor = mosaic.sensor
        seconds = time.perf_counter() - started
        return Done(
            f"{self.output}: {size:,} bytes, {sensor.width}x{sensor.height}, {seconds:.1f} s, "
            f"exact: the digest matches",
            {
                "bytes": size,
                "width": sensor.width,
                "height": sensor.height,
                "seconds": round(seconds, 3),
            },
        )

    @property
    def _as_dng(self) -> bool:
        return self.output.suffix.lower() == ".dng"

    def _digest_there(self) -> str | None:
        """The digest of the samples in the output as it is; None if it has none."""
        if self._as_dng:
            from ..photo.raw import read_raw

            try:
                return read_raw(self.output).mosaic.digest().hex()
            except RawcodecError:
                return None
        from ..mosaic import mosaic_digest
        from ..photo.output import read_samples

        samples = read_samples(self.output)
        return None if samples is None else mosaic_digest(samples).hex()


def decoding_memory(sidecar: Path) -> int:
    """Bytes that decoding a sidecar takes at its peak; raises as ``inspect_path`` does."""
    info = inspect_path(sidecar)
    linear = info.cfa == "linear"
    if info.model is None:
        return IDLE + memory_of(info.height, info.width, linear, _TONE_PER_SITE)
    return IDLE + memory_of(info.height, info.width, linear, _PER_SITE, _PER_STRIPE_SITE)
