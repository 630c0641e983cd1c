"""The order of the stages: the only module that knows it.

Encoding reads both files, aligns them, fits the tone layer and writes the
chunks. Decoding reads the chunks and the JPEG. Both rebuild the mosaic with
:func:`reconstruct`, so that they cannot drift apart. A further layer is one
more stage in :func:`reconstruct` and one more chunk.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from . import weights
from .cores import thread_count
from .errors import (
    AlignmentError,
    CorruptSidecarError,
    DeviceError,
    DigestError,
    JpegMismatchError,
    QualityError,
    SidecarError,
)
from .model.view import GuideFrom, GuideRows, PlaneView, Refined, Stripes, stripes
from .mosaic import COLOURS, Mosaic, mosaic_digest, planes
from .photo.align import Alignment, Guide, orient
from .photo.jpeg import Jpeg, read_jpeg, read_reduced
from .photo.raw import RawPhoto, read_raw
from .photo.register import check_size, register
from .process import give_back
from .sensor import Sensor
from .stream import container, tags
from .stream.container import Chunk
from .stream.entropy import Decoder, Encoder
from .stream.header import CUSTOM, QUALITIES, Header
from .tone import coding
from .tone.fit import fit_tone
from .tone.table import MARGIN, REACH, Companded, Tone, expand_band, predict_band
from .version import VERSION

if TYPE_CHECKING:
    from .model.allocation import Allocation

DEFAULT_QUALITY = "medium"

TOLERANCE = 1.05
"""How much larger than asked for a sidecar may be where bits per site are asked for."""

LEAST_COVERAGE = 0.5
"""Share of the sites that a JPEG must reach, unless the caller says that less will do."""

PREVIEW = 1024
"""Pixels of a DNG's preview each way, at most."""

BAND = 64
"""Rows that are rebuilt at a time; the result does not depend on it."""


@dataclass(frozen=True)
class View:
    """A JPEG as the mosaic's sites see it.

    guide: its pixels resampled to the sites.
    reached: bool (H, W), the sites that it reaches; None for all.
    """

    guide: Guide
    reached: np.ndarray | None

    @property
    def coverage(self) -> float:
        """Share of the sites that the JPEG reaches."""
        return 1.0 if self.reached is None else float(self.reached.mean())


class Refiner(Protocol):
    """The learned layer of one photo, as its encoder or its decoder has it."""

    def refine(self, stripes: Stripes) -> Iterator[Refined]:
        """The better values of each stripe."""
        ...


@dataclass(frozen=True)
class Layers:
    """What the mosaic is rebuilt from, beside the JPEG.

    learned: gives the learned layer, if there is one; called after the tone layer, so that
    what it needs can be loaded meanwhile.
    """

    tone: Tone
    learned: Callable[[], Refiner] | None = None


@dataclass(frozen=True)
class Target:
    """A wanted size of a sidecar. bpp: bits per site of the mosaic. max_bytes: the most bytes.

    One of the two is given.
    """

    bpp: float | None = None
    max_bytes: int | None = None

    def size(self, sensor: Sensor) -> int:
        """In bytes."""
        if self.max_bytes is not None:
            return self.max_bytes
        assert self.bpp is not None
        return round(self.bpp * sensor.width * sensor.height / 8)

    def limit(self, sensor: Sensor) -> float:
        """The most bytes that still are what was asked for."""
        return self.size(sensor) * (1 if self.max_bytes is not None else TOLERANCE)


