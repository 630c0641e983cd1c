"""What the systems of the comparison cost: the supplement's table 1, and entropy coding apart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.baselines import nam, r2lcm
from examples.baselines.interface import System
from examples.baselines.lineup import OURS, Entry, named, own_picture
from examples.baselines.ours import Rawcodec
from examples.baselines.protocol import Photo, render, save
from examples.baselines.r2lcm_serial import DecodeTime, R2LCMSerial
from rawcodec.model.config import operations_per_site
from rawcodec.model.store import load_model
from rawcodec.model.tables import Tables
from rawcodec.weights import installed_model, models

from .markdown import table
from .measured import Result
from .paper_sooner import sooner
from .stages import timed

HEIGHT, WIDTH = 2920, 4386
"""Of the photo of the supplement's table 1."""

PICTURE = "90"

RIVALS = (
    "InvISP",
    "SAM, 0.000956",
    "SAM, 0.00952",
    "Nam et al.",
    "Nam et al., fine-tuned",
    "R2LCM, 0.05",
    "Nguyen and Brown",
)
"""Whose seconds are measured, by the names of entries; serial R2LCM comes beside them."""

SETTINGS = "tone", "low", "medium"
"""Of rawcodec, whose seconds are measured too."""

BASE = "low"
"""The setting that all rivals' seconds are compared with, whatever the fidelity."""

PART = {"InvISP": 8, "Nam et al., fine-tuned": 8}
"""What is timed on one in so many of the photo's rows; its seconds are taken times that."""

SERIAL_CROP = 512, 512
COUNTED = 128
"""Rows and columns of the crop on which operations are counted."""

PUBLISHED = {
    "InvISP": "1.41 M, 18.06 T, 5.13 s",
    "SAM, 0.000956": "16.40 s",
    "SAM, 0.00952": "103.92 s",
    "Nam et al.": "2.59 M, 5.23 T, 1.50 s",
    "R2LCM, 0.05": "0.55 M, 5.82 T, 1.60 + 6.72 s",
    "R2LCM, serial": "0.53 M, more than 10 hours",
}
"""The supplement's table 1: parameters, operations, seconds on one RTX A5000."""

CODING: tuple[tuple[Any, str], ...] = (
    (r2lcm.StreamCoder, "hyper"),
    (r2lcm.StreamCoder, "latents"),
    (nam, "pack"),
    (nam, "unpack"),
    (Tables, "code"),
)
"""Where systems code symbols, model probabilities included."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a photo of ``HEIGHT`` x ``WIDTH``; coding: of them, those of entropy coding."""

    name: str
    size: int
    encode: float
    encode_coding: float
    decode: float
    decode_coding: float

    @property
    def both(self) -> float:
        """Seconds of encoding and decoding."""
        return self.encode + self.decode

    def times(self, parts: int) -> Cost:
        """All seconds times a number."""
        return replace(
            self,
            encode=parts * self.encode,
            encode_coding=parts * self.encode_coding,
            decode=parts * self.decode,
            decode_coding=parts * self.decode_coding,
        )


def enlarged(photo: Photo) -> Photo:
    """A photo of ``HEIGHT`` x ``WIDTH``: mirrored at its edges, or cropped."""
    height, width = photo.raw.shape[:2]
    beyond = [(0, max(HEIGHT - height, 0)), (0, max(WIDTH - width, 0)), (0, 0)]
    raw = np.pad(photo.raw, beyond, mode="symmetric")[:HEIGHT, :WIDTH]
    return Photo(photo.name, np.ascontiguousarray(raw), photo.gains, photo.to_srgb)


def upper(photo: Photo, rows: int) -> Photo:
    """The first rows of a photo."""
    raw = np.ascontiguousarray(photo.raw[:rows])
    return Photo(photo.name, raw, photo.gains, photo.to_srgb)


def cost_section(
    entries: Sequence[Entry], results: Sequence[Result], taken: Sequence[Photo], work: Path
) -> list[str]:
    """The part of the page about cost; seconds are kept in ``work`` as they are measured.

    results: of the entries on all photos, which tell whose raw is the better one.
    """
    photo = enlarged(max(taken, key=lambda p: p.raw.size))
    picture = _picture_of(photo)
    chosen = {entry.name: entry for entry in entries}
    names = [*RIVALS, *(named(OURS, setting) for setting in SETTINGS)]
    costs = {name: _cost(chosen[name], photo, picture, work / "cost.jsonl") for name in names}
    serial = R2LCMSerial()
    decoding = serial.decode_time(photo.raw, picture, crop=SERIAL_CROP)
    return [
        "## Cost",
        _conditions(photo),
        table(
            ["system", "parameters:", "operations:", "compress, s:", "decompress, s:", "both, s:",
             "published, on a GPU"],
            [
                *(_row(chosen[name].make(), cost) for name, cost in costs.items()),
                _serial_row(serial, decoding),
            ],
        ),
        "What rawcodec takes goes to what is fitted to each photo (tone layer, filters) more than "
        "to its network; `tone` has neither network nor filters. Nam et al. without fine-tuning, "
        "SAM, and Nguyen and Brown fit little or nothing.",
        _serial_sentence(decoding, costs),
        *sooner(results, {name: cost.both for name, cost in costs.items()}, RIVALS, SETTINGS, BASE),
    ]  # fmt: skip


