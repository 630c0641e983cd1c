"""The pages about order, filters and size that the benchmark writes, made of the bundled photo."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # ``examples`` is not installed

import rawcodec  # noqa: E402
from examples.benchmark import ahead, order, target  # noqa: E402
from examples.benchmark.pairs import Pair  # noqa: E402
from rawcodec.errors import RawcodecError  # noqa: E402
from rawcodec.model.latents import PlaneCodec  # noqa: E402

PHOTO, JPEG = ROOT / "examples" / "photo.dng", ROOT / "examples" / "photo.jpg"
BUNDLED = Pair("photo", "rt", PHOTO, JPEG)


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


def test_other_orders_are_read_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder checks what it wrote with the same order, and no order is that of the codec."""
    usual = rawcodec.encode(PHOTO, JPEG, quality="low")
    monkeypatch.setattr(PlaneCodec, "know", order.ordered(order.ORDERS["learned"]))
    assert rawcodec.encode(PHOTO, JPEG, quality="low", verify=False) == usual
    monkeypatch.undo()
    for name in ("random", "chessboard", "one step"):
        with monkeypatch.context() as patched:
            patched.setattr(PlaneCodec, "know", order.ordered(order.ORDERS[name]))
            other = rawcodec.encode(PHOTO, JPEG, quality="low")
        assert other != usual
        with pytest.raises(RawcodecError):
            rawcodec.decode(JPEG, other)


def test_the_page_of_orders_has_every_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(order, "QUALITIES", ("low",))
    order.run_all([BUNDLED], tmp_path)
    (row,) = re.findall(r"^\| photo \| RawTherapee \| `low` \|(.*)\|$", *read(tmp_path, "order.md"))
    bits = [float(cell.split("/")[0]) for cell in row.split("|")]
    assert len(bits) == len(order.ORDERS)
    assert max(bits) < 1.2 * min(bits)
    learned = rawcodec.inspect(rawcodec.encode(PHOTO, JPEG, quality="low", verify=False)).bpp
    assert bits[0] == pytest.approx(learned, abs=1e-4)


def test_the_page_of_filters_has_every_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each differs from the one before, and the last is the codec as it is."""
    monkeypatch.setattr(ahead, "QUALITIES", ("high",))
    ahead.run_all([BUNDLED], tmp_path)
    (text, flags) = read(tmp_path, "ahead.md")
    (row,) = re.findall(r"^\| photo \| RawTherapee \| `high` \|(.*)\|$", text, flags)
    found = [cell.strip() for cell in row.split("|")]
    assert len(set(found)) == len(found) == len(ahead.WAYS)
    usual = rawcodec.inspect(rawcodec.encode(PHOTO, JPEG, quality="high", verify=False))
    assert found[-1] == f"{usual.bpp:.4f} / {usual.psnr_db:.2f}"
    assert "against none: grids " in text
    assert "; and the filter after " in text


def test_the_page_of_sizes_tells_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(target, "TARGETS", {0.3: "medium"})
    target.run_all([BUNDLED], tmp_path, tmp_path)
    (text, _) = read(tmp_path, "target.md")
    rows = re.findall(r"`(--\S+) (\S+)` \| (\S+)% \| (\S+) \|", text)
    assert [option for option, *_ in rows] == ["--bpp", "--max-bytes"]
    assert abs(float(rows[0][2])) < 100
    assert float(rows[1][2]) <= 0  # never exceeded
    assert all(0 < float(row[3]) < 10 for row in rows)
    assert f"the farthest is {abs(float(rows[0][2])):.1f}% off" in text


def test_the_page_of_sizes_says_what_was_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(target, "TARGETS", {0.0001: "low", 0.3: "low"})
    target.run_all([BUNDLED], tmp_path, tmp_path)
    (text, _) = read(tmp_path, "target.md")
    assert text.count("refused: ") == 2
    assert "Of 1 encodings with `--bpp`" in text


def read(folder: Path, name: str) -> tuple[str, int]:
    """A page, and the flags that patterns are looked for with."""
    return (folder / name).read_text(encoding="utf-8"), re.MULTILINE
