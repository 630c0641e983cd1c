"""From a raw and a JPEG to a sidecar and back: what a user of the package relies on.

With the tone layer alone, which is quick; test_learned.py has the other qualities.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from conftest import Real
from dng import XTRANS, write_dng
from pairs import (
    Pair,
    check_damaged,
    check_message,
    payload_of,
    rebuilt,
    scene,
    with_latents,
    with_model,
    write_jpeg,
    write_raw,
)
from PIL import Image

import rawcodec
from rawcodec import errors, pipeline, weights
from rawcodec.errors import (
    AlignmentError,
    CorruptSidecarError,
    DeviceError,
    DigestError,
    JpegError,
    JpegMismatchError,
    ModelError,
    QualityError,
    RawcodecError,
    RawError,
    SidecarError,
    VersionError,
)
from rawcodec.mosaic import Mosaic, planes
from rawcodec.photo.align import Alignment
from rawcodec.photo.raw import read_raw
from rawcodec.stream import container
from rawcodec.stream.container import Chunk

HERE = Path(__file__).resolve().parent
GOLDEN = json.loads((HERE / "golden" / "golden.json").read_text())
SIZE_LIMIT = 4096 + 1024
"""The tone layer's limit, and as much for everything else."""

# The orientation that undoes another one.
UNDONE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A small Bayer pair whose JPEG leaves a strip uncovered."""
    folder = tmp_path_factory.mktemp("small")
    light = scene(203, 301)
    raw = write_raw(folder / "a.dng", light, ("RG", "GB"))
    jpeg = write_jpeg(folder / "a.jpg", light, crop=10)
    return Pair(raw, jpeg, rawcodec.encode(raw, jpeg, quality="tone"))


@pytest.fixture(scope="session", params=["colorchart.dng", "NikonD1.nef"])
def camera(request: pytest.FixtureRequest, real: Real) -> Pair:
    """A real camera's pair."""
    raw = real(request.param)
    jpeg = real(f"{Path(request.param).stem}.rt.jpg")
    return Pair(raw, jpeg, rawcodec.encode(raw, jpeg, quality="tone"))


# There and back


@pytest.mark.parametrize(
    ("cfa", "orientation", "size", "margins"),
    [
        (("RG", "GB"), 1, (243, 321), (0, 0, 0, 0)),
        (("GR", "BG"), 2, (240, 320), (4, 6, 2, 8)),
        (("GB", "RG"), 3, (241, 323), (2, 2, 0, 0)),
        (("BG", "GR"), 4, (222, 301), (0, 12, 1, 3)),
        (XTRANS, 5, (257, 343), (0, 0, 0, 0)),
        ((), 6, (201, 305), (0, 0, 0, 0)),
        (("G",), 7, (243, 321), (0, 0, 0, 0)),
        (("RG", "GB"), 8, (320, 241), (8, 2, 3, 3)),
    ],
    ids=["RGGB", "GRBG", "GBRG", "BGGR", "X-Trans", "linear", "mono", "portrait"],
)
def test_every_sensor_and_orientation_comes_back(
    tmp_path: Path, cfa: tuple[str, ...], orientation: int, size: tuple[int, int], margins
):
    """The JPEG is turned upright, as the raw's flag asks."""
    light = scene(*size)
    raw = write_raw(tmp_path / "a.dng", light, cfa, orientation, margins)
    jpeg = write_jpeg(tmp_path / "a.jpg", light, turn=orientation, mono=cfa == ("G",))
    sidecar = rawcodec.encode(raw, jpeg, quality="tone")
    photo = read_raw(raw)
    mosaic = rawcodec.decode(jpeg, sidecar)
    info = rawcodec.inspect(sidecar)

    assert mosaic.sensor == photo.mosaic.sensor
    assert mosaic.samples.dtype == np.uint16
    assert mosaic.samples.shape == (*size, 3)[: 2 if cfa else 3]
    assert mosaic.tags == photo.mosaic.tags
    assert (mosaic.make, mosaic.model) == (photo.mosaic.make, photo.mosaic.model)
    assert mosaic.digest().hex() == info.mosaic_digest
    alignment = next(c.payload for c in container.read(sidecar) if c.type == "ALGN")
    assert Alignment.unpack(alignment) == Alignment.from_floats(UNDONE[orientation], 1, -4, 1, -4)

    error = photo.mosaic.samples.astype(float) - mosaic.samples
    squares = sum(
        (error[index] ** 2).sum() / (photo.mosaic.sensor.white - black) ** 2
        for _, black, index in planes(photo.mosaic.sensor)
    )
    assert info.psnr_db == pytest.approx(-10 * np.log10(squares / error.size), abs=0.001)
    assert info.max_error == np.abs(error).max()
    assert info.psnr_db > 35
    assert len(sidecar) == info.bytes <= SIZE_LIMIT
    assert (info.width, info.height, info.orientation) == (size[1], size[0], orientation)
    assert sum(info.layers.values()) == len(sidecar)


