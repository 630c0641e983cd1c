"""Sidecars with the learned layer: what a user of the package and the command line relies on.

Nothing here knows what the weights are worth: they change with each model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Real
from dng import XTRANS, write_dng
from pairs import (
    Pair,
    check_damaged,
    check_message,
    payload_of,
    rebuilt,
    scene,
    with_latents,
    with_model,
    write_jpeg,
    write_raw,
)
from PIL import Image

import rawcodec
from rawcodec import learned, pipeline, weights
from rawcodec.errors import (
    CorruptSidecarError,
    DigestError,
    JpegError,
    ModelError,
    RawcodecError,
)
from rawcodec.model import kernels, latents
from rawcodec.photo.raw import read_raw
from rawcodec.stream import container
from rawcodec.stream.header import QUALITIES, Header

ROOT = Path(__file__).resolve().parents[1]
LEARNED = QUALITIES[1:]


def pair_of(
    folder: Path,
    size: tuple[int, int],
    cfa: tuple[str, ...] = ("RG", "GB"),
    crop: int = 4,
    quality: str = "medium",
) -> Pair:
    """A pair with noise that its JPEG does not know."""
    light = scene(*size)
    raw = write_raw(folder / "a.dng", light, cfa, noise=60)
    jpeg = write_jpeg(folder / "a.jpg", light, crop=crop, mono=cfa == ("G",))
    return Pair(raw, jpeg, rawcodec.encode(raw, jpeg, quality=quality))


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A Bayer pair, more than a band high, whose JPEG leaves a strip uncovered."""
    return pair_of(tmp_path_factory.mktemp("learnt"), (235, 171), crop=10)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """As small a pair as aligns, to decode often."""
    return pair_of(tmp_path_factory.mktemp("tiny"), (72, 96))


def crop_of(folder: Path, top: int, left: int, height: int, width: int) -> tuple[Path, Path]:
    """A part of the bundled photo, and of its JPEG."""
    photo = read_raw(ROOT / "examples" / "photo.dng")
    sensor = photo.mosaic.sensor
    write_dng(
        folder / "crop.dng",
        photo.mosaic.samples[top : top + height, left : left + width],
        sensor.cfa,
        sensor.black,
        sensor.white,
    )
    with Image.open(ROOT / "examples" / "photo.jpg") as image:
        edges = sensor.width - image.width, sensor.height - image.height
        x, y = left - edges[0] // 2, top - edges[1] // 2
        part = image.crop((x, y, x + width, y + height))
        part.save(folder / "crop.jpg", quality=95, subsampling=0)
    return folder / "crop.dng", folder / "crop.jpg"


