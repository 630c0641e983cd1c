"""Small files that claim to be gigantic, or expand to it: one line, exit code 1, and no memory.

Each command runs in a process that may take 1 GB more than it has once all is imported; what it
says is never that memory ran out.
"""

from __future__ import annotations

import io
import math
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dng import write_dng
from PIL import Image

from rawcodec.errors import JpegError
from rawcodec.photo.bomb import PIXELS_A_BYTE
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.header import SITES_A_PIXEL, Header

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
RAW, JPEG, SIDECAR = (GOLDEN / f"xtrans.{suffix}" for suffix in ("dng", "jpg", "rmeta"))

LIMITED = """
import resource, sys
from pathlib import Path
import numpy, rawcodec.pipeline, rawcodec.cli, rawcodec.photo.output
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
rawcodec.cli.main(sys.argv[1:])
"""

LOSSLESS, DEFLATE, LOSSY = 7, 8, 34892


def refusal(*arguments: str | Path, cwd: Path) -> str:
    """The one line that a command says."""
    before = {path: path.read_bytes() for path in cwd.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert re.fullmatch(r"[^\n]+: [^\n]+; [^\n]+\n", done.stderr), done.stderr
    assert "memory" not in done.stderr
    assert {path: path.read_bytes() for path in cwd.iterdir()} == before
    return done.stderr


def claiming(width: int, height: int, **options: object) -> bytes:
    """A JPEG of 64x64 pixels that says that it has more."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 40)).save(file, "JPEG", **options)
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc2" if options else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "options", "fault"),
    [
        (65535, {}, "more than the limit"),
        (22000, {}, "bytes do not hold"),
        (22000, {"progressive": True}, "bytes do not hold"),
    ],
)
def test_jpegs_that_claim_to_be_gigantic(
    tmp_path: Path, size: int, options: dict[str, object], fault: str
) -> None:
    (tmp_path / "big.jpg").write_bytes(claiming(size, size, **options))
    said = refusal("encode", RAW, "big.jpg", "--quality", "tone", cwd=tmp_path)
    assert said.startswith("big.jpg: ") and fault in said
    said = refusal("decode", "big.jpg", SIDECAR, "-o", "x.tiff", cwd=tmp_path)
    assert said.startswith("big.jpg: ") and fault in said


def test_jpegs_that_expand_to_another_size_are_not_decoded(tmp_path: Path) -> None:
    """3 MB that are 256 million pixels indeed, all of one colour."""
    block = Image.new("L", (16000, 16000), 90)
    block.save(tmp_path / "flat.jpg")
    said = refusal("encode", RAW, "flat.jpg", "--quality", "tone", cwd=tmp_path)
    assert "16000x16000 cannot be a rendering of a raw of" in said
    said = refusal("decode", "flat.jpg", SIDECAR, "-o", "x.tiff", cwd=tmp_path)
    assert "16000x16000 pixels, and the sidecar belongs to a JPEG of" in said


def test_scans_without_end(tmp_path: Path) -> None:
    """Each would be a walk over all pixels."""
    data = claiming(64, 64, progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", data)]
    path = tmp_path / "scans.jpg"
    path.write_bytes(data[: starts[-1]] + data[starts[-1] : -2] * 300 + data[-2:])
    with pytest.raises(JpegError, match=r"has 3\d\d scans"):
        read_jpeg(path)
    path.write_bytes(data)
    assert read_jpeg(path).pixels.shape == (64, 64, 3)


def test_flat_jpegs_are_read(tmp_path: Path) -> None:
    """The fewest bits that Huffman's codes can have."""
    for number, options in enumerate(({}, {"progressive": True}, {"subsampling": 2})):
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (1024, 1024)).save(path, "JPEG", optimize=True, **options)
        assert path.stat().st_size * PIXELS_A_BYTE > 1 << 20
        assert not read_jpeg(path).pixels.any()


