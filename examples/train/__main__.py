"""``python -m examples.train``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def main() -> None:
    """Trains the learned layer."""


@main.command()
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of photographs: .webp or .png in sRGB, .hdr in linear light.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write the frames to; frames already there are kept.",
)
@click.option("--frames", type=click.IntRange(1), required=True, help="How many frames.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--size", type=click.IntRange(192), default=1536, show_default=True, help="Sites a side."
)
def pairs(photos: Path, out: Path, frames: int, seed: int, jobs: int, size: int) -> None:
    """Makes pairs of raw and JPEG, with their tone layers, from photographs."""
    from .pairs import write_frames

    try:
        write_frames(photos, out, frames, seed, jobs, size)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