@pytest.mark.parametrize("orientation", [1, 2, 3, 5, 6, 8])
def test_a_preview_lies_as_the_sensor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, orientation: int
) -> None:
    light = scene(203, 301)
    raw = write_raw(tmp_path / "a.dng", light, ("RG", "GB"), orientation)
    jpeg = write_jpeg(tmp_path / "a.jpg", light, turn=orientation)
    sidecar = rawcodec.encode(raw, jpeg, quality="tone", verify=False)
    with Image.open(write_jpeg(tmp_path / "upright.jpg", light)) as upright:
        for side in (1024, 100):
            monkeypatch.setattr(pipeline, "PREVIEW", side)
            preview = pipeline.read_preview(jpeg, sidecar)
            assert max(preview.shape) == min(side, max(upright.size))
            wanted = np.asarray(upright.resize(preview.shape[1::-1], Image.Resampling.BICUBIC))
            assert np.abs(wanted.astype(int) - preview).mean() < 4


def test_a_jpeg_that_is_flagged_instead_of_turned_comes_back(tmp_path: Path):
    light = scene(203, 301)
    raw = write_raw(tmp_path / "a.dng", light, ("RG", "GB"), orientation=8)
    jpeg = write_jpeg(tmp_path / "a.jpg", light, exif=8)
    sidecar = rawcodec.encode(raw, jpeg, quality="tone")
    assert rawcodec.decode(jpeg, sidecar).sensor.orientation == 8
    assert rawcodec.inspect(sidecar).psnr_db > 35


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "greyscale": lambda image: saved(image.convert("L")),
    "progressive": lambda image: saved(image, progressive=True),
    "4:4:4": lambda image: saved(image, subsampling=0),
    "4:1:1": lambda image: imagecodecs.jpeg8_encode(np.asarray(image), level=92, subsampling="411"),
}


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_comes_back(small: Pair, tmp_path: Path, kind: str):
    jpeg = tmp_path / "a.jpg"
    with Image.open(small.jpeg) as image:
        jpeg.write_bytes(KINDS[kind](image))
    sidecar = rawcodec.encode(small.raw, jpeg, quality="tone")
    # a grey one does not tell the colours
    lost = 12 if kind == "greyscale" else 2
    assert rawcodec.inspect(sidecar).psnr_db > rawcodec.inspect(small.sidecar).psnr_db - lost


def part_of(light: np.ndarray, share: float, path: Path) -> Path:
    """The JPEG of a part of the frame, off its middle."""
    height, width = (round(n * share**0.5) for n in light.shape[:2])
    return write_jpeg(path, light[20 : 20 + height, 30 : 30 + width], crop=0)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_part_of_the_frame_comes_back(tmp_path: Path, share: float):
    """Less than half of it only where that was said to be right."""
    light = scene(602, 803)
    raw = write_raw(tmp_path / "a.dng", light, ("RG", "GB"))
    jpeg = part_of(light, share, tmp_path / "a.jpg")
    if share < 0.5:
        with pytest.raises(
            AlignmentError, match=r"shows 4\d% of the raw.*--allow-partial"
        ) as caught:
            rawcodec.encode(raw, jpeg, quality="tone")
        check_message(caught.value, jpeg)
    sidecar = rawcodec.encode(raw, jpeg, quality="tone", allow_partial=share < 0.5)
    mosaic = rawcodec.decode(jpeg, sidecar)
    assert len(sidecar) < 2 * SIZE_LIMIT
    height, width = (round(n * share**0.5) for n in light.shape[:2])
    shown = np.zeros(mosaic.samples.shape, bool)
    shown[20 : 20 + height, 30 : 30 + width] = True
    original = read_raw(raw).mosaic
    assert psnr_where(original, mosaic.samples, shown) > 38
    # the rest is a coarse grid
    assert 15 < psnr_where(original, mosaic.samples, ~shown) < 38


