"""Mosaics to TIFF: what is written is read back, by tifffile and by Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dng import XTRANS
from PIL import Image

from rawcodec.mosaic import Mosaic
from rawcodec.photo.output import read_samples, write_tiff
from rawcodec.sensor import Sensor


def mosaic_of(
    cfa: tuple[str, ...], height: int = 31, width: int = 45, orientation: int = 1
) -> Mosaic:
    """Every value from 0 to 65535 may occur."""
    cells = len(cfa) * len(cfa[0]) if cfa else 3
    black = tuple(range(512, 512 + cells))
    sensor = Sensor(width, height, cfa, black, 16383, orientation)
    samples = np.random.default_rng(cells).integers(0, 65536, sensor.shape).astype(np.uint16)
    return Mosaic(samples, sensor, "Acme", "X1")


def written(mosaic: Mosaic) -> bytes:
    file = io.BytesIO()
    write_tiff(file, mosaic)
    return file.getvalue()


def tags_of(data: bytes) -> dict[int, object]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
        return {tag.code: tag.value for tag in file.pages.first.tags}


KINDS = pytest.mark.parametrize(
    "cfa", [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR"), XTRANS, ("G",), ()],
    ids=lambda cfa: "".join(cfa)[:4] or "linear",
)  # fmt: skip


@KINDS
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 45)])
def test_samples(cfa, size):
    mosaic = mosaic_of(cfa, *size)
    data = written(mosaic)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        samples = file.pages.first.asarray()
    assert samples.dtype == np.uint16
    assert np.array_equal(samples, mosaic.samples)


@KINDS
def test_levels_and_names(cfa):
    mosaic = mosaic_of(cfa, orientation=6)
    tags = tags_of(written(mosaic))
    assert tags[259] == 1
    assert tags[271] == "Acme"
    assert tags[272] == "X1"
    assert tags[274] == 6
    assert tags[305] == "rawcodec"
    assert tags[50713] == mosaic.sensor.period
    black = tags[50714]
    assert (black if isinstance(black, tuple) else (black,)) == mosaic.sensor.black
    assert tags[50717] == (16383 if cfa else (16383,) * 3)


@pytest.mark.parametrize("cfa", [("GB", "RG"), XTRANS], ids=["Bayer", "X-Trans"])
def test_cfa(cfa):
    tags = tags_of(written(mosaic_of(cfa)))
    assert tags[262] == 32803
    assert tags[33421] == (len(cfa), len(cfa[0]))
    assert bytes(tags[33422]) == bytes("RGB".index(letter) for row in cfa for letter in row)


def test_monochrome_and_linear():
    assert tags_of(written(mosaic_of(("G",))))[262] == 1
    linear = tags_of(written(mosaic_of(())))
    assert linear[262] == 34892
    assert linear[277] == 3
    assert linear[284] == 1
    assert 33422 not in linear


def test_pillow_reads_monochrome():
    """Pillow has no mode for a CFA or for 16-bit RGB."""
    mosaic = mosaic_of(("G",))
    with Image.open(io.BytesIO(written(mosaic))) as image:
        assert np.array_equal(np.asarray(image), mosaic.samples)


@KINDS
def test_same_mosaic_same_bytes(cfa):
    assert written(mosaic_of(cfa)) == written(mosaic_of(cfa))


def test_nothing_but_the_mosaic_is_written():
    tags = tags_of(written(mosaic_of(("RG", "GB"))))
    assert not {270, 306} & tags.keys(), "no description, no date"


def test_names_are_ascii():
    mosaic = mosaic_of(("RG", "GB"))
    named = Mosaic(mosaic.samples, mosaic.sensor, "Kamera-Öl", "")
    tags = tags_of(written(named))
    assert tags[271] == "Kamera-?l"


def test_a_view_of_samples():
    """Samples need not be contiguous, nor in the machine's byte order."""
    mosaic = mosaic_of(("RG", "GB"))
    turned = Mosaic(np.asfortranarray(mosaic.samples).astype(">u2"), mosaic.sensor, "Acme", "X1")
    assert written(turned) == written(mosaic)


@KINDS
def test_samples_are_read_back(tmp_path: Path, cfa: tuple[str, ...]) -> None:
    mosaic = mosaic_of(cfa)
    (tmp_path / "a.tiff").write_bytes(written(mosaic))
    assert np.array_equal(read_samples(tmp_path / "a.tiff"), mosaic.samples)


def test_other_files_have_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    for data in (b"", b"another", written(mosaic_of(("RG", "GB")))[:1000]):
        path.write_bytes(data)
        assert read_samples(path) is None
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    assert read_samples(path) is None
    tifffile.imwrite(path, np.zeros((2, 4, 4), np.uint16), photometric="minisblack")
    assert read_samples(path) is None