@pytest.fixture(scope="session")
def crop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A part with light and detail."""
    return crop_of(tmp_path_factory.mktemp("crop"), 150, 200, 300, 400)


# There and back


@pytest.mark.parametrize(
    ("cfa", "size"),
    [
        (("RG", "GB"), (243, 191)),
        (("GR", "BG"), (240, 160)),
        (("GB", "RG"), (161, 203)),
        (("BG", "GR"), (202, 171)),
        (XTRANS, (257, 183)),
        ((), (121, 165)),
        (("G",), (163, 221)),
    ],
    ids=["RGGB", "GRBG", "GBRG", "BGGR", "X-Trans", "linear", "mono"],
)
def test_every_sensor_comes_back(tmp_path: Path, cfa: tuple[str, ...], size: tuple[int, int]):
    """To exactly what the encoder saw, which is nearer to the raw than the tone layer."""
    pair = pair_of(tmp_path, size, cfa)
    photo = read_raw(pair.raw)
    mosaic = rawcodec.decode(pair.jpeg, pair.sidecar)
    info = rawcodec.inspect(pair.sidecar)
    assert mosaic.sensor == photo.mosaic.sensor
    assert mosaic.tags == photo.mosaic.tags
    assert mosaic.samples.dtype == np.uint16
    assert mosaic.samples.shape == photo.mosaic.samples.shape
    assert mosaic.digest().hex() == info.mosaic_digest
    psnr, largest = pipeline.mosaic_error(photo.mosaic, mosaic.samples)
    assert info.psnr_db == pytest.approx(psnr, abs=0.001)
    assert info.max_error == largest

    assert info.quality == "medium"
    assert info.model == weights.models()[0].id
    assert info.layers["latents"] == len(payload_of(pair.sidecar, "LATN")) > 100
    assert sum(info.layers.values()) == info.bytes == len(pair.sidecar)
    header = Header.unpack(payload_of(pair.sidecar, "HEAD"))
    file = weights.folder() / weights.models()[0].file
    assert header.model_hash == hashlib.sha256(file.read_bytes()).digest()[:16]

    tone = rawcodec.inspect(rawcodec.encode(pair.raw, pair.jpeg, quality="tone", verify=False))
    assert tone.layers["latents"] == 0
    assert tone.layers["tone"] == info.layers["tone"]
    assert info.psnr_db > tone.psnr_db + 1


def check_ladder(raw: Path, jpeg: Path) -> None:
    """Each quality takes more bytes, is nearer to the raw than the one before, and comes back."""
    found = {}
    for quality in QUALITIES:
        sidecar = rawcodec.encode(raw, jpeg, quality=quality, verify=False)
        found[quality] = rawcodec.inspect(sidecar)
        assert found[quality].quality == quality
        decoded = rawcodec.decode(jpeg, sidecar)
        assert decoded.digest().hex() == found[quality].mosaic_digest
    for less, more in pairwise(found.values()):
        assert less.bytes < more.bytes
    for less, more in pairwise(LEARNED):
        assert found[less].psnr_db < found[more].psnr_db
    assert found["tone"].psnr_db < found["medium"].psnr_db


def test_each_quality_is_better_than_the_one_before(crop: tuple[Path, Path]):
    """On a part of a real photo."""
    check_ladder(*crop)


@pytest.mark.slow
def test_each_quality_of_the_bundled_photo_is_better_than_the_one_before():
    check_ladder(ROOT / "examples" / "photo.dng", ROOT / "examples" / "photo.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["colorchart.dng", "NikonD1.nef", "GOPR0024.dng"])
@pytest.mark.parametrize("rendering", ["rt", "dt"])
def test_each_quality_of_a_real_photo_is_better_than_the_one_before(
    real: Real, name: str, rendering: str
):
    check_ladder(real(name), real(f"{Path(name).stem}.{rendering}.jpg"))


def test_medium_is_what_one_gets(tiny: Pair):
    assert rawcodec.inspect(rawcodec.encode(tiny.raw, tiny.jpeg)).quality == "medium"


def test_encoding_twice_gives_the_same_bytes(learnt: Pair):
    assert rawcodec.encode(learnt.raw, learnt.jpeg, verify=False) == learnt.sidecar


@pytest.mark.parametrize("level", [512, 6000, 16383])
@pytest.mark.parametrize("quality", ["low", "max"])
def test_an_empty_frame_comes_back(tmp_path: Path, level: int, quality: str):
    """A black frame, a grey one and a saturated one, without any noise."""
    raw = write_dng(
        tmp_path / "a.dng", np.full((66, 100), level, np.uint16), black=512, white=16000
    )
    grey = {512: 0, 6000: 160, 16383: 255}[level]
    Image.new("RGB", (100, 66), (grey,) * 3).save(tmp_path / "a.jpg", quality=92)
    sidecar = rawcodec.encode(raw, tmp_path / "a.jpg", quality=quality)
    rawcodec.decode(tmp_path / "a.jpg", sidecar)
    plain = rawcodec.encode(raw, tmp_path / "a.jpg", quality="tone")
    assert len(sidecar) < len(plain) + 300  # of 13,200 in the raw


# What must not matter


@pytest.mark.parametrize("threads", ["1", "2", "4", "many"])
def test_threads_do_not_change_what_is_decoded(
    learnt: Pair, threads: str, monkeypatch: pytest.MonkeyPatch
):
    expected = learnt.decode()
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert np.array_equal(learnt.decode(), expected)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_several_threads_encode_comes_back(
    learnt: Pair, threads: int, monkeypatch: pytest.MonkeyPatch
):
    """In one, too; and PyTorch is left with as many as it was told to use."""
    monkeypatch.setattr(latents, "BAND", 16)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    sidecar = rawcodec.encode(learnt.raw, learnt.jpeg)
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(torch.get_num_threads).result()
    assert (torch.get_num_threads(), new) == (threads, threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mosaic = rawcodec.decode(learnt.jpeg, sidecar)
    assert mosaic.digest().hex() == rawcodec.inspect(sidecar).mosaic_digest


def test_bands_do_not_change_what_is_decoded(learnt: Pair, monkeypatch: pytest.MonkeyPatch):
    expected = learnt.decode()
    for ours, theirs in ((5, 4), (64, 12), (1000, 1000)):
        monkeypatch.setattr(pipeline, "BAND", ours)
        monkeypatch.setattr(latents, "BAND", theirs)
        assert np.array_equal(learnt.decode(), expected)


DECODE = """
import hashlib, sys
import torch
import rawcodec
from rawcodec.model import kernels

