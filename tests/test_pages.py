"""The pages about order, filters and size that the benchmark writes, made of one small photo."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from test_learned import crop_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

import rawcodec  # noqa: E402
from examples.benchmark import ahead, dng, folders, gap, geometry, order, spaces, target  # noqa: E402
from examples.benchmark.classical import Kept, Variant  # noqa: E402
from examples.benchmark.curves import Point  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.errors import RawcodecError  # noqa: E402
from rawcodec.model.latents import PlaneCodec  # noqa: E402
from rawcodec.photo.raw import read_raw  # noqa: E402

PHOTO, JPEG = ROOT / "examples" / "photo.dng", ROOT / "examples" / "photo.jpg"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A quarter of the bundled photo."""
    return Pair("photo", "rt", *crop_of(tmp_path_factory.mktemp("pair"), 150, 200, 580, 860))


@pytest.mark.parametrize(
    ("name", "first"), [("random", 0.5), ("chessboard", 0.5), ("one step", 1.0)]
)
def test_an_order_decides_about_every_quad(name: str, first: float) -> None:
    choose = order.ORDERS[name]
    assert choose is not None
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 64, 64)))
    chosen = choose(noise, 130, 70)
    assert chosen.shape == (130, 70)
    assert set(np.unique(chosen)) <= {0, 1}
    assert (chosen == 0).mean() == pytest.approx(first, abs=0.03)


@pytest.mark.slow
def test_other_orders_are_read_back_too(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    """The encoder checks what it wrote with the same order, and no order is that of the codec."""
    usual = rawcodec.encode(pair.raw, pair.jpeg, quality="low")
    monkeypatch.setattr(PlaneCodec, "know", order.ordered(order.ORDERS["learned"]))
    assert rawcodec.encode(pair.raw, pair.jpeg, quality="low", verify=False) == usual
    monkeypatch.undo()
    for name in ("random", "chessboard", "one step"):
        with monkeypatch.context() as patched:
            patched.setattr(PlaneCodec, "know", order.ordered(order.ORDERS[name]))
            other = rawcodec.encode(pair.raw, pair.jpeg, quality="low")
        assert other != usual
        with pytest.raises(RawcodecError):
            rawcodec.decode(pair.jpeg, other)


@pytest.mark.slow
def test_the_page_of_orders_has_every_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Pair
) -> None:
    monkeypatch.setattr(order, "QUALITIES", ("low",))
    order.run_all([pair], tmp_path)
    (row,) = re.findall(r"^\| photo \| RawTherapee \| `low` \|(.*)\|$", *read(tmp_path, "order.md"))
    bits = [float(cell.split("/")[0]) for cell in row.split("|")]
    assert len(bits) == len(order.ORDERS)
    assert max(bits) < 1.2 * min(bits)
    learned = rawcodec.inspect(
        rawcodec.encode(pair.raw, pair.jpeg, quality="low", verify=False)
    ).bpp
    assert bits[0] == pytest.approx(learned, abs=1e-4)


def test_the_page_of_dngs_renders_what_decode_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Pair
) -> None:
    monkeypatch.setattr(dng, "QUALITY", "low")
    with pytest.raises(FileNotFoundError, match="nothing-of-the-kind: not installed"):
        monkeypatch.setattr(dng, "NEEDED", ("nothing-of-the-kind",))
        dng.run_all([pair], tmp_path, tmp_path)
    monkeypatch.setattr(dng, "NEEDED", ())
    monkeypatch.setattr(dng, "_warnings", lambda path: 7 if path.name == "decoded.dng" else 5)
    monkeypatch.setattr(dng, "renderers", lambda _: {"LibRaw": dng._libraw})
    dng.run_all([pair], tmp_path, tmp_path)
    (text, flags) = read(tmp_path, "dng.md")
    (sizes,) = re.findall(r"^\| photo \| (\d.*) \| 5 \| 7 \|$", text, flags)
    _, packed, plain, sidecar, tags = (float(n.replace(",", "")) for n in sizes.split("|"))
    assert packed < plain
    assert 50 < tags < sidecar
    (psnr,) = re.findall(r"^\| photo \| LibRaw \| the same \| (.*) \|$", text, flags)
    assert 25 < float(psnr) < 60