def encode_photo(
    raw_path: Path,
    jpeg_path: Path,
    *,
    quality: str = DEFAULT_QUALITY,
    target: Target | None = None,
    device: str = "auto",
    allow_partial: bool = False,
) -> bytes:
    """The sidecar of a raw and a JPEG of the same shot.

    target: the wanted size, in the place of a quality. allow_partial: take a JPEG that shows
    less than ``LEAST_COVERAGE`` of the raw.

    Raises QualityError, DeviceError, RawError, JpegError and AlignmentError,
    whose messages begin with the file that they are about.
    """
    asked = quality if target is None else CUSTOM
    model = quality_model(quality if target is None else DEFAULT_QUALITY)
    check_device(device)
    raw = read_raw(raw_path)
    if model is not None:
        _load_early()
    sensor = raw.mosaic.sensor
    try:
        jpeg = read_jpeg(jpeg_path, lambda w, h: check_size(w, h, sensor.width, sensor.height))
        alignment = register(raw.mosaic, jpeg.pixels, jpeg.orientation).alignment
    except AlignmentError as error:
        raise AlignmentError(f"{jpeg_path}: {error}") from error

    view = _view(alignment, sensor, jpeg)
    if not allow_partial and view.coverage < LEAST_COVERAGE:
        raise AlignmentError(
            f"{jpeg_path}: shows {view.coverage:.0%} of the raw, and the rest costs as if there "
            f"were no JPEG; give a JPEG of the whole frame, or --allow-partial"
        )

    def pack(tone: Tone, head: bytes) -> bytes:
        encoder = Encoder()
        coding.code(encoder, sensor, view.reached, head, tone)
        return head + encoder.finish()

    tone, payload = fit_tone(raw.mosaic, view.guide.band, view.reached, pack)

    def sidecar(samples: np.ndarray, model: weights.Model | None, latents: bytes | None) -> bytes:
        header = _header(raw, jpeg, samples, asked if model is not None else "tone", model)
        return container.write(
            [
                Chunk("HEAD", header.pack()),
                Chunk("ALGN", alignment.pack()),
                Chunk("TONE", payload),
                *([] if latents is None else [Chunk("LATN", latents)]),
                Chunk("tags", tags.pack_tags(raw.mosaic.tags)),
            ]
        )

    if model is not None:
        from .learned import AimedEncoder, LatentEncoder, TooSmallError, runner, use_threads

        use_threads(thread_count())
        path = weights.installed_model(model)
        raws = [
            Companded(sensor, raw.mosaic.samples, _colour(index)) for index in _coded_planes(sensor)
        ]
        encoder: LatentEncoder | AimedEncoder
        if target is None:
            encoder = LatentEncoder(runner(path, model.qualities[quality], device), raws)
        else:
            # the size does not depend on what the samples are
            left = target.size(sensor) - len(sidecar(raw.mosaic.samples, model, b""))
            at_most = target.max_bytes is not None
            encoder = AimedEncoder(path, device, raws, left, at_most=at_most)
        try:
            samples = reconstruct(sensor, view, Layers(tone, lambda: encoder))
            return sidecar(samples, model, encoder.payload())
        except TooSmallError:
            pass  # then the tone layer alone
    data = sidecar(reconstruct(sensor, view, Layers(tone)), None, None)
    if target is not None and len(data) > target.limit(sensor):
        bpp = 8 * len(data) / (sensor.width * sensor.height)
        raise QualityError(
            f"{raw_path}: its smallest sidecar takes {len(data)} bytes ({bpp:.4f} bpp), which is "
            f"more than was asked for; ask for more"
        )
    return data


def decode_photo(
    jpeg_path: Path, sidecar: bytes, *, device: str = "auto", name: str = "sidecar"
) -> Mosaic:
    """The mosaic of a JPEG and the bytes of its sidecar, checked by its digest.

    name: what messages call the sidecar.

    Raises DeviceError, SidecarError, JpegError, JpegMismatchError and
    DigestError, whose messages begin with the file that they are about.
    """
    return _decode(jpeg_path, sidecar, device, name)[0]


@dataclass(frozen=True)
class Mapped:
    """A decoded photo, and where the bits of its latents lie.

    orientations: what lays the sensor's frame as programs show the JPEG, one after the other:
        see :func:`.photo.align.orient`.
    """

    mosaic: Mosaic
    allocation: Allocation
    orientations: tuple[int, int]


def map_photo(
    jpeg_path: Path, sidecar: bytes, *, device: str = "auto", name: str = "sidecar"
) -> Mapped:
    """What ``decode_photo`` gives and raises, and where the bits of the latents lie."""
    from .model.allocation import Allocation
    from .stream.meter import SymbolMeter

    allocation = Allocation(SymbolMeter())
    mosaic, shown = _decode(jpeg_path, sidecar, device, name, allocation)
    return Mapped(mosaic, allocation, shown)


def read_preview(jpeg_path: Path, sidecar: bytes) -> np.ndarray:
    """The JPEG of a sidecar that was decoded, reduced and turned as the sensor lies.

    Returns uint8 (h, w, 3), at most ``PREVIEW`` pixels each way.
    """
    chunks = {chunk.type: chunk.payload for chunk in container.read(sidecar)}
    reduced = read_reduced(jpeg_path, PREVIEW)
    return np.ascontiguousarray(orient(reduced, Alignment.unpack(chunks["ALGN"]).orientation))


