"""``rawcodec encode``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import RawError, plainly
from ..pairing import jpeg_beside, named_after
from ..stream.header import QUALITIES
from ..work.encode import EncodeTask
from .batch import Batch, batch_options, one_photo, run_batch
from .shared import PATH, device_option, force_option, say

if TYPE_CHECKING:
    from ..batch.sources import Photo

_NAME_IT: Final = "name the JPEG behind the raw, or try --embedded"


def number(value: float | None) -> float | None:
    """The value of an option; the range of click lets pass what is no number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of bits.")
    return value


@click.command()
@click.argument("files", nargs=-1, type=PATH, metavar="RAW [JPEG] | [-r] FOLDER|FILE...")
@click.option(
    "--embedded",
    is_flag=True,
    help="Take the preview that the raw has in it: it is written as the JPEG, the raw's name with "
    ".jpg or the one given, and belongs to the sidecar from then on. For one photo.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT.rmeta",
    help="The sidecar to write, of one photo.  [default: the JPEG's name with .rmeta]",
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
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Take a JPEG that shows less than half of the raw; the rest is coded without its help.",
)
@device_option
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode what was written before it gets its name.",
)
@force_option
@batch_options(writes=True)
def encode(files: tuple[Path, ...], embedded: bool, output: Path | None, **options: Any) -> int:
    """Writes the sidecar of a RAW and a JPEG of the same shot.

    Without a JPEG, the one beside the raw that has its name is taken.

    \b
    rawcodec encode photo.dng photo.jpg
    rawcodec encode photo.dng
    rawcodec encode photo.nef photo.jpg -o sidecars/photo.rmeta
    rawcodec encode photo.dng photo.jpg --bpp 0.2
    rawcodec encode -r photos --skip-existing
    rawcodec encode -r photos --output-dir sidecars --quality high
    rawcodec encode *.NEF

    Folders, more files than a raw and its JPEG, and each of the options from -r on are for many
    photos: every raw with the JPEG beside it that has its name, in any case of letters.
    """
    batch = Batch.take(options)
    if sum(options[name] is not None for name in ("quality", "bpp", "max_bytes")) > 1:
        raise click.UsageError("give one of --quality, --bpp and --max-bytes")

    from ..batch.sources import RAWS

    def task(raw: Path, jpeg: Path, target: Path) -> EncodeTask:
        return EncodeTask(raw, jpeg, target, embedded=embedded, **options)

    folder = output is None and any(path.is_dir() for path in files)
    if not folder and one_photo(files, RAWS, batch, output):
        say(_of_one(files, embedded, output, task))
        return 0
    if embedded:
        raise click.UsageError("--embedded is for one photo")

    def make(photo: Photo, name: Callable[[Path, str], Path]) -> EncodeTask:
        assert photo.jpeg is not None
        return task(photo.subject, photo.jpeg, name(photo.jpeg, ".rmeta"))

    keys = ("raw", "jpeg", "sidecar", "bytes", "bpp", "psnr_db", "lossless", "seconds")
    return run_batch(files, RAWS, batch, make, keys)


def _of_one(
    files: tuple[Path, ...],
    embedded: bool,
    output: Path | None,
    task: Callable[[Path, Path, Path], EncodeTask],
) -> str:
    """Encodes one photo; returns what to say."""
    raw = files[0]
    if len(files) > 1:
        jpeg = files[1]
    else:
        with plainly(raw):
            jpeg = named_after(raw, ".jpg") if embedded else jpeg_beside(raw, RawError, _NAME_IT)
    one = task(raw, jpeg, named_after(jpeg, ".rmeta") if output is None else output)
    one.prepare()
    return one.run().line
