"""Raws to mosaics: geometry, CFA, levels, tags, and everything that is no raw."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
from conftest import Real
from dng import XTRANS, write_dng

from rawcodec.errors import RawError
from rawcodec.photo import dngtags
from rawcodec.photo.raw import read_raw, read_size
from rawcodec.stream.tags import pack_tags

BAYER = [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR")]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 65536, shape).astype(np.uint16)


def shifted(cfa: tuple[str, ...], rows: int, columns: int) -> tuple[str, ...]:
    """The pattern as seen from a site further down and to the right."""
    turned = cfa[rows % len(cfa) :] + cfa[: rows % len(cfa)]
    columns %= len(cfa[0])
    return tuple(row[columns:] + row[:columns] for row in turned)


def check_error(path: Path, what: str) -> None:
    """Reading fails with one line that starts with the name and says what and what to do."""
    with pytest.raises(RawError) as caught:
        read_raw(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert what in message
    assert "; " in message
    assert "\n" not in message


# Real cameras


@pytest.mark.parametrize(
    ("name", "size", "raw_size", "origin", "cfa", "black", "white", "orientation", "camera"),
    [
        ("colorchart.dng", (1734, 1156), (1888, 1182), (152, 26), ("RG", "GB"), 2056, 15000, 1,
         ("Canon", "Canon EOS Kiss X4")),
        ("NikonD1.nef", (2012, 1324), (2012, 1324), (0, 0), ("BG", "GR"), 0, 4095, 1,
         ("NIKON CORPORATION", "NIKON D1")),
        ("GOPR0024.dng", (4000, 3000), (4000, 3000), (0, 0), ("RG", "GB"), 0, 16383, 2,
         ("GoPro", "HERO6 Black")),
        ("GOPR9231.dng", (4000, 3000), (4000, 3000), (0, 0), ("RG", "GB"), 0, 16383, 2,
         ("GoPro", "HERO7 Black")),
        ("GPFR7066.dng", (3104, 3000), (3104, 3000), (0, 0), ("RG", "GB"), 0, 16383, 2,
         ("GoPro", "FUSION")),
    ],
)  # fmt: skip
def test_real(real: Real, name, size, raw_size, origin, cfa, black, white, orientation, camera):
    path = real(name)
    photo = read_raw(path)
    mosaic, sensor = photo.mosaic, photo.mosaic.sensor
    assert (sensor.width, sensor.height) == size
    assert (photo.raw_width, photo.raw_height) == raw_size
    assert (photo.left, photo.top) == origin
    assert sensor.cfa == cfa
    assert sensor.black == (black,) * 4
    assert sensor.white == white
    assert sensor.orientation == orientation
    assert (mosaic.make, mosaic.model) == camera
    with rawpy.imread(str(path)) as raw:
        assert np.array_equal(mosaic.samples, raw.raw_image_visible)
        colours = raw.raw_colors_visible[:8, :8]
    expected = [["RGBG"[channel] for channel in row] for row in colours]
    assert [list(row * 4) for row in cfa] * 4 == expected


def test_samples_outlive_the_file(real: Real):
    samples = read_raw(real("colorchart.dng")).mosaic.samples
    assert samples.flags.owndata
    assert samples.flags.c_contiguous
    assert samples.dtype == np.uint16
    samples[:] = 0


def test_uncompressed_samples_are_the_files_own_bytes(real: Real):
    """Independent of LibRaw: the GoPro's one strip starts at a known offset."""
    path = real("GOPR0024.dng")
    stored = np.frombuffer(path.read_bytes(), "<u2", offset=15148).reshape(3000, 4000)
    assert np.array_equal(read_raw(path).mosaic.samples, stored)


# CFA and geometry


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("origin", [(0, 0), (2, 4), (3, 5), (2, 5), (3, 4)])
@pytest.mark.parametrize("cfa", BAYER, ids="".join)
def test_bayer_phases_and_margins(tmp_path, cfa, origin, byteorder):
    """LibRaw moves an odd origin to the next even one; CFA and black must follow."""
    samples = noise(61, 83)
    black = (100, 200, 300, 400)
    area = (*origin, 58, 81)
    photo = read_raw(
        write_dng(tmp_path / "a.dng", samples, cfa, black, active_area=area, byteorder=byteorder)
    )
    top, left = photo.top, photo.left
    assert 0 <= top - origin[0] <= 1
    assert 0 <= left - origin[1] <= 1
    sensor = photo.mosaic.sensor
    assert np.array_equal(
        photo.mosaic.samples, samples[top : top + sensor.height, left : left + sensor.width]
    )
    down, right = top - origin[0], left - origin[1]
    assert sensor.cfa == shifted(cfa, down, right)
    table = np.roll(np.reshape(black, (2, 2)), (-down, -right), axis=(0, 1))
    assert sensor.black == tuple(table.ravel())
    assert (photo.raw_width, photo.raw_height) == (83, 61)


