"""``rawcodec selftest``: golden sidecars decode to what they should, or the user is told."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import ENVIRONMENT, rawcodec_

from rawcodec.errors import RawcodecError
from rawcodec.selftest import run as runs
from rawcodec.selftest import vectors as found_in
from rawcodec.selftest.settings import DEFAULT, Setting
from rawcodec.selftest.vectors import NAMES, vectors


def test_this_machine_is_exact(tmp_path: Path) -> None:
    done = rawcodec_("selftest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split()[:5] == ["default", "exact", "3", "of", "3"]


def test_settings_are_told_as_json(tmp_path: Path) -> None:
    done = rawcodec_("selftest", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert first["setting"] == "default"
    assert (first["exact"], first["count"], first["fault"]) == (len(NAMES), len(NAMES), None)


@pytest.mark.parametrize(
    ("setting", "kernel"),
    [
        (Setting("float32", (), ("--kernel", "float32")), "float32"),
        (Setting("bands", (("OMP_NUM_THREADS", "1"),), ("--band", "20")), None),
    ],
)
def test_settings_take_effect_and_are_exact(setting: Setting, kernel: str | None) -> None:
    tested = runs._tested(setting)
    assert (tested.exact, tested.count, tested.fault) == (len(NAMES), len(NAMES), "")
    if kernel is not None:
        assert tested.kernel == kernel


def test_what_differs_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = vectors()
    wrong = replace(first, digest=16 * "00")
    monkeypatch.setattr(runs, "vectors", lambda: (wrong, *others))
    tested = runs._tested(DEFAULT)
    assert tested.exact == len(NAMES) - 1
    assert tested.fault == f"{first.name} decodes to something else"


def test_a_decoder_that_breaks_is_a_fault() -> None:
    tested = runs._tested(Setting("none", (), ("--kernel", "no such kernel")))
    assert tested.exact == 0
    assert tested.fault.startswith("ended with code 1: KeyError")


def test_a_machine_that_is_not_exact_is_told_and_fails(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from rawcodec.selftest import run\n"
        "from rawcodec.selftest.settings import DEFAULT\n"
        "run.run = lambda everything: iter([run.Tested(DEFAULT, 2, 3, '', 1.0, 'it differs')])\n"
        "from rawcodec.cli import main\n"
        "main(['selftest', *sys.argv[1:]])\n"
    )
    for option in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *option],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("default: it differs; ")
        assert len(done.stderr.splitlines()) == len(done.stdout.splitlines()) == 1


def test_missing_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for vector in vectors():
        for file in (vector.jpeg, vector.sidecar, vector.sidecar.with_name("golden.json")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert [each.name for each in found_in._in(tmp_path)] == list(NAMES)
    (tmp_path / "xtrans.jpg").unlink()
    with pytest.raises(RawcodecError, match=r"xtrans.jpg: is missing; install rawcodec again"):
        found_in._in(tmp_path)
    (tmp_path / "golden.json").write_text("{}")
    with pytest.raises(RawcodecError, match=r"golden.json: cannot be read; install"):
        found_in._in(tmp_path)
