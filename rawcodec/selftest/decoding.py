"""Decodes the golden sidecars with a setting, in a process of its own.

::

    python -m rawcodec.selftest.decoding --kernel float32 --device cpu

Prints a JSON object a sidecar: its name, the digest that it decoded to or what went wrong, and
the kernel that the networks were computed with.
"""

from __future__ import annotations

import argparse
import json
import time

from ..errors import RawcodecError
from . import configured
from .vectors import vectors


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rawcodec.selftest.decoding")
    configured.add_settings(parser)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    configured.apply(chosen)

    from ..model import kernels
    from ..pipeline import decode_photo

    place = "cuda" if chosen.device == "cuda" else "cpu"
    kernel = chosen.kernel or kernels.best_kernel(place)
    for vector in vectors():
        started = time.perf_counter()
        found = {"name": vector.name, "kernel": kernel, "digest": None, "error": None}
        try:
            sidecar = vector.sidecar.read_bytes()
            mosaic = decode_photo(
                vector.jpeg, sidecar, device=chosen.device, name=str(vector.sidecar)
            )
            found["digest"] = mosaic.digest().hex()
        except RawcodecError as error:
            found["error"] = str(error)
        print(json.dumps({**found, "seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
