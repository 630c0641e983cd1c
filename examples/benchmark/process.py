"""Running programs as a user does: seconds and peak memory of a whole process.

A process inherits the peak memory of the one that started it (on Linux, the
highest resident size outlives exec), so a large benchmark would measure
itself. This file is therefore also a small program that starts the measured
one; it imports little, and is run by its path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that holds ``rawcodec`` and ``examples``; programs run in it."""


@dataclass(frozen=True)
class Run:
    """One or several runs of a program.

    seconds: wall clock, from start to end of the process; the median.
    megabytes: highest resident memory, in 10^6 bytes; the highest.
    output: what the last run printed.
    processor: seconds of all cores together; the median.
    """

    seconds: float
    megabytes: float
    output: str
    processor: float = 0.0


def run(
    arguments: Iterable[str | Path], times: int = 1, environment: Mapping[str, str] | None = None
) -> Run:
    """Run ``python ARGUMENTS`` in the checkout ``times`` times, each in a fresh process.

    environment: variables to set in addition to this process's own.

    Raises RuntimeError, with what the program said, where it fails.
    """
    words = [str(argument) for argument in arguments]
    command = [sys.executable, "-I", __file__, sys.executable, *words]
    runs = []
    for _ in range(times):
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: failed: {done.stderr.strip()}")
        runs.append(Run(**json.loads(done.stdout)))
    return Run(
        median(r.seconds for r in runs),
        max(r.megabytes for r in runs),
        runs[-1].output,
        median(r.processor for r in runs),
    )


def _measure(command: list[str]) -> int:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    megabytes = usage.ru_maxrss * unit / 1e6
    told = {"seconds": seconds, "megabytes": megabytes, "output": output}
    print(json.dumps({**told, "processor": usage.ru_utime + usage.ru_stime}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(_measure(sys.argv[1:]))