def _decode(
    jpeg_path: Path, sidecar: bytes, device: str, name: str, allocation: Allocation | None = None
) -> tuple[Mosaic, tuple[int, int]]:
    """The mosaic, and ``Mapped.orientations``; see ``decode_photo``.

    allocation: told where the bits of the latents lie, if given.
    """
    check_device(device)
    try:
        chunks = {chunk.type: chunk.payload for chunk in container.read(sidecar)}
        header = Header.unpack(chunks["HEAD"])
        _check_layers(header, chunks)
        colour_tags = tags.unpack_tags(chunks["tags"]) if "tags" in chunks else ()
    except SidecarError as error:
        raise type(error)(f"{name}: {error}") from error

    if header.model:
        _load_early()
    jpeg = read_jpeg(jpeg_path, partial(_check_jpeg_size, jpeg_path, header))
    _check_jpeg(jpeg_path, jpeg, header)
    try:
        alignment, view, layers = _unpack_layers(header, chunks, jpeg, device, allocation)
        samples = reconstruct(header.sensor, view, layers)
    except SidecarError as error:
        raise type(error)(f"{name}: {error}") from error
    if mosaic_digest(samples) != header.mosaic_digest:
        raise DigestError(
            f"{name}: what was decoded is not what was encoded; "
            f"copy the sidecar again, and report this if it stays so"
        )
    mosaic = Mosaic(samples, header.sensor, header.camera_make, header.camera_model, colour_tags)
    return mosaic, (_undone(alignment.orientation), jpeg.orientation)


def reconstruct(sensor: Sensor, view: View, layers: Layers) -> np.ndarray:
    """The mosaic that the JPEG and the layers make: uint16 of ``sensor.shape``.

    Encoder and decoder both call it. Integer arithmetic alone; neither the
    bands nor the number of threads change the result.
    """
    samples = np.empty(sensor.shape, np.uint16)

    if layers.learned is None:

        def rebuild(band: slice) -> None:
            values = np.empty((band.stop - band.start, *sensor.shape[1:]), np.uint16)
            _predict(sensor, view, layers.tone, band, values)
            expand_band(sensor, values, band.start, samples[band])

        _over_bands(rebuild, slice(0, sensor.height))
        return samples

    def expand(values: np.ndarray, rows: slice) -> None:
        def part(band: slice) -> None:
            here = values[band.start - rows.start : band.stop - rows.start]
            expand_band(sensor, here, band.start, samples[band])

        _over_bands(part, rows)

    photo = _stripes(sensor, view, layers.tone)
    photo.prepare()
    give_back()
    for rows, better in layers.learned().refine(photo):
        values = np.empty((rows.stop - rows.start, *sensor.shape[1:]), np.uint16)
        for index, plane in zip(_coded_planes(sensor), better, strict=True):
            values[index] = plane
        expand(values, rows)
    return samples


def _stripes(sensor: Sensor, view: View, tone: Tone) -> Stripes:
    """What the learned layer is given."""
    indices = _coded_planes(sensor)
    colours = [_colours(sensor, index) for index in indices]

    def make(rows: slice) -> list[PlaneView]:
        height = rows.stop - rows.start
        values = np.empty((height, *sensor.shape[1:]), np.uint16)
        guide: GuideRows = GuideFrom(view.guide, rows.start)
        seen = None
        if not view.guide.is_plain:
            guide = seen = np.empty((3, height, sensor.width), np.int16)

        def predict(band: slice) -> None:
            part = slice(band.start - rows.start, band.stop - rows.start)
            found = _predict(sensor, view, tone, band, values[part])
            if seen is not None:
                seen[:, part] = found

        _over_bands(predict, rows)
        reached = None if view.reached is None else view.reached[rows]
        return [
            PlaneView(guide, values[index], np.roll(pattern, -rows.start, 0), reached)
            for index, pattern in zip(indices, colours, strict=True)
        ]

    return Stripes(stripes(sensor.height, sensor.width), colours, make)


def _predict(sensor: Sensor, view: View, tone: Tone, rows: slice, out: np.ndarray) -> np.ndarray:
    """Put companded values of rows, as the tone layer has them, into ``out``: uint16 (h, W[, 3]).

    Returns the guide of their sites, int16 (3, h, W).
    """
    guide = view.guide.band(rows.start - REACH, rows.stop + REACH)
    reached = None if view.reached is None else view.reached[rows]
    predict_band(tone, sensor, guide, rows.start, reached, out)
    return guide[:, REACH:-REACH, REACH:-REACH]


