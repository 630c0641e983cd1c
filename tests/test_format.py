"""docs/FORMAT.md says enough: a decoder written from it alone gives the same mosaics."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reference_decoder
import torch
from dng import XTRANS, write_dng
from PIL import Image, ImageFilter
from reference_decoder import Alignment as DocumentAlignment
from reference_decoder import (
    Decoded,
    FormatError,
    Head,
    RangeDecoder,
    filter_channels,
    inner,
    network,
    of_sites,
    surroundings,
)
from reference_decoder import Guide as DocumentGuide
from reference_decoder import Latents as DocumentLatents
from reference_decoder import Model as DocumentModel
from reference_decoder import decode as decode_by_the_document
from safetensors.numpy import load, save_file
from test_fitted import COLOURS as PATTERNS
from test_fitted import FAULTS, Faulty, Writer, any_filter, any_filters, make_eager
from test_shifts import forced

import rawcodec
from rawcodec import weights
from rawcodec.errors import CorruptSidecarError, ModelError
from rawcodec.model import config, fitted, fitting, grid, shifts, tables
from rawcodec.model.fitted import Coefficients, Sight
from rawcodec.model.latents import PlaneCodec, Runner, TableCoder
from rawcodec.model.seen import PlaneInputs
from rawcodec.model.store import load_model
from rawcodec.model.view import PlaneView
from rawcodec.photo.align import Alignment, Guide, orient
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.entropy import PART, Decoder, Encoder

BAYER = ("RG", "GB")
QUAD_BAYER = ("RRGG", "RRGG", "GGBB", "GGBB")
WHITE_BALANCE = (2.0, 1.0, 1.6)
COLOURS = {"R": 0, "G": 1, "B": 2}

Picture = Callable[[np.ndarray], np.ndarray]


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """A linear picture, 0 to 1: smooth noise at several scales, and edges."""
    rng = np.random.default_rng(seed)
    field = np.zeros((height, width, 3))
    for cell, strength in ((96, 1.0), (32, 0.6), (12, 0.4), (5, 0.25)):
        for tint, share in (((1, 1, 1), 1.0), (rng.normal(size=3), 0.3)):
            nodes = rng.normal(size=(height // cell + 2, width // cell + 2)).astype(np.float32)
            smooth = Image.fromarray(nodes).resize((width, height), Image.Resampling.BICUBIC)
            field += strength * share * np.asarray(smooth)[:, :, None] * np.asarray(tint)
    y, x = np.mgrid[:height, :width]
    for _ in range(12):
        angle, middle = rng.uniform(0, np.pi), (rng.uniform(0, height), rng.uniform(0, width))
        beyond = (x - middle[1]) * np.cos(angle) + (y - middle[0]) * np.sin(angle) > 0
        field += np.where(beyond, 0.3, -0.3)[:, :, None] * rng.uniform(0.5, 1, 3)
    return 1 / (1 + np.exp(-field - 0.3))


def develop(linear: np.ndarray) -> np.ndarray:
    """A camera's rendering of the scene, 8 bits: some contrast, gamma."""
    curved = linear * linear * (3 - 2 * linear) * 0.4 + linear * 0.6
    return np.rint(255 * curved ** (1 / 2.2)).astype(np.uint8)


@dataclass
class Case:
    """A pair of a raw and its JPEG. `picture` makes the JPEG's pixels of the rendering."""

    picture: Picture
    cfa: tuple[str, ...] = BAYER
    size: tuple[int, int] = (168, 232)
    black: int | tuple[int, ...] = 256
    white: int = 16000
    seed: int = 1

    def write(self, folder: Path) -> tuple[Path, Path]:
        height, width = self.size
        linear = scene(height, width, self.seed)
        if self.cfa == ("G",):
            linear = np.repeat(linear.mean(axis=2, keepdims=True), 3, axis=2)
        # The sensor sees red and blue darker; the white balance undoes it.
        seen = linear / WHITE_BALANCE if self.cfa != ("G",) else linear
        if self.cfa:
            period = len(self.cfa), len(self.cfa[0])
            mask = np.zeros((*period, 3))
            for i, row in enumerate(self.cfa):
                for j, letter in enumerate(row):
                    mask[i, j, COLOURS[letter]] = 1
            repeats = height // period[0] + 1, width // period[1] + 1, 1
            seen = (seen * np.tile(mask, repeats)[:height, :width]).sum(axis=2)
        noise = np.random.default_rng(self.seed).normal(size=seen.shape)
        dn = seen * (16000 - 256) + 256 + noise * (4 + 40 * np.sqrt(seen))
        raw = write_dng(
            folder / "raw.dng",
            np.clip(np.rint(dn), 0, 16000).astype(np.uint16),
            cfa=self.cfa,
            black=self.black,
            white=self.white,
        )
        jpeg = folder / "photo.jpg"
        pixels = np.ascontiguousarray(self.picture(develop(linear)))
        Image.fromarray(pixels).save(jpeg, quality=92, subsampling=0)
        return raw, jpeg


