"""Runs the decoder with settings, each in a fresh process, and says what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .settings import CUDA, DEFAULT, VARIABLES, Setting, settings
from .vectors import vectors

_PATIENCE: Final = 600.0
"""Seconds that a process has; a machine that takes longer has stopped."""


@dataclass(frozen=True)
class Tested:
    """What a setting came to.

    exact: how many of the sidecars decoded to what they should; of ``count``.
    kernel: what the networks were computed with; empty if nothing was.
    fault: what is wrong, on one line; empty if nothing is.
    """

    setting: Setting
    exact: int
    count: int
    kernel: str
    seconds: float
    fault: str


def run(*, everything: bool) -> Iterator[Tested]:
    """Tests the default, and CUDA where it can be used; or all settings.

    Raises RawcodecError where the golden sidecars are missing.
    """
    import torch

    from .configured import kernel_names

    vectors()
    chosen = settings(kernel_names()) if everything else [DEFAULT]
    if torch.cuda.is_available():
        chosen.append(CUDA)
    for setting in chosen:
        yield _tested(setting)


def _tested(setting: Setting) -> Tested:
    wanted = {vector.name: vector.digest for vector in vectors()}
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    options = [*setting.options, "--device", setting.device]
    command = [sys.executable, "-m", "rawcodec.selftest.decoding", *options]
    try:
        done = subprocess.run(
            command,
            env={**kept, **dict(setting.environment)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Tested(setting, 0, len(wanted), "", _PATIENCE, f"took over {_PATIENCE:.0f} s")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    exact = sum(each["digest"] == wanted.get(each["name"]) for each in found)
    faults = [
        each["error"] or f"{each['name']} decodes to something else"
        for each in found
        if each["digest"] != wanted.get(each["name"])
    ]
    if done.returncode:
        said = done.stderr.strip().splitlines()
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        faults.append(f"ended with {how}" + (f": {said[-1]}" if said else ""))
    elif len(found) < len(wanted):
        faults.append("did not decode all")
    kernel = found[0]["kernel"] if found else ""
    seconds = sum(each["seconds"] for each in found)
    return Tested(setting, exact, len(wanted), kernel, seconds, "; ".join(faults))
