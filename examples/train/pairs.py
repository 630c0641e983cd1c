"""Frames: what the learned layer sees and what it has to predict, one folder each.

FRAME/guide.npy: int16 (3, H, W), the JPEG at the sites, 0..4080.
FRAME/tone.npy: uint16 (H, W) or (H, W, 3), the tone layer's companded values.
FRAME/samples.npy: uint16 of the same shape, the mosaic in DN.
FRAME/tone-RATE.npy, FRAME/prediction-RATE.npy: the same at a rate, corrected over large areas, and
then by the first filter too.
FRAME/earlier-RATE.npy: int32 (H, W, 3), only if linear: see ``rawcodec.model.inputs.inputs``.
FRAME/reached.npy: bool (H, W), the sites that the JPEG reaches; absent if all.
FRAME/photo.jpg: the JPEG.
FRAME/meta.json: the sensor and every random choice.

A frame depends on the seed, its number, its size and the photographs alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rawcodec.mosaic import Mosaic
from rawcodec.photo.align import Alignment, Guide
from rawcodec.pipeline import BAND, mosaic_error
from rawcodec.sensor import Sensor
from rawcodec.stream.entropy import Encoder
from rawcodec.tone import coding
from rawcodec.tone.fit import fit_tone
from rawcodec.tone.table import MARGIN, REACH, Tone, expand_band, predict_band

from . import ahead, develop, render, scene
from .camera import Camera, expose, irradiance, random_camera

SIZE = 1536
"""Rows and columns of a frame."""


@dataclass(frozen=True)
class Frame:
    """One frame: the arrays and the description that are written, and the JPEG."""

    guide: np.ndarray
    tone: np.ndarray
    samples: np.ndarray
    reached: np.ndarray | None
    jpeg: bytes
    sensor: Sensor
    meta: dict[str, object]


@dataclass(frozen=True)
class ToneLayer:
    """What the tone layer makes of a pair.

    guide: int16 (3, H, W). values: uint16, companded, of the mosaic's shape.
    reached: bool (H, W) or None for all. size: bytes of the layer. psnr: dB.
    """

    guide: np.ndarray
    values: np.ndarray
    reached: np.ndarray | None
    size: int
    psnr: float


def make_frame(sheet: torch.Tensor, rng: np.random.Generator, kind: str | None = None) -> Frame:
    """A pair of a random camera and a random rendering of a scene, with its tone layer.

    sheet: linear sRGB (3, H, W), as of :func:`scene.contact_sheet`. kind: of
    the sensor, drawn if None.
    """
    camera = random_camera(rng, kind)
    development = develop.random_development(camera, rng)
    rendering = render.random_rendering(camera, rng)
    samples = take(sheet, camera, rng)
    colours = develop.demosaic(samples, camera, development)
    jpeg, alignment = render.write_jpeg(render.render(colours, camera, rendering), rendering)
    sensor = camera.sensor(*samples.shape[:2])
    layer = tone_layer(samples, sensor, jpeg, alignment)
    meta = {
        "width": sensor.width,
        "height": sensor.height,
        "cfa": list(sensor.cfa),
        "black": list(sensor.black),
        "white": sensor.white,
        "kind": camera.kind,
        "iso": camera.iso,
        "shot": camera.shot,
        "read": list(camera.read),
        "tone_bytes": layer.size,
        "tone_psnr": round(layer.psnr, 3),
        "jpeg_bytes": len(jpeg),
        "alignment": dataclasses.asdict(alignment),
        "camera": dataclasses.asdict(camera),
        "development": dataclasses.asdict(development),
        "rendering": dataclasses.asdict(rendering),
    }
    return Frame(layer.guide, layer.values, samples, layer.reached, jpeg, sensor, meta)


def take(sheet: torch.Tensor, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The samples that a camera takes of a scene: uint16 (H, W), or (H, W, 3) if linear."""
    samples = expose(irradiance(sheet, camera), camera, rng)
    if camera.kind == "linear":
        algorithm = str(rng.choice(["LINEAR", "VNG", "PPG", "AHD", "DCB"]))
        within = develop.Development(algorithm, 0, 0, 0)
        samples = develop.linear_raw(samples, camera, within)
    return samples


