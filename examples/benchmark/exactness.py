"""The page about decoding to the same everywhere: docs/results/exactness.md."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import tifffile

import rawcodec
from rawcodec import SidecarInfo
from rawcodec.selftest.configured import kernel_names
from rawcodec.selftest.settings import VARIABLES, Setting, settings

from .markdown import page, table, versions
from .pairs import PROGRAMS, Pair
from .process import run

QUALITY = "medium"

TIME_LIMIT = 60.0
"""Seconds; a decode that must be expected to take longer is left out, and the page says so."""

_CONVOLUTION = re.compile(r"exec,cpu,convolution,([^,]+)")


@dataclass(frozen=True)
class Decoded:
    """One decode: SHA-256 of the TIFF's samples, or what the decoder complained of."""

    digest: str
    seconds: float
    complaint: str = ""


@dataclass(frozen=True)
class Checked:
    """A pair's sidecar, decoded with settings; those left out are missing.

    kernels: the convolutions of oneDNN that ran, by setting; only of the first
    pair.
    """

    pair: Pair
    info: SidecarInfo
    decoded: dict[Setting, Decoded]
    kernels: dict[Setting, list[str]] = field(default_factory=dict)

    def exact(self, setting: Setting) -> bool:
        """Whether the samples are those that the encoder saw."""
        found = self.decoded[setting]
        # the header holds the first half of the digest
        return found.digest.startswith(self.info.mosaic_digest) and not found.complaint


def command(quality: str) -> str:
    """The command that makes the page."""
    name = "python -m examples.benchmark exactness"
    return name if quality == QUALITY else f"{name} --quality {quality}"