def test_pngs_in_the_place_of_jpegs(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    )
    png += chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    (tmp_path / "a.jpg").write_bytes(png)
    assert "is not a JPEG but a PNG" in refusal("encode", RAW, "a.jpg", cwd=tmp_path)
    # behind what begins as a JPEG does
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + png)
    assert "a.jpg: " in refusal("encode", RAW, "a.jpg", "--quality", "tone", cwd=tmp_path)


def claimed(path: Path, size: int, compression: int, *shape: int) -> None:
    """A DNG of 64x64 photosites that says that it has more."""
    samples = np.full((64, 64, *shape), 1000, np.uint16)
    write_dng(path, samples, cfa=() if shape else ("RG", "GB"))
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        for tag, value in ((256, size), (257, size), (278, size), (259, compression)):
            tags[tag].overwrite(value)


@pytest.mark.parametrize("compression", [1, LOSSLESS, DEFLATE, LOSSY])
@pytest.mark.parametrize("size", [65000, 22000, 12000])
def test_raws_that_claim_to_be_gigantic(tmp_path: Path, size: int, compression: int) -> None:
    claimed(tmp_path / "big.dng", size, compression)
    said = refusal("encode", "big.dng", JPEG, "-o", "x.rmeta", "--quality", "tone", cwd=tmp_path)
    assert said.startswith("big.dng: ")
    said = refusal("encode", "big.dng", "x.jpg", "--embedded", cwd=tmp_path)
    assert said.startswith("big.dng: ")


def test_linear_raws_that_claim_to_be_gigantic(tmp_path: Path) -> None:
    claimed(tmp_path / "big.dng", 16000, 1, 3)
    said = refusal("encode", "big.dng", JPEG, "-o", "x.rmeta", "--quality", "tone", cwd=tmp_path)
    assert said.startswith("big.dng: ")


def altered(width: int, height: int) -> bytes:
    """A golden sidecar that claims another size, its checksums right."""
    chunks = container.read(SIDECAR.read_bytes())
    header = Header.unpack(chunks[0].payload)
    sensor = replace(header.sensor, width=width, height=height)
    other = object.__new__(Header)
    for name in header.__dataclass_fields__:
        object.__setattr__(other, name, getattr(header, name))
    for name, value in (
        *(("sensor", sensor), ("raw_width", width), ("raw_height", height)),
        *(("left", 0), ("top", 0)),
    ):
        object.__setattr__(other, name, value)
    return container.write([Chunk("HEAD", other.pack()), *chunks[1:]])


@pytest.mark.parametrize("size", [(23000, 23000), (65535, 8000), (4000, 4000)])
def test_sidecars_that_claim_to_be_gigantic(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.rmeta").write_bytes(altered(*size))
    said = refusal("decode", JPEG, "a.rmeta", "-o", "x.tiff", cwd=tmp_path)
    assert said.startswith("a.rmeta: ") and "photosites are more than 160 a pixel" in said


def test_sidecars_that_claim_as_much_as_the_jpeg_allows_fail_later(tmp_path: Path) -> None:
    header = Header.unpack(container.read(SIDECAR.read_bytes())[0].payload)
    side = math.isqrt(SITES_A_PIXEL * header.jpeg_width * header.jpeg_height)
    (tmp_path / "a.rmeta").write_bytes(altered(side, side))
    said = refusal("decode", JPEG, "a.rmeta", "-o", "x.tiff", cwd=tmp_path)
    assert said.startswith("a.rmeta: ") and "160 a pixel" not in said


def test_tiffs_that_claim_to_be_gigantic(tmp_path: Path) -> None:
    """Where an output is compared with what it should be."""
    tifffile.imwrite(
        tmp_path / "big.tiff", np.zeros((12000, 12000), np.uint16), compression=DEFLATE
    )
    said = refusal("compare", RAW, "big.tiff", cwd=tmp_path)
    assert said.startswith("big.tiff: ")