def _coded_planes(sensor: Sensor) -> list[tuple[EllipsisType | int, ...]]:
    """What to index samples with for each plane that the learned layer codes, in order.

    A mosaic is one plane; a linear raw has three, green first, which the other
    two resemble most.
    """
    return [(..., colour) for colour in (1, 0, 2)] if sensor.linear else [(...,)]


def _colour(index: tuple[EllipsisType | int, ...]) -> int | None:
    """The colour of a coded plane of a linear raw; None for a mosaic."""
    return index[-1] if isinstance(index[-1], int) else None


def _colours(sensor: Sensor, index: tuple[EllipsisType | int, ...]) -> np.ndarray:
    """The repeating pattern of colours of a coded plane: uint8 (rows, columns)."""
    if sensor.linear:
        return np.array([[_colour(index)]], np.uint8)
    return np.array([[COLOURS.index(colour) for colour in row] for row in sensor.cfa], np.uint8)


def quality_model(quality: str) -> weights.Model | None:
    """The model that new sidecars of a quality use; None for the tone layer alone.

    Raises QualityError for a quality that there is not, or that no installed model has.
    """
    if quality == "tone":
        return None
    if quality not in QUALITIES:
        raise QualityError(f"quality {quality}: is none of {', '.join(QUALITIES)}")
    for model in weights.models():
        if quality in model.qualities:
            return model
    raise QualityError(
        f"quality {quality}: needs a model, and none is installed; "
        f"install rawcodec again, or use --quality tone"
    )


def check_device(device: str) -> None:
    """Raise DeviceError where the device is unknown or cannot be used.

    The tone layer runs on the CPU whatever the device.
    """
    if device in ("auto", "cpu"):
        return
    if device != "cuda":
        raise DeviceError(f"device {device}: is none of auto, cpu and cuda")
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("device cuda: this machine has none that can be used; use --device cpu")


def _load_early() -> None:
    """Start to load the learned layer's packages: it takes a second or two, beside other work.

    Once the first input is known to be right, so that refusing most wrong ones stays quick.
    """
    threading.Thread(
        target=importlib.import_module, args=("rawcodec.learned",), daemon=True
    ).start()


def _over_bands(task: Callable[[slice], None], rows: slice) -> None:
    """Call ``task`` with each band of rows."""
    bands = [slice(top, min(top + BAND, rows.stop)) for top in range(rows.start, rows.stop, BAND)]
    with ThreadPoolExecutor(min(thread_count(), len(bands))) as threads:
        for _ in threads.map(task, bands):
            pass  # draws the exceptions out


def _view(alignment: Alignment, sensor: Sensor, jpeg: Jpeg) -> View:
    oriented = orient(jpeg.pixels, alignment.orientation)
    height, width = oriented.shape[:2]
    return View(
        Guide(oriented, alignment, sensor.width, sensor.height, REACH),
        alignment.reached(sensor.width, sensor.height, width, height, MARGIN),
    )


def _undone(orientation: int) -> int:
    """What undoes an EXIF orientation: only the two quarter turns do not undo themselves."""
    return {6: 8, 8: 6}.get(orientation, orientation)


def _check_layers(header: Header, chunks: dict[str, bytes]) -> None:
    """Raise SidecarError if the layers do not fit the header, or the model is missing."""
    if bool(header.model) != ("LATN" in chunks):
        lacks = "has no latents for its model" if header.model else "has latents without a model"
        raise CorruptSidecarError(f"damaged: {lacks}; copy the sidecar again")
    if header.model:
        weights.require_model(header.model, header.model_hash)


def _unpack_layers(
    header: Header,
    chunks: dict[str, bytes],
    jpeg: Jpeg,
    device: str,
    allocation: Allocation | None,
) -> tuple[Alignment, View, Layers]:
    """How the JPEG lies, the view of it, and the layers; SidecarError for damaged ones."""
    sensor = header.sensor
    try:
        alignment = Alignment.unpack(chunks["ALGN"])
        view = _view(alignment, sensor, jpeg)
        head, coded = chunks["TONE"][: coding.HEAD_SIZE], chunks["TONE"][coding.HEAD_SIZE :]
        coding.unpack_head(head)
        decoder = Decoder(coded)
        tone = coding.code(decoder, sensor, view.reached, head, None)
        decoder.finish()
    except ValueError as error:
        raise CorruptSidecarError(f"damaged: {error}; copy the sidecar again") from error
    if not header.model:
        return alignment, view, Layers(tone)
    learned = partial(_latent_decoder, header, chunks["LATN"], device, allocation)
    return alignment, view, Layers(tone, learned)


