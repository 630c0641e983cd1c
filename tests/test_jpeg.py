"""JPEGs to pixels, their digests and EXIF, and everything that is no whole JPEG."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from conftest import Real
from PIL import Image

from rawcodec.errors import JpegError
from rawcodec.photo import jpeg
from rawcodec.photo.jpeg import is_jpeg, read_jpeg, read_stream_digest


def picture(height: int = 40, width: int = 56) -> Image.Image:
    """Smooth colours with some noise."""
    y, x = np.mgrid[:height, :width]
    planes = np.stack([x * 4, y * 5, (x + y) * 2], axis=2)
    noise = np.random.default_rng(1).integers(0, 20, planes.shape)
    return Image.fromarray(((planes + noise) % 256).astype(np.uint8))


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def insert(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment right after SOI."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def exif(orientation: int, make: str = "", model: str = "") -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    if make:
        tags[271], tags[272] = make, model
    return tags.tobytes()


@pytest.fixture
def write(tmp_path):
    def write(data: bytes) -> Path:
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        return path

    return write


def check_error(path: Path, what: str) -> None:
    """Reading fails with one line that starts with the name and says what and what to do."""
    with pytest.raises(JpegError) as caught:
        read_jpeg(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert what in message
    assert "; " in message
    assert "\n" not in message


# Pixels


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("NikonD1.rt.jpg", (2004, 1316)),
        ("NikonD1.dt.jpg", (2000, 1312)),
        ("colorchart.rt.jpg", (1726, 1148)),
        ("GOPR0024.rt.jpg", (3992, 2992)),
        ("GOPR0024.dt.jpg", (3999, 2999)),
    ],
)
def test_real(real: Real, name, size):
    path = real(name)
    photo = read_jpeg(path)
    with Image.open(path) as image:
        assert image.size == size
        assert np.array_equal(photo.pixels, np.asarray(image))
    assert photo.orientation == 1
    assert photo.make in ("NIKON CORPORATION", "Canon", "GoPro")
    assert photo.model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"optimize": True},
        {"subsampling": 0},
        {"subsampling": 2},
        {"restart_marker_rows": 1},
        {"progressive": True, "restart_marker_blocks": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (8, 16), (17, 33), (40, 56)])
def test_kinds(write, options, size):
    data = encode(picture(*size), **options)
    pixels = read_jpeg(write(data)).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("subsampling", ["444", "422", "440", "420", "411"])
def test_subsampling(write, subsampling):
    data = imagecodecs.jpeg8_encode(np.asarray(picture()), level=90, subsampling=subsampling)
    assert (
        jpeg_factors(data)
        == {"444": 0x11, "422": 0x21, "440": 0x12, "420": 0x22, "411": 0x41}[subsampling]
    )
    pixels = read_jpeg(write(data)).pixels
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data))))


def jpeg_factors(data: bytes) -> int:
    """Sampling factors of the first component, across and down, four bits each."""
    return data[data.index(b"\xff\xc0") + 11]


def test_greyscale_is_expanded(write):
    data = encode(picture().convert("L"))
    pixels = read_jpeg(write(data)).pixels
    assert pixels.shape == (40, 56, 3)
    assert np.array_equal(pixels[:, :, 1], np.asarray(Image.open(io.BytesIO(data))))
    assert (pixels == pixels[:, :, :1]).all()


def test_rgb_without_ycbcr(write):
    """Adobe's APP14 says that the components are RGB; it must reach the decoder."""
    image = picture()
    data = encode(image, keep_rgb=True, subsampling=0)
    pixels = read_jpeg(write(data)).pixels
    assert np.abs(pixels.astype(int) - np.asarray(image).astype(int)).mean() < 3


def test_mpo_is_its_first_picture(write):
    """What cameras write: a second JPEG behind the first, and an index in APP2."""
    file = io.BytesIO()
    picture().save(file, "MPO", save_all=True, append_images=[picture(20, 30)], quality=90)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert image.format == "MPO"
        assert image.n_frames == 2
    photo = read_jpeg(write(file.getvalue()))
    alone = read_jpeg(write(encode(picture())))
    assert photo.digest == alone.digest
    assert photo.stream_digest == alone.stream_digest


def test_bytes_behind_the_end_do_not_count(write):
    data = encode(picture())
    photo, longer = read_jpeg(write(data)), read_jpeg(write(data + b"\0\xff\xd8 trailer" * 99))
    assert (photo.digest, photo.stream_digest) == (longer.digest, longer.stream_digest)


def test_fill_bytes_before_a_marker(write):
    data = encode(picture())
    filled = data[:2] + b"\xff\xff\xff" + data[2:-2] + b"\xff\xff" + data[-2:]
    photo, other = read_jpeg(write(data)), read_jpeg(write(filled))
    assert (photo.digest, photo.stream_digest) == (other.digest, other.stream_digest)


# Digests


def test_digest_is_what_it_says(write):
    photo = read_jpeg(write(encode(picture())))
    expected = hashlib.sha256(struct.pack("<II", 56, 40) + photo.pixels.tobytes()).digest()[:16]
    assert photo.digest == expected
    assert jpeg.pixels_digest(np.asfortranarray(photo.pixels)) == expected


def test_digest_depends_on_the_shape(write):
    pixels = np.zeros((4, 6, 3), np.uint8)
    assert jpeg.pixels_digest(pixels) != jpeg.pixels_digest(pixels.reshape(6, 4, 3))


def test_metadata_do_not_change_the_digests(write):
    data = encode(picture())
    plain = read_jpeg(write(data))
    edited = insert(data, 0xFE, b"a comment")
    edited = insert(edited, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(500))
    edited = insert(edited, 0xE1, exif(6, "Acme", "X1"))
    photo = read_jpeg(write(edited))
    assert (photo.digest, photo.stream_digest) == (plain.digest, plain.stream_digest)
    assert (photo.orientation, photo.make, photo.model) == (6, "Acme", "X1")


