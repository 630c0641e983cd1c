"""The comparison of systems: what it measures, keeps and prints."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(ROOT))  # ``examples`` is not installed

imagecodecs = pytest.importorskip("imagecodecs", reason="the extra benchmark is not installed")
pytest.importorskip("matplotlib", reason="the extra benchmark is not installed")

from examples.baselines import lineup  # noqa: E402
from examples.baselines.interface import WHITE  # noqa: E402
from examples.baselines.lineup import Entry  # noqa: E402
from examples.baselines.protocol import Photo, read_photo, render, save  # noqa: E402
from examples.baselines.r2lcm import R2LCM  # noqa: E402
from examples.benchmark import (  # noqa: E402
    paper,
    paper_cost,
    paper_entropy,
    paper_figures,
    paper_orders,
    paper_sooner,
)
from examples.benchmark.curves import Point, bpp_at  # noqa: E402
from examples.benchmark.measured import Measured, Result, means, run  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.weights import folder  # noqa: E402

BUNDLED = Pair("photo", "rt", EXAMPLES / "photo.dng", EXAMPLES / "photo.jpg")
HEIGHT, WIDTH = 192, 288
MEASURED = {
    "tone + JPEG 2000, +6 dB",
    "JPEG XL alone, distance 2",
    "JPEG XL alone, distance 0.5",
    "JPEG XL, lossless",
    "rawcodec, tone",
    "rawcodec, medium",
    "rawcodec, max",
}


@pytest.fixture
def photo() -> Photo:
    """The bundled photo, reduced to 192 x 288."""
    whole = read_photo(EXAMPLES / "photo.dng", "photo", 3)
    raw = np.ascontiguousarray(whole.raw[:HEIGHT, :WIDTH])
    return Photo("photo", raw, whole.gains, whole.to_srgb)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """R2LCM with fresh weights, in the place of trained ones."""
    for weight in ("0.05", "0.5"):
        run_ = tmp_path / "runs" / f"r2lcm-{weight}"
        run_.mkdir(parents=True)
        R2LCM().save(run_ / "weights.safetensors")
    return tmp_path / "runs"


class Halved:
    """Keeps the high bytes of all samples."""

    name = "halved"
    encoded = 0

    def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
        assert picture[:4] == b"\x89PNG"
        type(self).encoded += 1
        return raw.shape[1].to_bytes(2, "big") + (raw >> 8).astype(np.uint8).tobytes()

    def decode(self, data: bytes, picture: bytes) -> np.ndarray:
        assert picture[:4] == b"\x89PNG"
        high = np.frombuffer(data, np.uint8, offset=2).astype(np.uint16)
        return (high << 8 | 128).reshape(-1, int.from_bytes(data[:2], "big"), 3)


def test_a_result_is_kept_until_what_made_it_changes(photo: Photo, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("1")
    kept = tmp_path / "work" / "paper.jsonl"

    def encoded() -> int:
        before = Halved.encoded
        entry = Entry("halved", "", Halved, (source,))
        (found,) = Measured(kept).measure([entry], [photo], ["png"])
        assert found.size == 2 + 3 * HEIGHT * WIDTH
        assert found.bpp == pytest.approx(24 + 16 / HEIGHT / WIDTH)
        assert found.total == pytest.approx(found.bpp + 8 * found.shown / HEIGHT / WIDTH)
        # errors are spread evenly over 256 values
        assert found.psnr == pytest.approx(20 * np.log10(WHITE / 256 * 12**0.5), abs=0.5)
        assert 0.9 < found.ssim < 1
        return Halved.encoded - before

    assert encoded() == 1
    assert encoded() == 0
    lineup._hashed.cache_clear()
    source.write_text("2")
    assert encoded() == 1
    photo.raw[0, 0] ^= 1
    assert encoded() == 1


def test_a_system_without_picture_is_measured_once(photo: Photo, tmp_path: Path) -> None:
    class Blind(Halved):
        def encode(self, raw: np.ndarray, picture: bytes) -> bytes:
            return super().encode(raw, picture or b"\x89PNG")

        def decode(self, data: bytes, picture: bytes) -> np.ndarray:
            return super().decode(data, picture or b"\x89PNG")

    entry = Entry("blind", "", Blind, (), guided=False)
    found = Measured(tmp_path / "paper.jsonl").measure([entry], [photo], ["png", "90"])
    assert [r.picture for r in found] == [""]


def test_a_missing_run_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"baselines train invisp --frames FRAMES --run"):
        lineup.lineup(tmp_path)


def test_the_rate_of_a_psnr() -> None:
    line = [Point(0.1, 40.0), Point(0.4, 44.0), Point(1.6, 48.0)]
    assert bpp_at(line, 42.0) == pytest.approx(0.2)
    assert bpp_at(line, 39.9) is None
    assert bpp_at([Point(0.1, 40.0), Point(0.4, 40.0)], 40.0) is None


def test_a_point_is_compared_with_a_curve() -> None:
    line = paper.front([Point(0.4, 44.0), Point(0.1, 40.0), Point(0.5, 43.0), Point(1.6, 48.0)])
    assert line == [Point(0.1, 40.0), Point(0.4, 44.0), Point(1.6, 48.0)]
    assert paper.gain(line, Point(0.4, 41.0)) == (pytest.approx(3), True)
    assert paper.share(line, Point(0.8, 44.0)) == (pytest.approx(0.5), True)
    # a rival that takes more than the largest, or is worse than the smallest
    assert paper.gain(line, Point(5.0, 41.0)) == (7.0, False)
    assert paper.share(line, Point(0.5, 30.0)) == (pytest.approx(0.2), False)
    # one that takes less than the smallest, or is better than the largest
    assert paper.gain(line, Point(0.01, 30.0)) is None
    assert paper.gain(line, Point(5.0, 49.0)) is None
    assert paper.share(line, Point(0.01, 30.0)) is None
    assert paper.share(line, Point(5.0, 60.0)) is None
    assert paper.gain([], Point(1.0, 40.0)) is paper.share([], Point(1.0, 40.0)) is None


def test_it_is_told_who_is_ahead() -> None:
    line = [Point(0.1, 40.0), Point(0.4, 44.0)]
    points = {
        (0.2, 41.0): "ours",
        (0.2, 43.0): "theirs",
        (0.9, 43.0): "ours",
        (0.9, 45.0): "neither",
        (0.05, 39.0): "neither",
        (0.05, 40.0): "theirs",
    }
    for point, ahead in points.items():
        assert paper.outcome(line, Point(*point)) == ahead


def test_a_mean_says_what_it_is_of() -> None:
    assert paper._mean(">{:+.2f}", [(1.0, True), (2.0, True)]) == "+1.50"
    assert paper._mean(">{:+.2f}", [(1.0, True), (2.0, False), None]) == ">+1.50 (2 of 3)"
    assert paper._mean("<{:.0%}", [None]) == "n/a"


def result(name: str, picture: str, psnr: float, size: int, photo: str = "a") -> Result:
    """A made-up result. name: "rival", or a setting of rawcodec."""
    group, setting = (name, "") if name == "rival" else (lineup.OURS, name)
    return Result(photo, picture, group, setting, size, 500, 1000, psnr, 1.0, 9.0, 9.0)


def rows(results: list[Result], seconds: dict[str, float]) -> list[list[str]]:
    """The cells of the table of made-up results. seconds: by the names of ``result``."""
    named = {n if n == "rival" else lineup.named(lineup.OURS, n): s for n, s in seconds.items()}
    settings = [n for n in seconds if n != "rival"]
    (text,) = paper_sooner.sooner(results, named, ["rival"], settings, "low")[2:]
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_the_quickest_setting_that_is_ahead_everywhere_is_taken() -> None:
    """``tone`` loses one case, and ``low`` is slower than ``medium``."""
    results = [
        *(result("rival", picture, 40.0, 100) for picture in ("png", "90")),
        *(result("tone", picture, psnr, 10) for picture, psnr in (("png", 39.9), ("90", 50.0))),
        *(result("low", picture, 41.0, 50) for picture in ("png", "90")),
        *(result("medium", picture, 42.0, size) for picture, size in (("png", 99), ("90", 100))),
    ]
    seconds = {"rival": 30.0, "tone": 2.0, "low": 20.0, "medium": 12.0}
    assert rows(results, seconds) == [["rival", "30.0", "`medium`", "12.0", "2.5", "1 of 2", "1.5"]]
    seconds["low"] = 10.0
    assert rows(results, seconds) == [["rival", "30.0", "`low`", "10.0", "3.0", "2 of 2", "3.0"]]


def test_a_rival_may_be_quicker() -> None:
    results = [result("rival", "90", 30.0, 5), result("low", "90", 31.0, 5)]
    assert rows(results, {"rival": 4.0, "low": 10.0}) == [
        ["rival", "4.0", "`low`", "10.0", "0.4", "0 of 1", "0.4"]
    ]


def test_it_is_said_where_no_setting_is_ahead_everywhere() -> None:
    """As good is not ahead; of those that are ahead as often, the quickest is named."""
    results = [
        *(result("rival", "90", 40.0, 100, photo) for photo in "abc"),
        *(result("tone", "90", 41.0 if photo == "a" else 39.0, 1, photo) for photo in "abc"),
        *(result("low", "90", 40.0 if photo == "a" else 45.0, 1, photo) for photo in "abc"),
        *(result("medium", "90", 40.0 if photo == "b" else 45.0, 1, photo) for photo in "abc"),
    ]
    seconds = {"rival": 5.0, "tone": 1.0, "low": 10.0, "medium": 8.0}
    (found,) = rows(results, seconds)
    assert found == ["rival", "5.0", "none: ahead in 2 of 3 at `medium`", "", "", "", "0.5"]


def test_cases_are_those_that_both_were_measured_in() -> None:
    """A photo with another picture is another case."""
    results = [
        result("rival", "90", 40.0, 100),
        result("rival", "10", 40.0, 100),
        result("low", "90", 41.0, 99),
        result("low", "png", 30.0, 100),
        result("low", "10", 30.0, 100, photo="b"),
    ]
    assert paper_sooner.duel(results, "rawcodec, low", "rival") == paper_sooner.Duel(1, 1, 1)
    nothing = paper_sooner.duel(results, "rawcodec, tone", "rival")
    assert not nothing.won


def test_the_cost_of_a_setting_without_network(
    photo: Photo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is measured like others, codes nothing with the tables, and is kept."""
    monkeypatch.setattr(paper_cost, "PART", {"rawcodec, tone": 2})
    monkeypatch.setattr(paper_cost, "HEIGHT", HEIGHT)
    entries = {e.name: e for e in lineup._ours(tmp_path)}
    tone, low = (entries[f"rawcodec, {setting}"] for setting in ("tone", "low"))
    picture = paper_cost._picture_of(photo)
    kept = tmp_path / "cost.jsonl"
    found = paper_cost._cost(tone, photo, picture, kept)
    stored = json.loads(kept.read_text())
    assert found.encode == 2 * stored["encode"] > 0
    assert found.both == 2 * (stored["encode"] + stored["decode"])
    assert found.encode_coding == found.decode_coding == 0
    assert paper_cost._cost(tone, photo, picture, kept) == found
    assert paper_cost._row(tone.make(), found)[1:3] == ["none", ""]
    assert re.fullmatch(r"0\.\d+ M", paper_cost.size_of(low.make())[0])


