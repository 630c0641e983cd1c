"""``rawcodec test``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..work.test import TestTask
from .batch import Batch, batch_options, jpegs_option, run_batch
from .report import Report
from .shared import PATH, device_option

if TYPE_CHECKING:
    from ..batch.sources import Photo


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="[-r] SIDECAR|FOLDER...")
@click.option(
    "--jpeg",
    type=PATH,
    help="The JPEG of one sidecar.  [default: the one beside the sidecar, of its name]",
)
@device_option
@batch_options(writes=False)
@jpegs_option
def test(files: tuple[Path, ...], jpeg: Path | None, device: str, **options: Any) -> int:
    """Tells whether sidecars are whole, and writes nothing.

    Each is read and its checksums are compared. Where its JPEG lies beside it, the raw is decoded
    and compared with the digest of what the encoder saw.

    \b
    rawcodec test photo.rmeta
    rawcodec test photo.rmeta --jpeg elsewhere/photo.jpg
    rawcodec test -r photos
    """
    from ..batch.sources import TESTED

    if jpeg is not None and (len(files) > 1 or options["recursive"]):
        raise click.UsageError("--jpeg is of one sidecar")
    batch = Batch.take(options)
    several = batch.is_asked_for or len(files) > 1
    if jpeg is not None:
        files = (*files, jpeg)

    def make(photo: Photo, _name: Callable[[Path, str], Path]) -> TestTask:
        return TestTask(photo.subject, photo.jpeg, device)

    keys = ("sidecar", "jpeg", "checked", "seconds")
    report = Report(as_json=batch.as_json, keys=keys, summary=several)
    return run_batch(files, TESTED, batch, make, keys, report)
