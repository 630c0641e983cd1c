"""What a sidecar says of itself: every field, every byte counted, clear errors."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from rawcodec.errors import CorruptSidecarError, RawcodecError, SidecarError, VersionError
from rawcodec.inspection import inspect_bytes, inspect_path, read_sidecar, tell_apart
from rawcodec.sensor import Sensor
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.header import Header
from rawcodec.stream.tags import pack_tags

HEADER = Header(
    sensor=Sensor(600, 400, ("RG", "GB"), (510, 511, 512, 513), 16383, 6),
    raw_width=624,
    raw_height=424,
    left=12,
    top=16,
    jpeg_width=592,
    jpeg_height=392,
    jpeg_digest=bytes(range(16)),
    jpeg_stream_digest=bytes(range(16, 24)),
    mosaic_digest=bytes(range(32, 48)),
    quality="tone",
    psnr_db=44.25,
    max_error=321,
    writer="rawcodec 9.8.7",
    camera_make="Canon",
    camera_model="Canon EOS R6",
)
TAGS = pack_tags([(50728, 5, 1, bytes(8))])
JPEG_START = b"\xff\xd8\xff\xe0"


def sidecar(*more: Chunk, header: Header = HEADER) -> bytes:
    """A sidecar whose layers are no real ones: inspection does not decode them."""
    chunks = [Chunk("HEAD", header.pack()), Chunk("ALGN", bytes(5)), Chunk("TONE", bytes(7))]
    return container.write([*chunks, *more])


def test_every_field_is_the_headers() -> None:
    data = sidecar(Chunk("tags", TAGS))
    info = inspect_bytes(data, "a/b.rmeta")
    assert info.path == "a/b.rmeta"
    assert info.bytes == len(data)
    assert info.bpp == 8 * len(data) / (600 * 400)
    assert (info.width, info.height, info.cfa) == (600, 400, "RGGB")
    assert (info.black, info.white) == ((510, 511, 512, 513), 16383)
    assert (info.camera, info.model, info.quality) == ("Canon EOS R6", None, "tone")
    assert (info.psnr_db, info.lossless, info.max_error) == (44.25, False, 321)
    assert (info.orientation, info.jpeg_width, info.jpeg_height) == (6, 592, 392)
    assert (info.writer, info.format_version) == ("rawcodec 9.8.7", container.FORMAT_VERSION)
    assert info.jpeg_digest == bytes(range(16)).hex()
    assert info.jpeg_stream_digest == bytes(range(16, 24)).hex()
    assert info.mosaic_digest == bytes(range(32, 48)).hex()


def test_the_layers_are_all_bytes_of_the_file() -> None:
    more = [Chunk("LATN", bytes(11)), Chunk("note", b"hello"), Chunk("tags", TAGS)]
    data = sidecar(*more, Chunk("note", b"!"))
    layers = inspect_bytes(data).layers
    assert sum(layers.values()) == len(data)
    assert layers == {
        "container": container.PREFIX_SIZE + 7 * container.FRAMING_SIZE + container.TAIL_SIZE,
        "header": len(HEADER.pack()),
        "align": 5,
        "tone": 7,
        "latents": 11,
        "tags": len(TAGS),
        "other": 6,
    }
    assert inspect_bytes(sidecar()).layers["latents"] == 0


def test_json_has_every_field_and_no_infinity() -> None:
    info = inspect_bytes(sidecar())
    found = json.loads(json.dumps(info.to_json(), allow_nan=False))
    fields = {field.name for field in dataclasses.fields(info)}
    assert found.keys() == fields | {"lossless"}
    assert found["psnr_db"] == 44.25
    assert found["lossless"] is False
    assert found["black"] == [510, 511, 512, 513]

    lossless = dataclasses.replace(HEADER, psnr_db=math.inf, max_error=0)
    found = json.loads(json.dumps(inspect_bytes(sidecar(header=lossless)).to_json()))
    assert found["psnr_db"] is None
    assert found["lossless"] is True


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS R6", "Canon EOS R6"),
        ("SONY", "ILCE-7M3", "SONY ILCE-7M3"),
        ("NIKON", "nikon d1", "nikon d1"),
        ("Leica", "", "Leica"),
        ("", "X100", "X100"),
        ("", "", ""),
    ],
)
def test_the_camera_does_not_repeat_its_make(make: str, model: str, camera: str) -> None:
    header = dataclasses.replace(HEADER, camera_make=make, camera_model=model)
    assert inspect_bytes(sidecar(header=header)).camera == camera


def test_a_model_is_named() -> None:
    header = dataclasses.replace(HEADER, quality="high", model="one-1", model_hash=bytes(15) + b"x")
    info = inspect_bytes(sidecar(header=header))
    assert (info.model, info.quality) == ("one-1", "high")


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", CorruptSidecarError, "the file is empty"),
        (JPEG_START, CorruptSidecarError, "is a JPEG, not a sidecar; name the .rmeta file"),
        (b"II*\0 and so on", CorruptSidecarError, "not a rawcodec sidecar"),
        (sidecar()[:-1], CorruptSidecarError, "truncated"),
        (sidecar()[:30] + b"?" + sidecar()[31:], CorruptSidecarError, "damaged"),
        (sidecar(Chunk("tags", b"?")), CorruptSidecarError, "chunk tags"),
        (container.MAGIC + b"\x07\0\0\0", VersionError, "newer"),
    ],
)
def test_errors_name_the_file(data: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as raised:
        inspect_bytes(data, "some where.rmeta")
    assert str(raised.value).startswith("some where.rmeta: ")
    with pytest.raises(error, match=r"^sidecar: "):
        inspect_bytes(data)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "photo.rmeta"
    path.write_bytes(sidecar() + b"more")
    assert read_sidecar(path) == sidecar() + b"more"
    with pytest.raises(CorruptSidecarError, match="4 bytes follow its end"):
        inspect_path(path)
    path.write_bytes(sidecar())
    assert inspect_path(str(path)) == inspect_bytes(sidecar(), str(path))


def test_of_another_file_only_the_start_is_read(tmp_path: Path) -> None:
    path = tmp_path / "film"
    with path.open("wb") as file:
        file.write(b"something else")
        file.truncate(1 << 33)
    assert len(read_sidecar(path)) == container.PREFIX_SIZE


def test_too_large_a_file_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "SIZE_LIMIT", 1000)
    path = tmp_path / "large.rmeta"
    path.write_bytes(container.MAGIC + bytes(5000))
    assert len(read_sidecar(path)) == 1001
    with pytest.raises(CorruptSidecarError, match="more than a sidecar may have"):
        inspect_path(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing.rmeta"
    with pytest.raises(SidecarError) as raised:
        read_sidecar(missing)
    assert str(raised.value) == f"{missing}: no such file; check the name"
    with pytest.raises(SidecarError) as raised:
        read_sidecar(tmp_path)
    assert str(raised.value) == f"{tmp_path}: is a folder; name a file in it"
    (tmp_path / "file").touch()
    with pytest.raises(SidecarError, match=r"cannot be read \(Not a directory\)"):
        read_sidecar(tmp_path / "file" / "photo.rmeta")


def test_a_jpeg_and_a_sidecar_are_told_apart_in_either_order(tmp_path: Path) -> None:
    jpeg, meta, other = (tmp_path / name for name in ("a", "b", "c"))
    jpeg.write_bytes(JPEG_START)
    meta.write_bytes(sidecar())
    other.write_bytes(b"else")
    for pair in ((jpeg, meta), (meta, jpeg)):
        assert tell_apart(*pair) == (jpeg, meta)
    # The one that is right keeps its place, and reading the other says why not.
    assert tell_apart(jpeg, other) == tell_apart(other, jpeg) == (jpeg, other)
    assert tell_apart(meta, other) == tell_apart(other, meta) == (other, meta)
    for pair in ((jpeg, jpeg), (meta, meta)):
        with pytest.raises(RawcodecError, match="name one JPEG and one sidecar"):
            tell_apart(*pair)
    for pair in ((tmp_path / "missing", meta), (jpeg, tmp_path)):
        with pytest.raises(RawcodecError, match=r"check the name|is a folder"):
            tell_apart(*pair)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, rawcodec.inspection, rawcodec.cli\n"
        "print(sorted({'numpy', 'torch', 'rawpy', 'PIL', 'tifffile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
