"""From a checkpoint to the integers that are shipped, certified; and their manifest entry."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from rawcodec.errors import ModelError
from rawcodec.model.analysis import between_anchors
from rawcodec.model.config import LAYERS, MEAN_UNIT, RATES, SCALE_MIN, SCALE_OCTAVES, SCALES
from rawcodec.model.store import COMPANDED, DOMAIN, FORMAT, certify, load_model
from rawcodec.model.tables import HALVES, SILENT, TOTAL

from .fit import CHECKPOINT, LOG, VALIDATION_RATES, averaged, read_checkpoint, read_log
from .model import TrainingCodec, base_step
from .qat import UNIT, QatConv

SILENT_BELOW = 0.1
"""Standard deviations below this are not coded: latents are their rounded means.

At low rates more than nine latents in ten have a smaller one, and almost none
of them is anything but zero; leaving them out saves the time of coding them.
"""

LICENCE = "Apache-2.0"

QUALITIES = {"low": 12, "medium": 16, "high": 19, "max": 22}
"""The rates of a model's qualities, where the manifest does not have it yet."""

_INT32_MAX = 2**31 - 1


def integers(conv: QatConv, name: str) -> dict[str, Tensor]:
    """The arrays of one layer, as ``store.certify`` wants them; ValueError if it refuses them.

    weight: int8 (outputs, inputs, k, k). shift: uint8 (outputs,). bias: int32
    (1 or 33, outputs).
    """
    if not all(bool(torch.isfinite(part).all()) for part in conv.parameters()):
        raise ValueError(f"{name}: a weight or a bias is not finite")
    rates = torch.arange(RATES).float() if conv.layer.conditioned else torch.zeros(1)
    with torch.no_grad():
        shift = conv.shifts()
        grid = torch.exp2(shift)
        weight, bias = conv.rounded(rates)
        weight = (weight * grid[:, None, None, None]).round()
        # what stands for zero in signed inputs is taken off here
        zero = (conv.zero * UNIT).expand(conv.layer.inputs, 1, 1)
        bias = (bias.double() * grid).round() - (weight.double() * zero).sum((1, 2, 3))
    arrays = {
        "weight": weight.to(torch.int8).contiguous(),
        "shift": shift.to(torch.uint8),
        # what does not fit 32 bits must not wrap to what the certificate allows
        "bias": bias.clamp(-_INT32_MAX, _INT32_MAX).to(torch.int32).contiguous(),
    }
    certify(name, conv.layer, arrays["weight"], arrays["shift"], arrays["bias"])
    return arrays


def scales() -> np.ndarray:
    """The standard deviations, float64 (64,)."""
    deviations: np.ndarray = SCALE_MIN * 2.0 ** (np.arange(SCALES) * SCALE_OCTAVES / (SCALES - 1))
    return deviations


