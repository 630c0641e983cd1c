"""Finds the weights that sidecars name.

They lie in a folder ``weights`` with a MANIFEST.json: inside the package when
it was installed from a wheel, beside it in a checkout.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import ModelError

MANIFEST: Final = "MANIFEST.json"
MANIFEST_VERSION: Final = 1


@dataclass(frozen=True)
class Model:
    """An entry of the manifest.

    id: what sidecars call it; never given to other weights.
    file: the weights' name in the folder.
    sha256: of that file, 64 hexadecimal digits.
    qualities: the rate, 0..32, that each quality beyond ``tone`` stands for.
    """

    id: str
    file: str
    sha256: str
    qualities: dict[str, int]

    @property
    def hash(self) -> bytes:
        """What stands in sidecars: the first 16 bytes of the SHA-256."""
        return bytes.fromhex(self.sha256)[:16]


def folder() -> Path:
    """The folder of the weights; ModelError if the installation has none."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "weights", package.parent / "weights"):
        if (candidate / MANIFEST).is_file():
            return candidate
    raise ModelError(f"{package}: the folder of the weights is missing; install rawcodec again")


def models() -> tuple[Model, ...]:
    """The installed models, that for new sidecars first; ModelError if there is no manifest."""
    path = folder() / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["manifest_version"] != MANIFEST_VERSION:
            raise ValueError("another version")
        return tuple(_model(entry) for entry in manifest["models"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read; install rawcodec again") from error


def require_model(model_id: str, sha256_prefix16: bytes) -> Path:
    """The file of the weights with this id and hash.

    sha256_prefix16: first 16 bytes of SHA-256 over the file, as sidecars have it.

    Raises ModelError if they are not installed or are other ones. Its message
    has no file name: whoever read the sidecar puts it in front.
    """
    wanted = f"the model {model_id} (hash {sha256_prefix16.hex()})"
    model = next((model for model in models() if model.id == model_id), None)
    if model is None:
        raise ModelError(f"needs {wanted}, which is not installed; install a newer rawcodec")
    path = folder() / model.file
    try:
        # The file and not the manifest is asked: it is what decoding uses.
        found = hashlib.sha256(path.read_bytes()).digest()[:16]
    except OSError as error:
        raise ModelError(
            f"needs {wanted}, whose file {path} cannot be read; install rawcodec again"
        ) from error
    if found != sha256_prefix16:
        raise ModelError(
            f"needs {wanted}, but the installed one has the hash {found.hex()}; "
            f"install the rawcodec that wrote the sidecar"
        )
    return path


def installed_model(model: Model) -> Path:
    """The file of a model of the manifest, to write new sidecars with.

    Raises ModelError, with the file's name in front, if it is missing or altered.
    """
    try:
        return require_model(model.id, model.hash)
    except ModelError as error:
        raise ModelError(f"{folder() / model.file}: {error}") from error


def _model(entry: dict[str, Any]) -> Model:
    qualities = {str(name): int(rate) for name, rate in entry["qualities"].items()}
    model = Model(str(entry["id"]), str(entry["file"]), str(entry["sha256"]), qualities)
    if len(model.hash) != 16:
        raise ValueError("a hash is too short")
    if Path(model.file).name != model.file:
        raise ValueError(f"the weights {model.file!r} are not in the folder")
    return model
