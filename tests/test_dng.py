"""Mosaics to DNG: LibRaw reads back every sample, level and tag, and renders what it did."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
import tifffile
from conftest import Real
from dng import XTRANS
from PIL import Image

from rawcodec.mosaic import Mosaic
from rawcodec.photo.dng import write_dng
from rawcodec.photo.dngtags import CFA_LAYOUT
from rawcodec.photo.ifd import Tiff, read_tiff
from rawcodec.photo.raw import read_raw
from rawcodec.sensor import Sensor

MATRIX = (50721, 10, 9, struct.pack("<18i", *[10000, 10000, 0, 10000, 0, 10000] * 3))
NEUTRAL = (50728, 5, 3, struct.pack("<6I", 1, 2, 1, 1, 2, 3))

KINDS = pytest.mark.parametrize(
    "cfa", [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR"), XTRANS, ("G",), ()],
    ids=lambda cfa: "".join(cfa)[:4] or "linear",
)  # fmt: skip
COMPRESSED = pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])

Written = Callable[..., Path]


def mosaic_of(cfa: tuple[str, ...], height: int, width: int, *, levels: bool = True) -> Mosaic:
    """Noise of every value from 0 to 65535. levels: the cells differ in black level."""
    cells = len(cfa) * len(cfa[0]) if cfa else 3
    black = tuple(range(512, 512 + cells)) if levels else (512,) * cells
    sensor = Sensor(width, height, cfa, black, 16383, 6)
    samples = np.random.default_rng(cells).integers(0, 65536, sensor.shape).astype(np.uint16)
    colour = (MATRIX, NEUTRAL) if cfa != ("G",) else ()
    return Mosaic(samples, sensor, "Acme", "X1", ((50708, 2, 8, b"Acme X1\0"), *colour))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(mosaic: Mosaic, exif: Tiff | None = None, **options: Any) -> Path:
        path = tmp_path / "written.dng"
        with path.open("w+b") as file:
            write_dng(file, mosaic, exif, **options)
        return path

    return write


def without_layout(mosaic: Mosaic) -> list[tuple[int, int, int, bytes]]:
    return [tag for tag in mosaic.tags if tag[0] != CFA_LAYOUT]


@KINDS
@COMPRESSED
@pytest.mark.parametrize("size", [(34, 47), (23, 23), (64, 48), (513, 530), (64, 1200)], ids=str)
def test_libraw_reads_the_mosaic_back(
    written: Written, cfa: tuple[str, ...], compressed: bool, size: tuple[int, int]
) -> None:
    mosaic = mosaic_of(cfa, *size)
    back = read_raw(written(mosaic, compressed=compressed)).mosaic
    assert np.array_equal(back.samples, mosaic.samples)
    assert back.sensor == mosaic.sensor
    assert (back.make, back.model) == (mosaic.make, mosaic.model)
    assert without_layout(back) == list(mosaic.tags)


@KINDS
def test_one_black_level(written: Written, cfa: tuple[str, ...]) -> None:
    mosaic = mosaic_of(cfa, 40, 52, levels=False)
    assert read_raw(written(mosaic)).mosaic.sensor == mosaic.sensor


def test_neither_threads_nor_time_change_a_byte(written: Written) -> None:
    mosaic = mosaic_of(("RG", "GB"), 700, 1300)
    assert len({written(mosaic, threads=threads).read_bytes() for threads in (1, 2, 5)}) == 1


@pytest.mark.parametrize(
    ("cfa", "components"), [(("RG", "GB"), 2), (XTRANS, 2), (("G",), 1), ((), 3)], ids=str
)
def test_tiles_are_of_the_predictor_that_all_readers_know(
    written: Written, cfa: tuple[str, ...], components: int
) -> None:
    """ITU-T T.81: process 3 of 16 bits, each component's scan in one, predictor 1, no shift."""
    path = written(mosaic_of(cfa, 600, 530))
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        assert (page.tilewidth % 16, page.tilelength % 16) == (0, 0)
        assert page.compression == 7
    assert len(places) == 4
    for offset, size in places:
        tile = data[offset : offset + size]
        frame = tile.index(b"\xff\xc3")
        assert tile[frame + 4] == 16
        assert tile[frame + 9] == components
        scan = tile.index(b"\xff\xda")
        assert tile[scan + 4] == components
        assert tuple(tile[scan + 5 + 2 * components :][:3]) == (1, 0, 0)


