"""Finding how a JPEG lies over a raw: right within half a photosite, or refused."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from conftest import Real
from PIL import Image

from rawcodec.errors import AlignmentError
from rawcodec.mosaic import Mosaic
from rawcodec.photo.align import FRACTION_BITS, Alignment, orient
from rawcodec.photo.jpeg import read_jpeg
from rawcodec.photo.raw import read_raw
from rawcodec.photo.register import register
from rawcodec.sensor import Sensor

RAWS = {
    "colorchart": "colorchart.dng",
    "NikonD1": "NikonD1.nef",
    "GOPR0024": "GOPR0024.dng",
    "GOPR9231": "GOPR9231.dng",
    "GPFR7066": "GPFR7066.dng",
}
QUICK = ("colorchart", "NikonD1")
PROGRAMS = ("rt", "dt")
SCALES = (2 / 3, 1 / 2, 1 / 3)

# What lays a picture over the sensor, undone: by numpy's own turns and flips.
STORED_AS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: np.rot90(p, 2),
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}


def truth(name: str, program: str) -> tuple[int, int]:
    """Orientation and origin of a pair as the program made it: both are plain crops.

    RawTherapee cuts off 4 pixels a side and ignores that a raw is mirrored;
    darktable starts at the first site and mirrors.
    """
    if program == "rt":
        return 1, -4
    return (1 if name in QUICK else 2), 0


@lru_cache(maxsize=2)
def _mosaic(path: Path) -> Mosaic:
    return read_raw(path).mosaic


@lru_cache(maxsize=2)
def _pixels(path: Path) -> np.ndarray:
    return read_jpeg(path).pixels


@pytest.fixture
def load(real: Real) -> Callable[[str, str], tuple[Mosaic, np.ndarray]]:
    def load(name: str, jpeg: str) -> tuple[Mosaic, np.ndarray]:
        return _mosaic(real(RAWS[name])), _pixels(real(jpeg))

    return load


def saved(pixels: np.ndarray, size: tuple[int, int], quality: int = 85) -> np.ndarray:
    """The pixels after a program reduced them and saved them again."""
    file = io.BytesIO()
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    resized.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def check_corners(
    found: Alignment, mosaic: Mosaic, origin: tuple[float, float], scale: tuple[float, float]
) -> None:
    """Every corner lies within half a photosite of its true place.

    origin: of the crop, in unreduced JPEG pixels. scale: new by old size, (x, y).
    """
    height, width = mosaic.samples.shape[:2]
    for x in (0, width - 1):
        true = (x + origin[0] + 0.5) * scale[0] - 0.5
        assert abs(found.position_x(x) - true) < 0.5 * scale[0]
    for y in (0, height - 1):
        true = (y + origin[1] + 0.5) * scale[1] - 0.5
        assert abs(found.position_y(y) - true) < 0.5 * scale[1]


# Right pairs


def check_plain(load, name: str, program: str) -> None:
    mosaic, pixels = load(name, f"{name}.{program}.jpg")
    orientation, origin = truth(name, program)
    result = register(mosaic, pixels)
    green = replace(result.alignment, lateral=None)
    assert green == Alignment.from_floats(orientation, 1, origin, 1, origin)
    assert result.agreement > 0.6
    assert result.spread < 0.3


def check_reduced(load, name: str, program: str, scale: float) -> None:
    mosaic, pixels = load(name, f"{name}.{program}.jpg")
    height, width = pixels.shape[:2]
    size = round(width * scale), round(height * scale)
    result = register(mosaic, saved(pixels, size))
    orientation, origin = truth(name, program)
    assert result.alignment.orientation == orientation
    assert result.alignment.warp is None
    scales = size[0] / width, size[1] / height
    check_corners(result.alignment, mosaic, (origin, origin), scales)


def check_turned(load, name: str, program: str, orientation: int) -> None:
    mosaic, pixels = load(name, f"{name}.{program}.jpg")
    own, origin = truth(name, program)
    turned = np.ascontiguousarray(STORED_AS[orientation](orient(pixels, own)))
    found = replace(register(mosaic, turned).alignment, lateral=None)
    assert found == Alignment.from_floats(orientation, 1, origin, 1, origin)


def check_refused(load, name: str, jpeg: str) -> None:
    """For what it shows, or already for its size."""
    mosaic, pixels = load(name, jpeg)
    with pytest.raises(AlignmentError, match=r"rendering of (this|a) raw") as caught:
        register(mosaic, pixels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", [*QUICK, "GOPR0024"])
def test_a_plain_crop_is_found_exactly(load, name: str, program: str):
    check_plain(load, name, program)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["GOPR9231", "GPFR7066"])
def test_a_plain_crop_is_found_exactly_in_large_pairs(load, name: str, program: str):
    check_plain(load, name, program)


@pytest.mark.parametrize(
    ("name", "program", "scale"),
    [
        ("colorchart", "rt", 2 / 3),
        ("colorchart", "dt", 1 / 2),
        ("colorchart", "rt", 1 / 3),
        ("NikonD1", "dt", 2 / 3),
        ("NikonD1", "rt", 1 / 2),
        ("NikonD1", "dt", 1 / 3),
    ],
)
def test_a_reduced_jpeg_is_found(load, name: str, program: str, scale: float):
    check_reduced(load, name, program, scale)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", RAWS)
def test_every_reduced_jpeg_is_found(load, name: str, program: str, scale: float):
    check_reduced(load, name, program, scale)


@pytest.mark.parametrize("scale", [0.125, 0.25, 0.9])
def test_other_scales_down_to_an_eighth_are_found(load, scale: float):
    check_reduced(load, "colorchart", "rt", scale)


@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_a_turned_jpeg_is_found(load, orientation: int):
    check_turned(load, "colorchart", "rt", orientation)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", RAWS)
def test_every_turned_jpeg_is_found(load, name: str, program: str, orientation: int):
    check_turned(load, name, program, orientation)


@pytest.mark.parametrize("orientation", [2, 8])
def test_a_reduced_and_turned_jpeg_is_found(load, orientation: int):
    mosaic, pixels = load("NikonD1", "NikonD1.rt.jpg")
    height, width = pixels.shape[:2]
    size = width // 2, height // 2
    turned = np.ascontiguousarray(STORED_AS[orientation](saved(pixels, size)))
    found = register(mosaic, turned).alignment
    assert found.orientation == orientation
    check_corners(found, mosaic, (-4, -4), (size[0] / width, size[1] / height))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_crop_to_16_by_9_is_found(load, scale: float):
    """Off the centre, so that the sizes alone do not tell."""
    mosaic, pixels = load("colorchart", "colorchart.rt.jpg")
    width = pixels.shape[1] // 4 * 4
    height = width * 9 // 16
    top = pixels.shape[0] - height - 20
    part = pixels[top : top + height, :width]
    size = round(width * scale), round(height * scale)
    found = register(mosaic, saved(part, size, 92)).alignment
    assert found.orientation == 1
    check_corners(found, mosaic, (-4, -4 - top), (size[0] / width, size[1] / height))


def test_the_same_pair_registers_the_same_twice(load):
    mosaic, pixels = load("NikonD1", "NikonD1.dt.jpg")
    assert register(mosaic, pixels) == register(mosaic, pixels)


def test_a_black_and_white_jpeg_is_found(load):
    mosaic, pixels = load("colorchart", "colorchart.rt.jpg")
    grey = np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None], 3, axis=2)
    found = replace(register(mosaic, grey).alignment, lateral=None)
    assert found == Alignment.from_floats(1, 1, -4, 1, -4)


# Pictures that a program has bent: lens correction and straightening

Shape = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True)
class Bend:
    """What a program does to its plain rendering before it saves it.

    corner: how far it moves the corners, relative to their distance from the
        middle; it moves other pixels by this power of theirs.
    degrees: how far it turns the picture, clockwise; the parts that then lack
        something are cut off.
    """

    corner: float = 0.0
    degrees: float = 0.0
    power: int = 2

    def size(self, size: Shape) -> Shape:
        width, height = size
        sine = abs(math.sin(math.radians(self.degrees)))
        return int(width - height * sine), int(height - width * sine)

    def place(self, x: np.ndarray, y: np.ndarray, size: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Where pixels of a picture of this size go, in float64."""
        x, y = x - (size[0] - 1) / 2, y - (size[1] - 1) / 2
        distance = np.hypot(x, y) / math.hypot(size[0] / 2, size[1] / 2)
        further = 1 + self.corner * distance**self.power
        x, y = x * further, y * further
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        width, height = self.size(size)
        return c * x - s * y + (width - 1) / 2, s * x + c * y + (height - 1) / 2

    def origin(self, u: np.ndarray, v: np.ndarray, size: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels of the bent picture come from: the inverse of ``place``."""
        x, y = np.array(u, np.float64), np.array(v, np.float64)
        for _ in range(40):
            found_u, found_v = self.place(x, y, size)
            x, y = x + u - found_u, y + v - found_v
        assert np.allclose(self.place(x, y, size), (u, v), atol=1e-6)
        return x, y


BENDS = {
    "barrel": Bend(corner=-0.03),
    "pincushion": Bend(corner=0.02),
    "turned a little": Bend(degrees=0.5),
    "turned": Bend(degrees=-1.5),
    "both": Bend(corner=-0.02, degrees=1.0),
    "lens profile": Bend(corner=0.05, power=1),
    "turned far": Bend(degrees=3),
}


def bent(pixels: np.ndarray, bend: Bend) -> np.ndarray:
    """The pixels after a program bent them and saved them; black where there were none."""
    size = pixels.shape[1], pixels.shape[0]
    width, height = bend.size(size)
    xs, ys = (sorted({*range(0, n, 48), n}) for n in (width, height))
    mesh = []
    for left, right in itertools.pairwise(xs):
        for top, bottom in itertools.pairwise(ys):
            # a corner's coordinate is half a pixel more than that of a pixel's middle
            u = np.array([left, left, right, right]) - 0.5
            v = np.array([top, bottom, bottom, top]) - 0.5
            corners = np.stack(bend.origin(u, v, size), axis=-1) + 0.5
            mesh.append(((left, top, right, bottom), tuple(corners.ravel().tolist())))
    image = Image.fromarray(pixels)
    image = image.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return np.asarray(Image.open(file).convert("RGB"))


def worst_place(found: Alignment, mosaic: Mosaic, size: Shape, bend: Bend) -> float:
    """Largest distance of sites from their true place, over 9 x 7 points of the bent picture.

    size: of the unbent picture, which lacks 4 sites on every side. Points
    that the bend left black do not count.
    """
    height, width = mosaic.samples.shape[:2]
    across, down = bend.size(size)
    u, v = np.meshgrid(np.linspace(0, across - 1, 9), np.linspace(0, down - 1, 7))
    x, y = bend.origin(u.ravel(), v.ravel(), size)
    inside = (x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)
    assert inside.sum() > 30
    columns, rows = (np.round(n[inside]).astype(np.int64) + 4 for n in (x, y))
    true = bend.place(columns - 4.0, rows - 4.0, size)
    worst = 0.0
    for row, column, true_u, true_v in zip(rows, columns, *true, strict=True):
        place = found.positions(np.array([row]), np.array([column]), width, height)
        u, v = (float(n[0, 0]) / (1 << FRACTION_BITS) for n in np.broadcast_arrays(*place))
        worst = max(worst, math.hypot(u - true_u, v - true_v))
    return worst


def check_bent(load, name: str, bend: Bend) -> None:
    mosaic, pixels = load(name, f"{name}.rt.jpg")
    result = register(mosaic, bent(pixels, bend))
    assert result.alignment.orientation == 1
    assert result.alignment.warp is not None
    size = pixels.shape[1], pixels.shape[0]
    assert worst_place(result.alignment, mosaic, size, bend) < 0.5


QUICK_BENDS = [
    ("colorchart", "barrel"),
    ("NikonD1", "pincushion"),
    ("NikonD1", "turned a little"),
    ("colorchart", "turned"),
    ("NikonD1", "lens profile"),
    ("colorchart", "turned far"),
]


@pytest.mark.parametrize(("name", "bend"), QUICK_BENDS)
def test_a_bent_jpeg_is_found(load, name: str, bend: str):
    check_bent(load, name, BENDS[bend])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bend"), [p for p in itertools.product(QUICK, BENDS) if p not in QUICK_BENDS]
)
def test_every_bent_jpeg_is_found(load, name: str, bend: str):
    check_bent(load, name, BENDS[bend])


# Colours that a program has moved against one another


def moved(pixels: np.ndarray, red: float, blue: float) -> np.ndarray:
    """The pixels with red and blue larger, by so many pixels half their width from the middle."""
    planes = []
    height, width = pixels.shape[:2]
    for plane, grown in zip(np.moveaxis(pixels, 2, 0), (red, 0.0, blue), strict=True):
        by = 1 + 2 * grown / width
        box = (
            width / 2 * (1 - 1 / by),
            height / 2 * (1 - 1 / by),
            width / 2 * (1 + 1 / by),
            height / 2 * (1 + 1 / by),
        )
        image = Image.fromarray(plane).transform(
            (width, height), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC
        )
        planes.append(np.asarray(image))
    return np.stack(planes, axis=2)


def magnification(found: Alignment, mosaic: Mosaic) -> tuple[float, float]:
    """Of red and of blue, in pixels half the longer side from the middle."""
    assert found.lateral is not None
    height, width = mosaic.samples.shape[:2]
    for shifts in (found.lateral.red, found.lateral.blue):
        for step, origin, length in ((*shifts[:2], width), (*shifts[2:], height)):
            assert abs(step * (length - 1) / 2 + origin) / (1 << FRACTION_BITS) < 0.01
    red, blue = (
        shifts[0] * max(width, height) / 2 for shifts in (found.lateral.red, found.lateral.blue)
    )
    return red / (1 << FRACTION_BITS), blue / (1 << FRACTION_BITS)


def test_colours_that_were_moved_are_found(load):
    mosaic, pixels = load("colorchart", "colorchart.rt.jpg")
    assert register(mosaic, pixels).alignment.lateral is None
    red, blue = magnification(register(mosaic, moved(pixels, 1.5, -1.0)).alignment, mosaic)
    assert abs(red - 1.5) < 0.25
    assert abs(blue + 1.0) < 0.25


def test_what_a_program_did_against_lateral_colour_is_found(load):
    """RawTherapee's default corrects it; darktable's does not."""
    mosaic, pixels = load("NikonD1", "NikonD1.rt.jpg")
    red, blue = magnification(register(mosaic, pixels).alignment, mosaic)
    assert -0.9 < red < -0.5
    assert 0.2 < blue < 0.6
    mosaic, pixels = load("NikonD1", "NikonD1.dt.jpg")
    assert register(mosaic, pixels).alignment.lateral is None


# Wrong pairs


@pytest.mark.parametrize(
    ("name", "jpeg"),
    [
        ("colorchart", "NikonD1.rt.jpg"),
        ("colorchart", "GPFR7066.dt.jpg"),
        ("NikonD1", "colorchart.dt.jpg"),
        ("GOPR0024", "GOPR9231.dt.jpg"),
    ],
)
def test_the_jpeg_of_another_shot_is_refused(load, name: str, jpeg: str):
    check_refused(load, name, jpeg)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(RAWS, 2)))
def test_every_jpeg_of_another_shot_is_refused(load, name: str, other: str, program: str):
    check_refused(load, name, f"{other}.{program}.jpg")


def test_a_thumbnail_of_another_shot_is_refused(load):
    mosaic, pixels = load("NikonD1", "colorchart.rt.jpg")
    with pytest.raises(AlignmentError, match="not a rendering of this raw"):
        register(mosaic, saved(pixels, (250, 166)))


@pytest.mark.parametrize("bend", ["barrel", pytest.param("turned", marks=pytest.mark.slow)])
def test_a_bent_jpeg_of_another_shot_is_refused(load, bend: str):
    mosaic, pixels = load("NikonD1", "colorchart.rt.jpg")
    with pytest.raises(AlignmentError, match="not a rendering of this raw"):
        register(mosaic, bent(pixels, BENDS[bend]))


# Frames without texture, and sizes


def sensor(width: int, height: int, orientation: int = 1) -> Sensor:
    return Sensor(width, height, ("RG", "GB"), (512,) * 4, 16383, orientation)


def raw_of(levels: np.ndarray, orientation: int = 1) -> Mosaic:
    height, width = levels.shape
    samples = np.clip(np.round(levels), 0, 16383).astype(np.uint16)
    return Mosaic(samples, sensor(width, height, orientation))


def texture(height: int, width: int) -> np.ndarray:
    """0 to 1, with detail of several sizes."""
    rng = np.random.default_rng(5)
    total = np.zeros((height, width))
    for cells in (6, 14, 40):
        small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(total / 3, 0, 1)


def flat(height: int, width: int, level: int, noise: float) -> np.ndarray:
    values = np.random.default_rng(7).normal(level, noise, (height, width, 3))
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 40])
@pytest.mark.parametrize("level", [512, 6000, 16383])
def test_an_empty_frame_is_laid_out_by_its_sizes(level: int, noise: float):
    """A black frame, a grey one, a saturated one: with a lens cap on, cameras make both files."""
    levels = np.random.default_rng(3).normal(level, noise, (240, 320))
    pixels = flat(232, 312, {512: 2, 6000: 118, 16383: 255}[level], noise / 40)
    result = register(raw_of(levels), pixels)
    assert result.alignment == Alignment.from_floats(1, 1, -4, 1, -4)
    assert result.blocks == 0


def test_an_empty_reduced_frame_is_laid_out_by_its_sizes():
    result = register(raw_of(np.full((240, 320), 6000)), flat(120, 160, 118, 0))
    check_corners(result.alignment, raw_of(np.zeros((240, 320))), (0, 0), (0.5, 0.5))


@pytest.mark.parametrize("jpeg", range(1, 9))
@pytest.mark.parametrize("raw", [1, 3, 6, 8])
def test_an_empty_frame_is_turned_as_the_flags_say(raw: int, jpeg: int):
    """Both files, shown as their flags ask, show the same; so the JPEG's turn is known."""
    ours = np.arange(24 * 32).reshape(24, 32)
    theirs = STORED_AS[jpeg](orient(ours, raw))
    height, width = (10 * n for n in theirs.shape)
    mosaic = raw_of(np.full((240, 320), 6000), raw)
    result = register(mosaic, flat(height, width, 118, 0), jpeg)
    assert np.array_equal(orient(theirs, result.alignment.orientation), ours)


def test_a_frame_with_much_clipped_sky_is_found():
    """Where both pictures are flat there is nothing to compare; the rest must decide."""
    light = texture(480, 640)
    light[:, :400] = 1
    pixels = np.repeat((255 * light[4:-4, 4:-4] ** 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
    found = register(raw_of(1000 + 15383 * light), pixels).alignment
    assert found == Alignment.from_floats(1, 1, -4, 1, -4)


def test_a_flat_jpeg_of_a_textured_raw_is_refused():
    mosaic = raw_of(1000 + 8000 * texture(240, 320))
    with pytest.raises(AlignmentError, match="not a rendering of this raw"):
        register(mosaic, flat(240, 320, 118, 0))


def test_a_textured_jpeg_of_a_flat_raw_is_refused():
    mosaic = raw_of(np.random.default_rng(3).normal(6000, 40, (240, 320)))
    pixels = np.repeat((255 * texture(240, 320)).astype(np.uint8)[:, :, None], 3, axis=2)
    with pytest.raises(AlignmentError, match="not a rendering of this raw"):
        register(mosaic, pixels)


def test_flat_frames_of_different_shape_are_refused_with_both_sizes():
    with pytest.raises(AlignmentError, match=r"320x100.*320x240"):
        register(raw_of(np.full((240, 320), 6000)), flat(100, 320, 118, 0))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (400, 300), (100, 400)])
def test_sizes_that_cannot_match_are_refused_with_both_sizes(size: tuple[int, int]):
    width, height = size
    mosaic = raw_of(1000 + 8000 * texture(240, 320))
    pixels = np.repeat((255 * texture(height, width)).astype(np.uint8)[:, :, None], 3, axis=2)
    with pytest.raises(AlignmentError, match=f"{width}x{height}.*320x240"):
        register(mosaic, pixels)


def test_a_thumbnail_is_refused():
    mosaic = raw_of(1000 + 8000 * texture(960, 1280))
    small = Image.fromarray((255 * texture(960, 1280)).astype(np.uint8)).resize((100, 75))
    with pytest.raises(AlignmentError):
        register(mosaic, np.asarray(small.convert("RGB")))


@pytest.mark.parametrize("size", [(7, 5), (16, 16), (33, 47)])
def test_tiny_flat_frames_are_laid_out_by_their_sizes(size: tuple[int, int]):
    height, width = size
    result = register(raw_of(np.full(size, 6000)), flat(height, width, 118, 0))
    assert result.alignment == Alignment.from_floats(1, 1, 0, 1, 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 300), (9, 12), (40, 30)])
def test_raws_too_small_to_compare_are_refused_at_worst(size: tuple[int, int]):
    height, width = size
    pixels = np.repeat((255 * texture(height, width)).astype(np.uint8)[:, :, None], 3, axis=2)
    with contextlib.suppress(AlignmentError):
        register(raw_of(1000 + 8000 * texture(height, width)), pixels)
