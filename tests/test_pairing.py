"""Which files belong together, and lists of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawcodec.batch.sources import read_pairs
from rawcodec.errors import RawcodecError, RawError
from rawcodec.pairing import RAW_SUFFIXES, jpeg_beside, pair


def paths(names: str) -> list[Path]:
    return [Path("in", name) for name in names.split()]


@pytest.mark.parametrize(
    ("raws", "jpegs", "pairs", "lone", "left", "ambiguous"),
    [
        ("IMG_1.DNG", "img_1.jpg", ["IMG_1.DNG img_1.jpg"], "", "", []),
        ("a.dng b.dng", "b.jpg c.jpg", ["b.dng b.jpg"], "a.dng", "c.jpg", []),
        ("a.dng", "a.jpg A.jpg", ["a.dng a.jpg"], "", "A.jpg", []),
        ("a.dng A.dng", "a.jpg A.jpg", ["A.dng A.jpg", "a.dng a.jpg"], "", "", []),
        ("a.dng", "a.jpg a.JPG", [], "", "", ["a.JPG a.dng a.jpg"]),
        ("a.dng a.nef", "a.jpg", [], "", "", ["a.dng a.jpg a.nef"]),
        ("ab.dng", "Ab.jpg AB.jpg", [], "", "", ["AB.jpg Ab.jpg ab.dng"]),
        ("a.b.dng", "a.jpg a.b.c.jpg", [], "a.b.dng", "a.jpg a.b.c.jpg", []),
        ("STRASSE.dng", "straße.jpg", ["STRASSE.dng straße.jpg"], "", "", []),
        (".dng", ".jpg", [], ".dng", ".jpg", []),
    ],
)
def test_pairs(
    raws: str, jpegs: str, pairs: list[str], lone: str, left: str, ambiguous: list[str]
) -> None:
    for order in (1, -1):
        found = pair(paths(raws)[::order], paths(jpegs)[::order])
        assert found.pairs == [tuple(paths(each)) for each in pairs]
        assert (found.lone, sorted(found.jpegs)) == (paths(lone), sorted(paths(left)))
        assert found.ambiguous == [paths(each) for each in ambiguous]


def test_the_jpeg_beside_is_found_in_any_case_of_letters(tmp_path: Path) -> None:
    raw = tmp_path / "IMG_1.DNG"
    for name in (raw.name, "img_1.jpg", "img_10.jpg", "img_1.png"):
        (tmp_path / name).touch()
    assert jpeg_beside(raw, RawError, "name it") == tmp_path / "img_1.jpg"
    (tmp_path / "IMG_1.jpeg").touch()
    assert jpeg_beside(raw, RawError, "name it") == tmp_path / "IMG_1.jpeg"
    (tmp_path / "IMG_1.JPG").touch()
    with pytest.raises(RawError, match=r"IMG_1\.JPG and IMG_1\.jpeg and img_1\.jpg lie beside it"):
        jpeg_beside(raw, RawError, "name it")


def test_raws_are_known_by_their_endings() -> None:
    assert {".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".rw2", ".orf", ".3fr"} <= RAW_SUFFIXES
    assert not {".jpg", ".tif", ".tiff", ".rmeta", ".png", ""} & RAW_SUFFIXES


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"", []),
        (b"a b", [("a", "b")]),
        (b"a\tb\n\nc d\te f\r\n", [("a", "b"), ("c d", "e f")]),
        (b"a\0b\0", [("a", "b")]),
        (b"a \t\n\0b\0c\0d", [("a \t\n", "b"), ("c", "d")]),
        (b"\xff.dng\t\xc3\xa9.jpg\n", [("\udcff.dng", "é.jpg")]),
    ],
)
def test_lists(data: bytes, pairs: list[tuple[str, str]]) -> None:
    assert read_pairs(data, "list") == [(Path(raw), Path(jpeg)) for raw, jpeg in pairs]


@pytest.mark.parametrize(
    "data", [b"a", b"a b c", b"a\tb\tc", b"a\t", b" a", b"a\0", b"a\0b\0c\0", b"a\0\0", b"\0b\0"]
)
def test_lists_that_say_too_much_or_too_little(data: bytes) -> None:
    with pytest.raises(RawcodecError, match=r"\Alist: [^\n]+; [^\n]+\Z"):
        read_pairs(data, "list")