@pytest.mark.parametrize("origin", [(0, 0), (1, 2)])
def test_quad_bayer(tmp_path, origin):
    """LibRaw would read this pattern as eight rows of two sites."""
    cfa = ("RRGG", "RRGG", "GGBB", "GGBB")
    photo = read_raw(
        write_dng(tmp_path / "q.dng", noise(61, 83), cfa, active_area=(*origin, 61, 83))
    )
    down, right = photo.top - origin[0], photo.left - origin[1]
    assert photo.mosaic.sensor.cfa == shifted(cfa, down, right)
    assert photo.mosaic.sensor.black == (0,) * 16


def test_pattern_is_the_smallest(tmp_path):
    cfa = ("RGRG", "GBGB", "RGRG", "GBGB")
    assert read_raw(write_dng(tmp_path / "q.dng", noise(61, 83), cfa)).mosaic.sensor.cfa == (
        "RG", "GB",
    )  # fmt: skip


@pytest.mark.parametrize("origin", [(0, 0), (3, 5), (4, 1)])
def test_xtrans(tmp_path, origin):
    samples = noise(61, 83)
    area = (*origin, 61, 83)
    black = tuple(range(36))
    photo = read_raw(write_dng(tmp_path / "x.dng", samples, XTRANS, black, active_area=area))
    sensor = photo.mosaic.sensor
    down, right = photo.top - origin[0], photo.left - origin[1]
    assert np.array_equal(photo.mosaic.samples, samples[photo.top :, photo.left :])
    assert sensor.cfa == shifted(XTRANS, down, right)
    table = np.roll(np.reshape(black, (6, 6)), (-down, -right), axis=(0, 1))
    assert sensor.black == tuple(table.ravel())


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_linear(tmp_path, byteorder):
    samples = noise(31, 45, 3)
    mosaic = read_raw(
        write_dng(tmp_path / "l.dng", samples, (), (10, 20, 30), byteorder=byteorder)
    ).mosaic
    assert mosaic.sensor.linear
    assert mosaic.sensor.shape == samples.shape
    assert mosaic.sensor.black == (10, 20, 30)
    assert np.array_equal(mosaic.samples, samples)
    assert mosaic.samples.flags.c_contiguous


def test_linear_with_margins(tmp_path):
    samples = noise(31, 45, 3)
    photo = read_raw(write_dng(tmp_path / "l.dng", samples, (), active_area=(1, 3, 30, 40)))
    assert (photo.top, photo.left) == (1, 3)
    assert np.array_equal(photo.mosaic.samples, samples[1:30, 3:40])


def test_monochrome(tmp_path):
    samples = noise(31, 45)
    mosaic = read_raw(write_dng(tmp_path / "m.dng", samples, ("G",), 77)).mosaic
    assert mosaic.sensor.cfa == ("G",)
    assert mosaic.sensor.cfa_name == "mono"
    assert mosaic.sensor.black == (77,)
    assert np.array_equal(mosaic.samples, samples)


@pytest.mark.parametrize("size", [(22, 22), (23, 31), (40, 22), (33, 90)])
def test_odd_sizes(tmp_path, size):
    samples = noise(*size)
    assert np.array_equal(read_raw(write_dng(tmp_path / "a.dng", samples)).mosaic.samples, samples)


@pytest.mark.parametrize("value", [0, 500, 16383, 65535])
def test_saturated_and_black_frames(tmp_path, value):
    samples = np.full((32, 40), value, np.uint16)
    mosaic = read_raw(write_dng(tmp_path / "a.dng", samples, black=512, white=16383)).mosaic
    assert np.array_equal(mosaic.samples, samples)
    assert mosaic.sensor.black == (512,) * 4
    assert mosaic.sensor.white == 16383


