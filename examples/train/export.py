"""From a checkpoint to the integers that are shipped, certified."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from rawcodec.model.analysis import between_anchors
from rawcodec.model.config import (
    LAYERS,
    MEAN_UNIT,
    RATES,
    SCALE_MIN,
    SCALE_OCTAVES,
    SCALES,
    ZERO,
)
from rawcodec.model.store import COMPANDED, DOMAIN, certify
from rawcodec.model.tables import HALVES, SILENT, TOTAL

from .model import TAIL, TrainingCodec, base_step
from .qat import QatConv

SILENT_BELOW = 0.1
"""Standard deviations below this are not coded: at most one latent in 10,000 would differ."""


def integers(conv: QatConv, name: str) -> dict[str, Tensor]:
    """The arrays of one layer; ValueError if they cannot be certified."""
    rates = torch.arange(RATES).float() if conv.layer.conditioned else torch.zeros(1)
    with torch.no_grad():
        shift = conv.shifts()
        grid = torch.exp2(shift)
        weight, bias = conv.rounded(rates)
        weight = (weight * grid[:, None, None, None]).round()
        # what stands for zero in signed inputs is taken off here
        zero = (conv.zero * 32).expand(conv.layer.inputs, 1, 1)
        bias = (bias.double() * grid).round() - (weight.double() * zero).sum((1, 2, 3))
    arrays = {
        "weight": weight.to(torch.int8).contiguous(),
        "shift": shift.to(torch.uint8),
        "bias": bias.to(torch.int32).contiguous(),
    }
    certify(name, conv.layer, arrays["weight"], arrays["shift"], arrays["bias"])
    return arrays


def scales() -> np.ndarray:
    """The standard deviations, float64 (64,)."""
    return SCALE_MIN * 2.0 ** (np.arange(SCALES) * SCALE_OCTAVES / (SCALES - 1))


def tables() -> tuple[np.ndarray, np.ndarray]:
    """The sizes of all scales, and their frequencies: see ``Tables.unpack``."""
    sizes = np.empty(SCALES, np.uint8)
    rows: list[np.ndarray] = []
    for scale, sigma in enumerate(scales()):
        if sigma < SILENT_BELOW:
            sizes[scale] = SILENT
            continue
        enough = [n for n, half in enumerate(HALVES) if half >= 5 * sigma + 1]
        sizes[scale] = enough[0] if enough else len(HALVES) - 1
        half = HALVES[sizes[scale]]
        rows += [_row(sigma, (f - MEAN_UNIT // 2) / MEAN_UNIT, half) for f in range(MEAN_UNIT)]
    return sizes, np.concatenate(rows).astype(np.uint16)


def _row(sigma: float, mean: float, half: int) -> np.ndarray:
    """Frequencies of -half..half; what is left of ``TOTAL``, at least one, is the escape's."""
    edges = np.arange(-half, half + 2) - 0.5 - mean

    def below(s: float) -> np.ndarray:
        return np.array([0.5 * math.erfc(-edge / (s * math.sqrt(2))) for edge in edges])

    mass = np.diff((1 - TAIL) * below(sigma) + TAIL * below(4 * sigma))
    spare = TOTAL - len(mass) - 1
    return 1 + np.floor(mass * spare).astype(np.int64)


def export(codec: TrainingCodec, path: Path, metadata: dict[str, str]) -> None:
    """Write a weights file; ValueError where a layer cannot be certified."""
    arrays: dict[str, Tensor] = {}
    for name in LAYERS:
        for part, array in integers(codec.layers[name], name).items():
            arrays[f"{name}.{part}"] = array
    every = torch.arange(RATES).float()
    with torch.no_grad():
        gains = torch.exp2(between_anchors(codec.gains, every).double())
        steps = (base_step(every)[:, None] * gains).round().clamp(min=1)
        spread = (between_anchors(codec.hyper_scale, every) * 8).round().clamp(0, SCALES - 1)
    arrays["steps"] = steps.to(torch.int32)
    arrays["hyper_scale"] = spread.to(torch.uint8)
    arrays["pattern"] = codec.pattern.to(torch.int16)
    power, unit = 2 * codec.exponent, float(1 << 15)
    forward = unit * (np.arange(COMPANDED) / unit) ** power
    back = unit * (np.arange(DOMAIN) / unit) ** (1 / power)
    arrays["forward"] = torch.from_numpy(np.minimum(np.rint(forward), DOMAIN - 1).astype(np.uint16))
    arrays["back"] = torch.from_numpy(np.minimum(np.rint(back), COMPANDED - 1).astype(np.uint16))
    sizes, frequencies = tables()
    arrays["tables.sizes"] = torch.from_numpy(sizes)
    arrays["tables.frequencies"] = torch.from_numpy(frequencies)
    for prefix, module in (("analysis", codec.analysis), ("hyper_analysis", codec.hyper_analysis)):
        for name, array in module.state_dict().items():
            arrays[f"{prefix}.{name}"] = array.to(torch.float16).contiguous()
    save_file(arrays, path, metadata)


assert ZERO == 64