@pytest.mark.parametrize("name", ["GOPR0024.dng", "GPFR7066.dng", "colorchart.dng", "NikonD1.nef"])
def test_a_real_raw_is_rendered_alike(real: Real, written: Written, name: str) -> None:
    """With the camera's balance, by LibRaw, which reads colours and levels from the tags."""
    original = real(name)
    mosaic = read_raw(original).mosaic
    path = written(mosaic, threads=2)
    back = read_raw(path).mosaic
    assert np.array_equal(back.samples, mosaic.samples)
    assert back.sensor == mosaic.sensor
    named = {tag[0] for tag in mosaic.tags}
    assert [tag for tag in back.tags if tag[0] in named] == list(mosaic.tags)
    assert path.stat().st_size < 0.75 * 2 * mosaic.samples.size
    pictures = []
    for each in (original, path):
        with rawpy.imread(str(each)) as raw:
            pictures.append(raw.postprocess(use_camera_wb=True, half_size=True).astype(int))
    assert pictures[0].shape == pictures[1].shape
    # a raw that is no DNG has its balance as floating-point numbers
    assert np.abs(pictures[0] - pictures[1]).max() <= (1 if name.endswith(".nef") else 0)


def jpeg_exif(order: str = "<") -> Tiff:
    """As a camera's JPEG has it: with GPS, a maker note and what is of the JPEG alone."""
    exif = Image.Exif()
    exif.endian = order
    exif[270], exif[274], exif[306] = "a hill", 6, "2026:01:02 03:04:05"
    exif[315], exif[33432], exif[531] = "A. Person", "CC0", 1
    exif[271], exif[272] = "Of the JPEG", "Camera"
    inner = exif.get_ifd(0x8769)
    inner[33434], inner[34855], inner[36867] = (1, 250), 800, "2026:01:02 03:04:05"
    inner[37500], inner[40962], inner[42036] = b"NOTE" * 20, 4000, "A 50mm lens"
    inner[37386] = 50.0
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", (47.0, 30.0, 0.5)
    tiff = read_tiff(exif.tobytes()[6:])
    assert tiff is not None
    return tiff


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_exif_of_the_jpeg_is_kept(written: Written, order: str) -> None:
    path = written(mosaic_of(("RG", "GB"), 40, 52), jpeg_exif(order))
    found = Image.Exif()
    with path.open("rb") as file:
        found.load_from_fp(file)
        inner, gps = found.get_ifd(0x8769), found.get_ifd(0x8825)
    assert [found[tag] for tag in (270, 306, 315, 33432)] == [
        "a hill", "2026:01:02 03:04:05", "A. Person", "CC0",
    ]  # fmt: skip
    assert (found[271], found[272], found[274]) == ("Acme", "X1", 6)
    assert dict(inner) == {
        33434: (1, 250), 34855: 800, 36867: "2026:01:02 03:04:05", 37386: 50.0,
        42036: "A 50mm lens",
    }  # fmt: skip
    assert (gps[1], tuple(map(float, gps[2]))) == ("N", (47.0, 30.0, 0.5))
    assert 531 not in found