def test_saving_again_changes_both_digests(write):
    first, second = (read_jpeg(write(encode(picture(), qtables="web_low"))),
                     read_jpeg(write(encode(picture(), qtables="web_high"))))  # fmt: skip
    assert first.digest != second.digest
    assert first.stream_digest != second.stream_digest


def test_same_pixels_in_another_stream(write):
    """Optimised Huffman tables: the same pixels, another file."""
    first, second = (read_jpeg(write(encode(picture(), optimize=o))) for o in (False, True))
    assert first.digest == second.digest
    assert first.stream_digest != second.stream_digest


# EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_but_not_applied(write, orientation):
    photo = read_jpeg(write(encode(picture(), exif=exif(orientation))))
    assert photo.orientation == orientation
    assert photo.pixels.shape == (40, 56, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist(write, orientation):
    assert read_jpeg(write(encode(picture(), exif=exif(orientation)))).orientation == 1


def test_no_exif(write):
    photo = read_jpeg(write(encode(picture())))
    assert (photo.orientation, photo.make, photo.model) == (1, "", "")


@pytest.mark.parametrize(
    "payload", [b"", b"junk", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_is_no_exif(write, payload):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = read_jpeg(write(insert(encode(picture()), 0xE1, b"Exif\0\0" + payload)))
    assert (photo.orientation, photo.make, photo.model) == (1, "", "")


# Bad input


def test_is_jpeg():
    assert is_jpeg(encode(picture())[:3])
    for prefix in (b"", b"\xff", b"\xff\xd8", b"II*\0", b"\xff\xd8\0"):
        assert not is_jpeg(prefix)


def test_missing(tmp_path):
    check_error(tmp_path / "none.jpg", "no such file")


def test_folder(tmp_path):
    check_error(tmp_path, "is a folder")


def test_empty(write):
    check_error(write(b""), "is empty")


@pytest.mark.parametrize("content", [b"x", b"hello\n" * 99, b"II*\0" + bytes(99), b"\xff\xd8"])
def test_not_a_jpeg(write, content):
    check_error(write(content), "is not a JPEG")


def test_raw_instead_of_jpeg(real: Real):
    check_error(real("colorchart.dng"), "is not a JPEG but a TIFF or a raw")


@pytest.mark.parametrize(
    ("suffix", "kind"), [("png", "is not a JPEG but a PNG"), ("tif", "is not a JPEG but a TIFF")]
)
def test_16_bit_picture_instead_of_jpeg(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((40, 56), 40000, np.uint16)).save(path)
    check_error(path, kind)


def test_cmyk(write):
    check_error(write(encode(picture().convert("CMYK"))), "CMYK")


def test_twelve_bits(write):
    data = encode(picture())
    frame = data.index(b"\xff\xc0")
    check_error(write(data[: frame + 4] + b"\x0c" + data[frame + 5 :]), "12 bits")


def test_too_large(write):
    """Refused by its header alone: nothing is allocated, nothing warned."""
    data = encode(picture())
    frame = data.index(b"\xff\xc0")
    huge = data[: frame + 5] + struct.pack(">HH", 65000, 65000) + data[frame + 9 :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_error(write(huge), "65000x65000")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_truncated_anywhere(write, options):
    data = encode(picture(24, 24), exif=exif(1), **options)
    for size in range(3, len(data)):
        check_error(write(data[:size]), "is truncated")


@pytest.mark.parametrize("missing", [1, 2, 3, 100, 2000])
def test_truncated_at_the_end(real: Real, write, missing):
    data = real("NikonD1.rt.jpg").read_bytes()
    check_error(write(data[:-missing]), "is truncated")


def test_damaged_anywhere(write):
    """A flipped byte gives pixels or a JpegError, never anything else."""
    data = encode(picture(24, 24), exif=exif(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for position in range(3, len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0xFF
            path = write(damaged)
            try:
                photo = read_jpeg(path)
            except JpegError as error:
                message = str(error)
            else:
                message = ""
                assert photo.pixels.ndim == 3
            assert "\n" not in message


def test_the_streams_digest_alone_is_the_same(write):
    path = write(insert(encode(picture()), 0xFE, b"a comment"))
    assert read_stream_digest(path) == read_jpeg(path).stream_digest
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(JpegError, match=r"a\.jpg: is truncated; "):
        read_stream_digest(path)


def claiming(height: int, width: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = encode(picture())
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


@pytest.mark.parametrize(("height", "width"), [(20000, 25000), (6000, 8000)])
def test_many_pixels_in_few_bytes_are_not_decoded(
    write, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """A decompression bomb is refused before anything of its size is allocated."""
    monkeypatch.setattr(jpeg, "_decode", lambda *_: pytest.fail("was decoded"))
    check_error(write(claiming(height, width)), f"claims {width}x{height} pixels, which ")


@pytest.mark.parametrize(("height", "width"), [(65500, 65500), (23171, 23171)])
def test_more_pixels_than_any_photo_are_not_decoded(
    write, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """However long the file is."""
    monkeypatch.setattr(jpeg, "_decode", lambda *_: pytest.fail("was decoded"))
    check_error(write(claiming(height, width)), "more than the limit of 536870912")


def test_large_pictures_of_one_colour_are_read(write) -> None:
    pixels = read_jpeg(write(encode(Image.new("RGB", (5600, 5000), (90, 80, 70))))).pixels
    assert pixels.shape == (5000, 5600, 3)
    assert np.ptp(pixels, axis=(0, 1)).max() == 0
