"""Maps of bits: every bit of a sidecar has its place, the picture, and the command line."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Real
from pairs import Pair, payload_of, rebuilt, scene, write_jpeg, write_raw
from PIL import Image
from test_cli import jpeg_bytes, names, rawcodec_, refused
from torch import Tensor

import rawcodec
from rawcodec import learned
from rawcodec.errors import DigestError
from rawcodec.model import allocation, config, fitting, layer
from rawcodec.model.allocation import Allocation
from rawcodec.model.config import GROUPS, HYPER, MEAN_UNIT, PASSES
from rawcodec.model.tables import split
from rawcodec.photo import bitmap
from rawcodec.photo.align import orient
from rawcodec.photo.bitmap import Drawn, block_means, write_map
from rawcodec.photo.raw import read_raw
from rawcodec.pipeline import Mapped, map_photo
from rawcodec.stream.entropy import TOTAL, RateMeter
from rawcodec.stream.header import Header
from rawcodec.stream.meter import SymbolMeter

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def some_tables() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    rows = []
    for size in (2, 4, 8, 32):
        row = 1 + rng.multinomial(TOTAL - size, rng.dirichlet(np.ones(size)))
        rows.append(row.astype(np.int64))
    return rows


def test_every_symbol_takes_what_it_takes_alone() -> None:
    rng = np.random.default_rng(2)
    tables = some_tables()
    index = rng.integers(0, len(tables), 300).astype(np.uint16)
    symbols = np.rint(rng.standard_cauchy(300) * 5).astype(np.int32)
    symbols[:4] = 0, 1 << 20, -(1 << 23), (1 << 24) - 1
    found = SymbolMeter()(symbols, tables, index)
    together = RateMeter()
    together.code(symbols, tables, index)
    assert found.sum(dtype=float) == pytest.approx(together.bits, rel=1e-6)
    for number in range(len(symbols)):
        alone = RateMeter()
        alone.code(symbols[number : number + 1], tables, index[number : number + 1])
        assert found[number] == pytest.approx(alone.bits, rel=1e-6)


def test_another_call_has_other_tables() -> None:
    meter, tables = SymbolMeter(), some_tables()
    meter(np.array([0, 1]), tables, np.array([1, 2]))
    even = [np.array([TOTAL // 2, TOTAL // 2])]
    assert meter(np.zeros(3, np.int32), even, np.zeros(3, np.int64)).tolist() == [1, 1, 1]
    assert len(meter(np.zeros(0, np.int32), tables, np.zeros(0, np.int64))) == 0


def test_many_symbols_are_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at in parts."""
    tables = some_tables()
    index = np.arange(500, dtype=np.uint16) % 4
    symbols = np.arange(-250, 250, dtype=np.int32)
    whole = SymbolMeter()(symbols, tables, index)
    monkeypatch.setattr("rawcodec.stream.meter.PART", 64)
    assert np.array_equal(SymbolMeter()(symbols, tables, index), whole)


# the bits of a photo


def pair_of(
    folder: Path,
    size: tuple[int, int] = (107, 123),
    cfa: tuple[str, ...] = ("RG", "GB"),
    quality: str = "medium",
) -> Pair:
    light = scene(*size)
    raw = write_raw(folder / "a.dng", light, cfa, noise=60)
    jpeg = write_jpeg(folder / "a.jpg", light, crop=6)
    return Pair(raw, jpeg, rawcodec.encode(raw, jpeg, quality=quality, verify=False))


def head_size(planes: int) -> int:
    """Of the learned layer, in bytes; the rest is entropy-coded."""
    return 2 + planes * HYPER


