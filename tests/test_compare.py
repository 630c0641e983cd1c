"""``rawcodec compare``: how far what comes back of a raw is from it."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dng import XTRANS
from PIL import Image
from test_cli import names, rawcodec_, refused

import rawcodec
from rawcodec.comparison import STOPS, compare, error_sites
from rawcodec.errors import RawcodecError
from rawcodec.mosaic import Mosaic, planes
from rawcodec.photo.raw import read_raw
from rawcodec.photo.rendering import Look, cell, cells, reduced
from rawcodec.report.page import level_name
from rawcodec.sensor import Sensor

GOLDEN = Path(__file__).parent / "golden"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A raw with its JPEG and two sidecars: the tone layer alone, and with latents."""
    for name in ("xtrans.dng", "xtrans.jpg", "xtrans.rmeta", "xtrans-max.rmeta"):
        shutil.copy(GOLDEN / name, tmp_path)
    return tmp_path


def pair(sensor: Sensor, seed: int = 0) -> tuple[Mosaic, np.ndarray]:
    """A mosaic of samples of all levels, some below black and above white, and another of it."""
    rng = np.random.default_rng(seed)
    stops = rng.uniform(-STOPS - 2, 0.5, sensor.shape)
    samples = min(sensor.black) + (sensor.white - min(sensor.black)) * 2.0**stops
    samples[rng.random(sensor.shape) < 0.05] = min(sensor.black) - 3
    samples = samples.astype(np.uint16)
    errors = np.rint(rng.normal(1, 20, sensor.shape)).astype(int)
    other = np.clip(samples.astype(int) + errors, 0, 65535).astype(np.uint16)
    return Mosaic(samples, sensor), other


SENSORS = [
    Sensor(37, 23, ("RG", "GB"), (512, 520, 508, 512), 15000),
    Sensor(20, 31, ("G",), (64,), 4095),
    Sensor(18, 12, (), (0, 10, 20), 65535),
]


# The numbers


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.cfa_name)
def test_errors_by_brightness_are_those_of_the_samples(sensor: Sensor) -> None:
    original, other = pair(sensor)
    found = compare(original, other)
    errors = other.astype(float) - original.samples
    linear = np.empty(sensor.shape)
    for _, black, index in planes(sensor):
        linear[index] = (original.samples[index].astype(float) - black) / (sensor.white - black)
    assert sum(level.sites for level in found.levels) == errors.size
    for level in found.levels:
        inside = (linear >= level.low) & (linear < level.high)
        assert level.sites == inside.sum()
        if level.sites:
            assert math.isclose(level.rms, np.sqrt(np.mean(errors[inside] ** 2)))
            assert math.isclose(level.mean, errors[inside].mean(), abs_tol=1e-12)
            assert level.largest == np.abs(errors[inside]).max()
    assert found.max_error == np.abs(errors).max()
    assert math.isclose(found.rms, np.sqrt(np.mean(errors**2)))
    assert found.histogram.sum() == errors.size
    assert found.histogram[0] == (errors == 0).sum()
    assert found.histogram[7] == (np.abs(errors) == 7).sum()
    assert [level.high for level in found.levels[1:]] == [level.low for level in found.levels[:-1]]


def test_equal_mosaics_are_lossless() -> None:
    original, _ = pair(SENSORS[0])
    found = compare(original, original.samples.copy())
    assert found.lossless
    assert found.psnr_db == math.inf
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["psnr_db"] is None


def test_other_sizes_are_refused() -> None:
    original, other = pair(SENSORS[0])
    with pytest.raises(RawcodecError, match=r"^that: has 22x37 samples, and the raw 23x37; "):
        compare(original, other[:-1], "that")


def test_a_site_of_a_linear_raw_has_the_largest_error_of_its_three() -> None:
    original, _ = pair(SENSORS[2])
    other = original.samples.copy()
    other[3, 5, 0] -= 7
    other[3, 5, 2] += 9
    errors = error_sites(original, other)
    assert errors[3, 5] == 9
    assert errors.sum() == 9


def test_ranges_have_names() -> None:
    names_ = [level_name(number, STOPS + 2) for number in range(STOPS + 2)]
    assert names_[:2] == ["white", "0 to 1 stops under white"]
    assert names_[-2:] == ["11 to 12 stops under white", "below 12 stops under white"]


# The pictures


@pytest.mark.parametrize("cfa", [("RG", "GB"), ("GB", "RG"), ("GGRGGB", "GGBGGR", "BRGRBG",
                                  "GGBGGR", "GGRGGB", "RBGBRG"), ("G",), ()])  # fmt: skip