def _conditions(photo: Photo) -> str:
    return (
        f"One photo of {HEIGHT} x {WIDTH} pixels ({photo.name}, mirrored beyond its edges), with a "
        f"JPEG of quality {PICTURE}, on the CPU with all its cores: seconds of one run, and of "
        "these, behind the plus sign, those of entropy coding. "
        + "".join(f"{name}'s are of 1/{n} of the rows, times {n}. " for name, n in PART.items())
        + "Operations are multiply-accumulates of the networks, each run once: counted by "
        f"PyTorch's `FlopCounterMode` on {COUNTED} x {COUNTED} pixels and taken times the pixels; "
        "rawcodec's from its layers (`rawcodec.model.config.operations_per_site`), its decoder's "
        "alone, at three values a pixel. rawcodec's seconds include what the others leave out: "
        "reading a DNG, aligning, fitting tone layer and filters, checksums."
    )


def _row(system: System, cost: Cost) -> list[str]:
    return [
        cost.name,
        *size_of(system),
        _parts(cost.encode, cost.encode_coding),
        _parts(cost.decode, cost.decode_coding),
        f"{cost.both:.1f}",
        PUBLISHED.get(cost.name, ""),
    ]


def _serial_row(serial: R2LCMSerial, decoding: DecodeTime) -> list[str]:
    published = PUBLISHED["R2LCM, serial"]
    return [serial.name, *size_of(serial), "", f"{decoding.extrapolated:.0f}", "", published]


def _serial_sentence(decoding: DecodeTime, costs: Mapping[str, Cost]) -> str:
    base = costs[named(OURS, BASE)]
    return (
        "The serial form decodes one position after the other, with weights that are not trained: "
        f"{decoding}, {decoding.extrapolated / base.decode:.1f} times as long as {base.name} takes "
        "to decompress. Without trained weights it has no PSNR of its own."
    )


def _picture_of(photo: Photo) -> bytes:
    return save(render(photo.raw, photo.gains, photo.to_srgb), PICTURE)


def _cost(entry: Entry, photo: Photo, picture: bytes, path: Path) -> Cost:
    """Of the whole photo, by what a part of it takes where ``PART`` says so."""
    parts = PART.get(entry.name, 1)
    if parts == 1:
        return _kept(path, entry, photo, picture)
    part = upper(photo, HEIGHT // parts)
    return _kept(path, entry, part, _picture_of(part)).times(parts)


def _parts(seconds: float, coding: float) -> str:
    if not coding:
        return f"{seconds:.1f}"
    return f"{seconds - coding:.1f} + {coding:.1f} = {seconds:.1f}"


def _kept(path: Path, entry: Entry, photo: Photo, picture: bytes) -> Cost:
    key = f"{entry.fingerprint()} {entry.name} {photo.name} {len(picture)}"
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            known = json.loads(line)
            if known.pop("key") == key:
                return Cost(**known)
    cost = measure(entry, photo, picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, **asdict(cost)}) + "\n")
    return cost


def measure(entry: Entry, photo: Photo, picture: bytes) -> Cost:
    """Encode and decode once."""
    system = entry.make()
    if entry.renders:
        picture = own_picture(system, photo.raw, picture, PICTURE)
    seconds: dict[str, float] = {}
    with coding_timed(seconds):
        data, encode = _taken(lambda: system.encode(photo.raw, picture))
        encode_coding = seconds.pop("coding", 0.0)
        _, decode = _taken(lambda: system.decode(data, picture))
    decode_coding = seconds.get("coding", 0.0)
    return Cost(entry.name, len(data), encode, encode_coding, decode, decode_coding)


def _taken(function: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begun


@contextmanager
def coding_timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds of entropy coding to ``seconds["coding"]`` for a while."""
    with ExitStack() as stack:
        for owner, name in CODING:
            wrapped = timed(getattr(owner, name), "coding", seconds)
            stack.enter_context(patch.object(owner, name, wrapped))
        yield


def size_of(system: System) -> tuple[str, str]:
    """Parameters and operations of a photo of ``HEIGHT`` x ``WIDTH``, as printed."""
    pixels = HEIGHT * WIDTH
    network = getattr(system, "network", None)
    if network is None:
        # the tone layer alone runs without the installed model
        if not isinstance(system, Rawcodec) or system.name == Rawcodec("tone").name:
            return "none", ""
        model = load_model(installed_model(models()[0]))
        count = sum(w.numel() + b.shape[-1] for w, _, b in model.layers.values())
        return f"{count / 1e6:.2f} M", f"{3 * operations_per_site() * pixels / 1e12:.2f} T"
    count = sum(p.numel() for p in network.parameters())
    raw, shown = torch.rand(2, 1, 3, COUNTED, COUNTED)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _once(system, raw, shown)
    operations = counter.get_total_flops() / 2 / COUNTED**2 * pixels
    return f"{count / 1e6:.2f} M", f"{operations / 1e12:.2f} T"


def _once(system: System, raw: torch.Tensor, shown: torch.Tensor) -> None:
    """Run all networks of a system once."""
    if isinstance(system, r2lcm.R2LCM):
        system.network.eval()
        system.loss(raw, shown, 0.0)
    elif isinstance(system, nam.Nam):
        own = system.network.association(shown, raw)
        mask = nam.at_places(nam.places(own[:, 4:5]))
        system.network.reconstruct(shown, mask, raw)
    else:
        system.network.inverse(shown)
