"""``python -m examples.benchmark``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from .pairs import find_pairs
from .process import CHECKOUT


@click.group()
def main() -> None:
    """Measures rawcodec on real photos."""


@main.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=CHECKOUT.parent / "shared" / "data" / "real",
    show_default="../shared/data/real",
    help="Folder of raws, .dng.xz too, with NAME.rt.jpg and NAME.dt.jpg beside them.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=CHECKOUT / "docs" / "results",
    show_default="docs/results",
    help="Folder to write tone.md and its plots to.",
)
def tone(data: Path, out: Path) -> None:
    """The tone layer: quality, cost, exactness, alignment, wrong pairs."""
    from . import tone as page

    with tempfile.TemporaryDirectory(prefix="rawcodec-benchmark-") as folder:
        scratch = Path(folder)
        try:
            pairs = find_pairs(data.resolve(), scratch)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error
        page.run_all(pairs, out, scratch)
    click.echo(f"{out / 'tone.md'}: written")


if __name__ == "__main__":
    main(prog_name="python -m examples.benchmark")
