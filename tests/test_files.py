"""Output files: whole or not there, never in place of another, one clear line."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rawcodec.errors import OutputError
from rawcodec.files import check_target, new_file

TOO_LONG = "x" * 300


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with new_file(path, force=False) as file:
        file.write(b"hello")
        assert not path.exists()
        assert file.read_back() == b"hello"
    assert path.read_bytes() == b"hello"
    assert names(tmp_path) == ["out"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "out", force=False) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_left_after_a_failure(
    tmp_path: Path, failure: type[BaseException], force: bool
) -> None:
    path = tmp_path / "out"
    if force:
        path.write_bytes(b"old")
    with pytest.raises(failure), new_file(path, force=force) as file:
        file.write(b"half")
        raise failure
    assert names(tmp_path) == (["out"] if force else [])
    assert not force or path.read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="already exists; use --force"),
        new_file(path, force=False) as file,
    ):
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


def test_force_replaces(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    check_target(path, force=True, inputs=())
    with new_file(path, force=True) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_force_replaces_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "file"
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(OutputError, match="already exists"):
        check_target(link, force=False, inputs=())
    with new_file(link, force=True) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_link_that_leads_nowhere_is_not_replaced_without_force(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing")
    with pytest.raises(OutputError, match="already exists"):
        check_target(link, force=False, inputs=())


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "out"
    with new_file(path, force=False) as file:
        file.write(b"first")
    with (
        pytest.raises(OutputError, match="already exists"),
        new_file(tmp_path / "other", force=False) as file,
    ):
        (tmp_path / "other").touch()
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["other", "out"]


def test_an_input_is_never_the_output(tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    source.write_bytes(b"precious")
    hard, soft = tmp_path / "hard", tmp_path / "soft"
    os.link(source, hard)
    soft.symlink_to(source)
    for path in (source, hard, soft, tmp_path / ".." / tmp_path.name / "photo.jpg"):
        with pytest.raises(OutputError, match="is an input itself"):
            check_target(path, force=True, inputs=(tmp_path / "missing", source))


def refused(path: Path, *, force: bool = False) -> str:
    """What both functions say of this target, which has to be the same."""
    with pytest.raises(OutputError) as early:
        check_target(path, force=force, inputs=())
    with pytest.raises(OutputError) as late, new_file(path, force=force):
        pass
    assert str(early.value) == str(late.value)
    return str(early.value)


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing, below = tmp_path / "missing" / "out", tmp_path / "file" / "out"
    assert refused(tmp_path / "file") == (
        f"{tmp_path / 'file'}: already exists; use --force to replace it or -o to name another"
    )
    assert refused(missing).startswith(f"{missing}: the folder {missing.parent} does not exist; ")
    assert refused(below).startswith(f"{below}: {below.parent} is not a folder; ")
    assert refused(tmp_path).startswith(f"{tmp_path}: is a folder; ")
    assert refused(tmp_path, force=True).startswith(f"{tmp_path}: is a folder; ")
    assert "the name is too long" in refused(tmp_path / TOO_LONG)
    assert names(tmp_path) == ["file"]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(os.devnull)
    for path in (pipe, tmp_path / "link", Path(os.devnull)):
        assert "not an ordinary file" in refused(path, force=True)
        assert "already exists" in refused(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert "is not writable" in refused(tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EDQUOT, "the disk is full; make room"),
        (errno.EROFS, "is not writable"),
        (errno.EIO, "cannot be written (Input/output error)"),
    ],
)
def test_a_failing_write_is_one_line(tmp_path: Path, code: int, text: str) -> None:
    path = tmp_path / "out"
    with pytest.raises(OutputError) as raised, new_file(path, force=False) as file:
        file.write(b"half")
        raise OSError(code, os.strerror(code))
    assert str(raised.value).startswith(f"{path}: ")
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == []


def test_an_error_of_another_file_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "out", force=False):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []


def test_numpy_cannot_write_around_the_file(tmp_path: Path) -> None:
    with new_file(tmp_path / "out", force=False) as file, pytest.raises(io.UnsupportedOperation):
        np.zeros(4).tofile(file)


# In a file system of 64 KB of its own, which needs no privileges where the
# kernel lets anybody have a user namespace.
FULL_DISK = """
import sys
from pathlib import Path
from rawcodec.errors import OutputError
from rawcodec.files import new_file
try:
    with new_file(Path(sys.argv[1], "out"), force=False) as file:
        file.write(bytes(1 << 20))
except OutputError as error:
    print(error, sorted(Path(sys.argv[1]).iterdir()))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=64k none '{tmp_path}' && "
    probe = subprocess.run([*namespace, "sh", "-c", mount + "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("no file system can be mounted here")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(
        [*namespace, "sh", "-c", mount + 'exec "$@"', "-", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    full = "the disk is full; make room or name another output with -o"
    assert done.stdout == f"{tmp_path / 'out'}: {full} []\n"
