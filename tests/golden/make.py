"""Makes the golden sidecars, their table, and the bad files, from the checkout's root:

    python tests/golden/make.py

A sidecar that is there already is kept: every file that a release wrote must
go on decoding, so these are added to, never edited. ``--force`` makes them all
again, before the first release of a format.

``xtrans.dng`` and ``xtrans.jpg`` are kept as files: a scene of smoothed noise
behind an X-Trans filter, 264x198, with three black levels, flagged to be turned
(orientation 6), and its turned and cropped JPEG, so that the border grid is in
use. ``bayer.jpg`` shows a part of the example photo's JPEG, straightened by 0.8
degrees, so that a warp is in use; its raw is cut from the example photo. The
other pair is the example photo itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np

import rawcodec
from rawcodec.photo.dng import write_dng
from rawcodec.photo.jpeg import read_exif, read_reduced
from rawcodec.photo.raw import read_raw
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.header import Header

FOLDER = Path(__file__).resolve().parent
BAD = FOLDER.parent / "bad"
TABLE = FOLDER / "golden.json"

PAIRS = {
    "photo": ("../../examples/photo.dng", "../../examples/photo.jpg", "tone"),
    "photo-medium": ("../../examples/photo.dng", "../../examples/photo.jpg", "medium"),
    "xtrans": ("xtrans.dng", "xtrans.jpg", "tone"),
    "xtrans-max": ("xtrans.dng", "xtrans.jpg", "max"),
    "bayer-high": (None, "bayer.jpg", "high"),
}
"""Raw and JPEG of each golden sidecar, relative to this folder, and its quality; the raw of
``bayer.jpg`` is cut."""

PART = (slice(300, 1000), slice(620, 1520))
"""Rows and columns of the example photo that it is cut from."""

CROP = {50719, 50720}
"""Tags of the crop, which are those of the whole photo."""


def cut(path: Path) -> None:
    """Write a part of the example photo as a DNG."""
    whole = read_raw(FOLDER / "../../examples/photo.dng").mosaic
    samples = np.ascontiguousarray(whole.samples[PART])
    height, width = samples.shape
    sensor = dataclasses.replace(whole.sensor, width=width, height=height)
    tags = tuple(tag for tag in whole.tags if tag[0] not in CROP)
    part = dataclasses.replace(whole, samples=samples, sensor=sensor, tags=tags)
    jpeg = FOLDER / "bayer.jpg"
    with path.open("w+b") as file:
        write_dng(file, part, read_exif(jpeg), read_reduced(jpeg, 64), compressed=True, threads=1)


def make_golden(force: bool) -> None:
    """Encode the pairs and write down what they decode to."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for name, (raw, jpeg, quality) in PAIRS.items():
        path = FOLDER / f"{name}.rmeta"
        if path.exists() and not force:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "cut.dng" if raw is None else FOLDER / raw
            if raw is None:
                cut(source)
            data = rawcodec.encode(source, FOLDER / jpeg, quality=quality)
        path.write_bytes(data)
        digest = rawcodec.inspect(data).mosaic_digest
        table[name] = {"jpeg": jpeg, "bytes": len(data), "mosaic_digest": digest}
    TABLE.write_text(json.dumps(table, indent=2) + "\n")


def make_bad(force: bool) -> None:
    """Damage the small golden sidecar in every way that users meet."""
    good = (FOLDER / "xtrans.rmeta").read_bytes()
    chunks = {chunk.type: chunk for chunk in container.read(good)}
    header = Header.unpack(chunks["HEAD"].payload)
    alignment, tone = chunks["ALGN"].payload, chunks["TONE"].payload
    model = dataclasses.replace(
        header, quality="medium", model="latent-0", model_hash=bytes(range(16))
    )
    unknown = dict(chunks, HEAD=Chunk("HEAD", model.pack()), LATN=Chunk("LATN", bytes(64)))

    def rebuilt(kind: str, payload: bytes) -> bytes:
        """A sidecar with one payload replaced, its checksums right."""
        return container.write(
            Chunk(kind, payload) if chunk.type == kind else chunk for chunk in chunks.values()
        )

    learned = {c.type: c for c in container.read((FOLDER / "xtrans-max.rmeta").read_bytes())}
    latents = learned["LATN"].payload

    def relearned(payload: bytes) -> bytes:
        """A sidecar with other latents, its checksums right."""
        return container.write(dict(learned, LATN=Chunk("LATN", payload)).values())

    middle = len(good) // 2
    files = {
        "empty": b"",
        "text": b"photo.dng photo.jpg\n",
        "truncated": good[:middle],
        "no-tail": good[: -container.TAIL_SIZE],
        "text-mode": good.replace(b"\r\n", b"\n"),
        "flipped-bit": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "appended": good + b"\n",
        "newer-format": good[:8] + (container.FORMAT_VERSION + 1).to_bytes(2, "little") + good[10:],
        "model": container.write(unknown[kind] for kind in container.KNOWN if kind in unknown),
        "no-latents": rebuilt("HEAD", model.pack()),
        "orientation": rebuilt("ALGN", b"\x09" + alignment[1:]),
        "scale": rebuilt("ALGN", alignment[:1] + bytes(4) + alignment[5:]),
        "tone-head": rebuilt("TONE", tone[:10]),
        "tone-step": rebuilt("TONE", tone[:10] + bytes(2) + tone[12:]),
        "tone-cut": rebuilt("TONE", tone[:-8]),
        "tone-other": rebuilt("TONE", tone[:40] + bytes([tone[40] ^ 1]) + tone[41:]),
        "latents-head": relearned(latents[:8]),
        "latents-rate": relearned(b"\x21" + latents[1:]),
        "latents-cut": relearned(latents[:-8]),
        "latents-other": relearned(latents[:60] + bytes([latents[60] ^ 1]) + latents[61:]),
        "digest": rebuilt("HEAD", dataclasses.replace(header, mosaic_digest=bytes(16)).pack()),
    }
    for name, data in files.items():
        path = BAD / f"{name}.rmeta"
        if force or not path.exists():
            path.write_bytes(data)
    jpeg = (FOLDER / "xtrans.jpg").read_bytes()
    if force or not (BAD / "truncated.jpg").exists():
        (BAD / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the golden sidecars and the bad files.")
    parser.add_argument("--force", action="store_true", help="make those that are there again")
    arguments = parser.parse_args()
    make_golden(arguments.force)
    make_bad(arguments.force)
