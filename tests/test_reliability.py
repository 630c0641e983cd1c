"""Damaged sidecars and killed commands: a few of what docs/RELIABILITY.md has thousands of."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from examples.benchmark import corruption, fuzzed, fuzzing, kills, memory  # noqa: E402
from examples.benchmark.corrupted import KINDS, mutated  # noqa: E402
from examples.benchmark.corruption import Damage  # noqa: E402
from examples.benchmark.fuzzing import Account  # noqa: E402
from examples.benchmark.kills import TASKS, Trial  # noqa: E402
from rawcodec.errors import CorruptSidecarError  # noqa: E402
from rawcodec.selftest.vectors import vectors  # noqa: E402
from rawcodec.stream import container  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"


def test_every_damaged_byte_and_every_truncation_is_refused() -> None:
    """Of the smallest golden sidecar, by its checksums alone."""
    data = (GOLDEN / "xtrans.rmeta").read_bytes()
    for kind in ("flips", "truncations"):
        for number in range(len(data)):
            with pytest.raises((CorruptSidecarError, container.VersionError)):
                container.read(KINDS[kind](data, number))


def test_mutations_reach_the_parsers() -> None:
    """Their checksums are right, they follow from their numbers, and they are not all alike."""
    data = (GOLDEN / "xtrans-max.rmeta").read_bytes()
    found = [mutated(data, number) for number in range(200)]
    assert found == [mutated(data, number) for number in range(200)]
    assert len(set(found)) > 190
    assert data not in found[:20]
    whole = 0
    for each in found:
        try:
            whole += bool(container.read(each))
        except CorruptSidecarError as error:
            assert "chunk" in str(error)
    assert whole > 150


def test_mutated_sidecars_end_in_errors_of_the_project() -> None:
    (vector,) = (each for each in vectors() if each.name == "xtrans")
    damage = Damage(vector.name, "mutations", list(corruption._cases(vector.name, "mutations", 40)))
    assert len(damage.cases) == 40
    assert damage.faults == []
    assert damage.slowest > 0


def test_the_page_of_damage_tells_what_should_not_have_been() -> None:
    fine = {"number": 1, "outcome": "DigestError", "fine": True, "seconds": 0.1}
    slow = {**fine, "number": 2, "seconds": corruption.LIMIT + 1}
    escaped = {**fine, "number": 3, "outcome": "ESCAPED: KeyError: 1", "fine": False}
    assert "None of 1 damaged" in corruption.write([Damage("one", "flips", [fine])])
    text = corruption.write([Damage("one", "flips", [fine, slow, escaped])])
    assert "**2 of 3 damaged sidecars did something else.**" in text
    assert "- one, flips 3: ESCAPED: KeyError: 1" in text


def test_what_a_fuzzer_changes_reaches_the_parsers() -> None:
    """Checksums are right in nearly all, and what is no sidecar is the fuzzer's alone."""
    data = (GOLDEN / "xtrans.rmeta").read_bytes()

    def mutate(payload: bytes, longest: int) -> bytes:
        return payload[: longest - 1] + b"!"

    made = [fuzzed.changed(data, 4000, seed, mutate) for seed in range(200)]
    assert made == [fuzzed.changed(data, 4000, seed, mutate) for seed in range(200)]
    whole = 0
    for each in made:
        with contextlib.suppress(CorruptSidecarError):
            whole += bool(container.read(each))
    assert whole > 150
    assert fuzzed.changed(b"no sidecar", 4000, 0, mutate) == b"no sidecar!"


def test_a_fuzzer_runs_and_tells(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install '.[fuzz]'")
    (tmp_path / "scratch").mkdir()
    fuzzing.run_all(tmp_path, tmp_path / "scratch", tmp_path / "found", minutes=0.1)
    text = (tmp_path / "fuzz.md").read_text()
    assert "inputs did anything but end in one of rawcodec's own errors" in text
    assert "| CorruptSidecarError |" in text


def test_what_a_fuzzer_finds_is_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = fuzzed.Watch(tmp_path)
    monkeypatch.setattr(fuzzed, "_jpeg", lambda _: GOLDEN / "xtrans.jpg")
    watch.one(b"no sidecar")
    monkeypatch.setattr(fuzzed, "_jpeg", lambda _: {}[0])
    watch.one(b"strange")
    (kept,) = tmp_path.glob("*.rmeta")
    assert kept.read_bytes() == b"strange"
    assert "KeyError" in kept.with_suffix(".txt").read_text()
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["outcomes"] == {"CorruptSidecarError": 1, "ESCAPED: KeyError": 1}
    account = Account(Counter(told["outcomes"]), edges=[1, 2])
    pytest.importorskip("atheris", reason="atheris is not installed: pip install '.[fuzz]'")
    assert "**1 of 2 inputs did something else.**" in fuzzing.write(account, 1, 2)


@pytest.mark.parametrize("number", [0, 4])
def test_a_killed_command_leaves_nothing_broken(number: int, tmp_path: Path) -> None:
    trial = kills._trial(TASKS[number], tmp_path / "trial", 1.5, group=False)
    assert trial.fault == ""


def test_what_a_kill_broke_would_be_seen(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.rmeta"
    shutil.copy(GOLDEN / "xtrans-max.rmeta", sidecar)
    assert kills._fault(sidecar) == ""
    sidecar.write_bytes(sidecar.read_bytes()[:-100])
    assert f"a.rmeta ({sidecar.stat().st_size} bytes, " in kills._fault(sidecar)
    sources = {sidecar: b"what it was"}
    assert kills._changed(sources, set()) == ["a.rmeta was changed"]
    assert kills._changed(sources, {sidecar}) == []
    broken = Trial(TASKS[0], 0.5, False, 1, 0, "it broke")
    assert "**1 of 1 trials went wrong.**" in kills.write([broken])
    assert "- encode, after 0.50 s: it broke" in kills.write([broken])


def test_a_photo_of_pieces_is_encoded_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its JPEG shows it, site by site, and what it took is on the page."""
    monkeypatch.setitem(memory.SIZES, 12, (600, 820))
    memory.run_all(tmp_path / "out", tmp_path / "work", [12])
    text = (tmp_path / "out" / "memory.md").read_text()
    for command in ("encode", "decode"):
        found = re.search(rf"\| 0\.5 \| `{command}` \| (\d+) \| - \| (\d+) \|", text)
        assert found is not None
        taken, supposed = map(int, found.groups())
        assert taken < supposed  # a batch would reserve enough
    assert list((tmp_path / "work").iterdir()) == []


def test_the_page_of_memory_tells_what_is_beyond_the_bar() -> None:
    small = memory.Measured(12.0, "encode", 700.0, 770.0, 20.0, 36.0)
    large = memory.Measured(60.2, "encode", 1499.9, 1600.0, 100.0, 361.2)
    text = memory.write([small, large])
    assert "| 12.0 | `encode` | 700 | - | 770 | 32.5 | 20.0 | 36.0 | 1.00 |" in text
    assert (
        "| 60.2 | `encode` | 1,500 | yes (1,500 MB) | 1,600 | 19.8 | 100.0 | 361.2 | 2.00 |" in text
    )
    assert "| **NO** (1,500 MB) |" in memory.write([replace(large, megabytes=1500.0)])