@pytest.mark.parametrize(
    ("cfa", "quality"),
    [(("RG", "GB"), "medium"), (("GB", "RG"), "max"), ((), "medium")],
    ids=["medium", "max", "linear"],
)
def test_the_map_holds_every_bit_of_a_sidecar(
    tmp_path: Path, cfa: tuple[str, ...], quality: str
) -> None:
    pair = pair_of(tmp_path, cfa=cfa, quality=quality)
    mapped = map_photo(pair.jpeg, pair.sidecar)
    # listening changes nothing
    assert np.array_equal(mapped.mosaic.samples, pair.decode())
    bits = mapped.allocation
    assert bits.sites.shape == (112, 128)
    assert bits.hyper.shape == bits.blocks.shape == (7, 8)
    assert min(bits.sites.min(), bits.hyper.min()) >= 0
    assert bits.sites.sum(dtype=float) == pytest.approx(bits.of_latents, rel=1e-6)
    assert bits.hyper.sum() == pytest.approx(bits.of_hyper, rel=1e-6)
    picture = bits.of_picture(107, 123)
    assert picture.shape == (107, 123)
    assert picture.sum(dtype=float) == pytest.approx(bits.of_latents + bits.of_hyper, rel=1e-6)
    # what was heard is the chunk, but for its closing mark; the map is most of it
    coded = len(payload_of(pair.sidecar, "LATN")) - head_size(1 if cfa else 3)
    assert 0 < coded - bits.heard / 8 < 16
    assert 0.6 * bits.heard < bits.of_latents + bits.of_hyper < bits.heard


