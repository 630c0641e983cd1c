"""What a sidecar says of itself, without decoding it.

Imports the standard library only (no numpy, torch or rawpy), so that
``rawcodec info`` answers at once.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import CorruptSidecarError, RawcodecError, SidecarError
from .stream import container
from .stream.header import Header
from .stream.tags import unpack_tags

# The layer of each chunk. One that is not here counts as "other".
_LAYERS: Final = {
    "HEAD": "header",
    "ALGN": "align",
    "TONE": "tone",
    "LATN": "latents",
    "RESD": "residual",
    "tags": "tags",
}
# These are named even where they take no bytes, so that a script finds them.
_ALWAYS: Final = ("container", "header", "align", "tone", "latents", "tags", "other")

_JPEG_START: Final = b"\xff\xd8\xff"


@dataclass(frozen=True)
class SidecarInfo:
    """What a sidecar says of itself.

    path: the file's name as it was given; None if the bytes were.
    bytes: size of the file.
    bpp: bits of the file a visible photosite, everything included.
    width, height: of the visible mosaic in photosites, not rotated.
    cfa: ``RGGB`` and the like, ``mono``, ``linear``, all letters for X-Trans.
    black: black level in DN of each cell of the CFA, row by row (of R, G and B
        for a linear raw).
    white: white level (saturation) in DN.
    camera: make and model; empty if the raw did not name them.
    model: id of the weights that decoding needs; None if it needs none.
    quality: what was asked for when it was encoded.
    psnr_db: of the decoded mosaic against the raw; infinite if lossless.
    max_error: largest absolute difference from the raw in DN.
    orientation: the raw's flag, as in EXIF (1 to 8).
    jpeg_width, jpeg_height: of the JPEG in pixels, as stored.
    writer: the program that wrote the file.
    format_version: of docs/FORMAT.md.
    jpeg_digest, jpeg_stream_digest, mosaic_digest: in hexadecimal digits, as
        docs/FORMAT.md defines them.
    layers: bytes of each layer; together they are all bytes of the file.
        ``container`` is what frames the others: signature, version, the
        chunks' types, lengths and checksums.
    """

    path: str | None
    bytes: int
    bpp: float
    width: int
    height: int
    cfa: str
    black: tuple[int, ...]
    white: int
    camera: str
    model: str | None
    quality: str
    psnr_db: float
    max_error: int
    orientation: int
    jpeg_width: int
    jpeg_height: int
    writer: str
    format_version: int
    jpeg_digest: str
    jpeg_stream_digest: str
    mosaic_digest: str
    layers: dict[str, int]

    @property
    def lossless(self) -> bool:
        """True if the decoded mosaic equals the raw."""
        return math.isinf(self.psnr_db)

    @property
    def psnr_text(self) -> str:
        """The PSNR for a reader."""
        return "lossless" if self.lossless else f"{self.psnr_db:.2f} dB"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them.

        JSON has no infinity: ``psnr_db`` of a lossless sidecar is null, and
        ``lossless`` is true.
        """
        return {
            "path": self.path,
            "bytes": self.bytes,
            "bpp": self.bpp,
            "width": self.width,
            "height": self.height,
            "cfa": self.cfa,
            "black": list(self.black),
            "white": self.white,
            "camera": self.camera,
            "model": self.model,
            "quality": self.quality,
            "psnr_db": None if self.lossless else self.psnr_db,
            "lossless": self.lossless,
            "max_error": self.max_error,
            "orientation": self.orientation,
            "jpeg_width": self.jpeg_width,
            "jpeg_height": self.jpeg_height,
            "writer": self.writer,
            "format_version": self.format_version,
            "jpeg_digest": self.jpeg_digest,
            "jpeg_stream_digest": self.jpeg_stream_digest,
            "mosaic_digest": self.mosaic_digest,
            "layers": dict(self.layers),
        }


def inspect_bytes(data: bytes, path: str | os.PathLike[str] | None = None) -> SidecarInfo:
    """What the sidecar in these bytes says; every byte is checked first.

    path: what messages and ``SidecarInfo.path`` call it.

    Raises CorruptSidecarError if it is truncated, altered or not a sidecar, and
    VersionError if it was written by a newer format.
    """
    name = None if path is None else os.fspath(path)
    shown = "sidecar" if name is None else name
    if data.startswith(_JPEG_START):
        raise CorruptSidecarError(f"{shown}: is a JPEG, not a sidecar; name the .rmeta file")
    try:
        chunks = container.read(data)
        header = Header.unpack(chunks[0].payload)
        for chunk in chunks:
            if chunk.type == "tags":
                unpack_tags(chunk.payload)
    except SidecarError as error:
        # They know no file name; the class says what can be done about it.
        raise type(error)(f"{shown}: {error}") from error
    return _info(name, len(data), header, _layers(len(data), chunks))


