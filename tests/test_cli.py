"""The command line as it is typed: exit codes, standard output, standard error, files.

Every command is a process of its own, in a folder of its own.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
from pairs import with_latents, with_model
from PIL import Image

import rawcodec
from rawcodec.photo.dng import write_dng
from rawcodec.photo.raw import read_raw
from rawcodec.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PACKAGE = Path(rawcodec.__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
WIDTH, HEIGHT = 1734, 1156
TONE = ("--quality", "tone")


def rawcodec_(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``rawcodec ARGUMENTS`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "rawcodec", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(*arguments: str | Path, cwd: Path, code: int = 1) -> str:
    """The one line with which a command refuses; it must leave all files as they are."""
    before = {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()}
    done = rawcodec_(*arguments, cwd=cwd)
    after = {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()}
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert after == before
    if code == 1:
        assert re.fullmatch(r"[^\n]+: [^\n]+; [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.dng, photo.jpg, and photo.rmeta that encode made of them.

    With the tone layer alone, which is quick; test_learned.py has the other qualities.
    """
    folder = tmp_path_factory.mktemp("example")
    for name in ("photo.dng", "photo.jpg"):
        shutil.copyfile(EXAMPLES / name, folder / name)
    done = rawcodec_("encode", "photo.dng", "photo.jpg", *TONE, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    size = (folder / "photo.rmeta").stat().st_size
    line = re.escape(f"photo.rmeta: {size:,} bytes, {8 * size / (WIDTH * HEIGHT):.4f} bpp, ")
    assert re.fullmatch(line + r"\d\d\.\d\d dB, \d+\.\d s\n", done.stdout)
    assert names(folder) == ["photo.dng", "photo.jpg", "photo.rmeta"]
    return folder


@pytest.fixture
def photo(example: Path, tmp_path: Path) -> Path:
    """A copy of the example's folder, to be changed at will."""
    folder = tmp_path / "photo"
    shutil.copytree(example, folder)
    return folder


@pytest.fixture(scope="session")
def mosaic(example: Path) -> np.ndarray:
    """The mosaic that decode gives back."""
    done = rawcodec_("decode", "photo.jpg", "photo.rmeta", "-o", "first.tiff", cwd=example)
    assert (done.returncode, done.stderr) == (0, "")
    size = (example / "first.tiff").stat().st_size
    line = re.escape(f"first.tiff: {size:,} bytes, {WIDTH}x{HEIGHT}, ")
    assert re.fullmatch(line + r"\d+\.\d s, exact: the digest matches\n", done.stdout)
    samples = tifffile.imread(example / "first.tiff")
    (example / "first.tiff").unlink()
    return np.asarray(samples)


def test_decode_gives_the_mosaic_that_info_describes(example: Path, mosaic: np.ndarray) -> None:
    assert (mosaic.dtype, mosaic.shape) == (np.dtype(np.uint16), (HEIGHT, WIDTH))
    info = rawcodec.inspect(example / "photo.rmeta")
    with rawpy.imread(str(example / "photo.dng")) as raw:
        error = raw.raw_image_visible.astype(float) - mosaic
    assert np.abs(error).max() == info.max_error
    psnr = -10 * np.log10(np.mean((error / (info.white - info.black[0])) ** 2))
    assert psnr == pytest.approx(info.psnr_db, abs=0.001)
    assert psnr > 40


def test_decode_takes_either_order_and_names_the_tiff_after_the_sidecar(
    photo: Path, mosaic: np.ndarray
) -> None:
    (photo / "photo.rmeta").rename(photo / "other.name.rmeta")
    done = rawcodec_("decode", "other.name.rmeta", "photo.jpg", cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(tifffile.imread(photo / "other.name.tiff"), mosaic)


@pytest.mark.parametrize(("name", "options"), [("a.dng", []), ("A.DNG", ["--uncompressed"])])
def test_decode_writes_a_dng_that_is_rendered_like_the_raw(
    photo: Path, mosaic: np.ndarray, name: str, options: list[str]
) -> None:
    done = rawcodec_("decode", "photo.jpg", "photo.rmeta", "-o", name, *options, cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    size = (photo / name).stat().st_size
    line = re.escape(f"{name}: {size:,} bytes, {WIDTH}x{HEIGHT}, ")
    assert re.fullmatch(line + r"\d+\.\d s, exact: the digest matches\n", done.stdout)
    assert (size < 1.3 * mosaic.size) is not bool(options)
    pictures = []
    with rawpy.imread(str(photo / name)) as raw:
        preview = Image.open(io.BytesIO(raw.extract_thumb().data))
    jpeg = Image.open(photo / "photo.jpg").resize(preview.size)
    assert max(preview.size) == 1024
    assert np.abs(np.asarray(preview).astype(int) - np.asarray(jpeg)).mean() < 6
    for each in ("photo.dng", name):
        with rawpy.imread(str(photo / each)) as raw:
            if each == name:
                assert np.array_equal(raw.raw_image_visible, mosaic)
            pictures.append(raw.postprocess(use_camera_wb=True, half_size=True).astype(float))
    assert pictures[0].shape == pictures[1].shape
    error = np.sqrt(np.mean((pictures[0] - pictures[1]) ** 2))
    assert 20 * np.log10(255 / error) > 30
    exif = Image.open(photo / "photo.jpg").getexif().get_ifd(0x8769)
    with (photo / name).open("rb") as file:
        kept = Image.Exif()
        kept.load_from_fp(file)
        assert kept.get_ifd(0x8769)[36864] == exif[36864] == b"0221"


def test_encoding_again_gives_the_same_bytes(photo: Path) -> None:
    (photo / "folder").mkdir()
    again = Path("folder") / "again.rmeta"
    arguments = [*TONE, "--no-verify", "-o", again]
    done = rawcodec_("encode", "photo.dng", "photo.jpg", *arguments, cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert (photo / again).read_bytes() == (photo / "photo.rmeta").read_bytes()


def test_force_replaces_the_output(photo: Path) -> None:
    good = (photo / "photo.rmeta").read_bytes()
    (photo / "photo.rmeta").write_bytes(b"old")
    done = rawcodec_("encode", "photo.dng", "photo.jpg", *TONE, "--force", cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert (photo / "photo.rmeta").read_bytes() == good


def test_editing_the_jpegs_metadata_does_no_harm(photo: Path) -> None:
    data = (photo / "photo.jpg").read_bytes()
    comment = b"my best photo"
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    (photo / "photo.jpg").write_bytes(data[:2] + segment + data[2:])
    assert rawcodec_("decode", "photo.jpg", "photo.rmeta", cwd=photo).returncode == 0


# the JPEG that is not named


@pytest.mark.parametrize("ending", ["jpg", "JPG", "jpeg"])
def test_encode_takes_the_jpeg_beside_the_raw(photo: Path, ending: str) -> None:
    good = (photo / "photo.rmeta").read_bytes()
    (photo / "photo.rmeta").unlink()
    (photo / "photo.jpg").rename(photo / f"photo.{ending}")
    (photo / "photo.dng.jpg").write_bytes(b"of another name")
    done = rawcodec_("encode", "photo.dng", *TONE, "--no-verify", cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert (photo / "photo.rmeta").read_bytes() == good


def test_encode_refuses_no_jpeg_or_several_beside_the_raw(photo: Path) -> None:
    (photo / "photo.rmeta").unlink()
    shutil.copyfile(photo / "photo.jpg", photo / "photo.JPEG")
    hint = "name the JPEG behind the raw, or try --embedded\n"
    stderr = refused("encode", "photo.dng", cwd=photo)
    assert stderr == f"photo.dng: photo.JPEG and photo.jpg lie beside it; {hint}"
    for name in ("photo.jpg", "photo.JPEG"):
        (photo / name).unlink()
    stderr = refused("encode", "photo.dng", cwd=photo)
    assert stderr == f"photo.dng: no photo.jpg lies beside it; {hint}"
    assert refused("encode", "no.dng", cwd=photo) == "no.dng: no such file; check the name\n"


@pytest.mark.parametrize("named", ["photo.jpg", "photo.rmeta"])
def test_decode_takes_what_lies_beside(photo: Path, mosaic: np.ndarray, named: str) -> None:
    done = rawcodec_("decode", named, cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(tifffile.imread(photo / "photo.tiff"), mosaic)


def test_decode_refuses_what_nothing_lies_beside(photo: Path) -> None:
    (photo / "photo.rmeta").rename(photo / "other.rmeta")
    for named, message in (
        ("photo.jpg", "photo.rmeta: no such file; check the name"),
        ("other.rmeta", "other.rmeta: no other.jpg lies beside it; name its JPEG too"),
        ("missing", "missing: no such file; check the name"),
        (".", ".: is a folder; name a file in it"),
    ):
        assert refused("decode", named, cwd=photo) == f"{message}\n"


@pytest.fixture
def previewed(photo: Path) -> Path:
    """A folder with own.dng alone: the example with the whole JPEG as its preview."""
    mosaic = read_raw(photo / "photo.dng").mosaic
    preview = np.asarray(Image.open(photo / "photo.jpg"))
    folder = photo.parent / "own"
    folder.mkdir()
    with (folder / "own.dng").open("w+b") as file:
        write_dng(file, mosaic, preview=preview)
    return folder


@pytest.mark.parametrize("named", [(), ("other.jpg",)])
def test_encode_extracts_the_preview_of_a_raw(previewed: Path, named: tuple[str, ...]) -> None:
    done = rawcodec_("encode", "own.dng", *named, "--embedded", *TONE, cwd=previewed)
    assert (done.returncode, done.stderr) == (0, "")
    jpeg = Path(named[0] if named else "own.jpg")
    assert names(previewed) == sorted(["own.dng", str(jpeg), f"{jpeg.stem}.rmeta"])
    assert Image.open(previewed / jpeg).size == (1726, 1148)
    done = rawcodec_("decode", jpeg, jpeg.with_suffix(".rmeta"), cwd=previewed)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_preview_replaces_no_jpeg(previewed: Path) -> None:
    (previewed / "own.jpg").write_bytes(b"another")
    stderr = refused("encode", "own.dng", "--embedded", "--force", cwd=previewed)
    assert stderr == (
        "own.jpg: already exists; name another JPEG behind the raw, or leave out --embedded\n"
    )


def test_a_preview_goes_again_where_encoding_fails(previewed: Path) -> None:
    stderr = refused("encode", "own.dng", "--embedded", "--max-bytes", "100", cwd=previewed)
    assert stderr.startswith("own.dng: its smallest sidecar takes ")


def test_a_raw_without_a_preview_is_refused(photo: Path) -> None:
    (photo / "photo.rmeta").unlink()
    (photo / "photo.jpg").unlink()
    stderr = refused("encode", "photo.dng", "--embedded", cwd=photo)
    assert stderr == (
        "photo.dng: has no preview in it; develop it with a raw converter, and name that JPEG\n"
    )


# info


def test_info_is_a_block_for_each_file(photo: Path) -> None:
    shutil.copyfile(photo / "photo.rmeta", photo / "second.rmeta")
    done = rawcodec_("info", "photo.rmeta", "./second.rmeta", cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("./second.rmeta\n")
    assert first == "photo.rmeta\n" + second
    rows = dict(line.split(maxsplit=1) for line in second.splitlines())
    assert list(rows) == [
        "size",
        "layers",
        "quality",
        "model",
        "camera",
        "mosaic",
        "levels",
        "JPEG",
        "written",
    ]
    assert rows["mosaic"] == f"{WIDTH}x{HEIGHT}, RGGB, orientation 1"
    assert rows["levels"] == "black 2056, white 15000"
    assert rows["written"] == f"by rawcodec {VERSION}, format 1"
    assert rows["quality"].startswith("tone, ")


def test_info_as_json(photo: Path) -> None:
    (photo / "bad.rmeta").write_bytes(b"bad")
    done = rawcodec_("info", "--json", "photo.rmeta", "bad.rmeta", "photo.rmeta", cwd=photo)
    assert done.returncode == 1
    assert done.stderr == "bad.rmeta: not a rawcodec sidecar; check the file's name\n"
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == second
    wanted = "path bytes bpp width height cfa black white camera model quality psnr_db layers"
    assert set(wanted.split()) <= first.keys()
    size = (photo / "photo.rmeta").stat().st_size
    assert (first["path"], first["bytes"], first["bpp"]) == (
        "photo.rmeta",
        size,
        8 * size / (WIDTH * HEIGHT),
    )
    assert sum(first["layers"].values()) == size
    assert (first["cfa"], first["black"], first["white"]) == ("RGGB", [2056] * 4, 15000)
    assert (first["model"], first["quality"]) == (None, "tone")


def test_info_imports_nothing_heavy_and_is_quick(photo: Path) -> None:
    code = (
        "import sys, rawcodec.cli\n"
        "try:\n    rawcodec.cli.main(['info', 'photo.rmeta'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'numpy', 'torch', 'rawpy', 'PIL', 'tifffile', 'constriction'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=photo, env=ENVIRONMENT)
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        rawcodec_("info", "photo.rmeta", cwd=photo)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # of the processor, which other programs may be using
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_a_name_with_a_line_end_stays_on_its_line(tmp_path: Path) -> None:
    stderr = refused("info", "two\nlines.rmeta", cwd=tmp_path)
    assert stderr == "two\\nlines.rmeta: no such file; check the name\n"


def test_a_closed_pipe_is_quiet(photo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "rawcodec", "info", *["photo.rmeta"] * 50],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=photo,
        env=ENVIRONMENT,
    )
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_output_to_a_full_disk_is_refused(photo: Path, form: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rawcodec", "info", *form, "photo.rmeta"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=photo,
            env=ENVIRONMENT,
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"standard output: [^\n]+; [^\n]+\n", done.stderr)


def test_closed_output_does_not_matter(photo: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m rawcodec info photo.rmeta"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(f"{command} {closed}", shell=True, cwd=photo, env=ENVIRONMENT)
        assert done.returncode == 0


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "photo.dng", "photo.jpg", "more"],
        ["encode", "photo.dng", "photo.jpg", "--quality", "best"],
        ["decode"],
        ["decode", "photo.jpg", "photo.rmeta", "--device", "abacus"],
        ["decode", "photo.jpg", "photo.rmeta", "--uncompressed"],
        ["decode", "photo.jpg", "photo.rmeta", "--uncompressed", "-o", "photo.tiff"],
        ["info"],
        ["info", "--xml", "photo.rmeta"],
        ["explode"],
        [],
    ],
)
def test_wrong_usage_is_2(example: Path, arguments: list[str]) -> None:
    assert "Usage: rawcodec" in refused(*arguments, cwd=example, code=2)


@pytest.mark.parametrize("command", ["", "encode", "decode", "info"])
def test_help_shows_examples_and_every_option(tmp_path: Path, command: str) -> None:
    done = rawcodec_(*command.split(), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  rawcodec {command or 'encode'} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version(tmp_path: Path) -> None:
    assert rawcodec_("--version", cwd=tmp_path).stdout == f"rawcodec {VERSION}\n"


def test_a_small_part_of_the_frame_is_encoded_if_it_is_meant(photo: Path) -> None:
    with Image.open(photo / "photo.jpg") as image:
        image.crop((500, 200, 1500, 900)).save(photo / "part.jpg", quality=92)
    stderr = refused("encode", "photo.dng", "part.jpg", *TONE, cwd=photo)
    assert re.fullmatch(r"part\.jpg: shows 3\d% of the raw, [^;]*; [^;]*--allow-partial\n", stderr)
    done = rawcodec_("encode", "photo.dng", "part.jpg", *TONE, "--allow-partial", cwd=photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert (photo / "part.rmeta").exists()


# Outputs that cannot be


def test_an_output_that_exists_is_kept(photo: Path) -> None:
    stderr = refused("encode", "photo.dng", "photo.jpg", cwd=photo)
    assert stderr == (
        "photo.rmeta: already exists; use --force to replace it or -o to name another\n"
    )
    (photo / "photo.tiff").write_bytes(b"precious")
    stderr = refused("decode", "photo.jpg", "photo.rmeta", cwd=photo)
    assert stderr.startswith("photo.tiff: already exists; ")


@pytest.mark.parametrize("name", ["photo.dng", "photo.jpg", "photo.rmeta"])
def test_an_input_is_never_replaced(photo: Path, name: str) -> None:
    command = ["decode", "photo.jpg", "photo.rmeta"]
    if name == "photo.dng":
        command = ["encode", "photo.dng", "photo.jpg"]
    for target in (name, f"../photo/{name}"):
        stderr = refused(*command, "-o", target, "--force", cwd=photo)
        assert stderr.startswith(f"{target}: is an input itself; ")


@pytest.mark.parametrize("command", [["encode", "photo.dng"], ["decode", "photo.rmeta"]])
def test_folders_that_cannot_be_written_to(photo: Path, command: list[str]) -> None:
    for target, text in (
        ("missing/out", "the folder missing does not exist"),
        ("photo.jpg/out", "photo.jpg is not a folder"),
        (".", "is a folder"),
        ("/proc/out", "/proc is not writable|cannot be written|does not exist"),
    ):
        stderr = refused(*command, "photo.jpg", "-o", target, cwd=photo)
        assert re.search(text, stderr), stderr


@pytest.mark.parametrize("command", [["encode", *TONE, "photo.dng"], ["decode", "photo.rmeta"]])
def test_a_write_that_fails_leaves_nothing(photo: Path, command: list[str]) -> None:
    # The limit stands for a full disk: the file cannot grow as far as it has to.
    limited = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (100, 100)); {MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", limited, *command, "photo.jpg", "-o", "out"],
        capture_output=True,
        text=True,
        cwd=photo,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("out: cannot be written (File too large); name another output with -o\n")
    assert names(photo) == ["photo.dng", "photo.jpg", "photo.rmeta"]


# Inputs that cannot be


def jpeg_bytes(pixels: np.ndarray, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def other_shot(jpeg: bytes) -> bytes:
    """A JPEG of the same size that shows something else."""
    with Image.open(io.BytesIO(jpeg)) as image:
        width, height = image.size
    small = np.random.default_rng(5).integers(0, 255, (12, 18, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return jpeg_bytes(np.asarray(large))


def saved_again(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        return jpeg_bytes(np.asarray(image), quality=80)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_a_flipped_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def from_a_newer_format(data: bytes) -> bytes:
    return data[:8] + b"\x63\x00" + data[10:]


def with_a_model(data: bytes) -> bytes:
    """The same sidecar, as if decoding needed weights that nobody has."""
    return with_latents(with_model(data, "unheard-of-1", bytes(range(16))), bytes(20))


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("photo.dng", lambda _: b"this is no photo" * 100, "photo.dng: .*raw"),
        ("photo.dng", lambda _: b"", "photo.dng: "),
        ("photo.dng", lambda data: data[:3000], "photo.dng: "),
        ("photo.dng", cut, "photo.dng: "),
        ("photo.jpg", lambda _: b"this is no photo", "photo.jpg: is not a JPEG"),
        ("photo.jpg", cut, "photo.jpg: is truncated"),
        ("photo.jpg", other_shot, "photo.jpg: "),
        ("photo.jpg", lambda _: jpeg_bytes(np.zeros((8, 8, 3), np.uint8)), "photo.jpg: "),
        ("photo.jpg", lambda _: jpeg_bytes(np.zeros((90, 1734, 3), np.uint8)), "photo.jpg: "),
    ],
)
def test_encode_refuses(
    photo: Path, name: str, change: Callable[[bytes], bytes], text: str
) -> None:
    (photo / name).write_bytes(change((photo / name).read_bytes()))
    stderr = refused("encode", "photo.dng", "photo.jpg", "-o", "out", cwd=photo)
    assert re.search(text, stderr), stderr


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("photo.rmeta", cut, "photo.rmeta: truncated"),
        ("photo.rmeta", with_a_flipped_bit, "photo.rmeta: damaged"),
        ("photo.rmeta", from_a_newer_format, "photo.rmeta: .*newer.*install a newer rawcodec"),
        ("photo.rmeta", with_a_model, "photo.rmeta: needs the model unheard-of-1 "),
        ("photo.rmeta", lambda _: b"this is no sidecar", "photo.rmeta: not a rawcodec sidecar"),
        ("photo.rmeta", lambda _: b"", "photo.rmeta: the file is empty"),
        ("photo.jpg", other_shot, "photo.jpg: "),
        ("photo.jpg", saved_again, "photo.jpg: .*saved again|photo.jpg: .*re-?saved"),
        ("photo.jpg", lambda _: b"this is no photo", "photo.jpg: is not a JPEG"),
        ("photo.jpg", cut, "photo.jpg: is truncated"),
    ],
)
def test_decode_refuses(
    photo: Path, name: str, change: Callable[[bytes], bytes], text: str
) -> None:
    (photo / name).write_bytes(change((photo / name).read_bytes()))
    for command in (["photo.jpg", "photo.rmeta"], ["photo.rmeta", "photo.jpg"]):
        stderr = refused("decode", *command, "-o", "out", cwd=photo)
        assert re.search(text, stderr), stderr


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["encode", "missing.dng", "photo.jpg"], "missing.dng: no such file; check the name\n"),
        (["encode", "photo.dng", "missing.jpg"], "missing.jpg: no such file; check the name\n"),
        (["decode", "photo.jpg", "missing"], "missing: no such file; check the name\n"),
        (["decode", "missing", "photo.rmeta"], "missing: no such file; check the name\n"),
        (["info", "missing"], "missing: no such file; check the name\n"),
        (["encode", ".", "photo.jpg"], ".: is a folder; "),
        (["encode", "photo.dng", "."], ".: is a folder; "),
        (["decode", "photo.jpg", "."], ".: is a folder; "),
        (["info", "."], ".: is a folder; "),
        (["info", "photo.jpg"], "photo.jpg: is a JPEG, not a sidecar; name the .rmeta file\n"),
        (["info", "photo.dng"], "photo.dng: not a rawcodec sidecar; check the file's name\n"),
        (["decode", "photo.jpg", "photo.jpg"], "photo.jpg: is a JPEG like photo.jpg; "),
        (["decode", "photo.rmeta", "photo.rmeta"], "photo.rmeta: is a sidecar like photo.rmeta; "),
    ],
)
def test_files_that_are_missing_or_of_another_kind(
    photo: Path, arguments: list[str], stderr: str
) -> None:
    output = [] if arguments[0] == "info" else ["-o", "out"]
    assert refused(*arguments, *output, cwd=photo).startswith(stderr)


def test_cuda_without_a_device_is_refused(photo: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    for command in (["encode", "photo.dng"], ["decode", "photo.rmeta"]):
        stderr = refused(*command, "photo.jpg", "-o", "out", "--device", "cuda", cwd=photo)
        assert "cuda" in stderr.lower()


# Interruptions, and failures that no file causes: the codec is replaced by one
# that waits or fails, in the same process.

MAIN = "import sys, rawcodec.cli; rawcodec.cli.main(sys.argv[1:])"
WAITS = """
import time, rawcodec
rawcodec.encode = lambda *a, **k: b"sidecar"
rawcodec.decode = lambda *a, **k: time.sleep(60)
"""
FAILS = """
import rawcodec
def fail(*a, **k):
    raise {}
rawcodec.encode = rawcodec.decode = fail
"""


def started(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """An encode that has written its temporary file and now verifies, for a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS + MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size for p in folder.glob(".rawcodec-*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("number", "stderr"),
    [
        (signal.SIGTERM, "rawcodec: terminated\n"),
        (signal.SIGHUP, "rawcodec: terminated\n"),
        (signal.SIGINT, "rawcodec: interrupted\n"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, number: signal.Signals, stderr: str, force: bool
) -> None:
    if force:
        (tmp_path / "out").write_bytes(b"old")
    arguments = ["encode", "a.dng", "a.jpg", "-o", "out", *(["--force"] if force else [])]
    process = started(arguments, tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", stderr)
    assert names(tmp_path) == (["out"] if force else [])
    assert not force or (tmp_path / "out").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("error", "stderr"),
    [
        ("MemoryError", "a.dng: not enough memory; close other programs or use a larger machine"),
        (
            "OSError(5, 'Input/output error')",
            "a.dng: Input/output error; check the file and its disk",
        ),
    ],
)
def test_limits_of_the_machine_are_one_line(tmp_path: Path, error: str, stderr: str) -> None:
    done = failing(error, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", stderr + "\n")


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = failing("ZeroDivisionError('bug')", tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert names(tmp_path) == []


def failing(error: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FAILS.format(error) + MAIN, "encode", "a.dng", "a.jpg"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
    )


def test_what_does_not_decode_again_gets_no_name(tmp_path: Path) -> None:
    code = (
        "import rawcodec\nfrom rawcodec.errors import DigestError\n"
        "def fail(*a, **k):\n    raise DigestError('sidecar: other samples; report this')\n"
        "rawcodec.encode = lambda *a, **k: b'data'\nrawcodec.decode = fail\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + MAIN, "encode", "a.dng", "a.jpg"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("a.rmeta: does not decode to what was encoded, so it was removed")
    assert names(tmp_path) == []