def test_damaged_exif_does_no_harm(written: Written) -> None:
    mosaic = mosaic_of(("RG", "GB"), 40, 52)
    # a directory whose EXIF lies beyond its end, and whose GPS is itself
    pointers = struct.pack("<HHIIHHII", 34665, 4, 1, 60000, 34853, 4, 1, 8)
    damaged = read_tiff(struct.pack("<2sHIH", b"II", 42, 8, 2) + pointers)
    assert damaged is not None
    assert damaged.exif == {}
    assert np.array_equal(read_raw(written(mosaic, damaged)).mosaic.samples, mosaic.samples)


def test_tags_of_a_sidecar_do_not_describe_the_samples(written: Written) -> None:
    """They may come from anywhere; those of no colour are not written."""
    mosaic = mosaic_of(("RG", "GB"), 40, 52)
    wrong = tuple(
        (tag, 4, 1, struct.pack("<I", 7)) for tag in (256, 257, 273, 324, 34665, 50714, 50829)
    )
    tags = sorted([*mosaic.tags, *wrong, (CFA_LAYOUT, 3, 1, b"\2\0")])
    hostile = dataclasses.replace(mosaic, tags=tuple(tags))
    assert written(hostile).read_bytes() == written(mosaic).read_bytes()


def test_versions_are_those_of_the_tags(written: Written) -> None:
    """A reader that knows no opcodes, or no third illuminant, is told."""
    mosaic = mosaic_of(("RG", "GB"), 40, 52)
    for extra, versions in (
        ((), (b"\1\4\0\0", b"\1\1\0\0")),
        (((51009, 7, 4, bytes(4)),), (b"\1\4\0\0", b"\1\3\0\0")),
        (((52529, 3, 1, b"\x15\0"),), (b"\1\6\0\0", b"\1\1\0\0")),
    ):
        path = written(dataclasses.replace(mosaic, tags=(*mosaic.tags, *extra)))
        with tifffile.TiffFile(path) as file:
            found = file.pages.first.tags
            assert (found[50706].value, found[50707].value) == versions


def test_a_camera_without_a_name_has_one(written: Written) -> None:
    mosaic = dataclasses.replace(mosaic_of(("RG", "GB"), 40, 52), make="", model="", tags=(MATRIX,))
    with tifffile.TiffFile(written(mosaic)) as file:
        tags = file.pages.first.tags
        assert tags[50708].value == "unknown"
        assert 271 not in tags


def test_a_preview_is_what_lists_of_files_show(written: Written) -> None:
    """Smaller than the samples and larger; the samples stay what a program opens."""
    mosaic = mosaic_of(("RG", "GB"), 100, 152)
    ramp = np.linspace(0, 255, 61 * 90 * 3).reshape(61, 90, 3).astype(np.uint8)
    for preview in (ramp, np.tile(ramp, (4, 4, 1))):
        path = written(mosaic, jpeg_exif(), preview=preview)
        with rawpy.imread(str(path)) as raw:
            thumb = raw.extract_thumb()
        shown = np.asarray(Image.open(io.BytesIO(thumb.data)))
        assert np.abs(shown.astype(int) - preview).mean() < 4
        back = read_raw(path).mosaic
        assert np.array_equal(back.samples, mosaic.samples)
        assert back.sensor == mosaic.sensor


def test_values_begin_at_even_offsets(written: Written) -> None:
    """TIFF 6.0, section 2."""
    data = written(mosaic_of(XTRANS, 41, 53), jpeg_exif()).read_bytes()
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    tags = [struct.unpack_from("<HHII", data, start + 2 + 12 * k) for k in range(entries)]
    assert [tag[0] for tag in tags] == sorted({tag[0] for tag in tags})
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}
    outside = [value for _, kind, count, value in tags if count * sizes[kind] > 4]
    assert start % 2 == 0
    assert len(outside) > 5
    assert all(value % 2 == 0 and value < len(data) for value in outside)


def test_it_is_written_to_any_file_that_seeks() -> None:
    file = io.BytesIO()
    write_dng(file, mosaic_of(("RG", "GB"), 40, 52))
    assert file.tell() == len(file.getvalue())
