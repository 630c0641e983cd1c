"""``rawcodec info``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RawcodecError, SidecarError, plainly
from ..files import check_target, new_file
from ..pairing import jpeg_beside
from .shared import PATH, complain, force_option, say, write

if TYPE_CHECKING:
    from ..inspection import SidecarInfo
    from ..model.allocation import Allocation
    from ..photo.bitmap import Drawn


@click.command()
@click.argument(
    "sidecars", nargs=-1, required=True, type=click.Path(), metavar="[-r] SIDECAR|FOLDER..."
)
@click.option(
    "-r", "--recursive", is_flag=True, help="Take the sidecars in folders and the folders in them."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and file.")
@click.option(
    "-o",
    "--map",
    "target",
    type=PATH,
    metavar="OUT.png",
    help="Decode one sidecar, and write a picture of where in the photo its bits are: "
    "the sensor's frame, turned as the JPEG is shown.",
)
@click.option(
    "--jpeg",
    type=PATH,
    help="The JPEG that --map needs.  [default: the one beside the sidecar, of its name]",
)
@force_option
def info(
    sidecars: tuple[str, ...],
    recursive: bool,
    as_json: bool,
    target: Path | None,
    jpeg: Path | None,
    force: bool,
) -> int:
    """Tells what is in sidecars, without decoding them.

    \b
    rawcodec info photo.rmeta
    rawcodec info --json *.rmeta
    rawcodec info -r photos
    rawcodec info photo.rmeta --map bits.png
    """
    if target is not None:
        if len(sidecars) > 1 or recursive or as_json:
            raise click.UsageError("--map is of one sidecar, and goes without -r and --json")
        _map(Path(sidecars[0]), jpeg, target, force=force)
        return 0
    if jpeg is not None or force:
        raise click.UsageError("--jpeg and --force go with --map")

    import rawcodec

    failed = False
    for path in _each(sidecars) if recursive else sidecars:
        try:
            if isinstance(path, RawcodecError):
                raise path
            with plainly(path):
                found = rawcodec.inspect(path)
        except RawcodecError as error:
            complain(str(error))
            failed = True
        else:
            if as_json:
                import json

                write(json.dumps(found.to_json(), allow_nan=False))
            else:
                for line in _description(found):
                    say(line)
    return 1 if failed else 0


def _each(paths: Iterable[str]) -> Iterator[str | RawcodecError]:
    """The paths, with the sidecars in a folder in its place, and what is wrong with a folder."""
    from ..batch.sources import SIDECARS, Problem, walk

    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        empty = True
        for found in walk(Path(path)):
            if isinstance(found, Problem):
                if found.failed:
                    yield RawcodecError(found.message)
                else:
                    complain(found.message)
                continue
            for each in filter(SIDECARS.is_subject, found[1]):
                empty = False
                yield str(each)
        if empty:
            yield RawcodecError(f"{path}: there is no sidecar in it; name another")


def _map(sidecar: Path, jpeg: Path | None, target: Path, *, force: bool) -> None:
    """Writes the map of a sidecar's bits, and says how many of them it shows."""
    from ..inspection import inspect_bytes, read_sidecar

    with plainly(sidecar):
        data = read_sidecar(sidecar)
        info = inspect_bytes(data, sidecar)
        if info.model is None:
            raise SidecarError(
                f"{sidecar}: has the tone layer alone, whose bits belong to no place; "
                f"name a sidecar of another quality than tone"
            )
        if jpeg is None:
            jpeg = jpeg_beside(sidecar, SidecarError, "name its JPEG with --jpeg")
        check_target(target, force=force, inputs=(jpeg, sidecar))

        from ..photo.bitmap import write_map
        from ..pipeline import map_photo

        mapped = map_photo(jpeg, data, name=str(sidecar))
        sites = mapped.allocation.of_picture(info.height, info.width)
        with new_file(target, force=force) as file:
            drawn = write_map(file, sites, mapped.orientations)
    say(_shown(target, drawn, info, mapped.allocation))


def _shown(target: Path, drawn: Drawn, info: SidecarInfo, allocation: Allocation) -> str:
    """What a map shows of a sidecar, and what not."""
    latents, hyper = round(allocation.of_latents / 8), round(allocation.of_hyper / 8)
    filters, tone = info.layers["latents"] - latents - hyper, info.layers["tone"]
    other = info.bytes - latents - hyper - filters - tone
    blocks = f" in blocks of {drawn.block}x{drawn.block}" if drawn.block > 1 else ""
    return (
        f"{target}: {drawn.width}x{drawn.height}, {drawn.low:.3f} to {drawn.high:.3f} bits per "
        f"site{blocks}; shows {latents + hyper:,} of {info.bytes:,} bytes: latents {latents:,}, "
        f"hyper-latents {hyper:,}; leaves out filters and grids {filters:,}, tone {tone:,}, "
        f"other {other:,}"
    )


def _description(info: SidecarInfo) -> list[str]:
    """A heading and aligned lines for a reader."""
    black = info.black[:1] if len(set(info.black)) == 1 else info.black
    layers = ", ".join(f"{name} {size:,}" for name, size in info.layers.items() if size)
    rows = (
        ("size", f"{info.bytes:,} bytes, {info.bpp:.4f} bpp"),
        ("layers", f"{layers} (bytes)"),
        ("quality", f"{info.quality}, {info.psnr_text}, largest error {info.max_error} DN"),
        ("model", info.model or "none needed"),
        ("camera", info.camera or "not named"),
        ("mosaic", f"{info.width}x{info.height}, {_cfa(info)}, orientation {info.orientation}"),
        ("levels", f"black {' '.join(map(str, black))}, white {info.white}"),
        ("JPEG", f"{info.jpeg_width}x{info.jpeg_height}"),
        ("written", f"by {info.writer or 'a program not named'}, format {info.format_version}"),
    )
    return [str(info.path), *(f"  {name:<9}{text}" for name, text in rows)]


def _cfa(info: SidecarInfo) -> str:
    """The CFA's letters; row by row where there are many."""
    period = math.isqrt(len(info.cfa))
    if len(info.cfa) <= 6 or period**2 != len(info.cfa):
        return info.cfa
    rows = [info.cfa[start : start + period] for start in range(0, len(info.cfa), period)]
    return f"{period}x{period} {'/'.join(rows)}"