def inspect_path(path: str | os.PathLike[str]) -> SidecarInfo:
    """What a sidecar file says; the errors of ``read_sidecar`` and ``inspect_bytes``."""
    return inspect_bytes(read_sidecar(path), path)


_PART = 1 << 24


def read_sidecar(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a sidecar file.

    Of a file that does not start like a sidecar only the first bytes are read
    and returned, so that a raw or a film given by mistake costs nothing;
    ``container.read`` says what is wrong with them.

    Raises SidecarError if the file is missing or cannot be read.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            parts = [file.read(container.PREFIX_SIZE)]
            if parts[0].startswith(container.MAGIC):
                # One byte more than allowed, so that too large a file is noticed; in parts, since
                # Python takes memory for as many bytes as are asked for.
                left = container.SIZE_LIMIT + 1 - len(parts[0])
                while left and (part := file.read(min(left, _PART))):
                    parts.append(part)
                    left -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise SidecarError(_unreadable(name, error)) from error


def tell_apart(first: Path, second: Path) -> tuple[Path, Path]:
    """(JPEG, sidecar) of two files given in either order, told by their first bytes.

    A file that is neither is returned as what the other is not, so that
    reading it says what is wrong. Raises RawcodecError where one cannot be
    read, or both are JPEGs or both sidecars.
    """
    kinds = [kind_of(first), kind_of(second)]
    if kinds == ["JPEG", "JPEG"]:
        raise RawcodecError(f"{second}: is a JPEG like {first}; name one JPEG and one sidecar")
    if kinds == ["sidecar", "sidecar"]:
        raise RawcodecError(f"{second}: is a sidecar like {first}; name one JPEG and one sidecar")
    swapped = kinds[0] == "sidecar" or kinds[1] == "JPEG"
    return (second, first) if swapped else (first, second)


def kind_of(path: Path) -> str | None:
    """``JPEG`` or ``sidecar`` by a file's first bytes; None for another one.

    Raises RawcodecError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(container.MAGIC))
    except OSError as error:
        raise RawcodecError(_unreadable(str(path), error)) from error
    if start.startswith(_JPEG_START):
        return "JPEG"
    return "sidecar" if start == container.MAGIC else None


def _unreadable(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name}: no such file; check the name"
    if isinstance(error, IsADirectoryError):
        return f"{name}: is a folder; name a file in it"
    return f"{name}: cannot be read ({error.strerror}); check its permissions"


def _layers(size: int, chunks: list[container.Chunk]) -> dict[str, int]:
    layers = dict.fromkeys(_ALWAYS, 0)
    for chunk in chunks:
        layer = _LAYERS.get(chunk.type, "other")
        layers[layer] = layers.get(layer, 0) + len(chunk.payload)
    layers["container"] = size - sum(layers.values())
    return layers


def _info(name: str | None, size: int, header: Header, layers: dict[str, int]) -> SidecarInfo:
    sensor = header.sensor
    return SidecarInfo(
        path=name,
        bytes=size,
        bpp=8 * size / (sensor.width * sensor.height),
        width=sensor.width,
        height=sensor.height,
        cfa=sensor.cfa_name,
        black=sensor.black,
        white=sensor.white,
        camera=camera_name(header.camera_make, header.camera_model),
        model=header.model or None,
        quality=header.quality,
        psnr_db=header.psnr_db,
        max_error=header.max_error,
        orientation=sensor.orientation,
        jpeg_width=header.jpeg_width,
        jpeg_height=header.jpeg_height,
        writer=header.writer,
        format_version=container.FORMAT_VERSION,
        jpeg_digest=header.jpeg_digest.hex(),
        jpeg_stream_digest=header.jpeg_stream_digest.hex(),
        mosaic_digest=header.mosaic_digest.hex(),
        layers=layers,
    )


def camera_name(make: str, model: str) -> str:
    """``Canon EOS R6``, where the model repeats the make and where it does not."""
    make, model = make.strip(), model.strip()
    if model.casefold().startswith(make.casefold()):
        return model or make
    return f"{make} {model}".strip()
