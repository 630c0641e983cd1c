"""Encoding one photo: a raw and its JPEG to a sidecar with a name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import DigestError, OutputError, SidecarError, plainly
from ..files import NewFile, check_target, new_file
from .task import IDLE, Done, memory_of

_TONE_PER_SITE: Final = 10
"""Bytes at the peak, beyond IDLE, with the tone layer alone."""

_FIXED: Final = 550_000_000
_PER_SITE: Final = 12
_PER_STRIPE_SITE: Final = 20
"""Bytes at the peak otherwise: of any photo, and see ``memory_of``. Bounds of what was
measured; docs/DESIGN.md, Memory of a batch."""


@dataclass(frozen=True)
class EncodeTask:
    """A raw, its JPEG, and the sidecar to make of them; the options of ``rawcodec.encode``.

    verify: decode what was written before it gets its name.
    embedded: the JPEG is the preview that the raw has in it, and is written first.
    """

    raw: Path
    jpeg: Path
    output: Path
    quality: str | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    allow_partial: bool = False
    device: str = "auto"
    verify: bool = True
    force: bool = False
    embedded: bool = False

    @property
    def subject(self) -> Path:
        return self.raw

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.raw, self.jpeg)

    @property
    def values(self) -> dict[str, Any]:
        return {
            "raw": str(self.raw),
            "jpeg": str(self.jpeg),
            "sidecar": str(self.output),
            **dict.fromkeys(("bytes", "bpp", "psnr_db", "lossless", "seconds")),
        }

    def prepare(self) -> None:
        check_target(self.output, force=self.force, inputs=self.inputs)

    def is_done(self) -> bool:
        """True for a valid sidecar of this JPEG, whatever its quality.

        Metadata may have been edited since. A JPEG whose stream is another one may still have the
        same pixels, which alone count; they are decoded only then.
        """
        from ..inspection import inspect_path
        from ..photo.jpeg import read_jpeg, read_stream_digest

        if not self.output.exists():
            return False
        again = "encode it again with --force"
        with plainly(self.output):
            try:
                info = inspect_path(self.output)
            except SidecarError as error:
                if self.force:
                    return False
                what = str(error).rpartition("; ")[0]
                raise type(error)(f"{what}; {again}") from error
            if read_stream_digest(self.jpeg).hex() == info.jpeg_stream_digest:
                return True
            if read_jpeg(self.jpeg).digest.hex() == info.jpeg_digest:
                return True
        if self.force:
            return False
        raise OutputError(f"{self.output}: is there, and was not made from {self.jpeg}; {again}")

    def memory(self) -> int:
        from ..photo.raw import read_size

        with plainly(self.raw):
            width, height, linear = read_size(self.raw)
        if self.quality == "tone":
            return IDLE + memory_of(height, width, linear, _TONE_PER_SITE)
        return _FIXED + memory_of(height, width, linear, _PER_SITE, _PER_STRIPE_SITE)

    def run(self) -> Done:
        import rawcodec

        started = time.perf_counter()
        with (
            plainly(self.raw),
            _extracted(self.raw, self.jpeg) if self.embedded else nullcontext(),
        ):
            data = rawcodec.encode(
                self.raw,
                self.jpeg,
                quality=self.quality,
                bpp=self.bpp,
                max_bytes=self.max_bytes,
                device=self.device,
                verify=False,
                allow_partial=self.allow_partial,
            )
            with new_file(self.output, force=self.force) as file:
                file.write(data)
                if self.verify:
                    self._verify(file, data)
            info = rawcodec.inspect(data)
        seconds = time.perf_counter() - started
        line = (
            f"{self.output}: {info.bytes:,} bytes, {info.bpp:.4f} bpp, {info.psnr_text}, "
            f"{seconds:.1f} s"
        )
        said = info.to_json()
        values = {key: said[key] for key in ("bytes", "bpp", "psnr_db", "lossless")}
        return Done(line, {**values, "seconds": round(seconds, 3)})

    def _verify(self, file: NewFile, data: bytes) -> None:
        """Decodes what is on the disk, before it gets its name."""
        import rawcodec

        read = file.read_back()
        if read != data:
            raise OutputError(
                f"{self.output}: reads back otherwise than it was written, so it was removed; "
                f"check the disk"
            )
        try:
            rawcodec.decode(self.jpeg, read, device=self.device)
        except (DigestError, SidecarError) as error:
            raise type(error)(
                f"{self.output}: does not decode to what was encoded, so it was removed; "
                f"report this ({error})"
            ) from error


@contextmanager
def _extracted(raw: Path, jpeg: Path) -> Iterator[None]:
    """Writes the raw's own preview as a JPEG, which goes again if the rest fails.

    It never replaces a file, which may be the JPEG of another sidecar.
    """
    if os.path.lexists(jpeg):
        raise OutputError(
            f"{jpeg}: already exists; name another JPEG behind the raw, or leave out --embedded"
        )
    check_target(jpeg, force=False, inputs=(raw,))

    from ..photo.raw import read_embedded

    with new_file(jpeg, force=False) as file:
        file.write(read_embedded(raw))
    try:
        yield
    except BaseException:
        jpeg.unlink(missing_ok=True)
        raise