# Orientation


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation, byteorder):
    path = write_dng(
        tmp_path / "a.dng", noise(30, 40), orientation=orientation, byteorder=byteorder
    )
    sensor = read_raw(path).mosaic.sensor
    assert sensor.orientation == orientation
    assert (sensor.height, sensor.width) == (30, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_from_libraw(tmp_path, monkeypatch, orientation):
    """What is used for files that are no TIFF: LibRaw's flip, turned into EXIF's number."""
    path = write_dng(tmp_path / "a.dng", noise(30, 40), orientation=orientation)
    monkeypatch.setattr(dngtags, "orientation", lambda tiff: None)
    assert read_raw(path).mosaic.sensor.orientation == orientation


def test_no_orientation_is_upright(tmp_path):
    path = write_dng(tmp_path / "a.dng", noise(30, 40), orientation=None)
    assert read_raw(path).mosaic.sensor.orientation == 1


# Black level


def black_of(path: Path) -> tuple[int, ...]:
    return read_raw(path).mosaic.sensor.black


def test_fractions_of_black_are_rounded(tmp_path):
    black = [Fraction(5, 2), Fraction(7, 3), Fraction(29, 10), 4]
    assert black_of(write_dng(tmp_path / "a.dng", noise(30, 40), black=black)) == (3, 2, 3, 4)


def test_black_pattern_larger_than_the_cfa_is_averaged(tmp_path):
    black = [10, 0, 20, 0, 0, 0, 0, 0]
    path = write_dng(tmp_path / "a.dng", noise(30, 40), black=black, black_repeat=(2, 4))
    assert black_of(path) == (15, 0, 0, 0)


def test_black_pattern_of_a_monochrome_sensor_is_averaged(tmp_path):
    path = write_dng(
        tmp_path / "a.dng", noise(30, 40), ("G",), black=[1, 2, 3, 4], black_repeat=(2, 2)
    )
    assert black_of(path) == (3,)


def test_black_level_deltas(tmp_path):
    across = tuple(n for column in range(40) for n in (column % 2 * 6, 1))
    down = tuple(n for row in range(30) for n in (row % 2 * -20, 1))
    path = write_dng(
        tmp_path / "a.dng",
        noise(30, 40),
        black=100,
        extratags=[(50715, 10, 40, across, True), (50716, 10, 30, down, True)],
    )
    assert black_of(path) == (100, 106, 80, 86)


def test_black_is_never_negative(tmp_path):
    down = (-50, 1) * 30
    path = write_dng(
        tmp_path / "a.dng", noise(30, 40), black=9, extratags=[(50716, 10, 30, down, True)]
    )
    assert black_of(path) == (0, 0, 0, 0)


# Tags


def test_tags_of_a_dng(real: Real):
    mosaic = read_raw(real("GOPR0024.dng")).mosaic
    numbers = [tag[0] for tag in mosaic.tags]
    assert numbers == sorted(set(numbers))
    tags = {tag: (kind, count, value) for tag, kind, count, value in mosaic.tags}
    assert tags[50708] == (2, 18, b"GoPro HERO6 Black\0")
    assert tags[50778] == (3, 1, struct.pack("<H", 3))
    assert tags[50728] == (
        5, 3, struct.pack("<6I", 522449, 1000000, 1000000, 1000000, 571429, 1000000)
    )  # fmt: skip
    assert tags[50721][2][:8] == struct.pack("<2i", 18331, 10000)
    assert np.frombuffer(tags[51041][2], "<f8") == pytest.approx([1.56201e-4, 4.88002e-8], rel=1e-4)
    assert 50735 not in tags, "a serial number is no colour"


def test_tags_do_not_depend_on_the_byte_order(tmp_path):
    extra = [(51041, 12, 2, (0.5, 0.25), True), (50730, 10, 1, (-3, 4), True)]
    both = [
        read_raw(
            write_dng(tmp_path / "a.dng", noise(30, 40), byteorder=order, extratags=extra)
        ).mosaic.tags
        for order in "<>"
    ]
    assert both[0] == both[1]
    assert (51041, 12, 2, struct.pack("<2d", 0.5, 0.25)) in both[0]
    assert (50730, 10, 1, struct.pack("<2i", -3, 4)) in both[0]


def test_long_tags_are_left_out(tmp_path):
    extra = [(51041, 12, 513, tuple(range(513)), True), (50734, 5, 1, (1, 1), True)]
    numbers = [
        tag[0]
        for tag in read_raw(
            write_dng(tmp_path / "a.dng", noise(30, 40), extratags=extra)
        ).mosaic.tags
    ]
    assert 51041 not in numbers
    assert 50734 in numbers


def test_opcodes_of_a_dng(real: Real):
    """Four maps of gains, and a warp: as they are."""
    with tifffile.TiffFile(real("GOPR0024.dng")) as file:
        gains = file.pages.first.tags[51009].value
    tags = {tag: value for tag, _, _, value in read_raw(real("GOPR0024.dng")).mosaic.tags}
    assert tags[51009] == gains
    assert len(gains) > 8000
    assert 51022 in {tag[0] for tag in read_raw(real("GPFR7066.dng")).mosaic.tags}


@pytest.mark.parametrize(
    ("area", "table", "kept"),
    [
        (None, False, {51008, 51009, 51022}),
        (None, True, {51009, 51022}),  # the first opcodes are of samples before the table
        ((2, 2, 41, 51), False, {51009, 51022}),  # and of all samples
        ((3, 3, 41, 51), False, set()),
    ],
)
def test_opcodes_that_do_not_apply_are_left_out(tmp_path, area, table, kept):
    extra = [(tag, 7, 8, bytes(8), True) for tag in (51008, 51009, 51022)]
    if table:
        extra.append((50712, 3, 65536, tuple(range(65536)), True))
    path = write_dng(tmp_path / "a.dng", noise(41, 51), active_area=area, extratags=extra)
    numbers = {tag[0] for tag in read_raw(path).mosaic.tags}
    assert numbers & {51008, 51009, 51022} == kept


def test_tags_that_are_too_long_together_are_left_out(tmp_path):
    """The longest ones; a sidecar has 64 KB for them."""
    extra = [(tag, 7, 16384, bytes(16384), True) for tag in (51008, 51009, 51022)]
    extra += [(tag, 2, 4000, "x" * 3999, True) for tag in range(52529, 52536)]
    path = write_dng(tmp_path / "a.dng", noise(41, 51), extratags=extra)
    tags = read_raw(path).mosaic.tags
    assert len(pack_tags(tags)) < 1000
    numbers = {tag[0] for tag in tags}
    assert {50721, *range(52529, 52536)} <= numbers
    assert len(numbers & {51008, 51009, 51022}) == 2


def test_crop_tags_go_where_libraw_moves_the_visible_area(tmp_path):
    extra = [(50719, 4, 2, (2, 2), True), (50720, 4, 2, (20, 20), True)]
    for origin, kept in (((2, 2), True), ((3, 3), False)):
        path = write_dng(
            tmp_path / "a.dng", noise(41, 51), active_area=(*origin, 41, 51), extratags=extra
        )
        numbers = {tag[0] for tag in read_raw(path).mosaic.tags}
        assert ({50719, 50720} <= numbers) is kept


def test_tags_of_other_raws(real: Real):
    """From LibRaw's table for the Nikon D1."""
    tags = read_raw(real("NikonD1.nef")).mosaic.tags
    assert [tag[:3] for tag in tags] == [(50721, 10, 9), (50728, 5, 3), (50778, 3, 1)]
    matrix = np.frombuffer(tags[0][3], "<i4").reshape(9, 2)
    assert matrix[:, 0].tolist() == [7637, -2199, -974, -9109, 17099, 2043, -2822, 3306, 8372]
    assert (matrix[:, 1] == 10000).all()
    assert tags[2][3] == struct.pack("<H", 21)


def test_unknown_colours_give_no_tags():
    assert dngtags.tags_from_matrix(np.zeros((3, 3)), [0.0, 0.0, 0.0]) == ()
    assert dngtags.tags_from_matrix(np.zeros((3, 3)), [2.0, float("nan"), 1.0]) == ()
    (neutral,) = dngtags.tags_from_matrix(np.zeros((3, 3)), [2.0, 1.0, 4.0])
    assert neutral[0] == 50728
    assert np.frombuffer(neutral[3], "<u4")[::2].tolist() == [500000, 1000000, 250000]


def test_camera_names_are_clean(tmp_path):
    path = write_dng(tmp_path / "a.dng", noise(30, 40), make="Acme  ", model=" X\n1 ")
    mosaic = read_raw(path).mosaic
    assert (mosaic.make, mosaic.model) == ("Acme", "X1")


# Bad input


def test_missing(tmp_path):
    check_error(tmp_path / "none.dng", "no such file")


def test_folder(tmp_path):
    check_error(tmp_path, "is a folder")


def test_empty(tmp_path):
    (tmp_path / "a.dng").touch()
    check_error(tmp_path / "a.dng", "is empty")


def test_jpeg(real: Real):
    check_error(real("NikonD1.rt.jpg"), "is a JPEG, not a raw")


@pytest.mark.parametrize(
    "content",
    [b"x", b"hello world\n" * 1000, bytes(5000), b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9],
)
def test_not_a_raw(tmp_path, content):
    (tmp_path / "a.dng").write_bytes(content)
    check_error(tmp_path / "a.dng", "not a raw")


def test_plain_tiff_is_no_raw(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 50, 3).astype(np.uint8), photometric="rgb")
    check_error(tmp_path / "a.tif", "not a raw")