def decode(jpeg: bytes) -> np.ndarray:
    """A JPEG's pixels as the product decodes them: uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def tone_layer(samples: np.ndarray, sensor: Sensor, jpeg: bytes, alignment: Alignment) -> ToneLayer:
    """The product's tone layer of a pair whose alignment is known."""
    pixels = decode(jpeg)
    height, width = pixels.shape[:2]
    guide = Guide(pixels, alignment, sensor.width, sensor.height, REACH)
    reached = alignment.reached(sensor.width, sensor.height, width, height, MARGIN)
    mosaic = Mosaic(samples, sensor)

    def pack(tone: Tone, head: bytes) -> bytes:
        encoder = Encoder()
        coding.code(encoder, sensor, reached, head, tone)
        return head + encoder.finish()

    tone, payload = fit_tone(mosaic, guide.band, reached, pack)
    values = np.empty(sensor.shape, np.uint16)
    predicted = np.empty(sensor.shape, np.uint16)
    whole = guide.band(-REACH, sensor.height + REACH)
    for top in range(0, sensor.height, BAND):
        bottom = min(top + BAND, sensor.height)
        part = None if reached is None else reached[top:bottom]
        band = whole[:, top : bottom + 2 * REACH]
        predict_band(tone, sensor, band, top, part, values[top:bottom])
        expand_band(sensor, values[top:bottom], top, predicted[top:bottom])
    psnr, _ = mosaic_error(mosaic, predicted)
    inner = np.ascontiguousarray(whole[:, REACH:-REACH, REACH:-REACH])
    return ToneLayer(inner, values, reached, len(payload), psnr)


def photo_frame(photos: list[Path], seed: int, number: int, size: int = SIZE) -> Frame:
    """Frame ``number`` of a seed, of photographs."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, number])
    sheet, tiles = scene.contact_sheet(photos, size, size, rng)
    frame = make_frame(sheet, rng)
    frame.meta.update(seed=seed, number=number, tiles=tiles)
    return frame


def write_frame(frame: Frame, folder: Path) -> None:
    """Write a frame's folder; it has its name only once it is complete."""
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    arrays = {"guide": frame.guide, "tone": frame.tone, "samples": frame.samples}
    if frame.reached is not None:
        arrays["reached"] = frame.reached
    arrays |= ahead.prepare(frame.guide, frame.tone, frame.samples, frame.reached, frame.sensor)
    for name, array in arrays.items():
        np.save(scratch / f"{name}.npy", array)
    (scratch / "photo.jpg").write_bytes(frame.jpeg)
    (scratch / "meta.json").write_text(json.dumps(frame.meta, indent=1) + "\n")
    scratch.rename(folder)


def frame_folder(out: Path, number: int) -> Path:
    """Where frame ``number`` is written."""
    return out / f"frame-{number:05d}"


def _end_with_parent() -> None:
    """End this process when the one that started it ends, however it ends."""
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _produce(photos: list[Path], out: Path, seed: int, number: int, size: int) -> str:
    begin = time.perf_counter()
    frame = photo_frame(photos, seed, number, size)
    write_frame(frame, frame_folder(out, number))
    meta = frame.meta
    return (
        f"frame {number}: {meta['kind']}, ISO {meta['iso']:.0f}, {meta['tone_psnr']:.2f} dB, "
        f"{time.perf_counter() - begin:.1f} s"
    )


def write_frames(photos: Path, out: Path, frames: int, seed: int, jobs: int, size: int) -> None:
    """Write frames 0 to ``frames`` - 1 that are not there yet, printing a line for each."""
    names = scene.find_photos(photos)
    if not names:
        raise FileNotFoundError(f"{photos}: holds no .webp, .png or .hdr photographs")
    out.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(frames) if not frame_folder(out, n).exists()]
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # the processes that start below inherit it
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_parent) as pool:
        running = [pool.submit(_produce, names, out, seed, n, size) for n in missing]
        for done in as_completed(running):
            print(done.result(), flush=True)