def test_cells_have_the_colours_of_their_sites(cfa: tuple[str, ...]) -> None:
    colour = np.array([0.5, 0.25, 0.125])
    count = 3 if not cfa else len(cfa) * len(cfa[0])
    sensor = Sensor(50, 41, cfa, (100,) * count, 8100)
    samples = np.empty(sensor.shape, np.uint16)
    for channel, black, index in planes(sensor):
        samples[index] = black + 8000 * colour[channel]
    mosaic = Mosaic(samples, sensor)
    expected = colour[[1, 1, 1]] if cfa == ("G",) else colour
    for block in (cell(mosaic), 2 * cell(mosaic)):
        found = cells(mosaic, block)
        assert found.shape == (41 // block, 50 // block, 3)
        assert np.allclose(found, expected)
    assert max(reduced(mosaic, 10).shape[:2]) <= 10


def test_pictures_are_upright(folder: Path) -> None:
    """The raw of the folder is flagged to be turned a quarter clockwise."""
    mosaic = read_raw(folder / "xtrans.dng").mosaic
    assert mosaic.sensor.orientation == 6
    height, width = mosaic.samples.shape
    picture = reduced(mosaic, 100)
    assert picture.shape[0] > picture.shape[1]
    assert width > height
    flat = cells(mosaic, 6)
    turned = reduced(mosaic, max(flat.shape))
    assert np.array_equal(turned, np.rot90(flat, -1))


def test_what_is_saturated_is_white_and_black_is_black() -> None:
    sensor = SENSORS[0]
    samples = np.full(sensor.shape, 512, np.uint16)
    samples[:, ::3] = 15000
    look = Look.of(Mosaic(samples, sensor))
    assert (look.show(np.ones((2, 2, 3))) == 255).all()
    assert (look.show(np.zeros((2, 2, 3))) == 0).all()


def test_a_look_is_of_the_whole_picture() -> None:
    """Of X-Trans, whose cells are of 6 sites, too: what is brightest lies in the last corner."""
    sensor = Sensor(192, 192, XTRANS, (0,) * 36, 10000)
    samples = np.full(sensor.shape, 500, np.uint16)
    samples[160:, 160:] = 4000
    shown = Look.of(Mosaic(samples, sensor)).show(np.array([0.4, 0.4, 0.4]))
    assert (shown == 255).all()
    assert (Look.of(Mosaic(samples, sensor)).show(np.full(3, 0.2)) < 200).all()


# The command


def test_a_sidecar_is_compared_as_it_says_itself(folder: Path) -> None:
    info = rawcodec.inspect(folder / "xtrans-max.rmeta")
    done = rawcodec_("compare", "xtrans.dng", "xtrans.jpg", "xtrans-max.rmeta", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, head, *rows = done.stdout.splitlines()
    assert first.startswith(f"xtrans-max.rmeta: {info.psnr_db:.2f} dB, RMS error ")
    assert first.endswith(f"largest error {info.max_error} DN")
    assert head.split()[:2] == ["brightness", "samples"]
    assert all(
        re.fullmatch(r"  (white|.* stops under white) +\S+% +\S+ +[+-]\S+ +\d+", row)
        for row in rows
    )
    assert len(names(folder)) == 4


def test_a_file_of_the_same_name_is_found(folder: Path) -> None:
    """The JPEG of a sidecar, or the sidecar of a JPEG; in either order if both are named."""
    said = [
        rawcodec_("compare", "xtrans.dng", *files, "--json", cwd=folder).stdout
        for files in (
            ("xtrans.jpg", "xtrans.rmeta"),
            ("xtrans.rmeta", "xtrans.jpg"),
            ("xtrans.rmeta",),
            ("xtrans.jpg",),
        )
    ]
    assert len(set(said)) == 1
    found = json.loads(said[0])
    assert set(found) == {"raw", "other", "psnr_db", "lossless", "max_error", "rms", "levels"}
    assert (found["raw"], found["other"]) == ("xtrans.dng", "xtrans.rmeta")
    assert set(found["levels"][0]) == {"low", "high", "sites", "rms", "mean", "largest"}


@pytest.mark.parametrize("ending", ["tiff", "dng"])
def test_decoded_files_are_compared(folder: Path, ending: str) -> None:
    decoded = rawcodec_("decode", "xtrans.jpg", "xtrans.rmeta", "-o", f"back.{ending}", cwd=folder)
    assert decoded.returncode == 0, decoded.stderr
    one, other = (
        json.loads(rawcodec_("compare", "xtrans.dng", name, "--json", cwd=folder).stdout)
        for name in ("xtrans.rmeta", f"back.{ending}")
    )
    assert {**one, "other": ""} == {**other, "other": ""}
    itself = rawcodec_("compare", f"back.{ending}", f"back.{ending}", cwd=folder)
    if ending == "dng":
        assert itself.stdout == "back.dng: lossless: every sample is that of the raw\n"


def test_what_cannot_be_compared_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("no photo")
    Image.new("I;16", (10, 10)).save(folder / "small.tiff")
    for files in (
        ("missing.dng", "xtrans.rmeta"),
        ("xtrans.dng", "missing.rmeta"),
        ("xtrans.dng", "notes.txt"),
        ("xtrans.dng", "small.tiff"),
        ("xtrans.dng", "xtrans.jpg", "xtrans.jpg"),
        ("xtrans.jpg", "xtrans.rmeta"),
        ("xtrans.dng", "xtrans-max.rmeta"),  # no JPEG of its name
    ):
        refused("compare", *files, cwd=folder)
    refused("compare", "xtrans.dng", cwd=folder, code=2)
    refused("compare", "xtrans.dng", "a", "b", "c", cwd=folder, code=2)
    both = ("--map", "one", "--report", "one")
    refused("compare", "xtrans.dng", "xtrans.rmeta", *both, cwd=folder, code=2)


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "there").write_text("mine")
    for option in ("--map", "--report"):
        for target in ("there", "xtrans.dng", "xtrans.rmeta", "no folder/out"):
            refused("compare", "xtrans.dng", "xtrans.rmeta", option, target, cwd=folder)
        forced = ("--force", option, "there")
        assert (
            rawcodec_("compare", "xtrans.dng", "xtrans.rmeta", *forced, cwd=folder).returncode == 0
        )
        assert (folder / "there").read_bytes() != b"mine"
        (folder / "there").write_text("mine")
        refused(
            "compare", "xtrans.dng", "xtrans.rmeta", "--force", option, "xtrans.dng", cwd=folder
        )


def test_the_map_shows_where_errors_are(folder: Path) -> None:
    done = rawcodec_("compare", "xtrans.dng", "xtrans.rmeta", "--map", "error.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    shown = np.asarray(Image.open(folder / "error.png"))
    mosaic = read_raw(folder / "xtrans.dng").mosaic
    height, width = mosaic.samples.shape
    assert shown.shape[1] == height  # upright
    decoded = rawcodec.decode(folder / "xtrans.jpg", folder / "xtrans.rmeta")
    errors = np.rot90(error_sites(mosaic, decoded.samples), -1)
    place = shown[:width].astype(float)
    order = np.corrcoef(place.ravel(), np.sqrt(errors).ravel())[0, 1]
    assert order > 0.95


# The page


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "src":
                self.sources.append(value or "")
            elif name in ("href", "srcset", "action", "data"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def page_of(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    return page


def test_the_page_needs_nothing_else(folder: Path) -> None:
    name = '<b>&amp; "ü".dng'
    shutil.move(folder / "xtrans.dng", folder / name)
    shutil.move(folder / "xtrans-max.rmeta", folder / "max.rmeta")
    files = (name, "xtrans.jpg", "max.rmeta")
    done = rawcodec_("compare", *files, "--report", "page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "page.html").read_text("utf-8")
    page = page_of(folder / "page.html")
    assert page.links == []
    assert all(source.startswith("data:image/") for source in page.sources)
    assert len(page.sources) == 8  # three pairs and two maps
    assert "url(" not in text
    assert "@import" not in text
    assert name in page.texts
    info = rawcodec.inspect(folder / "max.rmeta")
    assert f"max.rmeta, {info.bytes:,} bytes, {info.bpp:.4f} bpp" in page.texts
    assert any(each.startswith(f"{info.psnr_db:.2f} dB, ") for each in page.texts)
    for source in page.sources:
        data = source.partition(",")[2].encode()
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to show the page")
def test_the_line_in_the_page_can_be_dragged(folder: Path) -> None:
    assert CHROMIUM is not None
    done = rawcodec_("compare", "xtrans.dng", "xtrans.rmeta", "--report", "page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    drag = """<script>
      const faults = [];
      addEventListener("error", event => faults.push(event.message));
      addEventListener("load", () => {
        const pair = document.querySelector(".pair"), slider = pair.querySelector("input");
        const over = pair.querySelector(".over"), images = [...document.images];
        const seen = () => getComputedStyle(over).clipPath;
        const before = seen();
        slider.value = 80;
        slider.dispatchEvent(new Event("input"));
        const loaded = images.every(image => image.complete && image.naturalWidth > 0);
        const same = new Set([...pair.querySelectorAll("img")].map(i => i.clientWidth)).size === 1;
        document.title = JSON.stringify([before, seen(), loaded, same, images.length, faults]);
      });
    </script></body>"""
    text = (folder / "page.html").read_text("utf-8")
    (folder / "dragged.html").write_text(text.replace("</body>", drag), "utf-8")
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={folder / 'profile'}", (folder / "dragged.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", shown.stdout)
    assert title is not None
    before, after, loaded, same, count, faults = json.loads(html.unescape(title[1]))
    assert "50%" in before
    assert "80%" in after
    assert (loaded, same, count, faults) == (True, True, 7, [])
