"""``rawcodec compare``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RawcodecError, plainly
from ..files import check_target, new_file
from .decode import partner
from .shared import PATH, device_option, force_option, say, write

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..mosaic import Mosaic
    from ..report import Part

_PICTURE = 1600
"""Pixels of the report's pictures, at most, each way."""

_DETAIL = 96
"""Cells of the CFA across a detail."""


@dataclass(frozen=True)
class _Other:
    """What a raw is compared with.

    name: the file that stands for it. mosaic: what it holds. bits: a map of the bits of
    a sidecar as a PNG, if there is one and it was asked for. facts: lines about it.
    """

    name: Path
    mosaic: Mosaic
    bits: bytes | None
    facts: list[tuple[str, str]]


@click.command()
@click.argument("raw", type=PATH)
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="[JPEG] SIDECAR|DECODED")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--map",
    "target",
    type=PATH,
    metavar="OUT.png",
    help="Write a picture of where in the photo the errors are, as it is shown upright.",
)
@click.option(
    "--report",
    "page",
    type=PATH,
    metavar="OUT.html",
    help="Write a page with both renderings, maps and tables: one file, for any browser.",
)
@device_option
@force_option
def compare(
    raw: Path,
    files: tuple[Path, ...],
    as_json: bool,
    target: Path | None,
    page: Path | None,
    device: str,
    force: bool,
) -> None:
    """Tells how far what comes back of a RAW is from it.

    Compared with what a JPEG and its sidecar decode to, or with a TIFF or a DNG that they were
    decoded to. Of a JPEG and its sidecar, one may be left out that lies beside the other and has
    its name. Errors are told by the raw's brightness, in stops under its white level.

    \b
    rawcodec compare photo.dng photo.jpg photo.rmeta
    rawcodec compare photo.dng photo.rmeta --map error.png
    rawcodec compare photo.dng photo.rmeta --report report.html
    rawcodec compare photo.nef photo.tiff
    """
    if len(files) > 2:
        raise click.UsageError("give a RAW and a JPEG with its sidecar, or one decoded file")
    for output in (target, page):
        if output is not None:
            check_target(output, force=force, inputs=(raw, *files))
    if target is not None and page is not None and target.absolute() == page.absolute():
        raise click.UsageError("--map and --report are two files")

    from ..comparison import compare as compared
    from ..photo.raw import read_raw

    with plainly(raw):
        original = read_raw(raw).mosaic
        other = _read(files, original, device, with_map=page is not None)
        found = compared(original, other.mosaic.samples, str(other.name))
        error_map = _error_map(original, other) if target or page else b""
        if target is not None:
            with new_file(target, force=force) as file:
                file.write(error_map)
        if page is not None:
            _write_page(page, raw, original, other, found, error_map, force=force)
    if as_json:
        import json

        said = {"raw": str(raw), "other": str(other.name), **found.to_json()}
        write(json.dumps(said, allow_nan=False))
        return
    for line in _description(other.name, found):
        say(line)


def _read(files: tuple[Path, ...], original: Mosaic, device: str, *, with_map: bool) -> _Other:
    from ..inspection import kind_of, tell_apart

    if len(files) == 2:
        return _decoded(*tell_apart(*files), device, with_map=with_map)
    kind = kind_of(files[0])
    if kind is not None:
        return _decoded(*tell_apart(files[0], partner(files[0])), device, with_map=with_map)
    return _decoded_file(files[0], original)


def _decoded(jpeg: Path, sidecar: Path, device: str, *, with_map: bool) -> _Other:
    """What a JPEG and its sidecar decode to."""
    from ..inspection import inspect_bytes, read_sidecar
    from ..pipeline import decode_photo, map_photo

    data = read_sidecar(sidecar)
    info = inspect_bytes(data, str(sidecar))
    facts = [
        ("JPEG", f"{jpeg.name}, {jpeg.stat().st_size:,} bytes"),
        ("sidecar", f"{sidecar.name}, {info.bytes:,} bytes, {info.bpp:.4f} bpp"),
        ("quality", info.quality),
    ]
    if not with_map or info.model is None:  # without latents no bits belong to a place
        return _Other(
            sidecar, decode_photo(jpeg, data, device=device, name=str(sidecar)), None, facts
        )

    from ..photo.bitmap import write_map

    mapped = map_photo(jpeg, data, device=device, name=str(sidecar))
    sites = mapped.allocation.of_picture(info.height, info.width)
    bits = io.BytesIO()
    write_map(bits, sites, (mapped.mosaic.sensor.orientation,))
    return _Other(sidecar, mapped.mosaic, bits.getvalue(), facts)


