"""Folders on the command line as they are typed: what is done, what is told, what is left alone.

Every command is a process of its own. The photos are small, and coded with the tone layer alone.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pairs import scene, write_jpeg, write_raw

import rawcodec

PACKAGE = Path(rawcodec.__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
TONE = ("--quality", "tone")
Folder = Callable[..., Path]


def started(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rawcodec", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        **options,
    )


def ran(*arguments: str | Path, cwd: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs ``rawcodec ARGUMENTS`` in a folder; what it says has no traceback in it."""
    process = started(*arguments, cwd=cwd)
    out, err = process.communicate(given, timeout=300)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess([], process.returncode, out, err)


def told(*arguments: str | Path, cwd: Path, code: int = 0, given: str = "") -> dict[str, Any]:
    """What a command tells as JSON, by the photo's path."""
    command, *rest = arguments
    done = ran(command, "--json", *rest, cwd=cwd, given=given)
    assert done.returncode == code, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({tuple(line) for line in lines}) <= 1  # the same keys
    return {line["path"]: line for line in lines}


def statuses(*arguments: str | Path, cwd: Path, code: int = 0, given: str = "") -> dict[str, str]:
    found = told(*arguments, cwd=cwd, code=code, given=given)
    return {path: line["status"] for path, line in found.items()}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with p.dng, p.jpg and p.rmeta."""
    folder = tmp_path_factory.mktemp("pair")
    light = scene(203, 301)
    raw = write_raw(folder / "p.dng", light, ("RG", "GB"))
    jpeg = write_jpeg(folder / "p.jpg", light)
    (folder / "p.rmeta").write_bytes(rawcodec.encode(raw, jpeg, quality="tone"))
    return folder


@pytest.fixture
def folder(pair: Path, tmp_path: Path) -> Folder:
    """Makes a folder of files, each a copy of the pair's by its ending."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            suffix = path.suffix.lower()
            suffix = {".jpeg": ".jpg", ".nef": ".dng"}.get(suffix, suffix)
            shutil.copyfile(pair / f"p{suffix}", path)
        return tmp_path

    return make


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


# encode


