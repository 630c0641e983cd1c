"""``python -m examples.baselines``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from examples.train.__main__ import frames_option

from .interface import Trainable

PICTURES = ("png", "jpeg")
"""What learned systems are trained on: pictures without loss, or JPEGs of all qualities."""


def _invisp(picture: str, _: float) -> Trainable:
    from .invisp import InvISPTraining
    from .train import QUALITIES

    qualities = tuple(int(quality) for quality in QUALITIES) if picture == "jpeg" else ()
    return InvISPTraining(qualities=qualities)


def _nam(_: str, __: float) -> Trainable:
    from .nam import NamTraining

    return NamTraining()


def _r2lcm(_: str, weight: float) -> Trainable:
    from .r2lcm import R2LCM

    return R2LCM(weight=weight)


def _r2lcm_serial(_: str, weight: float) -> Trainable:
    from .r2lcm_serial import R2LCMSerial

    return R2LCMSerial(weight=weight)


SYSTEMS: dict[str, Callable[[str, float], Trainable]] = {
    "invisp": _invisp,
    "nam": _nam,
    "r2lcm": _r2lcm,
    "r2lcm-serial": _r2lcm_serial,
}


@click.group()
def main() -> None:
    """The systems that the paper compares."""


@main.command()
@click.argument("system", type=click.Choice(list(SYSTEMS)))
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
    help="Processor time of the whole run. The learning rate goes by it.",
)
@click.option(
    "--picture",
    type=click.Choice(PICTURES),
    default="jpeg",
    show_default=True,
    help="What to train on.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, min_open=True),
    default=0.05,
    show_default=True,
    help="Of distortion, where a system has such a weight: the paper's lambda.",
)
def train(
    system: str, frames: Path, run: Path, minutes: float, picture: str, weight: float
) -> None:
    """Trains a system, or continues to, for so many minutes of the processor in all.

    In one thread: several would spend them waiting for each other, the more the busier the machine.
    """
    import torch

    from .train import train as train_system

    torch.set_num_threads(1)
    try:
        train_system(SYSTEMS[system](picture, weight), frames, run, picture, minutes)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{run}: trained")


if __name__ == "__main__":
    main(prog_name="python -m examples.baselines")