def _decoded_file(path: Path, original: Mosaic) -> _Other:
    """A TIFF or DNG that was decoded before."""
    from dataclasses import replace

    from ..photo.output import read_samples
    from ..photo.raw import read_raw

    facts = [("compared with", f"{path.name}, {path.stat().st_size:,} bytes")]
    samples = None if path.suffix.lower() == ".dng" else read_samples(path)
    if samples is None:
        try:
            samples = read_raw(path).mosaic.samples
        except RawcodecError as error:
            raise RawcodecError(
                f"{path}: is no sidecar, no JPEG, and no TIFF or DNG that rawcodec wrote; name one"
            ) from error
    return _Other(path, replace(original, samples=samples), None, facts)


def _error_map(original: Mosaic, other: _Other) -> bytes:
    from ..comparison import error_sites
    from ..photo.bitmap import write_map

    file = io.BytesIO()
    errors = error_sites(original, other.mosaic.samples)
    write_map(file, errors, (original.sensor.orientation,), "DN, mean absolute error")
    return file.getvalue()


def _write_page(
    page: Path,
    raw: Path,
    original: Mosaic,
    other: _Other,
    found: Comparison,
    error_map: bytes,
    *,
    force: bool,
) -> None:
    from ..inspection import camera_name
    from ..report import write_report
    from ..version import VERSION

    sensor = original.sensor
    facts = [
        ("raw", f"{raw.name}, {raw.stat().st_size:,} bytes"),
        ("camera", camera_name(original.make, original.model) or "not named"),
        ("mosaic", f"{sensor.width}x{sensor.height}, {sensor.cfa_name}, white {sensor.white} DN"),
        *other.facts,
    ]
    with new_file(page, force=force) as file:
        write_report(
            file,
            raw.name,
            _summary(found),
            facts,
            _parts(original, other, found, error_map),
            f"Made by rawcodec {VERSION}.",
        )


def _parts(original: Mosaic, other: _Other, found: Comparison, error_map: bytes) -> list[Part]:
    """The sections of the page."""
    from ..comparison import error_sites
    from ..photo import rendering
    from ..photo.align import orient
    from ..photo.bitmap import block_means
    from ..report import Part
    from ..report.page import histogram, levels_table, picture, slider

    look = rendering.Look.of(original)
    names = ("the raw", "what came back")
    both = (original, other.mosaic)
    whole = [rendering.reduced(mosaic, _PICTURE) for mosaic in both]
    # details: where errors are largest, in cells of the CFA
    cell = rendering.cell(original)
    span = _DETAIL * cell
    fine = [rendering.cells(mosaic, cell) for mosaic in both]
    errors = block_means(error_sites(original, other.mosaic.samples), span)
    place = divmod(int(errors.argmax()), errors.shape[1])
    # as large as others at the edge, too
    top, left = (
        max(0, min(n * _DETAIL, size - _DETAIL))
        for n, size in zip(place, fine[0].shape, strict=False)
    )
    here = (slice(top, top + _DETAIL), slice(left, left + _DETAIL))
    worst = [orient(part[here], original.sensor.orientation) for part in fine]
    parts = [
        Part(
            "Both renderings",
            "Drag the line. Means over cells of the CFA, in the camera's own colours.",
            slider(look.show(whole[0]), look.show(whole[1]), names),
        ),
        Part(
            "Shadows, four times as bright",
            "The same, two stops up.",
            slider(look.show(whole[0], 4), look.show(whole[1], 4), names),
        ),
        Part(
            "Where the errors are largest",
            f"{span}x{span} photosites from column {left * cell}, row {top * cell} of the sensor "
            f"on; a square is a cell of the CFA.",
            slider(look.show(worst[0]), look.show(worst[1]), names, enlarged=True),
        ),
        Part(
            "Map of the errors",
            "Absolute errors, means over blocks.",
            picture(error_map, "map of errors"),
        ),
    ]
    if other.bits is not None:
        parts.append(
            Part(
                "Map of the bits",
                "Where in the photo the bits of the sidecar are.",
                picture(other.bits, "map of bits"),
            )
        )
    parts += [
        Part("How large the errors are", "Share of the samples.", histogram(found)),
        Part(
            "By brightness",
            "In stops under white. Where mean errors are above 0, the raw came back brighter.",
            levels_table(found),
        ),
    ]
    return parts


def _summary(found: Comparison) -> str:
    if found.lossless:
        return "lossless: every sample is that of the raw"
    return (
        f"{found.psnr_db:.2f} dB, RMS error {found.rms:.2f} DN, largest error {found.max_error} DN"
    )


def _description(name: Path, found: Comparison) -> list[str]:
    """A heading and aligned lines for a reader."""
    from ..report.page import level_name

    lines = [f"{name}: {_summary(found)}"]
    if found.lossless:
        return lines
    total = sum(level.sites for level in found.levels)
    lines.append(f"  {'brightness':<32}{'samples':>9}{'RMS, DN':>11}{'mean, DN':>11}{'largest':>9}")
    for number, level in enumerate(found.levels):
        if level.sites:
            lines.append(
                f"  {level_name(number, len(found.levels)):<32}{level.sites / total:>9.2%}"
                f"{level.rms:>11.2f}{level.mean:>+11.2f}{level.largest:>9}"
            )
    return lines