def test_a_folder_is_encoded_and_decoded_like_its_photos(folder: Folder, pair: Path) -> None:
    cwd = folder("in/IMG_1.DNG", "in/img_1.jpg", "in/sub dir/b.dng", "in/sub dir/b.JPG")
    before = contents(cwd)
    done = ran("encode", "-r", "in", *TONE, "--output-dir", "out", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    good = (pair / "p.rmeta").read_bytes()
    made = {"out/img_1.rmeta": good, "out/sub dir/b.rmeta": good}
    assert contents(cwd) == {**before, **made}
    *lines, summary = done.stdout.splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == sorted(made)
    assert all(re.search(r": [\d,]+ bytes, .* bpp, .* dB, .* s$", line) for line in lines)
    assert re.fullmatch(r"2 done, \d+\.\d s", summary)

    done = ran("decode", "-r", "out", "--jpegs", "in", "--output-dir", "raws", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    expected = rawcodec.decode(pair / "p.jpg", good).samples
    for name in ("img_1", "sub dir/b"):
        assert np.array_equal(tifffile.imread(cwd / f"raws/{name}.tiff"), expected)


def test_one_bad_photo_never_stops_the_others(folder: Folder) -> None:
    cwd = folder("bad.dng", "bad.jpg", "good.dng", "good.jpg", "lone.dng", "only.jpg")
    folder("two.dng", "Two.nef", "two.jpeg", "notes.rmeta")
    shutil.move(cwd / "two.dng", cwd / "TWO.dng")
    (cwd / "bad.dng").write_bytes(b"no raw" * 1000)
    (cwd / ".rawcodec-12345678.part").write_bytes(b"left over")
    before = contents(cwd)
    found = told("encode", "-r", ".", *TONE, cwd=cwd, code=1)
    assert {path: line["status"] for path, line in found.items()} == {
        "bad.dng": "failed",
        "good.dng": "done",
        "lone.dng": "failed",
        "only.jpg": "ignored",
        "TWO.dng": "failed",
    }
    for path, line in found.items():
        assert (line["reason"] is None) == (line["status"] == "done")
        assert line["reason"] is None or re.fullmatch(rf"{path}: [^\n]+; [^\n]+", line["reason"])
    assert "no JPEG of its name" in found["lone.dng"]["reason"]
    assert "TWO.dng and Two.nef and two.jpeg share a name" in found["TWO.dng"]["reason"]
    good = found["good.dng"]
    assert (good["raw"], good["jpeg"]) == ("good.dng", "good.jpg")
    assert good["sidecar"] == "good.rmeta"
    assert good["bytes"] == (cwd / "good.rmeta").stat().st_size
    assert contents(cwd) == {**before, "good.rmeta": (cwd / "good.rmeta").read_bytes()}


def test_failures_are_told_on_standard_error_and_counted(folder: Folder) -> None:
    cwd = folder("a.dng", "a.jpg", "a.rmeta", "b.dng", "only.jpg")
    done = ran("encode", "-r", ".", *TONE, cwd=cwd)
    assert done.returncode == 1
    assert [line.partition(": ")[0] for line in sorted(done.stderr.splitlines())] == [
        "a.rmeta",
        "b.dng",
        "only.jpg",
    ]
    assert "a.rmeta: already exists; use --skip-existing to leave it out, or" in done.stderr
    assert re.fullmatch(r"2 failed, 1 ignored, \d+\.\d s\n", done.stdout)


def test_files_by_name_are_a_batch_where_they_are_more_than_a_pair(folder: Folder) -> None:
    cwd = folder("a.dng", "a.jpg", "b.dng", "b.jpg", "B.jpeg", "c.dng", "c.jpg")
    # of b two JPEGs lie there, and the one that has its name in the same case is it
    found = statuses("encode", "a.dng", "b.dng", "c.dng", "--dry-run", cwd=cwd)
    assert found == dict.fromkeys(("a.dng", "b.dng", "c.dng"), "planned")
    done = ran("encode", "a.dng", "b.dng", *TONE, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert (cwd / "a.rmeta").exists() and (cwd / "b.rmeta").exists()
    found = statuses("encode", "c.dng", "a.jpg", "--dry-run", cwd=cwd, code=1)
    assert found == {"c.dng": "failed"}  # a pair, whose output is there
    found = statuses(
        "encode", "a.dng", "c.dng", "gone.dng", "--force", "--dry-run", cwd=cwd, code=1
    )
    assert found == {"a.dng": "planned", "c.dng": "planned", "gone.dng": "failed"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["encode", "-r", ".", "-o", "x.rmeta"], "-o is for one photo"),
        (["encode", "a.dng", "a.jpg", "b.txt"], "b.txt is neither a raw nor a JPEG"),
        (["encode", "-r", ".", "--embedded"], "--embedded is for one photo"),
        (["encode", "-r", ".", "--shard", "5/4"], "5/4 is not a share"),
        (["encode", "-r", ".", "--shard", "0/4"], "0/4 is not a share"),
        (["encode", "-r", ".", "--max-memory", "lots"], "lots is not a size"),
        (["encode", "-r", ".", "--jobs", "0"], "--jobs"),
        (["encode", "--json"], "name a photo"),
        (["decode", "a.rmeta", "-o", "a.dng", "--format", "dng"], "leave out --format"),
        (["decode", "-r", ".", "--uncompressed"], "--format dng"),
        (["test"], "Missing argument"),
        (["test", "-r", ".", "--jpeg", "a.jpg"], "--jpeg is of one sidecar"),
        (["info", "-r", ".", "--map", "x.png"], "--map is of one sidecar"),
    ],
)
def test_wrong_usage_is_2(folder: Folder, arguments: list[str], text: str) -> None:
    cwd = folder("a.dng", "a.jpg", "a.rmeta")
    before = contents(cwd)
    done = ran(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in " ".join(done.stderr.split()), done.stderr
    assert contents(cwd) == before


def test_a_folder_needs_r_and_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = ran("encode", "in", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "in: is a folder; name a file in it, or take all of it with -r\n"
    for command in ("encode", "decode", "info", "test"):
        done = ran(command, "-r", "in", cwd=tmp_path)
        kind = "raw" if command == "encode" else "sidecar"
        assert done.returncode == 1
        assert done.stderr == f"in: there is no {kind} in it; name another\n"


def test_a_dry_run_does_nothing(folder: Folder) -> None:
    cwd = folder("a.dng", "a.jpg", "b.dng", "b.jpg", "b.rmeta")
    before = contents(cwd)
    done = ran("encode", "-r", ".", "--dry-run", "--output-dir", "out", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "out/a.rmeta: would be written from a.dng and a.jpg"
    assert statuses("encode", "-r", ".", "--dry-run", cwd=cwd, code=1) == {
        "a.dng": "planned",
        "b.dng": "failed",
    }
    assert contents(cwd) == before
    assert sorted(path.name for path in cwd.iterdir()) == sorted(before)


def test_two_photos_are_not_written_under_one_name(folder: Folder) -> None:
    cwd = folder("a/x.dng", "a/x.jpg", "b/x.dng", "b/x.jpg", "b/y.dng", "b/y.jpg")
    found = told("encode", "-r", "a", "b", "--output-dir", "o", "--dry-run", cwd=cwd, code=1)
    assert found["b/y.dng"]["status"] == "planned"
    assert found["a/x.dng"]["reason"] == (
        "a/x.dng: would be written as o/x.rmeta, like b/x.dng; "
        "give one of them another --output-dir"
    )


def test_links_to_folders_are_told_and_not_followed(folder: Folder) -> None:
    cwd = folder("in/a.dng", "in/a.jpg", "in/.thumbnails/t.dng", "in/._a.dng")
    (cwd / "in" / "again").symlink_to("..", target_is_directory=True)
    (cwd / "in" / "b.dng").symlink_to("a.dng")
    (cwd / "in" / "b.jpg").symlink_to("a.jpg")
    (cwd / "other").symlink_to("in", target_is_directory=True)
    expected = {"in/a.dng": "planned", "in/b.dng": "planned", "in/again": "ignored"}
    assert statuses("encode", "-r", "in", "--dry-run", cwd=cwd) == expected
    # one that is named is followed, and no photo is taken twice
    assert statuses("encode", "-r", "in", "other", "in/", "--dry-run", cwd=cwd) == expected


def test_shares_are_of_each_photo_once_whatever_is_added(folder: Folder) -> None:
    names = [f"{n:02}" for n in range(24)]
    cwd = folder(*(f"in/{name}.{kind}" for name in names for kind in ("dng", "jpg")))

    def shares() -> list[set[str]]:
        return [
            set(told("encode", "-r", "in", "--shard", f"{n}/3", "--dry-run", cwd=cwd))
            for n in (1, 2, 3)
        ]

    first = shares()
    assert all(first)
    assert sorted(name for share in first for name in share) == [f"in/{n}.dng" for n in names]
    folder("in/00a.dng", "in/00a.jpg")
    assert all(share <= after for share, after in zip(first, shares(), strict=True))


ODD = ["with space.dng", "two\nlines.dng", "-dash.dng", "déjà.dng", os.fsdecode(b"by\xffte.dng")]


def test_any_name_works(folder: Folder, pair: Path) -> None:
    names = [f"-in é/{name}" for name in ODD]
    cwd = folder(*names, *(str(Path(name).with_suffix(".jpg")) for name in names))
    listed = [each for name in names for each in (name, str(Path(name).with_suffix(".jpg")))]
    (cwd / "list").write_bytes(b"".join(os.fsencode(name) + b"\0" for name in listed))
    found = statuses("encode", "--pairs", "list", "--dry-run", cwd=cwd)
    assert found == dict.fromkeys(names, "planned")
    found = statuses("encode", "-r", "--dry-run", "--", "-in é", cwd=cwd)
    assert found == dict.fromkeys(names, "planned")
    done = ran("encode", "--jobs=2", "--no-verify", *TONE, "-r", "--", "-in é", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(names) + 1
    for name in names:
        made = cwd / Path(name).with_suffix(".rmeta")
        assert made.read_bytes() == (pair / "p.rmeta").read_bytes()


def test_a_list_names_pairs(folder: Folder) -> None:
    cwd = folder("x/a.dng", "y/b.jpg", "a b.dng", "c.jpg")
    text = "x/a.dng y/b.jpg\r\n\na b.dng\tc.jpg\n"
    found = told("encode", "--pairs", "-", "--dry-run", "--output-dir", "o", cwd=cwd, given=text)
    assert [(line["raw"], line["jpeg"], line["sidecar"]) for line in found.values()] == [
        ("a b.dng", "c.jpg", "o/c.rmeta"),
        ("x/a.dng", "y/b.jpg", "o/x/b.rmeta"),
    ]
    for wrong in ("a b.dng c.jpg\n", "c.jpg\n", "a\tb\tc\n", "a\0b\0c\0"):
        done = ran("encode", "--pairs", "-", "--dry-run", cwd=cwd, given=wrong)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"-: [^\n]+; [^\n]+\n", done.stderr)


def test_memory_is_bounded(folder: Folder) -> None:
    cwd = folder("a.dng", "a.jpg")
    done = ran("encode", "-r", ".", *TONE, "--max-memory", "100M", cwd=cwd)
    assert done.returncode == 1
    assert done.stderr == (
        "a.dng: takes about 0.3 GB of memory, more than --max-memory; give it more\n"
    )
    assert not (cwd / "a.rmeta").exists()


# a second run


def test_skip_existing_skips_what_is_valid_and_of_this_jpeg(folder: Folder, pair: Path) -> None:
    names = ("comment", "damaged", "other", "rewritten", "same")
    cwd = folder(*(f"{name}.{kind}" for name in names for kind in ("dng", "jpg", "rmeta")))
    jpeg = (pair / "p.jpg").read_bytes()
    (cwd / "comment.jpg").write_bytes(jpeg[:2] + b"\xff\xfe\x00\x04hi" + jpeg[2:])
    tables = jpeg.index(b"\xff\xdb")
    end = tables + 2 + int.from_bytes(jpeg[tables + 2 : tables + 4], "big")
    # another stream of the same pixels: a table twice
    (cwd / "rewritten.jpg").write_bytes(jpeg[:end] + jpeg[tables:end] + jpeg[end:])
    write_jpeg(cwd / "other.jpg", scene(203, 301), quality=80)
    flipped(cwd / "damaged.rmeta")
    before = contents(cwd)
    found = told("encode", "-r", ".", *TONE, "--skip-existing", cwd=cwd, code=1)
    assert {path: line["status"] for path, line in found.items()} == {
        "comment.dng": "skipped",
        "damaged.dng": "failed",
        "other.dng": "failed",
        "rewritten.dng": "skipped",
        "same.dng": "skipped",
    }
    assert found["damaged.dng"]["reason"].startswith("damaged.rmeta: damaged: ")
    assert found["damaged.dng"]["reason"].endswith("; encode it again with --force")
    assert found["other.dng"]["reason"] == (
        "other.rmeta: is there, and was not made from other.jpg; encode it again with --force"
    )
    assert contents(cwd) == before
    found = statuses("encode", "-r", ".", *TONE, "--skip-existing", "--force", cwd=cwd)
    assert [path for path in found if found[path] == "done"] == ["damaged.dng", "other.dng"]
    assert (cwd / "damaged.rmeta").read_bytes() == (pair / "p.rmeta").read_bytes()


def test_decoding_again_skips_what_has_the_digest(folder: Folder, pair: Path) -> None:
    cwd = folder("a.jpg", "a.rmeta", "b.jpg", "b.rmeta", "lone.rmeta", "only.jpg")
    options = ("decode", "-r", ".", "--format", "dng", "--skip-existing")
    shutil.copyfile(pair / "p.dng", cwd / "b.dng")  # the raw itself, which is never replaced
    found = told(*options, cwd=cwd, code=1)
    assert {path: line["status"] for path, line in found.items()} == {
        "a.rmeta": "done",
        "b.rmeta": "failed",
        "lone.rmeta": "failed",
    }
    assert (found["a.rmeta"]["output"], found["a.rmeta"]["width"]) == ("a.dng", 301)
    assert "b.dng: is there, and is not what b.rmeta decodes to; " in found["b.rmeta"]["reason"]
    assert statuses(*options, cwd=cwd, code=1)["a.rmeta"] == "skipped"
    assert (cwd / "b.dng").read_bytes() == (pair / "p.dng").read_bytes()
    assert "lies beside it; put it there" in found["lone.rmeta"]["reason"]
    options = ("decode", "a.rmeta", "--skip-existing")
    assert statuses(*options, cwd=cwd) == {"a.rmeta": "done"}
    assert statuses(*options, cwd=cwd) == {"a.rmeta": "skipped"}
    (cwd / "a.tiff").write_bytes(b"another")
    assert statuses(*options, cwd=cwd, code=1) == {"a.rmeta": "failed"}
    assert (cwd / "a.tiff").read_bytes() == b"another"


# info and test


def test_info_goes_through_folders(folder: Folder) -> None:
    cwd = folder("in/a.rmeta", "in/sub/B.RMETA", "in/a.jpg", "c.rmeta")
    done = ran("info", "--json", "-r", "in", "c.rmeta", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert paths == ["in/a.rmeta", "in/sub/B.RMETA", "c.rmeta"]


def test_test_tells_what_was_checked(folder: Folder) -> None:
    cwd = folder("Good.jpg", "good.rmeta", "alone.rmeta")
    before = contents(cwd)
    done = ran("test", "good.rmeta", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"good.rmeta: structure and checksums are right, and with Good.jpg it decodes to its "
        r"digest, \d+\.\d s\n",
        done.stdout,
    )
    done = ran("test", "alone.rmeta", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "alone.rmeta: structure and checksums are right; not decoded, since there is no "
        "JPEG of its name\n"
    )
    done = ran("test", "alone.rmeta", "--jpeg", "Good.jpg", cwd=cwd)
    assert done.returncode == 0 and "decodes to its digest" in done.stdout
    assert contents(cwd) == before


def test_test_finds_every_bad_sidecar(folder: Folder) -> None:
    kinds = ("jpg", "rmeta")
    cwd = folder(*(f"{name}.{kind}" for name in ("bad", "good", "other") for kind in kinds))
    folder("alone.rmeta", "two.jpg", "two.jpeg", "two.rmeta")
    flipped(cwd / "bad.rmeta")
    write_jpeg(cwd / "other.jpg", scene(203, 301), quality=80)
    found = told("test", "-r", ".", cwd=cwd, code=1)
    assert {path: (line["status"], line["checked"]) for path, line in found.items()} == {
        "alone.rmeta": ("done", "structure"),
        "bad.rmeta": ("failed", None),
        "good.rmeta": ("done", "decoded"),
        "other.rmeta": ("failed", None),
        "two.jpeg": ("failed", None),
    }
    assert found["bad.rmeta"]["reason"].startswith("bad.rmeta: damaged")
    assert "saved again" in found["other.rmeta"]["reason"]


# a terminal, interruptions, and processes that are killed


def test_a_terminal_has_a_bar_with_the_time_left(folder: Folder) -> None:
    cwd = folder("b.jpg", "b.rmeta", "c.jpg", "c.rmeta")
    # some with latents, a second of them: before that, nothing is known of the time left
    golden = Path(__file__).parent / "golden"
    for name in "adefgh":
        shutil.copyfile(golden / "xtrans.jpg", cwd / f"{name}.jpg")
        shutil.copyfile(golden / "xtrans-max.rmeta", cwd / f"{name}.rmeta")
    flipped(cwd / "b.rmeta")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rawcodec", "test", "-r", ".", "--jobs", "1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={**ENVIRONMENT, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(30) == 1
    assert re.search(rb"[1-7]/8 +\d\d:\d\d:\d\d", shown), shown
    *_, failed, summary, _ = shown.decode().split("\r\n")
    assert failed.startswith("b.rmeta: damaged")
    assert summary.startswith("7 done, 1 failed, ")
    assert b"a.rmeta:" not in shown


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a command has started to work for it."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.fixture
def stuck(folder: Folder) -> Path:
    """A folder of three photos, of which the second, once begun, never ends."""
    cwd = folder("a.dng", "a.jpg", "b.jpg", "c.dng", "c.jpg")
    os.mkfifo(cwd / "fifo")
    (cwd / "b.dng").symlink_to("fifo")
    return cwd


def held_open(cwd: Path) -> int:
    """Keeps who reads the pipe waiting for its end."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return os.open(cwd / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            assert time.monotonic() < deadline
            time.sleep(0.01)


def until_b(process: subprocess.Popen[str], cwd: Path) -> int:
    """Waits until the first photo is done and the second begun; returns what it waits for."""
    assert process.stdout is not None
    assert process.stdout.readline().startswith("a.rmeta: ")
    writer = held_open(cwd)
    time.sleep(0.5)  # the reader may have been who reads ahead
    return writer


pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="has no /proc")


@pytest.mark.parametrize(
    ("number", "all_of_them", "word"),
    [(signal.SIGINT, True, "interrupted"), (signal.SIGTERM, False, "terminated")],
)
def test_an_interruption_names_what_is_left_and_a_second_run_does_it(
    stuck: Path, pair: Path, number: signal.Signals, all_of_them: bool, word: str
) -> None:
    arguments = ("encode", "-r", ".", "--jobs", "1", *TONE)
    process = started(*arguments, cwd=stuck, start_new_session=True)
    writer = until_b(process, stuck)
    # a terminal's signal reaches every process of the command
    (os.killpg if all_of_them else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 128 + number
    assert err.splitlines() == [
        "b.dng: is left undone; run the same command again",
        "c.dng: is left undone; run the same command again",
        f"rawcodec: {word}",
    ]
    assert re.fullmatch(r"1 done, 2 left, \d+\.\d s\n", out)
    (stuck / "b.dng").unlink()
    (stuck / "fifo").unlink()
    shutil.copyfile(pair / "p.dng", stuck / "b.dng")
    assert statuses(*arguments, "--skip-existing", cwd=stuck) == {
        "a.dng": "skipped",
        "b.dng": "done",
        "c.dng": "done",
    }
    assert not list(stuck.glob(".*"))


def test_an_interruption_leaves_no_partial_file(folder: Folder) -> None:
    cwd = folder("a.dng", "a.jpg")
    process = started("encode", "-r", ".", "--quality", "low", cwd=cwd, start_new_session=True)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in cwd.glob(".rawcodec-*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, sorted(contents(cwd))) == (130, ["a.dng", "a.jpg"])
    assert "a.dng: is left undone" in err
    assert out.startswith("1 left, ")


def test_a_process_that_is_killed_fails_its_photo_alone(stuck: Path) -> None:
    process = started("encode", "-r", ".", "--jobs", "1", *TONE, cwd=stuck)
    writer = until_b(process, stuck)
    (worker,) = workers(process)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    os.close(writer)
    assert process.returncode == 1
    assert err == (
        "b.dng: the process that worked on it was killed (signal 9), for want of memory perhaps; "
        "try fewer --jobs\n"
    )
    assert out.startswith("c.rmeta: ")
    assert re.search(r"\n2 done, 1 failed, \d+\.\d s\n$", out)


def test_no_process_outlives_a_command_that_is_killed(stuck: Path) -> None:
    process = started("encode", "-r", ".", "--jobs", "1", *TONE, cwd=stuck)
    writer = until_b(process, stuck)
    (worker,) = workers(process)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(writer)
    assert not list(stuck.glob(".*"))