def run_all(pairs: Sequence[Pair], out: Path, scratch: Path, quality: str = QUALITY) -> None:
    """Decode every pair with every setting, and write ``exactness.md`` to ``out``."""
    everything = settings(kernel_names())
    rate = dict.fromkeys(everything, 0.0)  # seconds a site, the highest seen
    checked: dict[Pair, Checked] = {}
    with _without(VARIABLES):
        # from small to large, so that a setting's time is known before it is long
        for pair in sorted(pairs, key=lambda pair: pair.raw.stat().st_size):
            checked[pair] = _check(pair, rate, scratch, quality, not checked)
    out.mkdir(parents=True, exist_ok=True)
    results = [checked[pair] for pair in pairs]
    (out / "exactness.md").write_text(_page(everything, results, quality), encoding="utf-8")


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """This process without variables that would reach the decoders."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _check(
    pair: Pair, rate: dict[Setting, float], scratch: Path, quality: str, first: bool
) -> Checked:
    sidecar, tiff = scratch / "exactness.rmeta", scratch / "exactness.tiff"
    _progress(f"{pair.name}: encoding")
    common = ["--device", "cpu", "--force", "-o"]
    run(["-m", "rawcodec", "encode", pair.raw, pair.jpeg, "--quality", quality, *common, sidecar])
    info = rawcodec.inspect(sidecar)
    sites = info.width * info.height
    checked = Checked(pair, info, {})
    for setting in rate:
        if rate[setting] * sites > TIME_LIMIT:
            continue
        _progress(f"{pair.name}: {setting.name}")
        program = ["rawcodec.selftest.configured", *setting.options]
        if not setting.options:
            program = ["rawcodec"]
        words = ["-m", *program, "decode", pair.jpeg, sidecar, *common, tiff]
        tiff.unlink(missing_ok=True)
        try:
            done = run(words, environment=dict(setting.environment))
        except RuntimeError as error:
            said = str(error).partition("failed: ")[2].replace(f"{scratch}{os.sep}", "")
            checked.decoded[setting] = Decoded("", 0.0, said or str(error))
            continue
        samples = np.ascontiguousarray(tifffile.imread(tiff), dtype="<u2")
        digest = hashlib.sha256(samples.data).hexdigest()
        checked.decoded[setting] = Decoded(digest, done.seconds)
        rate[setting] = max(rate[setting], done.seconds / sites)
        if first:
            verbose = run(words, environment={**dict(setting.environment), "ONEDNN_VERBOSE": "1"})
            checked.kernels[setting] = sorted(set(_CONVOLUTION.findall(verbose.output)))
    return checked


def _page(everything: Sequence[Setting], checked: Sequence[Checked], quality: str) -> str:
    made = f"Made by `{command(quality)}`."
    return page(
        "# Decoding to the same everywhere",
        f"Every pair is encoded once, with `--quality {quality}`, and decoded with each setting "
        "below, each time in a fresh process. A setting passes where SHA-256 over the samples "
        "of the TIFF that it wrote, read back with tifffile, is that which the encoder stored. "
        "One command, run in the checkout with the extra `benchmark` installed; FOLDER holds the "
        "photos:",
        f"```\n{command(quality)} --data FOLDER --out docs/results\n```",
        versions(),
        f"{_verdict(everything, checked)} {made}",
        "## The settings",
        "Variables are set for `rawcodec decode`; options are those of `python -m "
        "rawcodec.selftest.configured`, which sets what rawcodec has no options for and then "
        "runs it: `--no-onednn` takes oneDNN from PyTorch, `--kernel` has every network computed "
        "by one of rawcodec's kernels, and `--band` makes every layer compute so many rows at a "
        "time. *Convolutions* are those of oneDNN that ran on the smallest pair, as "
        "`ONEDNN_VERBOSE=1` tells, and show that a setting takes effect; seconds are the median "
        "over the pairs, of the whole process.",
        table(
            ["setting", "by", "convolutions", "pairs:", "exact:", "decode, s:"],
            [_setting_row(setting, checked) for setting in everything],
        ),
        made,
        "## Every pair",
        table(
            ["photo", "JPEG by", "SHA-256 of the samples", *(s.name for s in everything)],
            [
                [
                    c.pair.photo,
                    PROGRAMS[c.pair.program],
                    f"`{c.info.mosaic_digest[:16]}`",
                    *(_cell(c, setting) for setting in everything),
                ]
                for c in checked
            ],
        ),
        f"\u2713 is exact, \u2013 left out. {made}",
        *_complaints(checked),
    )


def _setting_row(setting: Setting, checked: Sequence[Checked]) -> list[object]:
    done = [c for c in checked if setting in c.decoded]
    good = sum(c.exact(setting) for c in done)
    seconds = [c.decoded[setting].seconds for c in done if not c.decoded[setting].complaint]
    kernels = [name for c in checked for name in c.kernels.get(setting, [])]
    return [
        setting.name,
        setting.how,
        ", ".join(f"`{name}`" for name in kernels) or "none",
        len(done),
        good if good == len(done) else f"**{good}**",
        f"{median(seconds):.2f}" if seconds else "",
    ]


def _cell(checked: Checked, setting: Setting) -> str:
    if setting not in checked.decoded:
        return "\u2013"
    return "\u2713" if checked.exact(setting) else "**NO**"


def _verdict(everything: Sequence[Setting], checked: Sequence[Checked]) -> str:
    done = [(c, setting) for c in checked for setting in everything if setting in c.decoded]
    wrong = [f"{c.pair.name} with {s.name}" for c, s in done if not c.exact(s)]
    left_out = len(checked) * len(everything) - len(done)
    text = (
        f"All {len(done)} decodes ({len(checked)} pairs, {len(everything)} settings) are exact."
        if not wrong
        else f"**{len(wrong)} of {len(done)} decodes are not exact: {', '.join(wrong)}.**"
    )
    if left_out:
        text += (
            f" {left_out} were left out, because smaller pairs show that they would take more "
            f"than {TIME_LIMIT:.0f} s."
        )
    return text


def _complaints(checked: Sequence[Checked]) -> list[str]:
    said: dict[str, list[str]] = {}
    for c in checked:
        for setting, found in c.decoded.items():
            if found.complaint:
                said.setdefault(found.complaint, []).append(f"{c.pair.name} with {setting.name}")
    lines = [f"- {', '.join(where)}: {complaint}" for complaint, where in said.items()]
    return ["What the decoder said where it failed:", "\n".join(lines)] if lines else []


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
