"""The command line: text in, text out; the work is done elsewhere.

numpy, torch and rawpy are imported by the commands that need them, when they
run, so that ``info`` and ``--help`` answer at once.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from .errors import DigestError, OutputError, RawcodecError, RawError, SidecarError
from .files import NewFile, check_target, new_file
from .stream.header import QUALITIES
from .version import VERSION

if TYPE_CHECKING:
    from .inspection import SidecarInfo
    from .model.allocation import Allocation
    from .photo.bitmap import Drawn

_PATH: Final = click.Path(path_type=Path)
_NAME_IT: Final = "name the JPEG behind the raw, or try --embedded"
_JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Stopped(BaseException):
    """A signal asked the program to stop; no ``except Exception`` may keep it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves the process with its exit code.

    0: done. 1: a file or the machine stands in the way; one line on standard
    error says what to do. 2: wrong usage. 128 + n: stopped by signal n.
    """
    # Names may hold any bytes; printing them must not fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stop_on_signals():
            code = _run(arguments)
    except _Stopped as stopped:
        interrupted = stopped.number == signal.SIGINT
        _complain(f"rawcodec: {'interrupted' if interrupted else 'terminated'}")
        code = 128 + stopped.number
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs a command; returns the exit code."""
    try:
        # Not standalone: click would answer an interruption itself, with 1.
        code = _cli.main(arguments, prog_name="rawcodec", standalone_mode=False)
    except RawcodecError as error:
        _complain(str(error))
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turns signals that end a program into an exception, so that files are cleaned up."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # A second one must not disturb the cleaning up.
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    candidates = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        candidates.append(signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in candidates}
    # One that is ignored (nohup, a shell's background job) stays so.
    before = {each: old for each, old in before.items() if old not in (signal.SIG_IGN, None)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)