def test_a_reduced_jpeg_comes_back(tmp_path: Path):
    light = scene(602, 803)
    raw = write_raw(tmp_path / "a.dng", light, ("GR", "BG"))
    full = Image.open(write_jpeg(tmp_path / "a.jpg", light, crop=0, quality=98))
    full.resize((400, 300), Image.Resampling.LANCZOS).save(tmp_path / "half.jpg", quality=85)
    sidecar = rawcodec.encode(raw, tmp_path / "half.jpg", quality="tone")
    assert rawcodec.inspect(sidecar).psnr_db > 30
    assert len(sidecar) <= SIZE_LIMIT


def straighten(jpeg: Path, path: Path) -> Path:
    """The JPEG turned by 1.5 degrees, cut to what the turned one fills, and saved again."""
    with Image.open(jpeg) as image:
        turned = image.rotate(1.5, Image.Resampling.BICUBIC)
    across, down = (int(0.0131 * n) + 3 for n in (turned.height, turned.width))
    box = (across, down, turned.width - across, turned.height - down)
    turned.crop(box).save(path, quality=92, subsampling=0)
    return path


def psnr_where(mosaic: Mosaic, samples: np.ndarray, where: np.ndarray) -> float:
    error = mosaic.samples[where].astype(float) - samples[where]
    return float(-10 * np.log10(np.mean(error**2) / mosaic.sensor.white**2))


def check_straightened(raw: Path, plain: Path, folder: Path) -> tuple[list[bytes], list[float]]:
    """Sidecars of the plain and the straightened JPEG, and the PSNR of sites under both."""
    turned = straighten(plain, folder / "turned.jpg")
    sidecars = [rawcodec.encode(raw, jpeg, quality="tone") for jpeg in (plain, turned)]
    mosaics = [rawcodec.decode(*pair) for pair in zip((plain, turned), sidecars, strict=True)]
    for mosaic, sidecar in zip(mosaics, sidecars, strict=True):
        assert mosaic.digest().hex() == rawcodec.inspect(sidecar).mosaic_digest
    alignments = [Alignment.unpack(payload_of(sidecar, "ALGN")) for sidecar in sidecars]
    assert alignments[0].warp is None
    assert alignments[1].warp is not None
    original = read_raw(raw).mosaic
    with Image.open(turned) as image:
        size = original.sensor.width, original.sensor.height
        under = alignments[1].reached(*size, *image.size, 0)
    assert under is not None
    assert len(sidecars[1]) <= SIZE_LIMIT + 168
    return sidecars, [psnr_where(original, mosaic.samples, under) for mosaic in mosaics]


def test_a_straightened_jpeg_comes_back(tmp_path: Path):
    """Under the JPEG; the wedges that it lacks come from the coarse border grid."""
    light = scene(602, 803)
    raw = write_raw(tmp_path / "a.dng", light, ("RG", "GB"))
    plain = write_jpeg(tmp_path / "a.jpg", light, crop=0)
    sidecars, (expected, found) = check_straightened(raw, plain, tmp_path)
    assert found > expected - 3
    assert rawcodec.inspect(sidecars[1]).psnr_db > 35


def test_a_straightened_real_jpeg_comes_back(real: Real, tmp_path: Path):
    sidecars, (expected, found) = check_straightened(
        real("colorchart.dng"), real("colorchart.rt.jpg"), tmp_path
    )
    assert found > expected - 2
    plain, turned = (rawcodec.inspect(sidecar).psnr_db for sidecar in sidecars)
    assert turned > plain - 3


def test_what_a_damaged_warp_gives_is_refused(small: Pair):
    """Behind right checksums: a digest of another mosaic, if nothing else."""
    algn = payload_of(small.sidecar, "ALGN")
    rng = np.random.default_rng(6)
    for spread in (16, 24, 31):
        numbers = rng.integers(-(1 << spread), 1 << spread, 42)
        warped = algn[:25] + b"\1" + numbers.astype("<i4").tobytes()
        for payload in (warped, warped[:-1], warped + b"\0", algn[:25] + b"\1"):
            with pytest.raises((DigestError, SidecarError)) as caught:
                rawcodec.decode(small.jpeg, rebuilt(small.sidecar, "ALGN", payload))
            check_message(caught.value, "sidecar")


