"""``rawcodec decode``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SidecarError, plainly
from ..pairing import jpeg_beside, named_after
from ..work.decode import DecodeTask
from .batch import Batch, batch_options, jpegs_option, one_photo, run_batch
from .shared import PATH, device_option, force_option, say

if TYPE_CHECKING:
    from ..batch.sources import Photo


@click.command()
@click.argument("files", nargs=-1, type=PATH, metavar="JPEG [SIDECAR] | [-r] FOLDER|FILE...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT.tiff|OUT.dng",
    help="The TIFF or DNG to write of one photo, by its ending.  "
    "[default: the sidecar's name with .tiff]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["tiff", "dng"]),
    help="What to write where no -o tells.  [default: tiff]",
)
@click.option(
    "--uncompressed",
    is_flag=True,
    help="Write the DNG's samples as they are: about twice the size.",
)
@device_option
@force_option
@batch_options(writes=True)
@jpegs_option
def decode(
    files: tuple[Path, ...],
    output: Path | None,
    form: str | None,
    uncompressed: bool,
    **options: Any,
) -> int:
    """Writes the raw mosaic of a JPEG and its SIDECAR, in either order.

    Of the two, one may be left out that lies beside the other and has its name.
    As a TIFF for programs that compute with it, or as a DNG for raw editors.

    \b
    rawcodec decode photo.jpg photo.rmeta
    rawcodec decode photo.jpg photo.rmeta -o photo.dng
    rawcodec decode photo.rmeta photo.jpg -o photo-raw.tiff
    rawcodec decode -r photos --format dng --output-dir raws
    rawcodec decode -r sidecars --jpegs photos --output-dir raws
    rawcodec decode *.rmeta

    Folders, more files than a JPEG and its sidecar, and each of the options from -r on are for
    many photos: every sidecar with the JPEG beside it that has its name, in any case of letters.
    """
    batch = Batch.take(options)
    if output is not None and form is not None:
        raise click.UsageError("-o tells the format by its ending; leave out --format")
    suffix = f".{form or 'tiff'}" if output is None else output.suffix.lower()
    if uncompressed and suffix != ".dng":
        raise click.UsageError("--uncompressed goes with -o OUT.dng or --format dng")

    from ..batch.sources import SIDECARS

    def task(jpeg: Path, sidecar: Path, target: Path) -> DecodeTask:
        return DecodeTask(jpeg, sidecar, target, uncompressed=uncompressed, **options)

    if one_photo(files, SIDECARS, batch, output):
        say(_of_one(files, suffix, output, task))
        return 0

    def make(photo: Photo, name: Callable[[Path, str], Path]) -> DecodeTask:
        assert photo.jpeg is not None
        return task(photo.jpeg, photo.subject, name(photo.subject, suffix))

    keys = ("sidecar", "jpeg", "output", "bytes", "width", "height", "seconds")
    return run_batch(files, SIDECARS, batch, make, keys)


def _of_one(
    files: tuple[Path, ...],
    suffix: str,
    output: Path | None,
    task: Callable[[Path, Path, Path], DecodeTask],
) -> str:
    """Decodes one photo; returns what to say."""
    from ..inspection import tell_apart

    other = files[1] if len(files) > 1 else partner(files[0])
    jpeg, sidecar = tell_apart(files[0], other)
    one = task(jpeg, sidecar, named_after(sidecar, suffix) if output is None else output)
    one.prepare()
    return one.run().line


def partner(path: Path) -> Path:
    """What goes with a JPEG or a sidecar that is named alone."""
    from ..inspection import kind_of

    with plainly(path):
        if kind_of(path) == "JPEG":
            return named_after(path, ".rmeta")
        return jpeg_beside(path, SidecarError, "name its JPEG too")