def _latent_decoder(
    header: Header, payload: bytes, device: str, allocation: Allocation | None
) -> Refiner:
    """What decodes the learned layer; SidecarError for a damaged one, or a missing model."""
    from .learned import LatentDecoder, runner, use_threads
    from .model.layer import LayerHead

    try:
        sensor = header.sensor
        parts = len(_coded_planes(sensor)) * len(stripes(sensor.height, sensor.width))
        head, coded = LayerHead.unpack(payload, parts)
    except ValueError as error:
        raise CorruptSidecarError(f"damaged: {error}; copy the sidecar again") from error
    use_threads(thread_count())
    path = weights.require_model(header.model, header.model_hash)
    return LatentDecoder(runner(path, head.rate, device, head.fine), head, coded, allocation)


def _header(
    raw: RawPhoto, jpeg: Jpeg, samples: np.ndarray, quality: str, model: weights.Model | None
) -> Header:
    psnr, largest = mosaic_error(raw.mosaic, samples)
    make, camera = raw.mosaic.make, raw.mosaic.model
    if not make and not camera:
        make, camera = jpeg.make, jpeg.model
    return Header(
        sensor=raw.mosaic.sensor,
        raw_width=raw.raw_width,
        raw_height=raw.raw_height,
        left=raw.left,
        top=raw.top,
        jpeg_width=jpeg.pixels.shape[1],
        jpeg_height=jpeg.pixels.shape[0],
        jpeg_digest=jpeg.digest,
        jpeg_stream_digest=jpeg.stream_digest,
        mosaic_digest=mosaic_digest(samples),
        quality=quality,
        model="" if model is None else model.id,
        model_hash=bytes(16) if model is None else model.hash,
        psnr_db=psnr,
        max_error=largest,
        writer=f"rawcodec {VERSION}",
        camera_make=make,
        camera_model=camera,
    )


def mosaic_error(mosaic: Mosaic, samples: np.ndarray) -> tuple[float, int]:
    """PSNR in dB and largest error in DN of samples against a mosaic.

    The PSNR is of linear, black-subtracted values with the white level at 1,
    over all visible sites; 0 where it would be negative, infinite where all
    samples are equal.
    """
    total, count, largest = 0.0, 0, 0
    for _, black, index in planes(mosaic.sensor):
        ours, theirs = mosaic.samples[index], samples[index]
        for top in range(0, len(ours), BAND):  # small enough to stay in the cache
            part = ours[top : top + BAND].astype(np.int32) - theirs[top : top + BAND]
            largest = max(largest, int(np.abs(part).max(initial=0)))
            flat = part.ravel().astype(np.float64)
            total += float(flat @ flat) / (mosaic.sensor.white - black) ** 2
        count += ours.size
    if largest == 0:
        return math.inf, 0
    return max(0.0, -10 * math.log10(total / count)), largest


_RULE = "editing its metadata is fine, saving it again is not"


def _check_jpeg_size(path: Path, header: Header, width: int, height: int) -> None:
    if (width, height) != (header.jpeg_width, header.jpeg_height):
        raise JpegMismatchError(
            f"{path}: has {width}x{height} pixels, and the sidecar belongs to a JPEG of "
            f"{header.jpeg_width}x{header.jpeg_height}; give that one ({_RULE})"
        )


def _check_jpeg(path: Path, jpeg: Jpeg, header: Header) -> None:
    if jpeg.digest == header.jpeg_digest:
        return
    if jpeg.stream_digest == header.jpeg_stream_digest:
        raise JpegMismatchError(
            f"{path}: is the right JPEG, but the JPEG decoder of this installation makes other "
            f"pixels of it than the one that encoded; install another release of Pillow"
        )
    raise JpegMismatchError(
        f"{path}: its pixels are not those that the sidecar was made with: it is another photo, "
        f"or was saved again; give the original JPEG ({_RULE})"
    )
