"""``python -m examples.benchmark``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from examples.train.__main__ import frames_option
from rawcodec.stream.header import QUALITIES

from .pairs import Pair, find_pairs
from .process import CHECKOUT


@click.group()
def main() -> None:
    """Measures rawcodec on real photos."""


_data_option = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=CHECKOUT.parent / "shared" / "data" / "real",
    show_default="../shared/data/real",
    help="Folder of raws, .dng.xz too, with NAME.rt.jpg and NAME.dt.jpg beside them.",
)
_out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=CHECKOUT / "docs" / "results",
    show_default="docs/results",
    help="Folder to write the page and its plots to.",
)

_work_option = partial(
    click.option,
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for what was measured; a run that was stopped goes on from it.",
)


@contextmanager
def _writing(page: Path, data: Path) -> Iterator[tuple[list[Pair], Path]]:
    """The pairs of a folder, and a scratch folder that goes with them; tells of the page after."""
    with tempfile.TemporaryDirectory(prefix="rawcodec-benchmark-") as folder:
        scratch = Path(folder)
        try:
            pairs = find_pairs(data.resolve(), scratch)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error
        yield pairs, scratch
    click.echo(f"{page}: written")


@main.command()
@_data_option
@_out_option
def tone(data: Path, out: Path) -> None:
    """The tone layer: quality, cost, exactness, alignment, wrong pairs."""
    from . import tone as tone_page

    with _writing(out / "tone.md", data) as (pairs, scratch):
        tone_page.run_all(pairs, out, scratch)


@main.command()
@_data_option
@_out_option
def ablation(data: Path, out: Path) -> None:
    """What each part of the tone layer gives."""
    from . import ablation as ablation_page

    with _writing(out / "ablation.md", data) as (pairs, _):
        ablation_page.run_all(pairs, out)


@main.command()
@_data_option
@_out_option
def ahead(data: Path, out: Path) -> None:
    """What the grids and the fitted filters save."""
    from . import ahead as ahead_page

    with _writing(out / "ahead.md", data) as (pairs, _):
        ahead_page.run_all(pairs, out)


@main.command()
@_data_option
@_out_option
def order(data: Path, out: Path) -> None:
    """What the learned order of the latents is worth."""
    from . import order as order_page

    with _writing(out / "order.md", data) as (pairs, _):
        order_page.run_all(pairs, out)


@main.command()
@frames_option
@_out_option
def gap(frames: Path, out: Path) -> None:
    """How far the frames of training are from real pairs."""
    from examples.train.data import finished
    from examples.train.fit import HOLD_OUT

    from . import gap as gap_page

    found = finished(frames)[:HOLD_OUT]
    if not found:
        raise click.ClickException(f"{frames}: has no frames")
    with tempfile.TemporaryDirectory(prefix="rawcodec-benchmark-") as folder:
        gap_page.run_all(found, out, Path(folder))
    click.echo(f"{out / 'gap.md'}: written")


@main.command()
@_data_option
@_out_option
@click.option(
    "--runs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=CHECKOUT / "examples" / "baselines" / "weights",
    show_default="examples/baselines/weights",
    help="Folder of runs of python -m examples.baselines train.",
)
@_work_option(required=True)
def paper(data: Path, out: Path, runs: Path, work: Path) -> None:
    """The systems that the paper compares, side by side."""
    from . import paper as paper_page

    with _writing(out / "paper.md", data) as (pairs, _):
        try:
            paper_page.run_all(pairs, runs, out, work)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@_data_option
@_out_option
def transform(data: Path, out: Path) -> None:
    """Whether a transform pays for what the tone layer leaves."""
    from . import transform as transform_page

    with _writing(out / "transform.md", data) as (pairs, _):
        transform_page.run_all(pairs, out)


@main.command()
@_data_option
@_out_option
@_work_option()
def quality(data: Path, out: Path, work: Path | None) -> None:
    """All qualities: rate, PSNR, time and memory, beside tone + JPEG 2000."""
    from . import quality as quality_page

    with _writing(out / "quality.md", data) as (pairs, scratch):
        quality_page.run_all(pairs, out, work or scratch / "quality")


@main.command()
@_data_option
@_out_option
@click.option(
    "--quality",
    type=click.Choice(QUALITIES),
    default="medium",
    show_default=True,
    help="What to encode with.",
)
def exactness(data: Path, out: Path, quality: str) -> None:
    """Whether all threads, instruction sets and kernels decode to the same."""
    from . import exactness as exactness_page

    with _writing(out / "exactness.md", data) as (pairs, scratch):
        exactness_page.run_all(pairs, out, scratch, quality)


@main.command()
@_data_option
@_out_option
def target(data: Path, out: Path) -> None:
    """How near --bpp and --max-bytes come, and how long they take."""
    from . import target as target_page

    with _writing(out / "target.md", data) as (pairs, scratch):
        target_page.run_all(pairs, out, scratch)


@main.command()
@_data_option
@_out_option
def spaces(data: Path, out: Path) -> None:
    """What the colour space of a JPEG costs."""
    from . import spaces as spaces_page

    with _writing(out / "spaces.md", data) as (pairs, scratch):
        spaces_page.run_all(pairs, out, scratch)


@main.command()
@_data_option
@_out_option
def geometry(data: Path, out: Path) -> None:
    """What bent, cropped and reduced JPEGs cost."""
    from . import geometry as geometry_page

    with _writing(out / "geometry.md", data) as (pairs, scratch):
        try:
            geometry_page.run_all(pairs, out, scratch)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@_data_option
@_out_option
def profile(data: Path, out: Path) -> None:
    """Where the time goes, on the largest photo."""
    from . import profile as profile_page

    with _writing(out / "profile.md", data) as (pairs, scratch):
        profile_page.run_all(pairs, out, scratch)


@main.command()
@_out_option
@click.option("--mutations", type=int, default=10_000, show_default=True, help="How many.")
def corruption(out: Path, mutations: int) -> None:
    """What damaged sidecars do to the decoder."""
    from . import corruption as corruption_page

    corruption_page.run_all(out, mutations)
    click.echo(f"{out / 'corruption.md'}: written")


@main.command()
@_out_option
@click.option("--trials", type=int, default=200, show_default=True, help="How many.")
def kills(out: Path, trials: int) -> None:
    """What is left of commands that are killed."""
    from . import kills as kills_page

    with tempfile.TemporaryDirectory(prefix="rawcodec-benchmark-") as folder:
        kills_page.run_all(out, Path(folder), trials)
    click.echo(f"{out / 'kills.md'}: written")


@main.command()
@_out_option
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the photos, up to 700 MB; they are deleted again.",
)
@click.option(
    "--megapixels",
    "sizes",
    type=click.Choice(["12", "24", "60", "150"]),
    multiple=True,
    default=("12", "24", "60", "150"),
    show_default=True,
    help="A size to measure; may be repeated.",
)
def memory(out: Path, work: Path, sizes: tuple[str, ...]) -> None:
    """How much memory and time photos of 12 to 150 megapixels take."""
    from . import memory as memory_page

    memory_page.run_all(out, work, [int(size) for size in sizes])
    click.echo(f"{out / 'memory.md'}: written")


@main.command()
@_data_option
@_out_option
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How many.")
def folders(data: Path, out: Path, rounds: int) -> None:
    """How much faster a folder is than one command a photo."""
    from . import folders as folders_page

    with _writing(out / "folders.md", data) as (pairs, scratch):
        folders_page.run_all(pairs, out, scratch, rounds)


@main.command()
@_out_option
@click.option("--minutes", type=float, default=30, show_default=True, help="How long.")
@click.option(
    "--found",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(tempfile.gettempdir()) / "rawcodec-fuzz",
    show_default="rawcodec-fuzz among temporary files",
    help="Folder for inputs that make trouble.",
)
def fuzz(out: Path, minutes: float, found: Path) -> None:
    """What a coverage-guided fuzzer finds in the decoder."""
    from . import fuzzing as fuzz_page

    with tempfile.TemporaryDirectory(prefix="rawcodec-benchmark-") as folder:
        fuzz_page.run_all(out, Path(folder), found, minutes)
    click.echo(f"{out / 'fuzz.md'}: written; what made trouble is in {found}")


@main.command()
@_data_option
@_out_option
def edits(data: Path, out: Path) -> None:
    """What edits of the decoded raw look like, beside those of the raw."""
    from . import edits as edits_page

    with _writing(out / "edits.md", data) as (pairs, _):
        edits_page.run_all(pairs, out)


@main.command()
@_data_option
@_out_option
def dng(data: Path, out: Path) -> None:
    """What other programs make of the DNGs."""
    from . import dng as dng_page

    with _writing(out / "dng.md", data) as (pairs, scratch):
        try:
            dng_page.run_all(pairs, out, scratch)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@_data_option
@_out_option
@click.option(
    "--pair",
    "names",
    multiple=True,
    metavar="NAME",
    help="A pair to show, as PHOTO.rt or PHOTO.dt; may be repeated.  [default: three pairs]",
)
def maps(data: Path, out: Path, names: tuple[str, ...]) -> None:
    """Where in a photo the bits go, and where the error was and is."""
    from . import maps as maps_page

    with _writing(out / "maps.md", data) as (pairs, _):
        try:
            chosen = maps_page.choose(pairs, names)
        except ValueError as error:
            raise click.ClickException(f"{data}: {error}") from error
        maps_page.run_all(chosen, out)


if __name__ == "__main__":
    main(prog_name="python -m examples.benchmark")