def test_the_space_of_a_jpeg_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bundled photo: nowhere 1.5 dB, in what the tone layer makes of renderings as wide."""
    monkeypatch.setattr(spaces, "QUALITIES", ("tone",))
    spaces.run_all([Pair("photo", "rt", PHOTO, JPEG)], tmp_path, tmp_path)
    (text, flags) = read(tmp_path, "spaces.md")
    found = re.findall(r"^\| photo \| (.*) \| (.*) / (.*) \|$", text, flags)
    assert [space for space, *_ in found] == list(spaces.SPACES)
    psnrs = [float(psnr) for *_, psnr in found]
    assert all(abs(psnr - psnrs[0]) < 1.5 for psnr in psnrs)
    assert len(set(psnrs)) == len(psnrs)


def test_renderings_are_compared() -> None:
    one = np.zeros((4, 5, 3), np.uint8)
    other = one.copy()
    other[0, 0] = 3
    assert dng.kept(one, one) == "the same"
    assert dng.kept(one, other) == "3 of 255 at most, in 0.05 of the values"
    assert dng.kept(one, one[:, :4]) == "5x4 and 4x4 pixels"
    assert dng.psnr(one, other) == pytest.approx(10 * np.log10(255**2 / (9 / 20)))


@pytest.mark.slow
def test_the_page_of_filters_has_every_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Pair
) -> None:
    """Each differs from the one before, and the last is the codec as it is."""
    monkeypatch.setattr(ahead, "QUALITIES", ("high",))
    ahead.run_all([pair], tmp_path)
    (text, flags) = read(tmp_path, "ahead.md")
    (row,) = re.findall(r"^\| photo \| RawTherapee \| `high` \|(.*)\|$", text, flags)
    found = [cell.strip() for cell in row.split("|")]
    assert len(set(found)) == len(found) == len(ahead.WAYS)
    usual = rawcodec.inspect(rawcodec.encode(pair.raw, pair.jpeg, quality="high", verify=False))
    assert found[-1] == f"{usual.bpp:.4f} / {usual.psnr_db:.2f}"
    assert "against none: grids " in text
    assert "; and the filter after " in text


@pytest.mark.slow
def test_the_page_of_sizes_tells_what_was_measured_and_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Pair
) -> None:
    monkeypatch.setattr(target, "TARGETS", {0.0001: "tone", 0.3: "medium"})
    target.run_all([pair], tmp_path, tmp_path)
    (text, _) = read(tmp_path, "target.md")
    assert text.count("refused: ") == 2
    assert "Of 1 encodings with `--bpp`" in text
    rows = re.findall(r"`(--\S+) (\S+)` \| (\S+)% \| (\S+) \|", text)
    assert [option for option, *_ in rows] == ["--bpp", "--max-bytes"]
    assert abs(float(rows[0][2])) < 5
    assert float(rows[1][2]) <= 0  # never exceeded
    assert all(0 < float(row[3]) < 10 for row in rows)
    assert f"the farthest is {abs(float(rows[0][2])):.1f}% off" in text


@pytest.mark.slow
def test_the_page_of_the_gap_codes_frames_as_photos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A frame that is the bundled photo comes out like it; it has no tags for a DNG."""
    monkeypatch.setattr(gap, "QUALITIES", ("tone", "low", "high"))
    mosaic = read_raw(PHOTO).mosaic
    sensor, frame = mosaic.sensor, tmp_path / "frame-00000"
    frame.mkdir()
    np.save(frame / "samples.npy", mosaic.samples)
    shutil.copy(JPEG, frame / "photo.jpg")
    size = {"width": sensor.width, "height": sensor.height}
    levels = {"cfa": sensor.cfa, "black": sensor.black, "white": sensor.white}
    meta = size | levels | {"kind": "bayer", "iso": 100.0}
    (frame / "meta.json").write_text(json.dumps(meta))
    yardstick = [Point(0.01, 40.0), Point(4.0, 60.0)]
    asked = []

    def measure(_: Kept, *of: object) -> object:
        asked.append(of)
        return {}, Variant(), yardstick

    monkeypatch.setattr(Kept, "measure", measure)
    gap.run_all([frame], tmp_path, tmp_path)
    (text, _) = read(tmp_path, "gap.md")
    ((bpp, psnr), _) = re.findall(r"([\d.]+) / ([\d.]+) \|", text)
    info = rawcodec.inspect(rawcodec.encode(PHOTO, JPEG, quality="low", verify=False))
    assert float(bpp) == pytest.approx(info.bpp, abs=2e-3)
    assert psnr == f"{info.psnr_db:.2f}"
    tone = rawcodec.encode(PHOTO, JPEG, quality="tone")
    ((name, samples, prediction, tone_bpp),) = asked
    assert name == "frame-00000"
    assert np.array_equal(samples.samples, mosaic.samples)  # type: ignore[attr-defined]
    assert np.array_equal(prediction, rawcodec.decode(JPEG, tone).samples)  # type: ignore[arg-type]
    assert tone_bpp == pytest.approx(rawcodec.inspect(tone).bpp, abs=2e-3)