@contextmanager
def _plainly(path: str | Path) -> Iterator[None]:
    """Names the file at which the machine's own limits were met.

    Other unexpected exceptions are bugs, and keep their traceback.
    """
    try:
        yield
    except MemoryError as error:
        raise RawcodecError(
            f"{path}: not enough memory; close other programs or use a larger machine"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RawcodecError(
            f"{error.filename or path}: {reason}; check the file and its disk"
        ) from error


def _number(value: float | None) -> float | None:
    """The value of an option; the range of click lets pass what is no number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of bits.")
    return value


def _device_option(function: _Function) -> _Function:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute. The result is the same.",
    )(function)


def _force_option(function: _Function) -> _Function:
    return click.option("--force", is_flag=True, help="Replace the output if it exists.")(function)


@click.group(name="rawcodec")
@click.version_option(VERSION, prog_name="rawcodec", message="%(prog)s %(version)s")
def _cli() -> None:
    """Keeps a raw photo as its JPEG and a small sidecar.

    \b
    rawcodec encode photo.dng photo.jpg     writes photo.rmeta
    rawcodec decode photo.jpg photo.rmeta   writes photo.tiff, the raw mosaic
    rawcodec info photo.rmeta               tells what is in a sidecar
    """


@_cli.command()
@click.argument("raw", type=_PATH)
@click.argument("jpeg", type=_PATH, required=False)
@click.option(
    "--embedded",
    is_flag=True,
    help="Take the preview that the raw has in it: it is written as the JPEG, the raw's name with "
    ".jpg or the one given, and belongs to the sidecar from then on.",
)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    metavar="OUT.rmeta",
    help="The sidecar to write.  [default: the JPEG's name with .rmeta]",
)
@click.option(
    "--quality",
    type=click.Choice(QUALITIES),
    help="How much to keep of what the JPEG lacks.  [default: medium]",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, 32, min_open=True),
    callback=lambda _context, _option, value: _number(value),
    help="Bits per photosite, within 5% as a rule, in the place of a quality.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    help="The most bytes of the sidecar, in the place of a quality.",
)
@_device_option
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode what was written before it gets its name.",
)
@_force_option
def encode(
    raw: Path,
    jpeg: Path | None,
    embedded: bool,
    output: Path | None,
    quality: str | None,
    bpp: float | None,
    max_bytes: int | None,
    device: str,
    verify: bool,
    force: bool,
) -> None:
    """Writes the sidecar of a RAW and a JPEG of the same shot.

    Without a JPEG, the one beside the raw that has its name is taken.

    \b
    rawcodec encode photo.dng photo.jpg
    rawcodec encode photo.dng
    rawcodec encode photo.nef photo.jpg -o sidecars/photo.rmeta
    rawcodec encode photo.dng photo.jpg --bpp 0.2
    """
    if sum(value is not None for value in (quality, bpp, max_bytes)) > 1:
        raise click.UsageError("give one of --quality, --bpp and --max-bytes")
    started = time.perf_counter()
    if jpeg is None:
        with _plainly(raw):
            jpeg = _named_after(raw, ".jpg") if embedded else _jpeg_beside(raw, RawError, _NAME_IT)
    target = _named_after(jpeg, ".rmeta") if output is None else output
    check_target(target, force=force, inputs=(raw, jpeg))

    import rawcodec

    with _plainly(raw), _extracted(raw, jpeg) if embedded else nullcontext():
        data = rawcodec.encode(
            raw,
            jpeg,
            quality=quality,
            bpp=bpp,
            max_bytes=max_bytes,
            device=device,
            verify=False,
        )
        with new_file(target, force=force) as file:
            file.write(data)
            if verify:
                _verify(file, target, jpeg, data, device)
        info = rawcodec.inspect(data)
    seconds = time.perf_counter() - started
    _say(f"{target}: {info.bytes:,} bytes, {info.bpp:.4f} bpp, {_psnr(info)}, {seconds:.1f} s")


@contextmanager
def _extracted(raw: Path, jpeg: Path) -> Iterator[None]:
    """Writes the raw's own preview as a JPEG, which goes again if the rest fails.

    It never replaces a file, which may be the JPEG of another sidecar.
    """
    if os.path.lexists(jpeg):
        raise OutputError(
            f"{jpeg}: already exists; name another JPEG behind the raw, or leave out --embedded"
        )
    check_target(jpeg, force=False, inputs=(raw,))

    from .photo.raw import read_embedded

    with new_file(jpeg, force=False) as file:
        file.write(read_embedded(raw))
    try:
        yield
    except BaseException:
        jpeg.unlink(missing_ok=True)
        raise


def _verify(file: NewFile, target: Path, jpeg: Path, data: bytes, device: str) -> None:
    """Decodes what is on the disk, before it gets its name."""
    import rawcodec

    read = file.read_back()
    if read != data:
        raise OutputError(
            f"{target}: reads back otherwise than it was written, so it was removed; check the disk"
        )
    try:
        rawcodec.decode(jpeg, read, device=device)
    except (DigestError, SidecarError) as error:
        raise type(error)(
            f"{target}: does not decode to what was encoded, so it was removed; "
            f"report this ({error})"
        ) from error


@_cli.command()
@click.argument("jpeg", type=_PATH)
@click.argument("sidecar", type=_PATH, required=False)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    metavar="OUT.tiff|OUT.dng",
    help="The TIFF or DNG to write, by its ending.  [default: the sidecar's name with .tiff]",
)
@click.option(
    "--uncompressed",
    is_flag=True,
    help="Write the DNG's samples as they are: about twice the size.",
)
@_device_option
@_force_option
def decode(
    jpeg: Path,
    sidecar: Path | None,
    output: Path | None,
    uncompressed: bool,
    device: str,
    force: bool,
) -> None:
    """Writes the raw mosaic of a JPEG and its SIDECAR, in either order.

    Of the two, one may be left out that lies beside the other and has its name.
    As a TIFF for programs that compute with it, or as a DNG for raw editors.

    \b
    rawcodec decode photo.jpg photo.rmeta
    rawcodec decode photo.jpg photo.rmeta -o photo.dng
    rawcodec decode photo.rmeta photo.jpg -o photo-raw.tiff
    """
    as_dng = output is not None and output.suffix.lower() == ".dng"
    if uncompressed and not as_dng:
        raise click.UsageError("--uncompressed goes with -o OUT.dng")
    started = time.perf_counter()

    from .inspection import read_sidecar, tell_apart

    jpeg, sidecar = tell_apart(jpeg, _other(jpeg) if sidecar is None else sidecar)
    target = _named_after(sidecar, ".tiff") if output is None else output
    check_target(target, force=force, inputs=(jpeg, sidecar))

    import rawcodec

    from .photo.dng import write_dng
    from .photo.jpeg import read_exif
    from .photo.output import write_tiff
    from .pipeline import read_preview, thread_count

    with _plainly(sidecar):
        mosaic = rawcodec.decode(jpeg, sidecar, device=device)
        with new_file(target, force=force) as file:
            if as_dng:
                write_dng(
                    file,
                    mosaic,
                    read_exif(jpeg),
                    read_preview(jpeg, read_sidecar(sidecar)),
                    compressed=not uncompressed,
                    threads=thread_count(),
                )
            else:
                write_tiff(file, mosaic)
            size = file.seek(0, 2)
    sensor = mosaic.sensor
    seconds = time.perf_counter() - started
    _say(
        f"{target}: {size:,} bytes, {sensor.width}x{sensor.height}, {seconds:.1f} s, "
        f"exact: the digest matches"
    )


@_cli.command()
@click.argument("sidecars", nargs=-1, required=True, type=click.Path(), metavar="SIDECAR...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and file.")
@click.option(
    "-o",
    "--map",
    "target",
    type=_PATH,
    metavar="OUT.png",
    help="Decode one sidecar, and write a picture of where in the photo its bits are: "
    "the sensor's frame, turned as the JPEG is shown.",
)
@click.option(
    "--jpeg",
    type=_PATH,
    help="The JPEG that --map needs.  [default: the one beside the sidecar, of its name]",
)
@_force_option
def info(
    sidecars: tuple[str, ...], as_json: bool, target: Path | None, jpeg: Path | None, force: bool
) -> int:
    """Tells what is in sidecars, without decoding them.

    \b
    rawcodec info photo.rmeta
    rawcodec info --json *.rmeta
    rawcodec info photo.rmeta --map bits.png
    """
    if target is not None:
        if len(sidecars) > 1 or as_json:
            raise click.UsageError("--map is of one sidecar, and goes without --json")
        _map(Path(sidecars[0]), jpeg, target, force=force)
        return 0
    if jpeg is not None or force:
        raise click.UsageError("--jpeg and --force go with --map")

    import rawcodec

    failed = False
    for path in sidecars:
        try:
            with _plainly(path):
                found = rawcodec.inspect(path)
        except RawcodecError as error:
            _complain(str(error))
            failed = True
        else:
            if as_json:
                import json

                _write(json.dumps(found.to_json(), allow_nan=False))
            else:
                for line in _description(found):
                    _say(line)
    return 1 if failed else 0


def _map(sidecar: Path, jpeg: Path | None, target: Path, *, force: bool) -> None:
    """Writes the map of a sidecar's bits, and says how many of them it shows."""
    from .inspection import inspect_bytes, read_sidecar

    with _plainly(sidecar):
        data = read_sidecar(sidecar)
        info = inspect_bytes(data, sidecar)
        if info.model is None:
            raise SidecarError(
                f"{sidecar}: has the tone layer alone, whose bits belong to no place; "
                f"name a sidecar of another quality than tone"
            )
        if jpeg is None:
            jpeg = _jpeg_beside(sidecar, SidecarError, "name its JPEG with --jpeg")
        check_target(target, force=force, inputs=(jpeg, sidecar))

        from .photo.bitmap import write_map
        from .pipeline import map_photo

        mapped = map_photo(jpeg, data, name=str(sidecar))
        sites = mapped.allocation.of_picture(info.height, info.width)
        with new_file(target, force=force) as file:
            drawn = write_map(file, sites, mapped.orientations)
    _say(_shown(target, drawn, info, mapped.allocation))


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


def _other(path: Path) -> Path:
    """What goes with a JPEG or a sidecar that is named alone."""
    from .inspection import kind_of

    with _plainly(path):
        if kind_of(path) == "JPEG":
            return _named_after(path, ".rmeta")
        return _jpeg_beside(path, SidecarError, "name its JPEG too")


def _jpeg_beside(path: Path, error: type[RawcodecError], hint: str) -> Path:
    """The JPEG that has the file's name, but for its ending.

    error, hint: what is raised where there is not just one, and what to do then.
    """
    if not path.exists():
        raise error(f"{path}: no such file; check the name")
    found = sorted(
        each
        for each in path.parent.iterdir()
        if each.stem == path.stem and each.suffix.lower() in _JPEG_SUFFIXES
    )
    if len(found) == 1:
        return found[0]
    fault = f"{' and '.join(each.name for each in found)} lie beside it"
    if not found:
        fault = f"no {path.stem}.jpg lies beside it"
    raise error(f"{path}: {fault}; {hint}")


def _description(info: SidecarInfo) -> list[str]:
    """A heading and aligned lines for a reader."""
    black = info.black[:1] if len(set(info.black)) == 1 else info.black
    layers = ", ".join(f"{name} {size:,}" for name, size in info.layers.items() if size)
    rows = (
        ("size", f"{info.bytes:,} bytes, {info.bpp:.4f} bpp"),
        ("layers", f"{layers} (bytes)"),
        ("quality", f"{info.quality}, {_psnr(info)}, largest error {info.max_error} DN"),
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


def _psnr(info: SidecarInfo) -> str:
    return "lossless" if info.lossless else f"{info.psnr_db:.2f} dB"


def _named_after(path: Path, suffix: str) -> Path:
    # Not with_suffix, which raises for a path without a name, such as "/".
    return path.parent / (path.stem + suffix)


def _say(line: str) -> None:
    _write(_printable(line))


def _write(line: str) -> None:
    """A line on standard output, which may be a file on a full disk."""
    try:
        click.echo(line)
    except BrokenPipeError:
        raise  # who reads has seen enough; click ends the program for it
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}; check where it goes") from error


def _complain(line: str) -> None:
    click.echo(_printable(line), err=True)


def _printable(line: str) -> str:
    """The text on one line: a name may hold line ends, or codes that upset a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
