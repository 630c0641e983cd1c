"""``rawcodec encode``."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import click

from ..errors import DigestError, OutputError, RawError, SidecarError
from ..files import NewFile, check_target, new_file
from ..stream.header import QUALITIES
from .shared import PATH, device_option, force_option, jpeg_beside, named_after, plainly, psnr, say

_NAME_IT: Final = "name the JPEG behind the raw, or try --embedded"


def number(value: float | None) -> float | None:
    """The value of an option; the range of click lets pass what is no number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of bits.")
    return value


@click.command()
@click.argument("raw", type=PATH)
@click.argument("jpeg", type=PATH, required=False)
@click.option(
    "--embedded",
    is_flag=True,
    help="Take the preview that the raw has in it: it is written as the JPEG, the raw's name with "
    ".jpg or the one given, and belongs to the sidecar from then on.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT.rmeta",
    help="The sidecar to write.  [default: the JPEG's name with .rmeta]",
)
@click.option(
    "--quality",
    type=click.Choice(QUALITIES),
    help="How much to keep of what the JPEG lacks.  [default: medium]",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, 32, min_open=True),
    callback=lambda _context, _option, value: number(value),
    help="Bits per photosite, within 5% as a rule, in the place of a quality.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    help="The most bytes of the sidecar, in the place of a quality.",
)
@device_option
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode what was written before it gets its name.",
)
@force_option
def encode(
    raw: Path,
    jpeg: Path | None,
    embedded: bool,
    output: Path | None,
    quality: str | None,
    bpp: float | None,
    max_bytes: int | None,
    device: str,
    verify: bool,
    force: bool,
) -> None:
    """Writes the sidecar of a RAW and a JPEG of the same shot.

    Without a JPEG, the one beside the raw that has its name is taken.

    \b
    rawcodec encode photo.dng photo.jpg
    rawcodec encode photo.dng
    rawcodec encode photo.nef photo.jpg -o sidecars/photo.rmeta
    rawcodec encode photo.dng photo.jpg --bpp 0.2
    """
    if sum(value is not None for value in (quality, bpp, max_bytes)) > 1:
        raise click.UsageError("give one of --quality, --bpp and --max-bytes")
    started = time.perf_counter()
    if jpeg is None:
        with plainly(raw):
            jpeg = named_after(raw, ".jpg") if embedded else jpeg_beside(raw, RawError, _NAME_IT)
    target = named_after(jpeg, ".rmeta") if output is None else output
    check_target(target, force=force, inputs=(raw, jpeg))

    import rawcodec

    with plainly(raw), _extracted(raw, jpeg) if embedded else nullcontext():
        data = rawcodec.encode(
            raw,
            jpeg,
            quality=quality,
            bpp=bpp,
            max_bytes=max_bytes,
            device=device,
            verify=False,
        )
        with new_file(target, force=force) as file:
            file.write(data)
            if verify:
                _verify(file, target, jpeg, data, device)
        info = rawcodec.inspect(data)
    seconds = time.perf_counter() - started
    say(f"{target}: {info.bytes:,} bytes, {info.bpp:.4f} bpp, {psnr(info)}, {seconds:.1f} s")


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


def _verify(file: NewFile, target: Path, jpeg: Path, data: bytes, device: str) -> None:
    """Decodes what is on the disk, before it gets its name."""
    import rawcodec

    read = file.read_back()
    if read != data:
        raise OutputError(
            f"{target}: reads back otherwise than it was written, so it was removed; check the disk"
        )
    try:
        rawcodec.decode(jpeg, read, device=device)
    except (DigestError, SidecarError) as error:
        raise type(error)(
            f"{target}: does not decode to what was encoded, so it was removed; "
            f"report this ({error})"
        ) from error
