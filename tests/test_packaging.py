"""The wheel holds what an installation needs, and works outside the checkout."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rawcodec import weights
from rawcodec.errors import ModelError, QualityError
from rawcodec.pipeline import quality_model
from rawcodec.selftest.vectors import vectors
from rawcodec.stream.header import QUALITIES
from rawcodec.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ["golden.json", *(file.name for v in vectors() for file in (v.jpeg, v.sidecar))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("the build backend hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", str(folder), str(ROOT)], check=True)
    (path,) = folder.iterdir()
    return path


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"rawcodec-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rawcodec").rglob("*.py")}
    assert modules <= names
    assert {f"rawcodec/weights/{model.file}" for model in weights.models()} <= names
    assert {"rawcodec/py.typed", "rawcodec/weights/MANIFEST.json"} <= names
    golden = {Path(f"rawcodec/golden/{file}") for file in GOLDEN}
    assert golden <= set(map(Path, names))
    information = f"rawcodec-{VERSION}.dist-info/"
    assert information + "licenses/LICENSE" in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"rawcodec", information.rstrip("/")}


def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import rawcodec.weights as w\n"
        "print(w.__file__, w.folder())\n"  # the module, not the folder of its name
        "from rawcodec.selftest.vectors import vectors\n"
        "assert all(v.sidecar.parent.name == 'golden' for v in vectors())\n"
        "from rawcodec.model.store import load_model\n"
        "models = [load_model(w.require_model(m.id, m.hash)) for m in w.models()]\n"
        "print(*[(m.id, model.steps.shape) for m, model in zip(w.models(), models)])"
    )
    # -I leaves out the working directory and PYTHONPATH.
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    package = tmp_path.resolve() / "rawcodec"
    assert done.stdout.split()[0] == str(tmp_path / "rawcodec" / "weights.py")
    assert done.stdout.split()[1] == str(package / "weights")
    assert done.stdout.count("torch.Size([33, 4])") == len(weights.models())


def test_the_manifest_of_the_checkout_is_true() -> None:
    assert weights.folder() in (ROOT / "weights", ROOT / "rawcodec" / "weights")
    for model in weights.models():
        data = (weights.folder() / model.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == model.sha256
        assert model.hash == hashlib.sha256(data).digest()[:16]


def test_the_checkout_has_a_model_for_every_quality() -> None:
    """More bits with each quality."""
    newest = weights.models()[0]
    assert tuple(newest.qualities) == QUALITIES[1:]
    rates = list(newest.qualities.values())
    assert rates == sorted(set(rates))
    assert rates[0] >= 0
    assert rates[-1] <= 32
    assert quality_model("tone") is None
    for quality in QUALITIES[1:]:
        assert quality_model(quality) == newest


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with one model, ``m-1``."""
    (tmp_path / "m-1.safetensors").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    entry = {
        "id": "m-1",
        "file": "m-1.safetensors",
        "sha256": sha256,
        "qualities": {"high": 9},
        "licence": "Apache-2.0",
    }
    manifest = {"manifest_version": weights.MANIFEST_VERSION, "models": [entry]}
    (tmp_path / weights.MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    return tmp_path


def test_a_model_is_found_by_id_and_hash(installed: Path) -> None:
    prefix = hashlib.sha256(b"weights").digest()[:16]
    assert weights.require_model("m-1", prefix) == installed / "m-1.safetensors"


def test_a_quality_has_the_model_that_names_it(installed: Path) -> None:
    (model,) = weights.models()
    assert model.qualities == {"high": 9}
    assert quality_model("high") == model
    with pytest.raises(QualityError, match="quality low: needs a model"):
        quality_model("low")


def test_a_model_that_is_missing_or_another_is_refused(installed: Path) -> None:
    prefix = hashlib.sha256(b"weights").digest()[:16]
    with pytest.raises(ModelError) as raised:
        weights.require_model("m-2", prefix)
    assert str(raised.value) == (
        f"needs the model m-2 (hash {prefix.hex()}), which is not installed; "
        "install a newer rawcodec"
    )
    with pytest.raises(ModelError, match=f"the installed one has the hash {prefix.hex()}"):
        weights.require_model("m-1", bytes(16))
    (installed / "m-1.safetensors").write_bytes(b"changed")
    with pytest.raises(ModelError, match="the installed one has the hash"):
        weights.require_model("m-1", prefix)
    (installed / "m-1.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read; install rawcodec again"):
        weights.require_model("m-1", prefix)


def manifest_of(manifest_version: int = 1, **changed: object) -> str:
    """A manifest with one model, as it should be but for what is changed."""
    entry = {"id": "a", "file": "a", "sha256": "ab" * 32, "qualities": {"low": 1}} | changed
    return json.dumps({"manifest_version": manifest_version, "models": [entry]})


def test_what_a_manifest_has_to_say(installed: Path) -> None:
    (installed / weights.MANIFEST).write_text(manifest_of())
    (model,) = weights.models()
    assert (model.id, model.file, model.qualities) == ("a", "a", {"low": 1})
    assert model.hash == b"\xab" * 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        manifest_of(manifest_version=2),
        manifest_of(file="../a"),
        manifest_of(file="/etc/passwd"),
        manifest_of(sha256=""),
        manifest_of(sha256="ab" * 15),
        manifest_of(sha256="no digits"),
        manifest_of(qualities=None),
        manifest_of(qualities=["low"]),
        manifest_of(qualities={"low": "much"}),
    ],
)
def test_a_damaged_manifest_is_told(installed: Path, text: str) -> None:
    (installed / weights.MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="cannot be read; install rawcodec again"):
        weights.models()
