"""docs/FORMAT.md says enough: a decoder written from it alone gives the same mosaics."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dng import XTRANS, write_dng
from PIL import Image
from reference_decoder import Alignment as DocumentAlignment
from reference_decoder import Decoded, FormatError, Head, RangeDecoder, network, of_sites
from reference_decoder import Guide as DocumentGuide
from reference_decoder import Latents as DocumentLatents
from reference_decoder import Model as DocumentModel
from reference_decoder import decode as decode_by_the_document
from safetensors.numpy import load, save_file

import rawcodec
from rawcodec import weights
from rawcodec.errors import CorruptSidecarError, ModelError
from rawcodec.model import grid, tables
from rawcodec.model.latents import TableCoder
from rawcodec.photo.align import Alignment, Guide, orient
from rawcodec.stream import container
from rawcodec.stream.container import Chunk
from rawcodec.stream.entropy import PART, Encoder

BAYER = ("RG", "GB")
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
    for spread in (2**14, 2**20, 2**31 - 1):
        numbers = rng.integers(-spread, spread + 1, 42).tolist()
        if spread == 2**31 - 1:
            numbers[::2] = [spread, -spread - 1] * 10 + [spread]
        algn = next(c.payload for c in chunks if c.type == "ALGN")[:25] + b"\1"
        algn += struct.pack("<42i", *numbers)
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


def everything(rendering: np.ndarray) -> np.ndarray:
    return rendering


def burnt(rendering: np.ndarray) -> np.ndarray:
    """Clipped in two areas, of which the tone layer cannot know what the raw has there."""
    height, width = rendering.shape[:2]
    y, x = np.mgrid[:height, :width]
    white = (x < 0.4 * width) & (y > 0.4 * height)
    black = (x > 0.8 * width) & (y < 0.5 * height)
    return np.where(white[:, :, None], 255, np.where(black[:, :, None], 0, rendering))


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
}


@pytest.mark.parametrize("name", LEARNED)
def test_the_document_decodes_the_learned_layer(name: str, tmp_path: Path):
    case, quality = LEARNED[name]
    decoded = check_learned(case, quality, tmp_path)
    latents, height, width = decoded.latents, *decoded.samples.shape[:2]
    assert latents is not None
    assert len(latents.z) == (3 if name.endswith("linear") else 1)
    # the grid is larger than the mosaic, the mosaic larger than the order's pattern
    assert 2 * latents.rows > height and 2 * latents.columns > width
    assert (max(latents.rows, latents.columns) > 64) == (name in ("wide", "tall"))
    colours = set(range(3)) if name != "burnt mono" else {1}
    if name.startswith("burnt"):
        used = {c for e in latents.numbers for c in range(3) if e[c].any()}
        assert used == colours
        at = {level % 5 for level, e in enumerate(latents.numbers) if e.any()}
        assert at == set(range(5)) or (name == "burnt linear" and {0, 2, 3, 4} <= at)
        assert min(e.min() for e in latents.numbers) < 0 < max(e.max() for e in latents.numbers)
    assert (not decoded.tone.reached.all()) == (name == "strips")


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
    monkeypatch.setattr(
        TableCoder, "_best_shifts", lambda *_: rng.integers(-7, 8, 16, dtype=np.int32)
    )
    case, _ = LEARNED[name]
    decoded = check_learned(case, "max" if name == "linear" else "low", tmp_path)

    latents = decoded.latents
    assert latents is not None
    values = np.concatenate([z.ravel() for z in latents.z])
    assert values.min() < -1000 and values.max() > 1000
    assert {0, 1} == set(np.unique(latents.steps[0]).tolist())
    assert 0 < len(latents.model.first_table) < 64
    assert {-7, 7} <= {shift for shifts in latents.shifts for shift in shifts}


class AnyNodes:
    """What an encoder may want of nodes: here and there anything, elsewhere nothing."""

    def __init__(self, step: int, seed: int) -> None:
        self.step, self.rng = step, np.random.default_rng(seed)

    def wanted(self, level: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unit = max(16 * self.step // grid.SPACINGS[level], 1)
        most = np.log2(2 * grid.largest(unit))
        sizes = 2.0 ** self.rng.uniform(0, (4, most, 3, 9, 6)[level], nodes.shape)
        signs = self.rng.choice([-1, 1], nodes.shape)
        there = self.rng.random(nodes.shape) < (0.4, 0.3, 0.1, 0.05, 0.02)[level]
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
    payload = bytes(9) + encoder.finish()
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
        "neither 0 nor 1": ("ALGN", algn[:25] + b"\2", "E19"),
        "neither 0 nor 1, and a warp": ("ALGN", algn[:25] + b"\2" + warp, "E19"),
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
        "half a head": (with_payload(chunks, "LATN", latents[:24]), "E19"),
        "no values": (with_payload(chunks, "LATN", latents[:25]), "E15"),
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
            patched.setattr(tables, "SHIFT_LIMIT", 8)
            patched.setattr(
                TableCoder, "_best_shifts", lambda *_, s=shift: np.full(16, s, np.int32)
            )
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
        table = grid._SCALE_TABLE

        def code(coder: Encoder, _: int) -> int:
            coder.code(np.array([scale - 32], np.int32), [table], np.zeros(1, np.uint8))
            return 1

        return code

    faults: list[tuple[str, object, str | None]] = [
        ("_Choice.values", chosen(-1), None),
        ("_Choice.values", chosen(-1), "E19"),
        ("_Choice.values", chosen(1), "E19"),
        ("_code_scale", scaled(0), "E19"),
        ("_code_scale", scaled(64), "E19"),
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


def test_a_border_of_too_many_nodes_is_refused_by_both(pair: tuple[list[Chunk], Path]):
    """A mosaic that is said to be large, of which the JPEG reaches a corner."""
    chunks, jpeg = pair
    payload = {c.type: c.payload for c in chunks}
    head = struct.pack("<4H", *[1048] * 4) + bytes(4) + payload["HEAD"][12:]
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