@pytest.mark.parametrize("name", ["colorchart.dng", "NikonD1.nef"])
def test_truncated_real(real: Real, tmp_path, name):
    """LibRaw alone accepts this NEF with up to some 100 bytes missing."""
    whole = real(name).read_bytes()
    for size in [-1, -2, -3, -100, -3000, len(whole) // 2, 60000, 1600, 1000, 100, 10, 8]:
        (tmp_path / name).write_bytes(whole[:size])
        check_error(tmp_path / name, "is truncated")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_truncated_anywhere(tmp_path, byteorder):
    """Never another exception than RawError, and never a mosaic, at any length."""
    path = write_dng(tmp_path / "a.dng", noise(22, 24), byteorder=byteorder)
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(RawError):
            read_raw(path)


def test_damaged_anywhere(tmp_path):
    """A flipped byte gives a mosaic or a RawError, never anything else."""
    path = write_dng(tmp_path / "a.dng", noise(22, 24), active_area=(1, 1, 22, 24))
    whole = path.read_bytes()
    header = len(whole) - 2 * 22 * 24
    for position in range(header):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        message = ""
        try:
            mosaic = read_raw(path).mosaic
            assert mosaic.samples.shape == mosaic.sensor.shape
        except RawError as error:
            message = str(error)
        assert "\n" not in message


def test_levels_that_make_no_sense(tmp_path):
    path = write_dng(tmp_path / "a.dng", noise(30, 40), black=1000, white=1000)
    check_error(path, "white level 1000")


def test_floating_point(tmp_path):
    path = write_dng(tmp_path / "a.dng", noise(30, 40).astype(np.float32))
    check_error(path, "floating-point")


def test_several_frames(tmp_path):
    """LibRaw would read one of them, and say nothing of the others."""
    path = write_dng(tmp_path / "a.dng", noise(30, 40), frames=4)
    check_error(path, "holds 4 raws")


def test_other_colours(tmp_path):
    for cfa in (("GM", "CY"), ("YC", "MY"), ("RG", "WB")):
        path = write_dng(tmp_path / "a.dng", noise(30, 40), cfa)
        check_error(path, "not red, green and blue")


@pytest.mark.parametrize("cfa", [("RG", "GB"), XTRANS, ("G",), ()])
def test_the_size_is_known_without_the_samples(tmp_path: Path, cfa: tuple[str, ...]) -> None:
    samples = noise(60, 72) if cfa else noise(60, 72, 3)
    path = write_dng(tmp_path / "a.dng", samples, cfa, 512, 16000)
    assert read_size(path) == (72, 60, not cfa)
    path.write_bytes(b"no raw" * 1000)
    with pytest.raises(RawError, match=r"a\.dng: is not a raw"):
        read_size(path)


def test_many_sites_in_few_bytes_are_not_unpacked(tmp_path: Path) -> None:
    """A decompression bomb is refused by its header: what it expands to is never allocated."""
    path = tmp_path / "bomb.dng"
    tags = [(33421, 3, 2, (2, 2)), (33422, 1, 4, bytes((0, 1, 1, 2))),
            (50706, 1, 4, bytes((1, 4, 0, 0))), (50708, 2, 0, "Test Camera")]  # fmt: skip
    tifffile.imwrite(
        path, np.zeros((6400, 8000), np.uint16), photometric=32803, compression="zlib",
        rowsperstrip=640, extratags=[(*tag, True) for tag in tags], metadata=None,
    )  # fmt: skip
    size = path.stat().st_size
    assert size < 8000 * 6400 / 64
    check_error(path, f"claims 8000x6400 photosites, which {size} bytes do not hold")