@pytest.mark.parametrize("cfa", [("RG", "GB"), ()], ids=["mosaic", "linear"])
def test_the_map_of_several_stripes_is_that_of_each(
    tmp_path: Path, cfa: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "STRIPE", 6000)  # 48 rows, 48, 11
    pair = pair_of(tmp_path, cfa=cfa, quality="high")
    parts: list[np.ndarray] = []

    class Told(allocation.MappedCoder):
        def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            before = self._map.of_latents
            result = super().code(number, here, mean, scale)
            parts.append(np.array([here.shape[2] // 8, self._map.of_latents - before]))
            return result

    monkeypatch.setattr(layer, "MappedCoder", Told)
    mapped = map_photo(pair.jpeg, pair.sidecar)
    assert np.array_equal(mapped.mosaic.samples, pair.decode())
    bits = mapped.allocation
    assert bits.blocks.shape == bits.hyper.shape == (7, 8)
    for number, rows in enumerate((slice(3), slice(3, 6), slice(6, 7))):
        mine = np.array_split(np.array(parts), 3)[number]
        assert set(mine[:, 0]) == {rows.stop - (rows.start or 0)}
        assert bits.blocks[rows].sum() == pytest.approx(mine[:, 1].sum(), rel=1e-5)
        assert bits.hyper[rows].sum() > 0
    assert bits.of_picture(107, 123).sum() == pytest.approx(
        bits.of_latents + bits.of_hyper, rel=1e-5
    )


def test_an_encoder_makes_the_map_that_a_decoder_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(tmp_path)
    theirs = map_photo(pair.jpeg, pair.sidecar).allocation
    ours = Allocation(SymbolMeter())
    told = partial(layer.code_planes, allocation=ours)
    monkeypatch.setattr(learned, "code_planes", told)
    assert rawcodec.encode(pair.raw, pair.jpeg, verify=False) == pair.sidecar
    assert np.array_equal(ours.sites, theirs.sites)
    assert np.array_equal(ours.hyper, theirs.hyper)
    assert (ours.of_latents, ours.of_hyper) == (theirs.of_latents, theirs.of_hyper)
    assert ours.heard == theirs.heard


class Checked(allocation.MappedCoder):
    """Compares each latent's bits with those of the integer that it was coded as."""

    coded, beside = 0, 0
    """Latents that were compared, and those of them that have the second quantiser."""

    def code(self, number: int, here: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        before = self._map.sites.copy()
        result = super().code(number, here, mean, scale)
        added = self._map.sites - before
        rows, columns = np.nonzero(here[0, 0].numpy())
        # only the second quantiser has odd halves: its integers lie half a step below
        channels = GROUPS[PASSES[number][0]]
        halves, means = (part[0].numpy()[:, rows, columns].T for part in (result, mean))
        second = halves & 1
        whole, fraction = split(means + np.int16(MEAN_UNIT // 2) * second)
        scales = self.scales.reshape(halves.shape)
        residue = (halves.astype(np.int32) + second) // 2 - whole
        middle = self._tables.cost.shape[2] // 2
        assert np.abs(residue).max() <= middle
        expected = self._tables.cost[scales, fraction, residue + middle]
        for place, channel in enumerate(channels):
            found = added[2 * rows + channel // 2, 2 * columns + channel % 2]
            # the costs of escapes are rounded to powers of two
            assert found == pytest.approx(expected[:, place], abs=1e-3)
        assert added.sum(dtype=float) == pytest.approx(expected.sum(dtype=float), rel=1e-4)
        Checked.coded += expected.size
        Checked.beside += int(second.sum())
        return result

    def _coded(
        self,
        given: np.ndarray | None,
        mean: np.ndarray,
        scale: np.ndarray,
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        if where is not None:
            self.scales = scale  # of all latents of the pass, shifted
        return super()._coded(given, mean, scale, where)


def test_every_bit_lies_where_its_latent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(tmp_path, quality="high")
    monkeypatch.setattr(layer, "MappedCoder", Checked)
    bits = map_photo(pair.jpeg, pair.sidecar).allocation
    assert Checked.coded == bits.sites.size
    assert 0 < Checked.beside < Checked.coded


def test_bits_of_the_filter_after_lie_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes some, and the maps are those of the latents alone."""
    photo, jpeg = EXAMPLES / "photo.dng", EXAMPLES / "photo.jpg"
    found = []
    for left_out in (False, True):
        if left_out:
            monkeypatch.setattr(fitting, "fit_after", lambda *_: None)
        sidecar = rawcodec.encode(photo, jpeg, quality="high", verify=False)
        found.append(map_photo(jpeg, sidecar).allocation)
    ours, without = found
    assert ours.heard > without.heard + 800
    assert np.array_equal(ours.sites, without.sites)
    assert np.array_equal(ours.hyper, without.hyper)


def noisy_in_part(
    folder: Path, turn: int = 1, exif: int | None = None
) -> tuple[Mapped, np.ndarray]:
    """A map of 256x256 sites, and, in 16x16 blocks, where noise is that the JPEG does not have."""
    light = scene(256, 256)
    jpeg = write_jpeg(folder / "a.jpg", light, crop=0, turn=turn, exif=exif)
    light[64:128, 128:208] += np.random.default_rng(3).normal(0, 0.1, (64, 80, 3))
    raw = write_raw(folder / "a.dng", np.clip(light, 0, 1), ("RG", "GB"), noise=4)
    noisy = np.zeros((16, 16), bool)
    noisy[4:8, 8:13] = True
    return map_photo(jpeg, rawcodec.encode(raw, jpeg, verify=False)), noisy


def test_bits_lie_where_the_jpeg_knows_nothing(tmp_path: Path) -> None:
    mapped, noisy = noisy_in_part(tmp_path)
    blocks = mapped.allocation.blocks
    assert blocks[noisy].min() > 1.2 * blocks[~noisy].max()


@pytest.mark.parametrize(("turn", "exif"), [(1, 6), (6, None), (8, 5), (2, 3)])
def test_the_picture_lies_as_the_jpeg_is_shown(tmp_path: Path, turn: int, exif: int | None) -> None:
    mapped, noisy = noisy_in_part(tmp_path, turn, exif)
    drawn, picture = written(mapped.allocation.of_picture(256, 256), mapped.orientations)
    shown = orient(orient(noisy, turn), exif or 1)
    blocks = block_means(picture[: drawn.height], 16)
    assert blocks[shown].min() > blocks[~shown].max()


def test_a_map_that_lost_a_bit_is_noticed() -> None:
    bits = Allocation(SymbolMeter())
    bits.start(1, 1)
    bits.sites += 1
    bits.of_latents = 256
    bits.check()
    bits.of_latents = 255
    with pytest.raises(RuntimeError, match=r"holds 256\.0 bits, and 255 were counted"):
        bits.check()


def test_bits_that_have_no_site_are_spread_over_their_block() -> None:
    bits = Allocation(SymbolMeter())
    bits.start(1, 2)
    bits.hyper[:] = 32, 8
    bits.sites[3, 5] = 7  # in the picture
    bits.sites[8:, 2] = 1  # below it
    found = bits.of_picture(8, 18)
    assert found.shape == (8, 18)
    expected = np.full((8, 18), (32 + 8) / (8 * 16))
    expected[:, 16:] = 8 / (8 * 2)
    expected[3, 5] += 7
    assert found == pytest.approx(expected)


@pytest.mark.slow
def test_the_map_holds_every_bit_of_a_real_photo(real: Real) -> None:
    raw, jpeg = real("colorchart.dng"), real("colorchart.dt.jpg")
    sidecar = rawcodec.encode(raw, jpeg, quality="low", verify=False)
    bits = map_photo(jpeg, sidecar).allocation
    height, width = read_raw(raw).mosaic.samples.shape
    assert bits.sites.shape == (-(-height // 16) * 16, -(-width // 16) * 16)
    coded = len(payload_of(sidecar, "LATN")) - head_size(1)
    assert 0 <= coded - bits.heard / 8 < 16 + 0.002 * coded
    bits.check()


# the picture


def written(sites: np.ndarray, orientations: Sequence[int] = ()) -> tuple[Drawn, np.ndarray]:
    """What was drawn, and the picture's palette entries: brighter is more, up to 239."""
    file = io.BytesIO()
    drawn = write_map(file, sites, tuple(orientations))
    with Image.open(file) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        return drawn, np.asarray(image)


def test_more_bits_are_brighter() -> None:
    sites = np.linspace(0, 2, 200 * 300, dtype=np.float32).reshape(200, 300)
    drawn, entries = written(sites)
    assert drawn == Drawn(300, 200, 1, 0.0, 2.0)
    picture = entries[:200]
    assert (picture[0, 0], picture[-1, -1]) == (0, 239)
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()
    # the root shows few bits too: an eighth of the range is a third of the colours
    assert picture[25, 0] == pytest.approx(239 * (1 / 8) ** 0.5, abs=1)
    file = io.BytesIO()
    write_map(file, sites)
    with Image.open(file) as image:
        light = np.asarray(image.convert("L"))[:200].astype(int)
    assert light[-1, -1] > light[100, 0] > light[0, 0]
    assert (np.diff(light.ravel()) >= 0).all()


def test_the_scale_is_below_in_other_colours_than_its_letters() -> None:
    _, entries = written(np.full((200, 300), 0.3, np.float32))
    scale = entries[200:]
    assert scale.shape[0] < 80
    ramp = scale[np.argmax((scale < 240).sum(1))]
    ramp = ramp[ramp < 240].astype(int)
    assert (ramp[0], ramp[-1]) == (0, 239)
    assert (np.diff(ramp) >= 0).all()
    assert (scale == 240).any()  # black letters
    assert (scale == 255).mean() > 0.5


def test_a_few_outliers_do_not_darken_the_rest() -> None:
    sites = np.full((100, 100), 1, np.float32)
    sites[7, 7] = 300
    drawn, entries = written(sites)
    assert drawn.high == 300
    assert (entries[7, 7], entries[0, 0]) == (239, 239)


@pytest.mark.parametrize("bits", [0.0, 1e-5, 1000.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 9), (20, 700)])
def test_every_shape_and_amount_can_be_drawn(shape: tuple[int, int], bits: float) -> None:
    drawn, entries = written(np.full(shape, bits, np.float32))
    assert (drawn.height, drawn.width) == shape
    assert drawn.low == drawn.high == pytest.approx(bits)
    assert entries.shape[1] == shape[1]
    assert entries.shape[0] > shape[0]
    assert (entries[: shape[0]] < 240).all()


def test_a_large_photo_is_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitmap, "LONGEST", 50)
    sites = np.zeros((75, 101), np.float32)
    sites[74, 100] = 12  # alone in the last block
    sites[0, 0] = 8
    drawn, _ = written(sites)
    assert drawn == Drawn(26, 19, 4, 0.0, 4.0)
    means = block_means(sites, 4)
    assert means.shape == (19, 26)
    assert (means[0, 0], means[18, 25]) == (8 / 16, 12 / 3)


# the command line


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.jpg, photo.rmeta, and bits.png that ``info --map`` made of them."""
    folder = tmp_path_factory.mktemp("mapped")
    shutil.copyfile(EXAMPLES / "photo.jpg", folder / "photo.jpg")
    sidecar = rawcodec.encode(EXAMPLES / "photo.dng", folder / "photo.jpg", verify=False)
    (folder / "photo.rmeta").write_bytes(sidecar)
    done = rawcodec_("info", "photo.rmeta", "--map", "bits.png", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(folder) == ["bits.png", "photo.jpg", "photo.rmeta"]
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def folder(mapped: Path, tmp_path: Path) -> Path:
    """A copy of the folder without the map, to be changed at will."""
    for name in ("photo.jpg", "photo.rmeta"):
        shutil.copyfile(mapped / name, tmp_path / name)
    return tmp_path


def test_the_map_of_a_photo_tells_busy_from_flat(mapped: Path) -> None:
    with Image.open(mapped / "bits.png") as image:
        entries = np.asarray(image)
        assert image.width == 1734 // 2
    reflection, board = entries[170:225, 250:277], entries[300:500, 300:650]
    assert reflection.mean() > 100
    assert board.mean() < 10


def test_one_line_says_what_the_map_shows(mapped: Path) -> None:
    line = (mapped / "said").read_text()
    found = re.fullmatch(
        r"bits\.png: 867x578, 0\.\d{3} to \d+\.\d{3} bits per site in blocks of 2x2; "
        r"shows ([\d,]+) of ([\d,]+) bytes: latents ([\d,]+), hyper-latents ([\d,]+); "
        r"leaves out filters and grids ([\d,]+), tone ([\d,]+), other ([\d,]+)\n",
        line,
    )
    assert found, line
    shown, size, *parts = (int(group.replace(",", "")) for group in found.groups())
    info = rawcodec.inspect(mapped / "photo.rmeta")
    assert sum(parts) == size == info.bytes
    assert parts[0] + parts[1] == shown
    assert sum(parts[:3]) == info.layers["latents"]
    assert parts[3] == info.layers["tone"]


def test_an_existing_map_is_kept_unless_forced(folder: Path, mapped: Path) -> None:
    (folder / "bits.png").write_bytes(b"precious")
    command = ("info", "photo.rmeta", "--map", "bits.png")
    assert refused(*command, cwd=folder) == (
        "bits.png: already exists; use --force to replace it or -o to name another\n"
    )
    done = rawcodec_(*command, "--force", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "bits.png").read_bytes() == (mapped / "bits.png").read_bytes()
    assert names(folder) == ["bits.png", "photo.jpg", "photo.rmeta"]


@pytest.mark.parametrize("name", ["photo.jpg", "photo.rmeta"])
def test_an_input_is_never_replaced(folder: Path, name: str) -> None:
    stderr = refused("info", "photo.rmeta", "-o", name, "--force", cwd=folder)
    assert stderr.startswith(f"{name}: is an input itself; ")


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".jpe", ".jfif"])
def test_the_jpeg_beside_the_sidecar_is_found(folder: Path, ending: str) -> None:
    """In its folder, by its whole name; what was found is told by what is wrong with it."""
    (folder / "photo.jpg").rename(folder / "photo.x.jpg")
    (folder / "deeper").mkdir()
    (folder / "photo.rmeta").rename(folder / "deeper" / "photo.rmeta")
    (folder / "deeper" / f"photo{ending}").write_bytes(b"this is no JPEG")
    stderr = refused("info", "deeper/photo.rmeta", "--map", "bits.png", cwd=folder)
    assert stderr.startswith(f"deeper/photo{ending}: is not a JPEG; ")


def test_no_jpeg_or_several_beside_the_sidecar_are_refused(folder: Path) -> None:
    command = ("info", "photo.rmeta", "--map", "bits.png")
    (folder / "photo.JPEG").write_bytes(b"")
    assert refused(*command, cwd=folder) == (
        "photo.rmeta: photo.JPEG and photo.jpg lie beside it; name its JPEG with --jpeg\n"
    )
    (folder / "photo.JPEG").unlink()
    (folder / "photo.jpg").rename(folder / "other.jpg")
    assert refused(*command, cwd=folder) == (
        "photo.rmeta: no photo.jpg lies beside it; name its JPEG with --jpeg\n"
    )
    done = rawcodec_(*command, "--jpeg", "other.jpg", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_jpeg_is_refused_as_decode_refuses_it(folder: Path) -> None:
    other = np.zeros((90, 120, 3), np.uint8)
    (folder / "other.jpg").write_bytes(jpeg_bytes(other))
    with Image.open(folder / "photo.jpg") as image:
        (folder / "again.jpg").write_bytes(jpeg_bytes(np.asarray(image), quality=80))
    for name in ("other.jpg", "again.jpg", "missing.jpg", "photo.rmeta"):
        stderr = refused("info", "photo.rmeta", "--map", "o", "--jpeg", name, cwd=folder)
        assert stderr.startswith(f"{name}: ")
        if name != "photo.rmeta":  # two sidecars, which decode tells apart first
            assert stderr == refused("decode", "photo.rmeta", name, "-o", "o", cwd=folder)


def test_a_sidecar_of_the_tone_layer_alone_has_no_map(folder: Path) -> None:
    sidecar = rawcodec.encode(
        EXAMPLES / "photo.dng", folder / "photo.jpg", quality="tone", verify=False
    )
    (folder / "photo.rmeta").write_bytes(sidecar)
    assert refused("info", "photo.rmeta", "--map", "bits.png", cwd=folder) == (
        "photo.rmeta: has the tone layer alone, whose bits belong to no place; "
        "name a sidecar of another quality than tone\n"
    )


def test_a_bad_sidecar_is_refused_as_ever(folder: Path) -> None:
    data = (folder / "photo.rmeta").read_bytes()
    (folder / "photo.rmeta").write_bytes(data[:-9])
    for name in ("photo.rmeta", "photo.jpg", "missing.rmeta"):
        stderr = refused("info", name, "--map", "bits.png", "--jpeg", "photo.jpg", cwd=folder)
        assert stderr == refused("info", name, cwd=folder)


def test_the_digest_is_checked(tmp_path: Path) -> None:
    pair = pair_of(tmp_path)
    header = Header.unpack(payload_of(pair.sidecar, "HEAD"))
    altered = rebuilt(
        pair.sidecar, "HEAD", replace(header, mosaic_digest=bytes(len(header.mosaic_digest))).pack()
    )
    with pytest.raises(DigestError):
        map_photo(pair.jpeg, altered)
    (tmp_path / "a.rmeta").write_bytes(altered)
    stderr = refused("info", "a.rmeta", "--map", "bits.png", cwd=tmp_path)
    assert stderr.startswith("a.rmeta: what was decoded is not what was encoded; ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["photo.rmeta", "photo.rmeta", "--map", "bits.png"],
        ["photo.rmeta", "--map", "bits.png", "--json"],
        ["photo.rmeta", "--jpeg", "photo.jpg"],
        ["photo.rmeta", "--force"],
        ["--map", "bits.png"],
    ],
)
def test_wrong_usage_is_2(folder: Path, arguments: list[str]) -> None:
    assert "Usage: rawcodec info" in refused("info", *arguments, cwd=folder, code=2)
