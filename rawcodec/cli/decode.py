"""``rawcodec decode``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..errors import SidecarError
from ..files import check_target, new_file
from .shared import PATH, device_option, force_option, jpeg_beside, named_after, plainly, say


@click.command()
@click.argument("jpeg", type=PATH)
@click.argument("sidecar", type=PATH, required=False)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT.tiff|OUT.dng",
    help="The TIFF or DNG to write, by its ending.  [default: the sidecar's name with .tiff]",
)
@click.option(
    "--uncompressed",
    is_flag=True,
    help="Write the DNG's samples as they are: about twice the size.",
)
@device_option
@force_option
def decode(
    jpeg: Path,
    sidecar: Path | None,
    output: Path | None,
    uncompressed: bool,
    device: str,
    force: bool,
) -> None:
    """Writes the raw mosaic of a JPEG and its SIDECAR, in either order.

    Of the two, one may be left out that lies beside the other and has its name.
    As a TIFF for programs that compute with it, or as a DNG for raw editors.

    \b
    rawcodec decode photo.jpg photo.rmeta
    rawcodec decode photo.jpg photo.rmeta -o photo.dng
    rawcodec decode photo.rmeta photo.jpg -o photo-raw.tiff
    """
    as_dng = output is not None and output.suffix.lower() == ".dng"
    if uncompressed and not as_dng:
        raise click.UsageError("--uncompressed goes with -o OUT.dng")
    started = time.perf_counter()

    from ..inspection import read_sidecar, tell_apart

    jpeg, sidecar = tell_apart(jpeg, _other(jpeg) if sidecar is None else sidecar)
    target = named_after(sidecar, ".tiff") if output is None else output
    check_target(target, force=force, inputs=(jpeg, sidecar))

    import rawcodec

    from ..photo.dng import write_dng
    from ..photo.jpeg import read_exif
    from ..photo.output import write_tiff
    from ..pipeline import read_preview, thread_count

    with plainly(sidecar):
        mosaic = rawcodec.decode(jpeg, sidecar, device=device)
        with new_file(target, force=force) as file:
            if as_dng:
                write_dng(
                    file,
                    mosaic,
                    read_exif(jpeg),
                    read_preview(jpeg, read_sidecar(sidecar)),
                    compressed=not uncompressed,
                    threads=thread_count(),
                )
            else:
                write_tiff(file, mosaic)
            size = file.seek(0, 2)
    sensor = mosaic.sensor
    seconds = time.perf_counter() - started
    say(
        f"{target}: {size:,} bytes, {sensor.width}x{sensor.height}, {seconds:.1f} s, "
        f"exact: the digest matches"
    )


def _other(path: Path) -> Path:
    """What goes with a JPEG or a sidecar that is named alone."""
    from ..inspection import kind_of

    with plainly(path):
        if kind_of(path) == "JPEG":
            return named_after(path, ".rmeta")
        return jpeg_beside(path, SidecarError, "name its JPEG too")