@pytest.mark.slow
def test_all_of_the_page(
    photo: Photo, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is of what was run; the pictures are there."""
    monkeypatch.setattr(paper, "PICTURES", ("10",))
    monkeypatch.setattr(paper, "DRAWN", ("10",))
    monkeypatch.setattr(paper, "NAMES", {p: paper.NAMES[p] for p in ("10",)})
    monkeypatch.setattr(paper, "photos", lambda _: [photo])
    monkeypatch.setattr(paper, "_training", lambda _: [])
    monkeypatch.setattr(paper_cost, "HEIGHT", HEIGHT + 16)
    monkeypatch.setattr(paper_cost, "WIDTH", WIDTH)
    monkeypatch.setattr(paper_cost, "RIVALS", ("R2LCM, 0.05",))
    monkeypatch.setattr(paper_cost, "SETTINGS", ("tone", "medium"))
    monkeypatch.setattr(paper_cost, "BASE", "medium")
    monkeypatch.setattr(paper_figures, "SHOWN", ("R2LCM, 0.5", "rawcodec, medium"))
    weights = {w: runs / f"r2lcm-{w}" / "weights.safetensors" for w in ("0.05", "0.5")}
    entries = [
        *(Entry("R2LCM", w, partial(R2LCM, path), (path,)) for w, path in weights.items()),
        *(e for e in (*lineup._classical(), *lineup._ours(runs)) if e.name in MEASURED),
    ]
    for module in (paper, paper_figures):
        monkeypatch.setattr(module, "lineup", lambda _: entries)
    paper.run_all([BUNDLED], runs, tmp_path / "out", tmp_path / "work")
    text = (tmp_path / "out" / "paper.md").read_text()
    results = [
        json.loads(line) for line in (tmp_path / "work" / "paper.jsonl").read_text().splitlines()
    ]
    for result in results:
        name = f"{result['group']}, {result['setting']}" if result["setting"] else result["group"]
        bpp = f"{8 * result['size'] / HEIGHT / WIDTH:.4g}"
        assert f"| {name} | {bpp} | {result['psnr']:.2f} | {result['ssim']:.4f} |" in text
    assert {r["picture"] for r in results} == {"10", ""}
    for order in paper_orders.ORDERS:
        assert re.search(rf"^\| {order} \| \d", text, re.MULTILINE)
    for name in ("R2LCM, 0.05", "rawcodec, medium", "R2LCM, serial"):
        assert re.search(rf"^\| {name} \| 0\.\d+ M \| \d", text, re.MULTILINE)
    # weights that know nothing: the tone layer is ahead of them
    assert re.search(r"^\| R2LCM, 0.05 \| \d.* \| `tone` \| \d.* \| 1 of 1 \|", text, re.MULTILINE)
    ours = re.search(r"JPEG XL alone, distance 0.5 \|.*\| >?([+-]\d+\.\d+) \| <?\d+% \|", text)
    assert ours is not None
    for picture in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (tmp_path / "out" / picture).stat().st_size > 5000


@pytest.mark.slow
def test_what_is_coded_is_counted() -> None:
    """Both directions code the same symbols, whatever the number of threads."""
    found = [part for threads in (1, 2) for part in paper_entropy.measure(BUNDLED, "low", threads)]
    assert len({part.symbols for part in found}) == 1
    assert found[0].symbols > 1000
    assert all(0 < part.coding < part.whole for part in found)


def test_weights_in_the_place_of_the_installed_ones(photo: Photo, tmp_path: Path) -> None:
    """Those of a folder are taken, or missed."""
    for file in folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ours = {e.name: e for e in lineup._ours(tmp_path / "none")}["rawcodec, low"]
    (tmp_path / lineup.LITTLE_RUN).symlink_to(tmp_path)
    theirs = {e.name: e for e in lineup._ours(tmp_path)}["rawcodec, as little training, low"]
    picture = save(render(photo.raw, photo.gains, photo.to_srgb), "90")
    one, other = (run(entry, photo, "90", picture) for entry in (ours, theirs))
    assert (one.size, one.psnr) == (other.size, other.psnr)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    with pytest.raises(Exception, match="cannot be read"):
        run(theirs, photo, "90", picture)


def test_means_are_over_photos() -> None:
    small = Result("a", "90", "x", "", 100, 50, 800, 40.0, 1.0, 0.0, 0.0)
    large = Result("b", "90", "x", "", 200, 50, 400, 50.0, 1.0, 0.0, 0.0)
    assert means([small, large]) == [Point(2.5, 45.0)]
    assert means([small, large], whole=True) == [Point(3.25, 45.0)]


def test_quantisation_loses_the_least_where_it_is_dark(photo: Photo) -> None:
    error = paper_figures.quantisation_error(photo)
    assert error.shape == (HEIGHT, WIDTH)
    shown = render(photo.raw, photo.gains, photo.to_srgb).max(2)
    dark, light = shown < 40, (shown > 150) & (shown < 250)
    assert error[dark].mean() < 0.5 * error[light].mean()
    assert error[~(shown > 250)].max() < 0.01
