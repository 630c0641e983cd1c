"""``python -m examples.train``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click

CHECKOUT = Path(__file__).resolve().parents[2]


@click.group()
def main() -> None:
    """Trains the learned layer."""


@main.command()
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=CHECKOUT.parent / "shared" / "data" / "photos",
    show_default="../shared/data/photos",
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

    with _complaints():
        write_frames(photos, out, frames, seed, jobs, size)


_run_option = click.option(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the run: its checkpoint and its log.",
)
frames_option = click.option(
    "--frames",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of frames, made by the command pairs.",
)


@main.command()
@frames_option
@click.option(
    "--run",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to keep the run in; a run that is there is continued.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    required=True,
    help="Of the whole run, breaks not counted. Phases and learning rate go by it.",
)
@click.option("--patches", type=click.IntRange(1), default=4, show_default=True, help="A batch.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.5e-3,
    show_default=True,
    help="Highest learning rate.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--exponent",
    type=click.FloatRange(0.5, 1),
    default=0.8125,
    show_default=True,
    help="Power of the linear value that residuals are taken of.",
)
@click.option(
    "--precision",
    type=click.Choice(["bfloat16", "float32"]),
    help="Of the convolutions while training.  [default: bfloat16 where it is faster]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of another run, whose weights a new run begins with, at 40% of the schedule.",
)
def fit(
    frames: Path,
    run: Path,
    minutes: float,
    patches: int,
    rate: float,
    seed: int,
    exponent: float,
    precision: Literal["bfloat16", "float32"] | None,
    device: Literal["cpu", "cuda"],
    start: Path | None,
) -> None:
    """Trains a model, or continues to, for so many minutes in all."""
    import torch

    from rawcodec.model.analysis import working_type

    from .fit import Settings, train

    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("device cuda: this machine has none that can be used")
    if precision is None:
        fast = device == "cuda" or working_type(torch.device("cpu")) == torch.bfloat16
        precision = "bfloat16" if fast else "float32"
    begin = None if start is None else str(start)
    settings = Settings(minutes, patches, rate, seed, exponent, precision, device, begin)
    with _complaints():
        train(frames, run, settings)


@main.command()
@_run_option
@frames_option
@click.option(
    "--patches", type=click.IntRange(1), default=64, show_default=True, help="To measure on."
)
def measure(run: Path, frames: Path, patches: int) -> None:
    """Bits and PSNR of a checkpoint on the synthetic frames held out from training."""
    from . import fit

    rates = range(0, 33, 4)
    with _complaints():
        codec = fit.averaged(fit.read_checkpoint(run / fit.CHECKPOINT))
        found = fit.measure(codec, fit.held_out(frames), fit.phase_of(1), rates, patches)
    click.echo("rate  bits per site  PSNR, dB")
    for rate, bits, decibels in zip(
        rates, found["validation_bits"], found["validation_db"], strict=True
    ):
        click.echo(f"{rate:4}  {bits:13.4f}  {decibels:8.2f}")


@main.command()
@_run_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Of the whole run, where its log does not say how far it is.",
)
def curves(run: Path, out: Path, minutes: float | None) -> None:
    """Draws rate and distortion over the steps of a run, and its phases."""
    from .curves import draw

    with _complaints():
        draw(run, out, minutes)
    click.echo(f"{out}: written")


@main.command()
@_run_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Weights file to write, .safetensors.",
)
@click.option("--id", "model_id", required=True, help="What sidecars will call the model.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Manifest beside the weights to put the entry into, instead of printing it.",
)
@click.option(
    "--trained-by",
    multiple=True,
    metavar="COMMAND",
    help="What made the model, where its checkpoint does not say; may be given several times.",
)
@click.option("--data", default="", help="What it learned from, where its checkpoint does not say.")
def export(
    run: Path,
    out: Path,
    model_id: str,
    manifest: Path | None,
    trained_by: tuple[str, ...],
    data: str,
) -> None:
    """Exports the averaged weights of a run as certified integers."""
    from .export import export_run, insert

    if manifest is not None and manifest.resolve().parent != out.resolve().parent:
        raise click.UsageError(f"{out}: must be beside {manifest}")
    with _complaints():
        entry = export_run(run, out, model_id, trained_by, data)
    if manifest is None:
        click.echo(json.dumps(entry, indent=2))
    else:
        insert(manifest, entry)
        click.echo(f"{out}: written, and {model_id} in {manifest}")


@contextmanager
def _complaints() -> Iterator[None]:
    """What went wrong, in one line."""
    try:
        yield
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