def read(folder: Path, name: str) -> tuple[str, int]:
    """A page, and the flags that patterns are looked for with."""
    return (folder / name).read_text(encoding="utf-8"), re.MULTILINE


def test_the_cases_of_geometry_are_what_their_profiles_say() -> None:
    """A crop lies in the frame and has its share of it; darktable's numbers have their lengths."""
    assert len({(photo, program, edit.name) for photo, program, edit in geometry.CASES}) >= 12
    assert set(geometry.CODED) <= set(geometry.CASES)
    for _, program, edit in geometry.CASES:
        profile = configparser.ConfigParser()
        profile.read_string(geometry.rawtherapee_profile(edit, (1000, 600)))
        assert profile.has_section("Distortion") == bool(edit.amount)
        if edit.crop:
            x, y, w, h = (profile.getint("Crop", key) for key in "XYWH")
            assert x >= 0 and y >= 0 and x + w <= 1000 and y + h <= 600
            assert w * h / 600000 == pytest.approx(edit.crop[0], abs=0.01)
        if program == "dt":
            history = geometry.darktable_history(edit)
            ElementTree.fromstring(history.split("\n", 1)[1])
            sizes = [len(n) // 2 for n in re.findall(r'darktable:params="([0-9a-f]*)"', history)]
            bent = edit.degrees or any(edit.tilt)
            assert sizes == [892] * bool(bent) + [24] * bool(edit.crop)


@pytest.mark.slow
def test_the_page_of_folders_has_every_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Pair
) -> None:
    monkeypatch.setattr(folders, "LEAST_SITES", 1)
    folders.run_all([pair, replace(pair, program="dt")], tmp_path, tmp_path, 2)
    (text, flags) = read(tmp_path, "folders.md")
    numbers = r"([\d.]+)"
    rows = re.findall(rf"^\| `(\w+)` \| {numbers} \| {numbers} \| {numbers} \|", text, flags)
    assert [command for command, *_ in rows] == ["encode", "decode"] * 2
    for _, alone, together, ratio in rows:
        assert float(ratio) == pytest.approx(float(alone) / float(together), rel=0.02)


def test_a_folder_counts_by_the_median_of_its_rounds() -> None:
    rounds = [
        folders.Round(command, alone, 10, 20, 18)
        for command in ("encode", "decode")
        for alone in (9, 14, 15)
    ]
    text = folders.write(rounds, ["a", "b"])
    assert "`encode` 1.40 times (1.3: yes); `decode` 1.40 times (1.3: yes)." in text
    rounds[0] = rounds[1] = folders.Round("encode", 12, 10, 20, 18)
    assert "`encode` 1.20 times (1.3: **NO**); `decode` 1.40" in folders.write(rounds, ["a"])