kernel, jpeg, sidecar = sys.argv[1:]
if kernel != "best":
    kernels.best_kernel = lambda device: kernel
    torch.backends.mkldnn.enabled = False
mosaic = rawcodec.decode(jpeg, sidecar)
print(hashlib.sha256(mosaic.samples.astype("<u2").tobytes()).hexdigest())
print(kernels.best_kernel("cpu"), torch.get_num_threads(), torch.backends.mkldnn.enabled)
"""


def decoded_elsewhere(
    pair: Pair, folder: Path, threads: int, kernel: str = "best", **variables: str
) -> str:
    """The digest of what another process decodes."""
    (folder / "a.rmeta").write_bytes(pair.sidecar)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(Path(rawcodec.__file__).parents[1]),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", DECODE, kernel, str(pair.jpeg), "a.rmeta"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    digest, used = done.stdout.splitlines()
    if kernel == "best":
        assert used.endswith(f" {threads} True")
    else:
        assert used == f"{kernel} {threads} False"
    return digest


def digest_of(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.astype("<u2").tobytes()).hexdigest()


OLD = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}


@pytest.mark.parametrize(
    ("threads", "kernel", "variables"),
    [(4, "best", OLD), (2, "float32", {"ATEN_CPU_CAPABILITY": "default"})],
    ids=["an old processor", "without oneDNN"],
)
def test_another_process_decodes_the_same_bytes(
    learnt: Pair, tmp_path: Path, threads: int, kernel: str, variables: dict[str, str]
):
    expected = digest_of(learnt.decode())
    assert decoded_elsewhere(learnt, tmp_path, threads, kernel, **variables) == expected


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("instructions", ["", "SSE41", "AVX2", "AVX512_CORE"])
@pytest.mark.parametrize("kernel", ["best", "float32", "matrix"])
def test_every_machine_decodes_the_same_bytes(
    learnt: Pair, tmp_path: Path, threads: int, instructions: str, kernel: str
):
    variables = {"ONEDNN_MAX_CPU_ISA": instructions} if instructions else {}
    expected = digest_of(learnt.decode())
    assert decoded_elsewhere(learnt, tmp_path, threads, kernel, **variables) == expected


def test_cuda_decodes_and_encodes_for_everyone(learnt: Pair):
    if not torch.cuda.is_available():
        pytest.skip("there is none")
    samples = rawcodec.decode(learnt.jpeg, learnt.sidecar, device="cuda").samples
    assert np.array_equal(samples, learnt.decode())
    sidecar = rawcodec.encode(learnt.raw, learnt.jpeg, device="cuda")
    mosaic = rawcodec.decode(learnt.jpeg, sidecar, device="cpu")
    assert mosaic.digest().hex() == rawcodec.inspect(sidecar).mosaic_digest


# Damage that no checksum sees


def mutations(payload: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The payload of a chunk, altered: bits and bytes, cuts, more, noise."""
    rng = np.random.default_rng(seed)
    head = 9
    for number in range(count):
        data = bytearray(payload)
        kind = number % 8
        if kind in (0, 1, 2):  # bits; the head has its share
            start, stop = ((0, head), (head, head + 40), (head, len(data)))[kind]
            for _ in range(int(rng.integers(1, 3))):
                data[rng.integers(start, stop)] ^= 1 << int(rng.integers(8))
        elif kind == 3:  # a stretch of other bytes
            start = int(rng.integers(head, len(data)))
            size = int(rng.integers(1, 40))
            data[start : start + size] = rng.bytes(len(data[start : start + size]))
        elif kind == 4:  # cut, most often at a word
            cut = int(rng.integers(0, len(data)))
            del data[cut - (cut - head) % 4 if rng.random() < 0.7 and cut > head + 4 else cut :]
        elif kind == 5:  # longer
            data += rng.bytes(int(rng.choice([1, 4, 8, 400, 40_000])))
        elif kind == 6:  # noise behind a head that is right
            data[head:] = rng.bytes(4 * int(rng.integers(1, 2000)))
        else:  # words left out, or said twice
            start = head + 4 * int(rng.integers(0, (len(data) - head) // 4))
            data[start : start + 4] = data[start : start + 4] * int(rng.choice([0, 2]))
        yield bytes(data)


def check_mutations(pair: Pair, count: int, seed: int) -> None:
    expected = pair.decode()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for payload in mutations(payload_of(pair.sidecar, "LATN"), count, seed):
        started = time.thread_time()
        check_damaged(pair, rebuilt(pair.sidecar, "LATN", payload), expected)
        assert time.thread_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


def test_damage_behind_right_checksums_is_refused(tiny: Pair):
    """With one line; and what is not refused is right."""
    check_mutations(tiny, 60, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("pair", ["tiny", "learnt"])
def test_more_damage_behind_right_checksums_is_refused(
    request: pytest.FixtureRequest, pair: str, seed: int
):
    check_mutations(request.getfixturevalue(pair), 400, seed)


def test_damaged_planes_of_a_linear_raw_are_refused(tmp_path: Path):
    check_mutations(pair_of(tmp_path, (66, 90), ()), 24, seed=9)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 12, 13, 14])
def test_latents_cut_short_are_refused(tiny: Pair, size: int):
    payload = payload_of(tiny.sidecar, "LATN")
    for data in (payload[:size], bytes(size)):
        with pytest.raises((CorruptSidecarError, DigestError)) as caught:
            rawcodec.decode(tiny.jpeg, rebuilt(tiny.sidecar, "LATN", data))
        check_message(caught.value, "sidecar")


@pytest.mark.parametrize("rate", [33, 34, 127, 128, 255])
def test_a_rate_out_of_range_is_refused(tiny: Pair, rate: int):
    payload = bytes([rate]) + payload_of(tiny.sidecar, "LATN")[1:]
    with pytest.raises(CorruptSidecarError, match=f"the rate {rate} is not below 33") as caught:
        rawcodec.decode(tiny.jpeg, rebuilt(tiny.sidecar, "LATN", payload))
    check_message(caught.value, "sidecar")


@pytest.mark.parametrize("fine", [16, 128, 255])
def test_a_fine_gain_out_of_range_is_refused(tiny: Pair, fine: int):
    payload = payload_of(tiny.sidecar, "LATN")
    payload = payload[:1] + bytes([fine]) + payload[2:]
    with pytest.raises(CorruptSidecarError, match=f"fine gain {fine} is not below 16") as caught:
        rawcodec.decode(tiny.jpeg, rebuilt(tiny.sidecar, "LATN", payload))
    check_message(caught.value, "sidecar")


def test_another_rate_is_refused(tiny: Pair):
    payload = payload_of(tiny.sidecar, "LATN")
    for rate in {0, payload[0] - 1, payload[0] + 1, 32} - {payload[0]}:
        other = rebuilt(tiny.sidecar, "LATN", bytes([rate]) + payload[1:])
        with pytest.raises((CorruptSidecarError, DigestError)) as caught:
            rawcodec.decode(tiny.jpeg, other)
        check_message(caught.value, "sidecar")


def test_other_means_are_refused(tiny: Pair):
    payload, expected = payload_of(tiny.sidecar, "LATN"), tiny.decode()
    for channel in range(2, 10):
        for change in (1, 8, 128):
            data = bytearray(payload)
            data[channel] = (data[channel] + change) % 256
            check_damaged(tiny, rebuilt(tiny.sidecar, "LATN", bytes(data)), expected)


def test_the_latents_of_another_photo_are_refused(tiny: Pair, learnt: Pair):
    for mine, other in ((tiny, learnt), (learnt, tiny)):
        for kind in ("LATN", "TONE"):
            sidecar = rebuilt(mine.sidecar, kind, payload_of(other.sidecar, kind))
            with pytest.raises((CorruptSidecarError, DigestError)) as caught:
                rawcodec.decode(mine.jpeg, sidecar)
            check_message(caught.value, "sidecar")


def test_latents_and_a_model_come_together(tiny: Pair):
    kept = [chunk for chunk in container.read(tiny.sidecar) if chunk.type != "LATN"]
    with pytest.raises(CorruptSidecarError, match="has no latents for its model") as caught:
        rawcodec.decode(tiny.jpeg, container.write(kept))
    check_message(caught.value, "sidecar")
    plain = rawcodec.encode(tiny.raw, tiny.jpeg, quality="tone", verify=False)
    more = with_latents(plain, payload_of(tiny.sidecar, "LATN"))
    with pytest.raises(CorruptSidecarError, match="has latents without a model") as caught:
        rawcodec.decode(tiny.jpeg, more)
    check_message(caught.value, "sidecar")


# The weights


def test_an_unknown_model_is_named(tiny: Pair):
    sidecar = with_model(tiny.sidecar, "latent-99", bytes(range(16)), "high")
    with pytest.raises(ModelError, match=f"latent-99 .*{bytes(range(16)).hex()}") as caught:
        rawcodec.decode(tiny.jpeg, sidecar)
    check_message(caught.value, "sidecar")
    assert rawcodec.inspect(sidecar).model == "latent-99"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of weights, to be changed at will."""
    folder = tmp_path / "weights"
    shutil.copytree(weights.folder(), folder)
    monkeypatch.setattr(weights, "folder", lambda: folder)
    return folder


def file_of(folder: Path) -> Path:
    return folder / weights.models()[0].file


def test_weights_that_are_moved_decode_the_same(tiny: Pair, installed: Path):
    expected = Header.unpack(payload_of(tiny.sidecar, "HEAD")).mosaic_digest
    assert rawcodec.decode(tiny.jpeg, tiny.sidecar).digest() == expected
    assert file_of(installed).parent == installed


def test_altered_weights_are_told_by_both_hashes(tiny: Pair, installed: Path):
    data = bytearray(file_of(installed).read_bytes())
    data[-1] ^= 1
    file_of(installed).write_bytes(data)
    found, model = hashlib.sha256(data).hexdigest()[:32], weights.models()[0]
    with pytest.raises(ModelError) as caught:
        rawcodec.decode(tiny.jpeg, tiny.sidecar)
    check_message(caught.value, "sidecar")
    for part in (model.id, model.hash.hex(), found):
        assert part in str(caught.value)


def test_weights_that_are_missing_are_told(tiny: Pair, installed: Path):
    file_of(installed).unlink()
    with pytest.raises(ModelError, match="cannot be read; install rawcodec again") as caught:
        rawcodec.decode(tiny.jpeg, tiny.sidecar)
    check_message(caught.value, "sidecar")
    (installed / weights.MANIFEST).unlink()
    with pytest.raises(ModelError, match="cannot be read; install rawcodec again"):
        rawcodec.decode(tiny.jpeg, tiny.sidecar)


def reinstall(folder: Path, data: bytes) -> bytes:
    """Other weights under the model's name, with a manifest that is true; their hash."""
    file_of(folder).write_bytes(data)
    manifest = json.loads((folder / weights.MANIFEST).read_text())
    manifest["models"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / weights.MANIFEST).write_text(json.dumps(manifest))
    return hashlib.sha256(data).digest()[:16]


@pytest.mark.parametrize("size", [0, 500, 500_000])
def test_a_file_that_is_no_model_is_told(tiny: Pair, installed: Path, size: int):
    """Though the manifest and the sidecar name its hash."""
    data = np.random.default_rng(size).bytes(size)
    model_hash = reinstall(installed, data)
    sidecar = with_model(tiny.sidecar, weights.models()[0].id, model_hash)
    with pytest.raises(ModelError, match="is no model") as caught:
        rawcodec.decode(tiny.jpeg, sidecar)
    check_message(caught.value, "sidecar")
    assert str(file_of(installed)) in str(caught.value)


@pytest.mark.parametrize("fault", ["altered", "missing", "garbage"])
def test_nothing_is_encoded_with_damaged_weights(tiny: Pair, installed: Path, fault: str):
    """One line that starts with the file of the weights."""
    path = file_of(installed)
    if fault == "altered":
        path.write_bytes(path.read_bytes() + b"\0")
    elif fault == "missing":
        path.unlink()
    else:
        reinstall(installed, b"garbage")
    with pytest.raises(ModelError) as caught:
        rawcodec.encode(tiny.raw, tiny.jpeg)
    check_message(caught.value, path)
    assert rawcodec.encode(tiny.raw, tiny.jpeg, quality="tone", verify=False)


# The command line, and what is loaded


def launched(
    folder: Path, *arguments: str | Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """``rawcodec ARGUMENTS`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "rawcodec", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(rawcodec.__file__).parents[1])},
        timeout=timeout,
    )


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``rawcodec ARGUMENTS`` in a folder, without a word on standard error."""
    done = launched(folder, *arguments, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done


def test_the_command_line_makes_medium_and_tells(tiny: Pair, tmp_path: Path):
    done = run(tmp_path, "encode", tiny.raw, tiny.jpeg, "-o", "photo.rmeta")
    info = rawcodec.inspect(tmp_path / "photo.rmeta")
    assert info.layers["latents"] > 100
    line = re.escape(f"photo.rmeta: {info.bytes:,} bytes, {info.bpp:.4f} bpp, {info.psnr_db:.2f}")
    assert re.fullmatch(line + r" dB, \d+\.\d s\n", done.stdout)

    told = run(tmp_path, "info", "photo.rmeta").stdout
    assert re.search(rf"^  model +{re.escape(weights.models()[0].id)}$", told, re.MULTILINE)
    assert re.search(r"^  quality +medium, \d+\.\d\d dB, ", told, re.MULTILINE)
    assert f"latents {info.layers['latents']:,}" in told
    found = json.loads(run(tmp_path, "info", "--json", "photo.rmeta").stdout)
    assert found["model"] == weights.models()[0].id
    assert found["layers"] == info.layers

    done = run(tmp_path, "decode", "photo.rmeta", tiny.jpeg)
    assert done.stdout.endswith("exact: the digest matches\n")


LOADED = """
import json, sys
import rawcodec, rawcodec.cli
jpeg, raw, medium, tone, unknown = sys.argv[1:]
heavy = {"numpy", "torch", "rawpy", "PIL", "tifffile", "constriction", "safetensors"}
found = []
try:
    rawcodec.cli.main(["info", medium])
except SystemExit:
    found.append(sorted(heavy & set(sys.modules)))
sidecar = rawcodec.encode(raw, jpeg, quality="tone")
rawcodec.decode(jpeg, tone)
for task in (
    lambda: rawcodec.encode(jpeg, jpeg),
    lambda: rawcodec.encode(raw, jpeg, device="none"),
    lambda: rawcodec.decode(jpeg, jpeg),
    lambda: rawcodec.decode(jpeg, unknown),
):
    try:
        task()
    except rawcodec.errors.RawcodecError:
        pass
    else:
        raise SystemExit("not refused")
found.append(sorted({"torch", "safetensors"} & set(sys.modules)))
rawcodec.decode(jpeg, medium)
found.append(sorted({"torch", "safetensors"} & set(sys.modules)))
print(json.dumps(found))
"""


SIDECARS = ("medium.rmeta", "tone.rmeta", "unknown.rmeta")


def test_only_the_learned_layer_loads_torch(tiny: Pair, tmp_path: Path):
    """Neither info does, whatever the sidecar, nor the tone layer, nor what is refused at once."""
    unknown = with_model(tiny.sidecar, "latent-99", bytes(16))
    (tmp_path / "unknown.rmeta").write_bytes(unknown)
    (tmp_path / "medium.rmeta").write_bytes(tiny.sidecar)
    tone = rawcodec.encode(tiny.raw, tiny.jpeg, quality="tone", verify=False)
    (tmp_path / "tone.rmeta").write_bytes(tone)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, tiny.jpeg, tiny.raw, *SIDECARS],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(rawcodec.__file__).parents[1])},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[], [], ["safetensors", "torch"]]


