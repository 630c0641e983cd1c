"""Rebuild a camera's raw file from its JPEG and a small sidecar.

>>> import rawcodec
>>> sidecar = rawcodec.encode("photo.dng", "photo.jpg")        # doctest: +SKIP
>>> mosaic = rawcodec.decode("photo.jpg", sidecar)             # doctest: +SKIP
>>> mosaic.samples.shape, mosaic.sensor.cfa                    # doctest: +SKIP
((1156, 1734), ('RG', 'GB'))

Importing the package is cheap: numpy, rawpy and torch are loaded by the
functions that need them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .inspection import SidecarInfo, inspect_bytes, inspect_path, read_sidecar
from .sensor import Sensor
from .version import VERSION as __version__

if TYPE_CHECKING:
    from .mosaic import Mosaic
    from .pipeline import Target

__all__ = ["Sensor", "SidecarInfo", "__version__", "decode", "encode", "inspect"]

PathLike = str | os.PathLike[str]


def encode(
    raw_path: PathLike,
    jpeg_path: PathLike,
    *,
    quality: str | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    device: str = "auto",
    verify: bool = True,
    allow_partial: bool = False,
) -> bytes:
    """Encode what a JPEG does not know of the raw of the same shot.

    raw_path: any raw file that LibRaw reads: Bayer, X-Trans, monochrome or
        linear (demosaiced). jpeg_path: a rendering of it, turned, cropped,
        straightened, corrected, or reduced to as little as an eighth.
    quality: ``tone`` (the smallest), ``low``, ``medium``, ``high`` or ``max``;
        ``medium`` if no size is given either.
    bpp: in the place of a quality, the size in bits per site of the mosaic, met
        within 5% where the model's gains and the photo allow. max_bytes: the
        most bytes that the sidecar may have.
    device: ``auto``, ``cpu`` or ``cuda``. The result is the same on each.
    verify: decode the result and compare digests before returning it.
    allow_partial: take a JPEG that shows less than half of the raw. What it does
        not show is coded without its help.

    Returns the sidecar's bytes (docs/FORMAT.md).

    Raises errors of :mod:`rawcodec.errors`: RawError, JpegError,
    AlignmentError (not the same shot, or too small a part of it), QualityError
    (unknown, or no sidecar of the photo is so small), DeviceError, DigestError.
    ValueError for more than one of quality, bpp and max_bytes, or a size that is
    not positive.

    Source: the design follows "Raw Image Reconstruction with Learned Compact
    Metadata" (Wang et al., CVPR 2023).
    """
    from . import pipeline

    sidecar = pipeline.encode_photo(
        Path(raw_path),
        Path(jpeg_path),
        quality=quality or pipeline.DEFAULT_QUALITY,
        target=_target(quality, bpp, max_bytes),
        device=device,
        allow_partial=allow_partial,
    )
    if verify:
        pipeline.decode_photo(Path(jpeg_path), sidecar, device=device, name="the new sidecar")
    return sidecar


def _target(quality: str | None, bpp: float | None, max_bytes: int | None) -> Target | None:
    from .pipeline import Target

    if sum(value is not None for value in (quality, bpp, max_bytes)) > 1:
        raise ValueError("give one of quality, bpp and max_bytes")
    for size in (bpp, max_bytes):
        if size is not None and not 0 < size < float("inf"):
            raise ValueError(f"a size of {size} is not positive")
    return None if bpp is None and max_bytes is None else Target(bpp, max_bytes)


def decode(jpeg: PathLike, sidecar: PathLike | bytes, *, device: str = "auto") -> Mosaic:
    """Rebuild the raw mosaic.

    jpeg: the JPEG that the sidecar was made with; its metadata may differ.
    sidecar: its path, or its bytes.
    device: ``auto``, ``cpu`` or ``cuda``. The result is the same on each.

    Returns the mosaic: ``samples`` is uint16 in the sensor's DN, black level
    not subtracted, of shape (H, W), or (H, W, 3) for a linear raw; ``sensor``
    has its CFA, black and white levels. It is exactly what the encoder saw:
    the sidecar's digest has been checked.

    Raises errors of :mod:`rawcodec.errors`: JpegError, JpegMismatchError,
    SidecarError (corrupt, newer, or its model not installed), DeviceError,
    DigestError.
    """
    from . import pipeline

    if isinstance(sidecar, bytes):
        return pipeline.decode_photo(Path(jpeg), sidecar, device=device)
    return pipeline.decode_photo(
        Path(jpeg), read_sidecar(sidecar), device=device, name=os.fspath(sidecar)
    )


def inspect(sidecar: PathLike | bytes) -> SidecarInfo:
    """What a sidecar says of itself, without its JPEG and without decoding it.

    sidecar: its path, or its bytes.

    Raises CorruptSidecarError or VersionError (:mod:`rawcodec.errors`).
    """
    if isinstance(sidecar, bytes):
        return inspect_bytes(sidecar)
    return inspect_path(sidecar)
