"""Where the time goes: seconds of each stage of an encoding or a decoding.

A small program for :mod:`examples.benchmark.profile`, which runs it in a fresh
process::

    python -m examples.benchmark.stages encode photo.dng photo.jpg medium photo.rmeta
    python -m examples.benchmark.stages decode photo.jpg photo.rmeta

It prints a JSON object. Stages are functions that are timed while they run;
those within others are listed apart.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_P, _L = "rawcodec.pipeline", "rawcodec.model.latents"

STAGES: dict[str, tuple[str, ...]] = {
    "read the raw": (_P, "read_raw"),
    "read the JPEG": (_P, "read_jpeg"),
    "align": (_P, "register"),
    "fit the tone layer": (_P, "fit_tone"),
    "predict and expand": (_P, "_over_bands"),
    "load the weights": ("rawcodec.learned", "runner"),
    "grids": ("rawcodec.model.layer", "_levelled"),
    "fit the first filter": ("rawcodec.model.fitting", "fit_ahead"),
    "analysis": (_L, "PlaneCodec", "analyse"),
    "entropy model": (_L, "PlaneCodec", "know"),
    "context model": (_L, "PlaneCodec", "parameters"),
    "choose latents": (_L, "TableCoder", "_choose"),
    "entropy coding": ("rawcodec.model.tables", "Tables", "code"),
    "add the latents": (_L, "PlaneCodec", "decoded"),
    "fit the second filter": ("rawcodec.model.fitting", "fit_after"),
    "second filter": (_L, "PlaneCodec", "corrected"),
    "digest and error": (_P, "_header"),
    "digest": (_P, "mosaic_digest"),
}
"""Where each stage is: a module, and names in it."""


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Any:
    """A function whose seconds are added to those of a name."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started

    return wrapper


def main(arguments: list[str]) -> None:
    started = time.perf_counter()
    importlib.import_module("rawcodec.learned")
    seconds = {"import": time.perf_counter() - started}
    for name, (module, *path) in STAGES.items():
        owner: Any = importlib.import_module(module)
        for part in path[:-1]:
            owner = getattr(owner, part)
        setattr(owner, path[-1], timed(getattr(owner, path[-1]), name, seconds))

    from rawcodec import pipeline

    begun = time.perf_counter()
    if arguments[0] == "encode":
        raw, jpeg, quality, sidecar = arguments[1:]
        Path(sidecar).write_bytes(pipeline.encode_photo(Path(raw), Path(jpeg), quality=quality))
    else:
        jpeg, sidecar = arguments[1:]
        pipeline.decode_photo(Path(jpeg), Path(sidecar).read_bytes())
    seconds["total"] = time.perf_counter() - begun
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