def cropped(rows: slice, columns: slice) -> Picture:
    return lambda rendering: rendering[rows, columns]


def resized(scale: float) -> Picture:
    def picture(rendering: np.ndarray) -> np.ndarray:
        height, width = rendering.shape[:2]
        size = round(width * scale), round(height * scale)
        return np.asarray(Image.fromarray(rendering).resize(size, Image.Resampling.LANCZOS))

    return picture


def straightened(degrees: float) -> Picture:
    """Turned about its middle within its own size, then cropped a little."""

    def picture(rendering: np.ndarray) -> np.ndarray:
        image = Image.fromarray(rendering)
        turned = np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC))
        return turned[6:-8, 10:-12]

    return picture


def warped(decoded: Decoded) -> bool:
    return decoded.alignment.warp_x is not None


def fractional(decoded: Decoded) -> bool:
    """The guide is interpolated, not copied."""
    return decoded.alignment.step_x % 2**18 != 0


def bordered(decoded: Decoded) -> bool:
    return bool(decoded.tone.border)


CASES: dict[str, tuple[Case, Callable[[Decoded], bool]]] = {
    "full": (
        Case(cropped(slice(2, -3), slice(4, -1)), black=(256, 255, 257, 256)),
        lambda d: d.alignment.step_x == 2**24 and not bordered(d),
    ),
    "scaled": (Case(resized(0.6), size=(240, 320)), fractional),
    "strips": (
        Case(cropped(slice(10, -32), slice(40, -18)), size=(240, 320)),
        bordered,
    ),
    "mirrored": (Case(np.fliplr), lambda d: d.alignment.orientation == 2),
    "turned": (
        Case(lambda rendering: np.rot90(rendering[:, 30:])),
        lambda d: d.alignment.orientation == 6 and bordered(d),
    ),
    "straightened": (
        Case(straightened(1.5), size=(360, 480)),
        lambda d: warped(d) and bordered(d),
    ),
    "xtrans": (
        Case(cropped(slice(3, -3), slice(3, -3)), cfa=XTRANS, size=(180, 240)),
        lambda d: d.head.cfa_rows == 6,
    ),
    "linear": (Case(resized(0.75), cfa=()), fractional),
    "mono": (
        Case(cropped(slice(0, -20), slice(24, None)), cfa=("G",)),
        lambda d: list(d.tone.border) == [1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_document_decodes_to_the_same_mosaic(name: str, tmp_path: Path):
    case, covers = CASES[name]
    raw, jpeg = case.write(tmp_path)
    sidecar = rawcodec.encode(raw, jpeg, quality="tone", device="cpu", verify=False)
    with Image.open(jpeg) as image:
        decoded = decode_by_the_document(sidecar, np.asarray(image.convert("RGB")))
    mosaic = rawcodec.decode(jpeg, sidecar, device="cpu")

    assert np.array_equal(decoded.samples, mosaic.samples)
    digest = hashlib.sha256(decoded.samples.astype("<u2").tobytes()).digest()
    assert digest[:16] == decoded.head.mosaic_digest
    assert decoded.tags == list(mosaic.tags)
    assert covers(decoded)


def test_a_warp_of_any_size_decodes_to_the_same_mosaic(tmp_path: Path):
    """Bends that no lens has, put into a sidecar by hand; what is decoded is nonsense."""
    raw, jpeg = Case(lambda rendering: rendering, size=(40, 56)).write(tmp_path)
    chunks = container.read(rawcodec.encode(raw, jpeg, quality="tone", device="cpu", verify=False))
    with Image.open(jpeg) as image:
        pixels = np.asarray(image.convert("RGB"))
    rng = np.random.default_rng(4)
    kinds = {1: 42, 2: 60, 4: 8, 5: 50, 6: 68}
    for spread, (kind, count) in itertools.product((2**14, 2**20, 2**31 - 1), kinds.items()):
        numbers = rng.integers(-spread, spread + 1, count).tolist()
        if spread == 2**31 - 1:
            numbers[::2] = ([spread, -spread - 1] * 17)[: count // 2]
        algn = next(c.payload for c in chunks if c.type == "ALGN")[:25] + bytes([kind])
        algn += struct.pack(f"<{count}i", *numbers)
        head = Head(next(c.payload for c in chunks if c.type == "HEAD"))
        guide = DocumentGuide(pixels, DocumentAlignment(algn), head)
        alignment = Alignment.unpack(algn)
        ours = Guide(orient(pixels, alignment.orientation), alignment, head.width, head.height, 2)
        band = ours.band(-2, head.height + 2)
        for y in range(-2, head.height + 2):
            assert np.array_equal(band[:, y + 2].T, guide.row(y, range(-2, head.width + 2)))
        reached = alignment.reached(head.width, head.height, guide.w, guide.h, 4)
        assert np.array_equal(
            np.ones((head.height, head.width), bool) if reached is None else reached,
            guide.reached(),
        )


def installed() -> dict[str, bytes]:
    """The weights files that there are, by the model's id."""
    return {m.id: (weights.folder() / m.file).read_bytes() for m in weights.models()}


def check_learned(case: Case, quality: str, folder: Path) -> Decoded:
    """Encode a pair with the learned layer, and decode it in both ways, to the same."""
    raw, jpeg = case.write(folder)
    sidecar = rawcodec.encode(raw, jpeg, quality=quality, device="cpu", verify=False)
    with Image.open(jpeg) as image:
        pixels = np.asarray(image.convert("RGB"))
    decoded = decode_by_the_document(sidecar, pixels, installed())
    mosaic = rawcodec.decode(jpeg, sidecar, device="cpu")
    assert decoded.latents is not None
    assert np.array_equal(decoded.samples, mosaic.samples)
    return decoded


def test_the_document_decodes_gains_between_rates(tmp_path: Path):
    raw, jpeg = Case(everything, size=(80, 112)).write(tmp_path)
    with Image.open(jpeg) as image:
        pixels = np.asarray(image.convert("RGB"))
    fine = set()
    for bpp in (3.0, 3.3, 3.7, 4.2):
        sidecar = rawcodec.encode(raw, jpeg, bpp=bpp, device="cpu", verify=False)
        decoded = decode_by_the_document(sidecar, pixels, installed())
        mosaic = rawcodec.decode(jpeg, sidecar, device="cpu")
        assert decoded.latents is not None and decoded.head.quality == 5
        assert np.array_equal(decoded.samples, mosaic.samples)
        fine.add(decoded.latents.fine)
    assert len(fine | {0}) > 2


def everything(rendering: np.ndarray) -> np.ndarray:
    return rendering


def burnt(rendering: np.ndarray) -> np.ndarray:
    """Clipped in two areas, of which the tone layer cannot know what the raw has there."""
    height, width = rendering.shape[:2]
    y, x = np.mgrid[:height, :width]
    white = (x < 0.4 * width) & (y > 0.4 * height)
    black = (x > 0.8 * width) & (y < 0.5 * height)
    return np.where(white[:, :, None], 255, np.where(black[:, :, None], 0, rendering))


def sharpened(rendering: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rendering).filter(ImageFilter.UnsharpMask(1.5, 150, 0)))


LEARNED: dict[str, tuple[Case, str]] = {
    "bayer": (Case(everything, size=(26, 37)), "medium"),
    "xtrans": (Case(everything, cfa=XTRANS, size=(26, 37)), "high"),
    "mono": (Case(everything, cfa=("G",), size=(26, 37)), "low"),
    "linear": (Case(everything, cfa=(), size=(26, 37)), "max"),
    "bright": (Case(everything, size=(26, 37), white=7000), "high"),
    "strips": (Case(cropped(slice(10, -12), slice(20, -8)), size=(82, 110)), "low"),
    "wide": (Case(everything, size=(26, 277)), "medium"),
    "tall": (Case(everything, size=(277, 26)), "max"),
    "burnt": (Case(burnt, size=(71, 93)), "max"),
    "burnt xtrans": (Case(burnt, cfa=XTRANS, size=(91, 74)), "max"),
    "burnt mono": (Case(burnt, cfa=("G",), size=(74, 91)), "max"),
    "burnt linear": (Case(burnt, cfa=(), size=(71, 93)), "max"),
    "quad bayer": (Case(sharpened, cfa=QUAD_BAYER, size=(92, 78)), "max"),
    "sharpened xtrans": (Case(sharpened, cfa=XTRANS, size=(78, 92)), "max"),
    "sharpened": (Case(sharpened, cfa=(), size=(90, 106)), "max"),
}
UNFITTED = ("bayer", "xtrans", "linear", "burnt xtrans", "sharpened")
"""A photo so small need not pay for a filter, unless it was sharpened."""

FEW_CLASSES = {(1, 1), (2, 1)}
MANY_CLASSES = {*FEW_CLASSES, (2, 2), (4, 2)}
SHAPES = dict.fromkeys((BAYER, ("G",), ()), MANY_CLASSES)
SHAPES |= dict.fromkeys((XTRANS, QUAD_BAYER), FEW_CLASSES)


@pytest.mark.parametrize("name", LEARNED)
def test_the_document_decodes_the_learned_layer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    case, quality = LEARNED[name]
    if name not in UNFITTED:  # in the others it is made to pay
        make_eager(monkeypatch)
    if name.startswith("burnt"):  # so that busy places get nodes
        monkeypatch.setattr(grid, "_CODED", 0)
    decoded = check_learned(case, quality, tmp_path)
    latents, height, width = decoded.latents, *decoded.samples.shape[:2]
    assert latents is not None
    assert len(latents.z) == (1 if case.cfa else 3)
    for filters in (latents.first_filters, latents.second_filters):
        assert len(filters) == len(latents.z)
        found = [filter_ for filter_ in filters if filter_ is not None]
        assert {(f.activity_classes, f.brightness_classes) for f in found} <= SHAPES[case.cfa]
        if name not in UNFITTED or (name == "sharpened" and filters is latents.first_filters):
            assert found
    # the grid is larger than the mosaic, the mosaic larger than the order's pattern
    assert 2 * latents.rows > height and 2 * latents.columns > width
    assert (max(latents.rows, latents.columns) > 64) == (name in ("wide", "tall"))
    colours = set(range(3)) if name != "burnt mono" else {1}
    if name.startswith("burnt"):
        used = {c for e in latents.numbers for c in range(3) if e[c].any()}
        assert used == colours
        at = {level % 5 for level, e in enumerate(latents.numbers) if e.any()}
        assert {3, 4} <= at  # the coarser ones: test_the_document_decodes_large_areas
        assert min(e.min() for e in latents.numbers) < 0 < max(e.max() for e in latents.numbers)
    assert (not decoded.tone.reached.all()) == (name == "strips")


STRIPED = {
    "resized": Case(resized(0.8), size=(77, 61)),
    "xtrans": Case(burnt, cfa=XTRANS, size=(77, 61)),
    "linear strips": Case(cropped(slice(10, -12), slice(20, -8)), cfa=(), size=(82, 78)),
}


@pytest.mark.parametrize("name", STRIPED)
def test_the_document_decodes_stripes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of which the second one begins within the pattern of X-Trans."""
    for module in (config, reference_decoder):
        monkeypatch.setattr(module, "STRIPE", 2000)
    make_eager(monkeypatch)
    case = STRIPED[name]
    decoded = check_learned(case, "max", tmp_path)
    latents = decoded.latents
    assert latents is not None
    planes = 1 if case.cfa else 3
    last = -(-(case.size[0] - 64) // 16) * 16
    assert [2 * z.shape[1] for z in latents.z] == np.repeat([32, 32, last], planes).tolist()
    assert len(latents.first_filters) == 3 * planes and any(latents.first_filters[planes:])


def scrambled(arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """A model of noise, of the shapes of another one.

    It takes decoding to where no trained model does: to every clipping, to
    ties in rounding and in the order, to escapes and to silent scales.
    """
    rng = np.random.default_rng(seed)
    arrays = dict(arrays)

    def integers(name: str, low: int, high: int) -> None:
        drawn = rng.integers(low, high + 1, arrays[name].shape)
        arrays[name] = drawn.astype(arrays[name].dtype)

    for name, layer in network().items():
        integers(f"{name}.weight", -127, 127)
        spread = 3 if name == "order" else layer.high / 1.5
        sums = 4000 * np.sqrt(layer.inputs * layer.kernel**2)
        shift = max(round(np.log2(sums / spread)), 2)
        integers(f"{name}.shift", shift - 2, shift + 2)
        integers(f"{name}.bias", -int(sums), int(sums))
    integers("hyper_scale", 0, 63)
    integers("pattern", -20, 20)
    integers("forward", 0, 65535)
    integers("back", 0, 46340)
    arrays["steps"] = np.exp2(rng.uniform(0, 15, (33, 4))).round().astype(np.int32)
    arrays["hyper_analysis.last.weight"] = 30 * arrays["hyper_analysis.last.weight"]

    sizes = rng.choice([*range(8), 255], 64)
    rows = []
    for size in np.repeat(sizes[sizes < 255], 8):
        entries = 2 ** (size + 2)
        shares = rng.dirichlet(np.full(entries, 0.3))
        rows.append(1 + np.floor(shares * (2**16 - entries))[:-1])
    arrays["tables.sizes"] = sizes.astype(np.uint8)
    arrays["tables.frequencies"] = np.concatenate(rows).astype(np.uint16)
    return arrays


@pytest.mark.parametrize("name", ["bright", "linear", "strips", "wide", "xtrans"])
def test_the_document_decodes_with_any_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = weights.models()[0]
    arrays = scrambled(load((weights.folder() / model.file).read_bytes()), seed=len(name))
    path = tmp_path / "scrambled.safetensors"
    save_file(arrays, path)
    entry = {
        "id": "scrambled",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "qualities": {"low": 0, "max": 32},
    }
    manifest = {"manifest_version": 1, "models": [entry]}
    (tmp_path / "MANIFEST.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    rng = np.random.default_rng(len(name))
    monkeypatch.setattr(TableCoder, "_best_shifts", forced(rng.choice([-7, 3, 7], (10, 16))))
    case, _ = LEARNED[name]
    decoded = check_learned(case, "max" if name == "linear" else "low", tmp_path)

    latents = decoded.latents
    assert latents is not None
    values = np.concatenate([z.ravel() for z in latents.z])
    assert values.min() < -1000 and values.max() > 1000
    assert {0, 1} == set(np.unique(latents.steps[0]).tolist())
    assert 0 < len(latents.model.first_table) < 64
    assert {-7, 7} & {shift for each in latents.shifts for row in each for shift in row}
    assert len(np.unique(latents.classes)) > 1


class AnyNodes:
    """What an encoder may want of nodes: here and there anything, elsewhere nothing."""

    def __init__(self, step: int, seed: int) -> None:
        self.step, self.seed = step, seed

    def wanted(self, level: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, level])
        unit = max(16 * self.step // grid.SPACINGS[level], 1)
        most = np.log2(2 * grid.largest(unit))
        sizes = 2.0 ** rng.uniform(0, (4, most, 3, 9, 6)[level], nodes.shape)
        signs = rng.choice([-1, 1], nodes.shape)
        there = rng.random(nodes.shape) < (0.4, 0.3, 0.1, 0.05, 0.02)[level]
        there[2] &= level != 1
        return signs * sizes * there * unit, np.full(nodes.shape, 1e9)


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 9), (7, 8), (16, 17), (129, 128), (255, 261), (300, 90), (515, 33)]
)
@pytest.mark.parametrize("step", [1, 37, 1001, 32768])
def test_the_document_decodes_large_areas(
    size: tuple[int, int], step: int, monkeypatch: pytest.MonkeyPatch
):
    """Numbers and nodes that no photo asks for, at all levels."""
    choice = grid._Choice
    monkeypatch.setattr(grid, "_Choice", lambda fit, tables, _: choice(fit, tables, 0))
    model = weights.models()[0]
    data = (weights.folder() / model.file).read_bytes()
    arrays = load(data)
    height, width = size
    encoder = Encoder()
    nodes = grid.code(
        encoder,
        tables.Tables(arrays["tables.sizes"], arrays["tables.frequencies"]),
        step,
        (-(-height // 2), -(-width // 2)),
        AnyNodes(step, height + step),
    )
    payload = bytes(10) + encoder.finish()
    latents = DocumentLatents(payload, SimpleNamespace(linear=False, height=height, width=width))
    latents.model = DocumentModel(data)
    latents.decoder = RangeDecoder(latents.values)
    found = latents.nodes(step, height, width)
    latents.decoder.end()
    assert np.array_equal(found, nodes)

    for pattern in ("RG", "GB"), XTRANS, ("G",), ("B",):
        cells = np.array([[COLOURS[letter] for letter in row] for row in pattern], np.uint8)
        repeats = height // len(cells) + 1, width // len(cells[0]) + 1
        sites = np.zeros(size, np.int32)
        grid.add(sites, nodes, cells)
        assert np.array_equal(sites, of_sites(found, np.tile(cells, repeats)[:height, :width]))

    if min(size) > 100:
        assert all(e.any() and not e.all() for e in latents.numbers)
        if size[0] == 255:
            units = [max(16 * step // spacing, 1) for spacing in grid.SPACINGS]
            largest = [2**21 // unit for unit in units]
            assert any(4 * abs(e).max() > n for e, n in zip(latents.numbers, largest, strict=True))
        if step == 32768:
            assert abs(nodes).max() == 2**20


@pytest.fixture(scope="module")
def shipped() -> tuple[bytes, Runner]:
    """The weights file, and a runner of it."""
    path = weights.folder() / weights.models()[0].file
    return path.read_bytes(), Runner(load_model(path), 9, "float32", "cpu")


def by_the_document(data: bytes, model: bytes) -> DocumentLatents:
    """A layer of a photo, of which a part is to be read."""
    latents = DocumentLatents(bytes(10), SimpleNamespace(linear=False, height=1, width=1))
    latents.model, latents.decoder = DocumentModel(model), RangeDecoder(data)
    return latents


def any_view(size: tuple[int, int], cells: np.ndarray, seed: int) -> PlaneView:
    """A picture by chance: noise, and areas that are flat, black or white."""
    rng = np.random.default_rng([seed, *size])
    y, x = np.mgrid[: size[0], : size[1]]
    level = rng.integers(0, 4081, (3, 9, 9))[:, y // 5 % 9, x // 7 % 9]
    spread = np.array([0, 30, 300, 3000])[(y // 6 + x // 4) % 4]
    guide = np.clip(level + spread * rng.normal(size=(3, *size)), 0, 4080)
    tone = np.clip(guide[1] * 11.3 + spread * rng.normal(size=size), 0, 46340)
    reached = rng.random(size) < 0.9
    return PlaneView(guide.astype(np.int16), tone.astype(np.uint16), cells, reached)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 2), (17, 33), (50, 31)])
@pytest.mark.parametrize(
    ("name", "alone"),
    [*((name, False) for name in PATTERNS), ("RGGB", True), ("mono", True), ("red", True)],
)
def test_the_document_runs_any_filter(
    name: str, alone: bool, size: tuple[int, int], shipped: tuple[bytes, Runner]
):
    """Filters that no photo asks for, of all shapes, shifts and octaves, on any picture.

    Each ahead of the latents and after them. alone: without a plane before, and without sites that
    the JPEG does not reach: some of what filters see is the same everywhere then.
    """
    data, run = shipped
    cells = PATTERNS[name]
    (height, width), seed = size, sum(size)
    rng = np.random.default_rng(seed)
    view = any_view(size, cells, seed)
    earlier = rng.integers(-46340, 46341, size).astype(np.int32)
    reached = view.reached
    assert reached is not None
    if alone:
        view, earlier, reached = replace(view, reached=None), 0 * earlier, reached | True
    seen = np.moveaxis(view.guide, 0, -1).astype(np.int64)
    values = view.tone.astype(np.int64)
    a, brightness = surroundings(seen, values, earlier, reached, cells)
    a, brightness = inner(a, 7), inner(brightness, 7)[0]
    plane = PlaneInputs(view, None if alone else earlier)
    z = rng.integers(-90, 91, (4, a.shape[1] - 2, a.shape[2] - 2)).astype(np.int16)
    z[rng.random(z.shape) < 0.05] = 1 - 2**15
    z[rng.random(z.shape) < 0.05] = 2**15 - 2
    known = torch.from_numpy(z)[None]
    decoded = rng.integers(0, 46341, size).astype(np.uint16)
    before = decoded.astype(np.int64)
    changed: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for given in any_filters(run.model.tables, cells, seed):
        encoder = Encoder()
        fitted.code(encoder, run.model.tables, cells, given, read=False)
        latents = by_the_document(encoder.finish(), data)
        found = latents.filter(cells)
        latents.decoder.end()
        assert found is not None
        assert (found.activity_classes, found.brightness_classes) == given.shape
        assert (tuple(found.thresholds), found.shift) == (given.thresholds, given.shift)
        assert found.numbers == [part.tolist() for part in given.numbers]
        codec = PlaneCodec(run, plane, given)
        theirs = found.corrected(values, cells, filter_channels(a, None), brightness)
        assert np.array_equal(codec.prediction[:height, :width], theirs)
        changed[0].append((theirs - values).ravel())
        theirs = found.corrected(before, cells, filter_channels(a, z), brightness)
        assert np.array_equal(codec.corrected(decoded, Sight(plane, known), given), theirs)
        changed[1].append((theirs - before).ravel())
    if size == (50, 31):
        for part in changed:
            every = np.concatenate(part)
            assert every.min() == -4 * 2047 and every.max() == 4 * 2047
            assert len(np.unique(every)) > 500


def test_the_document_has_all_planes_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a linear raw: one plane with the first alone, one with the second alone, one with both."""
    cells = [np.array([[c]], np.uint8) for c in (1, 0, 2)]
    model = load_model(weights.folder() / weights.models()[0].file)

    def chosen(plane: int, shape: tuple[int, int], shift: int) -> Coefficients:
        return any_filter(model.tables, cells[plane], shape, shift, shift=shift)

    first = [chosen(0, (4, 2), 12), None, chosen(2, (2, 2), 15)]
    second = [None, chosen(1, (2, 1), 13), chosen(2, (4, 2), 14)]
    ahead, after = iter(first), iter(second)
    monkeypatch.setattr(fitting, "fit_ahead", lambda *_: next(ahead))
    monkeypatch.setattr(fitting, "fit_after", lambda *_: next(after))
    decoded = check_learned(Case(everything, cfa=(), size=(26, 37)), "high", tmp_path)
    assert decoded.latents is not None
    for given, found in (
        (first, decoded.latents.first_filters),
        (second, decoded.latents.second_filters),
    ):
        assert [
            None if f is None else (f.activity_classes, f.brightness_classes) for f in found
        ] == [None if f is None else f.shape for f in given]


@pytest.mark.parametrize("name", ["xtrans", "strips", "quad bayer"])
def test_the_document_has_both_filters_of_a_mosaic(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Filters that no photo asks for, of which the second makes nonsense of the mosaic."""
    case, quality = LEARNED[name]
    cells = np.array([[COLOURS[letter] for letter in row] for row in case.cfa], np.uint8)
    model = load_model(weights.folder() / weights.models()[0].file)
    shapes = fitted.shapes(cells)
    first = any_filter(model.tables, cells, shapes[0], 1, shift=14)
    second = any_filter(model.tables, cells, shapes[-1], 2, shift=13)
    monkeypatch.setattr(fitting, "fit_ahead", lambda *_: first)
    monkeypatch.setattr(fitting, "fit_after", lambda *_: second)
    decoded = check_learned(case, quality, tmp_path)
    assert decoded.latents is not None
    for given, found in (
        (first, decoded.latents.first_filters),
        (second, decoded.latents.second_filters),
    ):
        assert [f and f.numbers for f in found] == [[part.tolist() for part in given.numbers]]


@pytest.mark.parametrize("name", FAULTS)
def test_numbers_of_a_filter_out_of_range_are_refused_by_both(
    name: str, shipped: tuple[bytes, Runner]
):
    data, run = shipped
    faulty, valid = FAULTS[name]
    written = faulty.write(Writer(run.model.tables))
    cells = PATTERNS["RGGB"]
    latents = by_the_document(written, data)
    if valid:
        found = latents.filter(cells)
        latents.decoder.end()
        ours = fitted.code(Decoder(written), run.model.tables, cells, None, read=True)
        assert (found is None) == (ours is None)
        if found is not None and ours is not None:
            assert found.numbers == [part.tolist() for part in ours.numbers]
            assert found.octaves == ours.octaves.tolist()
    else:
        with pytest.raises(FormatError, match="E19"):
            latents.filter(cells)
        with pytest.raises(ValueError, match="out of range"):
            fitted.code(Decoder(written), run.model.tables, cells, None, read=True)


def test_a_call_is_coded_in_parts() -> None:
    """More symbols than a part has, with tables of several lengths, and escapes."""
    rng = np.random.default_rng(5)
    tables = [np.array([2**16 - 2 * size + 1, *[1] * (2 * size - 1)]) for size in (1, 2, 8)]
    index = np.where(rng.random(PART + 9) < 0.001, rng.integers(1, 3, PART + 9), 0)
    symbols = np.where(index > 0, rng.integers(-20, 21, PART + 9), 0)
    symbols[rng.integers(0, PART + 9, 50)] = 2**20
    symbols[-9:], index[-9:] = range(-4, 5), [0, 1, 2] * 3
    encoder = Encoder()
    encoder.code(symbols, tables, index)
    decoder = RangeDecoder(encoder.finish())
    assert decoder.call([table.tolist() for table in tables], index.tolist()) == symbols.tolist()
    decoder.end()


def refusal(sidecar: bytes, jpeg: Path) -> str:
    """The error's number that the reference decoder gives; the package refuses it too."""
    with Image.open(jpeg) as image, pytest.raises(FormatError) as caught:
        decode_by_the_document(sidecar, np.asarray(image.convert("RGB")), installed())
    with pytest.raises(CorruptSidecarError, match="damaged"):
        rawcodec.decode(jpeg, sidecar, device="cpu")
    return str(caught.value)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Chunk], Path]:
    """The chunks of a small pair, and its JPEG."""
    case = Case(cropped(slice(10, -12), slice(20, -8)), size=(80, 112))
    raw, jpeg = case.write(tmp_path_factory.mktemp("pair"))
    sidecar = rawcodec.encode(raw, jpeg, quality="tone", device="cpu", verify=False)
    return container.read(sidecar), jpeg


def with_payload(chunks: list[Chunk], kind: str, payload: bytes) -> bytes:
    return container.write(Chunk(kind, payload) if c.type == kind else c for c in chunks)


def test_what_both_refuse_has_one_number(pair: tuple[list[Chunk], Path]):
    chunks, jpeg = pair
    payload = {c.type: c.payload for c in chunks}
    head, algn = payload["HEAD"], payload["ALGN"]
    assert len(algn) == 26
    warp = bytes(168)
    faults = {
        "quality without a model": ("HEAD", head[:25] + b"\2" + head[26:], "E13"),
        "too many sites": ("HEAD", struct.pack("<4H", *[0x7FFF] * 4) + head[8:], "E13"),
        "unknown kind": ("ALGN", algn[:25] + b"\3", "E19"),
        "unknown kind, and a warp": ("ALGN", algn[:25] + b"\3" + warp, "E19"),
        "a warp of the shorter kind": ("ALGN", algn[:25] + b"\2" + warp, "E19"),
        "no shifts of red and blue": ("ALGN", algn[:25] + b"\4", "E19"),
        "a warp without the shifts": ("ALGN", algn[:25] + b"\5" + warp, "E19"),
        "no warp": ("ALGN", algn[:25] + b"\1", "E19"),
        "half a warp": ("ALGN", algn[:25] + b"\1" + warp[:84], "E19"),
        "a byte too many": ("ALGN", algn[:25] + b"\1" + warp + b"\0", "E19"),
        "an unasked warp": ("ALGN", algn + warp, "E19"),
        "no flag": ("ALGN", algn[:25], "E19"),
        "no step": ("ALGN", algn[:1] + bytes(4) + algn[5:], "E19"),
    }
    found = {
        name: refusal(with_payload(chunks, kind, altered), jpeg)
        for name, (kind, altered, _) in faults.items()
    }
    assert found == {name: number for name, (_, _, number) in faults.items()}


def test_what_both_refuse_of_the_learned_layer(tmp_path: Path):
    raw, jpeg = Case(everything, cfa=(), size=(26, 37)).write(tmp_path)
    sidecar = rawcodec.encode(raw, jpeg, quality="low", device="cpu", verify=False)
    chunks = container.read(sidecar)
    payload = {c.type: c.payload for c in chunks}
    head, latents = payload["HEAD"], payload["LATN"]
    model_id = Head(head).model_id.encode()
    before, after = head[82:].split(bytes([len(model_id)]) + model_id)
    without = head[:25] + b"\0" + head[26:66] + bytes(16) + before + b"\0" + after
    faults = {
        "no such rate": (with_payload(chunks, "LATN", b"\x21" + latents[1:]), "E19"),
        "no such gain": (with_payload(chunks, "LATN", latents[:1] + b"\x10" + latents[2:]), "E19"),
        "half a head": (with_payload(chunks, "LATN", latents[:25]), "E19"),
        "no values": (with_payload(chunks, "LATN", latents[:26]), "E15"),
        "half a word": (with_payload(chunks, "LATN", latents[:-2]), "E15"),
        "more than one end": (with_payload(chunks, "LATN", latents + bytes(12)), "E15"),
        "no latents": (container.write(c for c in chunks if c.type != "LATN"), "E20"),
        "no model": (with_payload(chunks, "HEAD", without), "E20"),
    }
    found = {name: refusal(altered, jpeg) for name, (altered, _) in faults.items()}
    assert found == {name: number for name, (_, number) in faults.items()}

    other = with_payload(chunks, "HEAD", head[:66] + bytes(16) + head[82:])
    with Image.open(jpeg) as image, pytest.raises(FormatError, match="E16"):
        decode_by_the_document(other, np.asarray(image.convert("RGB")), installed())
    with pytest.raises(ModelError, match="needs the model"):
        rawcodec.decode(jpeg, other, device="cpu")


def test_a_shift_of_scales_out_of_range_is_refused_by_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    raw, jpeg = Case(everything, size=(26, 37)).write(tmp_path)
    for shift, number in ((-7, None), (-8, "E19"), (8, "E19")):
        with monkeypatch.context() as patched:
            patched.setattr(shifts, "SHIFT_LIMIT", 8)
            patched.setattr(TableCoder, "_best_shifts", forced(np.array(shift)))
            sidecar = rawcodec.encode(raw, jpeg, quality="low", device="cpu", verify=False)
        if number is None:
            rawcodec.decode(jpeg, sidecar, device="cpu")
        else:
            assert refusal(sidecar, jpeg) == number


def test_nodes_out_of_range_are_refused_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw, jpeg = Case(everything, size=(26, 37)).write(tmp_path)

    def chosen(sign: int) -> Callable[..., object]:
        return lambda _, __, ___, here, limit: (np.full(here.sum(), sign * limit, np.int32), 40)

    def scaled(scale: int) -> Callable[..., int]:
        table = tables._SCALE_TABLE

        def code(coder: Encoder, _: int) -> int:
            coder.code(np.array([scale - 32], np.int32), [table], np.zeros(1, np.uint8))
            return 1

        return code

    faults: list[tuple[str, object, str | None]] = [
        ("_Choice.values", chosen(-1), None),
        ("_Choice.values", chosen(-1), "E19"),
        ("_Choice.values", chosen(1), "E19"),
        ("code_scale", scaled(0), "E19"),
        ("code_scale", scaled(64), "E19"),
    ]
    for name, fault, number in faults:
        with monkeypatch.context() as patched:
            if number is not None:
                patched.setattr(grid, "largest", lambda unit: 2 * grid.NODE_LIMIT // unit + 1)
            patched.setattr(f"rawcodec.model.grid.{name}", fault)
            sidecar = rawcodec.encode(raw, jpeg, quality="low", device="cpu", verify=False)
        if number is None:
            rawcodec.decode(jpeg, sidecar, device="cpu")
        else:
            assert refusal(sidecar, jpeg) == number


def test_a_faulty_filter_is_a_damaged_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw, jpeg = Case(everything, size=(26, 37)).write(tmp_path)
    model = load_model(weights.folder() / weights.models()[0].file)

    def coding(faulty: Faulty, ahead: bool) -> Callable[..., None]:
        """Codes a faulty filter of the plane; where it is the second, there is no first."""
        first = not ahead

        def code(coder: Encoder, *_: object, **__: object) -> None:
            nonlocal first
            writer = Writer(model.tables)
            writer.encoder = coder
            if first:
                writer.single(0)
            else:
                faulty.write(writer)
            first = False

        return code

    for name in ("no such shape", "octave 7", "too large a constant"):
        faulty, _ = FAULTS[name]
        for ahead in (True, False):
            with monkeypatch.context() as patched:
                patched.setattr(fitted, "code", coding(faulty, ahead))
                sidecar = rawcodec.encode(raw, jpeg, quality="low", device="cpu", verify=False)
            assert refusal(sidecar, jpeg) == "E19"


def test_a_border_of_too_many_nodes_is_refused_by_both(pair: tuple[list[Chunk], Path]):
    """A mosaic that is said to be long and low, of which the JPEG reaches a corner."""
    chunks, jpeg = pair
    payload = {c.type: c.payload for c in chunks}
    head = struct.pack("<4H", *[40000, 17] * 2) + bytes(4) + payload["HEAD"][12:]
    tone = payload["TONE"][:16] + b"\3" + payload["TONE"][17:]
    large = container.read(with_payload(chunks, "HEAD", head))
    assert refusal(with_payload(large, "TONE", tone), jpeg) == "E19"


def test_the_annotated_dump_is_the_golden_file() -> None:
    root = Path(__file__).parents[1]
    document = (root / "docs" / "FORMAT.md").read_text(encoding="utf-8")
    dump = document.split("## Annotated dump")[1].split("```")[1]
    data = (root / "tests" / "golden" / "photo.rmeta").read_bytes()
    shown = 0
    for line in dump.splitlines():
        if line and line != "...":
            offset, values = int(line[:4], 16), bytes.fromhex(line[6:53])
            assert data[offset : offset + len(values)] == values, line
            shown += len(values)
    assert shown > 250
