"""Settings that rawcodec has no options for, and its command line with them.

::

    python -m rawcodec.selftest.configured --no-onednn decode photo.jpg photo.rmeta

Each setting must exist: one that is gone fails here, rather than test nothing.
"""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import Any

# Where the settings live: a module, and a name in it; for bands, how many sites one of its rows is.
_BANDS = ("rawcodec.pipeline", "BAND", 1), ("rawcodec.model.latents", "BAND", 4)
_KERNELS = "rawcodec.model.kernels", "KERNELS"


def kernel_names() -> tuple[str, ...]:
    """The kernels that the networks can be computed with."""
    return tuple(_existing(importlib.import_module(_KERNELS[0]), _KERNELS[1]))


def set_kernel(name: str) -> None:
    """Compute the networks with this kernel, whichever is asked for."""
    kernels = _existing(importlib.import_module(_KERNELS[0]), _KERNELS[1])
    kernels.update(dict.fromkeys(kernels, kernels[name]))


def set_band(rows: int) -> None:
    """Compute so many rows of sites at a time, in every layer."""
    for path, name, sites in _BANDS:
        module = importlib.import_module(path)
        _existing(module, name)
        setattr(module, name, max(1, rows // sites))


def set_onednn(enabled: bool) -> None:
    """Let PyTorch use oneDNN, or its own kernels alone."""
    import torch

    torch.backends.mkldnn.set_flags(enabled)  # type: ignore[no-untyped-call]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options for the settings, which ``apply`` applies."""
    parser.add_argument("--band", type=int, metavar="ROWS")
    parser.add_argument("--kernel", metavar="NAME")
    parser.add_argument("--no-onednn", action="store_true")


def apply(chosen: argparse.Namespace) -> None:
    """Sets what was asked for, in this process."""
    if chosen.band is not None:
        set_band(chosen.band)
    if chosen.kernel is not None:
        set_kernel(chosen.kernel)
    if chosen.no_onednn:
        set_onednn(False)


def _existing(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__}: has no {name}; correct {__file__}")
    return getattr(module, name)


def main() -> None:
    """Sets what is asked for, and runs rawcodec with the rest."""
    parser = argparse.ArgumentParser(prog="python -m rawcodec.selftest.configured")
    add_settings(parser)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    apply(chosen)

    from ..cli import main as rawcodec_main

    rawcodec_main(chosen.arguments)


if __name__ == "__main__":
    main()