@pytest.mark.parametrize("level", [512, 6000, 16383])
def test_an_empty_frame_comes_back(tmp_path: Path, level: int):
    """A black frame, a grey one and a saturated one, without any noise."""
    raw = write_dng(
        tmp_path / "a.dng", np.full((202, 300), level, np.uint16), black=512, white=16000
    )
    grey = {512: 0, 6000: 160, 16383: 255}[level]
    Image.new("RGB", (300, 202), (grey,) * 3).save(tmp_path / "a.jpg", quality=92)
    sidecar = rawcodec.encode(raw, tmp_path / "a.jpg", quality="tone")
    samples = rawcodec.decode(tmp_path / "a.jpg", sidecar).samples
    assert np.abs(samples.astype(int) - level).max() <= 32  # half a step of the table at white
    assert len(sidecar) <= SIZE_LIMIT


def test_a_real_photo_comes_back(camera: Pair):
    info = rawcodec.inspect(camera.sidecar)
    samples = camera.decode()
    assert info.psnr_db > 33
    assert len(camera.sidecar) <= SIZE_LIMIT
    error = read_raw(camera.raw).mosaic.samples.astype(int) - samples
    assert np.abs(error).max() == info.max_error


DECODE = """
import sys, rawcodec
mosaic = rawcodec.decode(sys.argv[1], sys.argv[2])
sys.stdout.buffer.write(mosaic.samples.astype("<u2").tobytes())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_decodes_the_same_bytes(camera: Pair, threads: str, tmp_path: Path):
    (tmp_path / "a.rmeta").write_bytes(camera.sidecar)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": str(Path(rawcodec.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(camera.jpeg), str(tmp_path / "a.rmeta")],
        capture_output=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == camera.decode().astype("<u2").tobytes()


@pytest.mark.parametrize("band", [1, 3, 50, 100_000])
def test_bands_do_not_change_what_is_decoded(
    small: Pair, band: int, monkeypatch: pytest.MonkeyPatch
):
    expected = small.decode()
    monkeypatch.setattr(pipeline, "BAND", band)
    assert np.array_equal(small.decode(), expected)


def test_bands_do_not_change_what_is_decoded_of_a_real_photo(
    camera: Pair, monkeypatch: pytest.MonkeyPatch
):
    expected = camera.decode()
    monkeypatch.setattr(pipeline, "BAND", 37)
    assert np.array_equal(camera.decode(), expected)


@pytest.mark.parametrize("threads", ["1", "3", "many", "0", ""])
def test_threads_do_not_change_what_is_encoded(
    small: Pair, threads: str, monkeypatch: pytest.MonkeyPatch
):
    """A variable that makes no sense is ignored."""
    expected = small.decode()
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert np.array_equal(small.decode(), expected)


def test_encoding_twice_gives_the_same_bytes(small: Pair):
    again = rawcodec.encode(small.raw, small.jpeg, quality="tone", verify=False)
    assert again == small.sidecar


# The JPEG: metadata may change, pixels may not


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment right after SOI."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def without_segments(data: bytes, unwanted: Callable[[int], bool]) -> bytes:
    """The JPEG without the unwanted segments in front of its scan."""
    kept, position = [data[:2]], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if not unwanted(data[position + 1]):
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x013B] = orientation, "Maker", "Somebody"
    return tags.tobytes()


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "EXIF added": lambda data: with_segment(data, 0xE1, exif(1)),
    "flagged to be turned": lambda data: with_segment(data, 0xE1, exif(6)),
    "EXIF damaged": lambda data: with_segment(data, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "comment added": lambda data: with_segment(data, 0xFE, b"a lovely day"),
    "XMP added": lambda data: with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "metadata removed": lambda data: without_segments(
        data, lambda marker: marker == 0xFE or 0xE1 <= marker <= 0xED
    ),
    "thumbnail behind the end": lambda data: data + b"\xff\xd8\xff\xd9",
}


@pytest.mark.parametrize("edit", EDITS)
def test_editing_the_jpegs_metadata_is_fine(small: Pair, tmp_path: Path, edit: str):
    path = tmp_path / "a.jpg"
    path.write_bytes(EDITS[edit](small.jpeg.read_bytes()))
    assert np.array_equal(rawcodec.decode(path, small.sidecar).samples, small.decode())


@pytest.mark.parametrize("quality", [75, 92, 95])
def test_a_jpeg_saved_again_is_refused_and_it_says_so(small: Pair, tmp_path: Path, quality: int):
    path = tmp_path / "again.jpg"
    Image.open(small.jpeg).save(path, "JPEG", quality=quality)
    with pytest.raises(JpegMismatchError, match=r"saved again.*editing its metadata is fine") as e:
        rawcodec.decode(path, small.sidecar)
    check_message(e.value, path)


def test_another_jpeg_is_refused(small: Pair, tmp_path: Path):
    same_size = write_jpeg(tmp_path / "same.jpg", scene(203, 301, seed=5), crop=10)
    with pytest.raises(JpegMismatchError, match="another photo") as caught:
        rawcodec.decode(same_size, small.sidecar)
    check_message(caught.value, same_size)
    other_size = write_jpeg(tmp_path / "other.jpg", scene(203, 301))
    with pytest.raises(JpegMismatchError, match=r"293x195.*281x183") as caught:
        rawcodec.decode(other_size, small.sidecar)
    check_message(caught.value, other_size)


@pytest.mark.parametrize("keep", [0, 2, 100, 0.5, -1, -2])
def test_a_truncated_jpeg_is_refused(small: Pair, tmp_path: Path, keep: float):
    data = small.jpeg.read_bytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else int(keep)])
    with pytest.raises(JpegError) as caught:
        rawcodec.decode(path, small.sidecar)
    check_message(caught.value, path)
    with pytest.raises(JpegError) as caught:
        rawcodec.encode(small.raw, path)
    check_message(caught.value, path)


def test_a_file_that_is_missing_or_something_else_is_refused(small: Pair, tmp_path: Path):
    nothing = tmp_path / "nothing"
    with pytest.raises(RawError) as caught:
        rawcodec.encode(nothing, small.jpeg)
    check_message(caught.value, nothing)
    with pytest.raises(RawError) as caught:
        rawcodec.encode(small.jpeg, small.jpeg)
    check_message(caught.value, small.jpeg)
    with pytest.raises(JpegError) as caught:
        rawcodec.encode(small.raw, small.raw)
    check_message(caught.value, small.raw)
    with pytest.raises(JpegError) as caught:
        rawcodec.decode(nothing, small.sidecar)
    check_message(caught.value, nothing)
    with pytest.raises(SidecarError) as caught:
        rawcodec.decode(small.jpeg, nothing)
    check_message(caught.value, nothing)
    with pytest.raises(CorruptSidecarError) as caught:
        rawcodec.decode(small.jpeg, small.jpeg)
    check_message(caught.value, small.jpeg)


def test_the_jpeg_of_another_shot_is_not_encoded(small: Pair, tmp_path: Path):
    other = write_jpeg(tmp_path / "other.jpg", scene(203, 301, seed=5), crop=10)
    with pytest.raises(AlignmentError, match="not a rendering of this raw") as caught:
        rawcodec.encode(small.raw, other)
    check_message(caught.value, other)


def test_a_jpeg_larger_than_the_raw_is_not_encoded(small: Pair, tmp_path: Path):
    other = write_jpeg(tmp_path / "large.jpg", scene(406, 602), crop=0)
    with pytest.raises(AlignmentError, match=r"602x406.*301x203") as caught:
        rawcodec.encode(small.raw, other)
    check_message(caught.value, other)


# The sidecar


def test_a_sidecar_cut_anywhere_is_refused(small: Pair):
    for size in range(0, len(small.sidecar), 7):
        with pytest.raises(SidecarError) as caught:
            rawcodec.decode(small.jpeg, small.sidecar[:size])
        check_message(caught.value, "sidecar")


def test_a_flipped_bit_is_refused(small: Pair):
    for position in [*range(40), *range(40, len(small.sidecar), 11)]:
        for bit in range(8):
            data = bytearray(small.sidecar)
            data[position] ^= 1 << bit
            with pytest.raises(SidecarError) as caught:
                rawcodec.decode(small.jpeg, bytes(data))
            check_message(caught.value, "sidecar")


@pytest.mark.parametrize("kind", ["ALGN", "TONE"])
def test_damage_behind_right_checksums_is_refused(small: Pair, kind: str):
    payload, expected = payload_of(small.sidecar, kind), small.decode()
    rng = np.random.default_rng(3)
    head = range(min(len(payload), 26))
    for position in [*head, *rng.integers(0, len(payload), 25)]:
        data = bytearray(payload)
        data[position] ^= 1 << int(rng.integers(8))
        check_damaged(small, rebuilt(small.sidecar, kind, bytes(data)), expected)


@pytest.mark.parametrize("kind", ["ALGN", "TONE"])
def test_a_payload_of_another_length_or_of_noise_is_refused(small: Pair, kind: str):
    payload = payload_of(small.sidecar, kind)
    rng = np.random.default_rng(4)
    # one word more may pass: docs/FORMAT.md, "End"
    sizes = {0, 1, 16, 17, 18, 20, 21, 24, 25, 27, len(payload) - 8, len(payload) + 8}
    others = [payload.ljust(size, b"\0")[:size] for size in sorted(sizes)]
    others += [rng.bytes(size) for size in (21, 25, 26, 26, 194, 1017, 4017)]
    # behind a head that is right, noise reaches the entropy decoder
    others += [payload[:17] + rng.bytes(4 * int(rng.integers(1, 500))) for _ in range(10)]
    for other in others:
        with pytest.raises((DigestError, SidecarError)) as caught:
            rawcodec.decode(small.jpeg, rebuilt(small.sidecar, kind, other))
        check_message(caught.value, "sidecar")


def test_a_tone_layer_of_another_sidecar_is_refused(small: Pair):
    golden = (HERE / "golden" / "xtrans.rmeta").read_bytes()
    for kind in ("ALGN", "TONE"):
        with pytest.raises((DigestError, SidecarError)):
            rawcodec.decode(small.jpeg, rebuilt(small.sidecar, kind, payload_of(golden, kind)))


def test_a_damaged_description_behind_right_checksums_is_refused(small: Pair):
    """All but the sizes, which merely make a larger mosaic."""
    payload, expected = payload_of(small.sidecar, "HEAD"), small.decode()
    for position in range(16, len(payload)):
        data = bytearray(payload)
        data[position] ^= 1 << position % 8
        try:
            mosaic = rawcodec.decode(small.jpeg, rebuilt(small.sidecar, "HEAD", bytes(data)))
        except (DigestError, JpegMismatchError, SidecarError) as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(mosaic.samples, expected)


def test_a_model_that_is_not_installed_is_named(small: Pair):
    named = with_model(small.sidecar, "latent-9", bytes(range(16)))
    sidecar = with_latents(named, bytes(20))
    with pytest.raises(ModelError, match=f"latent-9.*{bytes(range(16)).hex()}") as caught:
        rawcodec.decode(small.jpeg, sidecar)
    check_message(caught.value, "sidecar")
    info = rawcodec.inspect(sidecar)
    assert (info.model, info.quality) == ("latent-9", "medium")


def test_a_newer_format_is_refused_and_it_says_so(small: Pair):
    data = small.sidecar[:8] + struct.pack("<H", 2) + small.sidecar[10:]
    with pytest.raises(VersionError, match="newer") as caught:
        rawcodec.decode(small.jpeg, data)
    check_message(caught.value, "sidecar")


def test_a_layer_of_a_newer_version_is_refused_and_an_unknown_note_is_skipped(small: Pair):
    """Built by hand: ``container.write`` refuses to write an unknown layer."""
    chunks = container.read(small.sidecar)
    note = container.write([*chunks, Chunk("note", b"hello")])
    assert np.array_equal(rawcodec.decode(small.jpeg, note).samples, small.decode())
    with pytest.raises(ValueError, match="RESD"):
        container.write([*chunks, Chunk("RESD", b"")])


def test_a_sidecar_is_named_in_its_messages(small: Pair, tmp_path: Path):
    path = tmp_path / "a.rmeta"
    path.write_bytes(small.sidecar[:-1])
    with pytest.raises(SidecarError) as caught:
        rawcodec.decode(small.jpeg, path)
    check_message(caught.value, path)
    with pytest.raises(SidecarError) as caught:
        rawcodec.decode(small.jpeg, str(path))
    check_message(caught.value, path)


# Options


def test_an_unknown_quality_is_refused_before_anything_is_read():
    with pytest.raises(QualityError, match="quality best: is none of tone, low, medium") as caught:
        rawcodec.encode("nothing.dng", "nothing.jpg", quality="best")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quality", ["low", "medium", "high", "max"])
def test_a_quality_that_no_model_has_is_refused_before_anything_is_read(
    quality: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights, "models", lambda: ())
    with pytest.raises(QualityError, match=f"quality {quality}: .*; .*--quality tone") as caught:
        rawcodec.encode("nothing.dng", "nothing.jpg", quality=quality)
    assert "\n" not in str(caught.value)


def test_an_unknown_device_is_refused(small: Pair):
    with pytest.raises(DeviceError, match="tpu"):
        rawcodec.encode("nothing.dng", "nothing.jpg", device="tpu")
    with pytest.raises(DeviceError, match="tpu"):
        rawcodec.decode(small.jpeg, small.sidecar, device="tpu")


def test_cuda_is_refused_without_one(small: Pair):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DeviceError, match=r"cuda.*; use --device cpu"):
        rawcodec.encode("nothing.dng", "nothing.jpg", device="cuda")
    with pytest.raises(DeviceError, match=r"cuda.*; use --device cpu"):
        rawcodec.decode(small.jpeg, small.sidecar, device="cuda")


def test_cuda_decodes_the_same_bytes(small: Pair):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is none")
    samples = rawcodec.decode(small.jpeg, small.sidecar, device="cuda").samples
    assert np.array_equal(samples, small.decode())


def test_every_error_is_a_rawcodec_error():
    found = [
        e for e in vars(errors).values() if isinstance(e, type) and e.__module__ == errors.__name__
    ]
    assert all(issubclass(e, RawcodecError) for e in found)
    assert len(found) >= 12


# Files of earlier versions, and bad ones


def test_every_golden_sidecar_is_in_the_table():
    files = {path.stem for path in (HERE / "golden").glob("*.rmeta")}
    assert files == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_sidecars_decode_to_what_they_always_did(name: str):
    golden = GOLDEN[name]
    path = HERE / "golden" / f"{name}.rmeta"
    assert path.stat().st_size == golden["bytes"]
    if rawcodec.inspect(path).quality == "tone":
        assert golden["bytes"] <= SIZE_LIMIT
    mosaic = rawcodec.decode(HERE / "golden" / golden["jpeg"], path)
    assert mosaic.digest().hex() == golden["mosaic_digest"]


# With the JPEG of the golden pair that they were made from.
BAD: dict[str, tuple[type[RawcodecError], str]] = {
    "empty": (CorruptSidecarError, "empty"),
    "text": (CorruptSidecarError, "not a rawcodec sidecar"),
    "truncated": (CorruptSidecarError, "truncated"),
    "no-tail": (CorruptSidecarError, "truncated"),
    "text-mode": (CorruptSidecarError, "text-mode transfer"),
    "flipped-bit": (CorruptSidecarError, "CRC-32"),
    "appended": (CorruptSidecarError, "1 bytes follow"),
    "newer-format": (VersionError, "newer"),
    "model": (ModelError, "needs the model latent-0 .*not installed"),
    "no-latents": (CorruptSidecarError, "has no latents for its model"),
    "orientation": (CorruptSidecarError, "orientation 9"),
    "scale": (CorruptSidecarError, "scale"),
    "tone-head": (CorruptSidecarError, "10 bytes"),
    "tone-step": (CorruptSidecarError, "step"),
    "tone-cut": (CorruptSidecarError, "entropy-coded"),
    "tone-other": (RawcodecError, "sidecar again"),
    "latents-head": (CorruptSidecarError, "fewer than their head"),
    "latents-rate": (CorruptSidecarError, "the rate 33"),
    "latents-cut": (CorruptSidecarError, "sidecar again"),
    "latents-other": (RawcodecError, "sidecar again"),
    "digest": (DigestError, "not what was encoded"),
}


def test_every_bad_sidecar_is_in_the_table():
    assert {path.stem for path in (HERE / "bad").glob("*.rmeta")} == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_bad_sidecars_are_refused(name: str):
    error, fault = BAD[name]
    path = HERE / "bad" / f"{name}.rmeta"
    with pytest.raises(error, match=fault) as caught:
        rawcodec.decode(HERE / "golden" / "xtrans.jpg", path)
    check_message(caught.value, path)


def test_a_bad_jpeg_is_refused():
    path = HERE / "bad" / "truncated.jpg"
    with pytest.raises(JpegError, match="truncated") as caught:
        rawcodec.decode(path, HERE / "golden" / "xtrans.rmeta")
    check_message(caught.value, path)