class Loading:
    """What takes the place of loading packages: it ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()

    def import_module(self, name: str) -> None:
        assert threading.current_thread().daemon  # a process that is done does not wait for it
        self.begun.set()
        self.end.wait(20)
        self.end.set()


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    found = Loading()
    monkeypatch.setattr(pipeline, "importlib", found)
    yield found
    found.end.set()


def test_packages_are_loaded_beside_other_work(
    tiny: Pair, loading: Loading, monkeypatch: pytest.MonkeyPatch
):
    """From before the JPEG is read, which does not wait for them."""

    def read_jpeg(path: Path, _: object) -> None:
        assert loading.begun.wait(10)
        assert not loading.end.is_set()
        loading.begun.clear()
        raise JpegError(f"{path}: is read; stop here")

    monkeypatch.setattr(pipeline, "read_jpeg", read_jpeg)
    for task in (tiny.decode, lambda: rawcodec.encode(tiny.raw, tiny.jpeg)):
        with pytest.raises(JpegError, match="stop here"):
            task()


def test_packages_are_awaited_once_the_tone_layer_is_done(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
):
    rows: list[int] = []
    predict = pipeline.predict_band

    def predicted(tone: object, sensor: object, guide: object, top: int, *rest: object) -> None:
        predict(tone, sensor, guide, top, *rest)  # type: ignore[arg-type, call-arg]
        rows.append(top)

    def runner(*_: object) -> None:
        raise ModelError(f"asked for after {len(rows)} bands; stop here")

    monkeypatch.setattr(pipeline, "BAND", 10)
    monkeypatch.setattr(pipeline, "predict_band", predicted)
    monkeypatch.setattr(learned, "runner", runner)
    with pytest.raises(ModelError, match=r"^sidecar: asked for after 8 bands; "):
        tiny.decode()


def test_no_packages_are_loaded_for_nothing(tiny: Pair, loading: Loading):
    """For the tone layer, or for a raw or a sidecar that is wrong."""
    plain = rawcodec.encode(tiny.raw, tiny.jpeg, quality="tone")
    rawcodec.decode(tiny.jpeg, plain)
    unknown = with_model(tiny.sidecar, "latent-99", bytes(16))
    tasks: list[Callable[[], object]] = [
        lambda: rawcodec.encode(tiny.jpeg, tiny.jpeg),
        lambda: rawcodec.decode(tiny.jpeg, tiny.sidecar[:-1]),
        lambda: rawcodec.decode(tiny.jpeg, unknown),
    ]
    for task in tasks:
        with pytest.raises(RawcodecError):
            task()
    assert not loading.begun.is_set()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_wrong_jpeg_is_told_in_one_line(tiny: Pair, tmp_path: Path, command: str):
    """Though packages are being loaded when the process ends."""
    (tmp_path / "a.rmeta").write_bytes(tiny.sidecar)
    first = {"encode": tiny.raw, "decode": "a.rmeta"}[command]
    done = launched(tmp_path, command, first, "none.jpg", "-o", "out", timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "none.jpg: no such file; check the name\n"
    assert not (tmp_path / "out").exists()


# An installation without what the learned layer needs


def test_a_kernel_that_is_not_exact_is_never_used(tiny: Pair, monkeypatch: pytest.MonkeyPatch):
    """Another one decodes to the same; without any, it is said before anything is written."""
    expected = tiny.decode()
    exact = kernels.is_exact
    monkeypatch.setattr(
        kernels, "is_exact", lambda name, device="cpu": name != "int8" and exact(name, device)
    )
    used: list[str] = []

    class Watched(learned.Runner):
        def __init__(self, model: object, rate: int, kernel: str, device: str, fine: int) -> None:
            used.append(kernel)
            super().__init__(model, rate, kernel, device, fine)  # type: ignore[arg-type]

    monkeypatch.setattr(learned, "Runner", Watched)
    assert np.array_equal(tiny.decode(), expected)
    assert used == ["float32"]
    monkeypatch.setattr(kernels, "is_exact", lambda name, device="cpu": False)
    for task in (tiny.decode, lambda: rawcodec.encode(tiny.raw, tiny.jpeg)):
        with pytest.raises(RawcodecError, match=r"^device cpu: [^\n]*; [^\n]*$"):
            task()