def tables(tail: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of all scales, uint8 (64,), and their frequencies, uint16: see ``Tables``.

    tail: as ``model.FIRST_TAIL``.
    """
    sizes = np.empty(SCALES, np.uint8)
    rows: list[np.ndarray] = []
    for scale, sigma in enumerate(scales()):
        if sigma < SILENT_BELOW:
            sizes[scale] = SILENT
            continue
        enough = [n for n, half in enumerate(HALVES) if half >= 5 * sigma + 1]
        sizes[scale] = enough[0] if enough else len(HALVES) - 1
        half = HALVES[sizes[scale]]
        means = [(f - MEAN_UNIT // 2) / MEAN_UNIT for f in range(MEAN_UNIT)]
        rows += [_row(sigma, mean, half, tail) for mean in means]
    return sizes, np.concatenate(rows).astype(np.uint16)


def _row(sigma: float, mean: float, half: int, tail: tuple[float, float]) -> np.ndarray:
    """Frequencies of -half..half; what is left of ``TOTAL``, at least one, is the escape's."""
    edges = np.arange(-half, half + 2) - 0.5 - mean

    def below(s: float) -> np.ndarray:
        return np.array([0.5 * math.erfc(-edge / (s * math.sqrt(2))) for edge in edges])

    weight, wider = 2.0 ** tail[0], 2.0 ** tail[1]
    mass = np.diff((1 - weight) * below(sigma) + weight * below(wider * sigma))
    spare = TOTAL - len(mass) - 1
    return 1 + np.floor(mass * spare).astype(np.int64)


def export(codec: TrainingCodec, path: Path) -> None:
    """Write a weights file; ValueError, and no file, where it could not be loaded.

    Above all, where a layer cannot be certified: see ``store.certify``. The file
    depends on the weights alone, byte for byte.
    """
    arrays: dict[str, Tensor] = {}
    for name in LAYERS:
        for part, array in integers(codec.layers[name], name).items():
            arrays[f"{name}.{part}"] = array
    arrays |= _quantisation(codec) | _domain(codec.exponent)
    weight, wider = codec.tail.tolist()
    sizes, frequencies = tables((weight, wider))
    arrays["tables.sizes"] = torch.from_numpy(sizes)
    arrays["tables.frequencies"] = torch.from_numpy(frequencies)
    for name, array in codec.hyper_analysis.state_dict().items():
        arrays[f"hyper_analysis.{name}"] = array.to(torch.float16).contiguous()
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(save(arrays, {"format": FORMAT}))
        load_model(scratch)
        scratch.replace(path)
    except ModelError as error:
        raise ValueError(str(error.__cause__)) from error
    finally:
        scratch.unlink(missing_ok=True)


def _quantisation(codec: TrainingCodec) -> dict[str, Tensor]:
    """Steps, int32 (33, 16); scales of hyper-latents, uint8 (33, 8); int16 (2, 64, 64)."""
    every = torch.arange(RATES).float()
    with torch.no_grad():
        gains = torch.exp2(between_anchors(codec.gains, every).double())
        steps = (base_step(every)[:, None] * gains).round().clamp(min=1)
        spread = codec.hyper_scales_at(every).round()
    return {
        "steps": steps.to(torch.int32),
        "hyper_scale": spread.to(torch.uint8),
        "pattern": codec.pattern.to(torch.int16),
    }


def _domain(exponent: float) -> dict[str, Tensor]:
    """The tables between companded values and the residual's domain: uint16 (46341,), (65536,)."""
    power, unit = 2 * exponent, float(1 << 15)
    forward = unit * (np.arange(COMPANDED) / unit) ** power
    back = unit * (np.arange(DOMAIN) / unit) ** (1 / power)
    forward = np.minimum(np.rint(forward), DOMAIN - 1)
    back = np.minimum(np.rint(back), COMPANDED - 1)
    return {
        "forward": torch.from_numpy(forward.astype(np.uint16)),
        "back": torch.from_numpy(back.astype(np.uint16)),
    }


def export_run(
    run: Path, out: Path, model_id: str, trained_by: tuple[str, ...] = (), data: str = ""
) -> dict[str, Any]:
    """Export the average of a run's checkpoint; its manifest entry.

    trained_by: the commands, and data: what it was trained on, where the
    checkpoint does not say.

    Raises FileNotFoundError if there is no checkpoint, ValueError where a layer
    cannot be certified, or where nothing says how it was trained.
    """
    state = read_checkpoint(run / CHECKPOINT)
    calls = state.get("calls", [])
    if not calls or calls[0]["step"] != 0:
        if not (trained_by and data):
            raise ValueError(
                f"{run / CHECKPOINT}: does not say how its training began; "
                f"give --trained-by and --data"
            )
    else:
        trained_by, data = trained_by or commands(calls), data or description(calls)
    try:
        export(averaged(state), out)
    except ValueError as error:
        raise ValueError(f"{run / CHECKPOINT}: cannot be exported: {error}") from error
    return {
        "id": model_id,
        "file": out.name,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "licence": LICENCE,
        "qualities": QUALITIES,
        "trained_by": list(trained_by),
        "data": data,
        "steps": state["step"],
        "minutes": round(state["spent"] / 60, 1),
        "curve": curve(run / LOG, state["step"]),
    }


def commands(calls: list[dict[str, Any]]) -> tuple[str, ...]:
    """The commands that made the frames and trained on them; FRAMES and RUN stand for folders."""
    found: dict[str, None] = {}  # in order, each once: a call that only went on says nothing new
    for call in calls:
        about = call["data"]
        if len(about["seeds"]) == len(about["sizes"]) == 1:  # else it took several
            found[
                f"python -m examples.train pairs --photos ../shared/data/photos --out FRAMES "
                f"--frames {about['frames']} --seed {about['seeds'][0]} --size {about['sizes'][0]}"
            ] = None
        found[
            f"python -m examples.train fit --frames FRAMES --run RUN "
            f"--minutes {call['minutes']:g} --patches {call['patches']} "
            f"--rate {call['highest_rate']:g} --seed {call['seed']} "
            f"--exponent {call['exponent']:g} --precision {call['precision']} "
            f"--device {call['device']}" + (" --start OTHER" if call.get("start") else "")
        ] = None
    return tuple(found)


def description(calls: list[dict[str, Any]]) -> str:
    """What the frames of the last call are, in words."""
    about = calls[-1]["data"]
    sizes, seeds = (" and ".join(str(n) for n in about[name]) for name in ("sizes", "seeds"))
    return (
        f"{about['frames']} synthetic pairs of raw and JPEG, {sizes} sites a side, made from "
        f"{about['photographs']} photographs with seed {seeds}"
    )


def curve(log: Path, step: int) -> dict[str, list[float]]:
    """Bits per site and dB at some rates, of held-out synthetic pairs, as logged at a step."""
    found = [line for line in read_log(log) if "validation_bits" in line and line["step"] == step]
    if not found:
        return {}
    bits, decibels = found[-1]["validation_bits"], found[-1]["validation_db"]
    return {"rates": list(VALIDATION_RATES), "bits_per_site": bits, "db": decibels}


def insert(manifest: Path, entry: dict[str, Any]) -> None:
    """Put an entry into a manifest, in the place of that with its id, whose qualities stay."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    models = content["models"]
    at = next((n for n, model in enumerate(models) if model["id"] == entry["id"]), len(models))
    if at < len(models):
        entry = entry | {"qualities": models[at]["qualities"]}
    models[at : at + 1] = [entry]
    scratch = manifest.with_name(f".{manifest.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    scratch.replace(manifest)
